# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Judges a split: is every destination's share of the probes within tolerance of its percentage? Pure.

The test is sequential, it may stop after any wave. For a destination of weight w with S hits and F misses, the evidence
against the share q is the mean of two likelihood ratios against q, one of w and one of a mixture over all shares:

    E(q) = 1/2 (w/q)^S ((1-w)/(1-q))^F + 1/2 B(S+1/2, F+1/2) / (pi q^S (1-q)^F)

When q is the true share, E(q) reaches 1/level ever, however often one looks, with a chance of at most level (Ville's
inequality; Howard, Ramdas, McAuliffe, Sekhon, Annals of Statistics 49, 2021; Lindon, Malek, arXiv 2011.03567). Since
E(q) is a number over q^S (1-q)^F, the shares with less evidence against them are an interval around the observed one. A
destination passes when that interval, at level beta, is inside its band, and fails when, at level alpha, it is outside.

Where a share is compared with the band itself, decimals are exact: whether 0.75 is within 0.05 of 80 % must not hang on
binary rounding. In the test nothing hangs on it, for E is below 1 at the observed share and around it.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import NamedTuple

WAVE = 50  # probes between two looks
STRAY = 0.02  # a share of strays that must not be missed where 0 or 100 percent are declared
REACH = 10**8  # probes; what they do not settle, nothing does
LEVEL = 0.001  # of the profile strict, and of the intervals of the profile fixed


class Profile(NamedTuple):
    """What a question is asked with unless it says otherwise; without alpha and beta, by plain comparison."""

    tolerance: float
    alpha: float | None
    beta: float | None
    max_probes: int


PROFILES = {
    "strict": Profile(0.05, LEVEL, LEVEL, 5000),
    "quick": Profile(0.10, 0.01, 0.01, 1000),
    "fixed": Profile(0.05, None, None, 2500),
}


class Question(NamedTuple):
    """What is to be judged; made by ask. expect is in percent by destination, tolerance a fraction.

    alpha bounds the chance that a split within its bands fails, beta that one outside of them passes. In the profile
    fixed both are None, and max_probes is the exact number of probes.
    """

    expect: Mapping[str, float]
    profile: str
    tolerance: float
    alpha: float | None
    beta: float | None
    max_probes: int
    max_errors: int


class Deviation(NamedTuple):
    """A destination whose share is not what it should be; shares are fractions."""

    destination: str
    expected: float
    observed: float


class Verdict(NamedTuple):
    """The judgement ("pass", "fail" or "inconclusive"), the sentence that says why, and what there is behind it.

    deviations, the largest first, are the destinations out of their bands when that is why it failed. For intervals and
    more see the functions of these names.
    """

    verdict: str
    reason: str
    deviations: list[Deviation]
    intervals: dict[str, tuple[float, float]]
    more: int | None

    @property
    def passed(self) -> bool:
        return self.verdict == "pass"


class Plan(NamedTuple):
    """Numbers of probes: fewer than least cannot pass, typical do with a chance of 1/2, enough with one of 0.99."""

    least: int
    typical: int
    enough: int


class Edge(NamedTuple):
    """An edge of a band, as a share and its natural logarithms; inwards is 1 for the lower edge, -1 for the upper."""

    inwards: int
    share: float
    log: float
    log_rest: float


class Band(NamedTuple):
    """What one destination may get, and how its test goes.

    weight is exact, log and log_rest are the natural logarithms of it and of the rest. edges are those that a share can
    cross; 0 and 100 percent have none, but take clean probes. passing and failing are logarithms of evidence.
    """

    word: str
    weight: Fraction
    log: float
    log_rest: float
    edges: tuple[Edge, ...]
    passing: float
    failing: float
    clean: int


