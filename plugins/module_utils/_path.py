# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The hops of the way of a connection, from the account's rights to the pods: one function judges one hop. Pure.

Each takes live objects and returns a Hop. `saw` says what is there, `fix` what to do about it, `message` both.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ansible_collections.trafficshift.istio.plugins.module_utils._pods import (
    LOCALITY_LABEL,
    SIDECAR,
    Object,
    has_labels,
    is_alive,
    is_ready,
    labels_of,
    selector_text,
    selects,
    sidecar,
)

HOPS = (
    "cluster",
    "rights",
    "istio",
    "gateway_port",
    "gateway_selector",
    "subsets",
    "endpoints",
    "sidecars",
    "conflicts",
)
SHOWN = 5  # names in one sentence

Versions = Mapping[str, Mapping[str, str]]


class Hop(NamedTuple):
    """What was found at one hop; `ok` is None if it was not looked at."""

    hop: str
    ok: bool | None
    saw: str
    fix: str = ""

    @property
    def message(self) -> str:
        return f"{self.saw}: {self.fix}." if self.fix else f"{self.saw}."

    def result(self) -> dict[str, Any]:
        """Return the hop as a module returns it."""
        return {**self._asdict(), "message": self.message}


def check_rights(refused: Mapping[str, Sequence[str]], namespace: str) -> Hop:
    """`refused` are the resources by verb that the account may not use in the namespace."""
    if not refused:
        return Hop("rights", True, f"The account may set routes in the namespace {namespace}")
    lacks = "; ".join(f"{verb} {', '.join(resources)}" for verb, resources in refused.items())
    return Hop(
        "rights",
        False,
        f"This account may not {lacks} in the namespace {namespace}",
        "ask for these rights, or use another account",
    )


def check_istio(
    missing: Sequence[str],
    *,
    control_planes: Iterable[Object],
    webhooks: Iterable[Object],
    endpoints: Mapping[tuple[str, str], int],
    namespace: str,
    revision: str,
) -> Hop:
    """Judge CRDs (those missing), istiod's Deployments in a namespace, injection webhooks and who answers them.

    `endpoints` is the number of ready endpoints by namespace and name of the Service that a webhook calls.
    """

    def bad(saw: str, fix: str) -> Hop:
        return Hop("istio", False, saw, fix)

    if missing:
        return bad(
            f"Istio is not installed, as the cluster does not know {_names(missing)} of networking.istio.io/v1",
            "run the istio role",
        )
    configurations = injecting(webhooks, revision)
    of_revision = f" of the revision {revision}" if revision else ""
    if not configurations:
        label = f"istio.io/rev={revision}" if revision else "istio-injection=enabled"
        return bad(
            f"No webhook injects sidecars into a namespace labelled {label}",
            "install Istio's control plane with that revision or tag, or use the label of one that is there",
        )
    hooks = [(name, hook.get("clientConfig") or {}) for name, _labels, hook in configurations]
    local = [(name, config["service"]) for name, config in hooks if config.get("service")]
    if local:  # else the control plane runs elsewhere
        revisions = {labels.get("istio.io/rev") for _name, labels, _hook in configurations}
        planes = [
            plane
            for plane in control_planes
            if not any(revisions) or labels_of(plane).get("istio.io/rev", "default") in revisions
        ]
        if not any(_is_available(plane) for plane in planes):
            names = _names(f"{namespace}/{plane['metadata']['name']}" for plane in planes)
            saw = f"istiod is not available ({names})" if planes else f"There is no istiod{of_revision} in {namespace}"
            return bad(saw, f"look at kubectl -n {namespace} get pods" if planes else "run the istio role")
    for name, config in hooks:
        if not config.get("caBundle"):
            return bad(
                f"The injection webhook {name} has no caBundle yet, so it cannot be called",
                "wait until istiod has written it, else look at istiod's log",
            )
    for name, service in local:
        if not endpoints.get((service["namespace"], service["name"])):
            return bad(
                f"The injection webhook {name} calls the Service {service['namespace']}/{service['name']}, which has "
                "no ready endpoint",
                f"look at kubectl -n {service['namespace']} get pods",
            )
    return Hop("istio", True, f"Istio's control plane{of_revision} is available and injects sidecars")


