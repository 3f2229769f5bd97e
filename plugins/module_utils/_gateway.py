# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads from the configuration of gateway replicas where they send connections, and waits until all agree. Pure.

Weights are those of the listener's clusters (the method "route"), or those of the localities in the cluster of the
Service as a whole ("endpoints"), where a locality is called like a version. The clock, the pause and the way to ask a
replica are handed in.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import quote

from ansible_collections.trafficshift.istio.plugins.module_utils._pods import LOCALITY_LABEL, SIDECAR, Object

FIRST_PAUSE = 0.1  # seconds; a change takes about as long to get from istiod to a gateway
LONGEST_PAUSE = 1.0
SHOWN = 10  # destinations of one replica that are returned
LONGEST_NAME = 200

_WHOLE = {"": 100}  # weights of a route to the Service as a whole
_TAKES = ("HEALTHY", "UNKNOWN", "DEGRADED")  # health of endpoints that take connections

Weights = dict[str, float]


class Destination(NamedTuple):
    """The Service that a route goes to. `host` is name.namespace, with or without the cluster's domain."""

    host: str
    port: int

    def subset(self, cluster: str) -> str | None:
        """Return the subset that an Envoy cluster stands for, "" without one, None if it is another Service."""
        parts = cluster.split("|")
        if len(parts) != 4 or parts[0] != "outbound" or parts[1] != str(self.port):
            return None
        return parts[2] if short_host(parts[3]) == short_host(self.host) else None


class Listener(NamedTuple):
    """What one gateway replica does with connections to a port."""

    # Percentage by subset, a cluster of another Service by its whole name. Several if connections are told apart.
    routes: list[Weights]
    warming: bool  # a newer configuration has arrived and is not in use yet
    error: str  # why the latest configuration was refused


class Endpoints(NamedTuple):
    """How the cluster of a Service as a whole shares connections among its endpoints."""

    weights: Weights  # by locality, as istiod gave them; those without an endpoint that takes connections are not there
    weighted: bool  # else Envoy ignores localities


class Replica(NamedTuple):
    """What is known of one gateway replica."""

    name: str
    ok: bool
    weights: Weights | None = None
    clusters: list[str] | None = None
    warming: bool = False
    error: str = ""
    method: str | None = None  # where the weights stand
    missing: Sequence[str] = ()  # versions that have their weight, and no endpoint to take its connections


class Wanted(NamedTuple):
    """What every replica is to have; None is not compared."""

    weights: Mapping[str, int] | None
    clusters: Sequence[str]
    method: str = "route"
    endpoint_weights: Mapping[str, int] | None = None


class Outcome(NamedTuple):
    """The replicas when the waiting ended, and whether all had what was wanted."""

    replicas: list[Replica]
    converged: bool
    rounds: int


def check_host(host: str) -> None:
    """Raise ValueError with one sentence unless the name of a Service has its namespace in it."""
    name, _dot, namespace = host.partition(".")
    if not name or not namespace:
        raise ValueError(f"The destination {host[:LONGEST_NAME]} has no namespace: give it as name.namespace.")


def short_host(host: str) -> str:
    """Return name.namespace of a Service's name, as the cluster's domain is not known here."""
    return ".".join(host.split(".")[:2])


def listener_query(port: int) -> str:
    """Return the path of Envoy's admin page for the listeners on a port."""
    return f"config_dump?resource=dynamic_listeners&name_regex={quote(f'.*_{port}')}"


def clusters_pattern(destination: Destination) -> str:
    """Return a regular expression for the names of a Service's clusters, quoted for a query."""
    pattern = rf"outbound\|{destination.port}\|.*\|{re.escape(short_host(destination.host))}\..*"
    return quote(pattern, safe="")


def clusters_query(destination: Destination) -> str:
    """Return the path of Envoy's admin page for the clusters of a Service that are in use."""
    return f"config_dump?resource=dynamic_active_clusters&name_regex={clusters_pattern(destination)}"


def endpoints_query(destination: Destination) -> str:
    """Return the path of Envoy's admin page for the endpoints of a Service as a whole."""
    return f"config_dump?include_eds&resource=dynamic_endpoint_configs&name_regex={_whole_pattern(destination)}"


def weighting_query(destination: Destination) -> str:
    """Return the path of Envoy's admin page for how the cluster of a Service as a whole balances."""
    query = f"config_dump?resource=dynamic_active_clusters&name_regex={_whole_pattern(destination)}"
    return f"{query}&mask=cluster.name,cluster.common_lb_config"


