# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What ingress_address reads, and that it reads nodes only if they matter."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.trafficshift.istio.plugins.modules.ingress_address import look_up

READY = {"conditions": [{"type": "Ready", "status": "True"}]}


def node(name: str, address: str) -> dict[str, Any]:
    return {"metadata": {"name": name}, "status": {**READY, "addresses": [{"type": "InternalIP", "address": address}]}}


class FakeCluster:
    def __init__(self, **spec: Any) -> None:
        self.service: dict[str, Any] | None = {
            "metadata": {"name": "gw", "namespace": "edge"},
            "spec": {"selector": {"a": "b"}, "ports": [{"port": 31400, "nodePort": 30400}], **spec},
            "status": {},
        }
        self.read: list[str] = []

    def get(self, *_names: str) -> dict[str, Any] | None:
        return self.service

    def find(self, _version: str, kind: str, *rest: str) -> list[dict[str, Any]]:
        self.read.append(kind)
        if kind == "Pod":
            assert rest == ("edge", "a=b")
            return [{"metadata": {"name": "p"}, "spec": {"nodeName": "two"}, "status": READY}]
        return [node("one", "10.0.0.1"), node("two", "10.0.0.2")]


def test_the_first_node_takes_connections_for_all() -> None:
    cluster = FakeCluster()
    assert look_up(cluster, "gw", "edge", 31400).host == "10.0.0.1"  # type: ignore[arg-type]
    assert cluster.read == ["Node"]


def test_a_node_without_gateway_pod_does_not_if_connections_stay_local() -> None:
    cluster = FakeCluster(externalTrafficPolicy="Local")
    assert look_up(cluster, "gw", "edge", 31400).host == "10.0.0.2"  # type: ignore[arg-type]


def test_with_a_load_balancer_no_nodes_are_read() -> None:
    cluster = FakeCluster()
    assert cluster.service
    cluster.service["status"] = {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}
    assert look_up(cluster, "gw", "edge", 31400).host == "192.0.2.1"  # type: ignore[arg-type]
    assert cluster.read == []


def test_no_service() -> None:
    cluster = FakeCluster()
    cluster.service = None
    with pytest.raises(ValueError, match="There is no Service edge/gw: run the istio role"):
        look_up(cluster, "gw", "edge", 31400)  # type: ignore[arg-type]
