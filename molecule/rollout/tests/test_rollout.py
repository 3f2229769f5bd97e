# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The ramp: forward with proof, back with proof, one at a time, and what is refused before anything moves."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from harness import RECORD, Address, Clients, Playbook, WeightWatch

REPORTS = Path(os.environ["TRAFFICSHIFT_REPORTS"])
OLD = {"v1": 100}

Play = Callable[..., "tuple[int, str]"]
Kubectl = Callable[..., str]
Started = Callable[..., AbstractContextManager[Playbook]]
Rollout = Callable[..., "tuple[int, str, dict[str, Any]]"]

pytestmark = pytest.mark.usefixtures("resting")


def weights(v2: int) -> dict[str, int]:
    return {version: share for version, share in (("v1", 100 - v2), ("v2", v2)) if share}


def report() -> dict[str, Any]:
    """Return what the last rollout reported."""
    loaded: dict[str, Any] = json.loads((REPORTS / "tcp-echo-rollout.json").read_text())
    return loaded


@pytest.fixture
def rollout(play: Play) -> Rollout:
    """Run playbooks/rollout.yml with variables named without their prefix; return code, message and report."""

    def call(**variables: Any) -> tuple[int, str, dict[str, Any]]:
        (REPORTS / "tcp-echo-rollout.json").unlink(missing_ok=True)
        extra = {key: variables.pop(key) for key in list(variables) if key.startswith(("tcp_", "k8s_"))}
        given = {f"tcp_rollout_{key}": value for key, value in variables.items()}
        code, said = play("rollout.yml", tcp_rollout_report_dir=str(REPORTS), **given, **extra)
        return code, said, report() if (REPORTS / "tcp-echo-rollout.json").exists() else {}

    return call


@pytest.fixture
def record(kubectl: Kubectl, namespace: str) -> Callable[[], str]:
    """Return the annotation on the VirtualService."""

    def call() -> str:
        found = kubectl("get", "virtualservice", "tcp-echo", "-n", namespace, "-o", "json")
        return str(json.loads(found)["metadata"].get("annotations", {}).get(RECORD, ""))

    return call


def test_check_mode_tells_the_steps_and_changes_nothing(play: Play, watch: WeightWatch) -> None:
    code, said = play("rollout.yml", check=True)
    assert code == 0, said
    assert "check mode: would go to v1 95 / v2 5, then v1 80 / v2 20, then v1 50 / v2 50, then v2 100" in said
    assert len(watch.states()) == 1


def test_each_step_is_proven_and_no_client_notices(
    rollout: Rollout, watch: WeightWatch, address: Address, record: Callable[[], str]
) -> None:
    with Clients(address) as clients:
        code, said, told = rollout(hold=2, canary_idle=2, canary_chatting=2, drain_timeout=60)
    assert code == 0, said
    assert watch.sets() == [weights(step) for step in (0, 5, 20, 50, 100)]
    assert clients.errors() == []
    assert set(clients.words()) == {"one", "two"}
    assert (told["outcome"], told["passed"], told["back"], record()) == ("completed", True, None, "")
    assert [step["percent"] for step in told["steps"]] == [0, 5, 20, 50, 100]
    for step in told["steps"]:
        assert step["passed"], step
        assert all(gate["ok"] for gate in step["gates"]), step["gates"]
        assert [replica["ok"] for replica in step["convergence"]["replicas"]] == [True] * 3
        assert step["probe"]["shares"]["two"] == pytest.approx(step["percent"] / 100, abs=0.02)
        assert step["uncounted"] == ""
        # The connections of the clients count too.
        assert sum(seen["made"] for seen in step["failures"].values()) > step["probe"]["probes"]
    assert {gate["gate"] for gate in told["steps"][2]["gates"]} == {
        "split",
        "connect_failures v1",
        "connect_failures v2",
        "connect_failures_compared",
        "probe_errors",
        "probe_errors_compared",
        "held",
    }
    assert {session["fate"] for session in told["canary"]} == {"alive"}
    assert len(told["canary"]) == 5 * 4
    assert told["drained"]["at"], told["drained"]
    for name in ("rollout.xml", "0.html", "5.html", "20.html", "50.html", "100.html"):
        assert (REPORTS / f"tcp-echo-{name}").exists()
    suite = ElementTree.parse(REPORTS / "tcp-echo-rollout.xml").getroot()[0]
    assert (suite.get("failures"), suite.get("errors")) == ("0", "0")


def test_a_second_run_verifies_and_changes_nothing(rollout: Rollout, watch: WeightWatch) -> None:
    code, said, told = rollout()
    assert code == 0, said
    assert "changed=0" in said
    assert [step["percent"] for step in told["steps"]] == [100]
    assert len(watch.states()) == 1