def listener_port(service: Object | None, port: int, pod: Object) -> int:
    """Return the port that a gateway pod listens on for a port of its Service, the same if the Service lacks it."""
    for entry in ((service or {}).get("spec") or {}).get("ports") or []:
        if entry.get("port") == port:
            target = entry.get("targetPort", port)
            if isinstance(target, int):
                return target
            for container in (pod.get("spec") or {}).get("containers") or []:
                for opened in container.get("ports") or []:
                    if opened.get("name") == target:
                        return int(opened["containerPort"])
    return port


def read_listener(dump: Any, port: int, destination: Destination) -> Listener:
    """Return what a dump of dynamic listeners says of a port.

    Of several listeners and filter chains those that go to the destination count, else all that go anywhere.
    """
    routes: list[Weights] = []
    elsewhere: list[Weights] = []
    warming, error = False, ""
    for config in _items(dump, "configs"):
        if not str(config.get("name", "")).endswith(f"_{port}"):
            continue
        warming = warming or bool(config.get("warming_state"))
        error = error or str(_mapping(config, "error_state").get("details", ""))
        listener = _mapping(_mapping(config, "active_state"), "listener")
        for chain in [*_items(listener, "filter_chains"), *_items(listener, "default_filter_chain")]:
            for weights, arrives in _chain_weights(chain, destination):
                (routes if arrives else elsewhere).append(weights)
    return Listener(routes or elsewhere, warming, error)


def read_clusters(dump: Any, destination: Destination) -> list[str]:
    """Return the subsets of the destination whose clusters a dump of active clusters holds."""
    names = (str(_mapping(config, "cluster").get("name", "")) for config in _items(dump, "configs"))
    return sorted({subset for subset in map(destination.subset, names) if subset})


def read_endpoints(endpoints: Any, clusters: Any, destination: Destination) -> Endpoints:
    """Return what dumps of endpoints and of active clusters say of the Service as a whole.

    Localities of another priority than the first get nothing as long as the first has endpoints.
    """
    weights: Weights = {}
    for config in _items(endpoints, "configs"):
        assignment = _mapping(config, "endpoint_config")
        if destination.subset(str(assignment.get("cluster_name", ""))) != "":
            continue
        for group in _items(assignment, "endpoints"):
            takes = any(e.get("health_status", "HEALTHY") in _TAKES for e in _items(group, "lb_endpoints"))
            if takes and not group.get("priority"):
                name = locality_name(group.get("locality"))[:LONGEST_NAME]
                weights[name] = weights.get(name, 0) + _number(group.get("load_balancing_weight"))
    whole = [_mapping(c, "cluster") for c in _items(clusters, "configs")]
    balancing = [_mapping(c, "common_lb_config") for c in whole if destination.subset(str(c.get("name", ""))) == ""]
    return Endpoints(weights, any("locality_weighted_lb_config" in config for config in balancing))


def locality_name(locality: Any) -> str:
    """Return an Envoy locality as the DestinationRule names it, "" for none; that of a version is its name."""
    parts = [_text(locality, key) for key in ("region", "zone", "sub_zone")]
    return "/".join(parts).rstrip("/")


def judge_replica(
    name: str,
    listener: Listener | None,
    clusters: list[str] | None,
    wanted: Wanted,
    endpoints: Endpoints | None = None,
) -> Replica:
    """Return the replica with whether it has what is wanted; what is None was not asked for."""
    ok, method = True, None
    weights: Weights | None = None
    missing: list[str] = []
    if listener is not None:
        weights = listener.routes[0] if listener.routes else {}
        method = "route" if weights else None
        if wanted.weights is not None:
            share = {subset: weight for subset, weight in wanted.weights.items() if weight}  # Istio leaves 0 out
            routed: Mapping[str, float] = _WHOLE if share and wanted.method == "endpoints" else share
            # One that is still as it was must not hide behind another.
            weights = next((route for route in listener.routes if not same_weights(route, routed)), weights)
            ok = not listener.warming and same_weights(weights, routed)
    if endpoints is not None and (listener is None or same_weights(weights or {}, _WHOLE)):
        method = "endpoints" if endpoints.weighted else None
        total = sum(endpoints.weights.values())
        weights = {version: _plain(100 * w / total) for version, w in endpoints.weights.items() if w}
        weights = weights if endpoints.weighted else {**_WHOLE}
        asked = wanted.endpoint_weights if listener is None else wanted.weights
        if asked:
            share = {version: weight for version, weight in asked.items() if weight}
            right = {version: weight for version, weight in share.items() if version in endpoints.weights}
            ok = ok and endpoints.weighted and same_weights(endpoints.weights, right)
            missing = [version for version in share if version not in right] if ok else []
            ok = ok and not missing
    if clusters is not None:
        ok = ok and set(wanted.clusters) <= set(clusters)
    return Replica(
        name,
        ok,
        dict(list(weights.items())[:SHOWN]) if weights is not None else None,
        clusters[:SHOWN] if clusters is not None else None,
        listener.warming if listener else False,
        listener.error if listener else "",
        method,
        missing,
    )


