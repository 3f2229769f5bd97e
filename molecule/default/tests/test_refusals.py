# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Wrong input and wrong surroundings: one clear sentence, and nothing changed."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

NAMESPACE = "molecule-echo"
KINDS = "virtualservices,destinationrules,gateways.networking.istio.io,deployments,services"
OURS = "--selector=app.kubernetes.io/managed-by=trafficshift.istio"

Play = Callable[..., "tuple[int, str]"]


@pytest.fixture(autouse=True)
def unchanged(kubectl: Callable[..., str]) -> Iterator[None]:
    """What the roles declare is the same before and after each test."""

    def declared() -> dict[str, str]:
        items = json.loads(kubectl("get", "namespaces", "-o", "json"))["items"]
        for namespace in (NAMESPACE, "istio-system"):
            items += json.loads(kubectl("get", KINDS, "-n", namespace, "-o", "json"))["items"]
        # The role's own record only: istiod writes other ConfigMaps all the time.
        items += json.loads(kubectl("get", "configmaps", "-n", "istio-system", "-o", "json", OURS))["items"]
        # A Deployment's status changes its version at any time, and its generation only what is asked of it.
        return {
            f"{item['kind']}/{item['metadata'].get('namespace', '')}/{item['metadata']['name']}": str(
                (
                    item["metadata"].get("generation") or item["metadata"]["resourceVersion"],
                    item["metadata"].get("labels"),
                )
            )
            for item in items
            if item["metadata"]["name"] != "rival"
        }

    before = declared()
    assert f"VirtualService/{NAMESPACE}/tcp-echo" in before
    yield
    assert declared() == before


def refused(outcome: tuple[int, str], *words: str) -> None:
    code, message = outcome
    assert code != 0, message
    for word in words:
        assert word in message
    assert len(message) < 600
    assert "Traceback" not in message


def test_weights_that_do_not_sum_to_100(play: Play) -> None:
    refused(play("tcp_route", tcp_route_weights={"v1": 80, "v2": 10}), "90", "100")


def test_a_version_nobody_knows(play: Play) -> None:
    refused(play("tcp_route", tcp_route_weights={"v1": 80, "v3": 20}), "v3", "v1")


@pytest.mark.parametrize("role", ["istio", "mesh_namespace", "tcp_echo", "tcp_route", "tcp_verify"])
def test_no_cluster(play: Play, role: str, tmp_path: Path) -> None:
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(
        "{apiVersion: v1, kind: Config, current-context: gone, users: [{name: gone, user: {}}],"
        " clusters: [{name: gone, cluster: {server: 'https://127.0.0.1:1'}}],"
        " contexts: [{name: gone, context: {cluster: gone, user: gone}}]}"
    )
    refused(play(role, k8s_kubeconfig=str(kubeconfig)), "127.0.0.1:1")


def test_no_kubeconfig(play: Play, tmp_path: Path) -> None:
    refused(play("tcp_route", k8s_kubeconfig=str(tmp_path / "nowhere")), "kubeconfig")


def test_no_rights(play: Play, kubectl: Callable[..., str], facts: dict[str, str], tmp_path: Path) -> None:
    kubectl("create", "serviceaccount", "nobody", "-n", NAMESPACE)
    try:
        token = kubectl("create", "token", "nobody", "-n", NAMESPACE).strip()
        loaded = json.loads(kubectl("config", "view", "--raw", "--minify", "-o", "json"))
        loaded["users"][0]["user"] = {"token": token}
        kubeconfig = tmp_path / "kubeconfig"
        kubeconfig.write_text(json.dumps(loaded))
        outcome = play("tcp_route", k8s_kubeconfig=str(kubeconfig))
        refused(outcome, "virtualservices")
        assert token not in outcome[1]
    finally:
        kubectl("delete", "serviceaccount", "nobody", "-n", NAMESPACE)


def test_no_istio(play: Play) -> None:
    refused(play("istio", istio_method="existing", istio_namespace="nowhere"), "nowhere")


def test_a_revision_that_injects_nothing(play: Play) -> None:
    refused(play("mesh_namespace", mesh_namespace_revision="canary"), "canary")


