# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What path_check reads for each hop, from a cluster in memory, and how refusals count."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible_collections.trafficshift.istio.plugins.module_utils._client import ClusterError, ForbiddenError
from ansible_collections.trafficshift.istio.plugins.modules import path_check
from ansible_collections.trafficshift.istio.plugins.modules.path_check import HOPS, Hop, check_options, wait, walk

ISTIO = "networking.istio.io/v1"
SECURITY = "security.istio.io/v1"
LABELS = {"istio": "ingressgateway"}
LISTENER = {
    "filter_chains": [
        {
            "filters": [
                {
                    "typed_config": {
                        "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
                        "cluster": "outbound|9000|v1|tcp-echo.shop.svc.cluster.local",
                    }
                }
            ]
        }
    ]
}


def pod(name: str, labels: dict[str, str]) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "namespace": "shop", "labels": {"security.istio.io/tlsMode": "istio", **labels}},
        "spec": {"containers": [{"name": "istio-proxy"}]},
        "status": {
            "phase": "Running",
            "conditions": [{"type": "Ready", "status": "True"}],
            "containerStatuses": [{"name": "istio-proxy", "ready": True}],
        },
    }


class FakeCluster:
    """A cluster with all in order; the tests take things away or forbid them."""

    server = "the API server https://a"
    version = "v1"

    def __init__(self) -> None:
        self.calls: list[tuple[str, ...]] = []
        self.forbidden: set[tuple[str, str]] = set()  # kind and namespace
        self.refused: set[str] = set()  # verbs in the namespace of the route
        self.silent: set[str] = set()  # pods
        self.kinds = {"DestinationRule", "Gateway", "PeerAuthentication", "VirtualService"}
        hook = {
            "name": "namespace.sidecar-injector.istio.io",
            "namespaceSelector": {"matchLabels": {"istio-injection": "enabled"}},
            "clientConfig": {"caBundle": "x", "service": {"namespace": "istio-system", "name": "istiod"}},
        }
        self.objects: dict[tuple[str, str], list[dict[str, Any]]] = {
            ("Pod", "shop"): [pod("echo-v1", {"version": "v1"}), pod("echo-v2", {"version": "v2"})],
            ("Pod", "istio-system"): [pod("gw", LABELS)],
            ("Service", "shop"): [
                {"metadata": {"name": "tcp-echo"}, "spec": {"ports": [{"port": 9000, "name": "tcp"}]}}
            ],
            ("Service", "istio-system"): [
                {"metadata": {"name": "istio-ingressgateway"}, "spec": {"ports": [{"port": 31400}]}}
            ],
            ("Deployment", "istio-system"): [{"metadata": {"name": "istiod"}, "status": {"availableReplicas": 1}}],
            ("EndpointSlice", "istio-system"): [{"endpoints": [{"conditions": {"ready": True}}]}],
            ("MutatingWebhookConfiguration", ""): [{"metadata": {"name": "injector"}, "webhooks": [hook]}],
            ("Gateway", "shop"): [
                {
                    "metadata": {"name": "g", "namespace": "shop"},
                    "spec": {"selector": LABELS, "servers": [{"port": {"number": 31400, "protocol": "TCP"}}]},
                }
            ],
            ("VirtualService", "shop"): [self.virtual("mine", "shop")],
            ("DestinationRule", "shop"): [self.rule("mine-destination", "shop")],
        }
        # What the proxies answer, by the end of the path that they are asked for.
        self.answers = {
            "_31400": json.dumps({"configs": [{"name": "0.0.0.0_31400", "active_state": {"listener": LISTENER}}]}),
            "mask=name,error_state": json.dumps({"configs": []}),
            "server_info": json.dumps({"command_line_options": {"drain_time": "45s"}}),
            "update_rejected": "cluster.xds-grpc;.upstream_rq_active: 1\n",
        }

    @staticmethod
    def virtual(name: str, namespace: str) -> dict[str, Any]:
        route = [
            {"destination": {"host": "tcp-echo", "subset": "v1"}, "weight": 80},
            {"destination": {"host": "tcp-echo", "subset": "v2"}, "weight": 20},
        ]
        spec = {"gateways": ["shop/g"], "tcp": [{"match": [{"port": 31400}], "route": route}]}
        return {"metadata": {"name": name, "namespace": namespace}, "spec": spec}

    @staticmethod
    def rule(name: str, namespace: str, **policy: Any) -> dict[str, Any]:
        subsets = [{"name": name, "labels": {"version": name}} for name in ("v1", "v2")]
        spec = {"host": "tcp-echo.shop.svc.cluster.local", "subsets": subsets, "trafficPolicy": policy}
        return {"metadata": {"name": name, "namespace": namespace, "creationTimestamp": "2026-01-05"}, "spec": spec}

    def has(self, api_version: str, kind: str) -> bool:
        return kind in self.kinds and api_version == (SECURITY if kind == "PeerAuthentication" else ISTIO)

    def execute(self, namespace: str, pod: str, container: str, command: list[str], timeout: float) -> str:
        self.calls.append((namespace, pod, command[-1]))
        assert container == "istio-proxy"
        if ("exec", namespace) in self.forbidden:
            raise ForbiddenError(f"This account may not exec in {namespace} (403): ask for that right.", namespace)
        if pod in self.silent:
            raise ClusterError(f"The pod {pod} could not be asked: it is gone.")
        return next(answer for end, answer in self.answers.items() if command[-1].endswith(end))

    def may(self, verb: str, group: str, resource: str, namespace: str) -> bool:
        self.calls.append((verb, resource))
        return verb not in self.refused

    def get(self, api_version: str, kind: str, name: str, namespace: str = "") -> dict[str, Any] | None:
        found = self.find(api_version, kind, namespace)
        return next((item for item in found if item["metadata"]["name"] == name), None)

    def find(self, api_version: str, kind: str, namespace: str = "", labels: str = "") -> list[dict[str, Any]]:
        self.calls.append((kind, namespace))
        if (kind, namespace) in self.forbidden:
            raise ForbiddenError(f"This account may not list {kind} (403): ask for that right.", namespace)
        return [
            item for (k, home), items in self.objects.items() if k == kind and namespace in (home, "") for item in items
        ]


