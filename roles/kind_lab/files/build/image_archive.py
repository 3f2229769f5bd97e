# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes container images into one archive that docker, podman, nerdctl and ctr load.

The format is Docker's combined image archive: a ``manifest.json`` that names, for each image, a config and its layers
(https://github.com/moby/docker-image-spec/blob/main/spec.md, "Combined Image JSON + Filesystem Changeset Format").
No container engine is needed to write it, and a layer used by several images is stored once.

Usage: image_archive.py OUT.tar SPEC.json, where SPEC is a list of
{"name": "repo:tag", "layers": [LAYER, ...], "config": {"Entrypoint": [...], "User": "1337", ...}} and a LAYER is the
path of a tar file or a list of [source path, path in the image, octal mode] for a layer made of single files.
"""

from __future__ import annotations

import hashlib
import io
import json
import platform
import sys
import tarfile
from pathlib import Path

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
CHUNK = 1 << 20


def add_bytes(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    archive.addfile(info, io.BytesIO(data))


def files_layer(entries: list[list[str]], target: Path) -> Path:
    """Write a layer of single files, owned by root and without times, so that the same files give the same layer."""
    with tarfile.open(target, "w", format=tarfile.PAX_FORMAT) as layer:
        directories: set[str] = set()
        for source, destination, mode in entries:
            relative = destination.lstrip("/")
            for parent in [str(p) for p in reversed(Path(relative).parents) if str(p) != "."]:
                if parent not in directories:
                    directories.add(parent)
                    info = tarfile.TarInfo(parent)
                    info.type, info.mode = tarfile.DIRTYPE, 0o755
                    layer.addfile(info)
            info = tarfile.TarInfo(relative)
            info.mode, info.size = int(mode, 8), Path(source).stat().st_size
            with Path(source).open("rb") as stream:
                layer.addfile(info, stream)
    return target


def sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(CHUNK):
            digest.update(block)
    return digest.hexdigest()


def main(out: str, spec_file: str) -> None:
    spec = json.loads(Path(spec_file).read_text())
    scratch = Path(out).with_suffix(".layer")
    stored: dict[str, str] = {}  # the layer as named in the spec -> its sha256
    manifest = []
    with tarfile.open(out, "w", format=tarfile.PAX_FORMAT) as archive:
        for image in spec:
            diff_ids = []
            for layer in image["layers"]:
                key = json.dumps(layer)
                if key not in stored:
                    path = Path(layer) if isinstance(layer, str) else files_layer(layer, scratch)
                    stored[key] = sha256(path)
                    archive.add(path, arcname=f"{stored[key]}.tar", recursive=False)
                diff_ids.append(stored[key])
            config = json.dumps(
                {
                    "architecture": ARCHITECTURES[platform.machine()],
                    "os": "linux",
                    "created": "1970-01-01T00:00:00Z",
                    "config": image.get("config", {}),
                    "rootfs": {"type": "layers", "diff_ids": [f"sha256:{d}" for d in diff_ids]},
                },
                sort_keys=True,
            ).encode()
            config_name = f"{hashlib.sha256(config).hexdigest()}.json"
            add_bytes(archive, config_name, config)
            manifest.append(
                {"Config": config_name, "RepoTags": [image["name"]], "Layers": [f"{d}.tar" for d in diff_ids]}
            )
        add_bytes(archive, "manifest.json", json.dumps(manifest).encode())
    scratch.unlink(missing_ok=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
