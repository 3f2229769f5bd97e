# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The report as one HTML page that loads nothing: no script, no font, no picture from elsewhere. Pure.

The page is built as a tree and written by xml.etree, which escapes all that comes from the result.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from ansible_collections.trafficshift.istio.plugins.module_utils._verdict import ask, intervals
from ansible_collections.trafficshift.istio.plugins.plugin_utils._report_data import (
    Destination,
    allowed,
    destinations,
    error_count,
    error_rates,
    gateway_verdict,
    held_sessions,
    lagging,
    percent,
    probe_count,
    seen_by,
)
from ansible_collections.trafficshift.istio.plugins.plugin_utils._report_plot import Course, add, draw

COLOURS = 8  # that the style sheet has for destinations; further ones begin again
FUNNEL = 60  # places along a plot for which it is computed what the share can be
NONE = "\u2013"

VERDICTS = {"pass": "Pass", "fail": "Fail", "inconclusive": "Inconclusive", "not probed": "Not probed"}
MOODS = {"inside": "pass", "outside": "fail", "open": "inconclusive", "not probed": "soft"}

STYLE = """
:root {
  color-scheme: light dark;
  --paper: #ffffff; --ink: #1d1f21; --soft: #5c6166; --rule: #d8dbde; --band: #e6e8ea;
  --good: #14693a; --bad: #a81e1e; --open: #855300;
  --d1: #1f5fa8; --d2: #b4480f; --d3: #1b7a4b; --d4: #8b3a86;
  --d5: #806000; --d6: #0b7285; --d7: #b0304f; --d8: #4f5b66;
}
@media screen and (prefers-color-scheme: dark) {
  :root {
    --paper: #16181a; --ink: #e6e7e8; --soft: #a3a9af; --rule: #3a3f44; --band: #33383d;
    --good: #6fcf97; --bad: #ff8f85; --open: #e6b450;
    --d1: #7db4f0; --d2: #f0a06a; --d3: #6fcf9b; --d4: #d79bd3;
    --d5: #d9b84a; --d6: #63c7d8; --d7: #f08ca4; --d8: #b4bec8;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; text-size-adjust: 100%; }
body {
  margin: 0 auto; padding: 3rem 1.5rem 4rem; max-width: 58rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "Noto Sans", sans-serif;
  font-variant-numeric: tabular-nums; overflow-wrap: anywhere;
}
h1, h2, p, dl, dd, figure, table { margin: 0; }
h1, h2 { font-size: 1.125rem; font-weight: 600; }
h2 { margin: 3rem 0 .75rem; }
p { max-width: 44rem; }
p + p, p + table, table + p, .plots + p, table + table { margin-top: .75rem; }
.soft, .note, footer { color: var(--soft); }
.note { font-size: .875rem; }
header { padding-bottom: 2rem; border-bottom: 1px solid var(--rule); }
.verdict {
  margin: 1.75rem 0 .5rem; font-size: clamp(2.5rem, 9vw, 4rem); line-height: 1.1; font-weight: 650;
  letter-spacing: -.02em;
}
.sentence { font-size: 1.125rem; }
.pass { color: var(--good); }
.fail { color: var(--bad); }
.inconclusive { color: var(--open); }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(7rem, 1fr)); gap: 1.25rem 1.5rem; }
.facts { margin-top: 1.75rem; }
.facts dt { font-size: .8125rem; color: var(--soft); }
.facts dd { font-size: 1.25rem; line-height: 1.35; }
table { width: 100%; border-collapse: collapse; }
th, td { padding: .4375rem 1.25rem .4375rem 0; border-bottom: 1px solid var(--rule); }
th, td { text-align: start; vertical-align: top; }
th:last-child, td:last-child { padding-inline-end: 0; }
thead th { font-size: .8125rem; font-weight: 400; color: var(--soft); vertical-align: bottom; }
tbody th { font-weight: 600; }
th.number, td.number { text-align: end; overflow-wrap: normal; }
.key::before { content: ""; display: inline-block; width: .875em; height: .25em; vertical-align: .25em; }
.key::before { margin-inline-end: .5em; background: var(--c); }
.d1 { --c: var(--d1); } .d2 { --c: var(--d2); } .d3 { --c: var(--d3); } .d4 { --c: var(--d4); }
.d5 { --c: var(--d5); } .d6 { --c: var(--d6); } .d7 { --c: var(--d7); } .d8 { --c: var(--d8); }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr)); gap: 2rem 2.5rem; }
.plots { margin-top: 1.25rem; }
figure { max-width: 36rem; }
figcaption { margin-bottom: .5rem; }
figcaption b { font-weight: 600; }
svg { display: block; width: 100%; height: auto; }
svg text { font-size: 12.5px; fill: var(--ink); }
svg .tick { fill: var(--soft); }
svg .value { font-weight: 600; fill: var(--c); }
.band { fill: var(--band); }
.grid { stroke: var(--rule); stroke-width: .5; }
.axis { stroke: var(--soft); stroke-width: 1; }
.wanted { stroke: var(--soft); stroke-width: 1; stroke-dasharray: 4 3; }
.funnel { fill: var(--c); fill-opacity: .2; }
.share { fill: none; stroke: var(--c); stroke-width: 1.75; stroke-linejoin: round; }
.span { fill: none; stroke: var(--c); stroke-width: 1.5; }
.final { fill: var(--c); }
.readout rect { fill: transparent; }
.readout g { visibility: hidden; pointer-events: none; }
.readout:hover g { visibility: visible; }
.readout line { stroke: var(--soft); stroke-width: .75; }
.readout text { paint-order: stroke; stroke: var(--paper); stroke-width: 4px; stroke-linejoin: round; }
.about div { display: grid; grid-template-columns: 9rem 1fr; gap: .375rem 1.5rem; padding: .1875rem 0; }
.about dt { color: var(--soft); }
.row { display: flex; flex-wrap: wrap; gap: .75rem 2.5rem; }
.row dt { font-size: .8125rem; color: var(--soft); }
footer { margin-top: 3.5rem; padding-top: 1rem; border-top: 1px solid var(--rule); font-size: .875rem; }
@media screen and (max-width: 38rem) {
  body { padding: 1.5rem 1rem 2.5rem; }
  h2 { margin-top: 2.5rem; }
  .facts { grid-template-columns: 1fr 1fr; }
  thead { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
  table, tbody, tr, tbody th, td { display: block; }
  tr { padding: .625rem 0; border-bottom: 1px solid var(--rule); }
  tbody th, td, td.number { padding: 0; border: 0; text-align: start; }
  td { display: grid; grid-template-columns: 7rem 1fr; gap: .75rem; align-items: baseline; }
  td::before { content: attr(data-head); color: var(--soft); font-size: .875rem; }
  .about div { grid-template-columns: 1fr; gap: 0; padding: 0 0 .625rem; }
  .about dt { font-size: .875rem; }
  svg text { font-size: 14px; }
}
@page {
  size: A4; margin: 16mm 16mm 18mm;
  @bottom-right { content: counter(page) " / " counter(pages); font: 8pt sans-serif; color: #5c6166; }
}
@media print {
  :root { color-scheme: light; }
  body { padding: 0; max-width: none; font-size: 9.5pt; line-height: 1.45; }
  h1, h2, .sentence { font-size: 11pt; }
  h2 { margin-top: 7mm; }
  .note, footer, .facts dt, .row dt, thead th { font-size: 8pt; }
  .verdict { margin-top: 5mm; font-size: 32pt; }
  header { padding-bottom: 5mm; }
  .facts { margin-top: 5mm; grid-template-columns: repeat(auto-fit, minmax(24mm, 1fr)); }
  .facts dd { font-size: 12pt; }
  th, td { padding-top: 1mm; padding-bottom: 1mm; }
  .plots { grid-template-columns: 1fr 1fr; gap: 5mm 8mm; margin-top: 3mm; }
  footer { margin-top: 8mm; }
  h2, figcaption { break-after: avoid; }
  figure, tr, dl div, p { break-inside: avoid; }
  .band, .key::before, .funnel { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  .readout { display: none; }
}
"""


