# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Judges a split: is every destination's share of the probes within tolerance of its percentage? Pure.

Exact arithmetic throughout: whether 0.75 is within 0.05 of 80 % must not hang on binary rounding.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import NamedTuple


class Deviation(NamedTuple):
    """A destination whose share is not what it should be; shares are fractions."""

    destination: str
    expected: float
    observed: float


class Verdict(NamedTuple):
    """The judgement, the sentence that says why, and every deviation, largest first."""

    passed: bool
    reason: str
    deviations: list[Deviation]

    @property
    def verdict(self) -> str:
        return "pass" if self.passed else "fail"


def check_question(expect: Mapping[str, float], tolerance: float) -> None:
    """Raise ValueError, in one sentence, unless expect (percent by reply word) and tolerance (fraction) make sense."""
    if not isinstance(expect, Mapping) or not expect:
        raise ValueError(
            "expect names no destination; give a mapping of reply word to percent, such as {one: 80, two: 20}"
        )
    for word, percent in expect.items():
        if not isinstance(word, str) or not word or word.split() != [word]:
            raise ValueError(
                f"expect has the key {word!r}, which no reply begins with; give a word without white space, as a string"
            )
        if not _is_number(percent) or not 0 <= percent <= 100:
            raise ValueError(f"expect gives {word} {percent!r} percent; give a number from 0 to 100")
    total = sum(map(_exact, expect.values()))
    if total != 100:
        raise ValueError(f"the percentages in expect sum to {float(total):g} ({_listed(expect)}); make them sum to 100")
    if not _is_number(tolerance) or not 0 < tolerance < 1:
        raise ValueError(f"tolerance is {tolerance!r}; give a fraction between 0 and 1, such as 0.05 for 5 points")


def judge(
    expect: Mapping[str, float],
    tolerance: float,
    counts: Mapping[str, int],
    errors: Mapping[str, int],
    details: Mapping[str, str] | None = None,
) -> Verdict:
    """Compare answers (by destination) and errors (by kind, with details to tell) with what was expected.

    The share of a destination is taken of all probes, errors included. For 0 and 100 percent there is no tolerance: one
    stray answer fails. Any error fails, whatever the shares. Raises ValueError as check_question does.
    """
    check_question(expect, tolerance)
    answered, failed = sum(counts.values()), sum(errors.values())
    probes = answered + failed
    if not probes:
        return Verdict(False, "no probe was made", [])
    deviations = []
    for word, percent in expect.items():
        wanted, count = _exact(percent) / 100, counts.get(word, 0)
        if wanted in (0, 1):
            strayed = count != answered * wanted
        else:
            # Without any answer, the errors say it all.
            strayed = answered > 0 and abs(Fraction(count, probes) - wanted) > _exact(tolerance)
        if strayed:
            deviations.append(Deviation(word, float(wanted), count / probes))
    deviations.sort(key=lambda deviation: -abs(deviation.observed - deviation.expected))
    faults = [_sentence(deviation, tolerance) for deviation in deviations]
    if failed:
        kinds = sorted(errors.items(), key=lambda item: -item[1])
        told = (
            f"{count} {kind}" + (f" ({details[kind]})" if details and kind in details else "") for kind, count in kinds
        )
        faults.insert(0, f"{failed} of {probes} probes got no valid answer: {', '.join(told)}")
    seen = ", ".join(f"{word} {counts.get(word, 0)}" for word in expect)
    reason = "; ".join(faults) or f"the split is as expected, {_listed(expect)}"
    return Verdict(not faults, f"{reason} (seen in {probes} probes: {seen})", deviations)


def _sentence(deviation: Deviation, tolerance: float) -> str:
    wanted = f"{_percent(deviation.expected)} %"
    wanted = f"exactly {wanted}" if deviation.expected in (0, 1) else f"{wanted} ± {_percent(tolerance)} points"
    return f"{deviation.destination} got {_percent(deviation.observed)} % where {wanted} was expected"


def _listed(expect: Mapping[str, float]) -> str:
    return ", ".join(f"{word} {percent:g} %" for word, percent in expect.items())


def _percent(share: float) -> str:
    text = f"{share * 100:.4g}"
    # A stray reply in a million must not read as 0 or 100.
    return text if (text in ("0", "100")) is (share in (0, 1)) else f"{share * 100:.10g}"


def _is_number(value: object) -> bool:
    return not isinstance(value, bool) and isinstance(value, (int, float)) and math.isfinite(value)


def _exact(value: float) -> Fraction:
    """Return the decimal number as it was written, 0.05 as 1/20."""
    return Fraction(str(value))
