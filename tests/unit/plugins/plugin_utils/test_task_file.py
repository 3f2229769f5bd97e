# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import pytest
from ansible_collections.trafficshift.istio.plugins.plugin_utils import _task_file

OPTIONS = ("-i", "localhost,", "-e", f"ansible_connection=local ansible_python_interpreter={sys.executable}")


def write(folder: Path, *tasks: dict[str, object]) -> str:
    path = folder / "tasks.yml"
    path.write_text(json.dumps(list(tasks)))
    return str(path)


def test_tasks_get_the_step_and_succeed(tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    path = write(
        tmp_path,
        {"ansible.builtin.copy": {"content": "{{ tcp_rollout_percent }}", "dest": str(seen), "mode": "0600"}},
    )
    gate = _task_file.run(path, "localhost", OPTIONS, {"tcp_rollout_percent": 20}, time.sleep)
    assert gate == ("tasks", True, f"the tasks of {path} succeeded")
    assert seen.read_text() == "20"


def test_what_failed_is_told(tmp_path: Path) -> None:
    path = write(tmp_path, {"ansible.builtin.fail": {"msg": "the queue is too long"}})
    gate = _task_file.run(path, "localhost", OPTIONS, {}, time.sleep)
    assert (gate.ok, gate.msg) == (False, f"the tasks of {path} failed: the queue is too long")


def test_what_interrupts_the_wait_ends_the_tasks(tmp_path: Path) -> None:
    begun, ended = tmp_path / "begun", tmp_path / "ended"
    path = write(tmp_path, {"ansible.builtin.shell": f"touch {begun}; sleep 60; touch {ended}"})

    class Enough(BaseException):
        pass

    def pause(seconds: float) -> None:
        if begun.exists():
            raise Enough
        time.sleep(seconds)

    with pytest.raises(Enough):
        _task_file.run(path, "localhost", OPTIONS, {}, pause)
    assert not ended.exists()


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"tcp_rollout_tasks is .*nowhere\.yml, which is no file"):
        _task_file.check(str(tmp_path / "nowhere.yml"))
