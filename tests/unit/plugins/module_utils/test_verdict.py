# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The judge: what passes, what fails, which sentence says why, which questions are refused."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Any

import pytest
from ansible_collections.trafficshift.istio.plugins.module_utils._verdict import Deviation, check_question, judge
from hypothesis import given
from hypothesis import strategies as st

NO_DESTINATION = "expect names no destination; give a mapping of reply word to percent, such as {one: 80, two: 20}"
NO_WORD = "expect has the key {}, which no reply begins with; give a word without white space, as a string"
SPLIT = {"one": 80, "two": 20}


@pytest.mark.parametrize(
    ("expect", "counts", "errors", "passed"),
    [
        (SPLIT, {"one": 80, "two": 20}, {}, True),
        (SPLIT, {"one": 75, "two": 25}, {}, True),  # the edge belongs to the band, exactly
        (SPLIT, {"one": 85, "two": 15}, {}, True),
        (SPLIT, {"one": 749, "two": 251}, {}, False),
        (SPLIT, {"one": 851, "two": 149}, {}, False),
        (SPLIT, {"one": 100, "two": 0}, {}, False),
        (SPLIT, {"one": 20, "two": 80}, {}, False),
        (SPLIT, {"one": 79, "two": 20}, {"refused": 1}, False),
        ({"one": 100}, {"one": 10}, {}, True),
        ({"one": 100, "two": 0}, {"one": 10**6, "two": 0}, {}, True),
        ({"one": 100, "two": 0}, {"one": 10**6, "two": 1}, {}, False),
        ({"one": 100, "two": 0}, {"one": 10**6, "two": 0}, {"unexpected": 1}, False),
        ({"one": 0, "two": 100}, {"one": 0, "two": 5}, {}, True),
        ({"one": 60, "two": 30, "three": 10}, {"one": 60, "two": 30, "three": 10}, {}, True),
        ({"one": 60, "two": 30, "three": 10}, {"one": 60, "two": 24, "three": 16}, {}, False),
        ({"one": 33.3, "two": 33.3, "three": 33.4}, {"one": 1, "two": 1, "three": 1}, {}, True),
        (SPLIT, {}, {}, False),
        (SPLIT, {}, {"timeout": 10}, False),
    ],
)
def test_verdict(expect: dict[str, float], counts: dict[str, int], errors: dict[str, int], passed: bool) -> None:
    verdict = judge(expect, 0.05, counts, errors)
    assert verdict.passed is passed
    assert verdict.verdict == ("pass" if passed else "fail")


@pytest.mark.parametrize(
    ("expect", "counts", "errors", "reason"),
    [
        ({"one": 100}, {"one": 3}, {}, "the split is as expected, one 100 % (seen in 3 probes: one 3)"),
        (
            SPLIT,
            {"one": 7, "two": 3},
            {},
            "one got 70 % where 80 % ± 5 points was expected; two got 30 % where 20 % ± 5 points was expected "
            "(seen in 10 probes: one 7, two 3)",
        ),
        (
            {"one": 100, "two": 0},
            {"one": 999, "two": 1},
            {},
            "one got 99.9 % where exactly 100 % was expected; two got 0.1 % where exactly 0 % was expected "
            "(seen in 1000 probes: one 999, two 1)",
        ),
        (
            {"one": 100},
            {"one": 10**6 - 1, "two": 1},
            {},
            "one got 99.9999 % where exactly 100 % was expected (seen in 1000000 probes: one 999999)",
        ),
        (
            {"one": 100},
            {"one": 5},
            {"refused": 2, "unexpected": 3},
            "5 of 10 probes got no valid answer: 3 unexpected (three), 2 refused (seen in 10 probes: one 5)",
        ),
        (SPLIT, {}, {"timeout": 2}, "2 of 2 probes got no valid answer: 2 timeout (seen in 2 probes: one 0, two 0)"),
        (SPLIT, {}, {}, "no probe was made"),
    ],
)
def test_sentence(expect: dict[str, float], counts: dict[str, int], errors: dict[str, int], reason: str) -> None:
    assert judge(expect, 0.05, counts, errors, {"unexpected": "three"}).reason == reason


def test_all_deviations_at_once_the_largest_first() -> None:
    verdict = judge({"a": 50, "b": 30, "c": 20}, 0.05, {"a": 60, "b": 5, "c": 35}, {})
    assert verdict.deviations == [Deviation("b", 0.3, 0.05), Deviation("c", 0.2, 0.35), Deviation("a", 0.5, 0.6)]


