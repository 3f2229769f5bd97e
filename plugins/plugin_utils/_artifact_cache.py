# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A cache of built directories: keyed by what went into them, verified before they are used again."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

MANIFEST = "MANIFEST.json"
CHUNK = 1 << 20
SHOWN = 200  # characters of a builder's line that are shown


class BuildError(Exception):
    """The builder failed; the message says with what, and where its log is."""


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(CHUNK):
            digest.update(block)
    return digest.hexdigest()


def _files(top: Path) -> list[Path]:
    if top.is_file():
        return [top]
    if not top.is_dir():
        raise BuildError(f"The source {top} does not exist.")
    return sorted(path for path in top.rglob("*") if path.is_file() and path.suffix != ".pyc")


def artifact_key(inputs: Mapping[str, Any], sources: Sequence[str]) -> str:
    """The first 16 hexadecimal digits of a SHA-256 over ``inputs`` and the names, modes and contents of ``sources``.

    Raises:
        BuildError: a source does not exist.
    """
    digest = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode())
    for source in map(Path, sources):
        for path in _files(source):
            name = path.relative_to(source.parent)
            digest.update(f"\0{name}\0{path.stat().st_mode & 0o111}\0{_sha256(path)}".encode())
    return digest.hexdigest()[:16]


class ArtifactCache:
    """Directories below ``root``, each complete or absent.

    A directory is built under another name, its files' checksums written and flushed, and only then renamed. A lock per
    artifact lets several runs share the cache: the second waits for the first and takes what it built.
    """

    def __init__(self, root: str) -> None:
        self.root = Path(root).expanduser().absolute()

    def path(self, name: str, key: str) -> Path:
        return self.root / "artifacts" / f"{name}-{key}"

    def log(self, name: str, key: str) -> Path:
        return self.root / "logs" / f"{name}-{key}.log"

    def intact(self, name: str, key: str) -> bool:
        """Whether the artifact is there, with exactly the files and checksums that were written."""
        top = self.path(name, key)
        try:
            expected = json.loads((top / MANIFEST).read_text())["files"]
            found = {str(p.relative_to(top)) for p in _files(top)} - {MANIFEST}
            return found == set(expected) and all(
                (top / f).stat().st_size == e["size"] and _sha256(top / f) == e["sha256"] for f, e in expected.items()
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return False

    def ensure(
        self, name: str, key: str, argv: Sequence[str], env: Mapping[str, str], progress: Callable[[str], None]
    ) -> bool:
        """Have the artifact, building it with ``argv`` where it is absent or damaged; return whether it was built.

        ``argv`` finds the directory to fill in the environment variable ``OUT``. ``progress`` is given a line now and
        then: what the builder said last and for how long it has been at work.

        Raises:
            BuildError: the builder could not be started or failed. Nothing is left under the artifact's name.
        """
        target = self.path(name, key)
        with self._lock(name, key, progress):
            if self.intact(name, key):
                return False
            if target.exists():
                progress("what is in the cache is damaged; building it anew")
                shutil.rmtree(target)
            partial = target.with_name(target.name + ".partial")
            shutil.rmtree(partial, ignore_errors=True)  # what an interrupted run left
            partial.mkdir(parents=True)
            try:
                self._run(name, key, argv, {**os.environ, **env, "OUT": str(partial)}, progress)
                self._publish(partial, target)
            except BaseException:
                shutil.rmtree(partial, ignore_errors=True)
                raise
        return True

    @contextmanager
    def _lock(self, name: str, key: str, progress: Callable[[str], None]) -> Iterator[None]:
        path = self.root / "locks" / f"{name}-{key}"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                progress("another run is building this; waiting for it")
                fcntl.flock(handle, fcntl.LOCK_EX)
            yield

    def _run(
        self, name: str, key: str, argv: Sequence[str], env: Mapping[str, str], progress: Callable[[str], None]
    ) -> None:
        log = self.log(name, key)
        log.parent.mkdir(parents=True, exist_ok=True)
        last: deque[str] = deque(maxlen=1)
        started = shown = time.monotonic()
        try:
            # In this process group, so that an interrupt at the terminal reaches the builder as well.
            process = subprocess.Popen(
                argv, env=dict(env), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
            )
            output: Any = process.stdout
        except OSError as error:
            raise BuildError(f"Building {name} could not start: {argv[0]}: {error.strerror}.") from error

        def read() -> None:
            with log.open("wb") as sink:
                for line in output:
                    sink.write(line)
                    sink.flush()
                    if text := line.decode(errors="replace").strip():
                        last.append(text[:SHOWN])

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        try:
            while process.poll() is None:
                time.sleep(0.2)
                now = time.monotonic()
                if now - shown >= 10:
                    shown = now
                    progress(f"{int(now - started)} s: {last[0] if last else 'at work'}")
        finally:
            if process.poll() is None:
                process.terminate()
        reader.join()
        if process.returncode:
            said = f": {last[0]}" if last else ""
            raise BuildError(
                f"Building {name} failed with exit code {process.returncode}{said} (the whole log is in {log})."
            )

    @staticmethod
    def _publish(partial: Path, target: Path) -> None:
        files = {}
        for path in _files(partial):
            files[str(path.relative_to(partial))] = {"size": path.stat().st_size, "sha256": _sha256(path)}
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        with (partial / MANIFEST).open("w") as stream:
            json.dump({"files": files}, stream, indent=1, sort_keys=True)
            stream.flush()
            os.fsync(stream.fileno())
        partial.rename(target)
