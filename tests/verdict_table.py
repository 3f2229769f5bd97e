#!/usr/bin/env python
# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Shows that the sequential test keeps its error rates though it looks after every wave: simulates it, prints a table.

For every declared split and profile, runs are drawn from several true splits, each until its verdict. A split within
the bands may fail with a chance of alpha, one outside pass with a chance of beta, one on an edge either. For two
destinations the same chances are computed exactly as well. The exit code is 1 if a bound does not hold.

Usage: verdict_table.py [--runs N] [--seed N]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.stats import binom

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / ".venv" / "collections"))
from ansible_collections.trafficshift.istio.plugins.module_utils._verdict import (
    STRAY,
    WAVE,
    Band,
    Question,
    ask,
    bands,
    look,
    standing,
)

DECLARED = (
    {"v1": 80, "v2": 20},
    {"v1": 50, "v2": 50},
    {"v1": 95, "v2": 5},
    {"v1": 60, "v2": 30, "v3": 10},
    {"v1": 100, "v2": 0},
)
PROFILES = ("strict", "quick")
VERDICTS = ("", "pass", "fail")  # go on, pass, fail; tables hold the index
CHECKED = 20  # drawn states at each look that are shown to look() itself
ALARM = 1e-6  # a simulation less likely than this under the bound breaks it

Truth = tuple[Fraction, ...]  # true shares, in the order of the declaration


class Outcome(NamedTuple):
    """Shares of the runs that passed and that failed, and the numbers of probes they took on average and at 99 %."""

    passed: float
    failed: float
    mean: float
    p99: int


def sizes(question: Question) -> list[int]:
    """Return the numbers of probes that are looked at: after every whole wave, and at the end."""
    return [*range(WAVE, question.max_probes, WAVE), question.max_probes]


def tables(question: Question) -> list[list[np.ndarray]]:
    """Return for every look and every destination what each number of hits stands for, without errors."""
    return [
        [
            np.array([VERDICTS.index(standing(band, hits, size, size)) for hits in range(size + 1)], dtype=np.int8)
            for band in bands(question)
        ]
        for size in sizes(question)
    ]


def together(standings: list[np.ndarray]) -> np.ndarray:
    """Return the verdicts on runs from the standings of their destinations."""
    stacked = np.stack(standings)
    return np.where((stacked == 2).any(axis=0), 2, np.where((stacked == 1).all(axis=0), 1, 0))


def simulate(
    question: Question, truth: Truth, looks: list[list[np.ndarray]], runs: int, random: np.random.Generator
) -> Outcome:
    """Draw the runs wave by wave, each until its verdict or the last look."""
    words = list(question.expect)
    counts = np.zeros((runs, len(words)), dtype=np.int64)
    tally, taken, before = [0, 0, 0], [], 0
    for size, table in zip(sizes(question), looks):
        counts += random.multinomial(size - before, [float(share) for share in truth], len(counts))
        verdicts = together([table[column][counts[:, column]] for column in range(len(words))])
        for row, verdict in zip(counts[:CHECKED].tolist(), verdicts):
            assert look(question, dict(zip(words, row)), {}) == VERDICTS[verdict], (question, row)
        for verdict in (1, 2):
            tally[verdict] += int((verdicts == verdict).sum())
        taken.append((size, int((verdicts != 0).sum())))
        counts, before = counts[verdicts == 0], size
        if not len(counts):
            break
    taken.append((before, len(counts)))
    return outcome(tally[1] / runs, tally[2] / runs, [(size, number / runs) for size, number in taken])


def compute(question: Question, truth: Truth, looks: list[list[np.ndarray]]) -> Outcome:
    """Compute the same exactly, for two destinations: the distribution of the first one's hits, wave by wave."""
    alive, chances, taken, before = np.ones(1), [0.0, 0.0, 0.0], [], 0
    for size, table in zip(sizes(question), looks):
        wave = binom.pmf(np.arange(size - before + 1), size - before, float(truth[0]))
        alive, before = np.convolve(alive, wave), size
        verdicts = together([table[0], table[1][::-1]])
        for verdict in (1, 2):
            chances[verdict] += float(alive[verdicts == verdict].sum())
        taken.append((size, float(alive[verdicts != 0].sum())))
        alive = np.where(verdicts == 0, alive, 0)
    taken.append((before, float(alive.sum())))
    return outcome(chances[1], chances[2], taken)


def outcome(passed: float, failed: float, taken: list[tuple[int, float]]) -> Outcome:
    """Return the outcome for the shares of the runs that end at each number of probes."""
    ended, p99 = 0.0, 0
    for size, share in taken:
        if ended < 0.99:
            p99 = size
        ended += share
    return Outcome(passed, failed, sum(size * share for size, share in taken), p99)


