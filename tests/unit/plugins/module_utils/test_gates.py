# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The health gates: what trips them, how often they are wrong, and which numbers are refused."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from ansible_collections.trafficshift.istio.plugins.module_utils._gates import (
    _RATIOS,
    Comparison,
    ErrorComparison,
    Exposure,
    _evidence,
    _logs,
    absolute,
    errors_gate,
)
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, hypergeom

NONE = Exposure(0, 0)
WINDOWS = st.lists(
    st.tuples(st.integers(0, 300), st.integers(0, 300), st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=4
)


def evidence(share: float, hits: Any, failed: Any) -> Any:
    """The logarithm of E for whole arrays."""
    logs = [math.log(w) + hits * math.log(r) - failed * np.log1p(share * (r - 1)) for r, w in _RATIOS]
    return np.logaddexp.reduce(logs)


@pytest.mark.parametrize(("failed", "ok"), [(0, True), (2, True), (3, False)])
def test_absolute(failed: int, ok: bool) -> None:
    gate = absolute("v2", Exposure(120, failed), 2)
    assert gate == ("connect_failures", ok, f"{failed} of 120 connections to v2 failed, 2 may")


def test_errors() -> None:
    assert errors_gate({}, 50, 0) == ("probe_errors", True, "0 of 50 probes got no valid answer, 0 may")
    gate = errors_gate({"reset": 1, "timeout": 3}, 50, 3)
    assert gate == ("probe_errors", False, "4 of 50 probes got no valid answer (3 timeout, 1 reset), 3 may")
    assert errors_gate({str(kind): 1 for kind in range(9)}, 50, 9).msg.endswith("1 4, and others), 9 may")


@given(WINDOWS, st.sampled_from([0.001, 0.05, 0.4]))
def test_the_formula(windows: Any, alpha: float) -> None:
    """Against binomial likelihoods from scipy: a product over the windows for each ratio, then the mixture."""
    comparison, total = Comparison(alpha), np.log([weight for _ratio, weight in _RATIOS])
    for old, new, bad_old, bad_new in windows:
        failed = (int(bad_old * old), int(bad_new * new))
        comparison.add(Exposure(old, failed[0]), Exposure(new, failed[1]))
        share = new / (old + new) if old + new else 0.0
        for index, (ratio, _weight) in enumerate(_RATIOS):
            theirs = share * ratio / (share * ratio + 1 - share)
            total[index] += binom.logpmf(failed[1], sum(failed), theirs) - binom.logpmf(failed[1], sum(failed), share)
    assert _evidence(comparison._logs) == pytest.approx(np.logaddexp.reduce(total), abs=1e-6)
    assert comparison.worse() is (_evidence(comparison._logs) >= math.log(1 / alpha))
    assert comparison.gate().ok is not comparison.worse()


@pytest.mark.parametrize("old", [0, 1, 5, 12])
@pytest.mark.parametrize("new", [0, 1, 4, 12])
def test_no_evidence_is_to_be_expected_of_equals(old: int, new: int) -> None:
    """By enumeration of every way in which failures can fall, given how many there are."""
    for failed in range(old + new + 1 if old + new else 0):
        hits = range(max(0, failed - old), min(new, failed) + 1)
        mean = sum(
            hypergeom.pmf(s, old + new, new, failed) * math.exp(_evidence(_logs(new / (old + new), s, failed)))
            for s in hits
        )
        assert mean <= 1 + 1e-9


@pytest.mark.parametrize("alpha", [0.05, 0.3])
@pytest.mark.parametrize("rate", [0.1, 0.4])
def test_false_alarms_by_enumeration(alpha: float, rate: float) -> None:
    """Every course of a small ramp of four windows, with a look after each."""
    alive: dict[tuple[float, ...], float] = {tuple([0.0] * len(_RATIOS)): 1.0}
    alarms = 0.0
    for old, new in [(5, 1), (4, 2), (3, 3), (1, 4)]:
        outcomes = [
            (_logs(new / (old + new), s, s + f), float(binom.pmf(s, new, rate) * binom.pmf(f, old, rate)))
            for s in range(new + 1)
            for f in range(old + 1)
        ]
        following: dict[tuple[float, ...], float] = {}
        for logs, chance in alive.items():
            for further, outcome in outcomes:
                key = tuple(round(a + b, 6) for a, b in zip(logs, further))
                if _evidence(key) >= -math.log(alpha):
                    alarms += chance * outcome
                else:
                    following[key] = following.get(key, 0.0) + chance * outcome
        alive = following
    assert 0 < alarms <= alpha
    assert alarms + sum(alive.values()) == pytest.approx(1)


@pytest.mark.parametrize(("ratio", "alarmed"), [(0.5, False), (1, False), (10, True)])
def test_simulated_ramps(ratio: float, alarmed: bool) -> None:
    """Real numbers of a ramp, a look after every wave, a failure rate that both share and that changes."""
    random, alarms, runs = np.random.default_rng(7), 0, 400
    for _run in range(runs):
        comparison = Comparison(0.05)
        for share in (0.05, 0.2, 0.5, 0.8):
            for _wave in range(5):
                rate = random.choice([0.0, 0.01, 0.08])
                new = int(random.binomial(200, share))
                bad = (random.binomial(200 - new, rate), random.binomial(new, rate * ratio))
                comparison.add(Exposure(200 - new, int(bad[0])), Exposure(new, int(bad[1])))
                if comparison.worse():
                    break
            if comparison.worse():
                alarms += 1
                break
    assert alarms > 0.95 * runs if alarmed else alarms <= 0.05 * runs


def test_windows_may_be_cut() -> None:
    whole, cut = Comparison(0.001), Comparison(0.001)
    whole.add(Exposure(800, 6), Exposure(200, 4))
    cut.add(Exposure(400, 6), Exposure(100, 1))
    cut.add(Exposure(400, 0), Exposure(100, 3))
    assert cut._logs == pytest.approx(whole._logs)


@pytest.mark.parametrize(("percent", "enough"), [(5, 3), (20, 5), (50, 11), (80, 34)])
def test_power(percent: int, enough: int) -> None:
    """As the table says: so many failures of the new version alone, and one fewer do not do."""
    for failed in (enough - 1, enough):
        comparison = Comparison(0.001, "v1", "v2")
        comparison.add(Exposure(1000 - 10 * percent, 0), Exposure(10 * percent, failed))
        assert comparison.worse() is (failed == enough)


def test_what_a_comparison_says() -> None:
    comparison = Comparison(0.001, "v1", "v2")
    assert comparison.gate().ok
    comparison.add(Exposure(950, 1), Exposure(50, 0))
    assert comparison.gate().msg == (
        "v2 is not shown to fail more often than v1: 0 of 50 connections to v2 failed and 1 of 950 to v1, where equals "
        "would have 0.05 of the 1 on v2 (alpha 0.001)"
    )
    comparison.add(Exposure(800, 0), Exposure(200, 9))
    assert comparison.gate() == (
        "connect_failures_compared",
        False,
        "v2 fails more often than v1: 9 of 250 connections to v2 failed and 1 of 1750 to v1, where equals would have "
        "1.85 of the 10 on v2 (alpha 0.001)",
    )


def test_nothing_to_compare() -> None:
    comparison = Comparison(0.4)
    for old, new in [(NONE, NONE), (Exposure(90, 90), NONE), (NONE, Exposure(90, 90))]:
        comparison.add(old, new)
    assert _evidence(comparison._logs) == pytest.approx(0)
    errors = ErrorComparison(0.4, {}, 0)
    errors.add({}, 0)
    errors.add({"reset": 50}, 50)
    assert not errors.worse()


@pytest.mark.parametrize(("times", "enough"), [(1, 12), (2, 21), (4, 37)])
def test_power_of_errors(times: int, enough: int) -> None:
    for failed in (enough - 1, enough):
        errors = ErrorComparison(0.001, {}, 300)
        errors.add({"reset": failed}, 300 * times)
        assert errors.worse() is (failed == enough)


def test_errors_that_begin_late() -> None:
    errors = ErrorComparison(0.001, {"timeout": 1}, 1000)
    for _step in range(3):
        errors.add({}, 5000)
    assert errors.gate() == (
        "probe_errors_compared",
        True,
        "probes are not shown to fail more often than before the ramp: 0 of 15000 failed, before it 1 of 1000 "
        "(alpha 0.001)",
    )
    errors.add({"reset": 40}, 1000)
    assert errors.gate().msg.startswith("probes fail more often than before the ramp: 40 of 16000 failed")
    assert not errors.gate().ok


@pytest.mark.parametrize("alpha", [0.01, 0.2])
@pytest.mark.parametrize("baseline", [20, 100])
@pytest.mark.parametrize("errors", [0.5, 2, 4, 8])
def test_false_alarms_of_errors(alpha: float, baseline: int, errors: float) -> None:
    """Exact, with a look after each probe of a first step as long as ten baselines."""
    rate = errors / baseline
    before = np.arange(int(binom.ppf(1 - 1e-9, baseline, rate)) + 1)[:, None]
    hits = np.arange(200 if errors < 8 else 300)[None, :]
    chances = np.zeros((before.size, hits.size))
    chances[:, 0] = binom.pmf(before[:, 0], baseline, rate)
    alarms = 0.0
    for probes in range(1, 10 * baseline + 1):
        chances[:, 1:] = chances[:, 1:] * (1 - rate) + chances[:, :-1] * rate
        chances[:, 0] *= 1 - rate
        out = evidence(probes / (probes + baseline), hits, hits + before) >= math.log(2 / alpha)
        alarms += chances[out].sum()
        chances[out] = 0
    # The first step has half of alpha.
    assert 0 <= alarms <= alpha / 2
    assert alarms + chances.sum() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: absolute("v2", Exposure(3, 4), 0), "4 of 3 connections to v2 cannot have failed"),
        (lambda: absolute("v2", Exposure(-1, 0), 0), "the number of connections to v2 is -1"),
        (lambda: absolute("v2", Exposure(3, 0), -1), "the number of failures allowed is -1"),
        (lambda: errors_gate({"reset": -1}, 5, 0), "the number of probes with the error reset is -1"),
        (lambda: errors_gate({"reset": 3, "empty": 3}, 5, 0), "6 of 5 probes cannot have failed"),
        (lambda: errors_gate({}, 5, True), "the number of probe errors allowed is True"),
        (lambda: Comparison(0.5), "alpha is 0.5"),
        (lambda: Comparison(0), "alpha is 0"),
        (lambda: ErrorComparison(math.nan, {}, 5), "alpha is nan"),
        (lambda: ErrorComparison(0.1, {"reset": 6}, 5), "6 of 5 probes of the baseline cannot have failed"),
        (lambda: ErrorComparison(0.1, {}, 5).add({}, -5), "the number of probes is -5"),
        (lambda: Comparison(0.1).add(NONE, Exposure(1, 2)), "2 of 1 connections to the new version cannot"),
        (lambda: Comparison(0.1).add(Exposure(1, 1.5), NONE), "failed connections to the old version is 1.5"),  # type: ignore[arg-type]
    ],
)
def test_impossible_numbers(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