def to_html(data: Mapping[str, Any]) -> str:
    """Return the page for what report_data() returned."""
    verdict = VERDICTS.get(data.get("verdict") or "", "No verdict")
    name = data.get("name") or "Unnamed"
    html = Element("html", lang="en")
    _head(html, f"{verdict}: {name}, TCP traffic split")
    body = add(html, "body")
    rows = destinations(data)
    _header(body, data, rows, name, verdict)
    main = add(body, "main")
    _shares(main, data, rows)
    _plots(main, data, rows)
    _errors(main, data)
    _convergence(main, data)
    _gateway(main, data)
    _held(main, data)
    _latency(main, data)
    _judged(main, data)
    _about(main, data)
    add(body, "footer", "The JSON file beside this page has the same data for programs, the XML file as test cases.")
    return f"<!DOCTYPE html>\n{ElementTree.tostring(html, encoding='unicode', method='html')}\n"


def _head(html: Element, title: str) -> None:
    head = add(html, "head")
    add(head, "meta", charset="utf-8")
    # Nothing may be loaded or run, and of styles only this one holds.
    digest = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    add(head, "meta", http_equiv="Content-Security-Policy", content=policy)
    add(head, "meta", name="viewport", content="width=device-width, initial-scale=1")
    add(head, "title", title)
    add(head, "style", STYLE)


