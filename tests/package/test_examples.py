# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The examples in the READMEs are playbooks, or tasks, that Ansible accepts: names, options and roles are there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

TOP = Path(__file__).resolve().parents[2]
EXAMPLES = [
    pytest.param(block, id=f"{path.parent.name}-{number}")
    for path in [TOP / "README.md", *sorted(TOP.glob("roles/*/README.md"))]
    for number, block in enumerate(re.findall(r"```yaml\n(.*?)```", path.read_text(), re.DOTALL), 1)
]


def test_there_is_an_example_for_every_role() -> None:
    assert len(EXAMPLES) >= len(list(TOP.glob("roles/*/README.md"))) + 2


@pytest.mark.parametrize("example", EXAMPLES)
def test_example(example: str, tmp_path: Path) -> None:
    plays = yaml.safe_load(example)
    if "hosts" not in plays[0]:
        plays = [{"name": "Example", "hosts": "localhost", "gather_facts": False, "tasks": plays}]
    # Roles that are included, not listed, are looked up at run time only; listed, they are looked up now.
    for play in plays:
        for task in play["tasks"]:
            if role := task.pop("ansible.builtin.include_role", None):
                task["ansible.builtin.import_role"] = role
    playbook = tmp_path / "example.yml"
    playbook.write_text(yaml.safe_dump(plays, sort_keys=False))
    process = subprocess.run(
        [str(Path(sys.executable).parent / "ansible-playbook"), "--syntax-check", "-i", "localhost,", str(playbook)],
        env={**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(TOP / ".venv/collections")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    specs = {path.parents[1].name: path for path in TOP.glob("roles/*/meta/argument_specs.yml")}
    for play in plays:
        for task in play["tasks"]:
            if role := task.get("ansible.builtin.import_role"):
                options = yaml.safe_load(specs[role["name"].rsplit(".", 1)[1]].read_text())["argument_specs"]["main"]
                assert set(task.get("vars", {})) <= set(options["options"])
