#!/usr/bin/env bash
# Builds Istio's programs and tcp-echo into $OUT/bin, and takes Istio's bootstrap template of Envoy along.
# Usage: istio_build.sh MODULE_DIR HUB TAG
set -o errexit -o nounset -o pipefail
module=$1 hub=$2 tag=$3
here=$(dirname "$0")
version=istio.io/istio/pkg/version
stamp="-X $version.buildVersion=$tag -X $version.buildTag=$tag -X $version.buildHub=$hub -X $version.buildStatus=Clean"
# disable_pgv leaves out validation code that only other users of Envoy's API call; Istio's own builds set it too.
"$here/go_build.sh" "$module" disable_pgv "$stamp" istio.io/istio/istioctl/cmd/istioctl \
  istio.io/istio/pilot/cmd/pilot-discovery istio.io/istio/samples/tcp-echo/src=tcp-echo
"$here/go_build.sh" "$module" agent,disable_pgv "$stamp" istio.io/istio/pilot/cmd/pilot-agent
cp "$(cd "$module" && go list -m -f '{{.Dir}}' istio.io/istio)/tools/packaging/common/envoy_bootstrap.json" \
  "$OUT/envoy_bootstrap_tmpl.json"
chmod 644 "$OUT/envoy_bootstrap_tmpl.json"
