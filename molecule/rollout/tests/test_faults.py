# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rollouts while things break: traffic is only ever at the old weights, the new ones, or a recorded step between them.

Clients keep connecting through all of it, and see no error that the fault itself did not cause.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from harness import (
    RECORD,
    Address,
    Clients,
    FlakyApi,
    Node,
    Playbook,
    State,
    WeightWatch,
    crashing,
    gateway_pod_killed,
    istiod_gone,
    rubbish,
)

REPORTS = Path(os.environ["TRAFFICSHIFT_REPORTS"])
STEPS = [20, 100]
ALLOWED = [{"v1": 100}, {"v1": 80, "v2": 20}, {"v2": 100}]
RAMP = {"tcp_rollout_steps": STEPS, "tcp_rollout_drain_timeout": 0, "tcp_route_wait_timeout": 180}

Kubectl = Callable[..., str]
Play = Callable[..., "tuple[int, str]"]
Route = Callable[..., str]
Started = Callable[..., AbstractContextManager[Playbook]]

pytestmark = pytest.mark.usefixtures("resting", "from_the_beginning", "only_known_weights")


@pytest.fixture
def only_known_weights(watch: WeightWatch) -> Iterator[None]:
    """Hold every test to what a rollout may leave, at any time and at the end."""
    yield
    for state in watch.states():
        assert state.weights in ALLOWED, state
        if state.record:
            known = [{v: w for v, w in state.record[name].items() if w} for name in ("weights", "last", "before")]
            assert state.weights in known, state
    assert watch.now().record is None


def report() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((REPORTS / "tcp-echo-rollout.json").read_text())
    return loaded


@pytest.fixture
def ramp(started: Started) -> Callable[..., AbstractContextManager[Playbook]]:
    """Start a rollout beside the test."""

    def call(**variables: Any) -> AbstractContextManager[Playbook]:
        (REPORTS / "tcp-echo-rollout.json").unlink(missing_ok=True)
        return started("rollout.yml", tcp_rollout_report_dir=str(REPORTS), **{**RAMP, **variables})

    return call


def at_20(state: State) -> bool:
    return state.weights == {"v1": 80, "v2": 20}


def test_a_gateway_pod_is_killed_in_mid_step(
    ramp: Callable[..., AbstractContextManager[Playbook]],
    watch: WeightWatch,
    address: Address,
    kubectl: Kubectl,
    node: Node,
) -> None:
    with Clients(address) as clients, ramp(tcp_verify_max_errors=200, tcp_rollout_hold=20) as running:
        running.until("v2 20: held")
        killed = time.monotonic()
        with gateway_pod_killed(kubectl, node):
            running.wait()
        back = time.monotonic()
    told = report()
    assert told["outcome"] in ("completed", "taken_back"), told["msg"]
    # The pod that was killed served a third of them until every node had forgotten it.
    assert [seen for seen in clients.errors() if not killed - 1 <= seen.at <= back + 10] == []
    assert watch.now().weights == ({"v2": 100} if told["passed"] else {"v1": 100})
    # What the killed replica had counted is missing, and the step in which that happened says so.
    assert told["passed"] is False or any(step.get("uncounted") for step in told["steps"])


def test_istiod_is_gone_for_half_a_minute(
    ramp: Callable[..., AbstractContextManager[Playbook]], watch: WeightWatch, address: Address, kubectl: Kubectl
) -> None:
    with Clients(address) as clients, ramp(tcp_rollout_hold=30) as running:
        running.until("v2 20: proven")
        with istiod_gone(kubectl):
            # Without istiod no change of a route passes.
            running.until("Trying again")
            time.sleep(30)
        assert running.wait() == 0, running.output
    told = report()
    assert told["outcome"] == "completed"
    assert clients.errors() == []
    assert watch.sets() == ALLOWED
    assert told["unanswered"] > 0


@pytest.mark.parametrize("status", [429, 503])
def test_the_api_server_turns_everything_away_for_a_while(
    ramp: Callable[..., AbstractContextManager[Playbook]],
    watch: WeightWatch,
    address: Address,
    kubectl: Kubectl,
    facts: dict[str, str],
    tmp_path: Path,
    status: int,
) -> None:
    account = ("-n", "kube-system", "molecule-admin")
    kubectl("create", "serviceaccount", *account)
    kubectl("create", "clusterrolebinding", "molecule-admin", "--clusterrole=cluster-admin",
            "--serviceaccount=kube-system:molecule-admin")  # fmt: skip
    try:
        token = kubectl("create", "token", *account).strip()
        with FlakyApi(facts) as api, Clients(address) as clients:
            kubeconfig = api.kubeconfig(tmp_path / "kubeconfig", token)
            with ramp(k8s_kubeconfig=kubeconfig, tcp_rollout_hold=20) as running:
                running.until("v2 20: proven")
                with api.answering(status):
                    running.until("Trying again")
                    time.sleep(10)
                assert running.wait() == 0, running.output
            assert api.turned_away[status] > 0
        assert token not in running.output
    finally:
        kubectl("delete", "clusterrolebinding", "molecule-admin")
        kubectl("delete", "serviceaccount", *account)
    told = report()
    assert (told["outcome"], watch.sets()) == ("completed", ALLOWED)
    assert told["unanswered"] > 0
    assert clients.errors() == []