def _header(body: Element, data: Mapping[str, Any], rows: Sequence[Destination], name: str, verdict: str) -> None:
    header = add(body, "header")
    add(header, "h1", name)
    split = _weights({row.word: row.percent for row in rows})
    told = ["TCP traffic split", split, _moment(data.get("started"))]
    add(header, "p", " · ".join(filter(None, told)), class_="soft")
    add(header, "p", verdict, class_=f"verdict {data.get('verdict')}" if verdict in VERDICTS.values() else "verdict")
    if data.get("msg"):
        add(header, "p", data["msg"], class_="sentence")
    probes = probe_count(data)
    _facts(
        header,
        {
            "Connections" if data.get("witness") == "gateway" else "Probes": f"{probes:,}" if probes else "",
            "Errors": f"{error_count(data):,}" if probes else "",
            "Took": _seconds(data.get("duration")),
            "Gateway": {
                "observed": "lags" if lagging(data) else "converged",
                "behavioural": "not seen",
                "unknown": "not seen",
            }.get(_part(data, "convergence").get("state") or "", ""),
            "Witness": data.get("witness") or "",
            "Weights in": {"route": "the route", "endpoints": "the endpoints"}.get(data.get("method") or "", ""),
        },
        "facts",
    )


def _shares(main: Element, data: Mapping[str, Any], rows: Sequence[Destination]) -> None:
    if not rows:
        return
    add(main, "h2", "Expected and observed")
    _table(
        main,
        ("Destination", "Expected", "Number", "Observed", "Interval", "Verdict"),
        [
            (
                (row.word, f"key d{index % COLOURS + 1}"),
                allowed(row.percent, data.get("tolerance")),
                NONE if row.replies is None else f"{row.replies:,}",
                NONE if row.share is None else percent(row.share),
                _span(row.interval),
                (row.told, MOODS[row.standing]),
            )
            for index, row in enumerate(rows)
        ],
        (2, 3, 4),
    )
    if any(row.interval for row in rows):
        chance = percent(1 - (data.get("beta") or 0.001))
        add(main, "p", f"With a chance of {chance} a destination's true share is in its interval.", class_="note")


def _plots(main: Element, data: Mapping[str, Any], rows: Sequence[Destination]) -> None:
    trajectory = _part(data, "trajectory")
    probes, counts = trajectory.get("probes"), trajectory.get("counts", {})
    drawn = [(index, row) for index, row in enumerate(rows) if row.word in counts and 0 <= row.percent <= 100]
    if not probes or not drawn:
        return
    add(main, "h2", "How the shares closed in")
    plots = add(main, "div", class_="plots")
    funnel = _funnel(data, probes, counts)
    tolerance = data.get("tolerance")
    for index, row in drawn:
        exact = row.percent in (0, 100)
        course = Course(
            row.word,
            row.percent / 100,
            0.0 if exact else tolerance or 0.0,
            probes,
            counts[row.word],
            row.interval,
            [(made, *spans[row.word]) for made, spans in funnel if row.word in spans],
        )
        figure = add(plots, "figure", class_=f"d{index % COLOURS + 1}")
        caption = add(figure, "figcaption", class_="key")
        add(caption, "b", row.word).tail = f", {allowed(row.percent, tolerance)}"
        seen = percent(course.counts[-1] / probes[-1])
        draw(
            figure,
            course,
            f"plot-{index + 1}",
            f"After {probes[-1]:,} probes {row.word} had {seen}, expected was {allowed(row.percent, tolerance)}.",
        )
    banded = any(row.percent not in (0, 100) for _index, row in drawn)
    legend = ["The line is the share of all probes so far."]
    if banded:
        legend.append("The band that it must be in is grey, what is expected is dashed.")
    if funnel:
        legend.append("The tinted funnel is the interval at that moment, the bar at the end is the final one.")
    if funnel and banded and data.get("profile") != "fixed":
        legend.append("The split passes once each funnel is inside its band.")
    add(main, "p", " ".join(legend), class_="note")


