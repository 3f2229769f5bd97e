# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tests of kind_lab's registry path have around them: an image registry, and a lab that takes from it."""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
import subprocess
import sys
import tarfile
import time
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import pytest

TOP = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
BUILD = TOP / "roles/kind_lab/files/build"
SOURCE_CACHE = Path(os.environ.get("TRAFFICSHIFT_CACHE") or "~/.cache/trafficshift-lab").expanduser()
# Of its own, so that nothing comes from where another lab put it; at a fixed place, so that the next run finds what an
# interrupted one left.
CACHE = TOP / ".cache/registry-test"
NODE_VERSION = "v1.34.4"
ISTIO_VERSION = "1.31.0"
TCP_ECHO_VERSION = "1.3"
# What a lab could touch of the system. Packages are not in it, nor is /run, which the role does use.
WATCHED = [
    *map(Path, ("/lib/modules", "/etc/cni", "/etc/containers", "/etc/docker", "/etc/hosts", "/etc/modules-load.d")),
    *map(Path, ("/etc/sysctl.d", "/var/cache/containers", "/var/lib/cni", "/var/lib/containers", "/var/lib/kubelet")),
    *(Path.home() / name for name in (".config/containers", ".docker", ".kube/config", ".local/share/containers")),
]

CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar"
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class Registry:
    """Debian's docker-registry with settings and storage below ``directory``."""

    def __init__(self, program: Path, directory: Path) -> None:
        self.host = f"127.0.0.1:{free_port()}"
        self.node_image = ""  # REPOSITORY:TAG@DIGEST
        self.log = directory / "log"
        settings = directory / "config.yml"
        settings.write_text(
            f"version: 0.1\nlog: {{level: warn}}\nstorage: {{filesystem: {{rootdirectory: {directory}/storage}}}}\n"
            f"http: {{addr: '{self.host}'}}\n"
        )
        with self.log.open("wb") as log:
            self.process = subprocess.Popen([program, "serve", settings], stdout=log, stderr=subprocess.STDOUT)

    def wait(self) -> None:
        deadline = time.monotonic() + 20
        while True:
            try:
                self._ask("GET", f"http://{self.host}/v2/")
                return
            except urllib.error.URLError as error:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    pytest.fail(f"docker-registry does not answer on {self.host} ({error}): {self.log.read_text()}")
                time.sleep(0.1)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(10)

    @staticmethod
    def _ask(method: str, url: str, body: bytes | IO[bytes] | None = None, size: int = 0, kind: str = "") -> Any:
        headers = {"Content-Type": kind or "application/octet-stream", "Content-Length": str(size)}
        with urllib.request.urlopen(urllib.request.Request(url, body, headers, method=method), timeout=120) as response:
            return response.headers

    def _blob(self, repository: str, digest: str, body: bytes | IO[bytes], size: int) -> dict[str, Any]:
        location = self._ask("POST", f"http://{self.host}/v2/{repository}/blobs/uploads/", b"")["Location"]
        self._ask("PUT", f"{location}&digest={digest}", body, size)
        return {"digest": digest, "size": size}

    def _manifest(self, repository: str, reference: str, content: dict[str, Any]) -> dict[str, Any]:
        """Publish a manifest under the tag ``reference``, or under its digest where that is empty."""
        data, kind = json.dumps({"schemaVersion": 2, **content}).encode(), content["mediaType"]
        digest = f"sha256:{sha256(data)}"
        self._ask("PUT", f"http://{self.host}/v2/{repository}/manifests/{reference or digest}", data, len(data), kind)
        return {"mediaType": kind, "digest": digest, "size": len(data)}

    def push(self, archive: Path, names: dict[str, str], layer: Path | None = None) -> dict[str, str]:
        """Publish images of a Docker image archive under other names, with ``layer`` on top of each.

        ``names`` maps the last part of a repository in the archive to REPOSITORY:TAG here. Each tag is an index with an
        entry for this machine's architecture, as kind and Istio publish theirs.

        Returns:
            The digest of each tag's index.
        """
        digests = {}
        with tarfile.open(archive) as tar:

            def member(name: str) -> IO[bytes]:
                stream = tar.extractfile(name)
                assert stream is not None
                return stream

            for image in json.load(member("manifest.json")):
                source = image["RepoTags"][0].rpartition(":")[0].rpartition("/")[2]
                repository, _colon, tag = names[source].partition(":")
                config = json.load(member(image["Config"]))
                layers = []
                for name, digest in zip(image["Layers"], config["rootfs"]["diff_ids"]):
                    layers.append(self._blob(repository, digest, member(name), tar.getmember(name).size))
                if layer:
                    with layer.open("rb") as stream:
                        digest = f"sha256:{hashlib.file_digest(stream, 'sha256').hexdigest()}"
                    config["rootfs"]["diff_ids"].append(digest)
                    with layer.open("rb") as stream:
                        layers.append(self._blob(repository, digest, stream, layer.stat().st_size))
                data = json.dumps(config).encode()
                manifest = {
                    "mediaType": MANIFEST_TYPE,
                    "config": {
                        "mediaType": CONFIG_TYPE,
                        **self._blob(repository, f"sha256:{sha256(data)}", data, len(data)),
                    },
                    "layers": [{"mediaType": LAYER_TYPE, **entry} for entry in layers],
                }
                platform = {"architecture": config["architecture"], "os": config["os"]}
                entry = {**self._manifest(repository, "", manifest), "platform": platform}
                index = self._manifest(repository, tag, {"mediaType": INDEX_TYPE, "manifests": [entry]})
                digests[source] = index["digest"]
        return digests


