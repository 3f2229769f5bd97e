# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Builds the objects of a weighted TCP route around what is already there, and reads its weights back. Pure.

Lists are complete in what is returned, because the API server replaces a list as a whole. A key with the value None
is one that a merge patch removes.

The weights stand in one of two places, the method. With "route" they are the VirtualService's, one destination for each
subset. With "endpoints" the VirtualService names the Service as a whole, and the DestinationRule distributes its
connections over localities that are called like the versions: pods say theirs with a label.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping
from typing import Any

API_VERSION = "networking.istio.io/v1"
MANAGED_BY_LABEL = "app.kubernetes.io/managed-by"
MANAGED_BY = "trafficshift.istio"
SUBSETS_ANNOTATION = "trafficshift.istio/subsets"  # the subsets made here, so that others' are left alone
ROUTE_ANNOTATION = "trafficshift.istio/route"  # the port and the gateway added to somebody else's VirtualService
LOCALITIES_ANNOTATION = "trafficshift.istio/localities"  # the versions whose localities were given weights here
UNWEIGHTED_ANNOTATION = "trafficshift.istio/unweighted"  # the subsets that were told here to ignore these weights
METHODS = ("route", "endpoints")
MESH = "mesh"  # Istio's name for all sidecars, where a VirtualService may bind instead of a gateway

_NARROWING = ("destinationSubnets", "sourceLabels", "sourceNamespace", "sourceSubnet")
_NAMES = ("name", "namespace", "service", "gateway_name")
_PORTS = ("service_port", "gateway_port")

Object = dict[str, Any]


def validate_weights(weights: Any, versions: Any) -> dict[str, int]:
    """Return the percentage of every version, 0 for those not named, in the order of `versions`.

    Raises ValueError with one sentence if `weights` is not a mapping of known versions to whole percentages with the
    sum 100.
    """
    if not isinstance(versions, Mapping) or not versions:
        raise ValueError("versions names no version: give at least one, with its pod labels, like {v1: {version: v1}}.")
    if not isinstance(weights, Mapping) or not weights:
        raise ValueError("weights names no version: give percentages, like {v1: 80, v2: 20}.")
    unknown = [str(name) for name in weights if name not in versions]
    if unknown:
        raise ValueError(f"weights names {_list(unknown)}, but versions only knows {_list(versions)}.")
    checked = dict.fromkeys(map(str, versions), 0)
    for name, given in weights.items():
        # Templates of older ansible-core turn numbers into text.
        weight = int(given) if isinstance(given, str) and given.isdecimal() and len(given) <= 3 else given
        if isinstance(weight, bool) or not isinstance(weight, int) or not 0 <= weight <= 100:
            raise ValueError(f"The weight of {name} is {_cut(given)}, not a whole number from 0 to 100.")
        checked[str(name)] = int(weight)
    total = sum(checked.values())
    if total != 100:
        said = " + ".join(str(weight) for weight in checked.values() if weight) or "0"
        raise ValueError(f"The weights add up to {total}, not to 100 ({said}).")
    return checked


def validate_spec(spec: Any, removal: bool = False) -> dict[str, Any]:
    """Return the route's description with checked weights and plain types; ValueError with one sentence if wrong.

    A `removal` needs only names and ports, and gets only these. The method is "route" unless given.
    """
    if not isinstance(spec, Mapping):
        raise ValueError("The description of the route is not a mapping.")
    needed = (*_NAMES, *_PORTS, *(() if removal else ("versions", "weights", "gateway_selector")))
    missing = [key for key in needed if key not in spec]
    if missing:
        raise ValueError(f"The description of the route lacks {_list(missing)}.")
    plain: dict[str, Any] = {}
    for key in _NAMES:
        if not isinstance(spec[key], str) or not spec[key]:
            raise ValueError(f"The route's {key} is {_cut(spec[key])}, not a name.")
        plain[key] = str(spec[key])
    for key in _PORTS:
        given = spec[key]
        port = int(given) if isinstance(given, str) and given.isdecimal() and len(given) <= 5 else given
        if isinstance(port, bool) or not isinstance(port, int) or not 0 < port < 65536:
            raise ValueError(f"The route's {key} is {_cut(given)}, not a port from 1 to 65535.")
        plain[key] = int(port)
    if removal:
        return plain
    plain["gateway_selector"] = _labels("The gateway selector", spec["gateway_selector"])
    plain["weights"] = validate_weights(spec["weights"], spec["versions"])
    plain["method"] = str(spec.get("method", METHODS[0]))
    if plain["method"] not in METHODS:
        raise ValueError(f"The route's method is {_cut(plain['method'])}, not one of {_list(METHODS)}.")
    plain["versions"] = {str(name): _labels(f"The version {name}", labels) for name, labels in spec["versions"].items()}
    return plain