def ask(
    expect: Mapping[str, float],
    profile: str = "strict",
    *,
    tolerance: float | None = None,
    alpha: float | None = None,
    beta: float | None = None,
    max_probes: int | None = None,
    max_errors: int = 0,
    probes: int | None = None,
) -> Question:
    """Return the question, with the profile's value for what is None; probes is for the profile fixed only.

    Raises ValueError, in one sentence, for what makes no sense or cannot come to a verdict.
    """
    _check_expect(expect)
    if not isinstance(profile, str) or profile not in PROFILES:
        raise ValueError(f"profile is {profile!r}; give one of {', '.join(PROFILES)}")
    usual = PROFILES[profile]
    if usual.alpha is None:
        for name, value in (("alpha", alpha), ("beta", beta), ("max_probes", max_probes)):
            if value is not None:
                raise ValueError(
                    f"{name} has no meaning in the profile {profile}, which makes as many probes as probes says and "
                    f"compares; leave {name} out or take another profile"
                )
    elif probes is not None:
        raise ValueError(
            f"probes has no meaning in the profile {profile}, which stops when it knows enough; "
            "give max_probes, or take the profile fixed"
        )
    question = Question(
        expect=expect,
        profile=profile,
        tolerance=usual.tolerance if tolerance is None else tolerance,
        alpha=usual.alpha if alpha is None else alpha,
        beta=usual.beta if beta is None else beta,
        max_probes=next((value for value in (max_probes, probes) if value is not None), usual.max_probes),
        max_errors=max_errors,
    )
    _check_tolerance(question)
    for name, value in (("alpha", question.alpha), ("beta", question.beta)):
        if value is not None and (not _is_number(value) or not 0 < value < 0.5):
            raise ValueError(
                f"{name} is {value!r}; give the chance of a wrong verdict, above 0 and below 0.5, such as 0.001"
            )
    name = "probes" if usual.alpha is None else "max_probes"
    if not _is_whole(question.max_probes) or question.max_probes < 1:
        raise ValueError(f"{name} is {question.max_probes!r}; give a whole number, at least 1")
    if not _is_whole(max_errors) or not 0 <= max_errors < question.max_probes:
        raise ValueError(
            f"max_errors is {max_errors!r}; give a whole number from 0 to {question.max_probes - 1}, "
            f"less than the {question.max_probes} {name}"
        )
    if usual.alpha is not None:
        _check_reach(question)
    return question


def look(question: Question, counts: Mapping[str, int], errors: Mapping[str, int]) -> str:
    """Return "pass" or "fail" if the answers (by destination) and errors (by kind) suffice, else "" for go on.

    Shares are looked at after whole waves, complete in launch order, and after max_probes: those of a wave in progress
    favour whatever answers faster. More than max_errors errors fail at once. In the profile fixed it is "" until
    max_probes were made.
    """
    answered, failed = sum(counts.values()), sum(errors.values())
    probes = answered + failed
    if question.alpha is None and probes < question.max_probes:
        return ""
    if failed > question.max_errors:
        return "fail"
    if probes % WAVE and probes < question.max_probes:
        return ""
    return _together(_standings(question, counts, answered, probes))


def judge(
    question: Question,
    counts: Mapping[str, int],
    errors: Mapping[str, int],
    details: Mapping[str, str] | None = None,
    unit: str = "probe",
) -> Verdict:
    """Judge answers (by destination) and errors (by kind, with details to tell), whole waves or not, and say why.

    The share of a destination is taken of all probes, errors included. For 0 and 100 percent there is no tolerance: one
    stray answer fails. More than max_errors errors fail, whatever the shares. `unit` is what one of them is called.
    """
    answered, failed = sum(counts.values()), sum(errors.values())
    probes = answered + failed
    ranges = intervals(question, counts, errors)
    if not probes:
        return Verdict("inconclusive", f"no {unit} was made", [], ranges, None)
    standings = _standings(question, counts, answered, probes)
    # A share that is out of its band by chance is no deviation.
    deviations = _deviations(question, counts, answered, probes) if "fail" in standings else []
    reasons = [_sentence(deviation, question.tolerance) for deviation in deviations]
    kinds = sorted(errors.items(), key=lambda item: -item[1])
    seen = [f"{word} {counts.get(word, 0)}" for word in question.expect]
    if failed > question.max_errors:
        verdict = "fail"
        told = (
            f"{count} {kind}" + (f" ({details[kind]})" if details and kind in details else "") for kind, count in kinds
        )
        reasons.insert(0, f"{failed} of {probes} {unit}s got no valid answer: {', '.join(told)}")
    else:
        verdict = _together(standings) or "inconclusive"
        seen += [f"{count} {kind}" for kind, count in kinds]
    further = more(question, counts, errors)
    if verdict == "pass":
        reasons = [f"the split is as expected, {_listed(question.expect)}"]
    elif verdict == "inconclusive":
        reasons = [_unsettled(question, counts, answered, probes, further, unit)]
    reason = f"{'; '.join(reasons)} (seen in {probes} {unit}s: {', '.join(seen)})"
    return Verdict(verdict, reason, deviations, ranges, further)


