# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What of a verification's result goes into its report. Pure.

Only keys that are known here get in, and only values of the type that they should have: what a report must not tell,
such as credentials in a variable that somebody combined with the result, has no way into it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Callable, NamedTuple

from ansible_collections.trafficshift.istio.plugins.module_utils._tally import Trajectory

SCHEMA = 1  # of the JSON report; rises when a key goes or changes its meaning, not when one is added
LONGEST = 2000  # characters of one text
HUGE = 10**15  # no number in a result is larger; NaN and infinity are none
HIDDEN = "***"
RARE = 1e-6

STANDINGS = {
    "inside": "as expected",
    "outside": "not as expected",
    "open": "not settled",
    "not probed": "not probed",
}

# What goes before the @ of a URL; what a variable, an option or a header gives away; a JSON web token.
_SECRETS = (
    (re.compile(r"(?<![^\s'\"<>(])[^\s:'\"<>(]*:\S+@"), f"{HIDDEN}@"),
    (
        re.compile(
            r"(?i)(?<![\w-])([\w-]*(?:passw(?:or)?d|secret|token|authorization|api[_-]?key)[\w-]*['\"]?\s*[:=]\s*)"
            r"((?:bearer |basic )?(?:'[^']*'|\"[^\"]*\"|[^\s,;&]+))"
        ),
        rf"\1{HIDDEN}",
    ),
    (re.compile(r"(?i)\b(bearer) \S+"), rf"\1 {HIDDEN}"),
    (re.compile(r"\beyJ[\w-]+\.[\w-]+\.[\w-]*"), HIDDEN),
)
# What XML 1.0 has no place for: most control characters, halves of surrogate pairs, two non-characters.
_ILLEGAL = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

# Returns what goes into the report; raises ValueError for a value that does not.
Shape = Callable[[Any], Any]


def _text(value: Any) -> str:
    if not isinstance(value, (str, int, float)) or isinstance(value, bool):
        raise ValueError
    # Cut twice: what is masked must not be cut before, and what is searched must not be without bounds.
    text = _ILLEGAL.sub("\ufffd", str(value)[: 4 * LONGEST])
    for pattern, instead in _SECRETS:
        text = pattern.sub(instead, text)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def _number(value: Any) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not -HUGE <= value <= HUGE:
        raise ValueError
    return value


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError
    return value


def _fitting(pairs: Any) -> dict[Any, Any]:
    """Return key and shaped value of those (key, shape, value) whose value fits; None fits everywhere."""
    fitting = {}
    for key, shape, value in pairs:
        try:
            fitting[key] = None if value is None else shape(value)
        except ValueError:
            continue
    return fitting


def _record(**fields: Shape) -> Shape:
    def shape(value: Any) -> dict[str, Any]:
        if not isinstance(value, Mapping):
            raise ValueError
        return _fitting((key, fields[key], value[key]) for key in fields if key in value)

    return shape


def _mapping(of: Shape) -> Shape:
    def shape(value: Any) -> dict[str, Any]:
        if not isinstance(value, Mapping):
            raise ValueError
        return _fitting((_text(key), of, item) for key, item in value.items() if isinstance(key, (str, int, float)))

    return shape


def _sequence(of: Shape) -> Shape:
    def shape(value: Any) -> list[Any]:
        if not isinstance(value, (list, tuple)):
            raise ValueError
        return list(_fitting((index, of, item) for index, item in enumerate(value) if item is not None).values())

    return shape


def _interval(value: Any) -> list[float]:
    if not isinstance(value, (list, tuple)) or len(value) != 2:
        raise ValueError
    low, high = map(_number, value)
    return [low, high]


def _trajectory(value: Any) -> dict[str, Any]:
    if not isinstance(value, str):
        raise ValueError
    probes, counts = Trajectory.decode(value)
    return {"probes": probes, "counts": {_text(word): column for word, column in counts.items()}}


