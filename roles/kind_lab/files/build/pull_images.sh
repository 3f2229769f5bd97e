#!/usr/bin/env bash
# Pulls images and writes them as one archive, $OUT/mesh.tar.
# Usage: pull_images.sh ENGINE IMAGE...
set -o errexit -o nounset -o pipefail
engine=$1
shift
for image in "$@"; do
  echo "pulling $image"
  "$engine" pull --quiet "$image"
done
several=()
[[ $engine != podman ]] || several=(--multi-image-archive)
"$engine" save "${several[@]}" --output "$OUT/mesh.tar" "$@"
