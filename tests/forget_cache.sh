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
# Where podman keeps what does not outlive a restart of the machine; named as in the role's templates.
run=/run/trafficshift-lab/$(printf %s "$cache" | sha256sum | cut -c1-12)
# podman mounts its storage on itself.
while read -r mounted; do umount "$mounted"; done < <(
  awk -v cache="$cache/" -v run="$run/" 'index($5, cache) == 1 || index($5, run) == 1 {print $5}' /proc/self/mountinfo
)
rm -rf "$cache" "$run"
