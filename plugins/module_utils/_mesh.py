# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What Istio makes of DestinationRules and PeerAuthentications on the way from a gateway to a pod. Pure.

The rules are those of istiod's own code (push_context.go, destination_rule.go, cluster_tls.go, mtls_checker.go and
policy_applier.go of Istio 1.31), so that a break is foretold where it would happen.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ansible_collections.trafficshift.istio.plugins.module_utils._pods import Object, has_labels, sidecar

DOMAIN = "svc.cluster.local"  # matters for hosts with a wildcard only
TLS_LABEL = "security.istio.io/tlsMode"  # on each injected pod; its value istio makes automatic mTLS use mTLS

# What the gateway sends to a pod.
PLAIN, MUTUAL, TLS, OWN_MUTUAL = (
    "plain TCP",
    "Istio's mutual TLS",
    "one-way TLS",
    "mutual TLS with its own certificates",
)
SENT = {"DISABLE": PLAIN, "ISTIO_MUTUAL": MUTUAL, "SIMPLE": TLS, "MUTUAL": OWN_MUTUAL}


class Mesh(NamedTuple):
    """What the mesh's configuration says; the defaults are Istio's."""

    root: str = "istio-system"
    auto_mtls: bool = True


class Caller(NamedTuple):
    """The gateway, whose namespace and labels decide which DestinationRules hold for it."""

    namespace: str
    labels: Mapping[str, str]


class Subset(NamedTuple):
    """A subset, and the DestinationRule it comes from as namespace/name."""

    labels: Mapping[str, str]
    policy: Object
    source: str


class Rules(NamedTuple):
    """The DestinationRules that hold for a Service, as one; `source` is where `policy` comes from."""

    subsets: Mapping[str, Subset]
    policy: Object
    source: str
    names: Sequence[str]  # all of them, the oldest first


def merge_rules(rules: Iterable[Object], service: tuple[str, str], caller: Caller, root: str) -> Rules:
    """Return what holds for the caller's connections to a Service, given by namespace and name.

    The caller's own namespace comes first, then the Service's, then the root namespace; in the root namespace the
    caller's own are only those that are exported to nobody else. Within a namespace the rules with the most specific
    host are merged: of each subset name, and of the traffic policy, the oldest holds.
    """
    by_age = sorted(rules, key=_age)
    home = [rule for rule in by_age if _key(rule)[0] == caller.namespace and _is_for(rule, caller)]
    if caller.namespace == root:
        home = [rule for rule in home if _is_private(rule)]
    exported = [rule for rule in by_age if _is_exported(rule, caller.namespace)]
    places = [home, *([rule for rule in exported if _key(rule)[0] == place] for place in (service[0], root))]
    found = next((found for found in (_most_specific(place, service) for place in places) if found), [])
    found = [rule for rule in found if "workloadSelector" in _spec(rule)] or found  # merged with their like only
    subsets: dict[str, Subset] = {}
    for rule in found:
        for subset in _spec(rule).get("subsets") or []:
            made = Subset(subset.get("labels") or {}, subset.get("trafficPolicy") or {}, _name(rule))
            subsets.setdefault(str(subset.get("name")), made)
    leading = next((rule for rule in found if _spec(rule).get("trafficPolicy")), None)
    policy, source = (_spec(leading)["trafficPolicy"], _name(leading)) if leading else ({}, "")
    return Rules(subsets, policy, source, [_name(rule) for rule in found])


def tls_setting(rules: Rules, subset: str, port: int) -> tuple[str, str]:
    """Return the TLS mode that the DestinationRules give for a port of the Service, and the rule that says so.

    Both are empty if none says anything. A subset's policy goes before the rule's. A policy for a port stands for
    the whole of the one it is in: what it leaves out is not taken from there.
    """
    found = rules.subsets.get(subset)
    own, exact = _for_port(found.policy if found else {}, port)
    general, _exact = _for_port(rules.policy, port)
    if found and (exact or own.get("tls") is not None):
        return (_mode(own["tls"]), found.source) if own.get("tls") is not None else ("", "")
    return (_mode(general["tls"]), rules.source) if general.get("tls") is not None else ("", "")


def endpoint_setting(rules: Rules, subset: str, port: int) -> str:
    """Return the TLS mode that istiod marks endpoints with; here what a policy for a port leaves out is inherited."""
    found = rules.subsets.get(subset)
    for policy in (found.policy if found else {}, rules.policy):
        for part in (_for_port(policy, port)[0], policy):
            if part.get("tls") is not None:
                return _mode(part["tls"])
    return ""


def accepted(policies: Iterable[Object], pod: Object, namespace: str, port: int, root: str) -> tuple[str, str]:
    """Return the mTLS mode of a pod's port, and the PeerAuthentication that says so, empty if it is the default.

    Mesh, namespace, workload, port: of those that say anything the most specific holds, of two alike the oldest. Only
    a policy of the pod's namespace with a selector counts as one of the workload.
    """
    by_age = sorted(policies, key=_age)
    levels = [
        _first(by_age, root, None),
        _first(by_age, namespace, None) if namespace != root else None,
        _first(by_age, namespace, pod) if namespace != root else None,
    ]
    mode, source = "PERMISSIVE", ""
    for policy in levels:
        said = _said(_spec(policy).get("mtls")) if policy else ""
        if policy and said:
            mode, source = said, _name(policy)
    workload = levels[-1]
    said = _said((_spec(workload).get("portLevelMtls") or {}).get(str(port))) if workload else ""
    return (said, _name(workload)) if workload and said else (mode, source)