def test_it_takes_no_traffic_back_by_itself(rollout: Rollout, watch: WeightWatch) -> None:
    code, said, _told = rollout(steps=[5, 50])
    assert code != 0
    assert "v2 has 100 % of the connections already" in said
    assert len(watch.states()) == 1


@pytest.mark.usefixtures("from_the_beginning")
def test_what_does_not_answer_as_declared_is_told_before_anything_moves(
    rollout: Rollout, watch: WeightWatch, record: Callable[[], str]
) -> None:
    code, said, told = rollout(tcp_verify_subsets={"one": "v2", "two": "v1"})
    assert code != 0
    assert (told["outcome"], told["changed"], told["back"]) == ("unchanged", False, None)
    assert "at 0 %" in said and "no weights had been changed" in said
    assert watch.sets() == [OLD]
    assert record() == ""


class Page(http.server.BaseHTTPRequestHandler):
    """Answers what the test says."""

    status = 200

    def do_GET(self) -> None:
        body = b"ok"
        self.send_response(type(self).status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments: object) -> None:
        pass


@contextlib.contextmanager
def page() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/"
        finally:
            server.shutdown()
            thread.join()
            Page.status = 200


@pytest.mark.usefixtures("from_the_beginning")
def test_a_check_that_fails_later_takes_it_back(
    started: Started, watch: WeightWatch, record: Callable[[], str]
) -> None:
    with page() as url:
        checks = [{"name": "page", "url": url, "match": "^ok"}]
        given = {"tcp_rollout_report_dir": str(REPORTS), "tcp_rollout_checks": checks}
        with started("rollout.yml", **given) as running:
            watch.until(lambda state: state.weights == weights(20))
            Page.status = 500
            assert running.wait() != 0, running.output
    told = report()
    assert told["outcome"] == "taken_back"
    assert [gate["gate"] for gate in told["steps"][-1]["gates"] if not gate["ok"]] == ["check page"]
    assert watch.sets() == [OLD, weights(5), weights(20), OLD]
    assert told["back"]["proven"]
    assert record() == ""


@pytest.mark.usefixtures("from_the_beginning")
def test_tasks_of_the_user_s_are_a_gate(rollout: Rollout, watch: WeightWatch, tmp_path: Path) -> None:
    tasks = tmp_path / "tasks.yml"
    tasks.write_text(
        json.dumps(
            [
                {
                    "name": "Not beyond 20 %",
                    "ansible.builtin.assert": {
                        "that": ["tcp_rollout_percent | int <= 20", "tcp_echo_namespace == 'molecule-rollout'"],
                        "fail_msg": "no more than 20 %",
                    },
                }
            ]
        )
    )
    code, said, told = rollout(tasks=str(tasks), steps=[20, 50])
    assert code != 0
    assert f"the tasks of {tasks} failed: no more than 20 %" in said
    assert told["outcome"] == "taken_back"
    assert watch.sets() == [OLD, weights(20), weights(50), OLD]


@pytest.mark.usefixtures("from_the_beginning")
def test_the_deadline_takes_it_back(rollout: Rollout, watch: WeightWatch) -> None:
    code, said, told = rollout(steps=[20, 50], hold=600, deadline=60)
    assert code != 0
    assert "not done after 60 s, which is tcp_rollout_deadline; taken back" in said
    assert told["back"]["proven"]
    assert watch.sets() == [OLD, weights(20), OLD]


@pytest.mark.usefixtures("from_the_beginning")
def test_a_second_rollout_is_refused_and_names_the_first(
    started: Started, rollout: Rollout, watch: WeightWatch, record: Callable[[], str]
) -> None:
    with started("rollout.yml", tcp_rollout_steps=[20], tcp_rollout_hold=600) as first:
        first.until("v2 20: written")
        identity = json.loads(record())["id"]
        code, said, told = rollout(steps=[50])
        assert code != 0 and told == {}
        assert f"is being moved by the rollout {identity} of " in said
        assert f"tcp_rollout_take_lock={identity}" in said
        # Whoever knows that it is dead says so; it is not, and sees that it lost the route, and leaves it alone.
        code, said, told = rollout(steps=[50], take_lock=identity)
        assert told["lost"]["id"] == identity
        assert told["outcome"] == "taken_back"
        assert first.wait() != 0
        assert "took the route molecule-rollout/tcp-echo over" in first.output
    assert watch.sets() == [OLD, weights(20), OLD]
    assert record() == ""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
