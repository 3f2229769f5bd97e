# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The address of an ingress gateway, from every kind of cluster."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible_collections.trafficshift.istio.plugins.module_utils._ingress import HOST_PORTS, find_ingress
from hypothesis import given
from hypothesis import strategies as st


def service(*ingress: dict[str, Any], node_port: int | None = 30400, kind: str = "LoadBalancer") -> dict[str, Any]:
    port = {"name": "tcp", "port": 31400, **({"nodePort": node_port} if node_port else {})}
    return {
        "metadata": {"namespace": "istio-system", "name": "istio-ingressgateway"},
        "spec": {"type": kind, "ports": [{"name": "http2", "port": 80, "nodePort": 30080}, port]},
        "status": {"loadBalancer": {"ingress": list(ingress)} if ingress else {}},
    }


def node(*addresses: tuple[str, str], ready: str = "True", annotation: str | None = None) -> dict[str, Any]:
    return {
        "metadata": {"name": "node-1", "annotations": {HOST_PORTS: annotation} if annotation is not None else None},
        "status": {
            "conditions": [{"type": "Ready", "status": ready}],
            "addresses": [{"type": kind, "address": address} for kind, address in addresses],
        },
    }


INTERNAL = ("InternalIP", "10.0.0.4")
EXTERNAL = ("ExternalIP", "198.51.100.4")
LAB = json.dumps({"30400": "127.0.0.1:31999"})


@pytest.mark.parametrize(
    ("found_service", "nodes", "expected"),
    [
        (service({"ip": "192.0.2.1"}), [node(INTERNAL, annotation=LAB)], ("192.0.2.1", 31400, "loadbalancer_ip")),
        (service({"hostname": "lb.example.com"}), [], ("lb.example.com", 31400, "loadbalancer_hostname")),
        (service({"hostname": "a"}, {"ip": "192.0.2.1"}), [], ("192.0.2.1", 31400, "loadbalancer_ip")),
        (service(), [node(INTERNAL), node(annotation=LAB)], ("127.0.0.1", 31999, "lab_loopback")),
        (service(), [node(annotation='{"30400": "[::1]:31999"}')], ("::1", 31999, "lab_loopback")),
        (service(), [node(INTERNAL), node(INTERNAL, EXTERNAL)], ("198.51.100.4", 30400, "node_port")),
        (service(), [node(EXTERNAL, ready="False"), node(INTERNAL)], ("10.0.0.4", 30400, "node_port")),
        (service(), [node(INTERNAL, annotation='{"80": "127.0.0.1:80"}')], ("10.0.0.4", 30400, "node_port")),
    ],
)
def test_the_way_in(found_service: Any, nodes: Any, expected: tuple[str, int, str]) -> None:
    found = find_ingress(found_service, 31400, nodes)
    assert found[:3] == expected
    assert found.reason.endswith(".")


@pytest.mark.parametrize(
    ("found_service", "port", "nodes", "message"),
    [
        (
            service(),
            31401,
            [],
            r"has no port 31401 \(it has 80, 31400\): run the istio role, or add \{name: tcp",
        ),
        (
            service(node_port=None, kind="ClusterIP"),
            31400,
            [],
            "is of type ClusterIP, so its port 31400 has no",
        ),
        (service(), 31400, [], "No ready node with an address takes connections for node port 30400"),
        (service(), 31400, [node(INTERNAL, ready="Unknown")], "No ready node with an address"),
    ],
)
def test_no_way_in_gets_one_sentence(found_service: Any, port: int, nodes: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        find_ingress(found_service, port, nodes)


@given(
    st.one_of(
        st.text(max_size=20),
        st.one_of(
            st.none(), st.integers(), st.text(max_size=9), st.sampled_from([":1", "a:0", "a:65536", "a:b", "a"])
        ).map(lambda value: json.dumps({"30400": value})),
        st.lists(st.integers()).map(json.dumps),
    )
)
def test_an_unusable_annotation_is_passed_over(annotation: str) -> None:
    assert find_ingress(service(), 31400, [node(INTERNAL, annotation=annotation)]).source == "node_port"