class Played:
    """What ansible-playbook said."""

    def __init__(self, process: subprocess.CompletedProcess[str]) -> None:
        self.code, self.output = process.returncode, process.stdout
        recap = re.search(r"changed=(\d+) .*failed=(\d+)", self.output)
        self.changed, self.failed = (int(recap[1]), int(recap[2])) if recap else (-1, -1)

    @property
    def message(self) -> str:
        """The message of the task that failed."""
        failures = re.findall(r"^fatal: \[kind\]: FAILED! => (\{.*\})$", self.output, re.MULTILINE)
        assert len(failures) == 1, self.output
        message: str = json.loads(failures[0])["msg"]
        return message


class Lab:
    """The playbooks, run with the test's own cache, registry and file server."""

    def __init__(self, registry: Registry, downloads: str) -> None:
        self.settings = {
            "kind_lab_name": "registry-test",
            # Below the ports that connections leave from, as one of them would have it by the time the lab is made.
            "kind_lab_port": int(os.environ.get("TRAFFICSHIFT_REGISTRY_PORT") or 31470),
            "kind_lab_images": "auto",
            # Only podman keeps its storage, which the test removes, in the cache.
            "kind_lab_provider": "podman",
            "kind_lab_node_image": registry.node_image,
            "kind_lab_istio_hub": f"{registry.host}/istio",
            "kind_lab_istio_version": ISTIO_VERSION,
            "kind_lab_tcp_echo_image": f"{registry.host}/istio/tcp-echo-server:{TCP_ECHO_VERSION}",
            "kind_lab_istioctl_url": f"{downloads}/istioctl.tar.gz",
        }

    @property
    def directory(self) -> Path:
        return CACHE / "labs" / str(self.settings["kind_lab_name"])

    @property
    def record(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((self.directory / "lab.json").read_text())
        return content

    def play(self, playbook: str, *options: str, **changed: Any) -> Played:
        return play(playbook, {**self.settings, **changed}, *options)

    def kubectl(self, *arguments: str) -> str:
        return run(
            [
                self.record["kubectl"],
                f"--kubeconfig={self.record['kubeconfig']}",
                f"--cache-dir={self.directory}/kubectl-cache",
                *arguments,
            ]
        )

    def podman(self, *arguments: str) -> str:
        return run([str(CACHE / "bin/podman"), *arguments])


def run(argv: list[str]) -> str:
    process = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert process.returncode == 0, f"{argv}: {process.stderr}"
    return process.stdout


def play(playbook: str, settings: dict[str, Any], *options: str) -> Played:
    argv = [
        str(BIN / "ansible-playbook"),
        "-i",
        "inventories/kind",
        f"playbooks/{playbook}.yml",
        "-e",
        json.dumps(settings),
    ]
    env = {
        **os.environ,
        "ANSIBLE_CALLBACK_RESULT_FORMAT": "json",
        "ANSIBLE_CONFIG": str(TOP / "ansible.cfg"),
        "ANSIBLE_NOCOLOR": "1",
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "TRAFFICSHIFT_CACHE": str(CACHE),
    }
    process = subprocess.run(
        [*argv, *options], cwd=TOP, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    print(process.stdout)
    return Played(process)


def commands() -> list[str]:
    """The command line of every process."""
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it has ended meanwhile
            lines.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    return lines


def remove_cache() -> None:
    """Remove the test's cache with what podman mounted in it, after the lab that an interrupted run may have left."""
    if (CACHE / "labs").is_dir():
        for directory in (CACHE / "labs").iterdir():
            play("lab_down", {"kind_lab_name": directory.name})
    run(["env", f"TRAFFICSHIFT_CACHE={CACHE}", str(TOP / "tests/forget_cache.sh")])


def system() -> dict[str, tuple[int, int]]:
    """Size and time of change of everything that is watched, by path; a directory's time tells what came and went."""
    state = {}
    for top in WATCHED:
        for path in (top, *top.rglob("*")):
            if path.exists():
                status = path.lstat()
                state[str(path)] = (status.st_size, status.st_mtime_ns)
    return state