@pytest.mark.usefixtures("from_the_beginning")
def test_a_signal_takes_it_back(
    started: Started, watch: WeightWatch, address: Address, record: Callable[[], str], number: signal.Signals
) -> None:
    (REPORTS / "tcp-echo-rollout.json").unlink(missing_ok=True)
    holding = started("rollout.yml", tcp_rollout_hold=600, tcp_rollout_report_dir=str(REPORTS))
    with Clients(address) as clients, holding as running:
        watch.until(lambda state: state.weights == weights(5))
        running.interrupt() if number == signal.SIGINT else running.kill(number)
        assert running.wait() != 0
    assert f"interrupted by {number.name}" in running.output or number == signal.SIGHUP
    told = report()
    assert (told["outcome"], told["back"]["proven"]) == ("taken_back", True)
    assert watch.sets() == [OLD, weights(5), OLD]
    assert clients.errors() == []
    assert record() == ""


@pytest.mark.usefixtures("from_the_beginning")
def test_under_nohup_a_hangup_changes_nothing(started: Started, watch: WeightWatch) -> None:
    with started("rollout.yml", nohup=True, tcp_rollout_steps=[20], tcp_rollout_hold=10) as running:
        running.until("v2 20: held")
        for process in running.processes():
            os.kill(process, signal.SIGHUP)
        assert running.wait() == 0, running.output
    assert watch.sets() == [OLD, weights(20)]


@pytest.mark.usefixtures("from_the_beginning")
def test_a_playbook_that_is_killed_alone_is_taken_back_by_what_is_left(
    started: Started, watch: WeightWatch, record: Callable[[], str]
) -> None:
    with started("rollout.yml", tcp_rollout_hold=600) as running:
        running.until("v2 5: proven")
        running.kill(signal.SIGKILL)
        running.wait()
    assert "the playbook is gone; taken back" in running.output
    assert watch.sets() == [OLD, weights(5), OLD]
    assert record() == ""


@pytest.mark.usefixtures("from_the_beginning")
def test_a_foreign_record_is_not_overwritten(
    rollout: Rollout, kubectl: Kubectl, namespace: str, record: Callable[[], str]
) -> None:
    annotate = ("annotate", "virtualservice", "tcp-echo", "-n", namespace)
    kubectl(*annotate, f"{RECORD}=something else")
    try:
        code, said, _told = rollout()
        assert code != 0
        assert f"has an annotation {RECORD} that this version of the collection cannot read" in said
        assert record() == "something else"
    finally:
        kubectl(*annotate, f"{RECORD}-")
    rule = json.loads(kubectl("get", "destinationrule", "tcp-echo-destination", "-n", namespace, "-o", "json"))
    setting = rule["spec"]["trafficPolicy"]["loadBalancer"]["localityLbSetting"]
    assert setting["distribute"][0]["to"] == OLD


@pytest.mark.usefixtures("from_the_beginning")
def test_what_is_broken_on_the_way_stops_it_before_anything_moves(
    rollout: Rollout, kubectl: Kubectl, namespace: str, watch: WeightWatch
) -> None:
    scale = ("scale", "deployment/tcp-echo-v2", "-n", namespace)
    kubectl(*scale, "--replicas=0")
    try:
        kubectl("wait", "pods", "-n", namespace, "-l", "version=v2", "--for=delete", "--timeout=120s")
        code, said, _told = rollout()
    finally:
        kubectl(*scale, "--replicas=2")
        kubectl("rollout", "status", "deployment/tcp-echo-v2", "-n", namespace, "--timeout=120s")
    assert code != 0
    assert f"No pod in the namespace {namespace} matches version=v2" in said
    assert len(watch.states()) == 1


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"steps": [20, 5]}, "tcp_rollout_steps goes from 20 to 5"),
        ({"to": "v3"}, "tcp_rollout_to is 'v3', which is not among the versions v1, v2"),
        ({"to": "v1"}, "are both v1"),
        ({"lock_timeout": 1}, "give at least 15 seconds"),
        ({"checks": [{"name": "x"}]}, "x"),
        ({"tasks": "/nowhere/tasks.yml"}, "which is no file"),
        ({"tcp_verify_max_probes": 50}, "max_probes"),
        ({"tcp_verify_subsets": {"one": "v1"}}, "no reply says v2"),
    ],
)
@pytest.mark.usefixtures("from_the_beginning")
def test_wrong_input_is_refused_in_one_sentence(
    rollout: Rollout, given: dict[str, Any], said: str, record: Callable[[], str]
) -> None:
    code, message, told = rollout(**given)
    assert code != 0
    assert said in message, message
    assert (told, record()) == ({}, "")
