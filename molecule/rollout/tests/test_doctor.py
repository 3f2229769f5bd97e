# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Each break of the way is made on the cluster, doctor.yml names it with its fix, and the test mends it again."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

HOPS = [
    *("cluster", "istio", "gateway_port", "gateway_selector", "listener", "drain", "subsets", "destination_rule"),
    *("endpoints", "sidecars", "sync", "mtls", "protocol", "conflicts"),
]
GATEWAY = "istio-ingressgateway"
PORT = 31400
NETWORKING = "networking.istio.io/v1"
KINDS = "virtualservices,destinationrules,gateways.networking.istio.io,peerauthentications,envoyfilters,services"

Kubectl = Callable[..., str]
Module = Callable[..., "dict[str, Any]"]
Play = Callable[..., "tuple[int, str]"]
Broken = Callable[..., AbstractContextManager[None]]


@pytest.fixture(scope="module", autouse=True)
def weights(route: Callable[..., str], resting: None) -> None:
    """Weights in the route, so that subsets are part of the way."""
    route(80, "route")


@pytest.fixture(autouse=True)
def unchanged(kubectl: Kubectl, namespace: str) -> Iterator[None]:
    """What is declared is the same before and after each test."""

    def declared() -> dict[str, Any]:
        items = [
            item
            for place in (namespace, "istio-system")
            for item in json.loads(kubectl("get", KINDS, "-n", place, "-o", "json"))["items"]
        ]
        return {
            "/".join((item["kind"], item["metadata"]["namespace"], item["metadata"]["name"])): (
                item["spec"],
                item["metadata"].get("labels"),
            )
            for item in items
        }

    before = declared()
    yield
    assert declared() == before


@pytest.fixture
def mended(module: Module, namespace: str) -> Iterator[None]:
    """After the test, connections find their way again."""
    yield
    path = module(
        "path_check",
        hops=HOPS,
        namespace=namespace,
        service="tcp-echo",
        service_port=9000,
        route="tcp-echo",
        versions={"v1": {"version": "v1"}, "v2": {"version": "v2"}},
        weights={"v1": 80, "v2": 20},
        wait_timeout=60,
    )
    assert path["broken"] == "", path["msg"]


@pytest.fixture
def patched(kubectl: Kubectl, mended: None) -> Broken:
    """Give fields of an object's spec other values for the time of a `with`."""

    @contextmanager
    def change(kind: str, name: str, home: str, **fields: Any) -> Iterator[None]:
        def patch(spec: dict[str, Any]) -> None:
            kubectl("patch", kind, name, "-n", home, "--type=merge", "-p", json.dumps({"spec": spec}))

        spec = json.loads(kubectl("get", kind, name, "-n", home, "-o", "json"))["spec"]
        patch(fields)
        try:
            yield
        finally:
            patch({field: spec.get(field) for field in fields})

    return change


@pytest.fixture
def applied(kubectl: Kubectl, mended: None) -> Broken:
    """Have an object for the time of a `with`."""

    @contextmanager
    def make(api_version: str, kind: str, name: str, home: str, spec: dict[str, Any], **more: Any) -> Iterator[None]:
        metadata = {"name": name, "namespace": home, **more}
        definition = {"apiVersion": api_version, "kind": kind, "metadata": metadata, "spec": spec}
        kubectl("apply", "-f", "-", stdin=json.dumps(definition))
        try:
            yield
        finally:
            kubectl("delete", kind, name, "-n", home, "--wait")

    return make


@pytest.fixture
def no_route(module: Module, namespace: str) -> Callable[[], None]:
    """Wait until no gateway replica has the route any more."""

    def wait() -> None:
        found = module(
            "gateway_weights", port=PORT, destination=f"tcp-echo.{namespace}", destination_port=9000, weights={}
        )
        assert found["converged"], found

    return wait


