# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Weights on endpoints: no client notices the change of method, sessions live on, and a version may be gone.

The route is left as it rests.
"""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Callable
from typing import Any

import pytest
from harness import Address, Clients, say

NAMESPACE = "molecule-rollout"
pytestmark = pytest.mark.usefixtures("resting")

Play = Callable[..., "tuple[int, str]"]
Verify = Callable[..., tuple[int, str, dict[str, Any]]]
Kubectl = Callable[..., str]
Route = Callable[..., str]


def listeners(kubectl: Kubectl) -> dict[str, list[Any]]:
    """Return everything that each replica of the gateway says of the listener, the one in use and any that drains."""
    page = "config_dump?resource=dynamic_listeners&name_regex=.*_31400"
    pods = kubectl("-n", "istio-system", "get", "pods", "-l", "istio=ingressgateway", "-o", "name").split()
    ask = ("-c", "istio-proxy", "--", "pilot-agent", "request", "GET", page)
    return {pod: json.loads(kubectl("-n", "istio-system", "exec", pod, *ask))["configs"] for pod in pods}


def assert_only(clients: Clients, *words: str) -> None:
    assert not clients.errors()
    assert set(clients.words()) == set(words), clients.words()


def test_nobody_notices_the_change_of_method(route: Route, kubectl: Kubectl, address: Address) -> None:
    route(100, "route")
    before = listeners(kubectl)
    with Clients(address) as clients:
        said = route(100)
        clients.wait()
    assert "from the method route to endpoints" in said and "touches the listener once" in said
    assert_only(clients, "one")
    assert listeners(kubectl) != before


@pytest.mark.parametrize("v1", [80, 50])
def test_both_witnesses_agree_on_the_split(route: Route, verify: Verify, v1: int) -> None:
    route(v1)
    expect = {"one": v1, "two": 100 - v1}
    code, message, report = verify(f"endpoints-{v1}", expect, witness="both", method="endpoints")
    assert code == 0, message
    assert (report["verdict"], report["method"], report["gateway"]["method"]) == ("pass", "endpoints", "endpoints")
    replicas = report["convergence"]["replicas"]
    assert [replica["method"] for replica in replicas] == ["endpoints"] * 3
    assert all(replica["weights"] == {"v1": v1, "v2": 100 - v1} for replica in replicas)
    assert report["gateway"]["agreement"]["agrees"]
    # Envoy takes turns, on each of its threads.
    assert report["shares"]["one"] == pytest.approx(v1 / 100, abs=0.02)


def test_the_other_method_s_weights_are_not_taken_for_these(route: Route, verify: Verify) -> None:
    route(50)
    code, message, report = verify("other-method", {"one": 50, "two": 50}, method="route", wait_timeout=1)
    assert (code != 0, report["verdict"], report["method"]) == (True, "not probed", "route")
    assert "has (all versions) 100 on port 31400, not v1 50 / v2 50" in message


def test_sessions_live_through_changes_of_weights(route: Route, kubectl: Kubectl, address: Address) -> None:
    route(80)
    before = listeners(kubectl)
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(socket.create_connection(address, timeout=30)) for _each in range(20)]
        words = [say(connection) for connection in held]
        assert set(words) == {"one", "two"}
        with Clients(address) as clients:
            for v1 in (99, 1, 100, 0, 80):
                route(v1)
                assert [say(connection) for connection in held] == words
            clients.wait()
    assert_only(clients, "one", "two")
    # Envoy cuts sessions when it drains what they came in by, and this has stayed as it was.
    assert listeners(kubectl) == before


def test_the_labels_of_nodes_do_not_matter(route: Route, verify: Verify, kubectl: Kubectl) -> None:
    route(80)
    names = ("topology.kubernetes.io/region", "topology.kubernetes.io/zone")
    try:
        kubectl("label", "nodes", "--all", *(f"{name}=here" for name in names))
        kubectl("-n", NAMESPACE, "rollout", "restart", "deployment/tcp-echo-v2")
        kubectl("-n", NAMESPACE, "rollout", "status", "deployment/tcp-echo-v2", "--timeout=120s")
        code, message, _report = verify("nodes", {"one": 80, "two": 20}, method="endpoints", profile="quick")
        assert code == 0, message
    finally:
        kubectl("label", "nodes", "--all", *(f"{name}-" for name in names))


def test_a_version_without_pods_costs_no_connection(
    route: Route, verify: Verify, play: Play, kubectl: Kubectl, address: Address
) -> None:
    route(80)
    replicas = kubectl("-n", NAMESPACE, "get", "deployment/tcp-echo-v2", "-o", "jsonpath={.spec.replicas}")
    kubectl("-n", NAMESPACE, "scale", "deployment/tcp-echo-v2", "--replicas=0")
    try:
        kubectl("-n", NAMESPACE, "wait", "pods", "-l", "version=v2", "--for=delete", "--timeout=120s")
        with Clients(address) as clients:
            clients.wait()
        assert_only(clients, "one")
        code, message, _report = verify("gone", {"one": 80, "two": 20}, method="endpoints", wait_timeout=1)
        assert code != 0
        assert "has the weights, but no ready endpoint of v2, so that the others get its share" in message
        code, message = play("tcp_route", tcp_route_method="endpoints", tcp_route_weights={"v1": 80, "v2": 20})
        assert code != 0 and f"No pod in the namespace {NAMESPACE} matches version=v2" in message
    finally:
        kubectl("-n", NAMESPACE, "scale", "deployment/tcp-echo-v2", f"--replicas={replicas}")
        kubectl("-n", NAMESPACE, "rollout", "status", "deployment/tcp-echo-v2", "--timeout=120s")


@pytest.mark.parametrize(
    ("label", "said"),
    [
        ("istio-locality-", "The label istio-locality: v2 is missing on pods of v2"),
        ("istio-locality=here", "label istio-locality: here"),
    ],
)
def test_a_pod_that_says_no_version_is_named(play: Play, kubectl: Kubectl, label: str, said: str) -> None:
    pods = ("-n", NAMESPACE, "label", "pods", "-l", "version=v2", "--overwrite")
    try:
        kubectl(*pods, label)
        code, message = play("tcp_route", tcp_route_method="endpoints", tcp_route_weights={"v1": 80, "v2": 20})
    finally:
        kubectl(*pods, "istio-locality=v2")
    assert code != 0
    assert said in message


def test_localities_of_somebody_else_are_refused(play: Play, kubectl: Kubectl) -> None:
    rule = {
        "apiVersion": "networking.istio.io/v1",
        "kind": "DestinationRule",
        "metadata": {"name": "molecule-theirs", "namespace": NAMESPACE},
        "spec": {"host": "tcp-echo", "trafficPolicy": {"loadBalancer": {"localityLbSetting": {"enabled": True}}}},
    }
    kubectl("apply", "-f", "-", stdin=json.dumps(rule))
    try:
        code, message = play("tcp_route", tcp_route_method="endpoints", tcp_route_weights={"v1": 80, "v2": 20})
    finally:
        kubectl("-n", NAMESPACE, "delete", "destinationrule", "molecule-theirs")
    assert code != 0
    assert f"The DestinationRule {NAMESPACE}/molecule-theirs has a trafficPolicy for the same host" in message


def test_nobody_notices_the_way_back(route: Route, verify: Verify, kubectl: Kubectl, address: Address) -> None:
    with Clients(address) as clients:
        said = route(80, "route")
        clients.wait()
    assert "from the method endpoints to route" in said
    assert_only(clients, "one", "two")
    rule = json.loads(kubectl("-n", NAMESPACE, "get", "destinationrule", "tcp-echo-destination", "-o", "json"))
    assert rule["spec"].keys() == {"host", "subsets"}
    assert rule["metadata"]["annotations"] == {"trafficshift.istio/subsets": "v1,v2"}
    assert all(subset.keys() == {"name", "labels"} for subset in rule["spec"]["subsets"])
    code, message, report = verify("back", {"one": 80, "two": 20}, method="route", witness="both", profile="quick")
    assert code == 0, message
    assert report["method"] == "route"
