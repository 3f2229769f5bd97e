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
                f"expect has the key {word!r}, which no reply can begin with; give a word without white space, as a string"
            )
        if not _is_number(percent) or not 0 <= percent <= 100:
            raise ValueError(f"expect gives {word} {percent!r} percent; give a number from 0 to 100")
    total = sum(map(_exact, expect.values()))
    if total != 100:
        raise ValueError(f"the percentages in expect sum to {float(total):g} ({_listed(expect)}); make them sum to 100")
    if not _is_number(tolerance) or not 0 < tolerance < 1:
        raise ValueError(f"tolerance is {tolerance!r}; give a fraction between 0 and 1, such as 0.05 for 5 points")


def judge(
    expect: Mapping[str, float], tolerance: float, counts: Mapping[str, int], errors: Mapping[str, int]
) -> Verdict:
    """Compare the counts with what was expected; the share of a destination is taken of all probes, errors included.

    Destinations of 0 and of 100 percent have no tolerance. Any error fails: a probe without an answer went nowhere.
    Raises ValueError for a question that makes no sense, see check_question.
    """
    check_question(expect, tolerance)
    failed = sum(errors.values())
    probes = sum(counts.values()) + failed
    if not probes:
        return Verdict(False, "no probe was made", [])
    # Beside errors, the shares are compared among the answers: else every error would be told twice.
    answered = probes - failed
    deviations = []
    for word, percent in expect.items():
        wanted, seen = _exact(percent) / 100, Fraction(counts.get(word, 0), max(1, answered))
        band = 0 if wanted in (0, 1) else _exact(tolerance)
        if answered and abs(seen - wanted) > band:
            deviations.append(Deviation(word, float(wanted), float(seen)))
    deviations.sort(key=lambda deviation: -abs(deviation.observed - deviation.expected))
    faults = []
    if failed:
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(errors.items(), key=lambda item: -item[1]))
        faults.append(f"{failed} of {probes} probes got no valid answer ({kinds})")
    faults += [_sentence(deviation, tolerance) for deviation in deviations]
    seen_text = ", ".join(f"{word} {counts.get(word, 0)}" for word in expect)
    if faults:
        return Verdict(False, f"{'; '.join(faults)}; seen in {probes} probes: {seen_text}", deviations)
    return Verdict(True, f"the split is as expected ({_listed(expect)}); seen in {probes} probes: {seen_text}", [])


def _sentence(deviation: Deviation, tolerance: float) -> str:
    band = "exactly" if deviation.expected in (0, 1) else f"within {_percent(tolerance)} points of"
    return (
        f"{deviation.destination} got {_percent(deviation.observed)} % where {band} "
        f"{_percent(deviation.expected)} % was expected"
    )


def _listed(expect: Mapping[str, float]) -> str:
    return ", ".join(f"{word} {percent:g} %" for word, percent in expect.items())


def _percent(share: float) -> str:
    return f"{share * 100:.4g}"


def _is_number(value: object) -> bool:
    return not isinstance(value, bool) and isinstance(value, (int, float)) and math.isfinite(value)


def _exact(value: float) -> Fraction:
    """Return the decimal number as it was written, 0.05 as 1/20."""
    return Fraction(str(value))
