# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ways to use the roles that the whole task does not go: manual injection, and taking things away again."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

Play = Callable[..., "tuple[int, str]"]


def changed(outcome: tuple[int, str]) -> int:
    code, output = outcome
    assert code == 0, output
    (count,) = re.findall(r"changed=(\d+)", output)
    return int(count)


def test_manual_injection_and_away_again(play: Play, kubectl: Callable[..., str], facts: dict[str, str]) -> None:
    versions = {
        version: {"image": facts["tcp_echo_image"], "reply": word, "replicas": 1}
        for version, word in (("v1", "one"), ("v2", "two"))
    }
    manual = {"tcp_echo_namespace": "molecule-manual", "tcp_echo_injection": "manual", "tcp_echo_versions": versions}
    kubectl("create", "namespace", "molecule-manual")
    try:
        assert changed(play("tcp_echo", **manual)) > 0
        assert changed(play("tcp_echo", **manual)) == 0
        pods = json.loads(kubectl("get", "pods", "-n", "molecule-manual", "-o", "json"))["items"]
        assert len(pods) == 2
        for pod in pods:
            containers = pod["spec"]["containers"] + pod["spec"].get("initContainers", [])
            assert "istio-proxy" in {container["name"] for container in containers}
        assert changed(play("tcp_echo", **manual, tcp_echo_state="absent")) > 0
        assert changed(play("tcp_echo", **manual, tcp_echo_state="absent")) == 0
        assert json.loads(kubectl("get", "deployments,services", "-n", "molecule-manual", "-o", "json"))["items"] == []
    finally:
        kubectl("delete", "namespace", "molecule-manual", "--wait=false")


def test_the_live_step_is_known_whatever_the_order(play: Play, facts: dict[str, str]) -> None:
    """Nothing changes: above all, traffic does not go back to the first step."""
    image = facts["tcp_echo_image"]
    versions = {
        "v1": {"image": image, "reply": "one", "replicas": 2},
        "v2": {"image": image, "reply": "two", "replicas": 3},
    }
    steps = [{"v2": 0, "v1": 100}, {"v2": 20, "v1": 80}]
    assert changed(play("site.yml", site_steps=steps, tcp_echo_versions=versions)) == 0


def test_numbers_may_come_as_text(play: Play) -> None:
    """As ``-e tcp_verify_ready_timeout=30`` gives them."""
    assert (
        changed(
            play(
                "tcp_verify",
                tcp_verify_expect={"one": 80, "two": 20},
                tcp_verify_ready_timeout="30",
                tcp_verify_port="0",
                tcp_verify_gateway_port="31400",
                tcp_verify_probes="2500",
            )
        )
        == 0
    )


def test_istio_that_is_there_is_only_looked_at(play: Play) -> None:
    assert changed(play("istio", istio_method="existing")) == 0


def test_a_namespace_made_here_goes_and_another_stays(play: Play, kubectl: Callable[..., str]) -> None:
    made, found = {"mesh_namespace_name": "molecule-made"}, {"mesh_namespace_name": "molecule-found"}
    kubectl("create", "namespace", "molecule-found")
    try:
        for namespace in (made, found):
            assert changed(play("mesh_namespace", **namespace)) > 0
            assert changed(play("mesh_namespace", **namespace)) == 0
            assert changed(play("mesh_namespace", **namespace, mesh_namespace_state="absent")) > 0
        left = json.loads(kubectl("get", "namespaces", "-o", "json"))["items"]
        labels = {
            item["metadata"]["name"]: item["metadata"]["labels"] for item in left if item["status"]["phase"] == "Active"
        }
        assert "molecule-made" not in labels
        assert "istio-injection" not in labels["molecule-found"]
    finally:
        kubectl("delete", "namespace", "molecule-found", "--wait=false")


def test_a_revision_takes_the_place_of_the_label(play: Play, kubectl: Callable[..., str]) -> None:
    namespace = {"mesh_namespace_name": "molecule-revision"}
    try:
        assert changed(play("mesh_namespace", **namespace)) > 0
        assert changed(play("mesh_namespace", **namespace, mesh_namespace_revision="default")) > 0
        labels = json.loads(kubectl("get", "namespace", "molecule-revision", "-o", "json"))["metadata"]["labels"]
        assert labels["istio.io/rev"] == "default"
        assert "istio-injection" not in labels
    finally:
        kubectl("delete", "namespace", "molecule-revision", "--wait=false")
