# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The hops of the way of a connection, from the account's rights to the pods: one function judges one hop. Pure.

Each takes live objects and returns a Hop. `saw` says what is there, `fix` what to do about it, `message` both. A hop
that is in order can have a `fix` too: advice about what could not be told for sure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ansible_collections.trafficshift.istio.plugins.module_utils import _mesh
from ansible_collections.trafficshift.istio.plugins.module_utils._gateway import (
    Replica,
    listener_port,
    weights_text,
)
from ansible_collections.trafficshift.istio.plugins.module_utils._mesh import Mesh, Rules
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
from ansible_collections.trafficshift.istio.plugins.module_utils._routes import (
    destination_rule_name,
    tcp_route_weights,
)
from ansible_collections.trafficshift.istio.plugins.module_utils._sync import State

HOPS = (
    "cluster",
    "rights",
    "istio",
    "gateway_port",
    "gateway_selector",
    "listener",
    "drain",
    "subsets",
    "destination_rule",
    "endpoints",
    "sidecars",
    "sync",
    "mtls",
    "protocol",
    "conflicts",
)
SHOWN = 5  # names in one sentence
NO_SUBSET = ""  # all pods of the Service

# How sidecars treat a port by its declared protocol (ConvertProtocol in Istio's pkg/config/kube/conversion.go).
AS_HTTP = ("http", "http2", "http_proxy", "grpc")
AS_TCP = ("tcp", "tls", "https", "mongo", "redis", "mysql")
HTTP_NAMES = {"kubernetes.io/h2c": "http2", "kubernetes.io/ws": "http", "kubernetes.io/wss": "https"}
TCP_PORTS = (25, 53, 3306, 27017)  # without a declaration these are not guessed

TAKES = {
    "STRICT": "mutual TLS only",
    "PERMISSIVE": "mutual TLS and plain TCP",
    "DISABLE": "no mutual TLS",
}  # by mTLS mode

Versions = Mapping[str, Mapping[str, str]]


class Hop(NamedTuple):
    """What was found at one hop; `ok` is None if it was not looked at."""

    hop: str
    ok: bool | None
    saw: str
    fix: str = ""
    facts: Mapping[str, Any] = {}  # what else was found, by the name that it has in a result

    @property
    def message(self) -> str:
        return f"{self.saw}: {self.fix}." if self.fix else f"{self.saw}."

    def result(self) -> dict[str, Any]:
        """Return the hop as a module returns it."""
        return {"hop": self.hop, "ok": self.ok, "saw": self.saw, "fix": self.fix, "message": self.message}


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


def check_listener(
    replicas: Sequence[Replica],
    port: int,
    *,
    route: Object | None,
    reference: str,
    service: str,
    gateways: Sequence[Object],
    gateway_labels: Sequence[Mapping[str, str]],
) -> Hop:
    """Whether each gateway replica sends connections to the port on to the Service, by its own configuration.

    `route` is the live VirtualService, `reference` its namespace/name, empty if it is not known; with `gateways`, all
    Gateways that can be seen, it says why there is no listener. `replicas` without weights could not be asked.
    """
    asked = [replica for replica in replicas if replica.weights is not None]
    lacking = next((replica for replica in asked if not replica.weights), None)
    if lacking or not asked:
        saw, fix = _why_no_listener(port, route, reference, gateways, gateway_labels) if reference else ("", "")
        if lacking:
            refused = f"it refused the latest configuration ({lacking.error.rstrip('.')})" if lacking.error else ""
            saw = saw or refused or "although what is declared asks for one"
            fix = fix or "look at istioctl proxy-status, and at the log of istiod and of the gateway's pods"
            return Hop("listener", False, f"The gateway replica {lacking.name} has no route on port {port}, {saw}", fix)
        if saw:
            return Hop("listener", False, f"No gateway replica can have a route on port {port}, {saw}", fix)
    for replica in asked:
        elsewhere = [name for name in replica.weights or {} if "|" in name or name == "BlackHoleCluster"]
        if elsewhere:
            return Hop(
                "listener",
                False,
                f"The gateway replica {replica.name} sends connections on port {port} to {_names(elsewhere)}, not to "
                f"the Service {service}",
                f"find the route that has the port with kubectl get virtualservices -A, and take port {port} out of it",
            )
    silent = next((replica for replica in replicas if replica.weights is None), None)
    if silent:
        return Hop(
            "listener",
            None,
            f"Not checked, as the gateway replica {silent.name} could not be asked ({silent.error.rstrip('.')})",
        )
    if not replicas:
        return Hop("listener", None, "Not checked, as no gateway pod is ready")
    number = f"All {len(asked)} gateway replicas have" if len(asked) > 1 else "The only gateway replica has"
    saw = f"{number} {weights_text(asked[0].weights or {})} on port {port}"
    behind = next((replica for replica in asked if replica.warming or replica.error), None)
    if behind:
        why = f"refused a newer one ({behind.error.rstrip('.')})" if behind.error else "does not use a newer one yet"
        return Hop("listener", True, f"{saw}, but {behind.name} {why}", "look at istioctl proxy-status if this stays")
    return Hop("listener", True, saw)


