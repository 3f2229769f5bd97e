# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What path_check reads for each hop, from a cluster in memory, and how refusals count."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.trafficshift.istio.plugins.module_utils._client import ClusterError, ForbiddenError
from ansible_collections.trafficshift.istio.plugins.modules import path_check
from ansible_collections.trafficshift.istio.plugins.modules.path_check import HOPS, Hop, check_options, wait, walk

ISTIO = "networking.istio.io/v1"
LABELS = {"istio": "ingressgateway"}


def pod(name: str, labels: dict[str, str]) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "labels": labels},
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
        self.kinds = {"DestinationRule", "Gateway", "VirtualService"}
        hook = {
            "name": "namespace.sidecar-injector.istio.io",
            "namespaceSelector": {"matchLabels": {"istio-injection": "enabled"}},
            "clientConfig": {"caBundle": "x", "service": {"namespace": "istio-system", "name": "istiod"}},
        }
        self.objects: dict[tuple[str, str], list[dict[str, Any]]] = {
            ("Pod", "shop"): [pod("echo-v1", {"version": "v1"}), pod("echo-v2", {"version": "v2"})],
            ("Pod", "istio-system"): [pod("gw", LABELS)],
            ("Service", "shop"): [{"metadata": {"name": "tcp-echo"}, "spec": {"ports": [{"port": 9000}]}}],
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
        }

    @staticmethod
    def virtual(name: str, namespace: str) -> dict[str, Any]:
        spec = {"gateways": ["shop/g"], "tcp": [{"match": [{"port": 31400}]}]}
        return {"metadata": {"name": name, "namespace": namespace}, "spec": spec}

    def has(self, api_version: str, kind: str) -> bool:
        return kind in self.kinds and api_version == ISTIO

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
    ],
)
def test_what_is_missing_breaks_its_hop(cluster: FakeCluster, kind: str, namespace: str, hop: str) -> None:
    cluster.objects[kind, namespace] = []
    assert [name for name, ok in judged().items() if ok is False] == [hop]


def test_without_istios_kinds(cluster: FakeCluster) -> None:
    cluster.kinds = set()
    found = judged()
    assert found["istio"] is False
    assert found["conflicts"] is None


def test_the_namespace_says_the_revision(cluster: FakeCluster) -> None:
    cluster.objects["Namespace", ""] = [{"metadata": {"name": "shop", "labels": {"istio.io/rev": "canary"}}}]
    assert judged(hops=["istio"]) == {"istio": True}
    assert judged(hops=["istio"], revision=None) == {"istio": False}
    cluster.objects["MutatingWebhookConfiguration", ""][0]["webhooks"][0]["namespaceSelector"] = {
        "matchLabels": {"istio.io/rev": "canary"}
    }
    assert judged(hops=["istio"], revision=None) == {"istio": True}


def test_a_namespace_that_may_not_be_read_is_taken_as_of_the_default_revision(cluster: FakeCluster) -> None:
    cluster.forbidden = {("Namespace", "")}
    assert judged(hops=["istio"], revision=None) == {"istio": True}


def test_the_webhook_says_where_the_control_plane_is(cluster: FakeCluster) -> None:
    hook = cluster.objects["MutatingWebhookConfiguration", ""][0]["webhooks"][0]
    hook["clientConfig"]["service"]["namespace"] = "mesh"
    assert judged(hops=["istio"]) == {"istio": False}
    for kind in ("Deployment", "EndpointSlice"):
        cluster.objects[kind, "mesh"] = cluster.objects[kind, "istio-system"]
    assert judged(hops=["istio"]) == {"istio": True}


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
    assert len(cluster.calls) == 15


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


def test_conflicts_are_looked_for_as_far_as_one_sees(cluster: FakeCluster) -> None:
    cluster.forbidden = {("VirtualService", ""), ("VirtualService", "istio-system")}
    hop = walk({**PARAMS, "hops": ["conflicts"]})[0]
    assert hop.ok is True
    assert "as far as this account sees (shop and istio-system)" in hop.saw
    cluster.objects["VirtualService", "shop"].append(cluster.virtual("other", "shop"))
    assert judged(hops=["conflicts"]) == {"conflicts": False}


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
        ({"service": ""}, "The hop endpoints cannot be checked without service."),
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
