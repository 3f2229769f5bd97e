#!/usr/bin/env bash
# Removes the lab's cache, unless it is somebody else's directory or a lab or a build still uses it.
set -o errexit -o nounset -o pipefail
cache=${TRAFFICSHIFT_CACHE:-$HOME/.cache/trafficshift-lab}
[[ -d $cache ]] || exit 0
if ! grep -q trafficshift.istio "$cache/CACHEDIR.TAG" 2>/dev/null; then
  echo "$cache was not made by the lab, so it stays."
  exit 0
fi
labs=$(ls "$cache/labs" 2>/dev/null || true)
if [[ -n $labs ]]; then
  echo "The cache $cache stays, because these labs use it: $labs"
  exit 0
fi
for lock in "$cache"/locks/*; do
  if [[ -e $lock ]] && ! flock --nonblock "$lock" true; then
    echo "The cache $cache stays, because a build is running in it."
    exit 0
  fi
done
# Where podman keeps what does not outlive a restart of the machine; named as in the role's templates.
run=/run/trafficshift-lab/$(printf %s "$cache" | sha256sum | cut -c1-12)
# podman mounts its storage on itself.
while read -r mounted; do umount "$mounted"; done < <(
  awk -v cache="$cache/podman/" -v run="$run/" 'index($5, cache) == 1 || index($5, run) == 1 {print $5}' /proc/self/mountinfo
)
rm -rf "$run"
for part in artifacts bin go labs locks logs podman CACHEDIR.TAG; do
  rm -rf "${cache:?}/$part"
done
rmdir --ignore-fail-on-non-empty "$cache"