def check_drain(seconds: Mapping[str, float], silent: Mapping[str, str], wanted: int) -> Hop:
    """Whether each gateway replica has the drain time that is wanted, in seconds; 0 takes any.

    `seconds` is the drain time in force by replica, `silent` why others could not be asked.
    """
    facts = {"drain_seconds": dict(seconds)}
    other = next((name for name, drain in seconds.items() if wanted and drain != wanted), None)
    if other:
        return Hop(
            "drain",
            False,
            f"The gateway replica {other} has drain {seconds[other]:g} s, not {wanted} s",
            "set istio_gateway_drain_duration of the istio role, or give the gateway's pod template the annotation "
            f"proxy.istio.io/config with drainDuration: {wanted}s in it, which starts its pods anew",
            facts,
        )
    for name, why in silent.items():
        saw = f"gateway replica {name} could not be asked ({why.rstrip('.')})"
        if wanted:
            return Hop("drain", False, f"The {saw}", "look at the gateway's pods", facts)
        return Hop("drain", None, f"Not checked, as the {saw}", facts=facts)
    if not seconds:
        return Hop("drain", None, "Not checked, as no gateway pod is ready", facts=facts)
    if len(set(seconds.values())) > 1:
        each = _names(f"{name} {drain:g} s" for name, drain in seconds.items())
        return Hop(
            "drain",
            True,
            f"The gateway replicas have different drain times ({each})",
            "wait until the gateway's Deployment is rolled out",
            facts,
        )
    number = f"All {len(seconds)} gateway replicas have" if len(seconds) > 1 else "The only gateway replica has"
    drain = next(iter(seconds.values()))
    saw = f"{number} drain {drain:g} s, the time from a change of the route until it cuts sessions"
    return Hop("drain", True, saw, facts=facts)


def _why_no_listener(
    port: int,
    route: Object | None,
    reference: str,
    gateways: Sequence[Object],
    gateway_labels: Sequence[Mapping[str, str]],
) -> tuple[str, str]:
    """Return why no gateway pod can have a listener and what to do, both empty if all that is declared asks for one."""
    again = "declare it again with the tcp_route role"
    if route is None:
        return f"as there is no VirtualService {reference}", "set the route with the tcp_route role"
    bound = {_resolve(name, _key(route)[0]) for name in (route.get("spec") or {}).get("gateways") or []}
    if not _owns_port(route, port, bound):
        return f"as the VirtualService {reference} has no TCP route for it", again
    found = [gateway for gateway in gateways if _key(gateway) in bound]
    if not found:
        return f"as there is no Gateway {_names(sorted('/'.join(key) for key in bound))}", again
    opened = [gateway for gateway in found if port in _ports(gateway)]
    if not opened:
        has = _names(sorted({port for gateway in found for port in _ports(gateway)}))
        return f"as the Gateway {_names(map(_name, found))} opens {has} only", again
    selectors = [(gateway.get("spec") or {}).get("selector") or {} for gateway in opened]
    matched = any(selector.items() <= labels.items() for selector in selectors for labels in gateway_labels)
    if gateway_labels and not matched:
        return (
            f"as the selector {selector_text(selectors[0])} of the Gateway {_name(opened[0])} matches no ready gateway "
            "pod",
            "give the labels of the gateway's pods as selector",
        )
    return "", ""


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
    for name in weighted(versions, weights):
        if not any(has_labels(pod, versions[name]) for pod in pods):
            return Hop(
                "subsets",
                False,
                f"No pod in the namespace {namespace} matches {selector_text(versions[name])}, the labels of version "
                f"{name}",
                "deploy that version, or correct its labels",
            )
    return Hop("subsets", True, f"The labels of {_names(weighted(versions, weights))} match pods")