def same_weights(one: Mapping[str, float], other: Mapping[str, float]) -> bool:
    """Whether two mappings give the same percentages."""
    return one.keys() == other.keys() and all(abs(one[name] - other[name]) < 1e-6 for name in one)


def wait_for_replicas(
    pods: Callable[[], Sequence[Object]],
    ask: Callable[[Sequence[Object]], Sequence[Replica]],
    timeout: float,
    *,
    clock: Callable[[], float],
    sleep: Callable[[float], None],
    needed: bool = True,
    transient: type[Exception] = TimeoutError,
) -> Outcome:
    """Ask the ready replicas until each has been seen to have what is wanted, or `timeout` seconds have passed.

    The replicas are listed anew in each round, as they come and go. One that has had it is not asked again: istiod
    does not take a configuration back. A timeout of 0 asks once. Without any replica it is done if none is `needed`.
    What `pods` and `ask` raise goes through, `transient` only when the time is over.
    """
    deadline = clock() + timeout
    pause, rounds = FIRST_PAUSE, 0
    seen: dict[tuple[str, int], Replica] = {}
    while True:
        rounds += 1
        try:
            ready = list(pods())
        except transient:
            if clock() >= deadline:
                raise
        else:
            waiting = [pod for pod in ready if incarnation(pod) not in seen]
            lagging = []
            for pod, replica in zip(waiting, ask(waiting) if waiting else []):
                if replica.ok:
                    seen[incarnation(pod)] = replica
                else:
                    lagging.append(replica)
            done = [seen[incarnation(pod)] for pod in ready if incarnation(pod) in seen]
            replicas = sorted([*done, *lagging], key=lambda replica: replica.name)
            if not lagging and (ready or not needed):
                return Outcome(replicas, True, rounds)
            if clock() >= deadline:
                return Outcome(replicas, False, rounds)
        left = max(0.0, deadline - clock())
        sleep(min(pause, left))
        pause = min(pause * 1.5, LONGEST_PAUSE)


def incarnation(pod: Object) -> tuple[str, int]:
    """Return what changes when the pod or its proxy starts anew."""
    statuses = (pod.get("status") or {}).get("containerStatuses") or []
    restarts = next((int(s.get("restartCount", 0)) for s in statuses if s.get("name") == SIDECAR), 0)
    return str(pod["metadata"].get("uid", pod["metadata"]["name"])), restarts


def describe_success(outcome: Outcome, wanted: Wanted, port: int) -> str:
    """Return what all replicas have, as the beginning of a sentence."""
    if not outcome.replicas:
        return "No gateway replica is ready, so none has a route"
    number = len(outcome.replicas)
    who = f"All {number} gateway replicas have" if number > 1 else "The only gateway replica has"
    if wanted.weights is None and not wanted.clusters and number > 1:
        return f"All {number} gateway replicas were read"
    read = outcome.replicas[0].weights
    where = f" on port {port}" if wanted.endpoint_weights is None else ""
    by = " by the weights of endpoints" if outcome.replicas[0].method == "endpoints" else ""
    parts = [] if read is None else [f"{weights_text(read)}{by}{where}"]
    if wanted.clusters:
        parts.append(f"the versions {', '.join(wanted.clusters)}")
    return f"{who} {' and '.join(parts)}"


