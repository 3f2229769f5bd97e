# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Each hop of the way: in order, broken in each of its ways, and what is said then."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.trafficshift.istio.plugins.module_utils import _mesh, _path
from ansible_collections.trafficshift.istio.plugins.module_utils._gateway import Replica
from ansible_collections.trafficshift.istio.plugins.module_utils._pods import selects, sidecar
from ansible_collections.trafficshift.istio.plugins.module_utils._sync import State
from hypothesis import given
from hypothesis import strategies as st

VERSIONS = {"v1": {"version": "v1"}, "v2": {"version": "v2"}}
ECHO = {"metadata": {"name": "tcp-echo"}, "spec": {"selector": {"app": "echo"}, "ports": [{"port": 9000}]}}
SIDECAR = {"name": "istio-proxy"}


def pod(name: str = "p", labels: dict[str, str] | None = None, *, ready: bool = True, **changes: Any) -> dict[str, Any]:
    made: dict[str, Any] = {
        "metadata": {"name": name, "namespace": "shop", "labels": labels or {}},
        "spec": {"containers": [{"name": "app"}, SIDECAR]},
        "status": {
            "phase": "Running",
            "conditions": [{"type": "Ready", "status": str(ready)}],
            "containerStatuses": [{"name": "istio-proxy", "ready": ready}],
        },
    }
    for part, change in changes.items():
        made[part].update(change)
    return made


def echo(version: str, **options: Any) -> dict[str, Any]:
    return pod(f"tcp-echo-{version}", {"app": "echo", "version": version}, **options)


def assert_broken(hop: _path.Hop, *words: str) -> None:
    assert hop.ok is False
    assert hop.fix
    assert hop.message.count("\n") == 0
    assert hop.message.endswith(".")
    for word in words:
        assert word in hop.message


def test_rights() -> None:
    assert _path.check_rights({}, "shop").ok
    hop = _path.check_rights({"list": ["pods"], "patch": ["gateways", "virtualservices"]}, "shop")
    assert_broken(hop, "may not list pods; patch gateways, virtualservices in the namespace shop: ask for")


def hook(labels: dict[str, str], service: str = "istiod", ca: str = "Y2E=") -> dict[str, Any]:
    return {
        "name": "namespace.sidecar-injector.istio.io",
        "clientConfig": {"service": {"namespace": "istio-system", "name": service}, "caBundle": ca},
        "namespaceSelector": {"matchLabels": labels},
        "objectSelector": {
            "matchExpressions": [{"key": "sidecar.istio.io/inject", "operator": "NotIn", "values": ["false"]}]
        },
    }


def istio(missing: tuple[str, ...] = (), **changes: Any) -> _path.Hop:
    facts: dict[str, Any] = {
        "control_planes": [
            {
                "metadata": {"name": "istiod", "labels": {"istio.io/rev": "default"}},
                "status": {"availableReplicas": 1},
            }
        ],
        "webhooks": [
            {
                "metadata": {"name": "injector", "labels": {"istio.io/rev": "default"}},
                "webhooks": [hook({"istio-injection": "enabled"}), hook({"istio.io/rev": "blue"})],
            },
            {"metadata": {"name": "other"}, "webhooks": [{"name": "x.example.com"}]},
        ],
        "endpoints": {("istio-system", "istiod"): 1},
        "namespace": "istio-system",
        "revision": "",
        **changes,
    }
    return _path.check_istio(missing, **facts)


def test_istio_in_order() -> None:
    assert istio().ok
    assert istio(revision="blue").ok


def test_istio_broken() -> None:
    assert_broken(istio(missing=("Gateway",)), "Istio is not installed", "Gateway", "run the istio role")
    assert_broken(istio(control_planes=[]), "There is no istiod in istio-system")
    assert_broken(
        istio(control_planes=[{"metadata": {"name": "istiod"}}]), "istiod is not available (istio-system/istiod)"
    )
    assert_broken(istio(revision="green"), "No webhook injects sidecars", "istio.io/rev=green")
    assert_broken(istio(webhooks=[]), "istio-injection=enabled")
    assert_broken(istio(endpoints={}), "istio-system/istiod, which has no ready endpoint")
    waiting = {"metadata": {"name": "injector"}, "webhooks": [hook({"istio-injection": "enabled"}, ca="")]}
    assert_broken(istio(webhooks=[waiting]), "injector has no caBundle yet")


def test_istiod_of_another_revision_does_not_count() -> None:
    green = {"metadata": {"name": "istiod-g", "labels": {"istio.io/rev": "g"}}, "status": {"availableReplicas": 1}}
    assert_broken(istio(control_planes=[green]), "There is no istiod")


