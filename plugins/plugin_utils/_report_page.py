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

from ansible_collections.trafficshift.istio.plugins.plugin_utils._report_data import (
    Destination,
    allowed,
    destinations,
)
from ansible_collections.trafficshift.istio.plugins.plugin_utils._report_plot import Course, add, draw, percent

COLOURS = 8  # that the style sheet has for destinations; further ones begin again

VERDICTS = {"pass": "Pass", "fail": "Fail", "inconclusive": "Inconclusive", "not probed": "Not probed"}
STANDINGS = {
    "inside": "inside its band",
    "outside": "outside its band",
    "open": "not settled",
    "not probed": "not probed",
}

STYLE = """
:root {
  color-scheme: light dark;
  --paper: #ffffff; --ink: #1d1f21; --soft: #5c6166; --rule: #d8dbde; --wash: #f3f4f5; --band: #e6e8ea;
  --good: #14693a; --bad: #a81e1e; --open: #855300;
  --d1: #1f5fa8; --d2: #b4480f; --d3: #1b7a4b; --d4: #8b3a86; --d5: #806000; --d6: #0b7285; --d7: #b0304f; --d8: #4f5b66;
}
@media screen and (prefers-color-scheme: dark) {
  :root {
    --paper: #16181a; --ink: #e6e7e8; --soft: #a3a9af; --rule: #3a3f44; --wash: #1f2225; --band: #2c3034;
    --good: #6fcf97; --bad: #ff8f85; --open: #e6b450;
    --d1: #7db4f0; --d2: #f0a06a; --d3: #6fcf9b; --d4: #d79bd3; --d5: #d9b84a; --d6: #63c7d8; --d7: #f08ca4; --d8: #b4bec8;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; text-size-adjust: 100%; }
body {
  margin: 0 auto; padding: 3rem 1.5rem 4rem; max-width: 58rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "Noto Sans", "Liberation Sans", sans-serif;
  font-variant-numeric: tabular-nums; overflow-wrap: anywhere;
}
h1, h2, p, dl, dd, figure, table { margin: 0; }
h1 { font-size: 1rem; font-weight: 600; }
h2 { margin: 3rem 0 .75rem; font-size: 1.125rem; font-weight: 600; }
p { max-width: 42rem; }
p + p, p + table, table + p, .plots + p { margin-top: .75rem; }
.soft, footer, caption { color: var(--soft); }
header { padding-bottom: 2rem; border-bottom: 1px solid var(--rule); }
.verdict { margin: 2rem 0 .5rem; font-size: clamp(2.75rem, 9vw, 4rem); line-height: 1.05; font-weight: 650; letter-spacing: -.02em; }
.sentence { font-size: 1.125rem; }
.pass { color: var(--good); } .fail { color: var(--bad); } .inconclusive { color: var(--open); }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(8rem, 1fr)); gap: 1.25rem 1.5rem; margin-top: 2rem; }
.facts dt { font-size: .8125rem; color: var(--soft); }
.facts dd { font-size: 1.375rem; line-height: 1.3; }
table { width: 100%; border-collapse: collapse; }
caption { caption-side: bottom; padding-top: .625rem; text-align: start; font-size: .875rem; }
th, td { padding: .4375rem .75rem .4375rem 0; border-bottom: 1px solid var(--rule); text-align: start; vertical-align: top; }
th:last-child, td:last-child { padding-inline-end: 0; }
thead th { font-size: .8125rem; font-weight: 400; color: var(--soft); vertical-align: bottom; }
tbody th { font-weight: 600; }
.number { text-align: end; overflow-wrap: normal; }
.key { display: inline-block; width: .875em; height: .25em; margin-inline-end: .5em; vertical-align: .25em; background: var(--c); }
.d1 { --c: var(--d1); } .d2 { --c: var(--d2); } .d3 { --c: var(--d3); } .d4 { --c: var(--d4); }
.d5 { --c: var(--d5); } .d6 { --c: var(--d6); } .d7 { --c: var(--d7); } .d8 { --c: var(--d8); }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr)); gap: 2rem 2.5rem; margin-top: 1.5rem; }
figure { max-width: 36rem; }
figcaption { margin-bottom: .5rem; font-size: .9375rem; }
figcaption b { font-weight: 600; }
svg { display: block; width: 100%; height: auto; font-family: inherit; }
svg text { font-size: 12.5px; fill: var(--ink); }
svg .tick { fill: var(--soft); font-size: 12px; }
svg .value { font-weight: 600; fill: var(--c); }
.band { fill: var(--band); }
.grid { stroke: var(--rule); stroke-width: .5; }
.axis { stroke: var(--soft); stroke-width: 1; }
.wanted { stroke: var(--soft); stroke-width: 1; stroke-dasharray: 4 3; }
.funnel { fill: var(--c); fill-opacity: .16; }
.share { fill: none; stroke: var(--c); stroke-width: 1.75; stroke-linejoin: round; }
.span { fill: none; stroke: var(--c); stroke-width: 1.5; }
.final { fill: var(--c); }
.readout rect { fill: transparent; }
.readout g { visibility: hidden; pointer-events: none; }
.readout:hover g { visibility: visible; }
.readout line { stroke: var(--soft); stroke-width: .75; }
.readout text { paint-order: stroke; stroke: var(--paper); stroke-width: 4px; stroke-linejoin: round; }
.about { display: grid; grid-template-columns: minmax(6rem, max-content) 1fr; gap: .375rem 1.5rem; }
.about dt { color: var(--soft); }
footer { margin-top: 3.5rem; padding-top: 1rem; border-top: 1px solid var(--rule); font-size: .875rem; }
@media (max-width: 34rem) {
  body { padding: 1.5rem 1rem 2.5rem; }
  .facts { grid-template-columns: 1fr 1fr; }
  th, td { padding-inline-end: .5rem; font-size: .875rem; }
  .about { grid-template-columns: 1fr; gap: 0; }
  .about dd { margin-bottom: .625rem; }
}
@page {
  size: A4; margin: 16mm 16mm 18mm;
  @bottom-right { content: counter(page) " / " counter(pages); font: 8pt sans-serif; color: #5c6166; }
}
@media print {
  :root { color-scheme: light; }
  body { padding: 0; max-width: none; font-size: 9.5pt; line-height: 1.45; }
  h1, .sentence, h2 { font-size: 11pt; }
  h2 { margin-top: 8mm; }
  .verdict { margin-top: 6mm; font-size: 34pt; }
  header { padding-bottom: 5mm; }
  .facts { margin-top: 5mm; grid-template-columns: repeat(auto-fit, minmax(26mm, 1fr)); }
  .facts dd { font-size: 13pt; }
  .plots { grid-template-columns: 1fr 1fr; gap: 6mm 8mm; margin-top: 3mm; }
  h2, figcaption, caption { break-after: avoid; }
  figure, tr, .facts, .about > *, p { break-inside: avoid; }
  thead { display: table-header-group; }
  .band, .key, .funnel, .share { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  .readout { display: none; }
}
"""


