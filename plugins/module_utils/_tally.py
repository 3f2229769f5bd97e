# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Counts what probes brought back, in memory that does not grow with their number. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable

STRANGERS = 10  # distinct unexpected words that are counted by name; the rest is counted together
OTHERS = "(others)"

_SMALLEST = 1e-6  # seconds; the clock tells no shorter times apart
_STEP = math.log(1.01)  # each bucket is 1 % wide, which is the error of a quantile


class Latency:
    """A histogram of seconds: exact minimum and maximum, quantiles to 1 %."""

    def __init__(self) -> None:
        self._buckets: dict[int, int] = {}
        self._count = 0
        self._min = math.inf
        self._max = 0.0

    def add(self, seconds: float) -> None:
        bucket = int(math.log(seconds / _SMALLEST) / _STEP) if seconds > _SMALLEST else 0
        self._buckets[bucket] = self._buckets.get(bucket, 0) + 1
        self._count += 1
        self._min = min(self._min, seconds)
        self._max = max(self._max, seconds)

    def quantile(self, share: float) -> float | None:
        """Return the seconds that `share` (0 to 1) of the values do not exceed, None without values."""
        left = max(1, math.ceil(share * self._count))
        for bucket in sorted(self._buckets):
            left -= self._buckets[bucket]
            if left <= 0:
                middle = _SMALLEST * math.exp((bucket + 0.5) * _STEP)
                return min(max(middle, self._min), self._max)
        return None

    def summary(self) -> dict[str, float | None]:
        """Return min, median, p95, p99 and max in seconds, rounded to a microsecond; None without values."""
        values = {
            "min": self._min if self._count else None,
            "median": self.quantile(0.5),
            "p95": self.quantile(0.95),
            "p99": self.quantile(0.99),
            "max": self._max if self._count else None,
        }
        return {name: None if value is None else round(value, 6) for name, value in values.items()}


class Tally:
    """The outcomes of probes: answers by destination, errors by kind."""

    def __init__(self, destinations: Iterable[str]) -> None:
        self.probes = 0
        self.counts: dict[str, int] = dict.fromkeys(destinations, 0)
        self.errors: dict[str, int] = {}
        self.details: dict[str, str] = {}  # what the first error of each kind said
        self.unexpected: dict[str, int] = {}  # replies that name no destination, by their first word
        self._latency = Latency()

    def add(self, kind: str, text: str, seconds: float) -> None:
        """Count an outcome: kind "" is an answer from the destination `text`, any other kind an error."""
        self.probes += 1
        if not kind:
            self.counts[text] += 1
            self._latency.add(seconds)
            return
        self.errors[kind] = self.errors.get(kind, 0) + 1
        self.details.setdefault(kind, text)
        if kind == "unexpected":
            known = text in self.unexpected or len(self.unexpected) < STRANGERS
            self.unexpected[text if known else OTHERS] = self.unexpected.get(text if known else OTHERS, 0) + 1

    @property
    def answered(self) -> int:
        return sum(self.counts.values())

    def shares(self) -> dict[str, float]:
        """Return each destination's share of all probes, errors included, as a fraction."""
        return {name: round(count / self.probes, 6) if self.probes else 0.0 for name, count in self.counts.items()}

    def latency(self) -> dict[str, float | None]:
        """Return the seconds from connect to the reply's newline, of the answers only."""
        return self._latency.summary()
