#!/usr/bin/env bash
# Makes two Debian root filesystems with the machine's own package sources: node.tar with systemd and containerd,
# and net.tar, a small one with iptables for the images that set packet filters.
set -o errexit -o nounset -o pipefail
suite=$1
shift
sources=()
for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources; do
  [[ -s $file ]] && sources+=("$file")
done
slim=(--aptopt='Apt::Install-Recommends "false"')
for path in man doc locale info lintian; do
  slim+=(--dpkgopt="path-exclude=/usr/share/$path/*")
done
echo "unpacking the small root filesystem"
# shellcheck disable=SC2016 # the hooks are scripts of their own, with the root as their $1
# Unpacked only, nothing configured: what configuration would have set up for iptables and users is done by the hook.
mmdebstrap --quiet --variant=extract "${slim[@]}" --include=iptables,dash,coreutils,ca-certificates \
  --extract-hook='for name in iptables iptables-save iptables-restore ip6tables ip6tables-save ip6tables-restore; do
    ln -sf xtables-nft-multi "$1/usr/sbin/$name"; done
    mkdir -p "$1/etc" "$1/etc/ssl/certs" "$1/tmp" "$1/run"
    ln -sf dash "$1/bin/sh"
    printf "root:x:0:0:root:/root:/bin/sh\nistio-proxy:x:1337:1337::/home/istio-proxy:/bin/sh\n" >"$1/etc/passwd"
    printf "root:x:0:\nistio-proxy:x:1337:\n" >"$1/etc/group"
    cat "$1"/usr/share/ca-certificates/mozilla/*.crt >"$1/etc/ssl/certs/ca-certificates.crt"' \
  "$suite" "$OUT/net.tar" "${sources[@]}"
echo "installing the node's root filesystem"
# shellcheck disable=SC2016
mmdebstrap --quiet --variant=minbase "${slim[@]}" --include="$(IFS=,; echo "$*")" \
  --customize-hook='rm -f "$1/etc/machine-id" "$1/etc/hostname" "$1/etc/resolv.conf"; rm -rf "$1"/etc/cni/net.d/*' \
  "$suite" "$OUT/node.tar" "${sources[@]}"