def to_html(data: Mapping[str, Any]) -> str:
    """Return the page for what report_data() returned."""
    verdict = VERDICTS.get(data.get("verdict") or "", "No verdict")
    name = data.get("name") or "unnamed"
    html = Element("html", lang="en")
    _head(html, f"{verdict}: {name}, TCP traffic split")
    body = add(html, "body")
    _header(body, data, verdict, name)
    main = add(body, "main")
    rows = destinations(data)
    _shares(main, data, rows)
    _plots(main, data, rows)
    _errors(main, data)
    _convergence(main, data)
    _gateway(main, data)
    _latency(main, data)
    _judged(main, data)
    _about(main, data)
    add(body, "footer", f"The same data is in {name}.json, and as test cases in {name}.xml.")
    return f"<!DOCTYPE html>\n{ElementTree.tostring(html, encoding='unicode', method='html')}\n"


def _head(html: Element, title: str) -> None:
    head = add(html, "head")
    add(head, "meta", charset="utf-8")
    # Nothing may be loaded or run, and of styles only this one holds.
    digest = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    add(head, "meta", http_equiv="Content-Security-Policy", content=policy)
    add(head, "meta", name="viewport", content="width=device-width, initial-scale=1")
    add(head, "meta", name="referrer", content="no-referrer")
    add(head, "title", title)
    add(head, "style", STYLE)


