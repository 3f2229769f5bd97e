#!/usr/bin/env bash
# Writes the node image, the control plane's images and Istio's images as archives in $OUT.
# Usage: images.sh FILES_DIR KUBERNETES_DIR ISTIO_DIR ENVOY ROOTS_DIR KUBERNETES_VERSION ISTIO_HUB ISTIO_TAG
set -o errexit -o nounset -o pipefail
files=$1 kubernetes=$2 istio=$3 envoy=$4 roots=$5 version=$6 hub=$7 tag=$8
# Named after the key that the cache files this under, the last part of $OUT's name.
node_image=${OUT##*-}
node_image=$hub/node:${node_image%%.*}
scratch=$(mktemp -d "$OUT/scratch.XXXXXX")
trap 'rm -rf "$scratch"' EXIT
bin=$kubernetes/bin

# kubeadm looks for exactly these names.
"$bin/kubeadm" config images list --kubernetes-version "$version" >"$scratch/names"
name() { grep "/$1:" "$scratch/names"; }

cp -r "$files/node" "$scratch/node"
sed -i "s|@PAUSE_IMAGE@|$(name pause)|" "$scratch/node/etc/containerd/config.toml"
printf '%s' "$version" >"$scratch/version"

echo "writing the control plane's images"
cat >"$scratch/system.json" <<EOF
[
  {"name": "$(name kube-apiserver)", "layers": [[["$bin/kube-apiserver", "/usr/local/bin/kube-apiserver", "755"]]],
   "config": {"Env": ["PATH=/usr/local/bin"]}},
  {"name": "$(name kube-controller-manager)", "layers": [[["$bin/kube-controller-manager", "/usr/local/bin/kube-controller-manager", "755"]]],
   "config": {"Env": ["PATH=/usr/local/bin"]}},
  {"name": "$(name kube-scheduler)", "layers": [[["$bin/kube-scheduler", "/usr/local/bin/kube-scheduler", "755"]]],
   "config": {"Env": ["PATH=/usr/local/bin"]}},
  {"name": "$(name etcd)", "layers": [[["$bin/etcd", "/usr/local/bin/etcd", "755"]]],
   "config": {"Env": ["PATH=/usr/local/bin"]}},
  {"name": "$(name coredns)", "layers": [[["$bin/coredns", "/coredns", "755"]]],
   "config": {"Entrypoint": ["/coredns"]}},
  {"name": "$(name pause)", "layers": [[["$(command -v catatonit)", "/pause", "755"]]],
   "config": {"Entrypoint": ["/pause", "-P"]}},
  {"name": "$(name kube-proxy)", "layers": ["$roots/net.tar", [["$bin/kube-proxy", "/usr/local/bin/kube-proxy", "755"]]],
   "config": {"Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]}}
]
EOF
mkdir "$OUT/system"
python3 "$files/build/image_archive.py" "$OUT/system/images.tar" "$scratch/system.json"

echo "writing Istio's images"
cat >"$scratch/mesh.json" <<EOF
[
  {"name": "$hub/pilot:$tag", "layers": [[["$istio/bin/pilot-discovery", "/usr/local/bin/pilot-discovery", "755"]]],
   "config": {"Entrypoint": ["/usr/local/bin/pilot-discovery"], "User": "1337:1337"}},
  {"name": "$hub/proxyv2:$tag",
   "layers": ["$roots/net.tar", [
     ["$istio/bin/pilot-agent", "/usr/local/bin/pilot-agent", "755"],
     ["$envoy", "/usr/local/bin/envoy", "755"],
     ["$istio/envoy_bootstrap_tmpl.json", "/var/lib/istio/envoy/envoy_bootstrap_tmpl.json", "644"]]],
   "config": {"Entrypoint": ["/usr/local/bin/pilot-agent"],
              "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]}},
  {"name": "$hub/tcp-echo-server:$tag", "layers": [[["$istio/bin/tcp-echo", "/bin/tcp-echo", "755"]]],
   "config": {"Entrypoint": ["/bin/tcp-echo"]}}
]
EOF
python3 "$files/build/image_archive.py" "$OUT/mesh.tar" "$scratch/mesh.json"

mkdir "$OUT/bin"
cp "$bin/kubectl" "$istio/bin/istioctl" "$OUT/bin/"

echo "writing the node image"
{
  (cd "$scratch/node" && find . -type f -printf '%P %m\n') | while read -r path mode; do
    printf '["%s", "/%s", "%s"],\n' "$scratch/node/$path" "$path" "$mode"
  done
  for program in kubeadm kubectl kubelet; do
    printf '["%s", "/usr/bin/%s", "755"],\n' "$bin/$program" "$program"
  done
  printf '["%s", "/kind/version", "644"]\n' "$scratch/version"
} >"$scratch/entries"
cat >"$scratch/node.json" <<EOF
[{"name": "$node_image", "layers": ["$roots/node.tar", [$(cat "$scratch/entries")]],
  "config": {"Entrypoint": ["/usr/local/bin/entrypoint"], "StopSignal": "SIGRTMIN+3", "Env": ["container=docker",
             "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]}}]
EOF
python3 "$files/build/image_archive.py" "$OUT/node.tar" "$scratch/node.json"
