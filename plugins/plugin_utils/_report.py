# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes the reports on a verification: JSON for programs, JUnit XML for build servers, an HTML page for people."""

from __future__ import annotations

import contextlib
import json
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from ansible_collections.trafficshift.istio.plugins.plugin_utils._report_data import (
    allowed,
    destinations,
    error_count,
    gateway_verdict,
    lagging,
    percent,
    probe_count,
    report_data,
    seen_by,
)
from ansible_collections.trafficshift.istio.plugins.plugin_utils._report_page import to_html

SUFFIXES = {"json": ".json", "junit": ".xml", "html": ".html"}
LONGEST_NAME = 200  # bytes; most file systems take 255, suffixes included


class ReportError(Exception):
    """A report could not be written; the message says which, and why."""


def paths(directory: str, name: str) -> dict[str, str]:
    """Return the paths of a verification's reports by kind: json, junit and html.

    Raises:
        ReportError: the name makes no file name.
    """
    if not name.isprintable() or not 0 < len(name.encode()) <= LONGEST_NAME or name[0] == "." or {*"/\\"} & {*name}:
        raise ReportError(
            f"name is {name[:LONGEST_NAME]!r}; give the reports' file name without suffix, with at most {LONGEST_NAME} "
            "bytes, without slashes and control characters, and not beginning with a dot"
        )
    return {kind: str(Path(directory) / f"{name}{suffix}") for kind, suffix in SUFFIXES.items()}


def write(directory: str, name: str, result: Mapping[str, Any]) -> list[str]:
    """Write all reports on a result of tcp_verify and return their paths; a reader sees a whole report or none.

    The directory is made if it is missing; a report that is there is replaced.

    Raises:
        ReportError: the name makes no file name, or a file cannot be written.
    """
    data = report_data({**result, "name": result.get("name") or name})
    texts = {SUFFIXES["json"]: to_json(data), SUFFIXES["junit"]: to_junit(data), SUFFIXES["html"]: to_html(data)}
    return write_texts(directory, name, texts)


def write_texts(directory: str, name: str, texts: Mapping[str, str]) -> list[str]:
    """Write files of one name, by suffix, each as a whole; return their paths. Raises ReportError."""
    paths(directory, name)
    files = {suffix: str(Path(directory) / f"{name}{suffix}") for suffix in texts}
    try:
        Path(directory).mkdir(parents=True, exist_ok=True)
        for suffix, path in files.items():
            _replace(Path(path), texts[suffix])
    except (OSError, ValueError) as error:
        raise ReportError(
            f"the reports cannot be written to {directory!r}: {getattr(error, 'strerror', None) or error}; give a "
            "directory that can be written to"
        ) from error
    return list(files.values())


def _replace(path: Path, text: str) -> None:
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, prefix=".report-", delete=False) as stream:
        made = Path(stream.name)
        try:
            stream.write(text)
            stream.flush()
            made.chmod(0o644)
            made.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                made.unlink()
            raise


def to_json(data: Mapping[str, Any]) -> str:
    """Return what report_data() returned as JSON text."""
    return json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


class _Case:
    """A test case of the JUnit report."""

    def __init__(self, suite: Element, name: str, seconds: float | None = None) -> None:
        # GitLab shows and compares cases by class and name, Jenkins takes what is before the last dot as the package.
        group = f"trafficshift.{(suite.get('name') or '').replace('.', '_')}"
        self._case = SubElement(suite, "testcase", classname=group, name=name, time=_time(seconds))

    def fails(self, kind: str, message: str, tag: str = "failure") -> None:
        """Let it fail, or with the tag error be in error; GitLab shows the text only, Jenkins the message too."""
        SubElement(self._case, tag, message=message, type=kind).text = message

    def is_skipped(self, message: str) -> None:
        SubElement(self._case, "skipped", message=message)

    def says(self, text: str) -> None:
        SubElement(self._case, "system-out").text = text

    def is_judged(self, verdict: str, message: str) -> None:
        """Let it pass, fail, or be in error, as a verdict says."""
        if verdict == "pass":
            self.says(message)
        elif verdict in ("fail", "inconclusive", "disagreement"):
            self.fails(verdict, message)
        else:
            self.fails(verdict or "no verdict", message, "error")


