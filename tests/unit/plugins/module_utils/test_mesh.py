# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which DestinationRule and which PeerAuthentication holds, at each level, and what the two make of each other."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.trafficshift.istio.plugins.module_utils import _mesh
from ansible_collections.trafficshift.istio.plugins.module_utils._mesh import MUTUAL, OWN_MUTUAL, PLAIN, TLS
from hypothesis import given
from hypothesis import strategies as st

ROOT = "istio-system"
PORT, POD_PORT = 9000, 9001
SERVICE = ("shop", "echo")


def rule(name: str = "r", home: str = "shop", host: str = "echo", age: int = 5, **spec: Any) -> dict[str, Any]:
    metadata = {"namespace": home, "name": name, "creationTimestamp": f"2026-01-0{age}T00:00:00Z"}
    return {"metadata": metadata, "spec": {"host": host, **spec}}


def policy(name: str, home: str, mode: str = "", age: int = 5, **spec: Any) -> dict[str, Any]:
    metadata = {"namespace": home, "name": name, "creationTimestamp": f"2026-01-0{age}T00:00:00Z"}
    return {"metadata": metadata, "spec": {**({"mtls": {"mode": mode}} if mode else {}), **spec}}


def pod(*, injected: bool = True, mark: str | None = "istio") -> dict[str, Any]:
    labels = {"app": "echo", "version": "v1", **({_mesh.TLS_LABEL: mark} if injected and mark else {})}
    containers = [{"name": "app"}, *([{"name": "istio-proxy"}] if injected else [])]
    return {"metadata": {"namespace": "shop", "name": "p", "labels": labels}, "spec": {"containers": containers}}


def merged(*rules: dict[str, Any], gateway: str = ROOT, labels: Any = None) -> _mesh.Rules:
    return _mesh.merge_rules(rules, SERVICE, _mesh.Caller(gateway, labels or {"istio": "ingress"}), ROOT)


def subset(name: str, version: str = "", **policy: Any) -> dict[str, Any]:
    return {"name": name, "labels": {"version": version or name}, **({"trafficPolicy": policy} if policy else {})}


def tls(mode: str) -> dict[str, Any]:
    return {"tls": {"mode": mode}}


def at_port(*settings: dict[str, Any], port: int = PORT) -> dict[str, Any]:
    return {"portLevelSettings": [{"port": {"number": port}, **setting} for setting in settings]}


@pytest.mark.parametrize(
    ("host", "home", "holds"),
    [
        ("echo", "shop", True),
        ("echo", "office", False),  # a short name is of its own namespace
        ("echo.shop.svc.cluster.local", "shop", True),
        ("echo.shop.svc.example.org", "shop", True),
        ("echo.shop", "shop", False),  # Istio completes no such name
        ("*", "shop", True),
        ("*.shop.svc.cluster.local", "shop", True),
        ("*.office.svc.cluster.local", "shop", False),
        ("other", "shop", False),
    ],
)
def test_hosts(host: str, home: str, holds: bool) -> None:
    assert bool(merged(rule(host=host, home=home)).names) is holds


def test_the_most_specific_host_holds_alone() -> None:
    wide, narrow = rule("wide", host="*", age=1), rule("narrow", host="*.shop.svc.cluster.local", age=2)
    assert merged(wide, narrow).names == ["shop/narrow"]
    assert merged(wide, narrow, rule("exact", age=3)).names == ["shop/exact"]


def test_rules_for_one_host_are_merged_and_the_oldest_wins() -> None:
    old = rule("old", age=1, subsets=[subset("v1", "old")])
    young = rule("young", age=2, subsets=[subset("v1", "young"), subset("v2")], trafficPolicy=tls("DISABLE"))
    found = merged(young, old)
    assert found.names == ["shop/old", "shop/young"]
    assert {name: (each.labels, each.source) for name, each in found.subsets.items()} == {
        "v1": ({"version": "old"}, "shop/old"),
        "v2": ({"version": "v2"}, "shop/young"),
    }
    assert _mesh.tls_setting(found, "v1", PORT) == ("DISABLE", "shop/young")


