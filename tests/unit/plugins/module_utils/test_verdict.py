# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The judge: what passes, what fails, what stays open, why, how often it is wrong, and which questions are refused."""

from __future__ import annotations

import functools
import math
import re
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from ansible_collections.trafficshift.istio.plugins.module_utils._verdict import (
    PROFILES,
    WAVE,
    Deviation,
    Plan,
    Question,
    ask,
    error_rates,
    intervals,
    judge,
    look,
    more,
    plan,
)
from ansible_collections.trafficshift.istio.tests import verdict_table
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import betaln, xlogy
from scipy.stats import binom

NO_DESTINATION = "expect names no destination; give a mapping of reply word to percent, such as {one: 80, two: 20}"
NO_WORD = "expect has the key {}, which no reply begins with; give a word without white space, as a string"
SPLIT = {"one": 80, "two": 20}
THREE = {"one": 60, "two": 30, "three": 10}
STRICT = ask(SPLIT)


@functools.cache
def _tables(expect: tuple[tuple[str, float], ...], *rest: Any) -> Any:
    return verdict_table.tables(Question(dict(expect), *rest))


def tables(question: Question) -> Any:
    return _tables(tuple(question.expect.items()), *question[1:])


def truth(percent: float) -> tuple[Fraction, Fraction]:
    share = Fraction(str(percent)) / 100
    return share, 1 - share


def evidence(weight: float, share: float, hits: float, probes: float) -> float:
    """The logarithm of E, from scipy's special functions."""
    misses = probes - hits
    declared = xlogy(hits, weight) + xlogy(misses, 1 - weight)
    mixed = betaln(hits + 0.5, misses + 0.5) - math.log(math.pi)
    return float(np.logaddexp(declared, mixed) - math.log(2) - xlogy(hits, share) - xlogy(misses, 1 - share))


def verdict_by_the_formula(question: Question, counts: dict[str, int], tests: int) -> str:
    assert question.alpha and question.beta
    probes, passes = sum(counts.values()), []
    for word, percent in question.expect.items():
        weight, hits = percent / 100, counts[word]
        low, high = weight - question.tolerance, weight + question.tolerance
        edges = [edge for edge in (low, high) if 1e-9 < edge < 1 - 1e-9]
        against = {edge: evidence(weight, edge, hits, probes) for edge in edges}
        out = [edge for edge in edges if (hits / probes < edge if edge == low else hits / probes > edge)]
        if any(against[edge] >= math.log(tests / question.alpha) for edge in out):
            return "fail"
        passes.append(not out and all(value >= math.log(1 / question.beta) for value in against.values()))
    return "pass" if all(passes) else ""