def describe_lag(outcome: Outcome, wanted: Wanted, port: int, labels: str) -> str:
    """Return what is missing, as the beginning of a sentence. `labels` are the gateway's."""
    lagging = [replica for replica in outcome.replicas if not replica.ok]
    if not lagging:
        return f"No gateway replica with {labels} is ready"
    replica = lagging[0]
    others = len(lagging) - 1
    tail = f" ({others} other{'s' if others > 1 else ''} of {len(outcome.replicas)} too)" if others else ""
    if replica.weights is None and replica.clusters is None:
        return f"The gateway replica {replica.name} could not be asked ({replica.error.rstrip('.')}){tail}"
    missing = [name for name in wanted.clusters if name not in (replica.clusters or [])]
    if replica.clusters is not None and missing:
        return f"The gateway replica {replica.name} does not know {', '.join(missing)} yet{tail}"
    if replica.missing:
        rest = ", so that the others get its share" if replica.weights else ""
        return (
            f"The gateway replica {replica.name} has the weights, but no ready endpoint of "
            f"{', '.join(replica.missing)}{rest}{tail}"
        )
    has = weights_text(replica.weights or {})
    by = ""
    if wanted.endpoint_weights or (wanted.weights and wanted.method == "endpoints"):
        # The same numbers in the other place are not what is wanted.
        has += {"route": " by its route", "endpoints": " by the weights of endpoints"}.get(replica.method or "", "")
        by = " by the weights of endpoints"
    why = " and a newer one that is not in use yet" if replica.warming else ""
    refused = f", after it refused the latest ({replica.error.rstrip('.')})" if replica.error else ""
    return (
        f"The gateway replica {replica.name} has {has} on port {port}{why}{refused}, not "
        f"{weights_text(wanted.endpoint_weights or wanted.weights or {})}{by}{tail}"
    )


def describe_advice(outcome: Outcome) -> str:
    """Return where to look when something is missing, as the end of a sentence."""
    missing = next((replica.missing for replica in outcome.replicas if not replica.ok), ())
    if missing:
        return f"look at the pods of {', '.join(missing)}, whether they are ready and have the label {LOCALITY_LABEL}"
    return "look at istioctl proxy-status, and at the log of istiod and of the gateway's pods"


def weights_text(weights: Mapping[str, float]) -> str:
    """Return weights for a sentence, for example v1 80 / v2 20."""
    shown = [f"{name or '(all versions)'} {weight:g}" for name, weight in weights.items() if weight]
    return " / ".join(shown[:SHOWN]) or "no route"


def _chain_weights(chain: Mapping[str, Any], destination: Destination) -> Iterator[tuple[Weights, bool]]:
    """Yield where a filter chain's TCP proxy sends connections, and whether any go to the destination."""
    for item in _items(chain, "filters"):
        config = _mapping(item, "typed_config")
        if not str(config.get("@type", "")).endswith("tcp_proxy.v3.TcpProxy"):
            continue
        clusters = _items(_mapping(config, "weighted_clusters"), "clusters")
        pairs = [(str(cluster.get("name", "")), _number(cluster.get("weight"))) for cluster in clusters]
        if config.get("cluster"):
            pairs = [(str(config["cluster"]), 1.0)]
        total = sum(weight for _name, weight in pairs)
        weights: Weights = {}
        arrives = False
        for name, weight in pairs:
            if weight:
                subset = destination.subset(name)
                arrives = arrives or subset is not None
                key = (name if subset is None else subset)[:LONGEST_NAME]
                weights[key] = weights.get(key, 0) + 100 * weight / total
        if weights:
            yield {name: _plain(weight) for name, weight in weights.items()}, arrives


def _whole_pattern(destination: Destination) -> str:
    """Return a regular expression for the name of the cluster of a Service as a whole, quoted for a query."""
    return quote(rf"outbound\|{destination.port}\|\|{re.escape(short_host(destination.host))}\..*", safe="")


def _plain(weight: float) -> float:
    rounded = round(weight, 6)
    return int(rounded) if rounded == int(rounded) else rounded


def _items(config: Any, key: str) -> list[Mapping[str, Any]]:
    """Return the mappings in the list under a key, or the one mapping under it."""
    found = config.get(key) if isinstance(config, Mapping) else None
    items = found if isinstance(found, list) else [found]
    return [item for item in items if isinstance(item, Mapping)]


def _mapping(config: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = config.get(key)
    return found if isinstance(found, Mapping) else {}


def _text(config: Any, key: str) -> str:
    return str(config.get(key) or "") if isinstance(config, Mapping) else ""


def _number(value: Any) -> float:
    return float(value) if isinstance(value, (int, float)) else 0.0