def test_a_rule_that_is_not_there_yet_is_the_youngest() -> None:
    coming = {"metadata": {"namespace": "shop", "name": "a"}, "spec": {"host": "echo", "subsets": [subset("v1")]}}
    assert merged(coming, rule("z", subsets=[subset("v1")])).subsets["v1"].source == "shop/z"


@pytest.mark.parametrize(
    ("gateway", "rules", "name"),
    [
        # The root namespace's own come last if others may have them, and first if not.
        (ROOT, [rule("ours"), rule("root", ROOT, "echo.shop.svc.cluster.local")], "shop/ours"),
        (ROOT, [rule("ours"), rule("root", ROOT, "echo.shop.svc.cluster.local", exportTo=["."])], f"{ROOT}/root"),
        (ROOT, [rule("root", ROOT, "*.cluster.local")], f"{ROOT}/root"),
        # A gateway elsewhere looks at home first.
        ("edge", [rule("ours"), rule("edge", "edge", "echo.shop.svc.cluster.local")], "edge/edge"),
        ("edge", [rule("ours"), rule("edge", "edge", "echo.shop.svc.cluster.local", exportTo=["shop"])], "shop/ours"),
        ("edge", [rule("ours"), rule("third", "third", "echo.shop.svc.cluster.local")], "shop/ours"),
        ("shop", [rule("ours", exportTo=["."])], "shop/ours"),
        # What the Service's namespace keeps for itself, or gives to others, is not for the gateway.
        (ROOT, [rule("ours", exportTo=["."])], ""),
        (ROOT, [rule("ours", exportTo=["office"])], ""),
        (ROOT, [rule("ours", exportTo=["office", ROOT])], "shop/ours"),
        (ROOT, [rule("ours", workloadSelector={})], ""),
        (ROOT, [rule("ours", workloadSelector={"matchLabels": {"istio": "ingress"}})], ""),
        ("shop", [rule("a", age=1), rule("b", workloadSelector={"matchLabels": {"istio": "ingress"}})], "shop/b"),
        ("shop", [rule("a", age=1), rule("b", workloadSelector={"matchLabels": {"istio": "egress"}})], "shop/a"),
    ],
)
def test_which_namespace_holds(gateway: str, rules: list[Any], name: str) -> None:
    assert list(merged(*rules, gateway=gateway).names) == ([name] if name else [])


@pytest.mark.parametrize(
    ("general", "own", "mode"),
    [
        ({}, {}, ""),
        (tls("DISABLE"), {}, "DISABLE"),
        (tls("DISABLE"), tls("ISTIO_MUTUAL"), "ISTIO_MUTUAL"),
        ({}, tls("SIMPLE"), "SIMPLE"),
        ({"tls": {}}, {}, "DISABLE"),
        (at_port(tls("DISABLE")), {}, "DISABLE"),
        (at_port(tls("DISABLE"), port=1), {}, ""),
        ({**tls("DISABLE"), **at_port(tls("SIMPLE"))}, {}, "SIMPLE"),
        ({**tls("DISABLE"), **at_port({})}, {}, ""),  # a policy of the port leaves nothing of the other
        (at_port(tls("DISABLE")), tls("ISTIO_MUTUAL"), "ISTIO_MUTUAL"),
        (tls("DISABLE"), at_port(tls("ISTIO_MUTUAL")), "ISTIO_MUTUAL"),
        (tls("DISABLE"), {**tls("SIMPLE"), **at_port({"connectionPool": {}})}, ""),
        (tls("DISABLE"), {"connectionPool": {}}, "DISABLE"),
    ],
)
def test_levels_of_a_destination_rule(general: Any, own: Any, mode: str) -> None:
    rules = merged(rule(subsets=[subset("v1", **own)], **({"trafficPolicy": general} if general else {})))
    assert _mesh.tls_setting(rules, "v1", PORT) == (mode, "shop/r" if mode else "")


SELECTED = {"selector": {"matchLabels": {"app": "echo"}}}