def _funnel(
    data: Mapping[str, Any], probes: Sequence[int], counts: Mapping[str, Sequence[int]]
) -> list[tuple[int, dict[str, tuple[float, float]]]]:
    """Return what the shares could be after some of the probes, nothing for a question that cannot be asked."""
    fixed = data.get("profile") == "fixed"
    names = ("tolerance", "max_errors") if fixed else ("tolerance", "max_errors", "alpha", "beta", "max_probes")
    settings = {name: data[name] for name in names if data.get(name) is not None}
    try:
        question = ask(data["expect"], data.get("profile") or "strict", **settings)
    except (KeyError, ValueError):
        return []
    funnel, mark = [], 1.0
    for index, made in enumerate(probes):
        if made >= mark or made == probes[-1]:
            answers = {word: column[index] for word, column in counts.items()}
            errors = made - sum(answers.values())
            funnel.append((made, intervals(question, answers, {"error": errors})))
            mark = made * probes[-1] ** (1 / FUNNEL)
    return funnel


def _errors(main: Element, data: Mapping[str, Any]) -> None:
    errors, details = _part(data, "errors"), _part(data, "error_details")
    if errors:
        add(main, "h2", "Errors")
        rows = [(kind, f"{count:,}", details.get(kind) or NONE) for kind, count in _largest_first(errors)]
        _table(main, ("Kind", "Number", "What the first one said"), rows, (1,))
    unexpected = _largest_first(_part(data, "unexpected"))
    if unexpected:
        _table(main, ("Unexpected reply", "Number"), [(word, f"{count:,}") for word, count in unexpected])


def _convergence(main: Element, data: Mapping[str, Any]) -> None:
    convergence = _part(data, "convergence")
    told = seen_by(convergence)
    if not told:
        return
    add(main, "h2", "Replicas of the gateway")
    add(main, "p", told)
    rows = []
    for replica in convergence.get("replicas") or []:
        state = "as declared" if replica.get("ok") else replica.get("error") or "not as declared"
        if replica.get("warming"):
            state += ", a newer configuration is warming"
        weights = replica.get("weights")
        split = "not read" if weights is None else _weights(weights) or "no route"
        mood = "pass" if replica.get("ok") else "fail"
        rows.append((replica.get("name") or NONE, split, (state, mood)))
    if rows:
        _table(main, ("Replica", "Weights", "State"), rows)


def _gateway(main: Element, data: Mapping[str, Any]) -> None:
    gateway = _part(data, "gateway")
    if not gateway:
        return
    add(main, "h2", "The gateway's counters" if data.get("witness") == "gateway" else "Second witness")
    verdict, reason = gateway_verdict(gateway)
    moods = {"pass": "", "": "", "inconclusive": "inconclusive", "unknown": "inconclusive"}
    add(main, "p", reason, class_=moods.get(verdict, "fail"))
    growth, others = _part(gateway, "growth"), _part(gateway, "others")
    heads = ["Version", "Connections", "Failed", "Open", *(["By others"] if others else []), "Interval"]
    rows = []
    for version, grown in growth.items():
        numbers = [(grown or {}).get(key) for key in ("connections", "connect_failures", "live")]
        numbers += [others.get(version)] if others else []
        told = [NONE if number is None else f"{number:,}" for number in numbers]
        rows.append([version or "(no version)", *told, _span(_part(gateway, "intervals").get(version))])
    if rows:
        _table(main, heads, rows, range(1, len(heads)))
    replicas = []
    for replica in gateway.get("replicas") or []:
        grown = _part(replica, "growth").items()
        made = ", ".join(f"{version} {(counters or {}).get('connections') or 0:,}" for version, counters in grown)
        replicas.append((replica.get("name") or NONE, replica.get("error") or made or NONE))
    if replicas:
        _table(main, ("Replica", "Connections by version"), replicas)
    notes = [f"Counted over {_seconds(gateway['window'])}."] if gateway.get("window") is not None else []
    notes += [f"{note.rstrip('.')}." for note in gateway.get("notes") or [] if note]
    if notes:
        add(main, "p", " ".join(notes), class_="note")