PARAMS: dict[str, Any] = {
    "hops": list(HOPS),
    "namespace": "shop",
    "service": "tcp-echo",
    "service_port": 9000,
    "versions": {"v1": {"version": "v1"}, "v2": {"version": "v2"}},
    "weights": {"v1": 80, "v2": 20},
    "method": "route",
    "route": "mine",
    "gateway_namespace": "istio-system",
    "gateway_service": "istio-ingressgateway",
    "gateway_selector": LABELS,
    "gateway_port": 31400,
    "gateway_drain_seconds": 0,
    "istio_namespace": "istio-system",
    "revision": "",
}


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> FakeCluster:
    fake = FakeCluster()
    monkeypatch.setattr(path_check, "Cluster", lambda _params: fake)
    return fake


def judged(**params: Any) -> dict[str, bool | None]:
    return {hop.hop: hop.ok for hop in walk({**PARAMS, **params})}


def test_all_in_order(cluster: FakeCluster) -> None:
    assert judged() == dict.fromkeys(HOPS, True)


def test_nothing_is_read_twice(cluster: FakeCluster) -> None:
    judged()
    assert len(cluster.calls) == len(set(cluster.calls))


def test_hops_come_in_the_order_of_the_way(cluster: FakeCluster) -> None:
    assert list(judged(hops=["sidecars", "cluster"])) == ["cluster", "sidecars"]


