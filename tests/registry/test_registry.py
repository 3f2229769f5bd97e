# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The role kind_lab where a registry answers, from an empty cache to a removed lab. The tests follow on each other."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from surroundings import (
    BUILD,
    CACHE,
    ISTIO_VERSION,
    NODE_VERSION,
    TCP_ECHO_VERSION,
    TOP,
    Lab,
    Registry,
    commands,
    free_port,
    run,
    system,
)

NODE = "registry-test-control-plane"


@pytest.fixture(scope="module")
def running(lab: Lab) -> Lab:
    """The lab, brought up."""
    played = lab.play("lab_up")
    assert played.code == 0, played.output[-3000:]
    return lab


def one_sentence(message: str) -> None:
    assert message.endswith(".") and "\n" not in message and "Traceback" not in message, message


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"kind_lab_istioctl_url": "DOWNLOADS/tampered.tar.gz"}, "SHA-256"),
        ({"kind_lab_istioctl_url": "DOWNLOADS/nothing.tar.gz"}, "nothing.tar.gz cannot be downloaded: HTTP Error 404"),
        ({"kind_lab_node_image": "HOST/kindest/node:v0"}, "/kindest/node:v0 cannot be pulled with podman"),
        ({"kind_lab_istio_version": "0.0.0"}, "/istio/pilot:0.0.0"),
    ],
    ids=["wrong checksum", "no istioctl", "no node image", "no Istio images"],
)
def test_what_cannot_be_had_is_one_sentence(
    lab: Lab, registry: Registry, downloads: str, changed: dict[str, str], said: str
) -> None:
    changed = {k: v.replace("DOWNLOADS", downloads).replace("HOST", registry.host) for k, v in changed.items()}
    played = lab.play("lab_up", **changed)
    assert played.failed == 1
    one_sentence(played.message)
    assert said in played.message
    assert not lab.directory.exists()
    if "kind_lab_istioctl_url" in changed:
        assert not list((CACHE / "artifacts").glob("istioctl-*"))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("other", "has no program istioctl in it"),
        ("text", "is no tar archive"),
        ("unpublished", "unpublished.tar.gz.sha256 cannot be downloaded: HTTP Error 404"),
    ],
)
def test_a_wrong_download_is_one_sentence(downloads: str, name: str, said: str, tmp_path: Path) -> None:
    url = f"{downloads}/{name}.tar.gz"
    process = subprocess.run(
        [sys.executable, BUILD / "fetch_istioctl.py", url],
        env={**os.environ, "OUT": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 1
    assert process.stderr.startswith(url) and process.stderr.count("\n") == 1 and said in process.stderr
    assert not list(tmp_path.iterdir())


def test_auto_takes_the_registry_that_answers(running: Lab, registry: Registry, images: Path) -> None:
    record = running.record
    assert record["images"] == "registry"
    # Small requests as in every lab, and none of the settings that upstream Envoy needs: a registry has Istio's proxy.
    small = yaml.safe_load((TOP / "roles/kind_lab/vars/main.yml").read_text())["__kind_lab_small_values"]
    assert record["istio"] == {"hub": f"{registry.host}/istio", "tag": ISTIO_VERSION, "values": small}
    assert "telemetry" not in small and "env" not in small["pilot"]
    assert record["tcp_echo_image"] == f"{registry.host}/istio/tcp-echo-server:{TCP_ECHO_VERSION}"
    assert not [path.name for path in (CACHE / "artifacts").iterdir() if path.name.startswith(("images-", "roots-"))]


def test_the_node_is_ready_and_kubectl_is_its_own(running: Lab) -> None:
    assert running.record["kubectl"] == str(running.directory / "kubectl")
    (node,) = json.loads(running.kubectl("get", "nodes", "--output=json"))["items"]
    assert node["status"]["nodeInfo"]["kubeletVersion"] == NODE_VERSION
    assert {c["type"]: c["status"] for c in node["status"]["conditions"]}["Ready"] == "True"
    ports = json.loads(node["metadata"]["annotations"]["trafficshift.istio/host-ports"])
    assert ports == {"31400": f"127.0.0.1:{running.settings['kind_lab_port']}"}
    assert running.kubectl("get", "configmap", "default-cni", "--namespace=kube-system", "--output=name")


def test_the_images_are_in_the_node(running: Lab, registry: Registry) -> None:
    names = running.podman("exec", NODE, "ctr", "--namespace=k8s.io", "images", "ls", "--quiet").split()
    wanted = {f"pilot:{ISTIO_VERSION}", f"proxyv2:{ISTIO_VERSION}", f"tcp-echo-server:{TCP_ECHO_VERSION}"}
    assert {f"{registry.host}/istio/{name}" for name in wanted} <= set(names)


def test_istioctl_is_the_downloaded_one(running: Lab, images: Path) -> None:
    istioctl = Path(running.record["istioctl"])
    assert istioctl.parent.name.startswith("istioctl-") and istioctl.is_relative_to(CACHE)
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in (istioctl, images / "bin/istioctl")]
    assert digests[0] == digests[1]
    assert "client version" in run([str(istioctl), "version", "--remote=false"])


def test_a_second_run_changes_nothing(running: Lab) -> None:
    played = running.play("lab_up")
    assert (played.code, played.changed) == (0, 0)


@pytest.mark.parametrize(
    "changed",
    [{"kind_lab_port": free_port()}, {"kind_lab_istio_version": "0.0.0"}],
    ids=", ".join,
)
def test_other_settings_are_refused(running: Lab, changed: dict[str, Any]) -> None:
    played = running.play("lab_up", **changed)
    assert (played.failed, played.changed) == (1, 0)
    one_sentence(played.message)
    assert "runs with other settings" in played.message


def test_auto_takes_source_when_no_registry_answers(running: Lab, registry: Registry) -> None:
    registry.stop()
    # Only looked at: what it would build takes minutes.
    played = running.play("lab_up", "--check", kind_lab_name="registry-test-2", kind_lab_port=free_port())
    assert "Images are built from source, because no registry answered." in played.output
    assert played.code == 0
    assert not (CACHE / "labs/registry-test-2").exists()


def test_lab_down_leaves_nothing(running: Lab, before: dict[str, tuple[int, int]]) -> None:
    assert running.podman("ps", "--quiet", "--filter", f"name={NODE}")
    server = running.kubectl("config", "view", "--output=jsonpath={.clusters[0].cluster.server}")
    played = running.play("lab_down")
    assert played.code == 0 and played.changed > 0
    assert not running.directory.exists()
    assert running.podman("ps", "--all", "--quiet") == ""
    assert running.podman("volume", "ls", "--quiet") == ""
    assert running.play("lab_down").changed == 0
    assert not [command for command in commands() if str(CACHE) in command]
    assert system() == before
    # Not watched as a whole, because any kubectl of this user writes there.
    assert not (Path.home() / ".kube/cache/discovery" / server.partition("//")[2].replace(":", "_")).exists()
