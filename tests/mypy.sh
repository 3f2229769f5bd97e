#!/usr/bin/env bash
# Type-checks the plugins under the names they are imported by.
set -o errexit -o nounset -o pipefail
cd "$(dirname "$0")/../.venv/collections"
exec mypy --config-file ansible_collections/trafficshift/istio/pyproject.toml \
  --cache-dir ansible_collections/trafficshift/istio/.mypy_cache -p ansible_collections.trafficshift.istio.plugins