def check_destination_rule(
    rules: Rules,
    *,
    service: str,
    route: str,
    named: Sequence[str],
    versions: Versions,
    pods: Sequence[Object],
) -> Hop:
    """Whether the live DestinationRules have each subset that the route names, with its version's labels, and pods.

    `rules` are those that hold for the gateway, `service` and `route` are namespace/name of the Service and of the
    VirtualService, `named` the subsets to which it sends connections.
    """

    own = destination_rule_name(route)

    def bad(saw: str, source: str, mend: str) -> Hop:
        """Only what is in the route's own DestinationRule can be mended by declaring the route again."""
        again = "declare the route again with the tcp_route role"
        return Hop(
            "destination_rule", False, saw, again if source == own else f"{mend}, or delete that DestinationRule"
        )

    if not named:
        return Hop("destination_rule", True, f"The VirtualService {route} goes to {service} without subsets")
    for name in named:
        subset = rules.subsets.get(name)
        if subset is None:
            return bad(
                f"No DestinationRule for {service} has the subset {name}, which the VirtualService {route} goes to "
                f"(there is {_names(rules.names)}, with {_names(rules.subsets)})",
                own if own in rules.names or not rules.names else "",
                "put it in",
            )
        wrong = ""
        if pods and not any(has_labels(pod, subset.labels) for pod in pods):
            wrong += ", which no pod of the Service has"
        if subset.labels != versions.get(name, subset.labels):
            wrong += f", while the version {name} is declared with {selector_text(versions[name])}"
        if wrong:
            return bad(
                f"The subset {name} of the DestinationRule {subset.source} has the labels "
                f"{selector_text(subset.labels) or 'none'}{wrong}",
                subset.source,
                "correct its labels",
            )
        if name not in versions:
            return Hop(
                "destination_rule",
                False,
                f"The VirtualService {route} goes to the subset {name} of the DestinationRule {subset.source}, which "
                f"is none of the declared versions ({_names(versions)})",
                "declare that version, or set the weights again with the tcp_route role",
            )
    sources = dict.fromkeys(rules.subsets[name].source for name in named)
    return Hop("destination_rule", True, f"The subsets {_names(named)} of {_names(sources)} match pods")


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
    for name in weighted(versions, weights):
        there = [pod for pod in pods if has_labels(pod, versions[name])]
        if not any(is_ready(pod) for pod in there):
            saw = f"none of its pods is ready ({_pods(there)})" if there else "it has no pod"
            namespace = reference.partition("/")[0]
            return bad(
                f"Version {name} of the Service {reference} cannot take connections, as {saw}",
                f"look at kubectl -n {namespace} get pods -l {selector_text(versions[name])}",
            )
    return Hop("endpoints", True, f"The Service {reference} has ready pods of {_names(weighted(versions, weights))}")


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