def test_the_new_version_crashes_at_20_percent(
    ramp: Callable[..., AbstractContextManager[Playbook]],
    watch: WeightWatch,
    address: Address,
    kubectl: Kubectl,
    namespace: str,
) -> None:
    with Clients(address) as clients, ramp(tcp_rollout_hold=60) as running:
        watch.until(at_20)
        running.until("v2 20: written")
        began = time.monotonic()
        with crashing(kubectl, namespace, "v2"):
            assert running.wait() != 0
            ended = time.monotonic()
            clients.wait(100)
    told = report()
    assert (told["outcome"], told["back"]["proven"]) == ("taken_back", True)
    assert watch.sets() == [{"v1": 100}, {"v1": 80, "v2": 20}, {"v1": 100}]
    # Only connections to the pods that crashed were lost, and none once the traffic was back.
    assert [seen for seen in clients.errors() if seen.at < began - 5 or seen.began > ended] == []
    assert set(clients.words(since=ended)) == {"one"}


def test_the_new_version_answers_rubbish(
    ramp: Callable[..., AbstractContextManager[Playbook]],
    watch: WeightWatch,
    address: Address,
    kubectl: Kubectl,
    namespace: str,
) -> None:
    with rubbish(kubectl, namespace, "v2"), Clients(address) as clients, ramp() as running:
        assert running.wait() != 0
        clients.wait(100)
    told = report()
    assert (told["outcome"], told["back"]["proven"]) == ("taken_back", True)
    assert told["steps"][-1]["probe"]["errors"].keys() == {"unexpected"}
    assert "got no valid answer" in told["msg"]
    assert watch.sets() == [{"v1": 100}, {"v1": 80, "v2": 20}, {"v1": 100}]
    assert clients.errors() == []
    assert set(clients.words()) == {"one", "rubbish"}


# Where in the ramp a run is killed: what its output says, and how many seconds later; or as soon as the route has its
# record, which is before the weights from before are verified. That no point is forgotten is for
# tests/unit/plugins/plugin_utils/test_rollout.py to see; here the processes and the cluster are real.
RECORDED = "the record"
POINTS: dict[signal.Signals, list[tuple[str, float]]] = {
    signal.SIGKILL: [
        (RECORDED, 0.0),
        ("v2 20: written", 0.4),
        ("v2 20: proven", 0.0),
        ("v2 100: written", 0.7),
    ],
    signal.SIGTERM: [("v2 20: written", 0.0), ("v2 100: proven", 0.0)],
    signal.SIGINT: [("v2 20: written", 1.5), ("v2 100: written", 0.0)],
}
HOLD = 3  # seconds of each step, so that no run is over before it is killed


@pytest.mark.parametrize(
    ("number", "on_resume"),
    [(signal.SIGKILL, "back"), (signal.SIGKILL, "resume"), (signal.SIGTERM, "back"), (signal.SIGINT, "back")],
)
def test_the_playbook_is_killed_at_many_points(
    ramp: Callable[..., AbstractContextManager[Playbook]],
    play: Play,
    route: Route,
    watch: WeightWatch,
    address: Address,
    number: signal.Signals,
    on_resume: str,
) -> None:
    for text, later in POINTS[number]:
        if watch.now().weights != ALLOWED[0]:
            route(100)
        with Clients(address) as clients:
            with ramp(tcp_rollout_on_resume=on_resume, tcp_rollout_hold=HOLD) as running:
                if text == RECORDED:
                    watch.until(lambda state: state.record is not None)
                else:
                    running.until(text)
                threading.Event().wait(later)
                running.kill(number, everything=number == signal.SIGKILL)
                running.wait()
            left = watch.now()
            if number != signal.SIGKILL:
                assert (left.weights, left.record) == (ALLOWED[0], None), (text, running.output)
            else:
                assert left.record is not None, (text, running.output)
                code, said = play("rollout.yml", tcp_rollout_on_resume=on_resume, **RAMP)
                ended = watch.now()
                assert ended.record is None
                if on_resume == "back":
                    assert code != 0 and "was lost at" in said and "taken back" in said
                    assert ended.weights == ALLOWED[0]
                else:
                    assert code == 0, said
                    assert ended.weights == ALLOWED[-1]
                    # A resumed rollout does not start over.
                    since = [ALLOWED.index(state.weights) for state in watch.states() if state.at >= left.at]
                    assert since == sorted(since), (text, since)
        assert clients.errors() == [], (text, later)


def test_a_lost_connection_is_recognised_too(
    ramp: Callable[..., AbstractContextManager[Playbook]],
    play: Play,
    watch: WeightWatch,
    facts: dict[str, str],
    kubectl: Kubectl,
    tmp_path: Path,
    namespace: str,
) -> None:
    """The API server is out of reach for good: what is left says so loudly, and the next run takes it back."""
    account = ("-n", namespace, "molecule-lost")
    kubectl("create", "serviceaccount", *account)
    kubectl("create", "clusterrolebinding", "molecule-lost", "--clusterrole=cluster-admin",
            f"--serviceaccount={namespace}:molecule-lost")  # fmt: skip
    try:
        with FlakyApi(facts) as api:
            kubeconfig = api.kubeconfig(tmp_path / "kubeconfig", kubectl("create", "token", *account).strip())
            given = {"k8s_kubeconfig": kubeconfig, "tcp_route_wait_timeout": 15, "tcp_rollout_hold": 600}
            with ramp(**given) as running:
                running.until("v2 20: proven")
                with api.refusing():
                    assert running.wait() != 0
        assert "NOT TAKEN BACK" in running.output
        assert "To restore them: " in running.output
        assert report()["outcome"] == "stuck"
        assert watch.now().record
    finally:
        kubectl("delete", "clusterrolebinding", "molecule-lost")
        kubectl("delete", "serviceaccount", *account)
    code, said = play("rollout.yml", **RAMP)
    assert code != 0 and "was lost at" in said
    annotations = kubectl(
        "get", "virtualservice", "tcp-echo", "-n", namespace, "-o", "jsonpath={.metadata.annotations}"
    )
    assert RECORD not in annotations
    assert watch.sets() == [{"v1": 100}, {"v1": 80, "v2": 20}, {"v1": 100}]
