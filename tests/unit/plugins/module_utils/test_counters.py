# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The counters of replicas in memory: what is asked, what comes of the answers, and what fails the task."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.trafficshift.istio.plugins.module_utils import _counters
from ansible_collections.trafficshift.istio.plugins.module_utils._client import (
    ClusterError,
    ForbiddenError,
    UnreachableError,
)
from ansible_collections.trafficshift.istio.plugins.module_utils._counters import Gateway, observe
from ansible_collections.trafficshift.istio.plugins.modules.gateway_sessions import check_options

FIXTURES = Path(__file__).parent / "fixtures"
PAGE = json.loads((FIXTURES / "clusters.json").read_text())
DUMP = (FIXTURES / "active_clusters.json").read_text().replace("m-test", "default")
REFUSED = ForbiddenError("This account may not create pods/exec (403): ask for that right.", "istio-system")
SPLIT = {"v1": 80, "v2": 20}


class FakeCluster:
    """Gateway replicas that count; `made` has their connections, `broken` what the requests to one raise."""

    def __init__(self, *names: str) -> None:
        self.made = {name: {"v1": 734, "v2": 32} for name in names}
        self.made_anew: dict[str, str] = {}
        self.broken: dict[str, Exception | str] = {}
        self.pods_of_service: Any = [{"10.244.0.7": "a", "10.244.0.27": "b"}]
        self.asked: list[tuple[str, str]] = []
        self.later: list[Callable[[], None]] = []  # what happens after each request to a replica

    def get(self, _api_version: str, kind: str, name: str, namespace: str) -> Any:
        assert (kind, name, namespace) == ("Service", "tcp-echo", "default")
        return {"spec": {"selector": {"app": "tcp-echo"}}}

    def find(self, _api_version: str, _kind: str, namespace: str, labels: str) -> list[dict[str, Any]]:
        ready = [{"type": "Ready", "status": "True", "lastTransitionTime": "12:00"}]
        if (namespace, labels) == ("default", "app=tcp-echo"):
            if isinstance(self.pods_of_service, Exception):
                raise self.pods_of_service
            lives = self.pods_of_service.pop(0) if len(self.pods_of_service) > 1 else self.pods_of_service[0]
            return [
                {"metadata": {"name": uid, "uid": uid}, "status": {"podIP": ip, "conditions": ready}}
                for ip, uid in lives.items()
            ]
        assert (namespace, labels) == ("istio-system", "istio=ingressgateway")
        status = {
            "conditions": ready,
            "containerStatuses": [{"name": "istio-proxy", "restartCount": 0, "state": {"running": {}}}],
        }
        pending = {"containerStatuses": [{"name": "istio-proxy", "restartCount": 0, "state": {"waiting": {}}}]}
        return [
            *({"metadata": {"name": name, "uid": name}, "status": status} for name in self.made),
            {"metadata": {"name": "not-yet", "uid": "not-yet"}, "status": pending},
        ]

    def execute(self, namespace: str, pod: str, container: str, command: list[str], timeout: float) -> str:
        assert (namespace, container, command[:3]) == ("istio-system", "istio-proxy", ["pilot-agent", "request", "GET"])
        self.asked.append((pod, command[3].partition("?")[0]))
        if self.later:
            self.later.pop(0)()
        answer = self.broken.get(pod)
        if isinstance(answer, Exception):
            raise answer
        if answer is not None:
            return answer
        if command[3].startswith("config_dump"):
            return DUMP.replace("2026-11-24T02:50:52.764Z", self.made_anew.get(pod, "2026-11-24T02:50:52.764Z"))
        page = json.loads(json.dumps(PAGE))
        for cluster in page["cluster_statuses"]:
            subset = cluster["name"].split("|")[2] if "|9000|" in cluster["name"] else ""
            for stat in cluster["host_statuses"][0]["stats"] if subset else ():
                if stat["name"] == "cx_total":
                    stat["value"] = str(self.made[pod][subset])
        return json.dumps(page)

    def connections(self, v1: int, v2: int, pod: str = "gw") -> None:
        self.made[pod]["v1"] += v1
        self.made[pod]["v2"] += v2


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A clock that only moves when someone sleeps."""
    clock = SimpleNamespace(now=1000.0)

    def sleep(seconds: float) -> None:
        clock.now += seconds

    monkeypatch.setattr(_counters, "time", SimpleNamespace(monotonic=lambda: clock.now, sleep=sleep))
    return clock


def look(cluster: FakeCluster, **given: Any) -> dict[str, Any]:
    params: dict[str, Any] = {
        "namespace": "istio-system",
        "selector": {"istio": "ingressgateway"},
        "destination": "tcp-echo.default",
        "destination_port": 9000,
        "method": "route",
        **dict.fromkeys(("since", "expect", "tolerance", "alpha", "beta", "max_probes", "tally")),
        "profile": "strict",
        "max_errors": 0,
        "tally_failed": 0,
        "wait_timeout": 0,
        **given,
    }
    question = check_options(params)
    # Not its own default, which was bound before the clock was replaced.
    found = observe(Gateway(cluster, params), params, question, sleep=_counters.time.sleep)  # type: ignore[arg-type]
    return json.loads(json.dumps(found))


def test_every_running_replica_is_read() -> None:
    names = [f"gw-{number:02}" for number in range(12)]
    cluster = FakeCluster(*names)
    found = look(cluster)
    assert not found["failed"]
    assert (found["witness"], found["complete"], found["notes"]) == ("available", True, [])
    assert found["reason"] == "tcp-echo.default:9000: the counters of 12 gateway replicas were read"
    assert found["totals"]["v1"] == {"cx_total": 12 * 734, "cx_connect_fail": 0, "cx_active": 12 * 6}
    assert [replica["name"] for replica in found["replicas"]] == names[:10]
    assert found["replicas"][0] == {
        "name": "gw-00",
        "incarnation": "gw-00/0",
        "ready": True,
        "subsets": {
            "": {
                **dict.fromkeys(("cx_total", "cx_connect_fail", "cx_active"), 0),
                "endpoints": {
                    address: {"cx_total": 0, "cx_connect_fail": 0, "cx_active": 0}
                    for address in ("10.244.0.27:9000", "10.244.0.7:9000")
                },
            },
            "v1": {
                "cx_total": 734,
                "cx_connect_fail": 0,
                "cx_active": 6,
                "endpoints": {"10.244.0.7:9000": {"cx_total": 734, "cx_connect_fail": 0, "cx_active": 6}},
            },
            "v2": {
                "cx_total": 32,
                "cx_connect_fail": 0,
                "cx_active": 2,
                "endpoints": {"10.244.0.27:9000": {"cx_total": 32, "cx_connect_fail": 0, "cx_active": 2}},
            },
        },
        "error": "",
    }
    assert sorted(found["reading"]["replicas"]) == [f"{name}/0" for name in names]  # not shortened
    assert {path for pod, path in cluster.asked if pod == "gw-00"} == {"config_dump", "clusters"}
    assert "verdict" not in found
    assert "growth" not in found


def test_a_result_given_back_tells_what_grew() -> None:
    cluster = FakeCluster("gw")
    before = look(cluster)
    cluster.connections(1198, 302)
    found = look(cluster, since=before)
    assert not found["failed"]
    assert found["growth"]["v1"] == {"connections": 1198, "connect_failures": 0, "live": 6}
    assert found["replicas"][0]["growth"]["v2"] == {"connections": 302, "connect_failures": 0, "live": 2}
    assert found["reason"].endswith(" s: (no version) 0, v1 1198, v2 302")
    assert found["window"] >= 0
    cluster.connections(2, 3)
    again = look(cluster, since=found)
    assert [again["growth"][name]["connections"] for name in ("v1", "v2")] == [2, 3]


def test_growth_is_judged() -> None:
    cluster = FakeCluster("gw")
    before = look(cluster)
    cluster.connections(1598, 402)
    found = look(cluster, since=before, expect=SPLIT)
    assert (found["verdict"], found["passed"], found["failed"]) == ("pass", True, False)
    assert (found["counts"], found["errors"]) == (SPLIT | {"v1": 1598, "v2": 402}, {})
    assert found["reason"].startswith("tcp-echo.default:9000: the split is as expected")
    assert (found["probes"], found["shares"]) == (2000, {"v1": 0.799, "v2": 0.201})
    assert (found["expect"], found["profile"], found["tolerance"]) == (SPLIT, "strict", 0.05)
    assert look(cluster, since=before, expect={"v1": "80", "v2": "20.0"})["passed"]
    found = look(cluster, since=before, expect={"v1": 20, "v2": 80})
    assert (found["verdict"], found["failed"]) == ("fail", True)
    assert found["msg"] == found["reason"]
    assert found["deviations"][0]["destination"] == "v1"
    cluster = FakeCluster("gw")
    before = look(cluster)
    cluster.connections(8, 2)
    found = look(cluster, since=before, expect=SPLIT)
    assert (found["verdict"], found["failed"]) == ("inconclusive", True)
    assert found["more"] > 0
    assert "more connections would settle it" in found["msg"]


def test_it_waits_for_connections_of_users(clock: SimpleNamespace) -> None:
    cluster = FakeCluster("gw")
    cluster.later = [lambda: None] * 3 + [lambda: cluster.connections(80, 20)] * 900
    found = look(cluster, expect=SPLIT, wait_timeout=600)
    assert found["verdict"] == "pass"
    assert clock.now < 1100
    assert sum(found["counts"].values()) < 5000


def test_the_deadline_says_what_is_missing(clock: SimpleNamespace) -> None:
    cluster = FakeCluster("gw")
    cluster.later = [lambda: None] * 3 + [lambda: cluster.connections(8, 2)]
    found = look(cluster, expect=SPLIT, wait_timeout=30)
    assert (found["verdict"], found["failed"], found["counts"]) == ("inconclusive", True, {"v1": 8, "v2": 2})
    assert clock.now == pytest.approx(1030)


def test_a_fixed_number_is_looked_at_once(clock: SimpleNamespace) -> None:
    cluster = FakeCluster("gw")
    cluster.later = (
        [lambda: None] * 3 + [lambda: cluster.connections(0, 10)] * 3 + [lambda: cluster.connections(80, 0)] * 3
    )
    found = look(cluster, expect=SPLIT, profile="fixed", max_probes=200, wait_timeout=60)
    assert found["counts"] == {"v1": 240, "v2": 30}
    assert found["verdict"] == "fail"


def test_max_probes_ends_the_waiting(clock: SimpleNamespace) -> None:
    cluster = FakeCluster("gw")
    cluster.later = [lambda: None] * 3 + [lambda: cluster.connections(85, 15)] * 900
    found = look(cluster, expect=SPLIT, max_probes=2000, wait_timeout=600)
    assert found["verdict"] == "inconclusive"
    assert 2000 <= sum(found["counts"].values()) < 2400


def test_a_spoilt_window_is_not_waited_out(clock: SimpleNamespace) -> None:
    cluster = FakeCluster("gw")
    before = look(cluster)
    cluster.connections(800, -10)
    found = look(cluster, since=before, expect=SPLIT, wait_timeout=600)
    assert (found["verdict"], found["failed"], found["complete"]) == ("inconclusive", True, False)
    assert "10.244.0.27:9000 of v2 on the gateway replica gw left and came back" in found["msg"]
    assert clock.now == 1000
    found = look(cluster, since=before)
    assert (found["failed"], found["complete"]) == (False, False)
    assert "left and came back" in found["reason"]


def test_a_cluster_made_anew_is_noticed_even_while_it_is_read(clock: SimpleNamespace) -> None:
    cluster = FakeCluster("gw")
    before = look(cluster)
    cluster.connections(800, 200)
    cluster.made_anew = {"gw": "2026-11-24T03:00:00.000Z"}
    assert "made anew" in look(cluster, since=before, expect=SPLIT)["msg"]
    cluster = FakeCluster("gw")
    cluster.later = [lambda: None, lambda: None, lambda: cluster.made_anew.update(gw="2026-11-24T03:00:00.000Z")]
    found = look(cluster)
    assert found["replicas"][0]["error"] == "its clusters changed while it was read"
    assert not found["complete"]
    assert look(cluster)["complete"]


def test_an_endpoint_that_came_back_is_noticed() -> None:
    cluster = FakeCluster("gw")
    before = look(cluster)
    cluster.connections(800, 200)
    cluster.pods_of_service = [{"10.244.0.7": "a", "10.244.0.27": "another"}]
    assert (
        "the pod of the endpoint 10.244.0.27:9000 of v2 left or came back"
        in look(cluster, since=before, expect=SPLIT)["msg"]
    )
    cluster.pods_of_service = [{"10.244.0.7": "a", "10.244.0.27": "b"}, {"10.244.0.7": "a", "10.244.0.27": "another"}]
    assert "left or came back" in look(cluster, since=before, expect=SPLIT)["msg"]


def test_an_endpoint_that_left_during_the_first_reading_is_noticed() -> None:
    cluster = FakeCluster("gw")
    lives: list[Any] = [{"10.244.0.7": "a", "10.244.0.27": uid} for uid in ("b", "another", "another")]
    cluster.pods_of_service = lives
    before = look(cluster)
    cluster.connections(800, 200)
    assert "left or came back" in look(cluster, since=before, expect=SPLIT)["msg"]


def test_pods_of_the_destination_need_not_be_readable() -> None:
    cluster = FakeCluster("gw")
    cluster.pods_of_service = ForbiddenError("This account may not list pods.", "default")
    before = look(cluster)
    cluster.connections(1600, 400)
    found = look(cluster, since=before, expect=SPLIT)
    assert found["verdict"] == "pass"
    assert "whether endpoints left and came back is not fully known" in found["notes"][0]


def test_a_replica_that_cannot_be_read_is_retried_and_then_refused(clock: SimpleNamespace) -> None:
    cluster = FakeCluster("gw", "late")
    before = look(cluster)
    cluster.connections(1600, 400)
    cluster.broken = {"late": ClusterError("The pod late could not be asked: gone.")}
    found = look(cluster, since=before, expect=SPLIT, wait_timeout=20)
    assert (found["verdict"], found["failed"]) == ("inconclusive", True)
    assert "the gateway replica late could not be read (The pod late could not be asked: gone)" in found["msg"]
    assert clock.now == pytest.approx(1020)
    cluster.later = [cluster.broken.clear]
    assert look(cluster, since=before, expect=SPLIT, wait_timeout=20)["verdict"] == "pass"
    cluster.broken = {"late": "no json"}
    found = look(cluster)
    assert (found["failed"], found["complete"]) == (False, False)
    assert "its counters cannot be read" in found["reason"]


def test_a_first_reading_is_retried_too() -> None:
    cluster = FakeCluster("gw")
    cluster.broken = {"gw": ClusterError("not now.")}
    cluster.later = [lambda: None, cluster.broken.clear]
    assert look(cluster, wait_timeout=5)["complete"]


def test_trouble_with_the_api_server_is_waited_out() -> None:
    cluster = FakeCluster("gw")
    real = cluster.find

    def find(*args: Any) -> Any:
        cluster.find = real  # type: ignore[method-assign]
        raise UnreachableError("does not answer")

    cluster.find = find  # type: ignore[method-assign]
    assert look(cluster, wait_timeout=5)["complete"]
    cluster.find = find  # type: ignore[method-assign]
    with pytest.raises(UnreachableError, match="does not answer"):
        look(cluster)


def test_a_probe_is_confirmed() -> None:
    cluster = FakeCluster("gw")
    before = look(cluster)
    cluster.connections(83, 20)
    found = look(cluster, since=before, expect=SPLIT, tally=SPLIT)
    # So few do not suffice for a verdict, and need not.
    assert (found["failed"], found["passed"], found["verdict"]) == (False, True, "inconclusive")
    assert found["agreement"]["agrees"] is True
    assert found["others"] == {"v1": 3, "v2": 0}
    assert found["reason"].endswith("counted all 100 connections of the probe, and 3 others")


def test_a_probe_is_denied(clock: SimpleNamespace) -> None:
    cluster = FakeCluster("gw")
    before = look(cluster)
    cluster.connections(20, 80)
    found = look(cluster, since=before, expect=SPLIT, tally=SPLIT, wait_timeout=3)
    assert found["failed"]
    assert found["agreement"]["agrees"] is False
    assert "the probe counted 80 connections to v1, the gateway's replicas only 20: not all replies" in found["msg"]
    assert clock.now == pytest.approx(1003)  # counters may come late
    assert (found["verdict"], found["passed"]) == ("fail", False)
    found = look(cluster, since=before, tally=SPLIT)
    assert (found["failed"], found["verdict"], found["passed"]) == (True, "fail", False)
    assert look(cluster, since=before, tally={"v1": 20, "v2": 80})["passed"]


def test_a_split_that_passes_confirms_no_probe() -> None:
    cluster = FakeCluster("gw")
    before = look(cluster)
    cluster.connections(1600, 400)
    found = look(cluster, since=before, expect=SPLIT, tally={"v1": 1500, "v2": 500})
    assert (found["failed"], found["passed"], found["verdict"]) == (True, False, "fail")
    del cluster.made["gw"]
    cluster.made["new"] = {"v1": 1600, "v2": 400}
    found = look(cluster, since=before, expect=SPLIT, tally={"v1": 1500, "v2": 500})
    assert (found["failed"], found["passed"], found["verdict"]) == (True, False, "inconclusive")


def test_counters_that_come_late_are_waited_for(clock: SimpleNamespace) -> None:
    cluster = FakeCluster("gw")
    before = look(cluster)
    cluster.later = [lambda: None] * 6 + [lambda: cluster.connections(80, 20)]
    assert look(cluster, since=before, tally=SPLIT, wait_timeout=60)["agreement"]["agrees"] is True
    assert clock.now < 1002


def test_a_split_that_fails_fails_the_task_whatever_the_probe_says() -> None:
    cluster = FakeCluster("gw")
    before = look(cluster)
    cluster.connections(1600, 1600)
    found = look(cluster, since=before, expect=SPLIT, tally={"v1": 1600, "v2": 400})
    assert found["failed"]
    assert "the probe's connections were split as expected, all together are not" in found["msg"]
    found = look(cluster, since=before, expect=SPLIT, tally={"v1": 1600, "v2": 1600})
    assert (found["failed"], found["agreement"]["agrees"]) == (True, True)
    assert "v1 got 50 %" in found["msg"]


def test_without_the_right_there_is_no_witness() -> None:
    cluster = FakeCluster("gw")
    cluster.broken = {"gw": REFUSED}
    found = look(cluster)
    assert (found["failed"], found["witness"], found["reason"]) == (False, "unavailable", str(REFUSED))
    assert "replicas" not in found
    again = look(cluster, since=found, expect=SPLIT)
    assert (again["failed"], again["witness"], again["msg"]) == (True, "unavailable", str(REFUSED))
    assert look(cluster, expect=SPLIT, wait_timeout=5)["failed"]


def test_without_a_replica_nothing_is_counted() -> None:
    found = look(FakeCluster())
    assert (found["failed"], found["replicas"], found["complete"]) == (False, [], False)
    assert found["reason"] == (
        "No gateway pod with istio=ingressgateway runs in the namespace istio-system, so nothing was counted."
    )
    assert look(FakeCluster(), expect=SPLIT, wait_timeout=2)["msg"] == found["reason"]


def test_a_gateway_that_starts_anew_is_waited_for() -> None:
    cluster = FakeCluster("gw")
    before = look(cluster)
    cluster.made, found = {}, iter([{}, {}, {"new": {"v1": 1600, "v2": 400}}])
    real = cluster.find

    def find(_api_version: str, _kind: str, namespace: str, labels: str) -> Any:
        if namespace == "istio-system":
            cluster.made = next(found, cluster.made)
        return real(_api_version, _kind, namespace, labels)

    cluster.find = find  # type: ignore[method-assign]
    judged = look(cluster, since=before, expect=SPLIT, wait_timeout=20)
    assert (judged["verdict"], judged["complete"]) == ("pass", False)
    assert judged["notes"] == [
        "gw has gone, and what it counted last stands",
        "new started in the meantime and counts from 0",
    ]


def test_what_is_no_reading_is_not_taken_for_one() -> None:
    with pytest.raises(ValueError, match="since holds no reading"):
        look(FakeCluster("gw"), since={"changed": False})


def test_localities_tell_versions_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    text = (FIXTURES / "clusters_by_locality.json").read_text().replace("m-test", "default")
    monkeypatch.setitem(globals(), "PAGE", json.loads(text))
    cluster = FakeCluster("gw")
    first = look(cluster, method="endpoints")
    assert (first["method"], first["totals"].keys()) == ("endpoints", {"v1", "v2"})
    later = look(cluster, method="endpoints", since=first)
    assert {version: grown["connections"] for version, grown in later["growth"].items()} == {"v1": 0, "v2": 0}
    with pytest.raises(ValueError, match="since was read with the method endpoints, not with route"):
        look(cluster, since=first)
