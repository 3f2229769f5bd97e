# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What tests/run.py repeats of a stage that failed."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

PATH = Path(__file__).resolve().parents[1] / "run.py"
RECAP = "localhost  : ok={} changed=0    unreachable={}    failed={}    skipped=0    rescued=0    ignored=0"
CLEANED = ["PLAY [Clean] *****", "", "TASK [Stop] *****", "changed: [localhost]", RECAP.format(1, 0, 0), "ERROR    end"]


@pytest.fixture(scope="module")
def run() -> Any:
    spec = importlib.util.spec_from_file_location("run", PATH)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_task_that_failed_its_play(run: Any) -> None:
    """Rescued and ignored failures are before it, and the scenario's end comes after it."""
    lines = [
        "TASK [Rescued] ****",
        "fatal: [localhost]: FAILED! =>",
        "    msg: rescued",
        RECAP.format(2, 0, 0),
        "TASK [Its result is complete] ****",
        "[ERROR]: Task failed",
        "fatal: [localhost]: FAILED! =>",
        "    changed: false",
        "    msg: Assertion failed",
        "",
        "TASK [Always, and ignored] ****",
        "fatal: [localhost]: FAILED! =>",
        "    msg: no",
        "...ignoring",
        RECAP.format(1, 0, 1),
        *CLEANED,
    ]
    assert run.what_failed([f"{line}\n" for line in lines]) == [
        "TASK [Its result is complete]",
        "fatal: [localhost]: FAILED! =>",
        "    changed: false",
        "    msg: Assertion failed",
    ]


def test_a_long_result_is_told_by_its_message(run: Any) -> None:
    result = [f"    field{number}: {number}" for number in range(100)]
    lines = ["TASK [Long] *", "fatal: [kind]: FAILED! =>", *result, "    msg: " + 1000 * "m", RECAP.format(0, 0, 1)]
    told = run.what_failed([*lines, *CLEANED])
    assert told == ["TASK [Long]", "fatal: [kind]: FAILED! =>", ("    msg: " + 1000 * "m")[: run.WIDTH]]


def test_a_failure_that_its_play_survived_is_not_told(run: Any) -> None:
    lines = ["TASK [Rescued] ****", "fatal: [localhost]: FAILED! => {}", RECAP.format(2, 0, 0), *CLEANED]
    assert run.what_failed(lines)[-1] == CLEANED[-1]
    assert len(run.what_failed(10 * lines)) == run.TOLD


def test_tests_that_failed(run: Any) -> None:
    lines = ["    def test_it():", "E   assert 1 == 2", "FAILED tests/a.py::test_it - assert 1 == 2", *CLEANED]
    assert run.what_failed(lines) == ["FAILED tests/a.py::test_it - assert 1 == 2"]


def test_a_stage_that_fails_is_repeated_at_the_end(
    run: Any, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    script = "print('why'); raise SystemExit(1)"
    stages = [("bad", "a bad one", [sys.executable, "-c", script], {}), ("good", "a good one", ["true"], {})]
    monkeypatch.setattr(run, "STAGES", stages)
    assert run.main([]) == 1
    assert capfd.readouterr().out.endswith("\n\n=== what failed in a bad one\nwhy\n1 passed, 1 failed\n")