@pytest.mark.parametrize(
    ("kind", "namespace", "hop"),
    [
        ("MutatingWebhookConfiguration", "", "istio"),
        ("Deployment", "istio-system", "istio"),
        ("EndpointSlice", "istio-system", "istio"),
        ("Service", "istio-system", "gateway_port"),
        ("Pod", "istio-system", "gateway_selector"),
        ("Service", "shop", "endpoints"),
        ("DestinationRule", "shop", "destination_rule"),
    ],
)
def test_what_is_missing_breaks_its_hop(cluster: FakeCluster, kind: str, namespace: str, hop: str) -> None:
    cluster.objects[kind, namespace] = []
    assert [name for name, ok in judged().items() if ok is False] == [hop]


def test_without_istios_kinds(cluster: FakeCluster) -> None:
    cluster.kinds = set()
    found = judged()
    assert found["istio"] is False
    for name in ("listener", "destination_rule", "mtls", "conflicts"):
        assert found[name] is None


def test_the_namespace_says_the_revision(cluster: FakeCluster) -> None:
    cluster.objects["Namespace", ""] = [{"metadata": {"name": "shop", "labels": {"istio.io/rev": "canary"}}}]
    assert judged(hops=["istio"]) == {"istio": True}
    assert judged(hops=["istio"], revision=None) == {"istio": False}
    cluster.objects["MutatingWebhookConfiguration", ""][0]["webhooks"][0]["namespaceSelector"] = {
        "matchLabels": {"istio.io/rev": "canary"}
    }
    assert judged(hops=["istio"], revision=None) == {"istio": True}


def test_what_hangs_on_an_unknown_revision_stays_open(cluster: FakeCluster) -> None:
    cluster.forbidden = {("Namespace", "")}
    found = {hop.hop: hop for hop in walk({**PARAMS, "revision": None})}
    assert [name for name, hop in found.items() if not hop.ok] == ["istio", "mtls"]
    for name in ("istio", "mtls"):
        assert (found[name].ok, found[name].saw) == (None, "This account may not list Namespace (403)")


def test_the_webhook_says_where_the_control_plane_is(cluster: FakeCluster) -> None:
    hook = cluster.objects["MutatingWebhookConfiguration", ""][0]["webhooks"][0]
    hook["clientConfig"]["service"]["namespace"] = "mesh"
    assert judged(hops=["istio"]) == {"istio": False}
    for kind in ("Deployment", "EndpointSlice"):
        cluster.objects[kind, "mesh"] = cluster.objects[kind, "istio-system"]
    assert judged(hops=["istio"]) == {"istio": True}


@pytest.mark.parametrize("name", ["destination_rule", "mtls", "conflicts"])
def test_other_namespaces_count_as_far_as_one_sees(cluster: FakeCluster, name: str) -> None:
    cluster.forbidden = {("DestinationRule", "")}
    found = hop(name)
    assert found.ok
    assert found.saw.endswith("as far as this account sees (shop and istio-system)")


def test_another_route_on_the_port(cluster: FakeCluster) -> None:
    cluster.objects["VirtualService", "office"] = [cluster.virtual("other", "office")]
    hop = walk({**PARAMS, "hops": ["conflicts"]})[0]
    assert hop.ok is False
    assert "office/other" in hop.saw


def test_a_wide_right_saves_the_single_questions(cluster: FakeCluster) -> None:
    judged(hops=["rights"])
    assert len(cluster.calls) == 3
    cluster.calls.clear()
    cluster.refused = {"*", "patch"}
    hop = walk({**PARAMS, "hops": ["rights"]})[0]
    assert hop.ok is False
    assert "may not patch destinationrules, gateways, virtualservices in the namespace shop" in hop.saw
    assert len(cluster.calls) == 18


def test_what_may_not_be_read_elsewhere_stays_open(cluster: FakeCluster) -> None:
    cluster.forbidden = {("Pod", "istio-system"), ("MutatingWebhookConfiguration", "")}
    found = judged()
    assert found["istio"] is None
    assert found["gateway_selector"] is None
    assert found["sidecars"] is True


