# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tests of the scenarios on kind share: the inventory's facts, kubectl, and ways to run a role or a module."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

TOP = Path(__file__).resolve().parents[1]
REPORTS = Path(os.environ["TRAFFICSHIFT_REPORTS"])

Command = Callable[..., "tuple[list[str], dict[str, str]]"]
Play = Callable[..., "tuple[int, str]"]
Verify = Callable[..., tuple[int, str, dict[str, Any]]]


@pytest.fixture(scope="session")
def facts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The inventory's answers: where kubectl and the kubeconfig are, the namespace, and tcp-echo's image."""
    names = ("kubectl", "k8s_kubeconfig", "tcp_route_namespace", "tcp_echo_image")
    wanted = {name: "{{ %s }}" % name for name in names}  # noqa: UP031
    target = tmp_path_factory.mktemp("facts") / "facts.json"
    subprocess.run(
        [
            *("ansible", "kind", "-i", os.environ["MOLECULE_INVENTORY_FILE"], "-m", "ansible.builtin.copy"),
            *("-a", json.dumps({"content": json.dumps(wanted), "dest": str(target), "mode": "0600"})),
        ],
        check=True,
        capture_output=True,
    )
    loaded: dict[str, str] = json.loads(target.read_text())
    return loaded


@pytest.fixture(scope="session")
def kubectl(facts: dict[str, str]) -> Callable[..., str]:
    def call(*arguments: str, stdin: str | None = None) -> str:
        command = [facts["kubectl"], "--kubeconfig", facts["k8s_kubeconfig"], *arguments]
        return subprocess.run(command, input=stdin, check=True, capture_output=True, text=True).stdout

    return call


@pytest.fixture
def kubeconfig_of(kubectl: Callable[..., str], tmp_path: Path) -> Callable[[str, str], str]:
    """Return the kubeconfig of a ServiceAccount, given by name and namespace."""

    def call(account: str, namespace: str) -> str:
        loaded = json.loads(kubectl("config", "view", "--raw", "--minify", "-o", "json"))
        loaded["users"][0]["user"] = {"token": kubectl("create", "token", account, "-n", namespace).strip()}
        kubeconfig = tmp_path / f"kubeconfig-{account}"
        kubeconfig.touch(mode=0o600)
        kubeconfig.write_text(json.dumps(loaded))
        return str(kubeconfig)

    return call


@pytest.fixture(scope="session")
def command() -> Command:
    """Return how to run a role, or a playbook if the name ends so, with variables on top of the inventory's.

    That is the arguments and the environment.
    """

    # Plain text whatever molecule sets for itself, with results that can be parsed.
    environment = {name: value for name, value in os.environ.items() if name != "ANSIBLE_FORCE_COLOR"}
    environment.update(ANSIBLE_NOCOLOR="1", ANSIBLE_CALLBACK_RESULT_FORMAT="json", ANSIBLE_DISPLAY_FAILED_STDERR="0")

    def call(role: str, check: bool = False, **variables: Any) -> tuple[list[str], dict[str, str]]:
        playbook = TOP / "playbooks" / role if role.endswith(".yml") else TOP / "molecule/role.yml"
        arguments = [
            *("ansible-playbook", "-i", os.environ["MOLECULE_INVENTORY_FILE"], str(playbook)),
            *("-e", json.dumps({"role": f"trafficshift.istio.{role}", **variables})),
            *(["--check"] if check else []),
        ]
        return arguments, environment

    return call


@pytest.fixture(scope="session")
def play(command: Command) -> Play:
    """Run what `command` says; return the exit code and what the failure said, or all that was printed."""

    def call(role: str, check: bool = False, **variables: Any) -> tuple[int, str]:
        arguments, environment = command(role, check, **variables)
        process = subprocess.run(
            arguments,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=400,  # for ever is too long; how long is for benchmarks to say
        )
        # The last one: what failed before was rescued.
        said = re.findall(r'FAILED! => .*?"msg": ("(?:[^"\\]|\\.)*")', process.stdout, re.DOTALL)
        return process.returncode, json.loads(said[-1]) if said and process.returncode else process.stdout

    return call


@pytest.fixture(scope="session")
def verify(play: Play) -> Verify:
    """Run tcp_verify with variables named without their prefix; return the exit code, the message and the report."""

    def call(name: str, expect: dict[str, int], **variables: Any) -> tuple[int, str, dict[str, Any]]:
        given = {f"tcp_verify_{key}": value for key, value in {"name": name, "expect": expect, **variables}.items()}
        extra = {key: given.pop(f"tcp_verify_{key}") for key in ("k8s_kubeconfig",) if key in variables}
        code, message = play("tcp_verify", **given, **extra)
        return code, message, json.loads((REPORTS / f"{name}.json").read_text())

    return call
