# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The convergence of replicas in memory: who is asked for what, and what comes of refusals."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from ansible_collections.trafficshift.istio.plugins.module_utils import _replicas
from ansible_collections.trafficshift.istio.plugins.module_utils._client import ClusterError, ForbiddenError
from ansible_collections.trafficshift.istio.plugins.module_utils._convergence import Gateway, observe

FIXTURES = Path(__file__).parent / "fixtures"
LISTENERS = (FIXTURES / "listeners_80_20.json").read_text()
CLUSTERS = (FIXTURES / "active_clusters.json").read_text()
# Of one replica with the weights in its route, the endpoints of another that has them there.
PAGES = {
    "dynamic_listeners": LISTENERS,
    "dynamic_endpoint_configs": (FIXTURES / "endpoints_80_20.json").read_text(),
    "mask=cluster.name": (FIXTURES / "weighting.json").read_text(),
    "dynamic_active_clusters": CLUSTERS,
}
REFUSED = ForbiddenError("This account may not create pods/exec (403): ask for that right.", "istio-system")


class FakeCluster:
    """Some replicas; `answers` has by pod the text or the exception that it answers with."""

    def __init__(self, *names: str, ready: bool = True) -> None:
        self.names = names
        self.ready = ready
        self.leaving: set[str] = set()
        self.answers: dict[str, Any] = {}
        self.asked: list[tuple[str, str, str]] = []

    def get(self, *_names: str) -> dict[str, Any]:
        return {"spec": {"ports": [{"port": 31400, "targetPort": 31777}]}}

    def find(self, _api_version: str, _kind: str, namespace: str, labels: str) -> list[dict[str, Any]]:
        assert (namespace, labels) == ("istio-system", "istio=ingressgateway")
        conditions = [{"type": "Ready", "status": str(self.ready)}]
        return [
            {
                "metadata": {"name": name, **({"deletionTimestamp": "now"} if name in self.leaving else {})},
                "status": {"conditions": conditions},
            }
            for name in self.names
        ]

    def execute(self, _namespace: str, pod: str, container: str, command: list[str], timeout: float) -> str:
        assert command[:3] == ["pilot-agent", "request", "GET"]
        assert timeout > 0
        self.asked.append((pod, container, unquote(command[3])))
        page = next(page for key, page in PAGES.items() if key in command[3])
        answer = self.answers.get(pod, page)
        if isinstance(answer, Exception):
            raise answer
        return answer


def look(cluster: FakeCluster, **params: Any) -> dict[str, Any]:
    defaults: dict[str, Any] = {
        "namespace": "istio-system",
        "service": "istio-ingressgateway",
        "selector": {"istio": "ingressgateway"},
        "port": 31400,
        "destination": "tcp-echo.m-test",
        "destination_port": 9000,
        "weights": {"v1": 80, "v2": 20},
        "clusters": [],
        "method": "route",
        "endpoint_weights": None,
        "wait": True,
        "wait_timeout": 0,
    }
    return observe(Gateway(cluster, {**defaults, **params}))  # type: ignore[arg-type]


def test_every_replica_is_asked_at_the_pods_port() -> None:
    names = [f"gw-{number}" for number in range(20)]
    cluster = FakeCluster(*names)
    found = look(cluster)
    assert found["converged"] is True
    assert found["convergence"] == "observed"
    assert found["reason"] == "All 20 gateway replicas have v1 80 / v2 20 on port 31400."
    assert sorted(replica["name"] for replica in found["replicas"]) == sorted(names)
    assert sorted(pod for pod, _container, _path in cluster.asked) == sorted(names)
    expected = ("istio-proxy", "config_dump?resource=dynamic_listeners&name_regex=.*_31777")
    assert {asked[1:] for asked in cluster.asked} == {expected}


def test_clusters_are_asked_for_alone() -> None:
    cluster = FakeCluster("gw")
    assert look(cluster, weights=None, clusters=["v1", "v2"])["converged"] is True
    assert [path for _pod, _container, path in cluster.asked] == [
        r"config_dump?resource=dynamic_active_clusters&name_regex=outbound\|9000\|.*\|tcp\-echo\.m\-test\..*"
    ]
    found = look(cluster, weights=None, clusters=["v3"])
    assert found["failed"]
    assert "gw does not know v3 yet" in found["msg"]


