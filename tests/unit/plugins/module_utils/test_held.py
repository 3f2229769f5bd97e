# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Live sessions of proxies in memory: who holds which, what is not known, and what a change would cut."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.trafficshift.istio.plugins.module_utils import _held
from ansible_collections.trafficshift.istio.plugins.module_utils._client import ClusterError, ForbiddenError
from ansible_collections.trafficshift.istio.plugins.module_utils._counters import Gateway
from ansible_collections.trafficshift.istio.plugins.module_utils._gateway import Destination
from ansible_collections.trafficshift.istio.plugins.module_utils._held import Live, Sidecars
from hypothesis import given
from hypothesis import strategies as st

PAGE = json.loads((Path(__file__).parent / "fixtures" / "clusters.json").read_text())
DESTINATION = Destination("tcp-echo.default", 9000)
REFUSED = ForbiddenError("This account may not create pods/exec (403): ask for that right.", "default")
SERVICE = {
    "metadata": {"name": "tcp-echo", "namespace": "default"},
    "spec": {"selector": {"app": "tcp-echo"}, "ports": [{"port": 9000, "targetPort": 9100}]},
}
LABELS = {"v1": {"version": "v1"}, "v2": {"version": "v2"}}


def info(drain: Any = "45s") -> dict[str, Any]:
    """What Envoy says of itself, cut to some of it."""
    return {"state": "LIVE", "command_line_options": {"base_id": "0", "drain_time": drain, "drain_strategy": "Gradual"}}


def inbound(live: Any, port: int = 9100) -> dict[str, Any]:
    """The clusters of a sidecar: one for its application's port, and one for another."""
    host = {"address": {}, "stats": [{"name": "cx_total", "value": "70"}, {"name": "cx_active", "value": str(live)}]}
    other = {"address": {}, "stats": [{"name": "cx_active", "value": "1000"}]}
    return {
        "cluster_statuses": [
            {"name": f"inbound|{port}||", "host_statuses": [host, {"address": {}, "stats": [{"name": "cx_active"}]}]},
            {"name": f"inbound|{port}0||", "host_statuses": [other]},
        ]
    }


class FakeCluster:
    """Proxies that say what is in `pages` by pod, or raise it."""

    def __init__(self, pods: list[dict[str, Any]], pages: dict[str, Any]) -> None:
        self.pods = pods
        self.pages = pages

    def find(self, _api_version: str, _kind: str, namespace: str, labels: str) -> list[dict[str, Any]]:
        assert (namespace, labels) in (("istio-system", "istio=ingressgateway"), ("default", "app=tcp-echo"))
        return self.pods

    def execute(self, _namespace: str, pod: str, container: str, command: list[str], _timeout: float) -> str:
        assert (container, command[:3]) == ("istio-proxy", ["pilot-agent", "request", "GET"])
        answer = self.pages[pod]
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, str):
            return answer
        return json.dumps(next(page for key, page in answer.items() if command[3].startswith(key)))


def gateway_pod(name: str, state: str = "running") -> dict[str, Any]:
    return {
        "metadata": {"name": name, "uid": name},
        "status": {"containerStatuses": [{"name": "istio-proxy", "state": {state: {}}}]},
    }


def pod(name: str, version: str = "v1", phase: str = "Running", **more: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "labels": {"app": "tcp-echo", "version": version}, **more},
        "spec": {"containers": [{"name": "istio-proxy"}]},
        "status": {"phase": phase},
    }


def sidecar_pages(live: int, since: str = "2026-11-24T09:32:00.040Z") -> dict[str, Any]:
    configs = [
        {"cluster": {"name": "inbound|9100||"}, "last_updated": since},
        {"cluster": {"name": "inbound|91000||"}, "last_updated": "2026-11-24T23:00:00.000Z"},
    ]
    return {"clusters": inbound(live), "config_dump": {"configs": configs}}


def gateway(pods: list[dict[str, Any]], pages: dict[str, Any]) -> Gateway:
    params = {
        "namespace": "istio-system",
        "selector": {"istio": "ingressgateway"},
        "destination": "tcp-echo.default",
        "destination_port": 9000,
        "method": "route",
    }
    return Gateway(FakeCluster(pods, pages), params)  # type: ignore[arg-type]


