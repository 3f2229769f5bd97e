# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tells of a rollout: a table for people, JSON and JUnit XML for pipelines, and the reports on each measurement."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from ansible_collections.trafficshift.istio.plugins.module_utils._gateway import weights_text
from ansible_collections.trafficshift.istio.plugins.plugin_utils import _report

SCHEMA = 1


def table(result: Mapping[str, Any]) -> list[str]:
    """Return a line for each step and for the way back: wanted, seen, probes, and what came of it."""
    lines = [_line("step", "wanted", "seen", "probes", "outcome")]
    for step in result["steps"]:
        tripped = [gate["gate"] for gate in step.get("gates", []) if not gate["ok"]]
        if not tripped and not (step.get("convergence") or {}).get("converged"):
            tripped = ["not converged"]
        outcome = "proven" if step["passed"] else f"failed: {', '.join(tripped)}" if tripped else "broken off"
        lines.append(_row(f"{step['percent']} %", step["weights"], step.get("probe"), outcome))
    back = result["back"]
    if back:
        outcome = "proven" if back["proven"] else "NOT PROVEN"
        lines.append(_row("back", back["weights"], back.get("probe"), outcome))
    held = result["canary"]
    if held:
        lost = [session for session in held if session["fate"] != "alive"]
        lines.append(f"{len(held)} sessions were held through it, {len(lost)} of them lost")
    return lines


def write(directory: str, name: str, result: Mapping[str, Any], versions: Mapping[str, str]) -> list[str]:
    """Write NAME-rollout.json and .xml, and each measurement's reports as NAME-PERCENT and NAME-back; return the paths.

    Raises ReportError of _report.
    """
    files = []
    for label, step in _measured(result):
        verification = {**step["probe"], "convergence": step.get("convergence"), "name": f"{name}-{label}"}
        files += _report.write(directory, f"{name}-{label}", {**verification, "versions": versions})
    texts = {
        ".json": json.dumps({"schema": SCHEMA, "versions": versions, **_plain(result)}, indent=2) + "\n",
        ".xml": to_junit(name, result),
    }
    return files + _report.write_texts(directory, f"{name}-rollout", texts)


def to_junit(name: str, result: Mapping[str, Any]) -> str:
    """Return JUnit XML with a test case for each step and each of its gates, for the way back, and for the whole."""
    suite = Element("testsuite", name=f"{name} rollout")

    def case(title: str, problem: str, said: str, kind: str = "failure") -> None:
        made = SubElement(suite, "testcase", classname=f"trafficshift.{name.replace('.', '_')}", name=title)
        if problem:
            SubElement(made, kind, message=_xml(problem), type="fail").text = _xml(problem)
        else:
            SubElement(made, "system-out").text = _xml(said)

    for step in result["steps"]:
        seen = step.get("convergence") or {"converged": False, "reason": "it was not waited for"}
        title = f"{step['percent']} %"
        case(f"{title}: convergence", "" if seen["converged"] else seen["reason"], seen["reason"])
        for gate in step.get("gates", []):
            case(f"{title}: {gate['gate']}", "" if gate["ok"] else gate["msg"], gate["msg"])
    back = result["back"]
    if back:
        # That it was needed fails the whole; that it worked does not fail twice.
        case("way back", "" if back["proven"] else back.get("msg", "not proven"), back.get("msg", ""), "error")
    case("rollout", "" if result["passed"] else result["msg"], result["msg"])
    cases = suite.findall("testcase")
    totals = {
        "tests": str(len(cases)),
        "failures": str(len(suite.findall("testcase/failure"))),
        "errors": str(len(suite.findall("testcase/error"))),
    }
    suite.attrib.update(totals)
    root = Element("testsuites", {"name": "TCP traffic rollout", **totals})
    root.append(suite)
    indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{tostring(root, encoding="unicode")}\n'


def _measured(result: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    yield from ((str(step["percent"]), step) for step in result["steps"] if step.get("probe"))
    if (result["back"] or {}).get("probe"):
        yield "back", result["back"]


def _plain(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return the result without what the measurements' own reports have in full."""
    return {
        **result,
        "steps": [_brief(step) for step in result["steps"]],
        "back": result["back"] and _brief(result["back"]),
    }


def _brief(step: Mapping[str, Any]) -> dict[str, Any]:
    probe = step.get("probe")
    if not probe:
        return dict(step)
    return {**step, "probe": {key: value for key, value in probe.items() if key not in ("trajectory", "gateway")}}


def _row(label: str, weights: Mapping[str, int], probe: Mapping[str, Any] | None, outcome: str) -> str:
    shares = (probe or {}).get("shares") or {}
    seen = " / ".join(f"{word} {100 * share:.1f} %" for word, share in shares.items()) or "-"
    return _line(label, weights_text(weights), seen, str((probe or {}).get("probes", "-")), outcome)


def _line(step: str, wanted: str, seen: str, probes: str, outcome: str) -> str:
    return f"{step:6} {wanted:16} {seen:26} {probes:>6}  {outcome}"


def _xml(text: str) -> str:
    """Return text without what XML has no place for."""
    return "".join(char if char.isprintable() else " " for char in text)
