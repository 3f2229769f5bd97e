# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from ansible_collections.trafficshift.istio.plugins.plugin_utils import _process


def test_this_process_lives() -> None:
    here = _process.here()
    assert here.pid == os.getpid()
    assert _process.is_alive(here) is True


def test_another_process_lives_until_it_ends() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        place = _process.here()._replace(pid=process.pid, started=_process._started(process.pid))
        assert _process.is_alive(place) is True
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert _process.is_alive(place) is False  # though its parent has not asked for it yet
    assert _process.is_alive(place) is False


def test_a_process_with_the_same_id_is_another() -> None:
    assert _process.is_alive(_process.here()._replace(started="1")) is False


@pytest.mark.parametrize("namespace", ["", "other/pid:[1]"])
def test_what_runs_elsewhere_cannot_be_told(namespace: str) -> None:
    assert _process.is_alive(_process.here()._replace(namespace=namespace)) is None


def test_without_proc_nothing_can_be_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(_process, "_PROC", tmp_path)
    assert _process.here().namespace == ""
    assert _process.is_alive(_process.here()) is None


def test_the_owner_is_told() -> None:
    assert f"(process {os.getpid()})" in _process.owner()
    assert "@" in _process.owner()