def check_sync(states: Sequence[State]) -> Hop:
    """Whether each proxy is connected to istiod and took its latest configuration."""

    def bad(saw: str, fix: str) -> Hop:
        return Hop("sync", False, saw, fix)

    for state in states:
        namespace, _slash, name = state.name.partition("/")
        if state.refused:
            return bad(
                f"The proxy of the pod {state.name} refused its latest configuration ({state.refused.rstrip('.')})",
                "find what asks for it, most often an EnvoyFilter (kubectl get envoyfilters -A)",
            )
        if not state.connected:
            return bad(
                f"The proxy of the pod {state.name} is not connected to istiod, so no change reaches it",
                f"look at istiod's pods, and at kubectl -n {namespace} logs {name} -c {SIDECAR}",
            )
    silent = next((state for state in states if state.error), None)
    if silent:
        return Hop(
            "sync", None, f"Not checked, as the pod {silent.name} could not be asked ({silent.error.rstrip('.')})"
        )
    if not states:
        return Hop("sync", None, "Not checked, as no pod with a proxy is ready")
    number = f"All {len(states)} proxies are" if len(states) > 1 else "The proxy is"
    saw = f"{number} connected to istiod, and no listener is refused"
    once = next((state for state in states if state.once), None)
    if once:
        return Hop(
            "sync",
            True,
            f"{saw}, but {once.name} has refused {once.once} configuration{'s' * (once.once > 1)} since it started",
            "look at istioctl proxy-status whether one is still refused",
        )
    return Hop("sync", True, saw)


def check_mtls(
    rules: Rules,
    *,
    subsets: Mapping[str, Mapping[str, str]],
    port: int,
    service: Object | None,
    pods: Sequence[Object],
    policies: Sequence[Object],
    mesh: Mesh,
) -> Hop:
    """Whether each pod takes what the gateway sends to it: plain TCP, TLS or mutual TLS.

    `subsets` are those that connections go to with their labels, NO_SUBSET without any; `port` is the Service's.
    """
    advice: Hop | None = None
    seen: dict[str, None] = {}
    for name, labels in subsets.items():
        mode, source = _mesh.tls_setting(rules, name, port)
        automatic = "by automatic mTLS" if mesh.auto_mtls else "automatic mTLS is off"
        says = f"DestinationRule {source}: {mode}" if mode else automatic
        for pod in (pod for pod in pods if has_labels(pod, labels)):
            pod_port = listener_port(service, port, pod)
            takes, policy = _mesh.accepted(policies, pod, _key(pod)[0], pod_port, mesh.root)
            sends = _mesh.sent(rules, name, port, mesh=mesh, policies=policies, pod=pod, pod_port=pod_port)
            has_sidecar = sidecar(pod)[0]
            if _mesh.clash(sends, takes, pod):
                wants = f"takes {TAKES.get(takes, takes)} (PeerAuthentication {policy})"
                return Hop(
                    "mtls",
                    False,
                    f"The gateway sends {sends} to the pod {_name(pod)} ({says}), which "
                    f"{wants if has_sidecar else 'has no sidecar'}",
                    _mtls_fix(sends, mode, source, policy, has_sidecar),
                )
            if sends in (_mesh.TLS, _mesh.OWN_MUTUAL) and not advice:
                what = "the certificates are of the mesh" if takes == "STRICT" else "the workload itself takes TLS"
                advice = Hop(
                    "mtls",
                    True,
                    f"The gateway sends {sends} to the pod {_name(pod)} ({says})",
                    f"see to it that {what}",
                )
            to = f"pods that take {TAKES.get(takes, takes)}" if has_sidecar else "pods without a sidecar"
            seen[f"{sends} to {to}"] = None
    if not seen:
        return Hop("mtls", None, "Not checked, as there are no pods")
    return advice or Hop("mtls", True, f"The gateway sends {_names(seen)}")


def _mtls_fix(sends: str, mode: str, source: str, policy: str, has_sidecar: bool) -> str:
    if sends == _mesh.MUTUAL:
        other = f"set the PeerAuthentication {policy} to PERMISSIVE" if has_sidecar else "give the pod its sidecar"
        return f"take the tls setting out of the DestinationRule {source}, or {other}" if mode else other
    if mode:
        return f"set the tls mode of the DestinationRule {source} to ISTIO_MUTUAL, or take that setting out"
    return f"set the tls mode of the DestinationRule to ISTIO_MUTUAL, or the PeerAuthentication {policy} to PERMISSIVE"