@pytest.mark.parametrize(("text", "seconds"), [("45s", 45.0), ("600s", 600.0), ("0s", 0.0), ("1.500s", 1.5)])
def test_the_drain_time_is_a_duration(text: str, seconds: float) -> None:
    assert _held.drain_seconds(info(text)) == seconds


@pytest.mark.parametrize("page", [{}, [], None, {"command_line_options": 7}, info(45), info("45"), info("-1s")])
def test_no_drain_time_is_no_guess(page: Any) -> None:
    with pytest.raises(ValueError, match="it does not say its drain time"):
        _held.drain_seconds(page)


def test_sessions_of_a_version_are_in_its_subset_and_in_its_locality() -> None:
    assert _held.live_sessions(PAGE, DESTINATION, ["v1", "v2"]) == {"v1": 6, "v2": 2}
    page = json.loads(json.dumps(PAGE))
    whole = next(c for c in page["cluster_statuses"] if c["name"].startswith("outbound|9000||"))
    for host, live in zip(whole["host_statuses"], ("30", "40")):
        host["stats"] = [{"name": n, "value": live} for n in ("cx_total", "cx_connect_fail", "cx_active")]
    assert _held.live_sessions(page, DESTINATION, ["v1", "v2"]) == {"v1": 36, "v2": 42}
    # What no version accounts for is not left out.
    assert _held.live_sessions(page, DESTINATION, ["v1", "v3"]) == {"v1": 36, "v3": 0, "": 42}
    assert _held.live_sessions({}, DESTINATION, ["v1"]) == {"v1": 0}


def test_every_running_replica_is_read() -> None:
    pages = {"server_info": info("600s"), "clusters": PAGE}
    found = _held.read_live(
        gateway(
            [gateway_pod("gw-b"), gateway_pod("gw-a"), gateway_pod("gw-new", "waiting"), gateway_pod("gw-odd")],
            {"gw-a": pages, "gw-b": {**pages, "server_info": info()}, "gw-odd": "no json"},
        ),
        ["v1", "v2"],
    )
    assert found[:2] == [Live("gw-a", 600.0, {"v1": 6, "v2": 2}), Live("gw-b", 45.0, {"v1": 6, "v2": 2})]
    assert (found[2].replica, found[2].drain_seconds, found[2].sessions) == ("gw-odd", None, {})
    assert found[2].error.startswith("its sessions cannot be read")
    assert len(found) == 3


def test_a_replica_that_goes_says_so_and_a_missing_right_ends_it() -> None:
    gone = gateway([gateway_pod("gw")], {"gw": ClusterError("The pod gw could not be asked: gone.")})
    assert _held.read_live(gone, ["v1"]) == [Live("gw", error="The pod gw could not be asked: gone.")]
    with pytest.raises(ForbiddenError):
        _held.read_live(gateway([gateway_pod("gw")], {"gw": REFUSED}), ["v1"])


def test_sidecars_are_read_at_the_pods_port() -> None:
    later = "2026-11-24T10:00:00.000Z"
    pods = [pod("one"), pod("going", deletionTimestamp="now"), pod("two", "v2"), pod("other", "v3")]
    pages = {"one": sidecar_pages(3), "going": sidecar_pages(4), "two": sidecar_pages(5, later)}
    found = _held.read_at_sidecars(FakeCluster(pods, pages), SERVICE, 9000, LABELS)  # type: ignore[arg-type]
    assert found.sessions == {"v1": {"one": 3, "going": 4}, "v2": {"two": 5}}
    assert found.since["v2"] == {"two": later}
    assert found.since["v1"].keys() == {"one", "going"}
    assert found.unread == {"v1": {}, "v2": {}}


def test_pods_whose_connections_are_not_known_are_named() -> None:
    bare = {**pod("bare"), "spec": {"containers": [{"name": "tcp-echo"}]}}
    pods = [bare, pod("odd"), pod("gone", "v2"), pod("elsewhere", "v2"), pod("new", phase="Pending")]
    pages = {
        "odd": "no json",
        "gone": ClusterError("The pod default/gone could not be asked: gone."),
        "elsewhere": {"clusters": inbound(3, 9200), "config_dump": {}},
    }
    found = _held.read_at_sidecars(FakeCluster(pods, pages), SERVICE, 9000, LABELS)  # type: ignore[arg-type]
    assert found.sessions == {"v1": {}, "v2": {}}
    assert found.unread["v1"].keys() == {"bare", "odd"}
    assert found.unread["v1"]["bare"] == "it has no sidecar"
    assert found.unread["v1"]["odd"].startswith("its connections cannot be read: ")
    assert found.unread["v2"] == {
        "gone": "The pod default/gone could not be asked: gone.",
        "elsewhere": "its connections cannot be read: it has no cluster for the port 9100",
    }
    with pytest.raises(ForbiddenError):
        _held.read_at_sidecars(FakeCluster([pod("one")], {"one": REFUSED}), SERVICE, 9000, LABELS)  # type: ignore[arg-type]