def test_what_may_not_be_read_at_home_is_broken(cluster: FakeCluster) -> None:
    cluster.forbidden = {("Pod", "shop")}
    hops = {hop.hop: hop for hop in walk(PARAMS)}
    assert hops["sidecars"].ok is False
    assert hops["sidecars"].message == "This account may not list Pod (403): ask for that right."


def hop(name: str) -> Hop:
    return walk({**PARAMS, "hops": [name]})[0]


def test_a_replica_without_listener(cluster: FakeCluster) -> None:
    cluster.answers["_31400"] = "{}"
    assert "although what is declared asks for one" in hop("listener").saw
    cluster.objects["Gateway", "shop"] = []
    assert "as there is no Gateway shop/g" in hop("listener").saw
    cluster.objects["VirtualService", "shop"] = []
    assert "as there is no VirtualService shop/mine" in hop("listener").saw
    assert hop("destination_rule").ok is None


def test_the_port_that_the_gateway_listens_on(cluster: FakeCluster) -> None:
    cluster.objects["Service", "istio-system"][0]["spec"]["ports"][0]["targetPort"] = 31401
    cluster.answers["_31401"] = "{}"
    assert hop("listener").ok is False


@pytest.mark.parametrize("name", ["listener", "drain", "sync"])
def test_pods_that_cannot_be_asked(cluster: FakeCluster, name: str) -> None:
    cluster.silent = {"gw"}
    found = hop(name)
    assert found.ok is None
    assert "gw could not be asked (The pod gw could not be asked: it is gone)" in found.saw


@pytest.mark.parametrize(
    ("end", "answer", "name"),
    [
        ("_31400", "[", "listener"),
        ("server_info", "{}", "drain"),
        ("mask=name,error_state", "[]", "sync"),
        ("update_rejected", "", "sync"),
    ],
)
def test_answers_that_cannot_be_read(cluster: FakeCluster, end: str, answer: str, name: str) -> None:
    cluster.answers[end] = answer
    assert hop(name).ok is None


def test_without_the_right_to_look_into_pods(cluster: FakeCluster) -> None:
    cluster.forbidden = {("exec", "istio-system"), ("exec", "shop")}
    for name in ("listener", "drain", "sync"):
        found = hop(name)
        assert found.ok is None
        assert found.message == "This account may not exec in istio-system (403): ask for that right."
    # What is declared tells even then.
    cluster.objects["Gateway", "shop"] = []
    assert hop("listener").ok is False


def test_each_replica_says_its_drain_time(cluster: FakeCluster) -> None:
    cluster.objects["Pod", "istio-system"].append(pod("gw-2", LABELS))
    found = hop("drain")
    assert found.saw.startswith("All 2 gateway replicas have drain 45 s")
    assert found.facts == {"drain_seconds": {"gw": 45.0, "gw-2": 45.0}}
    assert judged(hops=["drain"], gateway_drain_seconds=45) == {"drain": True}
    assert judged(hops=["drain"], gateway_drain_seconds=600) == {"drain": False}


def test_sync_is_judged_by_the_pods_that_may_be_asked(cluster: FakeCluster) -> None:
    cluster.forbidden = {("exec", "istio-system")}
    assert hop("sync").ok is None
    cluster.answers["update_rejected"] = "cluster.xds-grpc;.upstream_rq_active: 0\n"
    assert hop("sync").saw.startswith("The proxy of the pod shop/")


def test_sync_asks_gateway_and_sidecars(cluster: FakeCluster) -> None:
    assert hop("sync").ok
    asked = {call[:2] for call in cluster.calls if call[-1].startswith("stats?")}
    assert ("istio-system", "gw") in asked
    assert len(asked) == 3


STRICT = {"metadata": {"name": "peer", "namespace": "shop"}, "spec": {"mtls": {"mode": "STRICT"}}}


