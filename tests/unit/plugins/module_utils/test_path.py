# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Each hop of the way: in order, broken in each of its ways, and what is said then."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.trafficshift.istio.plugins.module_utils import _path
from ansible_collections.trafficshift.istio.plugins.module_utils._pods import selects, sidecar
from hypothesis import given
from hypothesis import strategies as st

VERSIONS = {"v1": {"version": "v1"}, "v2": {"version": "v2"}}
ECHO = {"metadata": {"name": "tcp-echo"}, "spec": {"selector": {"app": "echo"}, "ports": [{"port": 9000}]}}
SIDECAR = {"name": "istio-proxy"}


def pod(name: str = "p", labels: dict[str, str] | None = None, *, ready: bool = True, **changes: Any) -> dict[str, Any]:
    made: dict[str, Any] = {
        "metadata": {"name": name, "labels": labels or {}},
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