def test_either_witness_can_see_more() -> None:
    live = [Live("gw-a", 45.0, {"v1": 2}), Live("gw-b", 45.0, {"v1": 3, "v2": 1})]
    sidecars = Sidecars({"v1": {"one": 1, "two": 3}, "v2": {"three": 7}}, {"v1": {}, "v2": {}}, {"v1": {}, "v2": {}})
    assert _held.still_open("v1", live, sidecars) == 5
    assert _held.still_open("v2", live, sidecars) == 7
    unread = sidecars._replace(unread={"v1": {"four": "gone"}, "v2": {}})
    assert _held.still_open("v1", live, unread) is None
    assert _held.still_open("v2", live, unread) == 7
    assert _held.still_open("v2", [*live, Live("gw-c", error="gone")], sidecars) is None


def test_what_was_counted_before_can_live_as_long_as_the_drain_time() -> None:
    live = [Live("gw-a", 45.0), Live("gw-b", 600.0), Live("gw-c", error="gone")]
    since = {"v1": {"one": "2026-11-24T09:32:00.040Z", "two": "2026-11-24T09:50:00Z"}, "v2": {}}
    sidecars = Sidecars({"v1": {"one": 0, "two": 0}, "v2": {}}, since, {"v1": {}, "v2": {}})
    assert _held.unseen_until("v1", live, sidecars) == datetime(2026, 11, 24, 10, 0, tzinfo=timezone.utc)
    assert _held.unseen_until("v2", live, sidecars) is None


def test_the_forecast_says_what_is_cut_where_and_when() -> None:
    live = [
        Live("gw-a", 45.0, {"v1": 12, "v2": 3}),
        Live("gw-b", 600.0, {"v1": 1, "v2": 0, "": 2}),
        Live("gw-c", 45.0, {"v1": 0}),
    ]
    assert _held.cut_forecast(live) == [
        _held.Cut("gw-a", 45.0, {"v1": 12, "v2": 3}),
        _held.Cut("gw-b", 600.0, {"v1": 1, "": 2}),
    ]
    assert _held.describe_forecast(live) == (
        "A change of the route would cut 12 sessions of v1 and 3 of v2 on gw-a 45 s later, "
        "1 session of v1 and 2 of no version on gw-b 600 s later."
    )
    assert _held.describe_forecast(live[2:]) == "A change of the route would cut no session."


def test_what_is_not_known_is_not_taken_for_nothing() -> None:
    silent = [Live("gw-x", error="The pod gw-x could not be asked: gone."), Live("gw-y", error="late")]
    assert _held.cut_forecast(silent) == []
    unknown = "what gw-x and 1 more would cut is not known (The pod gw-x could not be asked: gone)."
    assert _held.describe_forecast(silent) == f"At a change of the route, {unknown}"
    some = [Live("gw-a", 45.0, {"v1": 2}), *silent]
    assert _held.describe_forecast(some) == (
        f"A change of the route would cut 2 sessions of v1 on gw-a 45 s later; {unknown}"
    )


@given(st.lists(st.dictionaries(st.sampled_from(["v1", "v2", ""]), st.integers(0, 9)), max_size=12))
def test_the_forecast_leaves_no_session_out(held: list[dict[str, int]]) -> None:
    live = [Live(f"gw-{number}", 45.0, sessions) for number, sessions in enumerate(held)]
    cuts = _held.cut_forecast(live)
    assert sum(sum(cut.sessions.values()) for cut in cuts) == sum(sum(sessions.values()) for sessions in held)
    text = _held.describe_forecast(live)
    assert text.count(" s later") == min(len(cuts), _held.SHOWN)
    assert (" on others" in text) == (len(cuts) > _held.SHOWN)