def _held(main: Element, data: Mapping[str, Any]) -> None:
    rows = held_sessions(data)
    if not rows:
        return
    add(main, "h2", "Held sessions")
    lost, held = data.get("sessions_lost") or 0, sum(row.number for row in rows)
    told = f"{lost} of {held} were lost." if lost else f"All {held} lived to the end."
    add(main, "p", told, class_="fail" if lost else "")
    _table(
        main,
        ("Kind", "Destination", "Number", "Fate", "Lived", "Ended (UTC)"),
        [
            (
                row.kind or NONE,
                row.destination or NONE,
                f"{row.number:,}",
                (row.fate or NONE, "pass" if row.fate == "alive" else "fail"),
                _range([f"{lived:,.1f}" for lived in row.lived or ()], " s"),
                _range([died.partition("T")[2].rstrip("Z") or died for died in row.died or ()]),
            )
            for row in rows
        ],
        (2,),
    )
    details = {row.fate: row.detail for row in reversed(rows) if row.detail}
    if details:
        add(main, "p", "; ".join(f"{fate}: {detail}" for fate, detail in details.items()), class_="note")


def _latency(main: Element, data: Mapping[str, Any]) -> None:
    latency = {name: value for name, value in _part(data, "latency").items() if value is not None}
    if latency:
        add(main, "h2", "From connect to reply")
        names = {"min": "Shortest", "median": "Median", "p95": "95 % within", "p99": "99 % within", "max": "Longest"}
        _facts(main, {told: _seconds(latency.get(name)) for name, told in names.items()}, "row")


def _judged(main: Element, data: Mapping[str, Any]) -> None:
    profile, most = data.get("profile"), data.get("max_probes")
    if not profile:
        return
    add(main, "h2", "How it was judged")
    told = f"Profile {profile}: "
    if profile == "fixed":
        told += f"exactly {most:,} probes and a plain comparison." if most else "a plain comparison."
    else:
        told += "it ends as soon as the evidence suffices" + (f", after {most:,} probes at most." if most else ".")
    add(main, "p", " ".join([told, *error_rates(data)]))


def _about(main: Element, data: Mapping[str, Any]) -> None:
    ingress = _part(data, "ingress")
    place = ":".join(str(ingress[part]) for part in ("host", "port") if ingress.get(part) is not None)
    versions = _part(data, "versions").items()
    facts = {
        "Started": _moment(data.get("started")),
        "Ended": _moment(data.get("ended")),
        "Connected to": place + (f", since {ingress['reason']}" if place and ingress.get("reason") else ""),
        "Address": data.get("address") or "",
        "Protocol": data.get("protocol") or "",
        "Declared weights": _weights(_part(data, "weights")),
        "Versions": ", ".join(f"{name} {version}" for name, version in versions if version),
    }
    if any(facts.values()):
        add(main, "h2", "When and where")
        _facts(main, facts, "about")


def _facts(parent: Element, facts: Mapping[str, str], kind: str) -> None:
    known = [(term, fact) for term, fact in facts.items() if fact]
    if not known:
        return
    box = add(parent, "dl", class_=kind)
    for term, fact in known:
        pair = add(box, "div")
        add(pair, "dt", term)
        add(pair, "dd", fact)


def _table(
    parent: Element,
    heads: Sequence[str],
    rows: Iterable[Sequence[str | tuple[str, str]]],
    numbers: Sequence[int] = (),
) -> None:
    """Add a table; a cell is a text or (text, class), the columns `numbers` are set flush right."""
    table = add(parent, "table")
    line = add(add(table, "thead"), "tr")
    for index, head in enumerate(heads):
        add(line, "th", head, scope="col", **({"class": "number"} if index in numbers else {}))
    body = add(table, "tbody")
    for row in rows:
        line = add(body, "tr")
        for index, cell in enumerate(row):
            text, mood = (cell, "number" if index in numbers else "") if isinstance(cell, str) else cell
            element = add(line, "td" if index else "th", text)
            element.set(*(("data-head", heads[index]) if index else ("scope", "row")))
            if mood:
                element.set("class", mood)


def _part(data: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    return data.get(key) or {}


def _largest_first(counts: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return sorted(((word, count or 0) for word, count in counts.items()), key=lambda item: -item[1])


def _moment(text: str | None) -> str:
    """Return an ISO 8601 moment as people read it."""
    return (text or "").replace("T", " ", 1).replace("Z", " UTC")


def _seconds(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value * 1000:.3g} ms" if value < 1 else f"{value:,.1f} s"


def _range(ends: Sequence[str], unit: str = "") -> str:
    return " \u2013 ".join(dict.fromkeys(ends)) + unit if ends else NONE


def _span(interval: Sequence[float] | None) -> str:
    return f"{interval[0] * 100:.1f} \u2013 {interval[1] * 100:.1f}\u00a0%" if interval else NONE


def _weights(weights: Mapping[str, Any]) -> str:
    return ", ".join(f"{version}\u00a0{share:g} %" for version, share in weights.items() if share is not None)
