# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An account with the rights of `tasks_from: rights` is enough for a rollout, and what it lacks is named."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from harness import ISTIO, Address, WeightWatch

REPORTS = Path(os.environ["TRAFFICSHIFT_REPORTS"])
ACCOUNT = "trafficshift-rollout"
OLD = {"v1": 100}
HALF = {"v1": 50, "v2": 50}

Kubectl = Callable[..., str]
Play = Callable[..., "tuple[int, str]"]
Route = Callable[..., str]
Rollout = Callable[..., "tuple[int, str, dict[str, Any]]"]

pytestmark = pytest.mark.usefixtures("resting", "account", "from_the_beginning")


class Right(NamedTuple):
    """Verbs on a resource, and the role that has them: its name behind the account's, and its namespace."""

    role: str
    namespace: str
    resource: str
    verbs: tuple[str, ...]


HOME = "molecule-rollout"
NEEDED = [
    Right("", HOME, "virtualservices", ("patch",)),
    Right("", HOME, "destinationrules", ("patch",)),
    Right("", HOME, "services", ("get",)),
    Right("", HOME, "pods", ("list",)),
    Right("-gateway", ISTIO, "services", ("get",)),
    Right("-gateway", ISTIO, "pods", ("list",)),
    Right("-gateway", ISTIO, "pods/exec", ("get", "create")),
]
OPTIONAL = [
    Right("", HOME, "pods/exec", ("get", "create")),
    Right("", HOME, "peerauthentications", ("list",)),
    Right("", HOME, "namespaces", ("get",)),
    Right("-istio", ISTIO, "deployments", ("list",)),
    Right("-istio", ISTIO, "endpointslices", ("list",)),
    Right("-istio", ISTIO, "configmaps", ("get",)),
    Right("-istio", ISTIO, "peerauthentications", ("list",)),
    Right("", "", "mutatingwebhookconfigurations", ("list",)),
    Right("", "", "nodes", ("list",)),
    Right("", "", "virtualservices", ("list",)),
]


def name_of(right: Right) -> str:
    return " ".join([*right.verbs, right.resource, right.namespace])


@pytest.fixture(scope="module")
def account(play: Play, kubectl: Kubectl) -> Iterator[str]:
    """Have the account; return what making it said."""
    code, said = play("tcp_rollout", tasks_from="rights")
    assert code == 0, said
    yield said
    kubectl("delete", "serviceaccount", ACCOUNT, "-n", HOME)
    kubectl("delete", "role,rolebinding", "-n", HOME, "-l", "app.kubernetes.io/managed-by=trafficshift.istio")
    kubectl("delete", "role,rolebinding", "-n", ISTIO, "-l", "app.kubernetes.io/managed-by=trafficshift.istio")
    kubectl("delete", "clusterrole,clusterrolebinding", "-l", "app.kubernetes.io/managed-by=trafficshift.istio")


@pytest.fixture
def from_the_beginning(route: Route, watch: WeightWatch) -> None:
    if watch.now()[1:] != (OLD, "endpoints", None):
        route(100)


@pytest.fixture
def kubeconfig(kubeconfig_of: Callable[[str, str], str]) -> str:
    return kubeconfig_of(ACCOUNT, HOME)


@pytest.fixture
def rollout(play: Play, kubeconfig: str) -> Rollout:
    """Roll out as the account, by default to half; return the code, what failed and the report."""

    def call(**variables: Any) -> tuple[int, str, dict[str, Any]]:
        report = REPORTS / "tcp-echo-rollout.json"
        report.unlink(missing_ok=True)
        given = {"tcp_rollout_steps": [50], "tcp_rollout_report_dir": str(REPORTS), **variables}
        code, said = play("rollout.yml", k8s_kubeconfig=kubeconfig, **given)
        return code, said, json.loads(report.read_text()) if report.exists() else {}

    return call


