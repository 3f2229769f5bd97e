# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs until the question is answered: when it looks, what it throws away, and what it keeps account of."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import islice
from typing import Any

import pytest
from ansible_collections.trafficshift.istio.plugins.module_utils._tally import Tally
from ansible_collections.trafficshift.istio.plugins.module_utils._verdict import Question, ask, look
from ansible_collections.trafficshift.istio.plugins.plugin_utils import _measure
from ansible_collections.trafficshift.istio.plugins.plugin_utils._measure import Prober

STRICT = ask({"one": 80, "two": 20})
UNDER_WAY = 7
REFUSED = ("refused", "Connection refused", 0.0)


class FakeEngine:
    """Plays outcomes; after stop() a few more, which were under way."""

    address = "192.0.2.1"

    def __init__(self, source: Iterator[Any], probes: int) -> None:
        self._source = source
        self._probes = probes
        self.made = 0

    def stop(self) -> None:
        self._probes = min(self._probes, self.made + UNDER_WAY)

    def outcomes(self) -> Iterator[Any]:
        for outcome in self._source:
            self.made += 1
            yield outcome
            if self.made >= self._probes:
                return


def drawn(share: float, seed: int = 1) -> Iterator[Any]:
    lots = random.Random(seed)
    while True:
        yield ("", "one" if lots.random() < share else "two", 0.001)


class World:
    """A clock that only pauses move, and one source of outcomes for each engine."""

    def __init__(self, *sources: Iterator[Any]) -> None:
        self.sources = list(sources)
        self.engines: list[FakeEngine] = []
        self.pauses: list[float] = []

    def make_engine(self, probes: int) -> FakeEngine:
        source = self.sources.pop(0) if len(self.sources) > 1 else self.sources[0]
        self.engines.append(FakeEngine(source, probes))
        return self.engines[-1]

    def prober(self, watch: Any = None) -> Prober:
        return Prober(self.make_engine, watch, clock=lambda: sum(self.pauses), sleep=self.pauses.append)


@pytest.mark.parametrize(("share", "verdict"), [(0.8, "pass"), (0.5, "fail"), (0.95, "fail")])
def test_it_stops_at_the_first_wave_that_suffices(share: float, verdict: str) -> None:
    world = World(drawn(share))
    measurement = world.prober().measure(STRICT)
    assert measurement.verdict.verdict == verdict
    tally = Tally(STRICT.expect)
    for outcome in drawn(share):
        tally.add(*outcome)
        if tally.probes % 50 == 0 and look(STRICT, tally.counts, tally.errors):
            break
    assert (measurement.tally.counts, measurement.tally.probes) == (tally.counts, tally.probes)


def test_looks_come_after_whole_waves_only(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[int] = []

    def watched(question: Question, counts: dict[str, int], errors: dict[str, int]) -> str:
        looks.append(sum(counts.values()) + sum(errors.values()))
        return ""

    monkeypatch.setattr(_measure, "look", watched)
    World(drawn(0.8)).prober(lambda question, tally: 7).measure(STRICT._replace(max_probes=1220))
    assert looks == [*range(50, 1201, 50), 1220]


def test_what_was_under_way_is_a_connection_and_no_evidence() -> None:
    world = World(drawn(0.5))
    prober = world.prober()
    measurement = prober.measure(STRICT)
    assert world.engines[0].made == measurement.tally.probes + UNDER_WAY == sum(prober.connections.values())


def test_an_error_ends_it_with_its_wave() -> None:
    world = World(iter([*islice(drawn(0.8), 60), REFUSED, *islice(drawn(0.8), 500)]))
    prober = world.prober()
    measurement = prober.measure(STRICT)
    assert (measurement.verdict.verdict, measurement.tally.probes, measurement.hopeless) == ("fail", 100, False)
    assert prober.unanswered == 1


def test_ten_failures_at_first_end_it() -> None:
    world = World(iter([REFUSED] * 100))
    measurement = world.prober().measure(STRICT)
    assert (measurement.verdict.verdict, measurement.tally.probes, measurement.hopeless) == ("fail", 10, True)
    one_answer = World(iter([*[REFUSED] * 9, ("", "one", 0.1), *[REFUSED] * 100]))
    assert one_answer.prober().measure(STRICT).tally.probes == 50
    allowed = World(iter([*[REFUSED] * 10, *islice(drawn(0.8), 5000)]))
    assert not allowed.prober().measure(STRICT._replace(max_errors=10)).hopeless


def test_the_first_answer_is_waited_for() -> None:
    world = World(*(iter([REFUSED]) for _each in range(4)), iter([("unexpected", "three", 0.1)]))
    prober = world.prober()
    assert prober.wait_for_answer(60)
    assert world.pauses == [0.1, 0.2, 0.4, 0.8]
    assert (prober.unanswered, prober.connections) == (5, {})


def test_the_wait_for_an_answer_ends() -> None:
    world = World(iter([REFUSED] * 100))
    assert not world.prober().wait_for_answer(20)
    assert sum(world.pauses) == pytest.approx(20)
    assert max(world.pauses) == 5


def test_measurements_before_a_change_has_settled_are_thrown_away() -> None:
    world = World(drawn(1.0), drawn(0.9), drawn(0.8))
    prober = world.prober()
    measurement = prober.measure(STRICT, 30)
    assert measurement.verdict.verdict == "pass"
    assert (prober.runs, world.pauses) == (3, [0.1, 0.2])
    # Each run has half the chance to be wrong, so that together they have no more than was asked for.
    assert measurement.question.beta == 0.001 / 8
    assert measurement.tally.counts["one"] / measurement.tally.probes == pytest.approx(0.8, abs=0.05)


def test_what_does_not_settle_fails_in_the_end() -> None:
    world = World(drawn(0.5))
    prober = world.prober()
    measurement = prober.measure(STRICT, 20)
    assert measurement.verdict.verdict == "fail"
    assert sum(world.pauses) == pytest.approx(20)
    assert prober.runs == len(world.pauses) + 1
    assert measurement.question.beta == pytest.approx(0.001 / 2**prober.runs)


def test_many_runs_do_not_add_up_to_a_wrong_pass() -> None:
    """A split on the edge of the band, measured until it passes: hardly ever."""
    passed = 0
    for seed in range(100):
        question = ask({"one": 80, "two": 20}, "quick", tolerance=0.05, beta=0.05)
        passed += World(drawn(0.75, seed)).prober().measure(question, 30).verdict.passed
    assert passed <= 11  # of 100 at 0.05 at most, more come less than once in 300 such tests


def test_the_watch_is_called_when_it_asked_to_be() -> None:
    called: list[int] = []

    def watch(question: Question, tally: Tally) -> int:
        called.append(tally.probes)
        return 33

    World(drawn(0.8)).prober(watch).measure(ask(STRICT.expect, "fixed", probes=200))
    assert called == [1, 34, 67, 100, 133, 166, 199]
