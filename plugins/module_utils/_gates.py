# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The health gates of a rollout: failures in absolute numbers, and compared with the old version's. Pure.

Compared means a sequential test that the new version does not fail more often than the old one. Of the connections of a
window let q be the share that went to the new version. If both fail equally often, each of the F failures falls on the
new one with chance q, without replacement; if failures there are r times as likely, with odds r times as high. The
evidence of S failures on the new one is a mixture, over ratios r, of likelihood ratios,

    E = sum over r of weight(r) r^S / (1 + q (r-1))^F

and of several windows, whose q differ, r^S / (1 + q (r-1))^F is multiplied before it is summed: the ratio is the same
in all of them. Given F and the windows' connections, E is 1 at most in expectation: r^S is convex in S, so drawing
without replacement makes less of it than binomial drawing (Hoeffding, J. Am. Stat. Assoc. 58, 1963), of which the
denominator is the mean. A new version that fails less often makes S smaller and with it E, since q (r-1) < r-1. So the
products are a supermartingale, and the chance that E ever reaches 1/alpha, however often one looks, is at most alpha
(Ville's inequality). What it rests on: within a window the weights stay as they are, and which version a connection
gets has nothing to do with whether it fails. How often connections fail may change at any time, as long as it does for
both. A single event that fails many connections of one version counts as many.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

# How many times as likely failures of the new version are, and the weights: half for one that alone fails.
_RATIOS = ((1.5, 0.125), (2.0, 0.125), (4.0, 0.125), (8.0, 0.125), (1e4, 0.5))
_KINDS = 5  # kinds of errors that are told


class Exposure(NamedTuple):
    """Connections that were begun and, of those, failed; of one version over one window."""

    made: int
    failed: int


class Gate(NamedTuple):
    """A gate's name, whether it is passed, and one clause that says why."""

    gate: str
    ok: bool
    msg: str


def absolute(version: str, exposure: Exposure, allowed: int) -> Gate:
    """Return whether no more connections to the version failed than allowed.

    Raises ValueError, in one sentence, for impossible numbers.
    """
    _check(f"connections to {version}", exposure)
    _check_count("the number of failures allowed", allowed)
    failed = f"{exposure.failed} of {exposure.made} connections to {version} failed, {allowed} may"
    return Gate("connect_failures", exposure.failed <= allowed, failed)


def errors_gate(errors: Mapping[str, int], probes: int, allowed: int) -> Gate:
    """Return whether no more of the probes ended in errors (counts by kind) than allowed.

    Raises ValueError, in one sentence, for impossible numbers.
    """
    total = _total("probes", errors, probes)
    _check_count("the number of probe errors allowed", allowed)
    kinds = sorted(errors.items(), key=lambda item: -item[1])
    told = ", ".join([f"{count} {kind}" for kind, count in kinds[:_KINDS]] + ["and others"] * (len(kinds) > _KINDS))
    seen = f"{total} of {probes} probes got no valid answer{f' ({told})' if total else ''}"
    return Gate("probe_errors", total <= allowed, f"{seen}, {allowed} may")


class Comparison:
    """Whether the new version's connections fail more often than the old one's; one for a whole ramp.

    A new version that is not worse is found worse with a chance of at most alpha in the whole ramp, see above. With an
    alpha of 0.001, failures of both versions together that it typically takes to find one worse:

        share of the new version          5 %    20 %    50 %    80 %
        it alone fails                      3       5      11      34
        it fails 10 times as often         19      13      19      56
        it fails 3 times as often         143      64      60     130
        it fails twice as often           437     164     144     262

    At 0 and at 100 percent there is nothing to compare, and evidence stays what it was.
    """

    def __init__(self, alpha: float, old: str = "the old version", new: str = "the new version") -> None:
        """Take the chance of a wrong alarm. Raises ValueError, in one sentence, for an impossible one."""
        _check_alpha(alpha)
        self._alpha = alpha
        self._names = (old, new)
        self._logs = [0.0] * len(_RATIOS)  # of each ratio's product
        self._old = self._new = Exposure(0, 0)
        self._expected = 0.0

    def add(self, old: Exposure, new: Exposure) -> None:
        """Take in a window: what was counted since the last one, under weights that did not change in it.

        Raises ValueError, in one sentence, for impossible numbers.
        """
        for version, exposure in zip(self._names, (old, new)):
            _check(f"connections to {version}", exposure)
        if old.made + new.made:
            share, failed = new.made / (old.made + new.made), old.failed + new.failed
            self._logs = [log + more for log, more in zip(self._logs, _logs(share, new.failed, failed))]
            self._expected += share * failed
        self._old = Exposure(self._old.made + old.made, self._old.failed + old.failed)
        self._new = Exposure(self._new.made + new.made, self._new.failed + new.failed)

    def worse(self) -> bool:
        """Return whether the new version is shown to be worse."""
        return _evidence(self._logs) >= -math.log(self._alpha)

    def gate(self) -> Gate:
        """Return the gate, which is passed unless the new version is shown to be worse."""
        worse = self.worse()
        (old, new), total = self._names, self._old.failed + self._new.failed
        seen = (
            f"{self._new.failed} of {self._new.made} connections to {new} failed and {self._old.failed} of "
            f"{self._old.made} to {old}, where equals would have {self._expected:.3g} of the {total} on {new}"
        )
        said = f"{new} fails more often than {old}" if worse else f"{new} is not shown to fail more often than {old}"
        return Gate("connect_failures_compared", not worse, f"{said}: {seen} (alpha {self._alpha:g})")


class ErrorComparison:
    """Whether probes of a ramp err more often than those of a baseline, made while the old version took everything.

    Of n probes since a step and m of the baseline, an error falls on the step's with chance q = n / (n + m) if both err
    equally often; the evidence is the same as above. Errors may begin with any step, so those since each step are
    compared with the baseline, since the j-th at the level alpha / (j (j+1)), which sums up to alpha.

    For one look at a number of probes fixed beforehand, E is 1 at most in expectation. With a baseline that is used
    time and again that is no proof for looks at any time. There the chance of a wrong alarm was computed exactly (see
    the tests for some of it), with a look after every probe or every 20th, for baselines of 100 and 1000 probes, runs
    30 and 20 times as long and levels from 0.0002 to 0.49: it was at most 0.75 of the level. All this is for an error
    rate that is the same at all times: a network that got worse since the baseline looks as if the new version had.

    With alpha = 0.001, a baseline without errors and errors that begin with the first step, it takes 12 errors in as
    many probes as the baseline has, 21 in twice and 37 in four times as many; a small baseline finds little.
    """

    def __init__(self, alpha: float, baseline_errors: Mapping[str, int], baseline_probes: int) -> None:
        """Take the chance of a wrong alarm and the baseline, errors by kind.

        Raises ValueError, in one sentence, for impossible numbers.
        """
        _check_alpha(alpha)
        self._alpha = alpha
        self._baseline = Exposure(baseline_probes, _total("probes of the baseline", baseline_errors, baseline_probes))
        self._steps: list[Exposure] = []

    def add(self, errors: Mapping[str, int], probes: int) -> None:
        """Take in a step: its own errors by kind, and its own probes.

        Raises ValueError, in one sentence, for impossible numbers.
        """
        self._steps.append(Exposure(probes, _total("probes", errors, probes)))

    def worse(self) -> bool:
        """Return whether probes are shown to err more often than in the baseline."""
        for number in range(1, len(self._steps) + 1):
            since = self._sum(self._steps[number - 1 :])
            probes, failed = since.made + self._baseline.made, since.failed + self._baseline.failed
            logs = _logs(since.made / probes, since.failed, failed) if probes else [0.0] * len(_RATIOS)
            if _evidence(logs) >= math.log(number * (number + 1) / self._alpha):
                return True
        return False

    def gate(self) -> Gate:
        """Return the gate, which is passed unless errors are shown to be more frequent than in the baseline."""
        worse, steps = self.worse(), self._sum(self._steps)
        said = "probes fail more often" if worse else "probes are not shown to fail more often"
        seen = f"{steps.failed} of {steps.made} failed, before it {self._baseline.failed} of {self._baseline.made}"
        return Gate("probe_errors_compared", not worse, f"{said} than before the ramp: {seen} (alpha {self._alpha:g})")

    @staticmethod
    def _sum(steps: Sequence[Exposure]) -> Exposure:
        return Exposure(sum(step.made for step in steps), sum(step.failed for step in steps))


def _logs(share: float, hits: int, failed: int) -> list[float]:
    """Return the logarithm of the likelihood ratio for each ratio."""
    return [hits * math.log(ratio) - failed * math.log1p(share * (ratio - 1)) for ratio, _weight in _RATIOS]


def _evidence(logs: Sequence[float]) -> float:
    """Return the logarithm of E."""
    largest = max(logs)
    return largest + math.log(sum(weight * math.exp(log - largest) for log, (_r, weight) in zip(logs, _RATIOS)))


def _total(what: str, errors: Mapping[str, int], probes: int) -> int:
    for kind, count in errors.items():
        _check_count(f"the number of {what} with the error {kind}", count)
    total = sum(errors.values())
    _check(what, Exposure(probes, total))
    return total


def _check(what: str, exposure: Exposure) -> None:
    _check_count(f"the number of {what}", exposure.made)
    _check_count(f"the number of failed {what}", exposure.failed)
    if exposure.failed > exposure.made:
        raise ValueError(f"{exposure.failed} of {exposure.made} {what} cannot have failed; count both over one window")


def _check_count(what: str, count: object) -> None:
    if isinstance(count, bool) or not isinstance(count, int) or count < 0:
        raise ValueError(f"{what} is {count!r}; give a whole number, at least 0")


def _check_alpha(alpha: object) -> None:
    if isinstance(alpha, bool) or not isinstance(alpha, (int, float)) or not 0 < alpha < 0.5:
        raise ValueError(f"alpha is {alpha!r}; give the chance of a wrong alarm, above 0 and below 0.5, such as 0.001")