def tcp_route_objects(spec: Any, existing: Iterable[Object] = (), prune: bool = False) -> list[Object]:
    """Return DestinationRule, Gateway and VirtualService, in the order that never names a subset that is not there.

    `existing` are the live objects; what others wrote into them stays. Subsets made here that are no longer wanted, and
    endpoints' weights if they are not, stay until `prune`, for gateways that still have the former route. Raises
    ValueError with one sentence, also if the route would have to overwrite what others wrote.
    """
    route = validate_spec(spec)
    existing = list(existing)
    live = _live(route, existing)
    held = tcp_route_switch(spec, existing)
    unknown = [version for version, weight in held.items() if weight and version not in route["versions"]]
    if unknown:
        raise ValueError(
            f"Connections go to {_list(unknown)}, which is not among the versions: change the method first, with the "
            "versions as they are, and then the versions."
        )
    if route["method"] == "endpoints":
        _check_localities(route, live["DestinationRule"], existing)
    return [
        _destination_rule(route, live["DestinationRule"], prune),
        _gateway(route, live["Gateway"]),
        _virtual_service(route, live["VirtualService"]),
    ]


def tcp_route_removal(spec: Any, existing: Iterable[Object]) -> list[dict[str, Any]]:
    """Return what takes the route out, in the reverse order: a list of {state: absent|present, definition}.

    With `present` the definition is the live object without the route's parts, because others have theirs in it.
    Objects that others made are never deleted, and lose only what is recorded as added here. If such a VirtualService
    keeps its route, everything that the route needs stays too. Raises ValueError with one sentence.
    """
    route = validate_spec(spec, removal=True)
    existing = list(existing)
    live = _live(route, existing)
    steps = []
    if live["VirtualService"]:
        step, stays = _virtual_service_removal(route, live["VirtualService"])
        if stays:
            return []
        steps.append(step)
    if _is_ours(live["Gateway"]):
        servers = [s for s in live["Gateway"].get("spec", {}).get("servers") or [] if not _serves(s, route)]
        shared = any(
            o.get("kind") == "VirtualService"
            and _key(o) != (route["namespace"], route["name"])
            and _binds(o, route["namespace"], route["gateway_name"])
            for o in existing
        )
        if servers:
            steps.append(_step(live["Gateway"], {**live["Gateway"]["spec"], "servers": servers}))
        elif not shared:
            steps.append(_step(live["Gateway"], None))
    if live["DestinationRule"]:
        rule = live["DestinationRule"]
        ours = _recorded(rule)
        spec_left = {**rule.get("spec", {})}
        if _recorded(rule, LOCALITIES_ANNOTATION):
            spec_left = _without_localities(rule)
        spec_left["subsets"] = [s for s in spec_left.get("subsets") or [] if s.get("name") not in ours] or None
        left = any(value for key, value in spec_left.items() if key != "host") or not _is_ours(rule)
        noted = (SUBSETS_ANNOTATION, LOCALITIES_ANNOTATION, UNWEIGHTED_ANNOTATION)
        annotations = {name: None for name in noted if _recorded(rule, name)}
        steps.append(_step(rule, spec_left if left else None, annotations))
    return [step for step in steps if step]


