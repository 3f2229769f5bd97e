# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What of a verification's result goes into its report. Pure.

Only keys that are known here get in, and only values of the type that they should have: what a report must not tell,
such as credentials in a variable that somebody combined with the result, has no way into it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, Callable, NamedTuple

from ansible_collections.trafficshift.istio.plugins.module_utils._tally import Trajectory

SCHEMA = 1  # of the JSON report; rises when a key goes or changes its meaning, not when one is added
LONGEST = 2000  # characters of one text
HIDDEN = "***"

# Name and password of a URL; what an authorization header, an option or a variable gives away; a JSON web token.
_SECRETS = (
    (re.compile(r"[^\s:/@'\"<>(]*:[^\s@/]+@(?=[^\s@])"), f"{HIDDEN}@"),
    (re.compile(r"(?i)\b(bearer|basic)\s+[\w+/=.~-]{8,}"), rf"\1 {HIDDEN}"),
    (
        re.compile(
            r"(?i)([\w-]*(?:passw(?:or)?d|secret|token|api[_-]?key)[\w-]*['\"]?\s*[:=]\s*)('[^']*'|\"[^\"]*\"|[^\s,;&]+)"
        ),
        rf"\1{HIDDEN}",
    ),
    (re.compile(r"\beyJ[\w-]+\.[\w-]+\.[\w-]*"), HIDDEN),
)
# What XML 1.0 has no place for: most control characters, halves of surrogate pairs, two non-characters.
_ILLEGAL = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

# Returns what goes into the report; raises ValueError for a value that does not.
Shape = Callable[[Any], Any]


def _text(value: Any) -> str:
    if not isinstance(value, (str, int, float)) or isinstance(value, bool):
        raise ValueError
    text = _ILLEGAL.sub("\ufffd", str(value))
    for pattern, instead in _SECRETS:
        text = pattern.sub(instead, text)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def _number(value: Any) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not math.isfinite(value):
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
        return list(_fitting((index, of, item) for index, item in enumerate(value)).values())

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


_REPORT = _record(
    name=_text,
    started=_text,
    ended=_text,
    passed=_flag,
    verdict=_text,
    msg=_text,
    witness=_text,
    expect=_mapping(_number),
    profile=_text,
    tolerance=_number,
    alpha=_number,
    beta=_number,
    max_probes=_number,
    max_errors=_number,
    probes=_number,
    counts=_mapping(_number),
    shares=_mapping(_number),
    intervals=_mapping(_interval),
    more=_number,
    errors=_mapping(_number),
    error_details=_mapping(_text),
    unexpected=_mapping(_number),
    latency=_record(min=_number, median=_number, p95=_number, p99=_number, max=_number),
    deviations=_sequence(_record(destination=_text, expected=_number, observed=_number)),
    duration=_number,
    protocol=_text,
    connections=_mapping(_number),
    unanswered=_number,
    runs=_number,
    address=_text,
    ingress=_record(host=_text, port=_number, source=_text, reason=_text),
    trajectory=_trajectory,
    error_rates=_mapping(_number),
    convergence=_record(
        state=_text,
        reason=_text,
        duration=_number,
        replicas=_sequence(
            _record(
                name=_text, weights=_mapping(_number), clusters=_sequence(_text), warming=_flag, ok=_flag, error=_text
            )
        ),
    ),
    gateway=_record(),
    weights=_mapping(_number),
    versions=_record(ansible=_text, collection=_text, python=_text, kubernetes=_text),
)


def report_data(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a report tells of a result of tcp_verify, whatever of it is there.

    The trajectory is decoded to {"probes": [int], "counts": {destination: [int]}}; secrets in texts are masked.
    """
    return {"schema": SCHEMA, **_REPORT(result)}


class Destination(NamedTuple):
    """A row of the verdict: percent expected, replies, fraction observed and its interval, and where it stands.

    The standing is "inside" or "outside" the band where the evidence says so, else "open"; "not probed" without probes.
    """

    word: str
    percent: float
    count: int | None
    share: float | None
    interval: list[float] | None
    standing: str


def destinations(data: Mapping[str, Any]) -> list[Destination]:
    """Return the expected destinations, in the order of the question."""
    band = data.get("tolerance") or 0.0
    outside = {deviation.get("destination") for deviation in data.get("deviations") or []}
    rows = []
    for word, percent in (data.get("expect") or {}).items():
        share = (data.get("shares") or {}).get(word)
        interval = (data.get("intervals") or {}).get(word)
        wanted = (percent or 0) / 100
        if not data.get("probes") or share is None:
            standing = "not probed"
        elif data.get("verdict") == "fail" and word in outside:
            standing = "outside"
        elif data.get("verdict") == "pass" or (interval and wanted - band < interval[0] <= interval[1] < wanted + band):
            standing = "inside"
        else:
            standing = "open"
        rows.append(Destination(word, percent or 0, (data.get("counts") or {}).get(word), share, interval, standing))
    return rows


def allowed(percent: float, tolerance: float | None) -> str:
    """Return what a share may be, in words: 0 and 100 percent are exact rules."""
    if percent in (0, 100) or not tolerance:
        return f"exactly {percent:g} %"
    return f"{percent:g} % ± {tolerance * 100:g} points"