def test_a_lagging_replica_is_named() -> None:
    cluster = FakeCluster("gw-a", "gw-b")
    cluster.answers["gw-b"] = LISTENERS.replace("80", "100").replace('"weight": 20', '"weight": 0')
    found = look(cluster)
    assert found["failed"]
    assert found["converged"] is False
    assert found["msg"].startswith("The gateway replica gw-b has v1 100 on port 31400, not v1 80 / v2 20 (namespace")
    assert "look at istioctl proxy-status" in found["msg"]
    assert [replica["ok"] for replica in found["replicas"]] == [True, False]
    assert not look(cluster, wait=False)["failed"]


def test_without_weights_they_are_read() -> None:
    found = look(FakeCluster("gw"), weights=None)
    assert found["converged"] is True
    assert found["replicas"][0]["weights"] == {"v1": 80, "v2": 20}


def test_no_route_is_wanted() -> None:
    cluster = FakeCluster("gw")
    assert look(cluster, weights={})["failed"]
    cluster.answers["gw"] = "{}"
    assert look(cluster, weights={})["converged"] is True
    assert look(FakeCluster(), weights={})["converged"] is True


def test_replicas_that_are_not_ready_do_not_count() -> None:
    cluster = FakeCluster("gw", ready=False)
    assert look(cluster)["msg"].startswith("No gateway replica with istio=ingressgateway is ready")
    assert cluster.asked == []


def test_replicas_that_go_do_not_count() -> None:
    cluster = FakeCluster("gw")
    cluster.leaving = {"gw"}
    assert look(cluster)["msg"].startswith("No gateway replica")


def test_without_the_right_it_is_not_known() -> None:
    cluster = FakeCluster("gw")
    cluster.answers["gw"] = REFUSED
    found = look(cluster)
    assert not found["failed"]
    assert found["converged"] is None
    assert found["convergence"] == "behavioural"
    assert found["reason"] == f"The gateway could not be looked at. {REFUSED}"


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (ClusterError("The pod gw could not be asked: gone."), "The pod gw could not be asked: gone"),
        ("no json", "its configuration cannot be read"),
        ("", "has no route on port 31400"),
        (json.dumps({"configs": 7}), "has no route on port 31400"),
    ],
)
def test_a_replica_that_cannot_be_read_lags(answer: Any, message: str) -> None:
    cluster = FakeCluster("gw")
    cluster.answers["gw"] = answer
    found = look(cluster)
    assert found["converged"] is False
    assert message in found["msg"]


def test_a_replica_that_never_answers_does_not_hold_up_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_replicas, "EXEC_TIMEOUT", 0.2)
    cluster = FakeCluster("gw-a", "gw-b")
    never = threading.Event()
    answer = cluster.execute

    def execute(namespace: str, pod: str, *rest: Any) -> str:
        if pod == "gw-a":
            never.wait(5)
        return answer(namespace, pod, *rest)

    cluster.execute = execute  # type: ignore[method-assign]
    found = look(cluster)
    never.set()
    assert [replica["ok"] for replica in found["replicas"]] == [False, True]
    assert "gw-a could not be asked (no answer within 0.2 s)" in found["msg"]


def test_weights_of_endpoints_are_asked_for_ahead_of_the_route() -> None:
    cluster = FakeCluster("gw")
    result = look(cluster, weights=None, endpoint_weights={"v1": 80, "v2": 20})
    assert result["converged"]
    assert result["reason"] == "The only gateway replica has v1 80 / v2 20 by the weights of endpoints."
    assert [path.partition("name_regex")[0] for _pod, _container, path in cluster.asked] == [
        "config_dump?include_eds&resource=dynamic_endpoint_configs&",
        "config_dump?resource=dynamic_active_clusters&",
    ]


def test_the_same_weights_in_the_route_are_not_those_of_endpoints() -> None:
    result = look(FakeCluster("gw"), method="endpoints")
    assert (result["failed"], result["converged"]) == (True, False)
    assert "has v1 80 / v2 20 by its route on port 31400, not v1 80 / v2 20 by the weights" in result["msg"]
    assert result["replicas"][0]["method"] == "route"


def test_a_route_to_the_service_as_a_whole_has_the_weights_of_endpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PAGES, "dynamic_listeners", (FIXTURES / "listeners_whole.json").read_text())
    cluster = FakeCluster("gw")
    result = look(cluster, method="endpoints", destination="tcp-echo.m-test")
    assert result["converged"], result["reason"]
    assert result["replicas"][0]["weights"] == {"v1": 80, "v2": 20}
    lacks = look(cluster, method="endpoints", weights={"v1": 80, "v3": 20})
    assert "v1 80 / v2 20 by the weights of endpoints on port 31400, not v1 80 / v3 20" in lacks["msg"]
