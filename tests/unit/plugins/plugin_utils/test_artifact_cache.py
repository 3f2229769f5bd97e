# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ansible_collections.trafficshift.istio.plugins.plugin_utils._artifact_cache import (
    MANIFEST,
    ArtifactCache,
    BuildError,
    artifact_key,
)

COUNTING = ["sh", "-c", 'echo run >> "$RUNS"; mkdir "$OUT/bin"; echo program > "$OUT/bin/tool"']


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return tmp_path / "runs"


@pytest.fixture
def cache(tmp_path: Path) -> ArtifactCache:
    return ArtifactCache(str(tmp_path / "cache"))


def build(cache: ArtifactCache, runs: Path, argv: list[str] | None = None) -> tuple[bool, list[str]]:
    said: list[str] = []
    built = cache.ensure("tool", "k", argv or COUNTING, {"RUNS": str(runs)}, said.append)
    return built, said


def count(runs: Path) -> int:
    return len(runs.read_text().splitlines())


def test_built_once_and_used_again(cache: ArtifactCache, runs: Path) -> None:
    assert build(cache, runs) == (True, [])
    assert build(cache, runs) == (False, [])
    assert count(runs) == 1
    assert (cache.path("tool", "k") / "bin/tool").read_text() == "program\n"


@pytest.mark.parametrize(
    "damage",
    [
        lambda top: (top / "bin/tool").write_text("program!"),
        lambda top: (top / "bin/tool").write_text("Program\n"),  # the same size
        lambda top: (top / "bin/tool").unlink(),
        lambda top: (top / "more").write_text("not ours"),
        lambda top: (top / MANIFEST).unlink(),
        lambda top: (top / MANIFEST).write_text('{"files": '),
        lambda top: (top / MANIFEST).write_text("[]"),
    ],
)
def test_a_damaged_artifact_is_built_anew(cache: ArtifactCache, runs: Path, damage) -> None:  # type: ignore[no-untyped-def]
    build(cache, runs)
    damage(cache.path("tool", "k"))
    assert not cache.intact("tool", "k")
    built, said = build(cache, runs)
    assert built
    assert "damaged" in said[0]
    assert cache.intact("tool", "k")
    assert count(runs) == 2


def test_a_failed_build_leaves_nothing_and_names_its_log(cache: ArtifactCache, runs: Path) -> None:
    with pytest.raises(
        BuildError, match=r"Building tool failed with exit code 3: no luck \(the whole log is in .*tool-k.log\)"
    ):
        build(cache, runs, ["sh", "-c", 'echo half > "$OUT/half"; echo fine; echo no luck >&2; exit 3'])
    assert not cache.path("tool", "k").exists()
    assert list((cache.root / "artifacts").iterdir()) == []
    assert cache.log("tool", "k").read_text() == "fine\nno luck\n"


def test_a_builder_that_is_not_there_is_one_sentence(cache: ArtifactCache, runs: Path) -> None:
    with pytest.raises(BuildError, match="Building tool could not start: no-such-builder: No such file"):
        build(cache, runs, ["no-such-builder"])


def test_what_a_killed_run_left_is_not_taken_for_finished(cache: ArtifactCache, runs: Path) -> None:
    script = (
        "import sys; from ansible_collections.trafficshift.istio.plugins.plugin_utils._artifact_cache import *\n"
        "ArtifactCache(sys.argv[1]).ensure('tool', 'k', ['sh', '-c', 'echo half > $OUT/bin; sleep 60'], {}, print)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(cache.root)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        start_new_session=True,
    )
    partial = cache.root / "artifacts" / "tool-k.partial" / "bin"
    deadline = time.monotonic() + 20
    while not partial.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not cache.intact("tool", "k")
    assert build(cache, runs)[0]
    assert cache.intact("tool", "k")


def test_two_runs_at_once_build_once(cache: ArtifactCache, runs: Path) -> None:
    script = (
        "import sys; from ansible_collections.trafficshift.istio.plugins.plugin_utils._artifact_cache import *\n"
        "print(ArtifactCache(sys.argv[1]).ensure('tool', 'k',"
        " ['sh', '-c', 'sleep 0.5; echo run >> $RUNS'], {'RUNS': sys.argv[2]}, lambda line: None))"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    argv = [sys.executable, "-c", script, str(cache.root), str(runs)]
    both = [subprocess.Popen(argv, env=env, stdout=subprocess.PIPE, text=True) for run in range(2)]
    assert sorted(process.communicate(timeout=30)[0].strip() for process in both) == ["False", "True"]
    assert count(runs) == 1


def test_the_key_follows_everything_that_goes_in(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "sub").mkdir(parents=True)
    (source / "sub" / "file").write_text("one")
    keys = {artifact_key({"version": "1"}, [str(source)])}
    assert artifact_key({"version": "1"}, [str(source)]) in keys

    def differs(inputs: dict[str, str]) -> None:
        key = artifact_key(inputs, [str(source)])
        assert key not in keys
        keys.add(key)

    differs({"version": "2"})
    (source / "sub" / "file").write_text("two")
    differs({"version": "1"})
    (source / "sub" / "file").chmod(0o755)
    differs({"version": "1"})
    (source / "sub" / "file").rename(source / "sub" / "other")
    differs({"version": "1"})


def test_the_key_does_not_depend_on_where_the_sources_lie(tmp_path: Path) -> None:
    for clone in ("a", "b"):
        (tmp_path / clone / "files").mkdir(parents=True)
        (tmp_path / clone / "files" / "script").write_text("same")
    first, second = (artifact_key({}, [str(tmp_path / clone / "files")]) for clone in ("a", "b"))
    assert first == second


def test_a_source_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"The source .*nowhere does not exist\."):
        artifact_key({}, [str(tmp_path / "nowhere")])
