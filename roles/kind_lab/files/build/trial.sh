#!/usr/bin/env bash
# Writes an image with one static program, to try a container engine with.
# Usage: trial.sh PYTHON PROGRAM
set -o errexit -o nounset -o pipefail
cat >"$OUT/spec.json" <<EOF
[{"name": "localhost/trafficshift/trial:1", "layers": [[["$2", "/program", "755"]]],
  "config": {"Entrypoint": ["/program", "version"]}}]
EOF
"$1" "$(dirname "$0")/image_archive.py" "$OUT/trial.tar" "$OUT/spec.json"
rm "$OUT/spec.json"
