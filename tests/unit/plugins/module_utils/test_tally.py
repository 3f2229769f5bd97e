# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tally: nothing gets lost, and memory does not grow."""

from __future__ import annotations

import base64
import json
import math
import statistics
import zlib
from typing import Any

import pytest
from ansible_collections.trafficshift.istio.plugins.module_utils._tally import (
    OTHERS,
    PACKED,
    STATES,
    STRANGERS,
    UNPACKED,
    Latency,
    Tally,
    Trajectory,
)
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


@given(st.lists(outcomes, max_size=60))
def test_a_short_trajectory_has_every_state(given_outcomes: list[tuple[str, str, float]]) -> None:
    tally = Tally(["one", "two"])
    states = []
    for outcome in given_outcomes:
        tally.add(*outcome)
        states.append((tally.probes, tally.counts["one"], tally.counts["two"]))
    probes, counts = Trajectory.decode(tally.trajectory.encode())
    assert list(zip(probes, counts.get("one", ()), counts.get("two", ()))) == states


@pytest.mark.parametrize("total", [STATES, STATES + 1, STATES + 2, 1450, 5000, 100_001])
def test_a_long_trajectory_is_thinned_evenly_and_ends_at_the_end(total: int) -> None:
    tally = Tally(["one", "two"])
    for number in range(total):
        tally.add(*(("", "one", 0.1) if number % 5 else ("reset", "", 0.1)))
    text = tally.trajectory.encode()
    probes, counts = Trajectory.decode(text)
    stride = probes[0]
    assert probes == [*range(stride, total, stride), total]
    assert stride == max(1, 2 ** math.ceil(math.log2(total / (STATES + 0.99))))
    assert STATES / 2 <= len(probes) <= STATES + 1
    assert counts == {"one": [made - -(-made // 5) for made in probes], "two": [0] * len(probes)}
    assert text == tally.trajectory.encode(), "reading it changes nothing"
    assert len(text.splitlines()) == 1
    assert len(text) < 1500


def test_reading_a_trajectory_in_between_leaves_no_trace() -> None:
    read, unread = Tally(["one"]), Tally(["one"])
    for _each in range(3000):
        read.add("", "one", 0.1)
        unread.add("", "one", 0.1)
        read.trajectory.encode()
    assert read.trajectory.encode() == unread.trajectory.encode()
    assert len(read._trajectory._states) <= STATES


def packed(value: Any) -> str:
    return base64.b64encode(zlib.compress(json.dumps(value).encode())).decode()


GOOD: list[Any] = [["one", "two"], [1, 1], [1, 0], [0, 1]]


@pytest.mark.parametrize(
    "text",
    [
        "rubbish!",
        "AAAA",
        "\u00fc",
        base64.b64encode(b"[]").decode(),
        packed(GOOD)[:-8],
        packed({}),
        packed(1),
        packed(None),
        packed([]),
        packed([[], [1]]),
        packed([["one"], [1]]),
        packed([["one"], [1], [1], [1]]),
        packed([["one"], [1, 1], [1]]),
        packed([["one"], [1], [1, 0]]),
        packed([["one", "one"], [1], [1], [0]]),
        packed([[1], [1], [1]]),
        packed([["one"], [1], [2]]),
        packed([["one"], [2, 0], [1, 0]]),
        packed([["one"], [1, 2], [1, -1]]),
        packed([["one"], [1], [0.5]]),
        packed([["one"], [1], [True]]),
        packed([["one"], [1], ["1"]]),
        packed([["one"], [1], [[]]]),
        packed([["one"], 1, 1]),
        packed([["one"], [1] * (STATES + 2), [0] * (STATES + 2)]),
        base64.b64encode(zlib.compress(b"[" * 100_000)).decode(),
        base64.b64encode(zlib.compress(b" " * UNPACKED + json.dumps(GOOD).encode())).decode(),
        base64.b64encode(zlib.compress(b" " * PACKED + json.dumps(GOOD).encode(), 0)).decode(),
    ],
)
def test_rubbish_is_no_trajectory(text: str) -> None:
    with pytest.raises(ValueError, match="the trajectory cannot be read; give it as tcp_probe returned it"):
        Trajectory.decode(text)


def test_a_trajectory_of_nothing() -> None:
    assert Trajectory.decode(packed(GOOD)) == ([1, 2], {"one": [1, 1], "two": [0, 1]})
    assert Tally(["one"]).trajectory.encode() == ""
    assert Trajectory.decode("") == ([], {})


@given(st.text() | st.binary().map(lambda data: base64.b64encode(zlib.compress(data)).decode()))
def test_any_rubbish_is_refused_in_the_same_way(text: str) -> None:
    try:
        Trajectory.decode(text)
    except ValueError as error:
        assert str(error).startswith("the trajectory cannot be read")
