# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tally: nothing gets lost, and memory does not grow."""

from __future__ import annotations

import math
import statistics

import pytest
from ansible_collections.trafficshift.istio.plugins.module_utils._tally import OTHERS, STRANGERS, Latency, Tally
from hypothesis import given
from hypothesis import strategies as st

outcomes = st.one_of(
    st.tuples(st.just(""), st.sampled_from(["one", "two"]), st.floats(0, 100)),
    st.tuples(st.sampled_from(["refused", "timeout", "unexpected"]), st.text(max_size=3), st.floats(0, 100)),
)


@given(st.lists(outcomes))
def test_every_outcome_is_counted_once(given_outcomes: list[tuple[str, str, float]]) -> None:
    tally = Tally(["one", "two", "three"])
    for outcome in given_outcomes:
        tally.add(*outcome)
    assert tally.probes == len(given_outcomes) == tally.answered + sum(tally.errors.values())
    assert sum(tally.unexpected.values()) == tally.errors.get("unexpected", 0)
    assert tally.counts == {
        name: sum(outcome[:2] == ("", name) for outcome in given_outcomes) for name in ("one", "two", "three")
    }
    assert set(tally.details) == set(tally.errors)
    assert all(0 <= share <= 1 for share in tally.shares().values())


def test_shares_are_of_all_probes() -> None:
    tally = Tally(["one", "two"])
    assert tally.shares() == {"one": 0.0, "two": 0.0}
    for outcome in [("", "one", 0.1)] * 6 + [("", "two", 0.1)] * 2 + [("reset", "gone", 0.1)] * 2:
        tally.add(*outcome)
    assert tally.shares() == {"one": 0.6, "two": 0.2}
    assert tally.errors == {"reset": 2}
    assert tally.details == {"reset": "gone"}


def test_the_first_error_of_a_kind_is_told() -> None:
    tally = Tally(["one"])
    tally.add("timeout", "no reply within 5 s", 5.0)
    tally.add("timeout", "no connection within 5 s", 5.0)
    assert tally.details == {"timeout": "no reply within 5 s"}


def test_words_off_the_wire_cannot_fill_the_memory() -> None:
    tally = Tally(["one"])
    for number in range(1000):
        tally.add("unexpected", f"word{number}", 0.1)
    assert len(tally.unexpected) == STRANGERS + 1
    assert tally.unexpected[OTHERS] == 1000 - STRANGERS
    tally.add("unexpected", "word0", 0.1)
    assert tally.unexpected["word0"] == 2


def test_latency_of_answers_only() -> None:
    tally = Tally(["one"])
    assert tally.latency() == dict.fromkeys(("min", "median", "p95", "p99", "max"))
    tally.add("timeout", "", 5.0)
    assert tally.latency()["max"] is None
    tally.add("", "one", 0.25)
    assert tally.latency() == dict.fromkeys(("min", "median", "p95", "p99", "max"), 0.25)


@given(st.lists(st.floats(1e-5, 1e4), min_size=1), st.floats(0, 1))
def test_quantiles_to_one_percent(values: list[float], share: float) -> None:
    latency = Latency()
    for value in values:
        latency.add(value)
    exact = sorted(values)[max(1, math.ceil(share * len(values))) - 1]
    assert latency.quantile(share) == pytest.approx(exact, rel=0.011)
    summary = latency.summary()
    assert summary["min"] == round(min(values), 6)
    assert summary["max"] == round(max(values), 6)
    assert summary["median"] == pytest.approx(statistics.median_low(values), rel=0.011, abs=1e-6)


def test_a_million_latencies_take_bounded_memory() -> None:
    latency = Latency()
    for number in range(100_000):
        latency.add((number % 10_007 + 1) * 1e-4)
    latency.add(0.0)
    latency.add(1e9)
    assert len(latency._buckets) < 1000
