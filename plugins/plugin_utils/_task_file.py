# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs a file of tasks in a playbook of its own, with the options that the playbook around was started with."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible_collections.trafficshift.istio.plugins.module_utils._client import cut
from ansible_collections.trafficshift.istio.plugins.module_utils._gates import Gate

PERIOD = 0.2  # seconds between two looks whether it has ended
GRACE = 10  # seconds to end when told to


def check(path: str) -> None:
    """Raise ValueError with one sentence unless the file can be read."""
    if not Path(path).is_file():
        raise ValueError(f"tcp_rollout_tasks is {path}, which is no file: give the path of a file of tasks.")


def run(
    path: str,
    host: str,
    options: Sequence[str],
    variables: Mapping[str, Any],
    pause: Callable[[float], None],
) -> Gate:
    """Return whether all tasks succeeded. `options` are ansible-playbook's; what `pause` raises ends the tasks."""
    with tempfile.TemporaryDirectory(prefix="trafficshift-") as folder:
        playbook, given, output = (Path(folder) / name for name in ("play.json", "variables.json", "output"))
        tasks = [{"name": "Run the tasks", "ansible.builtin.include_tasks": str(Path(path).resolve())}]
        playbook.write_text(
            json.dumps([{"name": "Tasks of a rollout", "hosts": host, "gather_facts": False, "tasks": tasks}])
        )
        given.write_text(json.dumps(variables))
        command = [sys.executable, "-m", "ansible", "playbook", *options, "-e", f"@{given}", str(playbook)]
        environment = {**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_CALLBACK_RESULT_FORMAT": "json"}
        with output.open("wb") as stream:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                env=environment,
                start_new_session=True,
            )
            try:
                while process.poll() is None:
                    pause(PERIOD)
            finally:
                _end(process)
        said = output.read_text(errors="replace")
    if process.returncode == 0:
        return Gate("tasks", True, f"the tasks of {path} succeeded")
    messages = re.findall(r'"msg": ("(?:[^"\\]|\\.)*")', said)
    last = json.loads(messages[-1], strict=False) if messages else said[-500:]
    return Gate("tasks", False, f"the tasks of {path} failed: {cut(last)}")


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is not None:
        return
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(GRACE)
    if process.poll() is None:
        process.kill()
        process.wait()
