# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Results to report on: each verdict, much and little data, and texts that mean harm."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from ansible_collections.trafficshift.istio.plugins.module_utils._tally import Tally
from ansible_collections.trafficshift.istio.plugins.module_utils._verdict import ask, error_rates, judge


def verified(
    expect: Mapping[str, float], truth: Mapping[str, float], probes: int, seed: int, **other: Any
) -> dict[str, Any]:
    """A result of tcp_verify; the word "" in `truth` stands for errors."""
    draws, tally, question = random.Random(seed), Tally(expect), ask(expect)
    for word in draws.choices(list(truth), list(truth.values()), k=probes):
        tally.add(*(("", word, 0.003) if word else ("reset", "Connection reset by peer after 12 bytes", 0.003)))
    verdict = judge(question, tally.counts, tally.errors, tally.details)
    return {
        "started": "2026-07-09T14:03:11Z",
        "ended": "2026-07-09T14:03:15Z",
        "verdict": verdict.verdict,
        "passed": verdict.passed,
        "msg": f"192.0.2.1:31400: {verdict.reason}",
        "witness": "both",
        "probes": tally.probes,
        "counts": tally.counts,
        "shares": tally.shares(),
        "intervals": {word: list(span) for word, span in verdict.intervals.items()},
        "errors": tally.errors,
        "error_details": tally.details,
        "latency": tally.latency(),
        "deviations": [deviation._asdict() for deviation in verdict.deviations],
        "duration": 3.2,
        "address": "192.0.2.1",
        "ingress": {"host": "192.0.2.1", "port": 31400, "reason": "the Service istio-ingressgateway has this address"},
        "trajectory": tally.trajectory.encode(),
        "error_rates": error_rates(question),
        "protocol": "line",
        "convergence": CONVERGENCE,
        "gateway": GATEWAY,
        "weights": {"v1": 80, "v2": 20},
        "versions": {"ansible": "2.19.14", "collection": "0.1.0", "python": "3.11.2", "kubernetes": "v1.35.1"},
        **question._asdict(),
        **other,
    }


REPLICAS = [f"istio-ingressgateway-59877d5fb8-{name}" for name in ("2jzcf", "7xq2m", "wv9kd")]
CONVERGENCE = {
    "state": "observed",
    "reason": "All 3 gateway replicas have v1 80 / v2 20 on port 31400.",
    "duration": 0.61,
    "replicas": [{"name": name, "ok": True, "weights": {"v1": 80, "v2": 20}, "warming": False} for name in REPLICAS],
}
LAGGING = {
    **CONVERGENCE,
    "reason": f"The gateway replica {REPLICAS[2]} still has v1 100 on port 31400.",
    "replicas": [
        *CONVERGENCE["replicas"][:2],  # type: ignore[index]
        {"name": REPLICAS[2], "ok": False, "weights": {"v1": 100}, "warming": True},
    ],
}
GATEWAY = {
    "witness": "available",
    "verdict": "pass",
    "reason": "tcp-echo.default:9000: the split is as expected",
    "growth": {
        "v1": {"connections": 1590, "connect_failures": 0, "live": 3},
        "v2": {"connections": 391, "connect_failures": 0, "live": 1},
    },
    "intervals": {"v1": [0.765, 0.829], "v2": [0.171, 0.235]},
    "agreement": {
        "agrees": True,
        "reason": "the gateway's replicas counted all 1950 connections of the probe, and 31 of others",
    },
    "others": {"v1": 25, "v2": 6},
    "window": 12.301,
    "notes": [f"{REPLICAS[1]} has started in the meantime and counts from 0"],
    "replicas": [
        {"name": name, "growth": {"v1": {"connections": 530}, "v2": {"connections": 130}}, "error": ""}
        for name in REPLICAS
    ],
}
SESSIONS = [
    {"kind": kind, "destination": destination, "fate": fate, "died": died, "lived": lived, "detail": detail}
    for kind, destination, fate, died, lived, detail in (
        *[("idle", "one", "alive", None, 120.0, "")] * 8,
        ("idle", "two", "closed", "2026-07-09T14:03:56.480Z", 45.276, ""),
        ("idle", "two", "closed", "2026-07-09T14:03:56.301Z", 45.097, ""),
        ("chatting", "two", "garbled", "2026-07-09T14:03:13.000Z", 1.796, "unexpected reply three"),
    )
]
SCRIPT = "<script>window.hacked=1</script><img/src=x/onerror=window.hacked=1>"
LONG = "x" * 300
EIGHT = {"alpha": 30, "beta": 20, "gamma": 10, "delta": 10, "epsilon": 10, "zeta": 10, "eta": 5, "theta": 5}

RESULTS: dict[str, dict[str, Any]] = {
    "pass": verified({"one": 80, "two": 20}, {"one": 80, "two": 20}, 1950, 8),
    "fail": verified({"one": 80, "two": 20}, {"one": 60, "two": 40}, 600, 3, sessions=SESSIONS, sessions_lost=3),
    "inconclusive": verified({"one": 80, "two": 20}, {"one": 75.5, "two": 24.5}, 5000, 3),
    "exact": verified({"one": 100, "two": 0}, {"one": 1}, 350, 1),
    "eight": verified(EIGHT, EIGHT, 4000, 3),
    "errors": verified(
        {"one": 80, "two": 20},
        {"one": 78, "two": 19, "": 3},
        400,
        1,
        unexpected={"three": 3},
        convergence={"state": "behavioural", "reason": "This account may not look into the gateway's pods."},
    ),
    "not probed": {
        "verdict": "not probed",
        "msg": LAGGING["reason"],
        "expect": {"one": 80, "two": 20},
        "tolerance": 0.05,
        "convergence": LAGGING,
    },
    "nothing": {},
    "hostile": verified(
        {SCRIPT: 80, LONG: 20},
        {SCRIPT: 80, LONG: 20},
        1000,
        3,
        msg=SCRIPT + LONG,
        unexpected={LONG: 1, SCRIPT: 2},
        address=LONG,
        sessions=[{"kind": LONG, "destination": SCRIPT, "fate": LONG, "died": LONG, "lived": 10**14, "detail": LONG}],
        weights={SCRIPT: 80, LONG: 20},
        convergence={
            "state": SCRIPT,
            "reason": LONG,
            "replicas": [{"name": LONG, "weights": {LONG: 1}, "error": LONG}],
        },
        gateway={**GATEWAY, "growth": {SCRIPT: {"connections": 10**14}, LONG: {}}, "others": {LONG: 10**14}},
    ),
}