def intervals(
    question: Question, counts: Mapping[str, int], errors: Mapping[str, int]
) -> dict[str, tuple[float, float]]:
    """Return, for each destination, the lowest and the highest share with less evidence against them than 1/beta.

    Shares are fractions. With a chance of at least 1 - beta, in the profile fixed of 99.9 percent, a destination's true
    share is in its interval after every single probe of the run.
    """
    probes = sum(counts.values()) + sum(errors.values())
    return {band.word: _interval(band, counts.get(band.word, 0), probes) for band in bands(question)}


def more(question: Question, counts: Mapping[str, int], errors: Mapping[str, int]) -> int | None:
    """Return about how many further probes, in whole waves, would settle it if the shares stayed as they are.

    None if it is settled, if there was no probe yet, or if no number would do since a share sits on an edge.
    """
    answered, failed = sum(counts.values()), sum(errors.values())
    probes = answered + failed
    if not probes or failed > question.max_errors or _together(_standings(question, counts, answered, probes)):
        return None
    if question.alpha is None:
        return question.max_probes - probes

    def settled(number: int) -> bool:
        scale = number / probes
        scaled = {word: count * scale for word, count in counts.items()}
        return bool(_together(_standings(question, scaled, answered * scale, number)))

    return math.ceil(_first(settled, probes) / WAVE) * WAVE - probes if settled(max(REACH, probes)) else None


def error_rates(question: Question) -> dict[str, float]:
    """Return the chances of a wrong verdict by bad luck. Errors are not part of it.

    Of a sequential test, bounds that hold for every split, however many destinations it has:
      false_fail: chance that a split fails that is within its bands or on their edges. This is alpha.
      false_pass: chance that a split passes that is outside of a band or on its edge. This is beta. A destination of 0
          percent is outside when it gets 2 percent or more, one of 100 percent when it gets 98 or less.

    Of the profile fixed, from the binomial distribution of each destination, exact for two of them:
      false_fail: chance that a split exactly as declared fails. Of more destinations an upper bound, the sum of theirs.
      edge: chance that a split passes in which a destination is on the edge of its band (of 0 and 100 percent see
          above), the largest over destinations and edges. Of more destinations an upper bound: all others are taken to
          pass.
      off_by_twice: likewise for a destination that is off by twice the tolerance, 0 if none can be.
    """
    if question.alpha is not None and question.beta is not None:
        return {"false_fail": question.alpha, "false_pass": question.beta}
    probes, tolerance = question.max_probes, _exact(question.tolerance)
    false_fail, edge, off_by_twice = 0.0, 0.0, 0.0
    for band in _unmirrored(question):
        reach = tolerance if band.edges else Fraction(0)
        fewest, most = math.ceil(probes * (band.weight - reach)), math.floor(probes * (band.weight + reach))
        false_fail += _missed(probes, band.weight, fewest, most)
        for sign in (-1, 1):
            edge = max(edge, _hit(probes, band.weight + sign * (reach or _exact(STRAY)), fewest, most))
            off_by_twice = max(off_by_twice, _hit(probes, band.weight + sign * 2 * tolerance, fewest, most))
    return {"false_fail": min(1.0, false_fail), "edge": edge, "off_by_twice": off_by_twice}