@pytest.mark.parametrize(
    ("policies", "mode", "source"),
    [
        ([], "PERMISSIVE", ""),
        ([policy("m", ROOT, "STRICT")], "STRICT", f"{ROOT}/m"),
        ([policy("m", ROOT, "STRICT"), policy("n", "shop", "DISABLE")], "DISABLE", "shop/n"),
        ([policy("m", ROOT, "STRICT"), policy("n", "shop", "UNSET")], "STRICT", f"{ROOT}/m"),
        ([policy("m", ROOT, "STRICT"), policy("n", "office", "DISABLE")], "STRICT", f"{ROOT}/m"),
        ([policy("n", "shop", "STRICT"), policy("w", "shop", "DISABLE", **SELECTED)], "DISABLE", "shop/w"),
        ([policy("w", "shop", "DISABLE", selector={"matchLabels": {"app": "other"}})], "PERMISSIVE", ""),
        ([policy("w", ROOT, "DISABLE", **SELECTED)], "PERMISSIVE", ""),  # a selector counts at home only
        ([policy("n", "shop", "STRICT", 2), policy("o", "shop", "DISABLE", 1)], "DISABLE", "shop/o"),
        (
            [policy("w", "shop", "STRICT", **SELECTED, portLevelMtls={str(POD_PORT): {"mode": "DISABLE"}})],
            "DISABLE",
            "shop/w",
        ),
        (
            [policy("w", "shop", "STRICT", **SELECTED, portLevelMtls={str(PORT): {"mode": "DISABLE"}})],
            "STRICT",
            "shop/w",
        ),
        (
            [policy("w", "shop", "STRICT", **SELECTED, portLevelMtls={str(POD_PORT): {"mode": "UNSET"}})],
            "STRICT",
            "shop/w",
        ),
        # Without a selector there are no ports.
        ([policy("n", "shop", "STRICT", portLevelMtls={str(POD_PORT): {"mode": "DISABLE"}})], "STRICT", "shop/n"),
    ],
)
def test_levels_of_a_peer_authentication(policies: list[Any], mode: str, source: str) -> None:
    assert _mesh.accepted(policies, pod(), "shop", POD_PORT, ROOT) == (mode, source)


MODES = st.sampled_from(["", "UNSET", "STRICT", "PERMISSIVE", "DISABLE"])


@given(mesh=MODES, namespace=MODES, workload=MODES, port=MODES, order=st.permutations(range(3)))
def test_the_most_specific_policy_that_says_anything_holds(
    mesh: str, namespace: str, workload: str, port: str, order: list[int]
) -> None:
    made = [
        policy("m", ROOT, mesh),
        policy("n", "shop", namespace),
        policy("w", "shop", workload, **SELECTED, portLevelMtls={str(POD_PORT): {"mode": port}} if port else None),
    ]
    said = [mode for mode in (port, workload, namespace, mesh) if mode not in ("", "UNSET")]
    assert _mesh.accepted([made[i] for i in order], pod(), "shop", POD_PORT, ROOT)[0] == (said or ["PERMISSIVE"])[0]


TLS_MODES = st.sampled_from([None, "DISABLE", "SIMPLE", "MUTUAL", "ISTIO_MUTUAL"])


@given(general=TLS_MODES, own=TLS_MODES, general_port=TLS_MODES, own_port=TLS_MODES)
def test_the_most_specific_tls_setting_holds(
    general: str | None, own: str | None, general_port: str | None, own_port: str | None
) -> None:
    def made(mode: str | None, port_mode: str | None) -> dict[str, Any]:
        return {**(tls(mode) if mode else {}), **(at_port(tls(port_mode)) if port_mode else {})}

    rules = merged(rule(subsets=[subset("v1", **made(own, own_port))], trafficPolicy=made(general, general_port)))
    wanted = own_port or own or general_port or general or ""
    assert _mesh.tls_setting(rules, "v1", PORT)[0] == wanted
    assert _mesh.endpoint_setting(rules, "v1", PORT) == wanted


