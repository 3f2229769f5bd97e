#!/usr/bin/env bash
# Makes the virtual environment in .venv, with this checkout linked in it as the collection trafficshift.istio.
# Does nothing where requirements*.txt have not changed since.
set -o errexit -o nounset -o pipefail
cd "$(dirname "$0")/.."

venv=.venv
stamp=$venv/stamp-$(cat requirements*.txt tests/setup.sh | sha256sum | cut -c1-16)
link=$venv/collections/ansible_collections/trafficshift/istio

if [[ ! -f $stamp ]]; then
  # Not the one in the environment that is about to be made anew.
  PATH=${PATH//"$PWD/.venv/bin:"/}
  python=$(command -v python3.11 || command -v python3 || true)
  if [[ -z $python ]] || ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    echo "Python 3.11 or later is needed, and python3 is ${python:-not there}." >&2
    exit 1
  fi
  echo "Setting up the virtual environment (1 to 2 minutes, once)"
  rm -rf "$venv"
  if ! "$python" -m venv "$venv" >/dev/null 2>&1; then
    # Debian keeps the module that fills a virtual environment in a package of its own.
    apt-get update -qq && apt-get install -y -qq python3-venv
    rm -rf "$venv"
    "$python" -m venv "$venv"
  fi
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
fi
mkdir -p "${link%/*}"
ln -sfn "$PWD" "$link"
touch "$stamp"
