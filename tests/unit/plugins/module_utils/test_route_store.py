# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is written where, and with what; the scenario rollout has a real API server for it."""

from __future__ import annotations

import json
import shlex
from typing import Any

import pytest
from ansible_collections.trafficshift.istio.plugins.module_utils import _ramp, _routes
from ansible_collections.trafficshift.istio.plugins.module_utils._ramp import Place, Record
from ansible_collections.trafficshift.istio.plugins.module_utils._route_store import RouteStore

SPEC: dict[str, Any] = {
    "name": "tcp-echo",
    "namespace": "default",
    "service": "tcp-echo",
    "service_port": 9000,
    "versions": {"v1": {"version": "v1"}, "v2": {"version": "v2"}},
    "gateway_name": "tcp-echo-gateway",
    "gateway_port": 31400,
    "gateway_selector": {"istio": "ingressgateway"},
}
RECORD = Record(
    "abc", "me", Place("", 1, ""), "2026-11-24T10:00:00Z", "2026-11-24T10:00:00Z", 60, "forward", "route", "v1", "v2",
    {"v1": 100, "v2": 0}, {"v1": 80, "v2": 20}, {"v1": 100, "v2": 0},
)  # fmt: skip


class OneRoute:
    """Has the objects of one route, and writes down what is patched."""

    def __init__(self, method: str, weights: dict[str, int]) -> None:
        self.objects = _routes.tcp_route_objects({**SPEC, "weights": weights, "method": method})
        for number, item in enumerate(self.objects):
            item["metadata"]["resourceVersion"] = str(number + 1)
        self.patched: list[dict[str, Any]] = []

    def find(self, _api_version: str, kind: str, _namespace: str) -> list[dict[str, Any]]:
        return [item for item in self.objects if item["kind"] == kind]

    def patch(self, definition: dict[str, Any]) -> dict[str, Any]:
        self.patched.append(definition)
        return definition


def store(cluster: OneRoute) -> RouteStore:
    return RouteStore(cluster, SPEC)  # type: ignore[arg-type]


@pytest.mark.parametrize("method", ["route", "endpoints"])
def test_a_route_is_read_as_it_is(method: str) -> None:
    live = store(OneRoute(method, {"v1": 80, "v2": 20})).read()
    assert (live.weights, live.method, live.record) == ({"v1": 80, "v2": 20}, method, None)


def test_without_a_route_there_are_no_weights() -> None:
    cluster = OneRoute("route", {"v1": 100})
    cluster.objects = []
    live = store(cluster).read()
    assert (live.weights, live.method, live.record) == ({}, "", None)


def test_the_record_is_written_on_what_was_read() -> None:
    cluster = OneRoute("route", {"v1": 100, "v2": 0})
    routes = store(cluster)
    routes.write_record(routes.read(), RECORD)
    (patch,) = cluster.patched
    assert patch["kind"] == "VirtualService"
    assert patch["metadata"]["resourceVersion"] == "3"
    assert patch["metadata"]["annotations"] == {_ramp.ANNOTATION: _ramp.encode(RECORD)}
    assert "spec" not in patch
    routes.write_record(routes.read(), None)
    assert cluster.patched[1]["metadata"]["annotations"] == {_ramp.ANNOTATION: None}


def test_weights_of_the_route_are_written_with_the_record_in_one() -> None:
    cluster = OneRoute("route", {"v1": 100, "v2": 0})
    routes = store(cluster)
    routes.write_weights(routes.read(), {"v1": 80, "v2": 20}, RECORD)
    (patch,) = cluster.patched
    assert (patch["kind"], patch["metadata"]["resourceVersion"]) == ("VirtualService", "3")
    assert patch["metadata"]["annotations"][_ramp.ANNOTATION] == _ramp.encode(RECORD)
    assert _routes.tcp_route_weights(patch, 31400) == {"v1": 80, "v2": 20}


def test_weights_of_endpoints_are_written_after_the_record() -> None:
    cluster = OneRoute("endpoints", {"v1": 100, "v2": 0})
    routes = store(cluster)
    routes.write_weights(routes.read(), {"v1": 80, "v2": 20}, RECORD)
    assert [patch["kind"] for patch in cluster.patched] == ["VirtualService", "DestinationRule"]
    assert "spec" not in cluster.patched[0]
    balancer = cluster.patched[1]["spec"]["trafficPolicy"]["loadBalancer"]
    assert balancer["localityLbSetting"]["distribute"] == [{"from": "*", "to": {"v1": 80, "v2": 20}}]


@pytest.mark.parametrize(("method", "kind"), [("route", "virtualservice"), ("endpoints", "destinationrule")])
def test_the_command_that_restores_the_weights(method: str, kind: str) -> None:
    cluster = OneRoute(method, {"v1": 0, "v2": 100})
    routes = store(cluster)
    command = shlex.split(routes.restore_command(routes.read(), {"v1": 100, "v2": 0}))
    assert command[:5] == ["kubectl", "-n", "default", "patch", kind]
    spec = json.loads(command[-1])["spec"]
    restored = [{**item, "spec": spec} if item["kind"].lower() == kind else item for item in cluster.objects]
    assert _routes.tcp_route_live(SPEC, restored)["weights"]["v1"] == 100