def _virtual_service_removal(route: dict[str, Any], live: Object) -> tuple[dict[str, Any], bool]:
    """Return the step, and whether the route stays because others made it."""
    spec = {**live.get("spec", {})}
    port, gateway = route["gateway_port"], route["gateway_name"]
    added = _recorded(live, ROUTE_ANNOTATION)
    if not _is_ours(live) and str(port) not in added:
        return {}, bool(tcp_route_weights(live, port))
    spec["tcp"] = _without_route(spec.get("tcp") or [], port) or None
    if not any(spec.get(key) for key in ("http", "tls", "tcp")):
        # Istio takes no VirtualService without routes, so one that others made stays whole.
        return (_step(live, None), False) if _is_ours(live) else ({}, True)
    if gateway in added:
        spec["gateways"] = [reference for reference in spec.get("gateways") or [] if reference != gateway] or None
    return _step(live, spec, _record(live, ROUTE_ANNOTATION, added - {str(port), gateway})), False


def tcp_route_weights(virtual_service: Any, port: int) -> dict[str, int]:
    """Return the weights that a VirtualService has for a gateway port, by subset, and {} if it has no such route.

    A destination without subset goes by its host.
    """
    if not isinstance(virtual_service, Mapping):
        raise ValueError("The VirtualService is not a mapping.")
    weights: dict[str, int] = {}
    destinations = _destinations(virtual_service, port)
    for item in destinations:
        destination = item.get("destination") or {}
        name = str(destination.get("subset") or destination.get("host") or "")
        weights[name] = weights.get(name, 0) + int(item.get("weight", 100 if len(destinations) == 1 else 0))
    return weights


def tcp_route_live(spec: Any, existing: Iterable[Object]) -> dict[str, Any]:
    """Return {method, weights} of the live route, with method "" if no method gives it weights by version.

    Of the description only names and ports are looked at. Weights are by version, zeros included, as far as the objects
    name those versions, and {} without a route. Raises ValueError with one sentence if the description is wrong.
    """
    route = validate_spec(spec, removal=True)
    live = _live(route, existing)
    destinations = _destinations(live["VirtualService"], route["gateway_port"])
    weights = tcp_route_weights(live["VirtualService"], route["gateway_port"])
    if len(destinations) != 1 or destinations[0].get("destination", {}).get("subset"):
        return {"method": METHODS[0] if weights else "", "weights": weights}
    rule = live["DestinationRule"]
    shares = _setting(rule.get("spec") or {}).get("distribute") or []
    ours = _is_host((destinations[0].get("destination") or {}).get("host"), route)
    if not ours or len(shares) != 1 or shares[0].get("from") != "*" or not shares[0].get("to"):
        return {"method": "", "weights": weights}
    versions = dict.fromkeys(sorted(_recorded(rule, LOCALITIES_ANNOTATION)), 0)
    return {"method": METHODS[1], "weights": {**versions, **{str(v): int(w) for v, w in shares[0]["to"].items()}}}


def tcp_route_switch(spec: Any, existing: Iterable[Object]) -> dict[str, int]:
    """Return the live weights if the route has another method than the wanted one, {} if it stays or has none.

    A change of the method keeps them, so that it moves no traffic. Raises ValueError with one sentence.
    """
    live = tcp_route_live(spec, existing)
    return live["weights"] if live["method"] not in ("", validate_spec(spec)["method"]) else {}


def virtual_service(spec: Any, existing: Iterable[Object]) -> Object:
    """Return the route's live VirtualService, {} if it is not there; of the description only names are looked at."""
    return _live(validate_spec(spec, removal=True), existing)["VirtualService"]


def patch_command(definition: Mapping[str, Any]) -> str:
    """Return the kubectl command that merges an object's spec into the live one."""
    namespace, name = _key(definition)
    patch = json.dumps({"spec": definition["spec"]}, separators=(",", ":"))
    return f"kubectl -n {namespace} patch {definition['kind'].lower()} {name} --type merge -p {shlex.quote(patch)}"


def destination_rule_name(route_name: str) -> str:
    """Return the name of a route's DestinationRule, which is the one in Istio's written task."""
    return f"{route_name}-destination"