def injecting(webhooks: Iterable[Object], revision: str) -> list[tuple[str, Mapping[str, str], Object]]:
    """Return configuration name, its labels and webhook of those that act on a namespace with the injection label."""
    labels = {"istio.io/rev": revision} if revision else {"istio-injection": "enabled"}
    return [
        (configuration["metadata"]["name"], labels_of(configuration), hook)
        for configuration in webhooks
        for hook in configuration.get("webhooks") or []
        if hook.get("name", "").endswith("sidecar-injector.istio.io")
        and selects(hook.get("namespaceSelector"), labels)
        and selects(hook.get("objectSelector"), {})
    ]


def check_gateway_port(service: Object | None, reference: str, port: int) -> Hop:
    """Whether the ingress gateway's Service lets the port in."""
    if service is None:
        return Hop(
            "gateway_port",
            False,
            f"There is no ingress gateway Service {reference}",
            "run the istio role, or give the Service's name and namespace",
        )
    ports = (service.get("spec") or {}).get("ports") or []
    entry = next((p for p in ports if p.get("port") == port), None)
    if entry is None:
        return Hop(
            "gateway_port",
            False,
            f"The ingress gateway Service {reference} has no port {port} (it has {_names(p['port'] for p in ports)})",
            f"run the istio role, or add {{name: tcp, port: {port}}} to the Service",
        )
    if entry.get("protocol", "TCP") != "TCP":
        return Hop(
            "gateway_port",
            False,
            f"The port {port} of the ingress gateway Service {reference} is {entry['protocol']}, not TCP",
            "choose another port",
        )
    return Hop("gateway_port", True, f"The ingress gateway Service {reference} has the port {port}")


def check_gateway_selector(
    pods: Iterable[Object], service: Object | None, namespace: str, selector: Mapping[str, str]
) -> Hop:
    """Whether the Gateway's selector finds ready pods that the gateway's Service sends connections to.

    `pods` are all pods of the gateway's namespace.
    """

    def bad(saw: str, fix: str) -> Hop:
        return Hop("gateway_selector", False, saw, fix)

    pods = [pod for pod in pods if is_alive(pod)]
    wanted = selector_text(selector)
    behind = ((service or {}).get("spec") or {}).get("selector") or {}
    served = [pod for pod in pods if behind and has_labels(pod, behind)]
    matching = [pod for pod in pods if has_labels(pod, selector)]
    if not matching:
        others = {selector_text({key: labels_of(pod).get(key, "") for key in selector}) for pod in served}
        hint = f"; the gateway's pods carry {_names(sorted(others))}" if others else ""
        return bad(
            f"No pod in the namespace {namespace} matches the gateway selector {wanted}{hint}",
            "give the labels of the gateway's pods as selector",
        )
    ready = [pod for pod in matching if is_ready(pod)]
    if not ready:
        return bad(
            f"No gateway pod that matches {wanted} in the namespace {namespace} is ready ({_pods(matching)})",
            f"look at kubectl -n {namespace} describe pod",
        )
    if behind and not any(pod in served for pod in ready):
        return bad(
            f"The gateway selector {wanted} matches {_pods(ready)}, but the gateway's Service sends connections to "
            f"pods with {selector_text(behind)}",
            "give the labels of the pods behind the Service as selector",
        )
    return Hop("gateway_selector", True, f"The gateway selector {wanted} matches {_pods(ready)}")


def route_pods(pods: Iterable[Object], service: Object | None) -> list[Object]:
    """Return the living pods that the route's Service selects, all living ones if it is not known."""
    selector = ((service or {}).get("spec") or {}).get("selector") or {}
    return [pod for pod in pods if is_alive(pod) and has_labels(pod, selector)]


def check_subsets(pods: Sequence[Object], versions: Versions, weights: Mapping[str, int], namespace: str) -> Hop:
    """Whether the labels of each version match pods, and no pod is in two versions; without pods it is too early."""
    if not pods:
        return Hop("subsets", True, f"There are no pods yet in the namespace {namespace} to tell versions apart")
    for pod in pods:
        found = [name for name, labels in versions.items() if has_labels(pod, labels)]
        if len(found) > 1:
            return Hop(
                "subsets",
                False,
                f"The pod {namespace}/{pod['metadata']['name']} belongs to the versions {_names(found)} at once",
                "give each version labels that no other has",
            )
    for name in _weighted(versions, weights):
        if not any(has_labels(pod, versions[name]) for pod in pods):
            return Hop(
                "subsets",
                False,
                f"No pod in the namespace {namespace} matches {selector_text(versions[name])}, the labels of version "
                f"{name}",
                "deploy that version, or correct its labels",
            )
    return Hop("subsets", True, f"The labels of {_names(_weighted(versions, weights))} match pods")


