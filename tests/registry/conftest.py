# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An image registry and a file server on loopback, and a lab with a cache of its own.

The registry is filled from what a lab built from source left in the cache, put together as their makers publish them.
"""

from __future__ import annotations

import functools
import gzip
import http.server
import importlib.util
import io
import shutil
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from surroundings import (
    BUILD,
    CACHE,
    ISTIO_VERSION,
    NODE_VERSION,
    SOURCE_CACHE,
    TCP_ECHO_VERSION,
    Lab,
    Registry,
    remove_cache,
    sha256,
    system,
)


@pytest.fixture(scope="session")
def images() -> Path:
    """What a lab built from source left in the cache, as roles/kind_lab/files/build/images.sh writes it."""
    found = sorted((SOURCE_CACHE / "artifacts").glob("images-*/MANIFEST.json"), key=lambda path: path.stat().st_mtime)
    if not found:
        pytest.fail(f"There are no images in {SOURCE_CACHE} to fill a registry with; run 'make kind' first.", False)
    return found[-1].parent


@pytest.fixture(scope="session")
def registry_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """docker-registry; unpacked rather than installed, because installing it starts a service."""
    if installed := shutil.which("docker-registry"):
        return Path(installed)
    directory = tmp_path_factory.mktemp("docker-registry")
    directory.chmod(0o755)
    script = "apt-get -q download docker-registry || { apt-get -q update && apt-get -q download docker-registry; }"
    subprocess.run(["sh", "-ec", f"{script}\ndpkg-deb --extract docker-registry_*.deb ."], cwd=directory, check=True)
    return directory / "usr/bin/docker-registry"


@pytest.fixture(scope="session")
def registry(images: Path, registry_program: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A registry with the node image as kind has it, the control plane's images in it, and the mesh's images."""
    directory = tmp_path_factory.mktemp("registry")
    spec = importlib.util.spec_from_file_location("image_archive", BUILD / "image_archive.py")
    assert spec is not None and spec.loader is not None
    image_archive = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(image_archive)
    # kind creates this where its own network is not disabled; the node brings its own, so anything will do.
    network = directory / "default-cni.yaml"
    network.write_text("{apiVersion: v1, kind: ConfigMap, metadata: {name: default-cni, namespace: kube-system}}\n")
    layer = image_archive.files_layer(
        [
            [str(images / "system/images.tar"), "/kind/images/images.tar", "644"],
            [str(network), "/kind/manifests/default-cni.yaml", "644"],
        ],
        directory / "layer.tar",
    )
    server = Registry(registry_program, directory)
    try:
        server.wait()
        digests = server.push(images / "node.tar", {"node": f"kindest/node:{NODE_VERSION}"}, layer)
        layer.unlink()
        server.push(
            images / "mesh.tar",
            {
                "pilot": f"istio/pilot:{ISTIO_VERSION}",
                "proxyv2": f"istio/proxyv2:{ISTIO_VERSION}",
                "tcp-echo-server": f"istio/tcp-echo-server:{TCP_ECHO_VERSION}",
            },
        )
        server.node_image = f"{server.host}/kindest/node:{NODE_VERSION}@{digests['node']}"
        yield server
    finally:
        server.stop()
        shutil.rmtree(directory / "storage", ignore_errors=True)


def istioctl_archive(content: bytes, name: str = "istioctl") -> bytes:
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as tar:
        info = tarfile.TarInfo(name)
        info.size, info.mode = len(content), 0o755
        tar.addfile(info, io.BytesIO(content))
    return gzip.compress(plain.getvalue(), 1)


@pytest.fixture(scope="session")
def downloads(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a file server with archives of istioctl and checksums: a right one and several wrong ones."""
    directory = tmp_path_factory.mktemp("downloads")
    good = istioctl_archive((images / "bin/istioctl").read_bytes())
    other = istioctl_archive(b"", "other")
    for name, data, checksum in (
        ("istioctl.tar.gz", good, sha256(good)),
        ("tampered.tar.gz", istioctl_archive(b"other"), sha256(good)),
        ("other.tar.gz", other, sha256(other)),
        ("text.tar.gz", b"text", sha256(b"text")),
        ("unpublished.tar.gz", other, None),
    ):
        (directory / name).write_bytes(data)
        if checksum:
            (directory / f"{name}.sha256").write_text(f"{checksum}  {name}\n")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_arguments: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(directory)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="session")
def before() -> dict[str, tuple[int, int]]:
    return system()


@pytest.fixture(scope="session")
def lab(before: dict[str, tuple[int, int]], registry: Registry, downloads: str) -> Iterator[Lab]:
    """The lab's settings, with a cache that has kind in it but neither an image nor istioctl."""
    remove_cache()
    for name in ("go", "kind", "trial"):
        for artifact in (SOURCE_CACHE / "artifacts").glob(f"{name}-*/MANIFEST.json"):
            # Verified when it is used, and built anew where the copy of an old one does not fit.
            shutil.copytree(artifact.parent, CACHE / "artifacts" / artifact.parent.name)
    yield Lab(registry, downloads)
    remove_cache()