def truths(question: Question) -> Iterator[tuple[str, Truth]]:
    """Yield true splits around the declared one, each once, with what they are."""
    weights = tuple(band.weight for band in bands(question))
    point = Fraction(1, 100)
    splits = [("as declared", weights), ("swapped", weights[::-1])]
    for number, band in enumerate(bands(question)):
        reach = _reach(question, band)
        offs = {"on an edge": reach, "beyond an edge": reach + point, "off by 10 points": 10 * point}
        if band.edges:
            offs["within the band"] = reach / 2
        splits += [
            (what, _moved(weights, number, band.weight + sign * off)) for what, off in offs.items() for sign in (-1, 1)
        ]
    told = set()
    for what, split in splits:
        if min(split) >= 0 and split not in told:
            told.add(split)
            yield what, split


def bounds(question: Question, truth: Truth) -> dict[str, float]:
    """Return what may at most pass and fail, by where the true split is: within its bands, outside, or on an edge."""
    assert question.alpha is not None and question.beta is not None
    within = {"pass": 1.0, "fail": question.alpha}
    for band, share in zip(bands(question), truth):
        room = _reach(question, band) - abs(share - band.weight)
        if room < 0 or (room == 0 and not band.edges):
            return {"pass": question.beta, "fail": 1.0}
        # Where a band ends at 0 or 100 %, it has no edge.
        if room == 0 and 0 < share < 1:
            within["pass"] = question.beta
    return within


def _reach(question: Question, band: Band) -> Fraction:
    return Fraction(str(question.tolerance if band.edges else STRAY))


def _moved(weights: Truth, number: int, share: Fraction) -> Truth:
    """Return the split with one destination's share changed, and the others' in proportion."""
    others = 1 - weights[number]
    rest = (1 - share) / others if others else Fraction(0)
    moved = [share if index == number else weight * rest for index, weight in enumerate(weights)]
    moved[number - 1] += 1 - sum(moved)  # what no other one had a part in
    return tuple(moved)


def rows(runs: int, seed: int) -> Iterator[tuple[list[str], bool]]:
    """Yield the lines of the table, as cells, and whether the bounds hold."""
    random = np.random.default_rng(seed)
    for profile in PROFILES:
        for expect in DECLARED:
            question = ask(expect, profile)
            looks = tables(question)
            for what, truth in truths(question):
                simulated = simulate(question, truth, looks, runs, random)
                exact = compute(question, truth, looks) if len(truth) == 2 else None
                holds, allowed, computed = True, [], []
                for verdict, bound in bounds(question, truth).items():
                    if bound == 1:
                        continue
                    share = getattr(simulated, verdict + "ed")
                    holds &= bool(binom.sf(round(share * runs) - 1, runs, bound) > ALARM)
                    allowed.append(f"{verdict} {bound:.1%}")
                    if exact:
                        holds &= getattr(exact, verdict + "ed") <= bound
                        computed.append(f"{getattr(exact, verdict + 'ed'):.4%}")
                split = "/".join(f"{float(share * 100):.4g}" for share in truth)
                undecided = 1 - simulated.passed - simulated.failed
                yield (
                    [
                        profile,
                        "/".join(map(str, expect.values())),
                        split,
                        what,
                        *(f"{share:.3%}" for share in (simulated.passed, simulated.failed, abs(undecided))),
                        f"{simulated.mean:.0f}",
                        str(simulated.p99),
                        " ".join(allowed),
                        " ".join(computed) or "-",
                        "yes" if holds else "NO",
                    ],
                    holds,
                )


def main() -> int:
    parser = argparse.ArgumentParser(description="Simulate the sequential test and show that it keeps its error rates.")
    parser.add_argument("--runs", type=int, default=20_000, help="runs for every line (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the random numbers (default: %(default)s)")
    args = parser.parse_args()
    widths = (7, 8, 17, 16, 8, 8, 12, 6, 5, 20, 16, 5)
    heads = ("profile", "declared", "truth", "which is", "pass", "fail", "inconclusive", "mean", "p99", "at most")
    print(f"{args.runs} runs a line, at most as promised, exactly where there are two destinations")
    print("  ".join(head.ljust(width) for head, width in zip((*heads, "exactly", "holds"), widths)))
    broken = 0
    for cells, holds in rows(args.runs, args.seed):
        broken += not holds
        print("  ".join(cell.ljust(width) for cell, width in zip(cells, widths)).rstrip(), flush=True)
    print(f"{broken} bounds broken" if broken else "every bound holds")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