def test_mtls_reads_both_sides(cluster: FakeCluster) -> None:
    cluster.objects["PeerAuthentication", "shop"] = [STRICT]
    assert hop("mtls").saw == "The gateway sends Istio's mutual TLS to pods that take mutual TLS only"
    cluster.objects["DestinationRule", "shop"] = [cluster.rule("mine-destination", "shop", tls={"mode": "DISABLE"})]
    assert "(DestinationRule shop/mine-destination: DISABLE)" in hop("mtls").saw
    cluster.kinds -= {"PeerAuthentication"}
    assert hop("mtls").ok


@pytest.mark.parametrize(
    ("revision", "name", "mesh", "ok"),
    [
        ("", "istio", "enableAutoMtls: false", False),
        ("", "istio", "enableAutoMtls: true", True),
        ("", "istio", "rootNamespace: other", True),
        ("", "istio", "[", True),
        ("", "istio", "just text", True),
        ("blue", "istio-blue", "enableAutoMtls: false", False),
        ("blue", "istio", "enableAutoMtls: false", True),
    ],
)
def test_mtls_knows_the_mesh(cluster: FakeCluster, revision: str, name: str, mesh: str, ok: bool) -> None:
    cluster.objects["PeerAuthentication", "istio-system"] = [{**STRICT, "metadata": {"namespace": "istio-system"}}]
    cluster.objects["ConfigMap", "istio-system"] = [{"metadata": {"name": name}, "data": {"mesh": mesh}}]
    cluster.objects["MutatingWebhookConfiguration", ""][0]["metadata"]["labels"] = {"istio.io/rev": revision}
    assert hop("mtls").ok is ok


@pytest.mark.parametrize("forbidden", [("PeerAuthentication", "istio-system"), ("ConfigMap", "istio-system")])
def test_mtls_as_far_as_one_sees(cluster: FakeCluster, forbidden: tuple[str, str]) -> None:
    cluster.forbidden = {forbidden}
    found = hop("mtls")
    assert found.ok is None
    assert f"may not list {forbidden[0]}" in found.saw
    # What is seen to be broken is broken whatever else there is.
    cluster.objects["PeerAuthentication", "shop"] = [STRICT]
    cluster.objects["DestinationRule", "shop"] = [cluster.rule("mine-destination", "shop", tls={"mode": "DISABLE"})]
    assert hop("mtls").ok is False


def test_mtls_before_there_is_a_route(cluster: FakeCluster) -> None:
    cluster.objects["VirtualService", "shop"] = []
    assert hop("mtls").ok


def test_protocol(cluster: FakeCluster) -> None:
    cluster.objects["Service", "shop"][0]["spec"]["ports"][0]["name"] = "http"
    assert [name for name, ok in judged().items() if ok is False] == ["protocol"]


@pytest.mark.parametrize("declared", [True, False])
def test_another_destination_rule_for_the_host(cluster: FakeCluster, declared: bool) -> None:
    """It holds if it is older than the route's own, or if that is not there yet."""
    other = cluster.rule("other", "shop")
    other["metadata"]["creationTimestamp"] = "2026-01-01"
    other["spec"]["subsets"][0]["labels"] = {"version": "v9"}
    cluster.objects["DestinationRule", "shop"] = [*cluster.objects["DestinationRule", "shop"] * declared, other]
    assert "The DestinationRule shop/other for the same host" in hop("conflicts").saw
    other["spec"]["host"] = "other"
    assert hop("conflicts").ok


def test_conflicts_are_looked_for_as_far_as_one_sees(cluster: FakeCluster) -> None:
    cluster.forbidden = {("VirtualService", ""), ("VirtualService", "istio-system")}
    hop = walk({**PARAMS, "hops": ["conflicts"]})[0]
    assert hop.ok is True
    assert hop.saw.endswith("as far as this account sees (shop)")
    cluster.objects["VirtualService", "shop"].append(cluster.virtual("other", "shop"))
    assert judged(hops=["conflicts"]) == {"conflicts": False}