_DEVIATIONS = _sequence(_record(destination=_text, expected=_number, observed=_number))
_GROWTH = _record(connections=_number, connect_failures=_number, live=_number)
_TOTALS = _record(cx_total=_number, cx_connect_fail=_number, cx_active=_number)
# What is known of any judgement, that of the whole and that of the second witness.
_JUDGED = {
    "witness": _text,
    "verdict": _text,
    "passed": _flag,
    "expect": _mapping(_number),
    "profile": _text,
    "tolerance": _number,
    "alpha": _number,
    "beta": _number,
    "max_probes": _number,
    "max_errors": _number,
    "error_rates": _mapping(_number),
    "probes": _number,
    "counts": _mapping(_number),
    "shares": _mapping(_number),
    "intervals": _mapping(_interval),
    "more": _number,
    "errors": _mapping(_number),
    "error_details": _mapping(_text),
    "deviations": _DEVIATIONS,
    "duration": _number,
}
_REPORT = _record(
    **_JUDGED,
    name=_text,
    started=_text,
    ended=_text,
    msg=_text,
    method=_text,
    unexpected=_mapping(_number),
    latency=_record(min=_number, median=_number, p95=_number, p99=_number, max=_number),
    protocol=_text,
    connections=_mapping(_number),
    unanswered=_number,
    runs=_number,
    address=_text,
    ingress=_record(host=_text, port=_number, source=_text, reason=_text),
    trajectory=_trajectory,
    sessions=_sequence(
        _record(
            kind=_text,
            destination=_text,
            opened=_text,
            fate=_text,
            died=_text,
            lived=_number,
            exchanges=_number,
            detail=_text,
        )
    ),
    sessions_lost=_number,
    convergence=_record(
        state=_text,
        reason=_text,
        duration=_number,
        replicas=_sequence(
            _record(
                name=_text,
                weights=_mapping(_number),
                method=_text,
                missing=_sequence(_text),
                clusters=_sequence(_text),
                warming=_flag,
                ok=_flag,
                error=_text,
            )
        ),
    ),
    gateway=_record(
        **_JUDGED,
        method=_text,
        reason=_text,
        growth=_mapping(_GROWTH),
        window=_number,
        complete=_flag,
        notes=_sequence(_text),
        totals=_mapping(_TOTALS),
        taken=_text,
        agreement=_record(agrees=_flag, reason=_text),
        others=_mapping(_number),
        replicas=_sequence(
            _record(name=_text, ready=_flag, subsets=_mapping(_TOTALS), growth=_mapping(_GROWTH), error=_text)
        ),
    ),
    weights=_mapping(_number),
    versions=_record(ansible=_text, collection=_text, python=_text, kubernetes=_text),
)