def _destination_rule(route: dict[str, Any], live: Object, prune: bool) -> Object:
    name = destination_rule_name(route["name"])
    spec = live.get("spec") or {}
    subsets = {str(subset.get("name")): subset for subset in spec.get("subsets") or []}
    host = route["service"]
    if live and not _is_ours(live):
        if not _is_host(spec.get("host"), route):
            raise ValueError(
                f"{_foreign(live)} has the host {spec.get('host')}, not {host}: choose another tcp_route_name."
            )
        host = spec["host"]
    recorded = _recorded(live)
    for version, labels in route["versions"].items():
        found = subsets.get(version, {}).get("labels")
        if version in subsets and version not in recorded and found != labels:
            raise ValueError(
                f"The subset {version} of the DestinationRule {'/'.join(_key(live))} was not made by this collection "
                f"and has {_said(found)}, not {_said(labels)}: choose another name for the version, or its labels."
            )
    ours = recorded | (set(route["versions"]) - set(subsets))
    if prune:
        ours &= set(route["versions"])
        subsets = {key: value for key, value in subsets.items() if key in route["versions"] or key not in recorded}
    for version, labels in route["versions"].items():
        subsets[version] = {**subsets.get(version, {}), "name": version, "labels": labels}
    annotations = _record(live, SUBSETS_ANNOTATION, ours)
    spec = {**spec, "host": host, "subsets": list(subsets.values())}
    if route["method"] == "endpoints":
        spec, unweighted = _with_localities(spec, route["weights"], _recorded(live, UNWEIGHTED_ANNOTATION))
        annotations.update(_record(live, LOCALITIES_ANNOTATION, set(route["versions"])))
        annotations.update(_record(live, UNWEIGHTED_ANNOTATION, unweighted))
    elif prune and _recorded(live, LOCALITIES_ANNOTATION):
        spec = _without_localities({**live, "spec": spec})
        annotations.update({LOCALITIES_ANNOTATION: None, **_record(live, UNWEIGHTED_ANNOTATION, set())})
    rule = _object("DestinationRule", name, route["namespace"], live, annotations)
    rule["spec"] = spec
    return rule


def _check_localities(route: dict[str, Any], live: Object, existing: Iterable[Object]) -> None:
    """Raise ValueError with one sentence if localities already mean something, or would not be looked at."""
    spec = live.get("spec") or {}
    setting = _setting(spec)
    way_out = "or set tcp_route_method to route"
    if setting and (not _recorded(live, LOCALITIES_ANNOTATION) or setting.keys() - {"enabled", "distribute"}):
        raise ValueError(
            f"The DestinationRule {'/'.join(_key(live))} has a localityLbSetting that was not made by this collection, "
            f"so that localities are places and cannot stand for versions: take it out, {way_out}."
        )
    for settings in (spec.get("trafficPolicy") or {}).get("portLevelSettings") or []:
        if (settings.get("port") or {}).get("number") == route["service_port"]:
            raise ValueError(
                f"The DestinationRule {'/'.join(_key(live))} has portLevelSettings for port {route['service_port']}, "
                f"which would hide the weights of the endpoints: move them into its trafficPolicy, {way_out}."
            )
    for other in existing:
        theirs = other.get("spec") or {}
        if (
            other.get("kind") == "DestinationRule"
            and _key(other)[0] == route["namespace"]
            and _key(other)[1] != destination_rule_name(route["name"])
            and _is_host(theirs.get("host"), route)
            and theirs.get("trafficPolicy")
        ):
            raise ValueError(
                f"The DestinationRule {'/'.join(_key(other))} has a trafficPolicy for the same host {theirs['host']}, "
                f"and only one of the two would be used: take one out, {way_out}."
            )