def test_errors_count_in_the_shares() -> None:
    """70 of 100 are not 80 percent, even if they are 78 percent of the answers."""
    assert judge(SPLIT, 0.05, {"one": 70, "two": 20}, {"reset": 10}).deviations == [Deviation("one", 0.8, 0.7)]


@st.composite
def questions(draw: st.DrawFn) -> tuple[dict[str, int], Fraction, dict[str, int], dict[str, int]]:
    cuts = sorted(draw(st.lists(st.integers(0, 100), max_size=3)))
    weights = [high - low for low, high in zip([0, *cuts], [*cuts, 100])]
    expect = {f"v{number}": weight for number, weight in enumerate(weights)}
    counts = {name: draw(st.one_of(st.just(weight * 3), st.integers(0, 300))) for name, weight in expect.items()}
    errors = draw(st.dictionaries(st.sampled_from(["refused", "reset"]), st.integers(1, 5), max_size=1))
    return expect, Fraction(draw(st.integers(1, 99)), 100), counts, errors


@given(questions())
def test_the_rule(question: tuple[dict[str, int], Fraction, dict[str, int], dict[str, int]]) -> None:
    """Pass if and only if no error, nothing astray from 0 and 100 percent, and every share within its closed band."""
    expect, tolerance, counts, errors = question
    total = sum(counts.values())
    within = all(
        counts[name] == total * weight // 100
        if weight in (0, 100)
        else abs(Fraction(counts[name], max(1, total)) - Fraction(weight, 100)) <= tolerance
        for name, weight in expect.items()
    )
    verdict = judge(expect, float(tolerance), counts, errors)
    assert verdict.passed is (total > 0 and not errors and within)
    assert "\n" not in verdict.reason
    if total and not errors:
        assert verdict.passed is not bool(verdict.deviations)


@given(questions(), st.randoms())
def test_order_and_scale_do_not_matter(question: Any, random: Any) -> None:
    expect, tolerance, counts, errors = question
    names = list(expect)
    random.shuffle(names)
    again = judge(
        {name: expect[name] for name in names},
        float(tolerance),
        {name: 7 * count for name, count in counts.items()},
        {kind: 7 * count for kind, count in errors.items()},
    )
    assert again.passed is judge(expect, float(tolerance), counts, errors).passed


@pytest.mark.parametrize(
    ("expect", "message"),
    [
        ({}, NO_DESTINATION),
        (None, NO_DESTINATION),
        ({"one": 80}, "the percentages in expect sum to 80 (one 80 %); make them sum to 100"),
        ({"one": 80, "two": 21}, "the percentages in expect sum to 101 (one 80 %, two 21 %); make them sum to 100"),
        ({"one": 99.99}, "the percentages in expect sum to 99.99 (one 99.99 %); make them sum to 100"),
        ({"one": 120, "two": -20}, "expect gives one 120 percent; give a number from 0 to 100"),
        ({"two": -20, "one": 120}, "expect gives two -20 percent; give a number from 0 to 100"),
        ({"one": "80", "two": 20}, "expect gives one '80' percent; give a number from 0 to 100"),
        ({"one": True, "two": 99}, "expect gives one True percent; give a number from 0 to 100"),
        ({"one": None, "two": 100}, "expect gives one None percent; give a number from 0 to 100"),
        ({"one": float("nan"), "two": 100}, "expect gives one nan percent; give a number from 0 to 100"),
        ({"one": float("inf")}, "expect gives one inf percent; give a number from 0 to 100"),
        (
            {True: 100},
            NO_WORD.format("True"),
        ),
        (
            {"a b": 100},
            NO_WORD.format("'a b'"),
        ),
        ({"": 100}, NO_WORD.format("''")),
    ],
)
def test_refused_expect(expect: Any, message: str) -> None:
    with pytest.raises(ValueError, match=rf"^{re.escape(message)}$"):
        check_question(expect, 0.05)


@pytest.mark.parametrize("tolerance", [0, 1, -0.1, 5, True, "0.05", None, float("nan")])
def test_refused_tolerance(tolerance: Any) -> None:
    with pytest.raises(ValueError, match=r"^tolerance is .*; give a fraction between 0 and 1, such as 0.05"):
        check_question(SPLIT, tolerance)