def report_data(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a report tells of a result of tcp_verify, whatever of it is there.

    The trajectory is decoded to {"probes": [int], "counts": {destination: [int]}}; secrets in texts are masked.
    """
    return {"schema": SCHEMA, **_REPORT(result)}


class Destination(NamedTuple):
    """A row of the verdict: percent expected, replies, fraction observed and its interval, and where it stands."""

    word: str
    percent: float
    replies: int | None
    share: float | None
    interval: list[float] | None
    standing: str  # "inside" or "outside" the band where the evidence says so, else "open"; "not probed" without probes

    @property
    def told(self) -> str:
        """The standing in words."""
        return STANDINGS[self.standing]


def destinations(data: Mapping[str, Any]) -> list[Destination]:
    """Return the expected destinations, in the order of the question."""
    tolerance, verdict, probes = data.get("tolerance") or 0.0, data.get("verdict"), probe_count(data)
    # With all its probes made, a plain comparison leaves nothing open.
    complete = verdict == "pass" or (data.get("profile") == "fixed" and probes >= (data.get("max_probes") or 0))
    outside = {deviation.get("destination") for deviation in data.get("deviations") or []}
    rows = []
    # The gateway's counters tell versions apart, where a probe tells replies apart.
    by_version = data.get("witness") == "gateway" and data.get("weights")
    for word, wanted in (by_version or data.get("expect") or {}).items():
        replies, interval = ((data.get(key) or {}).get(word) for key in ("counts", "intervals"))
        share = replies / probes if probes and replies is not None else None
        expected = wanted or 0
        if share is None:
            standing = "not probed"
        elif verdict == "fail" and word in outside:
            standing = "outside"
        elif complete or (interval and max(abs(end - expected / 100) for end in interval) < tolerance):
            standing = "inside"
        else:
            standing = "open"
        rows.append(Destination(word, expected, replies, share, interval, standing))
    return rows


class Held(NamedTuple):
    """Held sessions that had the same fate: how many, when they died (the first and the last), and how long they lived.

    detail is what the first of them has to say that has something to say; died is None where nobody knows, lived is in
    seconds from the shortest to the longest.
    """

    kind: str
    destination: str | None
    fate: str
    number: int
    died: tuple[str, str] | None
    lived: tuple[float, float] | None
    detail: str


def held_sessions(data: Mapping[str, Any]) -> list[Held]:
    """Return the held sessions in groups, those that live last."""
    groups: dict[tuple[str, str | None, str], list[Mapping[str, Any]]] = {}
    for session in data.get("sessions") or []:
        key = (session.get("kind") or "", session.get("destination"), session.get("fate") or "")
        groups.setdefault(key, []).append(session)
    rows = []
    for key, sessions in groups.items():
        died = [session["died"] for session in sessions if session.get("died")]
        lived = [session["lived"] for session in sessions if session.get("lived") is not None]
        rows.append(
            Held(
                *key,
                len(sessions),
                (min(died), max(died)) if died else None,
                (min(lived), max(lived)) if lived else None,
                next((session["detail"] for session in sessions if session.get("detail")), ""),
            )
        )
    return sorted(rows, key=lambda row: row.fate == "alive")


def allowed(expected: float, tolerance: float | None) -> str:
    """Return what a share may be, in words: 0 and 100 percent are exact rules."""
    if expected in (0, 100):
        return f"exactly {expected:g} %"
    return f"{expected:g} %" + (f" ± {tolerance * 100:g} points" if tolerance else "")


def percent(share: float) -> str:
    """Return a fraction as percent with one decimal; only an exact 0 or 1 reads as 0 or 100."""
    if 0 < share < 0.0005:
        return "< 0.1 %"
    if 0.9995 <= share < 1:
        return "> 99.9 %"
    return f"{share * 100:.0f} %" if share in (0, 1) else f"{share * 100:.1f} %"


def probe_count(data: Mapping[str, Any]) -> int:
    """Return how many probes or connections the verdict rests on."""
    return data.get("probes") or error_count(data) + sum(count or 0 for count in (data.get("counts") or {}).values())


def error_count(data: Mapping[str, Any]) -> int:
    """Return how many probes got no valid answer."""
    return sum(count or 0 for count in (data.get("errors") or {}).values())


def error_rates(data: Mapping[str, Any]) -> list[str]:
    """Return how often the verdict is wrong by bad luck, and what is judged without any luck, in sentences."""
    rates = {name: rate for name, rate in (data.get("error_rates") or {}).items() if rate is not None}
    told = []
    if "false_pass" in rates:
        told.append(f"A split outside of its band is passed {_at_most(rates['false_pass'])}.")
    if "false_fail" in rates:
        right = "exactly as declared" if "edge" in rates else "inside of its band"
        told.append(f"A split {right} is failed {_at_most(rates['false_fail'])}.")
    if "edge" in rates:
        told.append(f"One with a share on the edge of its band is passed {_at_most(rates['edge'])}.")
    if "off_by_twice" in rates:
        told.append(f"One that is off by twice the tolerance is passed {_at_most(rates['off_by_twice'])}.")
    if any(wanted in (0, 100) for wanted in (data.get("expect") or {}).values()):
        told.append("Of 0 % and 100 %, a single stray reply is a failure.")
    if data.get("max_errors") is not None:
        told.append(f"Up to {data['max_errors']} errors are allowed." if data["max_errors"] else "No error is allowed.")
    return told


def _at_most(rate: float) -> str:
    if rate < RARE:
        return "practically never"
    return f"at most once in {int(1 / rate + 1e-9):,} runs" if rate <= 0.1 else f"in up to {percent(rate)} of all runs"


def seen_by(convergence: Mapping[str, Any]) -> str:
    """Return how it is known that the gateway had the weights, in words; "" if nothing is said about it."""
    state, reason = convergence.get("state"), convergence.get("reason") or ""
    how = {
        "observed": "Observed in the gateway's own configuration.",
        "behavioural": "Behavioural: the gateway's configuration was not seen.",
        "unknown": "Unknown: the gateway's configuration was not seen.",
        "unchecked": "Not checked.",
    }.get(state or "", state or "")
    return f"{how} {reason}".strip()


def lagging(data: Mapping[str, Any]) -> bool:
    """Whether a replica of the gateway was seen without the declared weights."""
    replicas = (data.get("convergence") or {}).get("replicas") or []
    return any(replica.get("ok") is False for replica in replicas)


def gateway_verdict(gateway: Mapping[str, Any]) -> tuple[str, str]:
    """Return what the gateway's counters say, "" if they were not asked, and why, in words.

    That they confirm a probe's tally or not goes before their own verdict: "disagreement", or "unknown" if it cannot be
    known; "unavailable" without the right to look.
    """
    reason, agreement = gateway.get("reason") or "no reason given", gateway.get("agreement") or {}
    verdict = gateway.get("verdict") or ""
    if gateway.get("witness") == "unavailable":
        verdict = "unavailable"
    elif agreement and verdict != "fail":
        agrees = agreement.get("agrees")
        verdict = "unknown" if agrees is None else "pass" if agrees else "disagreement"
        reason = agreement.get("reason") or reason
    return verdict, reason
