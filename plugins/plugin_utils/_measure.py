# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One measurement: probes are tallied and looked at after whole waves until the question is answered.

Between the engine, which knows no verdict, and the verdict, which knows no sockets.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from typing import Any, Callable, NamedTuple

from ansible_collections.trafficshift.istio.plugins.module_utils._tally import Tally
from ansible_collections.trafficshift.istio.plugins.module_utils._verdict import (
    WAVE,
    Question,
    Verdict,
    judge,
    look,
)

HOPELESS = 10  # first probes that, if none gets an answer, end the run: the rest would only take more time to say so
FIRST_PAUSE = 0.1  # seconds between two tries; each pause is twice the one before
LONGEST_PAUSE = 5.0
FEW = 1e-12  # beta is not halved below this, which no number of probes could tell from nothing

# Given the number of probes, returns an engine of _probe_engine.
MakeEngine = Callable[[int], Any]
# Given the question and the tally so far, returns how many probes to let pass until it wants to be called again.
Watch = Callable[[Question, Tally], int]


class Measurement(NamedTuple):
    """What was asked in the end (a repeated run has a smaller beta), the evidence, and the judgement."""

    question: Question
    tally: Tally
    verdict: Verdict
    hopeless: bool  # ended early, because nothing answered


class Prober:
    """Makes the runs of one task and keeps account of every connection that it made."""

    def __init__(
        self,
        make_engine: MakeEngine,
        watch: Watch | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._make_engine = make_engine
        self._watch = watch
        self._clock = clock
        self._sleep = sleep
        self.connections: dict[str, int] = {}  # answers by destination, those that came after a verdict included
        self.unanswered = 0
        self.runs = 0
        self.address: str | None = None

    def wait_for_answer(self, timeout: float) -> bool:
        """Probe one at a time until something answers, for at most `timeout` seconds; return whether it did.

        A reply that is not the expected one is an answer too: what it means is for the measurement to say.
        """
        deadline, pause = self._clock() + timeout, FIRST_PAUSE
        while True:
            # Closed here, not when its memory is freed: an exception out of a signal handler would be lost there.
            with contextlib.closing(self._make_engine(1).outcomes()) as outcomes:
                for kind, text, _seconds in outcomes:
                    self._account(kind, text)
                    if kind in ("", "unexpected"):
                        return True
            left = deadline - self._clock()
            if left <= 0:
                return False
            self._sleep(min(pause, left))
            pause = min(2 * pause, LONGEST_PAUSE)

    def measure(self, question: Question, settle_timeout: float = 0.0) -> Measurement:
        """Return the first measurement that passes, or the first that ends more than settle_timeout seconds from now.

        What was measured before a change had settled says nothing, and is thrown away. So that many tries do not add
        up to a wrong pass, try number j has beta / 2**j: together they stay below beta.
        """
        if settle_timeout <= 0:
            return self._run(question)
        deadline, pause = self._clock() + settle_timeout, FIRST_PAUSE
        while True:
            if question.beta is not None:
                question = question._replace(beta=max(FEW, question.beta / 2))
            measurement = self._run(question)
            left = deadline - self._clock()
            if measurement.verdict.verdict == "pass" or left <= 0:
                return measurement
            self._sleep(min(pause, left))
            pause = min(2 * pause, LONGEST_PAUSE)

    def _run(self, question: Question) -> Measurement:
        self.runs += 1
        tally = Tally(question.expect)
        engine = self._make_engine(question.max_probes)
        watch = self._watch
        decided = hopeless = False
        next_look = min(HOPELESS, question.max_probes)
        next_watch = 1 if watch else question.max_probes
        with contextlib.closing(engine.outcomes()) as outcomes:
            # Taken and counted together up to the next look: one by one would cost the processor several times as much.
            while wave := list(itertools.islice(outcomes, min(next_look, next_watch) - tally.probes)):
                tally.add_all(wave)
                probes = tally.probes
                if probes == next_look:
                    if probes == HOPELESS:
                        hopeless = not tally.answered and sum(tally.errors.values()) > question.max_errors
                    # Only whole waves, in launch order: no faster destination may be ahead when it is looked.
                    if probes % WAVE == 0 or probes == question.max_probes:
                        decided = bool(look(question, tally.counts, tally.errors))
                    next_look = min(probes - probes % WAVE + WAVE, question.max_probes)
                if watch and probes == next_watch:
                    next_watch = probes + watch(question, tally)
                if decided or hopeless:
                    engine.stop()
                    break
            for kind, text, _seconds in outcomes:
                self._account(kind, text)  # was in flight when the verdict came: a connection, but no evidence
        for text, count in tally.counts.items():
            self.connections[text] = self.connections.get(text, 0) + count
        self.unanswered += sum(tally.errors.values())
        self.address = engine.address or self.address
        return Measurement(question, tally, judge(question, tally.counts, tally.errors, tally.details), hopeless)

    def _account(self, kind: str, text: str) -> None:
        if kind:
            self.unanswered += 1
        else:
            self.connections[text] = self.connections.get(text, 0) + 1
