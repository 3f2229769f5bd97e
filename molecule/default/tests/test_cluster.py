# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the cluster looks like after the whole task and the scaling step, seen with kubectl and plain sockets."""

from __future__ import annotations

import json
import os
import socket
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

NAMESPACE = "molecule-echo"
REPORTS = Path(os.environ["TRAFFICSHIFT_REPORTS"])


@pytest.fixture
def get(host):  # type: ignore[no-untyped-def]
    """Call ``kubectl get`` and return what it prints, parsed."""
    variables = host.ansible.get_variables()
    # Templates in inventory variables are resolved by Ansible itself.
    kubectl, kubeconfig = (
        host.ansible("debug", f"msg={{{{ {name} }}}}")["msg"] for name in ("kubectl", "k8s_kubeconfig")
    )
    assert variables["mesh_namespace_name"] == NAMESPACE

    def call(*arguments: str) -> Any:
        output = host.check_output(f"{kubectl} --kubeconfig {kubeconfig} get -o json {' '.join(arguments)}")
        return json.loads(output)

    return call


def report(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((REPORTS / f"{name}.json").read_text())
    return loaded


def test_namespace_is_labelled_for_injection(get) -> None:  # type: ignore[no-untyped-def]
    assert get("namespace", NAMESPACE)["metadata"]["labels"]["istio-injection"] == "enabled"


@pytest.mark.parametrize(("version", "replicas"), [("v1", 2), ("v2", 3)])
def test_every_pod_has_its_sidecar_ready(get, version: str, replicas: int) -> None:  # type: ignore[no-untyped-def]
    pods = [
        pod
        for pod in get("pods", "-n", NAMESPACE, "-l", f"version={version}")["items"]
        if "deletionTimestamp" not in pod["metadata"]
    ]
    assert len(pods) == replicas
    for pod in pods:
        statuses = pod["status"]["containerStatuses"] + pod["status"].get("initContainerStatuses", [])
        ready = {status["name"]: status["ready"] for status in statuses}
        assert ready["istio-proxy"]
        assert ready["tcp-echo"]


def test_virtual_service_has_the_weights_of_the_last_step(get) -> None:  # type: ignore[no-untyped-def]
    (route,) = get("virtualservice", "tcp-echo", "-n", NAMESPACE)["spec"]["tcp"]
    assert {entry["destination"]["subset"]: entry.get("weight", 0) for entry in route["route"]} == {"v1": 80, "v2": 20}
    assert route["match"] == [{"port": 31400}]


def test_destination_rule_has_both_subsets(get) -> None:  # type: ignore[no-untyped-def]
    (rule,) = get("destinationrule", "-n", NAMESPACE)["items"]
    assert {subset["name"]: subset["labels"] for subset in rule["spec"]["subsets"]} == {
        "v1": {"version": "v1"},
        "v2": {"version": "v2"},
    }


def test_all_connections_went_to_v1_first() -> None:
    first = report("tcp-echo-v1-100-v2-0")
    assert first["passed"]
    assert first["counts"].get("one") == first["probes"] > 0
    assert not first["errors"]


@pytest.mark.parametrize("name", ["tcp-echo-v1-80-v2-20", "scaled"])
def test_then_a_fifth_went_to_v2_and_scaling_left_it_so(name: str) -> None:
    split = report(name)
    assert split["passed"]
    assert sum(split["counts"].values()) == split["probes"] > 0
    assert split["shares"]["two"] == pytest.approx(0.20, abs=split["tolerance"])
    assert not split["errors"]


def test_plain_sockets_see_the_same_split() -> None:
    """Without the collection's own probe; 400 draws at 0.2 leave 0.2 ± 0.13 less than once in 10**9 (6.5 sigma)."""
    ingress = report("scaled")["ingress"]
    words: Counter[str] = Counter()
    for attempt in range(400):
        with socket.create_connection((ingress["host"], ingress["port"]), timeout=5) as connection:
            connection.sendall(f"hello {attempt}\n".encode())
            words[connection.makefile().readline().split()[0]] += 1
    assert set(words) == {"one", "two"}
    assert words["two"] / 400 == pytest.approx(0.2, abs=0.13)