def _header(body: Element, data: Mapping[str, Any], verdict: str, name: str) -> None:
    header = add(body, "header")
    add(header, "h1", name)
    split = ", ".join(f"{word} {value:g} %" for word, value in (data.get("expect") or {}).items() if value is not None)
    when = _moment(data.get("started"))
    add(header, "p", "; ".join(filter(None, (split and f"TCP traffic split {split}", when))), class_="soft")
    add(header, "p", verdict, class_=f"verdict {data.get('verdict') if verdict != 'No verdict' else ''}".strip())
    if data.get("msg"):
        add(header, "p", data["msg"], class_="sentence")
    errors = sum(value or 0 for value in (data.get("errors") or {}).values())
    facts = {
        "Probes": f"{data['probes']:,}" if data.get("probes") else "",
        "Errors": f"{errors:,}" if data.get("probes") else "",
        "Took": _seconds(data.get("duration")),
        "Tolerance": f"± {data['tolerance'] * 100:g} points" if data.get("tolerance") else "",
        "Gateway": {"observed": "converged", "behavioural": "not seen"}.get(_of(data, "convergence", "state"), ""),
        "Witness": {"both": "probe and gateway"}.get(data.get("witness") or "", data.get("witness") or ""),
    }
    if any(facts.values()):
        box = add(header, "dl", class_="facts")
        for term, fact in facts.items():
            if fact:
                pair = add(box, "div")
                add(pair, "dt", term)
                add(pair, "dd", fact)


def _shares(main: Element, data: Mapping[str, Any], rows: Sequence[Destination]) -> None:
    if not rows:
        return
    add(main, "h2", "Expected and observed")
    table = _table(main, ["Destination", "Expected", "Replies", "Observed", "Could be", "Verdict"], (2, 3, 4))
    for index, row in enumerate(rows):
        line = add(table, "tr")
        head = add(line, "th", scope="row")
        add(head, "span", class_=f"key d{index % COLOURS + 1}").tail = row.word
        add(line, "td", allowed(row.percent, data.get("tolerance")))
        add(line, "td", "–" if row.count is None else f"{row.count:,}", class_="number")
        add(line, "td", "–" if row.share is None else percent(row.share), class_="number")
        add(line, "td", _span(row.interval), class_="number")
        mood = {"inside": "pass", "outside": "fail", "open": "inconclusive"}.get(row.standing, "soft")
        add(line, "td", STANDINGS[row.standing], class_=mood)


def _plots(main: Element, data: Mapping[str, Any], rows: Sequence[Destination]) -> None:
    trajectory = data.get("trajectory") or {}
    drawn = [(index, row) for index, row in enumerate(rows) if row.word in trajectory.get("counts", {})]
    if not drawn:
        return
    section = add(main, "section")
    add(section, "h2", "How the shares closed in")
    plots = add(section, "div", class_="plots")
    for index, row in drawn:
        course = Course(
            row.word,
            row.percent / 100,
            0.0 if row.percent in (0, 100) else data.get("tolerance") or 0.0,
            trajectory["probes"],
            trajectory["counts"][row.word],
            row.interval,
            [],
        )
        figure = add(plots, "figure", class_=f"d{index % COLOURS + 1}")
        caption = add(figure, "figcaption")
        add(caption, "span", class_="key")
        add(caption, "b", row.word).tail = f" – {allowed(row.percent, data.get('tolerance'))}"
        share = course.counts[-1] / course.probes[-1]
        told = f"After {course.probes[-1]:,} probes {row.word} had {percent(share)}, {STANDINGS[row.standing]}"
        draw(figure, course, index + 1, f"{told} of {allowed(row.percent, data.get('tolerance'))}.")


def _errors(main: Element, data: Mapping[str, Any]) -> None:
    errors, unexpected = data.get("errors") or {}, data.get("unexpected") or {}
    if not errors:
        return
    add(main, "h2", "Errors")
    table = _table(main, ["Kind", "Probes", "What the first one said"], (1,))
    details = data.get("error_details") or {}
    for kind, count in _largest_first(errors):
        _row(table, kind, (f"{count:,}", details.get(kind) or "–"), (1,))
    if unexpected:
        table = _table(main, ["Unexpected reply", "Probes"], (1,))
        for word, count in _largest_first(unexpected):
            _row(table, word, (f"{count:,}",), (1,))