def test_live_weights_that_are_none_of_the_steps(play: Play) -> None:
    steps = [{"v1": 100, "v2": 0}, {"v1": 50, "v2": 50}]
    refused(play("site.yml", site_steps=steps), "v1 80, v2 20", "none of the steps", "shift.yml")


def test_no_gateway_port(play: Play) -> None:
    refused(play("tcp_route", tcp_route_gateway_port=31999), "31999", "31400")
    refused(play("istio", istio_method="existing", istio_tcp_port=31999), "31999", "31400")


def test_a_gateway_selector_that_matches_no_pod(play: Play) -> None:
    refused(play("tcp_route", tcp_route_gateway_selector={"istio": "no-such-gateway"}), "no-such-gateway")


def test_another_virtual_service_on_the_port(play: Play, kubectl: Callable[..., str]) -> None:
    rival = {
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": {"name": "rival", "namespace": NAMESPACE},
        "spec": {
            "hosts": ["*"],
            "gateways": ["tcp-echo-gateway"],
            "tcp": [
                {"match": [{"port": 31400}], "route": [{"destination": {"host": "tcp-echo", "port": {"number": 9000}}}]}
            ],
        },
    }
    kubectl("apply", "-f", "-", stdin=json.dumps(rival))
    try:
        refused(play("tcp_route", tcp_route_weights={"v1": 50, "v2": 50}), "rival", "31400")
    finally:
        kubectl("delete", "virtualservice", "rival", "-n", NAMESPACE)


def test_a_pod_without_its_sidecar(play: Play, kubectl: Callable[..., str], facts: dict[str, str]) -> None:
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "bare",
            "namespace": NAMESPACE,
            "labels": {"app": "tcp-echo", "version": "v1", "sidecar.istio.io/inject": "false"},
        },
        "spec": {
            "containers": [{"name": "tcp-echo", "image": facts["tcp_echo_image"], "args": ["9000", "one"]}],
            "terminationGracePeriodSeconds": 0,
        },
    }
    kubectl("apply", "-f", "-", stdin=json.dumps(pod))
    try:
        kubectl("wait", "--for=condition=Ready", "pod/bare", "-n", NAMESPACE, "--timeout=60s")
        refused(play("tcp_route", tcp_route_weights={"v1": 50, "v2": 50}), "bare", "sidecar")
    finally:
        kubectl("delete", "pod", "bare", "-n", NAMESPACE, "--wait")


def test_a_split_that_is_not_the_declared_one(play: Play) -> None:
    declared = {"one": 50, "two": 50}
    outcome = play("tcp_verify", tcp_verify_name="wrong", tcp_verify_expect=declared, tcp_verify_wait_timeout=2)
    refused(outcome, "has v1 80 / v2 20 on port 31400, not v1 50 / v2 50")
    report = json.loads((Path(os.environ["TRAFFICSHIFT_REPORTS"]) / "wrong.json").read_text())
    assert (report["verdict"], report["passed"]) == ("not probed", False)


def test_an_expectation_that_cannot_be(play: Play) -> None:
    refused(play("tcp_verify", tcp_verify_expect={"one": 50, "two": 40}), "90", "100")


def test_a_port_that_nobody_answers_on(play: Play) -> None:
    nowhere = {"tcp_verify_host": "127.0.0.1", "tcp_verify_port": 1, "tcp_verify_ready_timeout": 2}
    outcome = play("tcp_verify", tcp_verify_expect={"one": 80, "two": 20}, **nowhere)
    refused(outcome, "127.0.0.1:1", "10 refused", "nothing answered")


@pytest.mark.parametrize(
    ("role", "different"),
    [
        ("istio", {"istio_values": {"pilot": {"autoscaleEnabled": False}}}),
        ("mesh_namespace", {"mesh_namespace_revision": "default"}),
        ("tcp_echo", {"tcp_echo_port": 9100}),
        ("tcp_route", {"tcp_route_weights": {"v1": 0, "v2": 100}}),
    ],
)
def test_check_mode_tells_and_changes_nothing(play: Play, role: str, different: dict[str, Any]) -> None:
    code, output = play(role, check=True, **different)
    assert code == 0, output
    assert not re.search(r"changed=0 ", output)