def check_protocol(service: Object | None, reference: str, port: int) -> Hop:
    """Whether the Service's port is declared as TCP, by appProtocol or else by its name up to the first hyphen."""
    entry = _port_entry(service, port)
    if entry is None:
        return Hop("protocol", None, f"Not checked, as the Service {reference} has no port {port}")
    key, declared = ("appProtocol", entry["appProtocol"]) if entry.get("appProtocol") else ("name", entry.get("name"))
    said = f"{key} {str(declared)[:60]}" if declared else "no name"
    what = f"The port {port} of the Service {reference} has {said}"
    name = HTTP_NAMES.get(str(declared), str(declared or "").lower()).partition("-")[0]
    if entry.get("protocol", "TCP") != "TCP":
        return Hop("protocol", False, f"{what} and is {entry['protocol']}, not TCP", "use a TCP port")
    if name in AS_HTTP:
        return Hop(
            "protocol",
            False,
            f"{what}, so sidecars take its connections for HTTP and refuse anything else",
            "set its appProtocol to tcp, which goes before its name",
        )
    if name in AS_TCP or port in TCP_PORTS:
        return Hop("protocol", True, f"{what}, so sidecars pass its connections on as TCP")
    return Hop(
        "protocol",
        True,
        f"{what}, so sidecars have to guess the protocol, and one in which the server speaks first can hang",
        "set its appProtocol to tcp",
    )


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
    rules: Rules | None = None,
    versions: Versions | None = None,
) -> Hop:
    """Whether another route owns the gateway's port, or another DestinationRule the subsets.

    `own` is namespace and name of the route's VirtualService, `gateway_labels` are the labels of the gateway's pods,
    `service` is namespace and name of its Service. `api_gateways` and `tcp_routes` are those of the Gateway API.
    `rules` are the DestinationRules that hold for the gateway once the route's own is there.
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
    clash = _rule_conflict(rules, "/".join((own[0], destination_rule_name(own[1]))), versions or {}) if rules else None
    return clash or Hop("conflicts", True, f"No other route owns port {port} of the gateway")


def _rule_conflict(rules: Rules, own: str, versions: Versions) -> Hop | None:
    """Return the hop if another DestinationRule for the same host keeps a version's subset from being the route's."""
    for name, labels in versions.items():
        subset = rules.subsets.get(name)
        if own not in rules.names and (subset is None or subset.labels != labels):
            return Hop(
                "conflicts",
                False,
                f"The DestinationRule {_names(rules.names)} for the same host takes the place of {own} at the gateway, "
                f"without the subset {name} as it is declared",
                "delete it, or put the subset into it",
            )
        if subset and subset.source != own and subset.labels != labels:
            return Hop(
                "conflicts",
                False,
                f"The DestinationRule {subset.source} for the same host has its own subset {name} "
                f"({selector_text(subset.labels) or 'no labels'}), which holds because it is older than {own}",
                "take that subset out, or choose another name for the version",
            )
    return None


def named_subsets(route: Object | None, service: str, port: int) -> list[str] | None:
    """Return the subsets to which a VirtualService sends connections on the gateway's port, None if it does not."""
    weights = tcp_route_weights(route or {}, port)
    if not weights:
        return None
    # A destination without subset goes by its host.
    return [name for name, weight in weights.items() if weight and name.partition(".")[0] != service]


def _ports(gateway: Object) -> list[int]:
    servers = (gateway.get("spec") or {}).get("servers") or []
    return [(server.get("port") or {}).get("number", 0) for server in servers]


def _port_entry(service: Object | None, port: int) -> Mapping[str, Any] | None:
    ports = ((service or {}).get("spec") or {}).get("ports") or []
    return next((entry for entry in ports if entry.get("port") == port), None)


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


def weighted(versions: Versions, weights: Mapping[str, int]) -> list[str]:
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
