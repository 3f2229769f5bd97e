# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The collection as a user installs it: the tarball is built, installed elsewhere, and documents itself."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
PLUGINS = [
    (kind, path.stem)
    for kind, directory in (("module", "modules"), ("filter", "filter"))
    for path in sorted((TOP / "plugins" / directory).glob("*.y*ml" if kind == "filter" else "*.py"))
]
ROLES = sorted(path.name for path in (TOP / "roles").iterdir())


@pytest.fixture(scope="module")
def tracked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what git tracks or would track: what a fresh clone has."""
    copy = tmp_path_factory.mktemp("clone")
    listed = subprocess.check_output(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"], cwd=TOP, text=True
    )
    for name in filter(None, listed.split("\0")):
        if (TOP / name).exists():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(TOP / name, copy / name)
    return copy


@pytest.fixture(scope="module")
def installed(tracked: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory that the built tarball was installed into."""
    build, target = tmp_path_factory.mktemp("build"), tmp_path_factory.mktemp("installed")
    galaxy = str(BIN / "ansible-galaxy")
    subprocess.run([galaxy, "collection", "build", "--output-path", str(build)], cwd=tracked, check=True)
    (tarball,) = build.glob("trafficshift-istio-*.tar.gz")
    # Without its dependency, which comes from Galaxy for users and with the ansible package here; by force, because the
    # environment may have the checkout itself installed already.
    subprocess.run(
        [galaxy, "collection", "install", str(tarball), "--no-deps", "--force", "-p", str(target)],
        cwd=build,
        check=True,
    )
    return target


def doc(installed: Path, *arguments: str) -> str:
    env = {**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(installed), "ANSIBLE_CONFIG": str(installed / "none.cfg")}
    process = subprocess.run(
        [str(BIN / "ansible-doc"), *arguments], cwd=installed, env=env, capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stderr
    return process.stdout


@pytest.mark.parametrize(("kind", "name"), PLUGINS)
def test_every_plugin_is_documented(installed: Path, kind: str, name: str) -> None:
    full = f"trafficshift.istio.{name}"
    described = json.loads(doc(installed, "--json", "--type", kind, full))[full]
    assert described["doc"]["short_description"]
    assert described["examples"]


@pytest.mark.parametrize("name", ROLES)
def test_every_role_is_documented(installed: Path, name: str) -> None:
    full = f"trafficshift.istio.{name}"
    described = json.loads(doc(installed, "--json", "--type", "role", full))[full]
    assert described["entry_points"]["main"]["options"]


def test_nothing_of_the_workshop_is_in_the_tarball(installed: Path) -> None:
    top = installed / "ansible_collections/trafficshift/istio"
    assert not [name for name in (".venv", ".cache", ".ci", "reports", "build", ".git") if (top / name).exists()]
    assert (top / "roles/kind_lab/files/build/go_build.sh").stat().st_mode & 0o111
