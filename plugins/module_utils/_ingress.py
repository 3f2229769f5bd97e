# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Finds the address under which a port of a gateway's Service is reached from outside the cluster. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

HOST_PORTS = "trafficshift.istio/host-ports"  # node annotation of a lab: {"node port": "host:port"} as JSON
_LENGTH = 253  # of a host name


class Ingress(NamedTuple):
    """Where to connect to, and how that was found out."""

    host: str
    port: int
    source: str
    reason: str


def find_ingress(service: Mapping[str, Any], port: int, nodes: Iterable[Mapping[str, Any]]) -> Ingress:
    """Return the address of a Service's port: load balancer, lab, node, in this order.

    `nodes` are those that take connections for the Service. Raises ValueError with one sentence if there is none.
    """
    name = f"{service['metadata']['namespace']}/{service['metadata']['name']}"
    spec = service.get("spec") or {}
    ports = spec.get("ports") or []
    entry = next((p for p in ports if p.get("port") == port), None)
    if entry is None:
        has = ", ".join(str(p.get("port")) for p in ports[:20]) or "none"
        raise ValueError(
            f"The Service {name} has no port {port} (it has {has}): run the istio role, or add {{name: tcp, port: "
            f"{port}}} to the Service."
        )
    for field, source, words in (
        ("ip", "loadbalancer_ip", "load balancer has the address"),
        ("hostname", "loadbalancer_hostname", "load balancer has the name"),
    ):
        for balancer in ((service.get("status") or {}).get("loadBalancer") or {}).get("ingress") or []:
            if balancer.get(field):
                host = str(balancer[field])[:_LENGTH]
                return Ingress(host, port, source, f"The {words} {host} for the Service {name}.")
    node_port = entry.get("nodePort")
    if not node_port:
        raise ValueError(
            f"The Service {name} is of type {spec.get('type', 'ClusterIP')}, so its port {port} has no address outside "
            "the cluster: make it a LoadBalancer or NodePort, or give the host and port to probe."
        )
    nodes = [node for node in nodes if _is_ready(node)]
    for node in nodes:
        mapped = _host_port(node, int(node_port))
        if mapped:
            why = f"The lab node {node['metadata']['name']} publishes node port {node_port} there."
            return Ingress(mapped[0], mapped[1], "lab_loopback", why)
    for kind in ("ExternalIP", "InternalIP"):
        for node in nodes:
            for address in (node.get("status") or {}).get("addresses") or []:
                if address.get("type") == kind and address.get("address"):
                    why = (
                        f"The Service {name} has no load balancer address, so this is the {kind} of the node "
                        f"{node['metadata']['name']} with node port {node_port}."
                    )
                    return Ingress(str(address["address"])[:_LENGTH], int(node_port), "node_port", why)
    raise ValueError(
        f"No ready node with an address takes connections for node port {node_port} of the Service {name}: look at "
        "kubectl get nodes and at the gateway's pods, or give the host and port to probe."
    )


def _is_ready(node: Mapping[str, Any]) -> bool:
    conditions = (node.get("status") or {}).get("conditions") or []
    return any(c.get("type") == "Ready" and c.get("status") == "True" for c in conditions)


def _host_port(node: Mapping[str, Any], node_port: int) -> tuple[str, int] | None:
    """Return what a lab node says about a node port; None if it is no lab node or what it says is not usable."""
    annotation = (node["metadata"].get("annotations") or {}).get(HOST_PORTS, "")
    try:
        mapped = json.loads(annotation)[str(node_port)]
        host, _colon, port = mapped.rpartition(":")
        number = int(port)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    host = host.strip("[]")
    return (host, number) if host and len(host) <= _LENGTH and 0 < number < 65536 else None