def check_localities(pods: Sequence[Object], versions: Versions, namespace: str, mesh: Mapping[str, Any]) -> Hop | None:
    """Return what keeps localities from standing for versions, None if nothing does.

    `mesh` is the localityLbSetting of the mesh's configuration.
    """

    def bad(saw: str, fix: str) -> Hop:
        return Hop("subsets", False, saw, f"{fix}, or set the method to route")

    used = [key for key in ("distribute", "failover", "failoverPriority") if mesh.get(key)]
    if used:
        return bad(
            f"The mesh balances by localities (localityLbSetting with {_names(used)}), so that they are places and "
            "cannot stand for versions",
            "take that out of the mesh's configuration",
        )
    unlabelled: dict[str, list[Object]] = {}
    for pod in pods:
        version = next((name for name, labels in versions.items() if has_labels(pod, labels)), "")
        locality = labels_of(pod).get(LOCALITY_LABEL, "")
        if locality and locality != version and (version or locality in versions):
            return bad(
                f"The pod {namespace}/{pod['metadata']['name']} of {version or 'no version'} has the label "
                f"{LOCALITY_LABEL}: {locality}, so that it would get connections as {locality}",
                f"give it the version's name as {LOCALITY_LABEL}" if version else "take the label away",
            )
        if version and not locality:
            unlabelled.setdefault(version, []).append(pod)
    for version, found in unlabelled.items():
        return bad(
            f"The label {LOCALITY_LABEL}: {version} is missing on pods of {version} in the namespace {namespace} "
            f"({_pods(found)}), which would get no connections",
            "add it to the pod template",
        )
    return None


def check_endpoints(
    service: Object | None,
    reference: str,
    port: int,
    *,
    pods: Sequence[Object],
    versions: Versions,
    weights: Mapping[str, int],
) -> Hop:
    """Whether the Service has the port, and each version that gets connections a ready pod. Port 0 is not compared."""

    def bad(saw: str, fix: str) -> Hop:
        return Hop("endpoints", False, saw, fix)

    if service is None:
        return bad(f"There is no Service {reference}", "run the tcp_echo role, or deploy the service")
    ports = (service.get("spec") or {}).get("ports") or []
    if port and not any(p.get("port") == port for p in ports):
        return bad(
            f"The Service {reference} has no port {port} (it has {_names(p['port'] for p in ports)})",
            "correct the port of the route or of the Service",
        )
    for name in _weighted(versions, weights):
        there = [pod for pod in pods if has_labels(pod, versions[name])]
        if not any(is_ready(pod) for pod in there):
            saw = f"none of its pods is ready ({_pods(there)})" if there else "it has no pod"
            namespace = reference.partition("/")[0]
            return bad(
                f"Version {name} of the Service {reference} cannot take connections, as {saw}",
                f"look at kubectl -n {namespace} get pods -l {selector_text(versions[name])}",
            )
    return Hop("endpoints", True, f"The Service {reference} has ready pods of {_names(_weighted(versions, weights))}")


def check_sidecars(pods: Sequence[Object], versions: Versions, namespace: str) -> Hop:
    """Whether every pod of every version has a ready sidecar."""
    members = [pod for pod in pods if any(has_labels(pod, labels) for labels in versions.values())]
    for pod in members:
        there, ready = sidecar(pod)
        name = f"{namespace}/{pod['metadata']['name']}"
        if not there:
            return Hop(
                "sidecars",
                False,
                f"The pod {name} has no sidecar",
                "label the namespace for injection, then restart the pod",
            )
        if not ready:
            return Hop(
                "sidecars",
                False,
                f"The sidecar of the pod {name} is not ready",
                f"look at kubectl -n {namespace} logs {pod['metadata']['name']} -c {SIDECAR}",
            )
    number = f"All {len(members)} pods have" if len(members) > 1 else "The pod has" if members else "No pod is without"
    return Hop("sidecars", True, f"{number} a ready sidecar")


