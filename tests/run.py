#!/usr/bin/env python
# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs the tests in stages, the quick ones first, and closes with ``N passed, N failed``.

Usage: run.py [lint|unit|sanity|package|browser|envoy|kind|registry|faults]...; without a name, all but faults. A stage
that runs pytest counts the tests that pytest counted; any other counts as one.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent
LINK = TOP / ".venv/collections/ansible_collections/trafficshift/istio"
TOLD, WIDTH = 20, 500  # lines and their characters that are repeated of a stage that failed
MOLECULE = {"MOLECULE_GLOB": "molecule/*/molecule.yml", "ANSIBLE_FORCE_COLOR": "0", "NO_COLOR": "1"}

# part, name, command, environment
STAGES: list[tuple[str, str, list[str], dict[str, str]]] = [
    ("lint", "ruff", ["ruff", "check", "."], {}),
    ("lint", "ruff format", ["ruff", "format", "--check", "."], {}),
    ("lint", "mypy", ["tests/mypy.sh"], {}),
    ("lint", "yamllint", ["yamllint", "--strict", "."], {}),
    ("lint", "ansible-lint", ["ansible-lint", "--offline", "--strict", "--profile", "production"], {}),
    ("unit", "unit tests", ["python", "-m", "pytest", "tests/unit"], {}),
    ("sanity", "ansible-test sanity", ["tests/sanity.sh"], {}),
    ("package", "package", ["python", "-m", "pytest", "tests/package"], {}),
    ("browser", "report in a browser", ["python", "-m", "pytest", "tests/browser"], {}),
    ("envoy", "molecule envoy", ["molecule", "test", "-s", "envoy"], MOLECULE),
    ("kind", "molecule default", ["molecule", "test", "-s", "default"], MOLECULE),
    # Its registry is filled with what the stage before has built.
    ("registry", "kind_lab from a registry", ["python", "-m", "pytest", "tests/registry"], {}),
    ("faults", "molecule rollout", ["molecule", "test", "-s", "rollout"], MOLECULE),
]
LONG = ("faults",)  # parts that run only when they are named


def what_failed(lines: list[str]) -> list[str]:
    """Return the lines of a failed stage's output that say why, at most TOLD of them.

    They are Ansible's last task that failed its play (neither rescued nor ignored) and pytest's failed tests, or, of
    any other stage, the last lines.
    """
    task, told = "", False
    before: list[str] = []
    failure: list[str] = []
    found: list[str] = []
    for line in filter(None, map(str.rstrip, lines)):
        if line.startswith(("TASK [", "RUNNING HANDLER [", "PLAY [")):
            task, told = line.rstrip("* "), False
        elif line.startswith(("fatal: ", "failed: ")):
            before, failure, told = failure, [task, line], True
        elif line.startswith("...ignoring"):
            failure, told = before, False
        elif re.search(r" : ok=\d+ .* (unreachable|failed)=[1-9]", line):
            found = failure
        elif re.match(r"(FAILED|ERROR) \S", line):
            found = [*found, line]
        elif told and line.startswith(" "):
            failure.append(line)
        else:
            told = False
    if len(found) > TOLD:
        # What a task returns comes in the order of the alphabet.
        found = [*found[:2], *(line for line in found[2:] if re.match(r" *msg:|FAILED|ERROR", line))]
    return [line[:WIDTH] for line in (found or [line.rstrip() for line in lines])[-TOLD:]]


def run(name: str, argv: list[str], env: dict[str, str]) -> tuple[int, int, float, list[str]]:
    """Run a stage with its output shown; return tests passed, tests failed, seconds, and what_failed."""
    print(f"\n=== {name}: {' '.join(argv)}", flush=True)
    started = time.monotonic()
    process = subprocess.Popen(
        argv,
        cwd=TOP,
        env={**os.environ, **env},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    assert process.stdout is not None
    passed = failed = 0
    lines = []
    for line in process.stdout:
        print(line, end="", flush=True)
        lines.append(line)
        if re.match(r"=+ .*\b(passed|failed|error)", line):
            passed += sum(map(int, re.findall(r"(\d+) passed", line)))
            failed += sum(map(int, re.findall(r"(\d+) (?:failed|error)", line)))
    code = process.wait()
    if code and not failed:
        failed = 1
    elif not code and not passed:
        passed = 1
    return passed, failed, time.monotonic() - started, what_failed(lines) if failed else []


def main(parts: list[str]) -> int:
    unknown = set(parts) - {stage[0] for stage in STAGES}
    if unknown:
        known = ", ".join(dict.fromkeys(stage[0] for stage in STAGES))
        sys.exit(f"There is no part {', '.join(sorted(unknown))}; there are {known}.")
    chosen = [stage for stage in STAGES if (stage[0] in parts if parts else stage[0] not in LONG)]
    results = [(name, *run(name, argv, env)) for part, name, argv, env in chosen]
    print("\n=== summary")
    for name, passed, failed, seconds, _told in results:
        print(f"{name:22} {'FAILED' if failed else 'ok':8} {seconds:7.1f} s  {passed} passed, {failed} failed")
    for name, _passed, failed, _seconds, told in results:
        if failed:
            print(f"\n=== what failed in {name}", *told, sep="\n")
    total_failed = sum(result[2] for result in results)
    print(f"{sum(result[1] for result in results)} passed, {total_failed} failed")
    return 1 if total_failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
