# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tests of moving production share. The route rests with the endpoints' weights, all connections on v1."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from harness import Address, Playbook, WeightWatch

Command = Callable[..., "tuple[list[str], dict[str, str]]"]
Module = Callable[..., "dict[str, Any]"]
Play = Callable[..., "tuple[int, str]"]
Route = Callable[..., str]


@pytest.fixture(scope="session")
def namespace(facts: dict[str, str]) -> str:
    return facts["tcp_route_namespace"]


@pytest.fixture(scope="session")
def address() -> Address:
    """Where the gateway is reached, as the first verification of the scenario found it."""
    report = Path(os.environ["TRAFFICSHIFT_REPORTS"]) / "tcp-echo-v1-100-v2-0.json"
    ingress = json.loads(report.read_text())["ingress"]
    return ingress["host"], ingress["port"]


@pytest.fixture(scope="session")
def node(facts: dict[str, str]) -> Callable[..., str]:
    """Run a command on the lab's node; return what it printed."""
    lab = Path(facts["k8s_kubeconfig"]).parent
    provider = (lab / "engine").read_text().strip()
    engine = str(lab.parents[1] / "bin/podman") if provider == "podman" else provider

    def call(*arguments: str) -> str:
        command = [engine, "exec", f"{lab.name}-control-plane", *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    return call


@pytest.fixture(scope="session")
def module(facts: dict[str, str]) -> Module:
    """Run a module of the collection on the scenario's cluster; return its result."""

    def call(name: str, **arguments: Any) -> dict[str, Any]:
        process = subprocess.run(
            [
                *("ansible", "kind", "-i", os.environ["MOLECULE_INVENTORY_FILE"], "-m", f"trafficshift.istio.{name}"),
                *("-a", json.dumps({"kubeconfig": facts["k8s_kubeconfig"], **arguments})),
            ],
            env={**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_CALLBACK_RESULT_FORMAT": "json"},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        return dict(json.loads(process.stdout[process.stdout.index("{") :]))

    return call


@pytest.fixture(scope="session")
def route(play: Play) -> Route:
    """Set weights with tcp_route; return what it printed."""

    def call(v1: int, method: str = "endpoints") -> str:
        code, said = play("tcp_route", tcp_route_method=method, tcp_route_weights={"v1": v1, "v2": 100 - v1})
        assert code == 0, said
        return said

    return call


@pytest.fixture(scope="module")
def resting(route: Route) -> Iterator[None]:
    """Leave the route to the next module as it rests."""
    yield
    route(100)


@pytest.fixture
def from_the_beginning(route: Route, facts: dict[str, str]) -> None:
    """Have the route as it rests before anything of the test looks at it."""
    with WeightWatch(facts) as watching:
        rests = watching.now()[1:] == ({"v1": 100}, "endpoints", None)
    if not rests:
        route(100)


@pytest.fixture
def started(command: Command) -> Callable[..., AbstractContextManager[Playbook]]:
    """Start what `command` says beside the test."""
    return lambda role, nohup=False, **variables: Playbook(*command(role, **variables), nohup)


@pytest.fixture
def watch(facts: dict[str, str]) -> Iterator[WeightWatch]:
    """Write down every set of weights that the route has during the test."""
    with WeightWatch(facts) as watching:
        yield watching