@pytest.fixture
def account(
    kubectl: Kubectl, kubeconfig_of: Callable[[str, str], str], namespace: str
) -> Iterator[Callable[[list[dict[str, Any]]], str]]:
    """Make an account with the rights of some rules; return its kubeconfig."""
    made = "doctor-patient"
    rbac = "rbac.authorization.k8s.io"

    def make(rules: list[dict[str, Any]]) -> str:
        subject = {"kind": "ServiceAccount", "name": made, "namespace": namespace}
        items = [
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": made, "namespace": namespace}},
            {"apiVersion": f"{rbac}/v1", "kind": "ClusterRole", "metadata": {"name": made}, "rules": rules},
            {
                "apiVersion": f"{rbac}/v1",
                "kind": "ClusterRoleBinding",
                "metadata": {"name": made},
                "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": made},
                "subjects": [subject],
            },
        ]
        kubectl("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))
        return kubeconfig_of(made, namespace)

    yield make
    kubectl("delete", "clusterrolebinding,clusterrole", made)
    kubectl("delete", "serviceaccount", made, "-n", namespace)


READING = [
    {"apiGroups": groups, "resources": resources, "verbs": ["get", "list"]}
    for groups, resources in (
        ([""], ["pods", "services", "namespaces", "configmaps"]),
        (["apps"], ["deployments"]),
        (["discovery.k8s.io"], ["endpointslices"]),
        (["admissionregistration.k8s.io"], ["mutatingwebhookconfigurations"]),
        (["networking.istio.io"], ["virtualservices", "destinationrules", "gateways"]),
        (["security.istio.io"], ["peerauthentications"]),
    )
]
LOOKING = {"apiGroups": [""], "resources": ["pods/exec"], "verbs": ["get", "create"]}


def names_the_break(outcome: tuple[int, str], *words: str) -> None:
    code, message = outcome
    assert code != 0, message
    for word in words:
        assert word in message
    assert re.search(r".: .+\.$", message), message  # what was seen, and what to do
    assert len(message) < 600
    assert "Traceback" not in message


def arrives(module: Module, **arguments: Any) -> None:
    """Look, a minute at most, until a break has reached the proxies."""
    deadline = time.monotonic() + 60
    while not module("path_check", fail=False, **arguments)["broken"]:
        assert time.monotonic() < deadline


def states(output: str) -> dict[str, str]:
    """What the table says of each hop."""
    return dict(re.findall(r'"(\w+) +(in order|BROKEN|not checked)  ', output))


@pytest.mark.parametrize("check", [False, True])
def test_all_in_order(play: Play, check: bool) -> None:
    code, output = play("doctor.yml", check=check)
    assert code == 0, output
    assert states(output) == dict.fromkeys(HOPS, "in order")
    assert list(states(output)) == HOPS
    assert re.search(r"changed=0 .*failed=0 .*rescued=0", output)


def test_reading_and_looking_into_pods_is_enough(play: Play, account: Callable[..., str]) -> None:
    code, output = play("doctor.yml", k8s_kubeconfig=account([*READING, LOOKING]))
    assert code == 0, output
    assert states(output) == dict.fromkeys(HOPS, "in order")


def test_what_the_account_may_not_see_is_not_checked(play: Play, account: Callable[..., str]) -> None:
    code, output = play("doctor.yml", k8s_kubeconfig=account(READING))
    assert code == 0, output
    unseen = dict.fromkeys(["listener", "drain", "sync"], "not checked")
    assert states(output) == {**dict.fromkeys(HOPS, "in order"), **unseen}
    assert "This account may not get and create pods/exec in the namespace istio-system" in output


def test_no_rights(play: Play, account: Callable[..., str], namespace: str) -> None:
    names_the_break(
        play("doctor.yml", k8s_kubeconfig=account([])), "This account may not", f"in the namespace {namespace}"
    )


def test_no_cluster(play: Play, tmp_path: Path) -> None:
    names_the_break(play("doctor.yml", k8s_kubeconfig=str(tmp_path / "nowhere")), "There is no cluster to talk to")


def test_no_gateway_service(play: Play) -> None:
    outcome = play("doctor.yml", tcp_route_gateway_service="nowhere")
    names_the_break(outcome, "There is no ingress gateway Service istio-system/nowhere", "run the istio role")


def test_gateway_service_without_the_port(play: Play, patched: Broken, kubectl: Kubectl) -> None:
    ports = json.loads(kubectl("get", "service", GATEWAY, "-n", "istio-system", "-o", "json"))["spec"]["ports"]
    others = [port for port in ports if port["port"] != PORT]
    with patched("service", GATEWAY, "istio-system", ports=others):
        names_the_break(
            play("doctor.yml"), f"istio-system/{GATEWAY} has no port {PORT}", f"port: {PORT}}} to the Service"
        )


def test_declared_selector_that_matches_no_pod(play: Play) -> None:
    outcome = play("doctor.yml", tcp_route_gateway_selector={"istio": "nowhere"})
    names_the_break(outcome, "matches the gateway selector istio=nowhere", "give the labels of the gateway's pods")


def test_live_selector_that_matches_no_pod(play: Play, patched: Broken, no_route: Any, namespace: str) -> None:
    with patched("gateways.networking.istio.io", "tcp-echo-gateway", namespace, selector={"istio": "nowhere"}):
        no_route()
        names_the_break(
            play("doctor.yml"),
            f"the selector istio=nowhere of the Gateway {namespace}/tcp-echo-gateway matches no ready gateway pod",
            "give the labels of the gateway's pods",
        )


def test_gateway_on_another_port(play: Play, patched: Broken, no_route: Any, namespace: str) -> None:
    servers = [{"port": {"number": 31999, "name": "tcp", "protocol": "TCP"}, "hosts": ["*"]}]
    with patched("gateways.networking.istio.io", "tcp-echo-gateway", namespace, servers=servers):
        no_route()
        names_the_break(
            play("doctor.yml"),
            f"has no route on port {PORT}, as the Gateway {namespace}/tcp-echo-gateway opens 31999 only",
            "declare it again with the tcp_route role",
        )


@pytest.mark.usefixtures("mended")
def test_no_gateway(play: Play, kubectl: Kubectl, no_route: Any, namespace: str) -> None:
    kind = "gateways.networking.istio.io"
    found = json.loads(kubectl("get", kind, "tcp-echo-gateway", "-n", namespace, "-o", "json"))
    for written in ("uid", "resourceVersion", "creationTimestamp", "generation", "managedFields"):
        found["metadata"].pop(written, None)
    kubectl("delete", kind, "tcp-echo-gateway", "-n", namespace)
    try:
        no_route()
        names_the_break(play("doctor.yml"), f"as there is no Gateway {namespace}/tcp-echo-gateway", "tcp_route role")
    finally:
        kubectl("create", "-f", "-", stdin=json.dumps(found))


def test_a_subset_that_matches_no_pod(play: Play, patched: Broken, namespace: str) -> None:
    subsets = [
        {"name": "v1", "labels": {"version": "v1"}},
        {"name": "v2", "labels": {"version": "nowhere"}},
    ]
    with patched("destinationrule", "tcp-echo-destination", namespace, subsets=subsets):
        names_the_break(
            play("doctor.yml"),
            f"The subset v2 of the DestinationRule {namespace}/tcp-echo-destination has the labels version=nowhere",
            "which no pod of the Service has",
            "declare the route again with the tcp_route role",
        )


def test_a_rule_in_the_place_of_the_routes(play: Play, applied: Broken, namespace: str) -> None:
    spec = {"host": f"tcp-echo.{namespace}.svc.cluster.local", "exportTo": ["."], "subsets": []}
    with applied(NETWORKING, "DestinationRule", "rival", "istio-system", spec):
        names_the_break(play("doctor.yml"), "has the subset v1", "istio-system/rival, with none", "put it in, or")


@pytest.mark.usefixtures("mended")
def test_a_weighted_version_without_pods(play: Play, kubectl: Kubectl, namespace: str) -> None:
    deployment = json.loads(kubectl("get", "deployment", "tcp-echo-v2", "-n", namespace, "-o", "json"))
    scale = ("scale", "deployment", "tcp-echo-v2", "-n", namespace)
    kubectl(*scale, "--replicas=0")
    try:
        kubectl("wait", "--for=delete", "pod", "-l", "version=v2", "-n", namespace, "--timeout=90s")
        outcome = play("doctor.yml")
        names_the_break(outcome, f"No pod in the namespace {namespace} matches version=v2", "deploy that version")
    finally:
        kubectl(*scale, f"--replicas={deployment['spec']['replicas']}")
        kubectl("rollout", "status", "deployment", "tcp-echo-v2", "-n", namespace, "--timeout=90s")


def test_a_pod_without_its_sidecar(
    play: Play, applied: Broken, kubectl: Kubectl, facts: dict[str, str], namespace: str
) -> None:
    labels = {"app": "tcp-echo", "version": "v1", "sidecar.istio.io/inject": "false"}
    spec = {
        "containers": [{"name": "tcp-echo", "image": facts["tcp_echo_image"], "args": ["9000", "one"]}],
        "terminationGracePeriodSeconds": 0,
    }
    with applied("v1", "Pod", "bare", namespace, spec, labels=labels):
        kubectl("wait", "--for=condition=Ready", "pod/bare", "-n", namespace, "--timeout=60s")
        outcome = play("doctor.yml")
        names_the_break(outcome, f"The pod {namespace}/bare has no sidecar", "label the namespace for injection")


def test_a_sidecar_that_refuses_its_configuration(play: Play, applied: Broken, module: Module, namespace: str) -> None:
    nonsense = {
        "@type": "type.googleapis.com/udpa.type.v1.TypedStruct",
        "type_url": "type.googleapis.com/trafficshift.no.such.Filter",
    }
    patch = {"operation": "INSERT_FIRST", "value": {"name": "no-such-filter", "typed_config": nonsense}}
    spec = {
        "workloadSelector": {"labels": {"app": "tcp-echo", "version": "v2"}},
        "configPatches": [{"applyTo": "LISTENER_FILTER", "match": {"context": "SIDECAR_INBOUND"}, "patch": patch}],
    }
    with applied("networking.istio.io/v1alpha3", "EnvoyFilter", "nonsense", namespace, spec):
        arrives(module, hops=["sync"], namespace=namespace, service="tcp-echo")
        names_the_break(
            play("doctor.yml"), f"The proxy of the pod {namespace}/tcp-echo-v2-", "refused its latest", "envoyfilters"
        )


@pytest.mark.parametrize(
    ("mode", "takes", "words"),
    [
        (
            "DISABLE",
            "STRICT",
            ("sends plain TCP", "takes mutual TLS only", "to ISTIO_MUTUAL, or take that setting out"),
        ),
        ("SIMPLE", "STRICT", ("sends one-way TLS", "takes mutual TLS only", "to ISTIO_MUTUAL")),
        ("ISTIO_MUTUAL", "DISABLE", ("sends Istio's mutual TLS", "takes no mutual TLS", "to PERMISSIVE")),
    ],
)
def test_mtls_that_does_not_fit(
    play: Play, applied: Broken, patched: Broken, namespace: str, mode: str, takes: str, words: tuple[str, ...]
) -> None:
    peer = applied("security.istio.io/v1", "PeerAuthentication", "default", namespace, {"mtls": {"mode": takes}})
    rule = patched("destinationrule", "tcp-echo-destination", namespace, trafficPolicy={"tls": {"mode": mode}})
    with peer, rule:
        names_the_break(
            play("doctor.yml"),
            f"DestinationRule {namespace}/tcp-echo-destination: {mode}",
            f"PeerAuthentication {namespace}/default",
            *words,
        )


@pytest.mark.parametrize("entry", [{"name": "http"}, {"name": "tcp", "appProtocol": "http"}])
def test_a_port_that_is_declared_as_http(
    play: Play, patched: Broken, kubectl: Kubectl, namespace: str, entry: dict[str, str]
) -> None:
    (port,) = json.loads(kubectl("get", "service", "tcp-echo", "-n", namespace, "-o", "json"))["spec"]["ports"]
    del port["appProtocol"]
    with patched("service", "tcp-echo", namespace, ports=[{**port, **entry}]):
        said = " ".join(list(entry.items())[-1])
        names_the_break(play("doctor.yml"), f"The port 9000 of the Service {namespace}/tcp-echo has {said}", "to tcp")


@pytest.mark.parametrize("elsewhere", [False, True])
def test_another_virtual_service_on_the_port(
    play: Play, applied: Broken, kubectl: Kubectl, namespace: str, elsewhere: bool
) -> None:
    home = "doctor-rival" if elsewhere else namespace
    destination = {"host": f"tcp-echo.{namespace}.svc.cluster.local", "port": {"number": 9000}}
    spec = {
        "hosts": ["*"],
        "gateways": [f"{namespace}/tcp-echo-gateway"],
        "tcp": [{"match": [{"port": PORT}], "route": [{"destination": destination}]}],
    }
    if elsewhere:
        kubectl("create", "namespace", home)
    try:
        with applied(NETWORKING, "VirtualService", "rival", home, spec):
            outcome = play("doctor.yml")
            names_the_break(outcome, f"The VirtualService {home}/rival already routes port {PORT}", "delete it")
    finally:
        if elsewhere:
            kubectl("delete", "namespace", home, "--wait=false")
