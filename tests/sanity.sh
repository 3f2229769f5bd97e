#!/usr/bin/env bash
# Runs ansible-test sanity on what git tracks, copied to where ansible-test wants a collection to lie.
set -o errexit -o nounset -o pipefail
cd "$(dirname "$0")/.."
top=$PWD
copy=$top/.cache/sanity/ansible_collections/trafficshift/istio
rm -rf .cache/sanity
mkdir -p "$copy"
git ls-files --cached --others --exclude-standard -z | while IFS= read -r -d '' file; do
  [[ ! -e $file ]] || cp --parents "$file" "$copy"
done

# ansible-test downloads get-pip.py to fill its virtual environments, which not every network allows. Found in its
# cache, this stands in for it: pip itself, asked to install into the other environment.
export HOME=$top/.cache/sanity-home
mkdir -p "$HOME/.ansible/test/cache"
version=$(python -c '
from ansible_test._internal.python_requirements import get_venv_packages
from types import SimpleNamespace
print(get_venv_packages(SimpleNamespace(version="3.11"))["pip"])')
cat >"$HOME/.ansible/test/cache/get_pip_${version//./_}.py" <<EOF
import subprocess, sys
arguments = [a for a in sys.argv[1:] if a not in ("--no-setuptools", "--no-wheel")]
sys.exit(subprocess.call(["$top/.venv/bin/python", "-m", "pip", "--python", sys.executable, "install", *arguments]))
EOF

# Its modules build on kubernetes.core, which has to lie beside it.
cp -r "$(python -c 'import ansible_collections, os; print(list(ansible_collections.__path__)[0])')/kubernetes" "$copy/../../"

cd "$copy"
git init --quiet .
git add --all
exec ansible-test sanity --color no --requirements --venv \
  --python "$(python -c 'import sys; print("%d.%d" % sys.version_info[:2])')"