def check_conflicts(
    port: int,
    *,
    own: tuple[str, str],
    gateway_labels: Sequence[Mapping[str, str]],
    gateways: Iterable[Object],
    virtual_services: Iterable[Object],
    api_gateways: Iterable[Object] = (),
    tcp_routes: Iterable[Object] = (),
    service: tuple[str, str] = ("", ""),
) -> Hop:
    """Whether another route owns the gateway's port.

    `own` is namespace and name of the route's VirtualService, `gateway_labels` are the labels of the gateway's pods,
    `service` is namespace and name of its Service. `api_gateways` and `tcp_routes` are those of the Gateway API.
    """

    def bad(saw: str, fix: str) -> Hop:
        return Hop("conflicts", False, saw, fix)

    bound = set()
    for gateway in gateways:
        spec = gateway.get("spec") or {}
        selector = spec.get("selector") or {}
        if not any(selector.items() <= labels.items() for labels in gateway_labels):
            continue
        for server in spec.get("servers") or []:
            opened = server.get("port") or {}
            if opened.get("number") != port:
                continue
            bound.add(_key(gateway))
            if str(opened.get("protocol", "")).upper() != "TCP":
                return bad(
                    f"The Gateway {_name(gateway)} opens port {port} of the same gateway for {opened.get('protocol')}",
                    "choose another port, or take that server out",
                )
    for virtual in virtual_services:
        if _key(virtual) != own and _owns_port(virtual, port, bound):
            return bad(
                f"The VirtualService {_name(virtual)} already routes port {port} of the same gateway, and only one "
                "of the two would be used",
                "delete it, or choose another port",
            )
    taken = {
        (_key(gateway), listener.get("name"))
        for gateway in api_gateways
        if _is_same_gateway(gateway, service, gateway_labels)
        for listener in (gateway.get("spec") or {}).get("listeners") or []
        if listener.get("port") == port
    }
    for route in tcp_routes:
        for parent in (route.get("spec") or {}).get("parentRefs") or []:
            key = (parent.get("namespace") or _key(route)[0], parent.get("name"))
            section = parent.get("sectionName")
            if any(key == gateway and section in (None, listener) for gateway, listener in taken):
                return bad(
                    f"The TCPRoute {_name(route)} already routes port {port} of the same gateway",
                    "delete it, or choose another port",
                )
    return Hop("conflicts", True, f"No other route owns port {port} of the gateway")


def _owns_port(virtual: Object, port: int, bound: set[tuple[str, str]]) -> bool:
    """Whether a VirtualService routes TCP connections to the port on one of the bound Gateways."""
    spec = virtual.get("spec") or {}

    def on_gateway(references: Iterable[str]) -> bool:
        return any(_resolve(reference, _key(virtual)[0]) in bound for reference in references)

    if not on_gateway(spec.get("gateways") or []):
        return False
    for entry in spec.get("tcp") or []:
        for match in entry.get("match") or [{}]:
            if match.get("port", port) == port and (not match.get("gateways") or on_gateway(match["gateways"])):
                return True
    return False


def _is_same_gateway(gateway: Object, service: tuple[str, str], gateway_labels: Sequence[Mapping[str, str]]) -> bool:
    """Whether a Gateway of the Gateway API runs on the gateway's pods: by address, or by the label of its own pods."""
    home, name = _key(gateway)
    hosts = {f"{service[1]}.{service[0]}", *([service[1]] if home == service[0] else [])}
    for address in (gateway.get("spec") or {}).get("addresses") or []:
        host = str(address.get("value", "")).partition(".svc")[0]
        if host in hosts:
            return True
    label = "gateway.networking.k8s.io/gateway-name"
    return home == service[0] and any(labels.get(label) == name for labels in gateway_labels)


def _resolve(reference: str, namespace: str) -> tuple[str, str]:
    home, _slash, name = reference.rpartition("/")
    return (home if home not in ("", ".") else namespace, name)


def _is_available(deployment: Object) -> bool:
    return bool((deployment.get("status") or {}).get("availableReplicas"))


def _weighted(versions: Versions, weights: Mapping[str, int]) -> list[str]:
    """Return the versions that get connections; all of them if there are no weights."""
    return [name for name in versions if not weights or weights.get(name)]


def _key(item: Object) -> tuple[str, str]:
    return str(item["metadata"].get("namespace", "")), str(item["metadata"].get("name", ""))


def _name(item: Object) -> str:
    return "/".join(_key(item))


def _pods(pods: Iterable[Object]) -> str:
    return _names(pod["metadata"]["name"] for pod in pods)


def _names(items: Iterable[Any]) -> str:
    """Return a list of names for a sentence, cut to a few."""
    texts = [str(item)[:120] for item in items]
    more = f" and {len(texts) - SHOWN} more" if len(texts) > SHOWN else ""
    return (", ".join(texts[:SHOWN]) + more) or "none"
