#!/usr/bin/env bash
# Removes the lab's cache, unless another lab still uses it.
set -o errexit -o nounset -o pipefail
cache=${TRAFFICSHIFT_CACHE:-$HOME/.cache/trafficshift-lab}
[[ -d $cache ]] || exit 0
labs=$(ls "$cache/labs" 2>/dev/null || true)
if [[ -n $labs ]]; then
  echo "The cache $cache stays, because these labs use it: $labs"
  exit 0
fi
# podman mounts its storage on itself.
while read -r mounted; do umount "$mounted"; done < <(awk -v top="$cache/" 'index($5, top) == 1 {print $5}' /proc/self/mountinfo)
rm -rf "$cache"