def test_one_kind_that_may_not_be_read_hides_no_other(cluster: FakeCluster) -> None:
    cluster.forbidden = {("Gateway", ""), ("Gateway", "istio-system"), ("VirtualService", "")}
    cluster.objects["VirtualService", "istio-system"] = [cluster.virtual("other", "istio-system")]
    assert "istio-system/other" in hop("conflicts").saw


def test_without_cluster_nothing_else_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_params: Any) -> None:
        raise ClusterError("The API server a does not answer (refused): check that it runs.")

    monkeypatch.setattr(path_check, "Cluster", refuse)
    hops = walk(PARAMS)
    assert [hop.ok for hop in hops] == [False] + [None] * (len(HOPS) - 1)
    assert hops[0].saw == "The API server a does not answer (refused)"
    assert hops[0].fix == "check that it runs"
    assert walk({**PARAMS, "hops": ["istio"]})[0].message


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"versions": {}}, "The hop subsets cannot be checked without versions."),
        ({"service": ""}, "The hop listener cannot be checked without service."),
        ({"hops": ["mtls"], "service_port": 0}, "The hop mtls cannot be checked without service_port."),
        ({"hops": ["destination_rule"], "route": ""}, "The hop destination_rule cannot be checked without route."),
        ({"weights": {"v1": 1}}, "The weights add up to 1, not to 100"),
    ],
)
def test_wrong_options_get_one_sentence(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_options({**PARAMS, **change})


@pytest.mark.parametrize(
    ("mended_after", "timeout", "ok", "looks"), [(0, 9, True, 1), (3, 9, True, 4), (5, 2, False, 3), (5, 0, False, 1)]
)
def test_a_broken_hop_is_waited_for(mended_after: float, timeout: float, ok: bool, looks: int) -> None:
    now = [0.0]
    seen: list[float] = []

    def look() -> list[Hop]:
        seen.append(now[0])
        return [Hop("cluster", True, ""), Hop("rights", None, ""), Hop("istio", now[0] >= mended_after, "")]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    assert wait(look, timeout, clock=lambda: now[0], sleep=sleep)[2].ok is ok
    assert len(seen) == looks
    assert now[0] <= timeout


def test_endpoints_need_a_label_on_the_pods(cluster: FakeCluster) -> None:
    (hop,) = walk({**PARAMS, "hops": ["subsets"], "method": "endpoints"})
    assert not hop.ok
    assert "The label istio-locality: v1 is missing on pods of v1 in the namespace shop (echo-v1)" in hop.saw
    cluster.objects["Pod", "shop"] = [
        pod(f"echo-{version}", {"version": version, "istio-locality": version}) for version in ("v1", "v2")
    ]
    assert judged(hops=["subsets"], method="endpoints") == {"subsets": True}


@pytest.mark.parametrize(("revision", "name"), [("", "istio"), ("default", "istio"), ("1-31", "istio-1-31")])
def test_a_mesh_that_balances_by_localities_is_seen(cluster: FakeCluster, revision: str, name: str) -> None:
    mesh = "localityLbSetting:\n  failover: [{from: a, to: b}]\n"
    cluster.objects["ConfigMap", "istio-system"] = [{"metadata": {"name": name}, "data": {"mesh": mesh}}]
    cluster.objects["Pod", "shop"] = [pod("echo-v1", {"version": "v1", "istio-locality": "v1"})]
    options = {**PARAMS, "hops": ["subsets"], "weights": {"v1": 100}, "method": "endpoints", "revision": revision}
    (hop,) = walk(options)
    assert not hop.ok
    assert "localityLbSetting with failover" in hop.saw
    cluster.forbidden.add(("ConfigMap", "istio-system"))
    assert walk(options)[0].ok