def sends(rules: _mesh.Rules, *policies: Any, auto: bool = True, to: Any = None) -> str:
    return _mesh.sent(
        rules,
        "v1",
        PORT,
        mesh=_mesh.Mesh(ROOT, auto),
        policies=policies,
        pod=to or pod(),
        pod_port=POD_PORT,
    )


@pytest.mark.parametrize(
    ("mode", "sent"), [("DISABLE", PLAIN), ("SIMPLE", TLS), ("MUTUAL", OWN_MUTUAL), ("ISTIO_MUTUAL", MUTUAL)]
)
def test_what_a_destination_rule_says_is_sent_to_any_pod(mode: str, sent: str) -> None:
    rules = merged(rule(trafficPolicy=tls(mode), subsets=[subset("v1")]))
    for to in (pod(), pod(injected=False)):
        assert sends(rules, policy("n", "shop", "DISABLE"), to=to, auto=False) == sent


def test_automatic_mtls() -> None:
    rules = merged(rule(subsets=[subset("v1")]))
    strict, off = policy("n", "shop", "STRICT"), policy("n", "shop", "DISABLE")
    assert sends(rules) == sends(rules, strict) == MUTUAL
    assert sends(rules, off) == PLAIN
    assert sends(rules, auto=False) == PLAIN
    assert sends(rules, to=pod(injected=False)) == PLAIN
    assert sends(rules, to=pod(mark="disabled")) == sends(rules, to=pod(mark=None)) == PLAIN
    # A workload may say no for itself, and cannot say yes against its namespace.
    assert sends(rules, strict, policy("w", "shop", "DISABLE", **SELECTED)) == PLAIN
    assert sends(rules, off, policy("w", "shop", "STRICT", **SELECTED)) == PLAIN
    assert sends(rules, policy("w", "shop", "STRICT", **SELECTED, portLevelMtls={"9001": {"mode": "DISABLE"}})) == PLAIN


@pytest.mark.parametrize(("mode", "sent"), [("DISABLE", PLAIN), ("SIMPLE", PLAIN), ("ISTIO_MUTUAL", MUTUAL)])
def test_a_port_without_its_own_setting_goes_by_the_mark_of_the_endpoint(mode: str, sent: str) -> None:
    rules = merged(rule(trafficPolicy=tls(mode), subsets=[subset("v1", **at_port({"connectionPool": {}}))]))
    assert _mesh.tls_setting(rules, "v1", PORT)[0] == ""
    assert sends(rules, to=pod(mark=None)) == sent


@pytest.mark.parametrize(
    ("sent", "strict", "permissive", "off", "bare"),
    [
        (PLAIN, True, False, False, False),
        (TLS, True, False, False, False),
        (OWN_MUTUAL, False, False, False, False),  # whose certificates they are is not to be seen
        (MUTUAL, False, False, True, True),
    ],
)
def test_what_a_pod_turns_down(sent: str, strict: bool, permissive: bool, off: bool, bare: bool) -> None:
    found = [_mesh.clash(sent, mode, pod()) for mode in ("STRICT", "PERMISSIVE", "DISABLE")]
    assert found == [strict, permissive, off]
    assert _mesh.clash(sent, "STRICT", pod(injected=False)) is bare


@given(namespace=MODES, workload=MODES, port=MODES, mesh=MODES)
def test_automatic_mtls_clashes_only_where_a_workload_is_stricter_than_its_namespace(
    namespace: str, workload: str, port: str, mesh: str
) -> None:
    policies = [
        policy("m", ROOT, mesh),
        policy("n", "shop", namespace),
        policy("w", "shop", workload, **SELECTED, portLevelMtls={str(POD_PORT): {"mode": port}} if port else None),
    ]
    takes, source = _mesh.accepted(policies, pod(), "shop", POD_PORT, ROOT)
    broken = _mesh.clash(sends(merged(rule(subsets=[subset("v1")])), *policies), takes, pod())
    wide = next((mode for mode in (namespace, mesh) if mode not in ("", "UNSET")), "PERMISSIVE")
    assert broken == (takes == "STRICT" and source == "shop/w" and wide == "DISABLE")