@st.composite
def looks(draw: st.DrawFn) -> tuple[dict[str, int], dict[str, int]]:
    """A declared split of 2 to 4 destinations and counts after whole waves, often near the split."""
    number = draw(st.integers(2, 4))
    cuts = sorted(draw(st.lists(st.integers(1, 99), min_size=number - 1, max_size=number - 1, unique=True)))
    weights = [high - low for low, high in zip([0, *cuts], [*cuts, 100])]
    expect = {f"v{index}": weight for index, weight in enumerate(weights)}
    probes = WAVE * draw(st.integers(1, 100))
    moved = draw(st.integers(-10, 10)) * probes // 100
    counts = [probes * weight // 100 for weight in weights]
    counts[0] += moved
    counts[-1] -= moved
    counts[draw(st.integers(0, number - 1))] += probes - sum(counts)
    if min(counts) < 0:
        counts = [probes, *[0] * (number - 1)]
    return expect, dict(zip(expect, counts))


@settings(max_examples=300)
@given(looks(), st.sampled_from([0.03, 0.05, 0.1]), st.sampled_from([1e-3, 0.01, 0.2]), st.sampled_from([1e-3, 0.1]))
def test_the_formula(case: Any, tolerance: float, alpha: float, beta: float) -> None:
    expect, counts = case
    question = ask(expect, tolerance=tolerance, alpha=alpha, beta=beta, max_probes=10**6)
    wanted = verdict_by_the_formula(question, counts, tests=1 if len(expect) == 2 else len(expect))
    assert look(question, counts, {}) == wanted
    judged = judge(question, counts, {})
    assert judged.verdict == (wanted or "inconclusive")
    assert "\n" not in judged.reason
    assert bool(judged.deviations) is (wanted == "fail")
    assert wanted == "" or judged.more is None


@given(looks())
def test_intervals_say_what_the_look_says(case: Any) -> None:
    """Inside of every band is a pass, outside of one a fail, which for more destinations takes more evidence still."""
    expect, counts = case
    question = ask(expect, max_probes=10**6)
    probes, inside, outside = sum(counts.values()), True, False
    for word, (low, high) in intervals(question, counts, {}).items():
        share, band = counts[word] / probes, (expect[word] / 100 - 0.05, expect[word] / 100 + 0.05)
        assert 0 <= low <= share <= high <= 1
        for end, certain in ((low, not counts[word]), (high, counts[word] == probes)):
            if certain:
                assert end == share
            else:
                assert evidence(expect[word] / 100, end, counts[word], probes) == pytest.approx(
                    math.log(1000), abs=1e-3
                )
        inside &= (low > band[0] or band[0] <= 1e-9) and (high < band[1] or band[1] >= 1 - 1e-9)
        outside |= high < band[0] or low > band[1]
    verdict = look(question, counts, {})
    assert (verdict == "pass") is inside
    assert verdict != "fail" or outside
    assert len(expect) > 2 or (verdict == "fail") is outside


@given(looks(), st.integers(2, 20))
def test_more_probes_of_the_same_shares_narrow_the_intervals(case: Any, factor: int) -> None:
    expect, counts = case
    question = ask(expect)
    before = intervals(question, counts, {})
    after = intervals(question, {word: count * factor for word, count in counts.items()}, {})
    for word, (low, high) in after.items():
        assert high - low < before[word][1] - before[word][0]


@given(looks(), st.randoms())
def test_names_and_order_do_not_matter(case: Any, random: Any) -> None:
    expect, counts = case
    names = list(expect)
    random.shuffle(names)
    one = judge(ask(expect), counts, {})
    two = judge(ask({f"x{name}": expect[name] for name in names}), {f"x{name}": counts[name] for name in names}, {})
    assert one.verdict == two.verdict
    assert one.more == two.more
    assert two.intervals == {f"x{name}": one.intervals[name] for name in expect}


@given(st.integers(1, 99), st.integers(1, 60), st.data())
def test_of_two_destinations_one_says_it_all(percent: int, waves: int, data: Any) -> None:
    hits = data.draw(st.integers(0, waves * WAVE))
    misses = waves * WAVE - hits
    here = judge(ask({"a": percent, "b": 100 - percent}), {"a": hits, "b": misses}, {})
    there = judge(ask({"a": 100 - percent, "b": percent}), {"a": misses, "b": hits}, {})
    assert here.verdict == there.verdict
    low, high = here.intervals["a"]
    assert here.intervals["b"] == pytest.approx((1 - high, 1 - low), abs=1e-9)


@pytest.mark.parametrize(
    ("expect", "counts", "errors", "verdict"),
    [
        (SPLIT, {"one": 800, "two": 200}, {}, ""),
        (SPLIT, {"one": 1160, "two": 290}, {}, "pass"),
        (SPLIT, {"one": 3750, "two": 1250}, {}, ""),  # on the edge, exactly
        (SPLIT, {"one": 4250, "two": 750}, {}, ""),
        (SPLIT, {"one": 10, "two": 40}, {}, "fail"),
        (SPLIT, {"one": 100, "two": 0}, {}, "fail"),
        (SPLIT, {"one": 1160, "two": 289}, {"refused": 1}, "fail"),
        (SPLIT, {"one": 0, "two": 0}, {"refused": 1}, "fail"),  # at once, not after the wave
        (SPLIT, {"one": 1160, "two": 299}, {}, ""),  # in mid-wave
        (SPLIT, {}, {}, ""),
        ({"one": 100}, {"one": 300}, {}, ""),
        ({"one": 100}, {"one": 350}, {}, "pass"),
        ({"one": 100, "two": 0}, {"one": 4950, "two": 0}, {}, "pass"),
        ({"one": 100, "two": 0}, {"one": 49, "two": 1}, {}, "fail"),
        ({"one": 0, "two": 100}, {"one": 0, "two": 350}, {}, "pass"),
        ({"one": 0, "two": 100}, {"one": 1, "two": 4949}, {}, "fail"),
        ({"one": 80, "two": 20, "three": 0}, {"one": 1160, "two": 290, "three": 0}, {}, "pass"),
        ({"one": 80, "two": 20, "three": 0}, {"one": 1160, "two": 289, "three": 1}, {}, "fail"),
        ({"one": 95, "two": 5, "three": 0}, {"one": 300, "two": 0, "three": 0}, {}, ""),  # not clean for long enough
        ({"one": 95, "two": 5, "three": 0}, {"one": 350, "two": 0, "three": 0}, {}, "pass"),
        ({"one": 95, "two": 5}, {"one": 100, "two": 0}, {}, "pass"),  # a band that ends at 0 has no edge there
        (THREE, {"one": 3000, "two": 1500, "three": 500}, {}, "pass"),
        (THREE, {"one": 3000, "two": 1000, "three": 1000}, {}, "fail"),
        ({"one": 33.3, "two": 33.3, "three": 33.4}, {"one": 1660, "two": 1670, "three": 1670}, {}, "pass"),
    ],
)
def test_verdict(expect: dict[str, float], counts: dict[str, int], errors: dict[str, int], verdict: str) -> None:
    assert look(ask(expect), counts, errors) == verdict


def test_the_last_wave_may_be_a_part() -> None:
    question = ask(SPLIT, max_probes=1460)
    assert look(question, {"one": 1166, "two": 292}, {}) == ""
    assert look(question, {"one": 1168, "two": 292}, {}) == "pass"


def test_more_destinations_take_more_evidence_to_fail() -> None:
    """The first fails all alone, but for two that do not mirror each other one has twice the chance of bad luck."""
    counts = {"one": 340, "two": 160}
    against = evidence(0.8, 0.75, 340, 500)
    alpha = 1.5 * math.exp(-against)
    assert look(ask(SPLIT, alpha=alpha), counts, {}) == "fail"
    assert look(ask(SPLIT, alpha=alpha, max_errors=1), counts, {}) == ""
    assert look(ask({**SPLIT, "three": 0}, alpha=alpha), {**counts, "three": 0}, {}) == "fail"
    assert look(ask({"one": 80, "two": 15, "three": 5}, alpha=alpha), {"one": 340, "two": 120, "three": 40}, {}) == ""


def test_errors_that_are_allowed_are_misses() -> None:
    question = ask(SPLIT, max_errors=400)
    assert look(question, {"one": 1160, "two": 290}, {}) == "pass"
    assert look(question, {"one": 860, "two": 290}, {"reset": 300}) == "fail"
    assert look(question, {"one": 4000, "two": 599}, {"reset": 401}) == "fail"
    judged = judge(question, {"one": 860, "two": 290}, {"reset": 300})
    assert judged.deviations == [Deviation("one", 0.8, 860 / 1450)]
    assert judge(ask(SPLIT, max_errors=3), {"one": 1198, "two": 300}, {"reset": 2}).reason == (
        "the split is as expected, one 80 %, two 20 % (seen in 1500 probes: one 1198, two 300, 2 reset)"
    )


def test_an_error_is_no_clean_answer() -> None:
    question = ask({"one": 100}, max_errors=50)
    assert look(question, {"one": 320}, {"reset": 30}) == ""
    assert look(question, {"one": 350}, {"reset": 50}) == "pass"


@pytest.mark.parametrize(
    ("question", "counts", "errors", "reason"),
    [
        (
            ask({"one": 100}),
            {"one": 342},
            {},
            "the split is as expected, one 100 % (seen in 342 probes: one 342)",
        ),
        (
            STRICT,
            {"one": 20, "two": 30},
            {},
            "one got 40 % where 80 % ± 5 points was expected; two got 60 % where 20 % ± 5 points was expected "
            "(seen in 50 probes: one 20, two 30)",
        ),
        (
            ask({"one": 100, "two": 0}),
            {"one": 999, "two": 1},
            {},
            "one got 99.9 % where exactly 100 % was expected; two got 0.1 % where exactly 0 % was expected "
            "(seen in 1000 probes: one 999, two 1)",
        ),
        (
            ask({"one": 100}),
            {"one": 10**6 - 1, "two": 1},
            {},
            "one got 99.9999 % where exactly 100 % was expected (seen in 1000000 probes: one 999999)",
        ),
        (
            ask({"one": 100}),
            {"one": 5},
            {"refused": 2, "unexpected": 3},
            "5 of 10 probes got no valid answer: 3 unexpected (three), 2 refused (seen in 10 probes: one 5)",
        ),
        (
            STRICT,
            {},
            {"timeout": 100},
            "100 of 100 probes got no valid answer: 100 timeout (seen in 100 probes: one 0, two 0)",
        ),
        # 72 of 100 are no proof against 80 percent.
        (
            STRICT,
            {"one": 72, "two": 27},
            {"timeout": 1},
            "1 of 100 probes got no valid answer: 1 timeout (seen in 100 probes: one 72, two 27)",
        ),
        (STRICT, {}, {}, "no probe was made"),
        (
            STRICT,
            {"one": 3760, "two": 1240},
            {},
            "not settled after 5000 probes: one is at 75.2 % (72.1 to 78.1 %), on the edge of the band 75 to 85 %; "
            "about 1400000 more probes would settle it (seen in 5000 probes: one 3760, two 1240)",
        ),
        (
            STRICT,
            {"one": 3750, "two": 1250},
            {},
            "not settled after 5000 probes: one is at 75 % (71.9 to 77.9 %), on the edge of the band 75 to 85 %; "
            "no number of probes settles a share that sits on the edge (seen in 5000 probes: one 3750, two 1250)",
        ),
        (
            STRICT,
            {"one": 40, "two": 10},
            {},
            "not settled after 50 probes: one is at 80 % (53.8 to 95.3 %), on both edges of the band 75 to 85 %; "
            "about 1000 more probes would settle it (seen in 50 probes: one 40, two 10)",
        ),
        (
            ask({"one": 80, "two": 20, "three": 0}),
            {"one": 160, "two": 40},
            {},
            "not settled after 200 probes: three is at 0 %, which takes 342 answers to be sure of, one is at 80 % "
            "(67.7 to 89.4 %), on both edges of the band 75 to 85 %; about 900 more probes would settle it "
            "(seen in 200 probes: one 160, two 40, three 0)",
        ),
        (
            ask({"one": 60, "two": 37, "three": 3}),
            {"one": 3000, "two": 1580, "three": 420},
            {},
            "not settled after 5000 probes: two is at 31.6 % (28.4 to 34.9 %), on the edge of the band 32 to 42 %, "
            "three is at 8.4 % (6.61 to 10.5 %), on the edge of the band 0 to 8 %; about 130000 more probes would "
            "settle it (seen in 5000 probes: one 3000, two 1580, three 420)",
        ),
        (
            ask(SPLIT, "fixed"),
            {"one": 20},
            {},
            "not settled after 20 of 2500 probes (seen in 20 probes: one 20, two 0)",
        ),
    ],
)
def test_sentence(question: Question, counts: dict[str, int], errors: dict[str, int], reason: str) -> None:
    assert judge(question, counts, errors, {"unexpected": "three"}).reason == reason


def test_just_outside_is_told() -> None:
    """The interval is outside, but of three destinations one fails on more evidence than of two."""
    question = ask({"one": 80, "two": 10, "three": 10})
    every = [{"one": 4000 - 2 * others, "two": others, "three": others} for others in range(500, 600)]
    verdict = next(judge(question, counts, {}) for counts in every if intervals(question, counts, {})["one"][1] < 0.75)
    assert verdict.verdict == "inconclusive"
    assert re.search(r"one is at [0-9.]+ % \([0-9.]+ to 75 %\), just outside the band 75 to 85 %", verdict.reason)


def test_all_deviations_at_once_the_largest_first() -> None:
    verdict = judge(ask({"a": 50, "b": 30, "c": 20}), {"a": 600, "b": 50, "c": 350}, {})
    assert verdict.deviations == [Deviation("b", 0.3, 0.05), Deviation("c", 0.2, 0.35), Deviation("a", 0.5, 0.6)]


@given(looks())
def test_that_many_more_would_settle_it(case: Any) -> None:
    expect, counts = case
    question = ask(expect, max_probes=10**9)
    further, probes = more(question, counts, {}), sum(counts.values())
    if further is None:
        off = {abs(Fraction(counts[word], probes) - Fraction(percent, 100)) for word, percent in expect.items()}
        assert look(question, counts, {}) or any(abs(share - Fraction(1, 20)) < Fraction(1, 1000) for share in off)
        return
    assert further % WAVE == 0
    assert not look(question, counts, {})
    # Counts are whole numbers, hence twice as many, and half.
    factor = 2 * math.ceil((probes + further) / probes)
    assert look(question, {word: count * factor for word, count in counts.items()}, {})
    factor = (probes + further) // probes // 2
    assert not factor or not look(question, {word: count * factor for word, count in counts.items()}, {})


def test_how_many_more_where_whole_numbers_tell() -> None:
    further = more(STRICT, {"one": 80, "two": 20}, {})
    assert further is not None
    total = 100 + further
    assert look(STRICT, {"one": total * 4 // 5, "two": total // 5}, {}) == "pass"
    assert look(STRICT, {"one": (total - 50) * 4 // 5, "two": (total - 50) // 5}, {}) == ""
    assert more(ask({"one": 100}), {"one": 100}, {}) == 250
    assert more(ask(SPLIT, "fixed", probes=70), {"one": 5}, {"reset": 1}) is None
    assert more(ask(SPLIT, "fixed", probes=70), {"one": 5}, {}) == 65


# The simulation and the exact computation are those of the table.


@pytest.mark.parametrize(
    ("percent", "passed", "failed", "mean", "p99"),
    [
        (80, 0.99995, 0, 1439, 3100),
        (75, 0.0002, 0, 5000, 5000),
        (90, 0, 1, 1042, 2250),
        (70, 0, 0.999, 1804, 4050),
        (50, 0, 1, 99, 200),
        (100, 0, 1, 100, 100),
        (20, 0, 1, 50, 50),
    ],
)
def test_how_long_it_takes(percent: int, passed: float, failed: float, mean: float, p99: int) -> None:
    """Numbers of an independent simulation of 20000 runs."""
    outcome = verdict_table.compute(STRICT, truth(percent), tables(STRICT))
    assert outcome.passed == pytest.approx(passed, abs=2e-4)
    assert outcome.failed == pytest.approx(failed, abs=4e-4)
    assert outcome.mean == pytest.approx(mean, rel=0.01)
    assert outcome.p99 == pytest.approx(p99, abs=50)


@pytest.mark.parametrize("expect", [SPLIT, {"one": 50, "two": 50}, {"one": 95, "two": 5}, {"one": 99, "two": 1}])
@pytest.mark.parametrize("options", [{"profile": "quick"}, {"tolerance": 0.1, "alpha": 0.3, "beta": 0.2}])
def test_the_error_rates_hold_exactly(expect: dict[str, float], options: dict[str, Any]) -> None:
    """Computed for every true split in steps of half a point; simulated, they come out the same."""
    question = ask(expect, max_probes=600, **options)
    rates = error_rates(question)
    low, high = expect["one"] - 10, expect["one"] + 10
    random = np.random.default_rng(1)
    for half in range(201):
        percent = half / 2
        exact = verdict_table.compute(question, truth(percent), tables(question))
        if percent <= low or (percent >= high and high < 100):
            assert exact.passed <= rates["false_pass"]
        if low <= percent <= high:
            assert exact.failed <= rates["false_fail"]
        if not half % 20:
            simulated = verdict_table.simulate(question, truth(percent), tables(question), 2000, random)
            for share, chance in ((simulated.passed, exact.passed), (simulated.failed, exact.failed)):
                within = binom.interval(1 - 1e-6, 2000, min(1.0, chance))
                assert within[0] <= round(share * 2000) <= within[1]
            assert simulated.mean == pytest.approx(exact.mean, rel=0.1)


def test_ten_destinations_on_their_edges_hardly_ever_fail() -> None:
    """With alpha for every one of them, instead of a tenth of it, more than half of the runs would fail."""
    expect = {f"v{number}": 10 for number in range(10)}
    question = ask(expect, alpha=0.4, beta=0.4, max_probes=2000)
    edges = tuple(Fraction(5 if number % 2 else 15, 100) for number in range(10))
    outcome = verdict_table.simulate(question, edges, tables(question), 2000, np.random.default_rng(1))
    assert 0 < outcome.failed < 0.4


def test_the_faster_version_is_not_favoured() -> None:
    """Looked at after every answer, as they come in, the first wave would have nothing but v1 for long."""
    question = ask(SPLIT, alpha=0.1, beta=0.1, max_probes=1000)
    random, failed = np.random.default_rng(1), 0
    for _run in range(200):
        counts, verdict = {"one": 0, "two": 0}, ""
        while not verdict and sum(counts.values()) < question.max_probes:
            ones = int(random.binomial(WAVE, 0.8))
            for word in ["one"] * ones + ["two"] * (WAVE - ones):
                counts[word] += 1
                verdict = verdict or look(question, counts, {})
        failed += verdict == "fail"
    assert binom.sf(failed - 1, 200, 0.1) > 1e-6


def test_the_table_is_printed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verdict_table, "PROFILES", ("quick",))
    monkeypatch.setattr("sys.argv", ["verdict_table.py", "--runs", "200"])
    assert verdict_table.main() == 0
    printed = capsys.readouterr().out
    assert printed.endswith("every bound holds\n")
    assert re.search(r"^quick +80/20 +70/30 +on an edge .* pass 1.0% fail 1.0% +0.1611% 0.0218% +yes$", printed, re.M)
    assert re.search(r"^quick +60/30/10 +60/30/10 +as declared ", printed, re.M)


def test_a_broken_bound_is_found(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verdict_table, "PROFILES", ("quick",))
    monkeypatch.setattr(verdict_table, "DECLARED", ({"v1": 80, "v2": 20},))
    monkeypatch.setattr(verdict_table, "bounds", lambda _question, _truth: {"pass": 0.01, "fail": 1.0})
    monkeypatch.setattr("sys.argv", ["verdict_table.py", "--runs", "200"])
    assert verdict_table.main() == 1
    printed = capsys.readouterr().out
    assert re.search(r"^quick +80/20 +80/20 +as declared .* NO$", printed, re.M)
    assert re.search(r"^quick +80/20 +20/80 +swapped .* yes$", printed, re.M)
    assert re.search(r"^\d bounds broken$", printed, re.M)


@pytest.mark.parametrize(
    "question",
    [
        STRICT,
        ask(SPLIT, "quick"),
        ask({"one": 50, "two": 50}, "quick"),
        ask({"one": 95, "two": 5}),
        ask({"one": 99.9, "two": 0.1}, "quick"),
        ask(SPLIT, alpha=0.1, beta=0.2),
        ask({"one": 100, "two": 0}),
    ],
)
def test_plan_of_two(question: Question) -> None:
    """The chances at these numbers, exactly, with all earlier looks."""
    least, typical, enough = plan(question)

    def passed(probes: int) -> float:
        limited = question._replace(max_probes=probes)
        weight = Fraction(str(question.expect["one"])) / 100
        return verdict_table.compute(limited, (weight, 1 - weight), tables(limited)).passed

    assert passed(least - 1) == 0 < passed(least)
    assert passed(typical) >= 0.5 > passed(int(typical * 0.9) // WAVE * WAVE)
    assert passed(enough) >= 0.99 > passed(int(enough * 0.8) // WAVE * WAVE)


def test_plan_of_three() -> None:
    question = ask(THREE, "quick")
    least, typical, enough = plan(question)
    share, random = tuple(Fraction(percent, 100) for percent in THREE.values()), np.random.default_rng(1)
    for probes, low, high in ((least - 1, 0.0, 0.0), (typical, 0.5, 0.8), (enough, 0.99, 1.0)):
        limited = question._replace(max_probes=probes)
        passed = verdict_table.simulate(limited, share, tables(limited), 5000, random).passed
        assert low - 0.01 <= passed <= high


def test_plan_is_not_bounded_by_max_probes() -> None:
    assert plan(ask(SPLIT, max_probes=1000)) == plan(STRICT) == Plan(960, 1400, 3400)
    assert plan(ask({"one": 100}, max_probes=345)) == Plan(342, 345, 345)
    assert plan(ask({"one": 100}, max_probes=400)) == Plan(342, 350, 350)
    assert plan(ask(SPLIT, "fixed", probes=77)) == Plan(77, 77, 77)


def test_plan_of_a_narrow_tolerance() -> None:
    """A tenth of the tolerance takes about a hundred times as many."""
    narrow = plan(ask(SPLIT, tolerance=0.005, max_probes=10**6))
    for here, there in zip(narrow, plan(STRICT)):
        assert 90 * there < here < 110 * there


def test_error_rates_of_the_sequential_test_are_its_bounds() -> None:
    assert error_rates(ask(SPLIT, alpha=0.01, beta=0.02)) == {"false_fail": 0.01, "false_pass": 0.02}


# The profile fixed


def passed_by_fixed(question: Question, share: float) -> float:
    """The chance to pass, from the verdict on every number of hits."""
    hits = np.arange(question.max_probes + 1)
    chances = binom.pmf(hits, question.max_probes, share)
    words = list(question.expect)
    passed = [look(question, dict(zip(words, (hit, question.max_probes - hit))), {}) == "pass" for hit in hits.tolist()]
    return float(chances[passed].sum())


@pytest.mark.parametrize("expect", [SPLIT, {"one": 50, "two": 50}, {"one": 97, "two": 3}, {"one": 100, "two": 0}])
@pytest.mark.parametrize(("probes", "tolerance"), [(10, 0.05), (10, 0.1), (20, 0.05), (999, 0.05), (1000, 0.02)])
def test_error_rates_of_fixed(expect: dict[str, float], probes: int, tolerance: float) -> None:
    question = ask(expect, "fixed", probes=probes, tolerance=tolerance)
    rates, weight = error_rates(question), expect["one"] / 100
    reach = tolerance if weight < 1 else 0.02
    shares = [[weight - off, weight + off] for off in (reach, 2 * tolerance)]
    edge, twice = (max(passed_by_fixed(question, share) for share in pair if share <= 1) for pair in shares)
    assert rates["false_fail"] == pytest.approx(1 - passed_by_fixed(question, weight), abs=1e-9)
    assert rates["edge"] == pytest.approx(edge, abs=1e-9)
    assert rates["off_by_twice"] == pytest.approx(twice, abs=1e-9)


def test_error_rates_of_the_default_number() -> None:
    """A chance so small that one minus the rest would not do."""
    false_fail = error_rates(ask(SPLIT, "fixed"))["false_fail"]
    assert false_fail == pytest.approx(binom.cdf(1874, 2500, 0.8) + binom.sf(2125, 2500, 0.8), rel=1e-9)
    assert error_rates(ask(SPLIT, "fixed", probes=25000))["false_fail"] == pytest.approx(
        binom.cdf(18749, 25000, 0.8) + binom.sf(21250, 25000, 0.8), rel=1e-6
    )


def test_error_rates_of_three_are_upper_bounds() -> None:
    question = ask(THREE, "fixed", probes=40, tolerance=0.1)

    def passed(shares: tuple[float, float, float]) -> float:
        chance = 0.0
        for one in range(41):
            for two in range(41 - one):
                if look(question, {"one": one, "two": two, "three": 40 - one - two}, {}) == "pass":
                    ways = math.comb(40, one) * math.comb(40 - one, two)
                    chance += ways * shares[0] ** one * shares[1] ** two * shares[2] ** (40 - one - two)
        return chance

    rates = error_rates(question)
    assert 1 - passed((0.6, 0.3, 0.1)) <= rates["false_fail"] <= 2 * (1 - passed((0.6, 0.3, 0.1)))
    assert passed((0.7, 0.2, 0.1)) <= rates["edge"]
    assert passed((0.5, 0.4, 0.1)) <= rates["edge"]
    assert passed((0.6, 0.2, 0.2)) <= rates["edge"]
    assert passed((0.4, 0.5, 0.1)) <= rates["off_by_twice"]


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
        (THREE, {"one": 60, "two": 30, "three": 10}, {}, True),
        (THREE, {"one": 60, "two": 24, "three": 16}, {}, False),
        ({"one": 33.3, "two": 33.3, "three": 33.4}, {"one": 1, "two": 1, "three": 1}, {}, True),
        (SPLIT, {}, {"timeout": 10}, False),
    ],
)
def test_fixed(expect: dict[str, float], counts: dict[str, int], errors: dict[str, int], passed: bool) -> None:
    probes = sum(counts.values()) + sum(errors.values())
    question = ask(expect, "fixed", probes=probes)
    verdict = judge(question, counts, errors)
    assert verdict.passed is passed
    assert verdict.verdict == look(question, counts, errors) == ("pass" if passed else "fail")
    assert look(question._replace(max_probes=probes + 1), counts, errors) == ""


def test_fixed_before_its_end() -> None:
    """A stray answer or an error is a fail whatever comes; shares are not judged."""
    question = ask({"one": 80, "two": 20, "three": 0}, "fixed")
    assert judge(question, {"one": 0, "two": 50}, {}).verdict == "inconclusive"
    assert judge(question, {"one": 0, "two": 50}, {"reset": 1}).verdict == "fail"
    assert judge(question, {"one": 0, "two": 50, "three": 1}, {}).verdict == "fail"
    assert judge(question, {"one": 0, "two": 50}, {}).more == 2450


def test_fixed_with_errors_allowed() -> None:
    question = ask(SPLIT, "fixed", probes=100, max_errors=6)
    assert judge(question, {"one": 75, "two": 19}, {"reset": 6}).verdict == "pass"
    assert judge(question, {"one": 78, "two": 15}, {"reset": 7}).verdict == "fail"
    # 74 of 100 are not within 5 points of 80 percent, even if they are 78.7 percent of the answers.
    assert judge(question, {"one": 74, "two": 20}, {"reset": 6}).deviations == [Deviation("one", 0.8, 0.74)]


@given(looks(), st.integers(1, 49), st.dictionaries(st.sampled_from(["refused", "reset"]), st.integers(1, 5)))
def test_the_rule_of_fixed(case: Any, points: int, errors: dict[str, int]) -> None:
    """Pass if and only if no error, and every share within its closed band."""
    expect, counts = case
    probes = sum(counts.values()) + sum(errors.values())
    within = all(
        abs(Fraction(counts[name], probes) - Fraction(weight, 100)) <= Fraction(points, 100)
        for name, weight in expect.items()
    )
    verdict = judge(ask(expect, "fixed", probes=probes, tolerance=points / 100), counts, errors)
    assert verdict.verdict == ("pass" if not errors and within else "fail")
    assert bool(verdict.deviations) is not within


# What is refused


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
        ({True: 100}, NO_WORD.format("True")),
        ({"a b": 100}, NO_WORD.format("'a b'")),
        ({"": 100}, NO_WORD.format("''")),
    ],
)
def test_refused_expect(expect: Any, message: str) -> None:
    with pytest.raises(ValueError, match=rf"^{re.escape(message)}$"):
        ask(expect)


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("tolerance", [0, 1, -0.1, 5, True, "0.05", float("nan")])
def test_refused_tolerance(profile: str, tolerance: Any) -> None:
    with pytest.raises(ValueError, match=r"^tolerance is .*; give a fraction between 0 and 1, such as 0.05"):
        ask(SPLIT, profile, tolerance=tolerance)


FIXED = "has no meaning in the profile fixed, which makes as many probes as probes says and compares"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tolerance": 0.8}, "tolerance is 0.8, which lets one have any share from 0 to 100 %; give less than 0.8"),
        (
            {"tolerance": 0.99, "profile": "fixed"},
            "tolerance is 0.99, which lets one have any share from 0 to 100 %; give less than 0.8",
        ),
        (
            {"tolerance": 0.7, "expect": {"a": 10, "b": 30, "c": 60}},
            "tolerance is 0.7, which lets c have any share from 0 to 100 %; give less than 0.6",
        ),
        (
            {"tolerance": 1e-7},
            "tolerance is 1e-07, too narrow to be settled even by 100000000 probes; give a wider one",
        ),
        ({"alpha": 0}, "alpha is 0; give the chance of a wrong verdict, above 0 and below 0.5, such as 0.001"),
        ({"alpha": 0.5}, "alpha is 0.5; give the chance of a wrong verdict, above 0 and below 0.5, such as 0.001"),
        ({"beta": -1}, "beta is -1; give the chance of a wrong verdict, above 0 and below 0.5, such as 0.001"),
        ({"beta": "1%"}, "beta is '1%'; give the chance of a wrong verdict, above 0 and below 0.5, such as 0.001"),
        ({"beta": False}, "beta is False; give the chance of a wrong verdict, above 0 and below 0.5, such as 0.001"),
        ({"max_probes": 0}, "max_probes is 0; give a whole number, at least 1"),
        ({"max_probes": 5000.5}, "max_probes is 5000.5; give a whole number, at least 1"),
        ({"max_probes": True}, "max_probes is True; give a whole number, at least 1"),
        ({"profile": "fixed", "probes": 0}, "probes is 0; give a whole number, at least 1"),
        ({"profile": "fixed", "probes": "many"}, "probes is 'many'; give a whole number, at least 1"),
        (
            {"max_probes": 959},
            "max_probes is 959, with which nothing can pass at a tolerance of 0.05; give at least 960, better 1400, "
            "which is what it typically takes, or a wider tolerance",
        ),
        (
            {"tolerance": 0.01, "profile": "quick"},
            "max_probes is 1000, with which nothing can pass at a tolerance of 0.01; give at least 16946, better "
            "25650, which is what it typically takes, or a wider tolerance",
        ),
        ({"profile": "slow"}, "profile is 'slow'; give one of strict, quick, fixed"),
        ({"profile": None}, "profile is None; give one of strict, quick, fixed"),
        (
            {"probes": 2500},
            "probes has no meaning in the profile strict, which stops when it knows enough; "
            "give max_probes, or take the profile fixed",
        ),
        ({"profile": "fixed", "alpha": 0.1}, f"alpha {FIXED}; leave alpha out or take another profile"),
        ({"profile": "fixed", "beta": 0.1}, f"beta {FIXED}; leave beta out or take another profile"),
        ({"profile": "fixed", "max_probes": 100}, f"max_probes {FIXED}; leave max_probes out or take another profile"),
        ({"max_errors": -1}, "max_errors is -1; give a whole number from 0 to 4999, less than the 5000 max_probes"),
        ({"max_errors": 0.5}, "max_errors is 0.5; give a whole number from 0 to 4999, less than the 5000 max_probes"),
        (
            {"max_errors": 10, "profile": "fixed", "probes": 10},
            "max_errors is 10; give a whole number from 0 to 9, less than the 10 probes",
        ),
    ],
)
def test_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=rf"^{re.escape(message)}$"):
        ask(**{"expect": SPLIT, **options})


def test_what_is_not_given_is_the_profiles() -> None:
    assert ask(SPLIT) == Question(SPLIT, "strict", 0.05, 0.001, 0.001, 5000, 0)
    assert ask(SPLIT, "quick", beta=0.2) == Question(SPLIT, "quick", 0.1, 0.01, 0.2, 1000, 0)
    assert ask(SPLIT, "fixed") == Question(SPLIT, "fixed", 0.05, None, None, 2500, 0)
    assert ask(SPLIT, "fixed", probes=10, tolerance=0.5).max_probes == 10


def test_fewer_probes_do_where_fewer_are_needed() -> None:
    assert ask(SPLIT, max_probes=960).max_probes == 960
    assert ask({"one": 100}, max_probes=342).max_probes == 342
    with pytest.raises(ValueError, match="give at least 342"):
        ask({"one": 100}, max_probes=341)
