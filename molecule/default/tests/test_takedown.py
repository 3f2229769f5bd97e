# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The last tests of the scenario, by name: cleanup.yml takes everything away that site.yml made, and only once."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

PLAYBOOK = Path(os.environ["MOLECULE_SCENARIO_DIRECTORY"]).parents[1] / "playbooks" / "cleanup.yml"
LAB = os.environ.get("TRAFFICSHIFT_CLUSTER", "lab") == "lab"


def cleanup() -> int:
    """Run cleanup.yml, with Istio where it was installed here; return how many tasks changed something."""
    process = subprocess.run(
        [
            *("ansible-playbook", "-i", os.environ["MOLECULE_INVENTORY_FILE"], str(PLAYBOOK)),
            *("-e", json.dumps({"cleanup_istio": LAB})),
        ],
        env={name: value for name, value in os.environ.items() if name != "ANSIBLE_FORCE_COLOR"},
        capture_output=True,
        text=True,
        check=False,
        timeout=400,
    )
    assert process.returncode == 0, process.stdout
    (count,) = re.findall(r"changed=(\d+)", process.stdout)
    return int(count)


def test_everything_goes_away(kubectl: Callable[..., str]) -> None:
    assert cleanup() > 0
    namespaces = {
        item["metadata"]["name"]: item for item in json.loads(kubectl("get", "namespaces", "-o", "json"))["items"]
    }
    assert namespaces.get("molecule-echo", {"status": {"phase": "Terminating"}})["status"]["phase"] == "Terminating"
    if LAB:
        assert namespaces.get("istio-system", {"status": {"phase": "Terminating"}})["status"]["phase"] == "Terminating"


@pytest.mark.skipif(not LAB, reason="another's Istio stays")
def test_no_definition_of_istio_is_left(kubectl: Callable[..., str]) -> None:
    assert "istio.io" not in kubectl("get", "crds,mutatingwebhookconfigurations", "-o", "name")


def test_a_second_time_changes_nothing() -> None:
    assert cleanup() == 0