def test_a_control_plane_elsewhere_needs_no_istiod_here() -> None:
    remote = hook({"istio-injection": "enabled"})
    remote["clientConfig"] = {"url": "https://istiod.example.com/inject", "caBundle": "Y2E="}
    assert istio(webhooks=[{"metadata": {"name": "i"}, "webhooks": [remote]}], control_planes=[], endpoints={}).ok


@pytest.mark.parametrize(
    ("selector", "labels", "selected"),
    [
        ({}, {}, True),
        (None, {"a": "1"}, True),
        ({"matchLabels": {"a": "1"}}, {"a": "1", "b": "2"}, True),
        ({"matchLabels": {"a": "1"}}, {"a": "2"}, False),
        ({"matchExpressions": [{"key": "a", "operator": "In", "values": ["1", "2"]}]}, {"a": "2"}, True),
        ({"matchExpressions": [{"key": "a", "operator": "In", "values": ["1"]}]}, {}, False),
        ({"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["1"]}]}, {}, True),
        ({"matchExpressions": [{"key": "a", "operator": "Exists"}]}, {}, False),
        ({"matchExpressions": [{"key": "a", "operator": "DoesNotExist"}]}, {"a": "1"}, False),
        ({"matchExpressions": [{"key": "a", "operator": "Gt", "values": ["1"]}]}, {"a": "2"}, False),
    ],
)
def test_label_selectors(selector: Any, labels: dict[str, str], selected: bool) -> None:
    assert selects(selector, labels) is selected


def test_gateway_port() -> None:
    reference = "istio-system/istio-ingressgateway"
    service = {"spec": {"ports": [{"port": 15021}, {"port": 80}, {"port": 443}]}}
    hop = _path.check_gateway_port(service, reference, 31400)
    assert hop.message == (
        "The ingress gateway Service istio-system/istio-ingressgateway has no port 31400 (it has 15021, 80, 443): run "
        "the istio role, or add {name: tcp, port: 31400} to the Service."
    )
    assert_broken(hop)
    assert_broken(_path.check_gateway_port(None, reference, 31400), f"There is no ingress gateway Service {reference}")
    udp = {"spec": {"ports": [{"port": 31400, "protocol": "UDP"}]}}
    assert_broken(_path.check_gateway_port(udp, reference, 31400), "is UDP, not TCP")
    assert _path.check_gateway_port(service, reference, 80).ok


def test_gateway_selector() -> None:
    gateway = pod("gw", {"istio": "ingress", "app": "gw"})
    service = {"spec": {"selector": {"app": "gw"}}}

    def check(pods: list[Any], selector: dict[str, str], **change: Any) -> _path.Hop:
        return _path.check_gateway_selector(pods, change.get("service", service), "edge", selector)

    assert check([gateway], {"istio": "ingress"}).ok
    assert check([gateway], {"istio": "ingress"}, service=None).ok
    assert_broken(
        check([gateway], {"istio": "ingressgateway"}),
        "No pod in the namespace edge matches the gateway selector istio=ingressgateway",
        "the gateway's pods carry istio=ingress",
    )
    assert_broken(check([], {"istio": "ingress"}), "No pod")
    assert_broken(check([pod("gw", {"istio": "x"}, ready=False)], {"istio": "x"}), "is ready (gw)")
    assert_broken(check([pod("gw", {"istio": "x"})], {"istio": "x"}), "sends connections to pods with app=gw")
    leaving = pod("gw", {"istio": "ingress", "app": "gw"}, metadata={"deletionTimestamp": "now"})
    assert_broken(check([leaving], {"istio": "ingress"}), "No pod")


def test_route_pods() -> None:
    done = echo("v1", status={"phase": "Succeeded"})
    pods = [echo("v1"), echo("v2", ready=False), pod("x", {"version": "v1"}), done]
    assert _path.route_pods(pods, ECHO) == pods[:2]
    assert _path.route_pods(pods, None) == pods[:3]


def test_subsets() -> None:
    def check(pods: list[Any], weights: dict[str, int], **change: Any) -> _path.Hop:
        return _path.check_subsets(pods, change.get("versions", VERSIONS), weights, "shop")

    assert check([], {}).ok
    assert check([echo("v1"), echo("v2")], {}).ok
    assert check([echo("v1")], {"v1": 100, "v2": 0}).ok
    assert_broken(check([echo("v1")], {}), "No pod in the namespace shop matches version=v2, the labels of version v2")
    assert_broken(check([echo("v1")], {"v1": 80, "v2": 20}), "version v2")
    both = {"v1": {"app": "echo"}, "v2": {"version": "v2"}}
    assert_broken(check([echo("v2")], {}, versions=both), "shop/tcp-echo-v2 belongs to the versions v1, v2 at once")


def at(version: str, locality: str) -> dict[str, Any]:
    return pod(f"tcp-echo-{version or 'x'}", {"version": version, **({"istio-locality": locality} if locality else {})})


def test_localities() -> None:
    labelled = [at("v1", "v1"), at("v2", "v2"), at("v3", ""), at("v3", "elsewhere")]
    assert _path.check_localities(labelled, VERSIONS, "shop", {"enabled": True}) is None
    assert _path.check_localities([], VERSIONS, "shop", {}) is None


@pytest.mark.parametrize(
    ("pods", "mesh", "said"),
    [
        (
            [at("v1", "v1"), at("v2", "")],
            {},
            "The label istio-locality: v2 is missing on pods of v2 in the namespace shop (tcp-echo-v2), which would "
            "get no connections: add it to the pod template, or set the method to route.",
        ),
        ([at("v1", "v1"), at("v2", "europe.a")], {}, "tcp-echo-v2 of v2 has the label istio-locality: europe.a"),
        ([at("v1", "v1"), at("v2", "v1")], {}, "so that it would get connections as v1"),
        ([at("v1", "v1"), at("v3", "v1")], {}, "tcp-echo-v3 of no version has the label istio-locality: v1"),
        (
            [at("v1", "v1")],
            {"failover": [{"from": "a", "to": "b"}]},
            "The mesh balances by localities (localityLbSetting with failover), so that they are places",
        ),
    ],
)
def test_localities_that_do_not_stand_for_versions(pods: list[Any], mesh: dict[str, Any], said: str) -> None:
    hop = _path.check_localities(pods, VERSIONS, "shop", mesh)
    assert hop is not None
    assert hop.hop == "subsets"
    assert_broken(hop, said)


def test_endpoints() -> None:
    def check(pods: list[Any], weights: dict[str, int], port: int = 9000, **change: Any) -> _path.Hop:
        service = change.get("service", ECHO)
        return _path.check_endpoints(service, "shop/tcp-echo", port, pods=pods, versions=VERSIONS, weights=weights)

    ready, starting = echo("v1"), echo("v2", ready=False)
    assert check([ready, echo("v2")], {}).ok
    assert check([ready, starting], {"v1": 100, "v2": 0}).ok
    assert check([ready, starting], {"v1": 100, "v2": 0}, port=0).ok
    assert_broken(
        check([ready, starting], {"v1": 80, "v2": 20}), "Version v2", "none of its pods is ready (tcp-echo-v2)"
    )
    assert_broken(
        check([ready], {}), "Version v2 of the Service shop/tcp-echo cannot take connections, as it has no pod"
    )
    assert_broken(check([ready], {}, port=9001), "has no port 9001 (it has 9000)")
    assert_broken(check([ready], {}, service=None), "There is no Service shop/tcp-echo")


def test_sidecars() -> None:
    def check(*pods: Any) -> _path.Hop:
        return _path.check_sidecars(list(pods), VERSIONS, "shop")

    native = echo("v2", spec={"containers": [], "initContainers": [{**SIDECAR, "restartPolicy": "Always"}]})
    native["status"] = {"initContainerStatuses": [{"name": "istio-proxy", "ready": True}]}
    assert check(echo("v1"), native).ok
    assert check(echo("v1"), pod("x", spec={"containers": []})).ok  # not a pod of the versions
    hop = check(echo("v1"), echo("v2", spec={"containers": [{"name": "app"}]}))
    assert hop.message == (
        "The pod shop/tcp-echo-v2 has no sidecar: label the namespace for injection, then restart the pod."
    )
    assert_broken(hop)
    assert_broken(check(echo("v1", ready=False)), "The sidecar of the pod shop/tcp-echo-v1 is not ready")


def test_an_init_container_that_ends_is_no_sidecar() -> None:
    assert sidecar(pod(spec={"containers": [], "initContainers": [SIDECAR]})) == (False, False)


def gateway(name: str, port: int = 31400, protocol: str = "TCP", selector: Any = None, home: str = "shop") -> Any:
    return {
        "metadata": {"name": name, "namespace": home},
        "spec": {
            "selector": {"istio": "ingress"} if selector is None else selector,
            "servers": [{"port": {"number": port, "protocol": protocol}}],
        },
    }


def virtual(name: str, *gateways: str, home: str = "shop", tcp: Any = None) -> Any:
    routes = [{"match": [{"port": 31400}]}] if tcp is None else tcp
    return {"metadata": {"name": name, "namespace": home}, "spec": {"gateways": list(gateways), "tcp": routes}}


def conflicts(gateways: list[Any], virtuals: list[Any], **more: Any) -> _path.Hop:
    return _path.check_conflicts(
        31400,
        own=("shop", "mine"),
        gateway_labels=[{"istio": "ingress", "app": "gw"}],
        gateways=gateways,
        virtual_services=virtuals,
        **more,
    )


def listener(*replicas: Replica, **changes: Any) -> _path.Hop:
    facts: dict[str, Any] = {
        "route": virtual("mine", "g"),
        "reference": "shop/mine",
        "service": "shop/tcp-echo",
        "gateways": [gateway("g")],
        "gateway_labels": [{"istio": "ingress"}],
        **changes,
    }
    return _path.check_listener(replicas, 31400, **facts)


GOOD = Replica("gw-1", True, {"v1": 80, "v2": 20})
EMPTY = Replica("gw-2", True, {})
SILENT = Replica("gw-3", False, error="it is gone.")


def test_listener() -> None:
    assert listener(GOOD).message == "The only gateway replica has v1 80 / v2 20 on port 31400."
    assert listener(GOOD, GOOD._replace(name="gw-2")).saw.startswith("All 2 gateway replicas have")
    # What they have counts, not what is declared.
    assert listener(GOOD, route=None).ok
    assert (
        listener(Replica("gw", True, {"": 100})).saw == "The only gateway replica has (all versions) 100 on port 31400"
    )


def test_drain() -> None:
    hop = _path.check_drain({"gw": 45.0}, {}, 0)
    assert hop.message == (
        "The only gateway replica has drain 45 s, the time from a change of the route until it cuts sessions."
    )
    assert (hop.ok, hop.facts) == (True, {"drain_seconds": {"gw": 45.0}})
    assert _path.check_drain({"gw": 600.0, "gw-2": 600.0}, {}, 600).saw.startswith("All 2 gateway replicas have drain")
    mixed = _path.check_drain({"gw": 600.0, "gw-2": 45.0}, {}, 0)
    assert mixed.ok
    assert mixed.message == (
        "The gateway replicas have different drain times (gw 600 s, gw-2 45 s): wait until the gateway's Deployment is "
        "rolled out."
    )
    assert_broken(
        _path.check_drain({"gw": 600.0, "gw-2": 45.0}, {"gw-3": "gone."}, 600),
        "The gateway replica gw-2 has drain 45 s, not 600 s",
        "proxy.istio.io/config with drainDuration: 600s in it",
    )
    # What is waited for must not pass because nobody says anything.
    silent = _path.check_drain({"gw": 600.0}, {"gw-3": "gone."}, 600)
    assert_broken(silent, "The gateway replica gw-3 could not be asked (gone)")
    assert _path.check_drain({"gw": 600.0}, {"gw-3": "gone."}, 0).ok is None
    assert _path.check_drain({}, {}, 600).ok is None


def test_listener_that_is_missing() -> None:
    hop = listener(GOOD, EMPTY, route=None)
    assert hop.message == (
        "The gateway replica gw-2 has no route on port 31400, as there is no VirtualService shop/mine: set the route "
        "with the tcp_route role."
    )
    assert_broken(hop)
    assert_broken(listener(EMPTY, gateways=[]), "as there is no Gateway shop/g", "tcp_route role")
    assert_broken(listener(EMPTY, gateways=[gateway("g", home="office")]), "as there is no Gateway shop/g")
    assert_broken(listener(EMPTY, gateways=[gateway("g", port=31999)]), "as the Gateway shop/g opens 31999 only")
    assert_broken(listener(EMPTY, route=virtual("mine", "g", tcp=[])), "VirtualService shop/mine has no TCP route")
    assert_broken(listener(EMPTY, route=virtual("mine")), "VirtualService shop/mine has no TCP route")
    assert_broken(
        listener(EMPTY, gateways=[gateway("g", selector={"istio": "egress"})]),
        "as the selector istio=egress of the Gateway shop/g matches no ready gateway pod",
        "give the labels of the gateway's pods",
    )
    assert_broken(listener(EMPTY), "although what is declared asks for one", "istioctl proxy-status")
    assert_broken(listener(EMPTY._replace(error="bad filter.")), "it refused the latest configuration (bad filter)")
    assert_broken(listener(EMPTY, reference=""), "has no route on port 31400, although")


def test_listener_of_somebody_else() -> None:
    hop = listener(GOOD, Replica("gw-2", True, {"outbound|80||web.office.svc.cluster.local": 100}))
    assert_broken(
        hop, "gw-2 sends connections on port 31400 to outbound|80||web.office", "not to the Service shop/tcp-echo"
    )
    assert_broken(listener(Replica("gw", True, {"BlackHoleCluster": 100})), "to BlackHoleCluster")


def test_listener_that_cannot_be_looked_at() -> None:
    hop = listener(GOOD, SILENT)
    assert (hop.ok, hop.saw) == (None, "Not checked, as the gateway replica gw-3 could not be asked (it is gone)")
    assert listener().ok is listener(gateway_labels=[]).ok is None
    # What is declared tells then.
    assert_broken(
        listener(SILENT, gateways=[]), "No gateway replica can have a route on port 31400, as there is no Gateway"
    )
    assert listener(GOOD, SILENT, gateways=[]).ok is None


@pytest.mark.parametrize(
    ("change", "words"),
    [({"warming": True}, "does not use a newer one yet"), ({"error": "bad."}, "gw-1 refused a newer one (bad)")],
)
def test_listener_with_something_newer(change: dict[str, Any], words: str) -> None:
    hop = listener(GOOD._replace(**change))
    assert hop.ok
    assert words in hop.saw
    assert hop.fix


def rules(**subsets: dict[str, str]) -> _mesh.Rules:
    made = {name: _mesh.Subset(labels, {}, "shop/mine-destination") for name, labels in subsets.items()}
    return _mesh.Rules(made, {}, "", ["shop/mine-destination"] if made else [])


def test_destination_rule() -> None:
    def check(found: _mesh.Rules, named: list[str], pods: Any = None, versions: Any = None) -> _path.Hop:
        return _path.check_destination_rule(
            found,
            service="shop/tcp-echo",
            route="shop/mine",
            named=named,
            versions=versions or VERSIONS,
            pods=[echo("v1"), echo("v2")] if pods is None else pods,
        )

    good = rules(**VERSIONS)
    again = "declare the route again with the tcp_route role"
    assert check(good, ["v1", "v2"]).saw == "The subsets v1, v2 of shop/mine-destination match pods"
    assert check(good, ["v1"], [echo("v1")]).ok
    assert check(good, ["v1", "v2"], []).ok  # too early to tell
    assert check(rules(), []).saw == "The VirtualService shop/mine goes to shop/tcp-echo without subsets"
    hop = check(rules(v1={"version": "v1"}), ["v1", "v2"])
    assert_broken(hop, "No DestinationRule for shop/tcp-echo has the subset v2", "-destination, with v1)", again)
    assert_broken(check(rules(), ["v1"]), "(there is none, with none)", again)
    hop = check(rules(v1={"version": "v9"}), ["v1"])
    assert hop.message == (
        "The subset v1 of the DestinationRule shop/mine-destination has the labels version=v9, which no pod of the "
        "Service has, while the version v1 is declared with version=v1: declare the route again with the tcp_route "
        "role."
    )
    assert_broken(hop)
    assert_broken(check(good, ["v2"], [echo("v1")]), "version=v2, which no pod of the Service has:")
    assert_broken(check(rules(v1={"version": "v2"}), ["v1"]), "has the labels version=v2, while the version v1")
    assert_broken(check(rules(v1={}), ["v1"]), "has the labels none, while")
    assert_broken(check(rules(v3={"version": "v1"}), ["v3"]), "v3", "which is none of the declared versions (v1, v2)")
    # Declaring the route again would not change what others wrote.
    other = _mesh.Rules({"v1": _mesh.Subset({"version": "v9"}, {}, "edge/other")}, {}, "", ["edge/other"])
    assert check(other, ["v1"]).fix == "correct its labels, or delete that DestinationRule"
    assert check(other, ["v2"]).fix == "put it in, or delete that DestinationRule"


STATE = State("shop/p")


def test_sync() -> None:
    assert _path.check_sync([STATE, STATE]).saw == "All 2 proxies are connected to istiod, and no listener is refused"
    assert _path.check_sync([STATE]).ok
    assert _path.check_sync([]).ok is None
    assert_broken(
        _path.check_sync([STATE, State("shop/q", connected=False)]),
        "shop/q is not connected to istiod",
        "-n shop logs q",
    )
    assert_broken(
        _path.check_sync([State("shop/q", refused="no filter.")]), "refused its latest configuration (no filter):"
    )
    silent = _path.check_sync([STATE, State("shop/q", error="it is gone.")])
    assert (silent.ok, silent.saw) == (None, "Not checked, as the pod shop/q could not be asked (it is gone)")
    once = _path.check_sync([State("shop/q", once=3)])
    assert once.ok
    assert "shop/q has refused 3 configurations since it started" in once.saw
    assert once.fix
    assert "refused 1 configuration since" in _path.check_sync([State("shop/q", once=1)]).saw


def mtls(mode: str = "", takes: str = "", *pods: Any, auto: bool = True, **subsets: Any) -> _path.Hop:
    policy = {"metadata": {"namespace": "shop", "name": "peer"}, "spec": {"mtls": {"mode": takes}}}
    spec = {"host": "tcp-echo", **({"trafficPolicy": {"tls": {"mode": mode}}} if mode else {})}
    rule = {"metadata": {"namespace": "shop", "name": "rule"}, "spec": spec}
    caller = _mesh.Caller("istio-system", {})
    return _path.check_mtls(
        _mesh.merge_rules([rule], ("shop", "tcp-echo"), caller, "istio-system"),
        subsets=subsets or VERSIONS,
        port=9000,
        service=ECHO,
        pods=pods or [injected("v1")],
        policies=[policy] if takes else [],
        mesh=_mesh.Mesh(auto_mtls=auto),
    )


def injected(version: str) -> Any:
    made = echo(version)
    made["metadata"]["labels"][_mesh.TLS_LABEL] = "istio"
    return made


BARE = {"containers": [{"name": "app"}]}


@pytest.mark.parametrize(
    ("mode", "takes", "saw"),
    [
        ("", "", "The gateway sends Istio's mutual TLS to pods that take mutual TLS and plain TCP"),
        ("", "STRICT", "The gateway sends Istio's mutual TLS to pods that take mutual TLS only"),
        ("", "DISABLE", "The gateway sends plain TCP to pods that take no mutual TLS"),
        ("DISABLE", "DISABLE", "The gateway sends plain TCP to pods that take no mutual TLS"),
        ("DISABLE", "PERMISSIVE", "The gateway sends plain TCP to pods that take mutual TLS and plain TCP"),
        ("ISTIO_MUTUAL", "STRICT", "The gateway sends Istio's mutual TLS to pods that take mutual TLS only"),
    ],
)
def test_mtls_that_fits(mode: str, takes: str, saw: str) -> None:
    assert mtls(mode, takes) == _path.Hop("mtls", True, saw)


def test_mtls_that_does_not_fit() -> None:
    hop = mtls("DISABLE", "STRICT")
    assert hop.message == (
        "The gateway sends plain TCP to the pod shop/tcp-echo-v1 (DestinationRule shop/rule: DISABLE), which takes "
        "mutual TLS only (PeerAuthentication shop/peer): set the tls mode of the DestinationRule shop/rule to "
        "ISTIO_MUTUAL, or take that setting out."
    )
    assert_broken(hop)
    assert_broken(mtls("SIMPLE", "STRICT"), "sends one-way TLS", "DestinationRule shop/rule: SIMPLE")
    assert_broken(
        mtls("ISTIO_MUTUAL", "DISABLE"),
        "sends Istio's mutual TLS",
        "takes no mutual TLS (PeerAuthentication shop/peer)",
        "set the PeerAuthentication shop/peer to PERMISSIVE",
    )
    assert_broken(mtls("", "STRICT", auto=False), "(automatic mTLS is off)", "to ISTIO_MUTUAL")
    hop = mtls("ISTIO_MUTUAL", "", injected("v1"), echo("v2", spec=BARE))
    assert_broken(
        hop, "shop/tcp-echo-v2 (DestinationRule shop/rule: ISTIO_MUTUAL), which has no sidecar", "its sidecar"
    )


def test_mtls_looks_at_the_pods_that_get_connections() -> None:
    bare = echo("v2", spec=BARE)
    assert mtls("ISTIO_MUTUAL", "", injected("v1"), bare, v1=VERSIONS["v1"]).ok
    assert mtls("", "", bare).saw == "The gateway sends plain TCP to pods without a sidecar"
    assert mtls("", "", echo("v3")).ok is None
    assert not mtls("ISTIO_MUTUAL", "", bare, **{_path.NO_SUBSET: {}}).ok


@pytest.mark.parametrize(
    ("mode", "takes", "advice"),
    [
        ("SIMPLE", "PERMISSIVE", "see to it that the workload itself takes TLS"),
        ("MUTUAL", "DISABLE", "see to it that the workload itself takes TLS"),
        ("MUTUAL", "STRICT", "see to it that the certificates are of the mesh"),
    ],
)
def test_mtls_that_depends_on_what_is_not_to_be_seen(mode: str, takes: str, advice: str) -> None:
    hop = mtls(mode, takes)
    assert (hop.ok, hop.fix) == (True, advice)


def protocol(port: int = 9000, **entry: str) -> _path.Hop:
    service = {"spec": {"ports": [{"port": 80, "name": "http"}, {"port": port, **entry}]}}
    return _path.check_protocol(service, "shop/tcp-echo", port)


@pytest.mark.parametrize("name", ["tcp", "tcp-echo", "TCP", "tls", "https-web", "mongo", "redis-1", "mysql"])
def test_protocols_that_are_passed_on(name: str) -> None:
    for hop in (protocol(name=name), protocol(appProtocol=name, name="http")):
        assert hop.ok
        assert not hop.fix


@pytest.mark.parametrize("name", ["http", "http-web", "http2", "http2-x", "grpc", "grpc-web", "grpc-web-x", "HTTP"])
def test_protocols_that_are_taken_for_http(name: str) -> None:
    assert_broken(protocol(name=name), f"The port 9000 of the Service shop/tcp-echo has name {name}, so", "appProtocol")
    assert_broken(protocol(appProtocol=name, name="tcp"), f"has appProtocol {name}, so", "set its appProtocol to tcp")


@pytest.mark.parametrize(
    ("declared", "ok"), [("kubernetes.io/h2c", False), ("kubernetes.io/ws", False), ("kubernetes.io/wss", True)]
)
def test_protocols_of_kubernetes(declared: str, ok: bool) -> None:
    assert protocol(appProtocol=declared).ok is ok


@pytest.mark.parametrize("entry", [{}, {"name": "echo"}, {"name": "echo-tcp"}, {"appProtocol": "example.com/x"}])
def test_protocols_that_are_guessed(entry: dict[str, str]) -> None:
    hop = protocol(**entry)
    assert hop.ok
    assert "the server speaks first can hang" in hop.saw
    assert hop.fix == "set its appProtocol to tcp"
    assert not protocol(3306, **entry).fix


def test_protocols_of_what_is_no_tcp_or_not_there() -> None:
    assert_broken(protocol(name="tcp", protocol="UDP"), "is UDP, not TCP")
    assert _path.check_protocol(None, "shop/tcp-echo", 9000).ok is None
    assert _path.check_protocol(ECHO, "shop/tcp-echo", 1).ok is None


@pytest.mark.parametrize(
    ("route", "named"),
    [
        (None, None),
        ({"spec": {"tcp": [{"match": [{"port": 80}], "route": []}]}}, None),
        (
            {
                "spec": {
                    "tcp": [
                        {
                            "match": [{"port": 31400}],
                            "route": [
                                {"destination": {"host": "tcp-echo", "subset": "v1"}, "weight": 80},
                                {"destination": {"host": "tcp-echo", "subset": "v2"}, "weight": 20},
                                {"destination": {"host": "tcp-echo", "subset": "v3"}, "weight": 0},
                            ],
                        }
                    ]
                }
            },
            ["v1", "v2"],
        ),
        ({"spec": {"tcp": [{"match": [{"port": 31400}], "route": [{"destination": {"host": "tcp-echo"}}]}]}}, []),
        ({"spec": {"tcp": [{"match": [{"port": 31400}], "route": [{"destination": {"host": "tcp-echo.a"}}]}]}}, []),
    ],
)
def test_named_subsets(route: Any, named: Any) -> None:
    assert _path.named_subsets(route, "tcp-echo", 31400) == named


def intended(*others: Any) -> _mesh.Rules:
    own = {
        "metadata": {"namespace": "shop", "name": "mine-destination", "creationTimestamp": "2026-01-05T00:00:00Z"},
        "spec": {"host": "tcp-echo", "subsets": [{"name": name, "labels": VERSIONS[name]} for name in VERSIONS]},
    }
    caller = _mesh.Caller("edge", {})
    return _mesh.merge_rules([own, *others], ("shop", "tcp-echo"), caller, "istio-system")


def other_rule(labels: dict[str, str], created: str, home: str = "shop") -> Any:
    return {
        "metadata": {"namespace": home, "name": "other", "creationTimestamp": created},
        "spec": {"host": "tcp-echo.shop.svc.cluster.local", "subsets": [{"name": "v1", "labels": labels}]},
    }


@pytest.mark.parametrize(
    ("other", "saw"),
    [
        (other_rule({"version": "v9"}, "2026-01-01"), "The DestinationRule shop/other for the same host has its own"),
        (other_rule({"version": "v1"}, "2026-01-01"), ""),
        (other_rule({"version": "v9"}, "2026-01-09"), ""),  # the route's own is older and holds
        (other_rule({"version": "v1"}, "2026-01-09", "edge"), "The DestinationRule edge/other for the same host takes"),
        (other_rule({"version": "v9"}, "2026-01-01", "third"), ""),
    ],
)
def test_another_destination_rule(other: Any, saw: str) -> None:
    hop = conflicts([], [], rules=intended(other), versions=VERSIONS)
    assert hop.ok is not saw.startswith("The")
    assert hop.saw.startswith(saw)
    assert bool(saw) is bool(hop.fix)


@pytest.mark.parametrize(
    ("gateways", "virtuals"),
    [
        ([], []),
        ([gateway("g")], [virtual("mine", "g")]),
        ([gateway("g")], [virtual("other", "h")]),
        ([gateway("g")], [virtual("other", "g", home="office")]),  # a bare name is in its own namespace
        ([gateway("g")], [virtual("other", "mesh")]),
        ([gateway("g")], [virtual("other")]),
        ([gateway("g")], [virtual("other", "g", tcp=[])]),
        ([gateway("g")], [virtual("other", "g", tcp=[{"match": [{"port": 80}]}])]),
        ([gateway("g")], [virtual("other", "g", "mesh", tcp=[{"match": [{"port": 31400, "gateways": ["mesh"]}]}])]),
        ([gateway("g", port=80)], [virtual("other", "g", tcp=[{"match": [{"port": 80}]}])]),
        ([gateway("g", port=80, protocol="HTTP")], []),
        ([gateway("g", selector={"istio": "egress"})], [virtual("other", "g")]),
        ([gateway("g", selector={"istio": "egress"}, protocol="HTTP")], []),
    ],
)
def test_no_conflict(gateways: list[Any], virtuals: list[Any]) -> None:
    assert conflicts(gateways, virtuals).ok


@pytest.mark.parametrize(
    ("gateways", "virtuals", "culprit"),
    [
        ([gateway("g")], [virtual("other", "g")], "VirtualService shop/other"),
        ([gateway("g")], [virtual("mine", "shop/g", home="office")], "VirtualService office/mine"),
        ([gateway("g")], [virtual("other", "./g")], "VirtualService shop/other"),
        ([gateway("g")], [virtual("other", "g", tcp=[{"route": []}])], "VirtualService shop/other"),
        (
            [gateway("g")],
            [virtual("other", "g", tcp=[{"match": [{"sourceSubnet": "::/0"}]}])],
            "VirtualService shop/other",
        ),
        ([gateway("g")], [virtual("other", "g", tcp=[{"match": [{"port": 31400, "gateways": ["g"]}]}])], "shop/other"),
        ([gateway("g", selector={})], [virtual("other", "g")], "VirtualService shop/other"),
        ([gateway("g", home="office")], [virtual("other", "g", home="office")], "VirtualService office/other"),
        ([gateway("g"), gateway("web", protocol="HTTP")], [], "Gateway shop/web opens port 31400"),
        ([gateway("web", protocol="TLS")], [virtual("mine", "web")], "Gateway shop/web"),
    ],
)
def test_a_conflict_names_the_culprit(gateways: list[Any], virtuals: list[Any], culprit: str) -> None:
    assert_broken(conflicts(gateways, virtuals), culprit)


def tcp_route(**parent: Any) -> Any:
    return {"metadata": {"name": "theirs", "namespace": "shop"}, "spec": {"parentRefs": [{"name": "api", **parent}]}}


def api_gateway(home: str = "edge", port: int = 31400, address: str = "") -> Any:
    spec = {"listeners": [{"name": "tcp", "port": port}], "addresses": [{"value": address}] if address else None}
    return {"metadata": {"name": "api", "namespace": home}, "spec": spec}


@pytest.mark.parametrize(
    ("found", "route", "labels", "ok"),
    [
        (api_gateway(address="gw.edge.svc.cluster.local"), tcp_route(namespace="edge"), {}, False),
        (api_gateway(address="gw"), tcp_route(namespace="edge", sectionName="tcp"), {}, False),
        (api_gateway(), tcp_route(namespace="edge"), {"gateway.networking.k8s.io/gateway-name": "api"}, False),
        (api_gateway(address="gw"), tcp_route(namespace="edge", sectionName="udp"), {}, True),
        (api_gateway(address="gw", port=80), tcp_route(namespace="edge"), {}, True),
        (api_gateway(address="gw"), tcp_route(), {}, True),
        (api_gateway(home="shop", address="gw"), tcp_route(), {}, True),
        (api_gateway(address="other.edge.svc"), tcp_route(namespace="edge"), {}, True),
        (api_gateway(), tcp_route(namespace="edge"), {}, True),
    ],
)
def test_routes_of_the_gateway_api(found: Any, route: Any, labels: dict[str, str], ok: bool) -> None:
    hop = _path.check_conflicts(
        31400,
        own=("shop", "mine"),
        gateway_labels=[labels],
        gateways=[],
        virtual_services=[],
        api_gateways=[found],
        tcp_routes=[route],
        service=("edge", "gw"),
    )
    assert hop.ok is ok
    assert ok or "TCPRoute shop/theirs" in hop.message


@given(st.lists(st.text(max_size=300), max_size=50))
def test_what_is_shown_is_bounded(names: list[str]) -> None:
    pods = [pod(name, {"istio": "x"}, ready=False) for name in names]
    assert len(_path.check_gateway_selector(pods, None, "edge", {"istio": "x"}).message) < 1000