def plan(question: Question) -> Plan:
    """Return how many probes a pass takes for a split exactly as declared, without errors.

    typical and enough are the first looks at which the evidence suffices with a chance of 1/2 and of 0.99, from the
    binomial distribution of each destination. Of more than two, the chances to fall short are added up; and an earlier
    look may have passed. Either can only make these numbers too large. They may exceed max_probes. In the profile fixed
    all three are its number of probes.
    """
    if question.alpha is None:
        return Plan(question.max_probes, question.max_probes, question.max_probes)
    least = _least(question)

    def after(missing: float) -> int:
        waves = _first(lambda number: _short(question, number * WAVE) <= missing, (least - 1) // WAVE)
        # The last wave may be a partial one.
        if waves * WAVE > question.max_probes and _short(question, question.max_probes) <= missing:
            return question.max_probes
        return waves * WAVE

    return Plan(least, after(0.5), after(0.01))


def bands(question: Question) -> tuple[Band, ...]:
    """Return the band of every destination."""
    return _bands(
        tuple(question.expect.items()), question.tolerance, question.alpha, question.beta, question.max_errors
    )


@functools.lru_cache
def _bands(
    expect: tuple[tuple[str, float], ...], tolerance: float, alpha: float | None, beta: float | None, max_errors: int
) -> tuple[Band, ...]:
    weights = {word: _exact(percent) / 100 for word, percent in expect}
    judged = sum(0 < weight < 1 for weight in weights.values())
    # Of two destinations, each one's hits are the other's misses, unless there are errors: the same test twice.
    tests = 1 if judged == 2 and not max_errors else max(1, judged)
    passing, failing = -math.log(beta or LEVEL), math.log(tests / (alpha or LEVEL))
    clean = math.ceil(-passing / math.log1p(-STRAY))
    return tuple(
        Band(word, weight, _log(weight), _log(1 - weight), _edges(weight, _exact(tolerance)), passing, failing, clean)
        for word, weight in weights.items()
    )


def _edges(weight: Fraction, tolerance: Fraction) -> tuple[Edge, ...]:
    if weight in (0, 1):
        return ()
    return tuple(
        Edge(inwards, float(share), _log(share), _log(1 - share))
        for inwards, share in ((1, weight - tolerance), (-1, weight + tolerance))
        if 0 < share < 1
    )


def standing(band: Band, hits: float, answered: float, probes: float) -> str:
    """Return "pass", "fail" or "" for one destination, by the sequential test; probes include errors."""
    if not band.edges:
        if hits != (answered if band.weight else 0):
            return "fail"
        return "pass" if answered >= band.clean else ""
    misses = probes - hits
    evidence = _evidence(band, hits, misses)
    inside = True
    for inwards, share, log, log_rest in band.edges:
        against = evidence - hits * log - misses * log_rest
        within = (hits - share * probes) * inwards > 0
        if not within and against >= band.failing:
            return "fail"
        inside = inside and within and against >= band.passing
    return "pass" if inside else ""


def _standings(question: Question, counts: Mapping[str, float], answered: float, probes: float) -> list[str]:
    if question.alpha is not None:
        return [standing(band, counts.get(band.word, 0), answered, probes) for band in bands(question)]
    complete = probes >= question.max_probes
    out = {deviation.destination for deviation in _deviations(question, counts, answered, probes)}
    # A stray answer is known for one at once, a share only when all are counted.
    return [
        "fail" if band.word in out and (complete or not band.edges) else "pass" if complete else ""
        for band in bands(question)
    ]


def _together(standings: list[str]) -> str:
    if "fail" in standings:
        return "fail"
    return "" if "" in standings else "pass"


def _evidence(band: Band, hits: float, misses: float) -> float:
    """Return the logarithm of the numerator of E."""
    declared = (hits and hits * band.log) + (misses and misses * band.log_rest)
    mixed = math.lgamma(hits + 0.5) + math.lgamma(misses + 0.5) - math.lgamma(hits + misses + 1) - math.log(math.pi)
    return max(declared, mixed) + math.log1p(math.exp(-abs(declared - mixed))) - math.log(2)


def _interval(band: Band, hits: int, probes: int) -> tuple[float, float]:
    if not probes:
        return 0.0, 1.0
    misses = probes - hits
    evidence = _evidence(band, hits, misses)

    def end(outside: float, certain: bool) -> float:
        inside = outside if certain else hits / probes
        while abs(inside - outside) > 1e-12:
            middle = (inside + outside) / 2
            if evidence - hits * math.log(middle) - misses * math.log1p(-middle) < band.passing:
                inside = middle
            else:
                outside = middle
        return inside

    return end(0.0, not hits), end(1.0, not misses)


def _first(reached: Callable[[int], bool], below: int) -> int:
    """Return the smallest number above `below` from which on it is reached, which it must be somewhere."""
    above = max(1, 2 * below)
    while not reached(above):
        below, above = above, 2 * above
    while above - below > 1:
        middle = (below + above) // 2
        below, above = (below, middle) if reached(middle) else (middle, above)
    return above


def _passing(band: Band, probes: int) -> tuple[float, float]:
    """Return the fewest and the most hits, as real numbers, that pass; the fewest are more than the most if none do."""
    if not band.edges:
        return (probes * float(band.weight),) * 2 if probes >= band.clean else (math.inf, 0.0)
    limits = [0.0, float(probes)]
    for edge in band.edges:
        # The further inwards, the more evidence there is against the edge.
        short, reached = edge.share * probes, float(probes if edge.inwards > 0 else 0)
        if not _refuted(band, edge, reached, probes):
            return math.inf, 0.0
        for _halving in range(50):
            hits = (short + reached) / 2
            short, reached = (short, hits) if _refuted(band, edge, hits, probes) else (hits, reached)
        limits[edge.inwards < 0] = reached
    return limits[0], limits[1]


def _refuted(band: Band, edge: Edge, hits: float, probes: int) -> bool:
    misses = probes - hits
    return _evidence(band, hits, misses) - hits * edge.log - misses * edge.log_rest >= band.passing


def _least(question: Question) -> int:
    """Return the fewest probes, without errors, of which some whole numbers of hits pass."""

    def possible(number: int, up: Callable[[float], float] = float, down: Callable[[float], float] = float) -> bool:
        ranges = [(up(fewest), down(most)) for fewest, most in (_passing(band, number) for band in bands(question))]
        fewest, most = sum(low for low, _high in ranges), sum(high for _low, high in ranges)
        return fewest <= number <= most and all(low <= high for low, high in ranges)

    number = _first(possible, 0)
    while not possible(number, math.ceil, math.floor):
        number += 1
    return number


def _short(question: Question, probes: int) -> float:
    """Return the chance that a split exactly as declared falls short of the evidence, as plan says."""
    short = 0.0
    for band in _unmirrored(question):
        fewest, most = _passing(band, probes)
        short += _missed(probes, band.weight, math.ceil(fewest), math.floor(most)) if fewest <= most else 1.0
    return short


def _unmirrored(question: Question) -> list[Band]:
    """Return bands that, without errors, are judged as all of them are.

    Of two destinations, one's hits are the other's misses; and a stray is one to all that have no band around them.
    """
    exact = [band for band in bands(question) if not band.edges]
    judged = [band for band in bands(question) if band.edges]
    return exact[:1] + (judged[:1] if len(judged) == 2 else judged)


def _hit(probes: int, share: Fraction, fewest: int, most: int) -> float:
    """Return the chance that a destination gets between fewest and most of the probes, 0 for an impossible share."""
    return max(0.0, 1 - _missed(probes, share, fewest, most)) if 0 <= share <= 1 else 0.0


def _missed(probes: int, share: Fraction, fewest: int, most: int) -> float:
    """Return the chance that a destination gets less than fewest or more than most of the probes."""
    return _tail(probes, float(share), most + 1) + _tail(probes, float(1 - share), probes - fewest + 1)


def _tail(probes: int, share: float, fewest: int) -> float:
    """Return the chance of at least so many hits, by the binomial distribution."""
    if fewest <= 0 or share == 1:
        return float(fewest <= probes)
    if fewest > probes or share == 0:
        return 0.0
    if fewest <= probes * share:
        return 1 - _tail(probes, 1 - share, probes - fewest + 1)
    misses = probes - fewest
    term = math.exp(
        math.lgamma(probes + 1)
        - math.lgamma(fewest + 1)
        - math.lgamma(misses + 1)
        + fewest * math.log(share)
        + misses * math.log1p(-share)
    )
    total = 0.0
    for hits in range(fewest, probes + 1):
        total += term
        term *= (probes - hits) / (hits + 1) * share / (1 - share)
        if term <= total * 1e-17:
            break
    return total


def _deviations(question: Question, counts: Mapping[str, float], answered: float, probes: float) -> list[Deviation]:
    """Return the destinations whose share is out of the band, the largest deviation first."""
    found = []
    for band in bands(question):
        hits = counts.get(band.word, 0)
        if not band.edges:
            strayed = hits != (answered if band.weight else 0)
        else:
            # Without any answer, the errors say it all.
            strayed = answered > 0 and abs(Fraction(hits) / Fraction(probes) - band.weight) > _exact(question.tolerance)
        if strayed:
            found.append(Deviation(band.word, float(band.weight), hits / probes))
    return sorted(found, key=lambda deviation: -abs(deviation.observed - deviation.expected))


def _check_expect(expect: Mapping[str, float]) -> None:
    if not isinstance(expect, Mapping) or not expect:
        raise ValueError(
            "expect names no destination; give a mapping of reply word to percent, such as {one: 80, two: 20}"
        )
    for word, percent in expect.items():
        if not isinstance(word, str) or not word or word.split() != [word]:
            raise ValueError(
                f"expect has the key {word!r}, which no reply begins with; give a word without white space, as a string"
            )
        if not _is_number(percent) or not 0 <= percent <= 100:
            raise ValueError(f"expect gives {word} {percent!r} percent; give a number from 0 to 100")
    total = sum(map(_exact, expect.values()))
    if total != 100:
        raise ValueError(f"the percentages in expect sum to {float(total):g} ({_listed(expect)}); make them sum to 100")


def _check_tolerance(question: Question) -> None:
    tolerance = question.tolerance
    if not _is_number(tolerance) or not 0 < tolerance < 1:
        raise ValueError(f"tolerance is {tolerance!r}; give a fraction between 0 and 1, such as 0.05 for 5 points")
    for word, percent in sorted(question.expect.items(), key=lambda item: abs(item[1] - 50)):
        widest = max(_exact(percent), 100 - _exact(percent)) / 100
        if percent not in (0, 100) and _exact(tolerance) >= widest:
            raise ValueError(
                f"tolerance is {tolerance!r}, which lets {word} have any share from 0 to 100 %; "
                f"give less than {float(widest):g}"
            )


def _check_reach(question: Question) -> None:
    """Refuse what cannot pass within max_probes."""
    if all(fewest <= most for fewest, most in (_passing(band, REACH) for band in bands(question))):
        if question.max_probes < _least(question):
            least, typical, _enough = plan(question)
            raise ValueError(
                f"max_probes is {question.max_probes}, with which nothing can pass at a tolerance of "
                f"{question.tolerance:g}; give at least {least}, better {typical}, which is what it typically takes, "
                "or a wider tolerance"
            )
    else:
        raise ValueError(
            f"tolerance is {question.tolerance!r}, too narrow to be settled even by {REACH} probes; give a wider one"
        )


def _sentence(deviation: Deviation, tolerance: float) -> str:
    wanted = f"{_percent(deviation.expected)} %"
    wanted = f"exactly {wanted}" if deviation.expected in (0, 1) else f"{wanted} ± {_percent(tolerance)} points"
    return f"{deviation.destination} got {_percent(deviation.observed)} % where {wanted} was expected"


def _unsettled(
    question: Question, counts: Mapping[str, int], answered: int, probes: int, further: int | None, unit: str
) -> str:
    """Return what keeps the question open, and how many further probes would settle it."""
    if question.alpha is None:
        return f"not settled after {probes} of {question.max_probes} {unit}s"
    told = []
    for band in bands(question) if probes > answered else _unmirrored(question):
        hits = counts.get(band.word, 0)
        if standing(band, hits, answered, probes):
            continue
        share = f"{band.word} is at {_percent(hits / probes)} %"
        if not band.edges:
            told.append(f"{share}, which takes {band.clean} answers to be sure of")
            continue
        low, high = _interval(band, hits, probes)
        crossed = sum(low <= edge.share <= high for edge in band.edges)
        where = ("just outside", "on the edge of", "on both edges of")[crossed]
        told.append(f"{share} ({_range(low, high)}), {where} the band {_range(*_band(band, question.tolerance))}")
    if further is None:
        hope = f"no number of {unit}s settles a share that sits on the edge"
    else:
        hope = f"about {float(f'{further:.2g}'):.0f} more {unit}s would settle it"
    return f"not settled after {probes} {unit}s: {', '.join(told)}; {hope}"


def _band(band: Band, tolerance: float) -> tuple[float, float]:
    reach = _exact(tolerance)
    return float(max(Fraction(0), band.weight - reach)), float(min(Fraction(1), band.weight + reach))


def _range(low: float, high: float) -> str:
    return f"{low * 100:.3g} to {high * 100:.3g} %"


def _listed(expect: Mapping[str, float]) -> str:
    return ", ".join(f"{word} {percent:g} %" for word, percent in expect.items())


def _percent(share: float) -> str:
    text = f"{share * 100:.4g}"
    # A stray reply in a million must not read as 0 or 100.
    return text if (text in ("0", "100")) is (share in (0, 1)) else f"{share * 100:.10g}"


def _is_number(value: object) -> bool:
    return not isinstance(value, bool) and isinstance(value, (int, float)) and math.isfinite(value)


def _is_whole(value: object) -> bool:
    return not isinstance(value, bool) and isinstance(value, int)


def _exact(value: float) -> Fraction:
    """Return the decimal number as it was written, 0.05 as 1/20."""
    return Fraction(str(value))


def _log(share: Fraction) -> float:
    return math.log(share) if share else -math.inf
