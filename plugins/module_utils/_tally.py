# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Counts what probes brought back, in memory that does not grow with their number. Pure."""

from __future__ import annotations

import base64
import itertools
import json
import math
import zlib
from collections.abc import Iterable, Mapping

STRANGERS = 10  # distinct unexpected words that are counted by name; the rest is counted together
OTHERS = "(others)"
STATES = 512  # that a trajectory holds
PACKED = 1 << 16  # characters of an encoded trajectory that are looked at; two destinations make some 600
UNPACKED = 1 << 18  # bytes of it when unpacked

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
        self.add_all([seconds])

    def add_all(self, values: list[float]) -> None:
        buckets = self._buckets
        for seconds in values:
            bucket = int(math.log(seconds / _SMALLEST) / _STEP) if seconds > _SMALLEST else 0
            buckets[bucket] = buckets.get(bucket, 0) + 1
        self._count += len(values)
        self._min = min([self._min, *values])
        self._max = max([self._max, *values])

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


class Trajectory:
    """How the counts grew: (probes so far, count of each destination) every `stride` probes, and at the end.

    The stride is 1 at first; whenever more than STATES are held, every other one is dropped and the stride doubles.
    """

    def __init__(self, destinations: Iterable[str]) -> None:
        self.mark = 1  # the number of probes at which the next state is kept
        self._words = list(destinations)
        self._stride = 1
        self._states: list[list[int]] = []
        self._last: list[int] = []

    def add(self, probes: int, counts: Mapping[str, int]) -> None:
        """Take the state after `probes` probes, as the last one, and for good if it is at the mark or beyond."""
        self._last = [probes, *map(counts.__getitem__, self._words)]
        if probes < self.mark:
            return
        self._states.append(self._last)
        if len(self._states) > STATES:
            self._stride *= 2
            self._states = [state for state in self._states if state[0] % self._stride == 0]
        self.mark = probes - probes % self._stride + self._stride

    def encode(self) -> str:
        """Return all of it as one line, "" without probes: JSON of the words and of each column's growth, packed."""
        states = self._states if self._states[-1:] == [self._last] else [*self._states, self._last]
        if not self._last:
            return ""
        growth = [[after - before for before, after in zip([0, *column], column)] for column in zip(*states)]
        packed = json.dumps([self._words, *growth], separators=(",", ":")).encode()
        return base64.b64encode(zlib.compress(packed, 9)).decode()

    @staticmethod
    def decode(text: str) -> tuple[list[int], dict[str, list[int]]]:
        """Return the probes of each state and, as long, each destination's counts; [] and {} for "".

        Raises ValueError for a text that encode() does not return.
        """
        try:
            return _unpack(text) if text else ([], {})
        except (ValueError, TypeError, RecursionError, zlib.error):
            raise ValueError("the trajectory cannot be read; give it as tcp_probe returned it") from None


def _unpack(text: str) -> tuple[list[int], dict[str, list[int]]]:
    if len(text) > PACKED:
        raise ValueError
    unpacker = zlib.decompressobj()
    plain = unpacker.decompress(base64.b64decode(text, validate=True), UNPACKED)
    if not unpacker.eof:
        raise ValueError
    words, *growth = json.loads(plain)
    steps = [step for column in growth for step in column]
    whole = all(isinstance(step, int) and not isinstance(step, bool) and step >= 0 for step in steps)
    if not whole or not words or not all(isinstance(word, str) for word in words):
        raise ValueError
    probes, *counts = (list(itertools.accumulate(column)) for column in growth)
    rows = list(zip(*counts))
    # More answers than probes, columns of different lengths, or probes that stand still.
    if (
        not len(probes) == len(rows) == max(map(len, counts)) <= STATES + 1
        or len(set(words)) != len(counts)
        or any(sum(row) > made for made, row in zip(probes, rows))
        or not all(growth[0])
    ):
        raise ValueError
    return probes, dict(zip(words, counts))


class Tally:
    """The outcomes of probes: answers by destination, errors by kind."""

    def __init__(self, destinations: Iterable[str]) -> None:
        self.probes = 0
        self.counts: dict[str, int] = dict.fromkeys(destinations, 0)
        self.errors: dict[str, int] = {}
        self.details: dict[str, str] = {}  # what the first error of each kind said
        self.unexpected: dict[str, int] = {}  # replies that name no destination, by their first word
        self._latency = Latency()
        self._trajectory = Trajectory(self.counts)

    def add(self, kind: str, text: str, seconds: float) -> None:
        """Count an outcome: kind "" is an answer from the destination `text`, any other kind an error."""
        self.add_all([(kind, text, seconds)])

    def add_all(self, outcomes: Iterable[tuple[str, str, float]]) -> None:
        """Count outcomes, in their order: many at once take far less time than one by one."""
        counts, trajectory, times = self.counts, self._trajectory, []
        for kind, text, seconds in outcomes:
            self.probes += 1
            if not kind:
                counts[text] += 1
                times.append(seconds)
            else:
                self._add_error(kind, text)
            if self.probes >= trajectory.mark:
                trajectory.add(self.probes, counts)
        self._latency.add_all(times)

    def _add_error(self, kind: str, text: str) -> None:
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

    @property
    def trajectory(self) -> Trajectory:
        """How the counts came about, up to now."""
        if self.probes:
            self._trajectory.add(self.probes, self.counts)
        return self._trajectory
