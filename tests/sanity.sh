#!/bin/bash
# Runs ansible-test sanity on what git tracks, copied to where ansible-test wants a collection to lie.
set -o errexit -o nounset -o pipefail
cd "$(dirname "$0")/.."
copy=$PWD/.cache/sanity/ansible_collections/trafficshift/istio
rm -rf .cache/sanity
mkdir -p "$copy"
git ls-files --cached --others --exclude-standard -z | while IFS= read -r -d '' file; do
  [[ ! -e $file ]] || cp --parents "$file" "$copy"
done
cd "$copy"
git init --quiet .
git add --all
ansible-test sanity --color no --python "$(python -c 'import sys; print("%d.%d" % sys.version_info[:2])')" --requirements --venv