def _convergence(main: Element, data: Mapping[str, Any]) -> None:
    convergence = data.get("convergence") or {}
    if not convergence:
        return
    add(main, "h2", "Replicas of the gateway")
    add(main, "p", f"{convergence.get('state') or 'unknown'}: {convergence.get('reason') or 'no reason given'}")
    replicas = convergence.get("replicas") or []
    if replicas:
        table = _table(main, ["Replica", "Weights", "State"], ())
        for replica in replicas:
            weights = replica.get("weights")
            state = "as wanted" if replica.get("ok") else replica.get("error") or "not as wanted"
            if replica.get("warming"):
                state += ", warming"
            _row(table, replica.get("name") or "–", (_weights(weights), state), ())


def _gateway(main: Element, data: Mapping[str, Any]) -> None:
    pass


def _latency(main: Element, data: Mapping[str, Any]) -> None:
    latency = {name: value for name, value in (data.get("latency") or {}).items() if value is not None}
    if not latency:
        return
    add(main, "h2", "Time to the reply")
    names = {"min": "Least", "median": "Median", "p95": "95 % within", "p99": "99 % within", "max": "Longest"}
    shown = [name for name in names if name in latency]
    table = _table(main, [names[name] for name in shown], range(len(shown)))
    line = add(table, "tr")
    for name in shown:
        add(line, "td", _seconds(latency[name]), class_="number")


def _judged(main: Element, data: Mapping[str, Any]) -> None:
    sentences = []
    if data.get("profile"):
        sentences.append(f"Profile {data['profile']}.")
    if sentences:
        add(main, "h2", "How it was judged")
        add(main, "p", " ".join(sentences))


def _about(main: Element, data: Mapping[str, Any]) -> None:
    ingress = data.get("ingress") or {}
    place = ":".join(str(ingress[part]) for part in ("host", "port") if ingress.get(part) is not None)
    versions = {name: version for name, version in (data.get("versions") or {}).items() if version}
    facts = {
        "Started": _moment(data.get("started")),
        "Ended": _moment(data.get("ended")),
        "Connected to": place + (f" ({ingress['reason']})" if place and ingress.get("reason") else ""),
        "Address": data.get("address") or "",
        "Protocol": data.get("protocol") or "",
        "Weights declared": _weights(data.get("weights")) if data.get("weights") else "",
        "Versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
    }
    if any(facts.values()):
        add(main, "h2", "When and where")
        box = add(main, "dl", class_="about")
        for term, fact in facts.items():
            if fact:
                add(box, "dt", term)
                add(box, "dd", fact)


def _table(parent: Element, heads: Sequence[str], numbers: Iterable[int]) -> Element:
    """Add a table with its head and return its body; the columns `numbers` are set flush right."""
    table = add(parent, "table")
    line = add(add(table, "thead"), "tr")
    for index, head in enumerate(heads):
        add(line, "th", head, scope="col", class_="number" if index in numbers else "text")
    return add(table, "tbody")


def _row(body: Element, head: str, cells: Iterable[str], numbers: Iterable[int]) -> None:
    line = add(body, "tr")
    add(line, "th", head, scope="row")
    for index, cell in enumerate(cells, 1):
        add(line, "td", cell, class_="number" if index in numbers else "text")


def _of(data: Mapping[str, Any], *keys: str) -> Any:
    found: Any = data
    for key in keys:
        found = (found or {}).get(key)
    return found


def _largest_first(counts: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return sorted(((word, count or 0) for word, count in counts.items()), key=lambda item: -item[1])


def _moment(text: str | None) -> str:
    """Return an ISO 8601 moment as people read it."""
    return (text or "").replace("T", " ", 1).replace("Z", " UTC")


def _seconds(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value * 1000:.3g} ms" if value < 1 else f"{value:.3g} s"


def _span(interval: Sequence[float] | None) -> str:
    if not interval:
        return "–"
    return f"{interval[0] * 100:.1f} – {interval[1] * 100:.1f}\u00a0%"


def _weights(weights: Mapping[str, Any] | None) -> str:
    if weights is None:
        return "not read"
    return ", ".join(f"{version} {share:g} %" for version, share in weights.items() if share is not None) or "no route"