def _with_localities(spec: Object, weights: Mapping[str, int], unweighted: set[str]) -> tuple[Object, set[str]]:
    """Return a DestinationRule's spec with weights of localities, and the subsets that are told to ignore them.

    Subsets would follow the Service's weights, and one with weight 0 would lose its endpoints; whoever uses subsets is
    to notice nothing, and the other method has to find them whole.
    """
    policy = spec.get("trafficPolicy") or {}
    balancer = {key: value for key, value in (policy.get("loadBalancer") or {}).items() if key != "localityLbSetting"}
    ignoring = {**balancer, "localityLbSetting": {"enabled": False}}
    subsets, told = [], set()
    for subset in spec["subsets"]:
        own = subset.get("trafficPolicy") or {}
        ours = subset["name"] in unweighted and _setting(subset) == {"enabled": False}
        if ours or not own.get("loadBalancer"):
            told.add(str(subset["name"]))
            subsets.append({**subset, "trafficPolicy": {**own, "loadBalancer": ignoring}})
        else:
            subsets.append(subset)
    # Istio takes no weight 0, and leaves the endpoints of localities that are not named out.
    share = {"from": "*", "to": {version: weight for version, weight in weights.items() if weight}}
    setting = {"enabled": True, "distribute": [share]}
    policy = {**policy, "loadBalancer": {**balancer, "localityLbSetting": setting}}
    return {**spec, "trafficPolicy": policy, "subsets": subsets}, told


def _without_localities(live: Object) -> Object:
    """Return a DestinationRule's spec without the weights of localities that were given here."""
    spec = {**live.get("spec", {})}
    subsets = []
    for subset in spec.get("subsets") or []:
        if subset.get("name") in _recorded(live, UNWEIGHTED_ANNOTATION) and _setting(subset) == {"enabled": False}:
            own = {key: value for key, value in subset["trafficPolicy"].items() if key != "loadBalancer"}
            subsets.append({key: value for key, value in {**subset, "trafficPolicy": own}.items() if value})
        else:
            subsets.append(subset)
    policy = {**(spec.get("trafficPolicy") or {})}
    if _setting(spec):
        left = {key: value for key, value in policy["loadBalancer"].items() if key != "localityLbSetting"}
        policy["loadBalancer"] = {**left, "localityLbSetting": None} if left else None
        spec["trafficPolicy"] = policy if any(policy.values()) else None
    return {**spec, "subsets": subsets}