def sent(
    rules: Rules, subset: str, port: int, *, mesh: Mesh, policies: Iterable[Object], pod: Object, pod_port: int
) -> str:
    """Return what the gateway sends to a pod: PLAIN, MUTUAL, TLS or OWN_MUTUAL.

    `port` is the Service's, `pod_port` the one that the pod listens on. The policies of the pod's namespace decide over
    automatic mTLS; those of a workload only for the endpoint.
    """
    policies = list(policies)
    namespace = _key(pod)[0]
    mode, _source = tls_setting(rules, subset, port)
    if mode:
        return SENT.get(mode, PLAIN)
    whole = {"metadata": {"namespace": namespace, "name": ""}}  # no selector takes a pod without labels
    if not mesh.auto_mtls or accepted(policies, whole, namespace, pod_port, mesh.root)[0] == "DISABLE":
        return PLAIN
    marked = endpoint_setting(rules, subset, port)
    if marked:
        return MUTUAL if marked == "ISTIO_MUTUAL" else PLAIN
    if not has_labels(pod, {TLS_LABEL: "istio"}):
        return PLAIN
    return PLAIN if accepted(policies, pod, namespace, pod_port, mesh.root)[0] == "DISABLE" else MUTUAL


def clash(sends: str, mode: str, pod: Object) -> bool:
    """Whether a pod turns down what the gateway sends. Without a sidecar it takes anything but Istio's mutual TLS."""
    if not sidecar(pod)[0]:
        return sends == MUTUAL
    return (mode == "STRICT" and sends in (PLAIN, TLS)) or (mode == "DISABLE" and sends == MUTUAL)


def _first(policies: Iterable[Object], namespace: str, pod: Object | None) -> Object | None:
    """Return the first policy of a namespace that selects the pod, without a pod the first that selects nobody."""
    for policy in policies:
        labels = (_spec(policy).get("selector") or {}).get("matchLabels") or {}
        selected = not labels if pod is None else bool(labels) and has_labels(pod, labels)
        if _key(policy)[0] == namespace and selected:
            return policy
    return None


def _said(mtls: Any) -> str:
    mode = str((mtls or {}).get("mode") or "UNSET")
    return "" if mode == "UNSET" else mode


def _mode(tls: Mapping[str, Any]) -> str:
    return str(tls.get("mode") or "DISABLE")  # the first value of the enumeration


def _for_port(policy: Object, port: int) -> tuple[Object, bool]:
    """Return a policy as it is for a port, and whether that is one of the port's own."""
    for own in policy.get("portLevelSettings") or []:
        if (own.get("port") or {}).get("number") == port:
            return own, True
    return policy, False


def _most_specific(rules: Sequence[Object], service: tuple[str, str]) -> list[Object]:
    """Return those of the rules that match the Service with the longest host; a host without a wildcard is longest."""
    ranked = [(rank, rule) for rule in rules for rank in [_rank(rule, service)] if rank]
    best = max((rank for rank, _rule in ranked), default=0)
    return [rule for rank, rule in ranked if rank == best]


def _rank(rule: Object, service: tuple[str, str]) -> int:
    """Return how specifically a rule's host names the Service, 0 if it does not."""
    host = str(_spec(rule).get("host", ""))
    namespace, name = service
    if host.startswith("*"):
        return len(host) if f"{name}.{namespace}.{DOMAIN}".endswith(host[1:]) else 0
    # A short name stands for a Service beside the rule; Istio completes no other name.
    exact = (host == name and _key(rule)[0] == namespace) or host.startswith(f"{name}.{namespace}.svc.")
    return 1000 if exact else 0


def _is_private(rule: Object) -> bool:
    return "workloadSelector" in _spec(rule) or _spec(rule).get("exportTo") in (["."], [_key(rule)[0]])


def _is_exported(rule: Object, namespace: str) -> bool:
    exported = _spec(rule).get("exportTo") or ["*"]
    return not _is_private(rule) and ("*" in exported or namespace in exported)


def _is_for(rule: Object, caller: Caller) -> bool:
    """Whether a rule of the caller's namespace holds for the caller."""
    selected = (_spec(rule).get("workloadSelector") or {}).get("matchLabels") or {}
    exported = set(_spec(rule).get("exportTo") or ["*"])
    return selected.items() <= caller.labels.items() and bool(exported & {"*", ".", caller.namespace})


def _spec(item: Object) -> Object:
    return item.get("spec") or {}


def _key(item: Object) -> tuple[str, str]:
    return str(item["metadata"].get("namespace", "")), str(item["metadata"].get("name", ""))


def _name(item: Object) -> str:
    return "/".join(_key(item))


def _age(item: Object) -> tuple[str, str, str]:
    """Sort by creation as istiod does; one that is not there yet comes last."""
    namespace, name = _key(item)
    return str(item["metadata"].get("creationTimestamp") or "9999"), name, namespace