@pytest.fixture
def lacking(kubectl: Kubectl, facts: dict[str, str]) -> Iterator[Callable[[Right], None]]:
    """Take rights from the account for the time of the test."""
    kept: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    command = [facts["kubectl"], "--kubeconfig", facts["k8s_kubeconfig"]]

    def takes_effect(right: Right, verb: str, word: str) -> None:
        """Wait until the API server goes by the roles, which reach it as a copy."""
        resource, _slash, sub = right.resource.partition("/")
        groups = {"virtualservices": ".networking.istio.io", "destinationrules": ".networking.istio.io"}
        question = [
            *(*command, "auth", "can-i", verb, resource + groups.get(resource, "")),
            *(["--subresource", sub] if sub else []),
            *(["-n", right.namespace] if right.namespace else ["-A"]),
            f"--as=system:serviceaccount:{HOME}:{ACCOUNT}",
        ]
        deadline = time.monotonic() + 30
        while True:
            answer = subprocess.run(question, check=False, capture_output=True, text=True).stdout.strip()
            if answer == word:
                return
            assert time.monotonic() < deadline, (question, answer)

    def write(role: tuple[str, ...], rules: list[dict[str, Any]]) -> None:
        kubectl("patch", *role, "--type=merge", "-p", json.dumps({"rules": rules}))

    def take(right: Right) -> None:
        where = ("-n", right.namespace) if right.namespace else ()
        role = ("role" if right.namespace else "clusterrole", ACCOUNT + right.role, *where)
        rules: list[dict[str, Any]] = json.loads(kubectl("get", *role, "-o", "json"))["rules"]
        kept.setdefault(role, rules)
        left = []
        for rule in rules:
            if right.resource in rule["resources"] and set(right.verbs) <= set(rule["verbs"]):
                others = [resource for resource in rule["resources"] if resource != right.resource]
                left += [{**rule, "resources": others}] if others else []
            else:
                left.append(rule)
        assert left != rules, right
        write(role, left)
        for verb in right.verbs:
            takes_effect(right, verb, "no")
        taken.append(right)

    taken: list[Right] = []
    try:
        yield take
    finally:
        for role, rules in kept.items():
            write(role, rules)
        for right in taken:
            takes_effect(right, right.verbs[0], "yes")


def test_making_the_account_again_changes_nothing(play: Play, account: str) -> None:
    assert f"kubectl -n {HOME} create token {ACCOUNT}" in account
    code, said = play("tcp_rollout", tasks_from="rights")
    assert code == 0, said
    assert "changed=0" in said


def test_the_account_is_enough(rollout: Rollout, watch: WeightWatch) -> None:
    code, said, told = rollout(tcp_rollout_steps=[50, 100], tcp_rollout_drain_timeout=60)
    assert code == 0, said
    assert "This account" not in said
    assert watch.sets()[-3:] == [OLD, HALF, {"v2": 100}]
    assert [step["uncounted"] for step in told["steps"]] == [""] * 3
    assert told["drained"]["at"], told["drained"]


def test_the_account_is_enough_for_the_way_back(rollout: Rollout, watch: WeightWatch, tmp_path: Path) -> None:
    tasks = tmp_path / "tasks.yml"
    tasks.write_text(json.dumps([{"name": "Not half", "ansible.builtin.assert": {"that": "tcp_rollout_percent == 0"}}]))
    code, said, told = rollout(tcp_rollout_tasks=str(tasks))
    assert code != 0
    assert (told["outcome"], told["back"]["proven"]) == ("taken_back", True), said
    assert watch.sets()[-3:] == [OLD, HALF, OLD]


@pytest.mark.parametrize("right", NEEDED, ids=name_of)
def test_a_right_that_is_missing_is_named_and_nothing_moves(
    rollout: Rollout, lacking: Callable[[Right], None], watch: WeightWatch, right: Right
) -> None:
    lacking(right)
    before = watch.sets()
    code, said, _told = rollout()
    assert code != 0
    wanted = rf"may not {' and '.join(right.verbs)} {right.resource}[a-z.]* in the namespace {right.namespace} "
    assert re.search(wanted, said), said
    assert watch.sets() == before
    assert watch.now().record is None


def test_a_route_that_cannot_be_read_is_named(
    rollout: Rollout, lacking: Callable[[Right], None], watch: WeightWatch
) -> None:
    lacking(Right("", "", "virtualservices", ("list",)))
    lacking(Right("", HOME, "virtualservices", ("list",)))
    code, said, told = rollout()
    assert code != 0
    assert said == (
        f"This account may not list the kind VirtualService in the namespace {HOME} (403): ask for that right, or use "
        "another account."
    )
    assert told == {}
    assert len(watch.states()) == 1


def test_a_dry_run_sees_that_the_gateway_cannot_be_looked_into(
    play: Play, kubeconfig: str, lacking: Callable[[Right], None], watch: WeightWatch
) -> None:
    right = next(right for right in NEEDED if right.resource == "pods/exec")
    lacking(right)
    code, said = play("rollout.yml", check=True, k8s_kubeconfig=kubeconfig)
    assert code != 0
    assert f"This account may not get and create pods/exec in the namespace {ISTIO} (403)" in said
    assert len(watch.states()) == 1


def test_what_is_optional_may_be_missing(
    rollout: Rollout, lacking: Callable[[Right], None], watch: WeightWatch, address: Address
) -> None:
    for right in OPTIONAL:
        lacking(right)
    code, said, told = rollout(tcp_verify_host=address[0], tcp_verify_port=address[1])
    assert code == 0, said
    assert watch.sets()[-1] == HALF
    assert told["passed"]
    for words in (
        f"may not get and create pods/exec in the namespace {HOME}",
        "may not list mutatingwebhookconfigurations.admissionregistration.k8s.io in the whole cluster",
        "may not get namespaces in the whole cluster",
        "as far as this account sees (molecule-rollout)",
    ):
        assert words in said
