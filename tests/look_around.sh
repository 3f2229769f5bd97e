#!/usr/bin/env bash
# Says how to look around in the lab, with what the lab recorded.
set -o errexit -o nounset -o pipefail
lab=${TRAFFICSHIFT_CACHE:-$HOME/.cache/trafficshift-lab}/labs/$1
read_key() { python -c 'import json, sys; print(json.load(open(sys.argv[1]))[sys.argv[2]])' "$lab/lab.json" "$1"; }
other=
[[ $1 == trafficshift ]] || other=" LAB=$1"
cat <<EOF

The reports are in reports/. To look around:
  export KUBECONFIG=$(read_key kubeconfig)
  $(read_key kubectl) get virtualservice,destinationrule,gateway,pods
  $(read_key istioctl) proxy-status
  (date; sleep 1) | nc 127.0.0.1 $(read_key port)
To remove all of it: make clean${other}
EOF