def to_junit(data: Mapping[str, Any]) -> str:
    """Return the report as JUnit XML in the form that Ant's and Jenkins' schemas have in common.

    What report_data() returned is free of characters that XML has no place for.
    """
    root = Element("testsuites")
    suite = SubElement(root, "testsuite", name=data.get("name") or "unnamed")
    _properties(suite, data)
    verdict, told = data.get("verdict") or "", data.get("msg") or "no reason given"
    _Case(suite, "verdict", data.get("duration")).is_judged(verdict, told)
    for row in destinations(data):
        case = _Case(suite, f"{row.word}: {allowed(row.percent, data.get('tolerance'))}")
        message = f"{row.word} was not probed"
        if row.share is not None and row.standing != "not probed":
            message = f"{row.word} had {percent(row.share)} of {probe_count(data)} probes"
            if row.interval:
                message += f" (interval {row.interval[0] * 100:.1f} to {row.interval[1] * 100:.1f} %)"
            message += f", expected was {allowed(row.percent, data.get('tolerance'))}"
        if row.standing == "inside":
            case.says(message)
        elif row.standing == "outside":
            case.fails("fail", message)
        elif row.standing == "open" and verdict == "inconclusive":
            case.fails("inconclusive", f"{message}: not settled")
        else:
            case.is_skipped(message if row.standing == "not probed" else f"{message}: not settled when the run ended")
    _errors(suite, data)
    _convergence(suite, data)
    _gateway(suite, data)
    cases = suite.findall("testcase")
    totals = {
        "tests": str(len(cases)),
        "failures": str(len(suite.findall("testcase/failure"))),
        "errors": str(len(suite.findall("testcase/error"))),
        "skipped": str(len(suite.findall("testcase/skipped"))),
        "time": _time(sum(float(case.get("time") or 0) for case in cases)),
    }
    suite.attrib.update(totals)
    root.attrib.update({"name": "TCP traffic split", **totals})
    root.attrib.pop("skipped")  # which the schemas have for a testsuite only
    # Without the zone, which the schemas have no place for.
    if moment := re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", data.get("started") or "", re.ASCII):
        suite.set("timestamp", moment[0])
    ElementTree.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ElementTree.tostring(root, encoding="unicode")}\n'


def _properties(suite: Element, data: Mapping[str, Any]) -> None:
    names = ("started", "ended", "method", "witness", "profile", "tolerance", "alpha", "beta", "probes", "max_probes")
    values = {name: data.get(name) for name in (*names, "address")}
    values.update({f"version.{name}": version for name, version in (data.get("versions") or {}).items()})
    known = {name: value for name, value in values.items() if value is not None}
    if known:
        properties = SubElement(suite, "properties")
        for name, value in known.items():
            SubElement(properties, "property", name=name, value=str(value))


def _errors(suite: Element, data: Mapping[str, Any]) -> None:
    case, probes, failed = _Case(suite, "errors"), probe_count(data), error_count(data)
    if not probes:
        case.is_skipped("nothing was probed")
        return
    details = data.get("error_details") or {}
    kinds = [f"{count} {kind}" for kind, count in (data.get("errors") or {}).items()]
    message = f"{failed} of {probes} probes got no valid answer, {data.get('max_errors') or 0} may"
    text = "\n".join([", ".join([message, *kinds]), *(f"{kind}: {detail}" for kind, detail in details.items())])
    if failed > (data.get("max_errors") or 0):
        case.fails("fail", text)
    else:
        case.says(text)


def _convergence(suite: Element, data: Mapping[str, Any]) -> None:
    convergence = data.get("convergence") or {}
    case, told = _Case(suite, "convergence", convergence.get("duration")), seen_by(convergence) or "Not checked."
    if lagging(data):
        case.fails("fail", told)
    elif convergence.get("state") in (None, "unchecked"):
        case.is_skipped(told)
    else:
        case.says(told)


def _gateway(suite: Element, data: Mapping[str, Any]) -> None:
    gateway = data.get("gateway")
    if gateway:
        case, (verdict, told) = _Case(suite, "gateway counters", gateway.get("duration")), gateway_verdict(gateway)
        if verdict:
            case.is_judged(verdict, told)
        else:
            case.is_skipped(told)


def _time(seconds: float | None) -> str:
    return f"{max(0.0, seconds or 0.0):.3f}"
