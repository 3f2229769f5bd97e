# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What becomes of sessions on one ramp, three ways side by side: route, route with a long drain, and endpoints."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from harness import Address, Clients, Held, WeightWatch

REPORTS = Path(os.environ["TRAFFICSHIFT_REPORTS"])
HELD = 6  # sessions of each kind
LONG = 600  # seconds of a long drain
RAMP = [5, 20, 50, 100]

Play = Callable[..., "tuple[int, str]"]
Route = Callable[..., str]

pytestmark = pytest.mark.usefixtures("resting")


def report() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((REPORTS / "tcp-echo-rollout.json").read_text())
    return loaded


@pytest.fixture
def ramp(play: Play, route: Route) -> Callable[..., dict[str, Any]]:
    """Roll out with a method, from all connections on v1; return the report."""

    def call(method: str, **variables: Any) -> dict[str, Any]:
        code, said = play(
            "rollout.yml",
            tcp_rollout_method=method,
            tcp_rollout_steps=RAMP,
            tcp_rollout_report_dir=str(REPORTS),
            tcp_rollout_drain_timeout=0,
            **variables,
        )
        assert code == 0, said
        return report()

    return call


def shares_are_exact(told: dict[str, Any], within: float) -> None:
    for step in told["steps"]:
        assert step["probe"]["shares"]["two"] == pytest.approx(step["percent"] / 100, abs=within)
        assert step["probe"]["errors"] == {}


def test_endpoints_lose_no_session_and_make_no_error(
    ramp: Callable[..., dict[str, Any]], route: Route, address: Address
) -> None:
    route(100, "endpoints")
    with Clients(address) as clients, Held(address, HELD, HELD) as held:
        told = ramp("endpoints")
        # Longer than the drain time since the last change: what was to be cut would have been.
        time.sleep(50)
    assert held.dead() == []
    assert clients.errors() == []
    assert [step.get("cut") for step in told["steps"]] == [None] * 5
    shares_are_exact(told, 0.02)


def test_the_route_cuts_sessions_after_the_drain_time_as_it_foretold(
    ramp: Callable[..., dict[str, Any]], route: Route, address: Address, watch: WeightWatch
) -> None:
    route(100, "route")
    with Clients(address) as clients, Held(address, HELD, HELD) as held:
        told = ramp("route")
        deadline = time.monotonic() + 60
        while held.living() and time.monotonic() < deadline:
            time.sleep(0.5)
    first = next(state for state in watch.states() if state.weights == {"v1": 95, "v2": 5})
    forecast = told["steps"][1]["cut"]
    assert forecast["total"] >= 2 * HELD, forecast
    assert {replica["seconds"] for replica in forecast["replicas"]} == {45.0}
    assert sum(replica["sessions"].get("v1", 0) for replica in forecast["replicas"]) >= 2 * HELD
    died = [session.died - first.at for session in held.dead() if session.died]
    assert len(died) == 2 * HELD, [(session.version, session.how) for session in held.sessions]
    # Not before the time that was foretold; how much later is the machine's to say.
    assert min(died) >= 44
    assert clients.errors() == []
    shares_are_exact(told, 0.05)


def test_a_limit_of_sessions_stops_the_ramp_where_it_is(
    play: Play, route: Route, address: Address, watch: WeightWatch
) -> None:
    route(100, "route")
    before = watch.until(lambda state: state.weights == {"v1": 100} and state.method == "route")
    with Held(address, HELD, 0) as held:
        code, said = play(
            "rollout.yml",
            tcp_rollout_method="route",
            tcp_rollout_steps=[50],
            tcp_rollout_max_sessions_cut=HELD - 1,
            tcp_rollout_sessions_wait=1,
            tcp_rollout_report_dir=str(REPORTS),
        )
        assert code != 0
        assert f"tcp_rollout_max_sessions_cut allows {HELD - 1}" in said
        assert held.dead() == []
    assert report()["outcome"] == "left"
    assert all(state.weights == {"v1": 100} for state in watch.states() if state.at >= before.at)


def test_a_long_drain_lets_sessions_live_on(
    ramp: Callable[..., dict[str, Any]], play: Play, route: Route, address: Address
) -> None:
    route(100, "route")
    code, said = play("istio", istio_gateway_drain_duration=f"{LONG}s")
    assert code == 0, said
    try:
        with Clients(address) as clients, Held(address, HELD, HELD) as held:
            told = ramp("route")
            time.sleep(50)  # the usual drain time and more since the last change
        assert held.dead() == []
        assert clients.errors() == []
        forecast = told["steps"][1]["cut"]
        assert {replica["seconds"] for replica in forecast["replicas"]} == {float(LONG)}
        shares_are_exact(told, 0.05)
    finally:
        code, said = play("istio", istio_gateway_drain_duration="45s")
        assert code == 0, said