def _setting(holder: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the localityLbSetting of a DestinationRule's spec, or of one of its subsets."""
    return ((holder.get("trafficPolicy") or {}).get("loadBalancer") or {}).get("localityLbSetting") or {}


def _is_host(host: Any, route: Mapping[str, Any]) -> bool:
    """Whether a host in the route's namespace is the route's Service."""
    return str(host).split(".")[:2] in ([route["service"]], [route["service"], route["namespace"]])


def _gateway(route: dict[str, Any], live: Object) -> Object:
    spec = live.get("spec") or {}
    selector = spec.get("selector") or {}
    servers = list(spec.get("servers") or [])
    on_port = [server for server in servers if _serves(server, route)]
    foreign = bool(live) and not _is_ours(live)
    if foreign and selector != route["gateway_selector"]:
        said = f"the selector {_said(selector)}" if selector else "no selector"
        raise ValueError(
            f"{_foreign(live)} has {said}, not {_said(route['gateway_selector'])}: choose another "
            "tcp_route_gateway_name, or its selector as tcp_route_gateway_selector."
        )
    for server in on_port:
        protocol = (server.get("port") or {}).get("protocol")
        if str(protocol).upper() != "TCP":
            raise ValueError(
                f"The Gateway {'/'.join(_key(live))} opens port {route['gateway_port']} for {protocol}, not for TCP: "
                "choose another tcp_route_gateway_name or tcp_route_gateway_port."
            )
    if not (foreign and on_port):
        index = servers.index(on_port[0]) if on_port else len(servers)
        servers = [server for server in servers if server not in on_port]
        taken = {(server.get("port") or {}).get("name") for server in servers}
        name = "tcp" if "tcp" not in taken else f"tcp-{route['gateway_port']}"
        port = {"number": route["gateway_port"], "name": name, "protocol": "TCP"}
        servers.insert(index, {"port": port, "hosts": ["*"]})
    stale = dict.fromkeys(key for key in selector if key not in route["gateway_selector"])
    gateway = _object("Gateway", route["gateway_name"], route["namespace"], live)
    gateway["spec"] = {**spec, "selector": {**route["gateway_selector"], **stale}, "servers": servers}
    return gateway


def _virtual_service(route: dict[str, Any], live: Object) -> Object:
    spec = live.get("spec") or {}
    gateways = list(spec.get("gateways") or ([MESH] if spec else []))
    bound = _binds(live, route["namespace"], route["gateway_name"])
    match: dict[str, Any] = {"port": route["gateway_port"]}
    if any(not _same_gateway(ref, live, route["namespace"], route["gateway_name"]) for ref in gateways):
        match["gateways"] = [route["gateway_name"]]  # the port means something else on the other gateways
    service = {"host": route["service"], "port": {"number": route["service_port"]}}
    destinations: list[dict[str, Any]] = [
        {"destination": {**service, "subset": version}, "weight": weight}
        for version, weight in route["weights"].items()
    ]
    if route["method"] == "endpoints":
        destinations = [{"destination": service}]
    entries = list(spec.get("tcp") or [])
    old = next(
        (i for i, e in enumerate(entries) if any(_is_route(m, match["port"]) for m in e.get("match") or [])), None
    )
    if old is None:
        index = next((i for i, e in enumerate(entries) if _takes_any_port(e)), len(entries))
        matches = [match]
    else:
        index = old
        matches = [m for m in entries[old]["match"] if _is_route(m, match["port"])]
    before, after = (_without_route(part, match["port"]) for part in (entries[:index], entries[index:]))
    added = _recorded(live, ROUTE_ANNOTATION)
    if live and not _is_ours(live):
        added |= {str(match["port"])} if old is None else set()
        added |= set() if bound else {route["gateway_name"]}
    annotations = _record(live, ROUTE_ANNOTATION, added)
    virtual = _object("VirtualService", route["name"], route["namespace"], live, annotations)
    virtual["spec"] = {
        **spec,
        "hosts": list(spec.get("hosts") or ["*"]),
        "gateways": gateways if bound else [*gateways, route["gateway_name"]],
        "tcp": [*before, {"match": matches, "route": destinations}, *after],
    }
    return virtual


def _destinations(virtual_service: Mapping[str, Any], port: int) -> list[Mapping[str, Any]]:
    """Return where a VirtualService sends all connections to a gateway port."""
    for entry in (virtual_service.get("spec") or {}).get("tcp") or []:
        if any(_is_route(match, port) for match in entry.get("match") or []):
            return list(entry.get("route") or [])
    return []


def _without_route(entries: list[Object], port: int) -> list[Object]:
    """Return tcp entries without their matches on the gateway port."""
    left = []
    for entry in entries:
        matches = entry.get("match") or []
        kept = [match for match in matches if not _is_route(match, port)]
        if kept or not matches:
            left.append(entry if len(kept) == len(matches) else {**entry, "match": kept})
    return left


def _is_route(match: Mapping[str, Any], port: int) -> bool:
    """Whether a match takes all connections to the gateway port; narrower ones are somebody else's."""
    gateways = match.get("gateways") or []
    return (
        match.get("port") == port
        and not any(match.get(key) for key in _NARROWING)
        and (not gateways or any(gateway != MESH for gateway in gateways))
    )


def _takes_any_port(entry: Mapping[str, Any]) -> bool:
    matches = entry.get("match") or []
    return not matches or any("port" not in match for match in matches)


def _binds(virtual_service: Mapping[str, Any], namespace: str, gateway: str) -> bool:
    references = (virtual_service.get("spec") or {}).get("gateways") or []
    return any(_same_gateway(reference, virtual_service, namespace, gateway) for reference in references)


def _same_gateway(reference: str, virtual_service: Mapping[str, Any], namespace: str, gateway: str) -> bool:
    home, _slash, name = reference.rpartition("/")
    home = home if home not in ("", ".") else _key(virtual_service)[0]
    return (home, name) == (namespace, gateway)


def _serves(server: Mapping[str, Any], route: Mapping[str, Any]) -> bool:
    return (server.get("port") or {}).get("number") == route["gateway_port"]


def _recorded(live: Mapping[str, Any], annotation: str = SUBSETS_ANNOTATION) -> set[str]:
    annotations = (live.get("metadata") or {}).get("annotations") or {}
    return {name for name in annotations.get(annotation, "").split(",") if name}


def _record(live: Mapping[str, Any], annotation: str, names: set[str]) -> dict[str, Any]:
    """Return the annotation that records the names, None as its value if there are none any more."""
    if names:
        return {annotation: ",".join(sorted(names))}
    return {annotation: None} if _recorded(live, annotation) else {}


def _is_ours(live: Mapping[str, Any]) -> bool:
    return ((live.get("metadata") or {}).get("labels") or {}).get(MANAGED_BY_LABEL) == MANAGED_BY


def _key(live: Mapping[str, Any]) -> tuple[str, str]:
    metadata = live.get("metadata") or {}
    return str(metadata.get("namespace", "")), str(metadata.get("name", ""))


def _live(route: Mapping[str, Any], existing: Iterable[Object]) -> dict[str, Object]:
    """Return the route's live objects by kind, {} for those that are not there."""
    names = {
        "DestinationRule": destination_rule_name(route["name"]),
        "Gateway": route["gateway_name"],
        "VirtualService": route["name"],
    }
    found: dict[str, Object] = {kind: {} for kind in names}
    for item in existing:
        kind = item.get("kind")
        # The Gateway API has a kind of the same name.
        istio = str(item.get("apiVersion", "")).startswith("networking.istio.io/")
        if istio and kind in names and _key(item) == (route["namespace"], names[kind]):
            found[kind] = item
    return found


def _object(
    kind: str, name: str, namespace: str, live: Mapping[str, Any], annotations: Mapping[str, Any] | None = None
) -> Object:
    metadata: dict[str, Any] = {"name": name, "namespace": namespace}
    there = live.get("metadata") or {}
    if not live or _is_ours(live):  # else somebody else made it
        metadata["labels"] = {MANAGED_BY_LABEL: MANAGED_BY}
    if annotations:
        metadata["annotations"] = dict(annotations)
    if there.get("resourceVersion"):
        # A change by someone else since it was read is refused instead of overwritten.
        metadata["resourceVersion"] = there["resourceVersion"]
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": metadata}


def _step(live: Object, spec: Object | None, annotations: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return {} if nothing changes."""
    namespace, name = _key(live)
    definition: Object = {
        "apiVersion": API_VERSION,
        "kind": live["kind"],
        "metadata": {"name": name, "namespace": namespace},
    }
    if spec is None:
        return {"state": "absent", "definition": definition}
    if {key: value for key, value in spec.items() if value is not None} == live.get("spec"):
        return {}
    if annotations:
        definition["metadata"]["annotations"] = dict(annotations)
    if _is_ours(live):
        definition["metadata"]["labels"] = {MANAGED_BY_LABEL: None}
    version = live["metadata"].get("resourceVersion")
    if version:
        definition["metadata"]["resourceVersion"] = version
    definition["spec"] = spec
    return {"state": "present", "definition": definition}


def _labels(what: str, labels: Any) -> dict[str, str]:
    if not isinstance(labels, Mapping) or not labels:
        raise ValueError(f"{what} has no labels: give a mapping of label to value, like {{version: v1}}.")
    for key, value in labels.items():
        if not isinstance(key, str) or not isinstance(value, str):
            raise ValueError(f"{what} has the label {_cut(key)}: {_cut(value)}, but both have to be text: put quotes.")
    return {str(key): str(value) for key, value in labels.items()}


def _foreign(live: Mapping[str, Any]) -> str:
    return f"The {live['kind']} {'/'.join(_key(live))} was not made by this collection and"


def _said(labels: Mapping[str, Any] | None) -> str:
    return ", ".join(f"{key}={value}" for key, value in (labels or {}).items()) or "no labels"


def _list(names: Iterable[Any]) -> str:
    return _cut(", ".join(str(name) for name in names), 200)


def _cut(value: Any, length: int = 60) -> str:
    text = value if length > 60 else repr(value)
    return text if len(text) <= length else text[:length] + "…"
