# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The course of a rollout in a world of memory, ended at every point; the real world is the scenario rollout's."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from ansible_collections.trafficshift.istio.plugins.module_utils import _ramp
from ansible_collections.trafficshift.istio.plugins.module_utils._client import (
    ClusterError,
    ConflictError,
    UnreachableError,
)
from ansible_collections.trafficshift.istio.plugins.module_utils._gates import Exposure, Gate
from ansible_collections.trafficshift.istio.plugins.module_utils._ramp import Place, RampError, Record, Weights
from ansible_collections.trafficshift.istio.plugins.module_utils._route_store import Live
from ansible_collections.trafficshift.istio.plugins.plugin_utils._rollout import Rollout, Settings, blank

BEFORE = {"v1": 100, "v2": 0}
STEPS = [5, 20, 100]
ALLOWED = [BEFORE, *({"v1": 100 - step, "v2": step} for step in STEPS)]
SETTINGS = Settings(
    old="v1",
    new="v2",
    steps=STEPS,
    method="endpoints",
    hold=0.0,
    deadline=1000.0,
    on_resume="back",
    take_lock="",
    lease=60,
    max_failures=0,
    max_sessions_cut=None,
    sessions_wait=0.0,
    drain_timeout=30.0,
    alpha=0.001,
    obstacle="",
)


class Killed(BaseException):
    """What nothing catches, as if the process were gone."""


class MemoryWorld:
    """A route in memory. `trap` is called at each call, with its number and name, before and after it has effect."""

    name = "tcp-echo"
    reference = "default/tcp-echo"

    def __init__(self) -> None:
        self.tick: Callable[[], None] = lambda: None
        self.trap: Callable[[int, str, bool], None] = lambda number, name, done: None
        self.weights: Weights = dict(BEFORE)
        self.method = "endpoints"
        self.record: Record | None = None
        self.generation = 0
        self.calls = 0
        self.seconds = 0.0
        self.history: list[Weights] = [dict(BEFORE)]
        self.said: list[str] = []
        self.dead: set[Place] = set()
        self.abandoned = False
        self.failing_at: dict[int, dict[str, Any]] = {}  # what is wrong, by percentage
        self.live_sessions = 0
        self.held = 0
        self.hidden_until = 0.0

    @contextlib.contextmanager
    def _call(self, name: str) -> Iterator[None]:
        self.calls += 1
        self.seconds += 0.1
        number = self.calls
        self.trap(number, name, False)
        self.tick()
        yield
        self.trap(number, name, True)

    def clock(self) -> float:
        return self.seconds

    def now(self) -> datetime:
        return datetime(2026, 11, 24, 10, tzinfo=timezone.utc) + timedelta(seconds=self.seconds)

    def read(self) -> Live:
        with self._call("read"):
            return Live([{"generation": self.generation}], dict(self.weights), self.method, self.record)

    def is_abandoned(self) -> bool:
        return self.abandoned

    def is_alive(self, place: Place) -> bool | None:
        return False if place in self.dead else None

    def _write(self, live: Live, record: Record | None, weights: Weights | None) -> None:
        if live.objects[0]["generation"] != self.generation:
            raise ConflictError("409")
        self.generation += 1
        self.record = record
        if weights is not None:
            self.weights = dict(weights)
            self.history.append(dict(weights))

    def write_record(self, live: Live, record: Record | None) -> None:
        with self._call("write_record"):
            self._write(live, record, None)

    def write_weights(self, live: Live, weights: Weights, record: Record) -> None:
        with self._call("write_weights"):
            self._write(live, record, weights)

    def switch(self, live: Live, method: str) -> None:
        with self._call("switch"):
            self.method = method

    def converge(self, weights: Weights, method: str) -> dict[str, Any]:
        with self._call("converge"):
            assert (weights, method) == (self.weights, self.method)
            lagging = "lagging" in self.failing_at.get(weights["v2"], {})
            return {"converged": not lagging, "reason": "replica a lags." if lagging else "All have it."}

    def measure(self, weights: Weights, method: str, percent: int, settle: bool = False) -> dict[str, Any]:
        with self._call("measure"):
            fails = "verdict" in self.failing_at.get(percent, {})
            said = {
                "passed": not fails,
                "verdict": "fail" if fails else "pass",
                "msg": "two got 0 %" if fails else "ok",
            }
            return {"probes": 500, "max_errors": 0, "errors": {}, "shares": {}, **said}

    def exposures(self) -> tuple[dict[str, Exposure], str]:
        with self._call("exposures"):
            percent = self.weights["v2"]
            failed = self.failing_at.get(percent, {}).get("failed", 0)
            return {"v1": Exposure(500 - 5 * percent, 0), "v2": Exposure(5 * percent, failed)}, ""

    def sessions(self, method: str) -> dict[str, Any]:
        with self._call("sessions"):
            return {"total": self.live_sessions, "replicas": [], "msg": f"{self.live_sessions} would be cut"}

    def remaining(self, version: str) -> dict[str, Any]:
        with self._call("remaining"):
            return {"total": self.live_sessions, "hidden": self.seconds < self.hidden_until, "msg": "some remain"}

    def checks(self, percent: int) -> list[Gate]:
        with self._call("checks"):
            return [Gate("url", "check" not in self.failing_at.get(percent, {}), "asked")]

    def hold_sessions(self, weights: Weights, percent: int) -> None:
        self.held += 1

    def let_sessions_go(self) -> list[dict[str, Any]]:
        held, self.held = self.held, 0
        return [{"fate": "alive"}] * held

    def pause(self, seconds: float) -> None:
        with self._call("pause"):
            self.seconds += seconds

    def say(self, text: str) -> None:
        self.said.append(text)

    def restore_command(self, weights: Weights) -> str:
        return f"kubectl restore {weights}"

    @contextlib.contextmanager
    def impatient(self) -> Iterator[None]:
        yield


def rollout(world: MemoryWorld, run: str = "first", **changed: Any) -> Rollout:
    place = Place("here", hash(run) % 1000, run)
    return Rollout(SETTINGS._replace(**changed), world, blank(run, f"{run}@here", place, 60), world.clock)


def calls_of_a_whole_run(**changed: Any) -> int:
    world = MemoryWorld()
    rollout(world, **changed).run()
    return world.calls


def test_it_goes_through_all_steps_and_lets_go() -> None:
    world = MemoryWorld()
    result = rollout(world).run()
    assert (result["outcome"], result["passed"], result["changed"]) == ("completed", True, True)
    assert world.history == ALLOWED
    assert world.record is None
    assert [step["percent"] for step in result["steps"]] == [0, *STEPS]
    assert all(step["passed"] for step in result["steps"])
    assert result["drained"]["at"]
    assert result["live"] == {"v1": 0, "v2": 100}
    assert (len(result["canary"]), world.held) == (4, 0)


def test_what_is_live_already_is_only_verified() -> None:
    world = MemoryWorld()
    rollout(world).run()
    generation = world.generation
    again = rollout(world).run()
    assert (again["outcome"], again["changed"], world.generation) == ("completed", False, generation)
    assert [step["percent"] for step in again["steps"]] == [100]


def test_it_goes_on_from_where_the_route_is() -> None:
    world = MemoryWorld()
    world.weights = {"v1": 80, "v2": 20}
    result = rollout(world).run()
    assert [step["percent"] for step in result["steps"]] == [20, 100]
    assert result["before"] == {"v1": 80, "v2": 20}


@pytest.mark.parametrize("wrong", ["lagging", "verdict", "check", "failed"])
@pytest.mark.parametrize("percent", STEPS)
def test_what_fails_takes_it_back_and_proves_it(percent: int, wrong: str) -> None:
    world = MemoryWorld()
    world.failing_at = {percent: {wrong: 3}}
    result = rollout(world).run()
    assert (result["outcome"], result["passed"]) == ("taken_back", False)
    assert result["back"]["proven"]
    assert (world.weights, world.record) == (BEFORE, None)
    assert f"at {percent} %" in result["msg"]
    assert not result["steps"][-1]["passed"]


@pytest.mark.parametrize("wrong", ["lagging", "verdict"])
def test_what_is_broken_before_anything_moves_is_told_and_nothing_moves(wrong: str) -> None:
    world = MemoryWorld()
    world.failing_at = {0: {wrong: True}}
    result = rollout(world).run()
    assert (result["outcome"], result["back"], world.history) == ("unchanged", None, [BEFORE])
    assert world.record is None


def test_a_new_version_that_is_worse_is_taken_back_whatever_is_allowed() -> None:
    world = MemoryWorld()
    world.failing_at = {20: {"failed": 60}}
    result = rollout(world, max_failures=100).run()
    assert result["outcome"] == "taken_back"
    assert [gate["gate"] for gate in result["steps"][-1]["gates"] if not gate["ok"]] == ["connect_failures_compared"]


def test_the_deadline_takes_it_back() -> None:
    world = MemoryWorld()
    result = rollout(world, hold=100.0, deadline=150.0).run()
    assert result["outcome"] == "taken_back"
    assert "150 s, which is tcp_rollout_deadline" in result["msg"]


def test_while_it_holds_a_step_it_looks_at_the_gates() -> None:
    world = MemoryWorld()

    def break_later(_number: int, name: str, done: bool) -> None:
        if name == "pause" and done and world.weights["v2"] == 20:
            world.failing_at = {20: {"failed": 1}}

    world.trap = break_later
    result = rollout(world, hold=60.0).run()
    assert result["outcome"] == "taken_back"
    assert world.seconds < 90


def test_the_lease_is_kept_while_it_waits() -> None:
    world = MemoryWorld()
    seen: set[str] = set()

    def remember(_number: int, _name: str, _done: bool) -> None:
        if world.record:
            seen.add(world.record.renewed)
            assert (world.now() - _ramp.parse_time(world.record.renewed)).total_seconds() <= 60

    world.trap = remember
    rollout(world, hold=100.0).run()
    assert len(seen) > 10


def interrupted_at(point: int, after: bool, **changed: Any) -> tuple[MemoryWorld, dict[str, Any]]:
    world = MemoryWorld()
    run = rollout(world, **changed)

    def interrupt(number: int, _name: str, done: bool) -> None:
        if (number, done) == (point, after):
            run.interrupt("interrupted by SIGTERM")

    world.trap = interrupt
    return world, run.run()


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("method", ["route", "endpoints"])
def test_an_interruption_at_any_point_takes_it_back(after: bool, method: str) -> None:
    changed = {"method": method, "hold": 6.0}
    for point in range(1, calls_of_a_whole_run(**changed) + 1):
        world, result = interrupted_at(point, after, **changed)
        assert all(weights in ALLOWED for weights in world.history)
        assert world.record is None, point
        if result["outcome"] == "completed":  # it was over by then
            assert world.weights == ALLOWED[-1]
        else:
            assert world.weights == BEFORE, (point, result["msg"])
            assert result["outcome"] in ("taken_back", "unchanged")
            assert "interrupted by SIGTERM" in result["msg"]


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("on_resume", ["back", "resume"])
def test_a_run_killed_at_any_point_is_recognised_by_the_next(after: bool, on_resume: str) -> None:
    for point in range(1, calls_of_a_whole_run(hold=6.0) + 1):
        world = MemoryWorld()

        def kill(number: int, _name: str, done: bool, at: int = point) -> None:
            if (number, done) == (at, after):
                raise Killed

        world.trap = kill
        first = rollout(world, hold=6.0)
        with contextlib.suppress(Killed):
            first.run()
        world.trap = lambda number, name, done: None
        left, record, before = dict(world.weights), world.record, len(world.history)
        assert left in ALLOWED
        if record:
            world.dead.add(record.place)
            assert any(_ramp.same(left, known) for known in (record.weights, record.last))
        second = rollout(world, "second", on_resume=on_resume).run()
        assert world.record is None
        if record is None:
            assert left in (BEFORE, ALLOWED[-1])
        elif on_resume == "back":
            assert second["outcome"] == "taken_back"
            assert (world.weights, second["lost"]["id"]) == (BEFORE, "first")
        else:
            assert (second["outcome"], world.weights) == ("completed", ALLOWED[-1])
            shares = [weights["v2"] for weights in world.history[before - 1 :]]
            assert shares == sorted(shares), "a resumed rollout does not start over"


def test_a_second_rollout_is_refused_and_told_of_the_first() -> None:
    world = MemoryWorld()
    refusals: list[str] = []

    def second(_number: int, name: str, done: bool) -> None:
        if name == "measure" and done and world.weights["v2"] == 20 and not refusals:
            with pytest.raises(RampError) as refusal:
                other = MemoryWorld.__new__(MemoryWorld)
                other.__dict__.update(world.__dict__, trap=lambda number, name, done: None)
                rollout(other, "second").run()
            refusals.append(str(refusal.value))

    world.trap = second
    assert rollout(world).run()["outcome"] == "completed"
    assert "being moved by the rollout first of first@here" in refusals[0]


def test_who_was_quicker_has_the_route() -> None:
    world = MemoryWorld()

    def intrude(_number: int, name: str, done: bool) -> None:
        if name == "write_record" and not done and world.record is None:
            world.generation += 1
            now = _ramp.iso(world.now())
            other = blank("other", "other@there", Place("", 1, ""), 60)
            world.record = other._replace(since=now, renewed=now, old="v1", new="v2", before=BEFORE)

    world.trap = intrude
    result = rollout(world).run()
    assert (result["outcome"], world.history) == ("unchanged", [BEFORE])
    assert "rollout other of other@there" in result["msg"]
    assert world.record is not None and world.record.id == "other"


def test_a_route_that_was_taken_over_is_left_alone() -> None:
    world = MemoryWorld()

    def take_over(_number: int, name: str, done: bool) -> None:
        if name == "measure" and done and world.weights["v2"] == 20 and world.record and world.record.id == "first":
            world.record = world.record._replace(id="other", owner="other@there")
            world.generation += 1

    world.trap = take_over
    result = rollout(world).run()
    assert result["outcome"] == "left"
    assert "the rollout other of other@there took the route default/tcp-echo over" in result["msg"]
    assert (world.weights["v2"], world.record and world.record.id) == (20, "other")


def test_a_lost_rollout_is_not_taken_back_over_somebody_s_change() -> None:
    world = MemoryWorld()
    with contextlib.suppress(Killed):
        world.trap = lambda number, name, done: kill_after(world, name, done)
        rollout(world).run()
    world.trap = lambda number, name, done: None
    assert world.record
    world.dead.add(world.record.place)
    world.weights = {"v1": 70, "v2": 30}
    with pytest.raises(RampError, match="somebody changed it since"):
        rollout(world, "second").run()
    assert world.weights == {"v1": 70, "v2": 30}


def kill_after(world: MemoryWorld, name: str, done: bool) -> None:
    if name == "measure" and done and world.weights["v2"] == 20:
        raise Killed


@pytest.mark.parametrize(("on_resume", "outcome"), [("back", "taken_back"), ("resume", "abandoned")])
def test_a_run_whose_playbook_is_gone_does_what_the_next_would(on_resume: str, outcome: str) -> None:
    world = MemoryWorld()

    def abandon(_number: int, name: str, done: bool) -> None:
        if name == "measure" and done and world.weights["v2"] == 20:
            world.abandoned = True

    world.trap = abandon
    result = rollout(world, on_resume=on_resume).run()
    assert result["outcome"] == outcome
    assert (world.record is None) is (outcome == "taken_back")
    assert world.weights["v2"] == (0 if outcome == "taken_back" else 20)


def test_a_way_back_that_fails_is_told_with_the_command() -> None:
    world = MemoryWorld()
    world.failing_at = {20: {"verdict": 1}}

    def break_all(_number: int, name: str, done: bool) -> None:
        if name == "write_weights" and done and world.weights == BEFORE:
            world.failing_at = {0: {"lagging": 1}}

    world.trap = break_all
    result = rollout(world).run()
    assert result["outcome"] == "stuck"
    assert result["msg"].startswith("default/tcp-echo: NOT TAKEN BACK. at 20 %: two got 0 %; and on the way back: ")
    assert result["restore"] == f"kubectl restore {BEFORE}"
    assert result["restore"] in result["msg"]
    assert world.record and world.record.phase == "back"
    world.dead.add(world.record.place)
    world.failing_at, world.trap = {}, lambda number, name, done: None
    assert rollout(world, "second", on_resume="resume").run()["outcome"] == "taken_back"


def test_an_error_that_nobody_thought_of_takes_it_back() -> None:
    world = MemoryWorld()

    def break_down(_number: int, name: str, done: bool) -> None:
        if name == "exposures" and done and world.weights["v2"] == 20:
            raise KeyError("unthought")

    world.trap = break_down
    result = rollout(world).run()
    assert (result["outcome"], world.weights) == ("taken_back", BEFORE)
    assert "KeyError" in result["msg"]


def test_a_lease_that_cannot_be_renewed_for_a_while_ends_nothing() -> None:
    world = MemoryWorld()

    def refuse(_number: int, name: str, done: bool) -> None:
        # Renewals come out of a pause; everything else is answered.
        if name == "write_record" and not done and 30 < world.seconds < 60:
            raise UnreachableError("503")

    world.trap = refuse
    assert rollout(world, hold=30.0).run()["outcome"] == "completed"


def test_a_renewal_in_the_middle_of_a_write_keeps_the_step_on_record() -> None:
    """With endpoints the record is written first, and the weights can be refused for longer than the lease is fresh."""

    class TwoObjects(MemoryWorld):
        def write_weights(self, live: Live, weights: Weights, record: Record) -> None:
            self.write_record(live, record)
            self.seconds += 30
            self.tick()
            self.weights = dict(weights)
            self.history.append(dict(weights))
            if weights["v2"] == 20:
                raise Killed

    world = TwoObjects()
    with pytest.raises(Killed):
        rollout(world).run()
    assert world.record
    assert _ramp.same(world.record.weights, world.weights)
    _ramp.check_live(world.record, world.weights, world.reference)


def test_sessions_that_a_change_would_cut_are_told_before() -> None:
    world = MemoryWorld()
    world.method, world.live_sessions = "route", 7
    result = rollout(world, method="route", drain_timeout=0.0).run()
    assert [step.get("cut", {}).get("total") for step in result["steps"] if step["percent"]] == [7, 7, 7]
    assert result["outcome"] == "completed"


def test_endpoints_cut_nothing_but_at_the_change_of_method() -> None:
    world = MemoryWorld()
    world.method, world.live_sessions = "route", 7
    result = rollout(world, drain_timeout=0.0).run()
    assert result["switch"] == {"from": "route", "to": "endpoints", "cut": world.sessions("route")}
    assert all(step.get("cut") is None for step in result["steps"])


def test_too_many_sessions_stop_it_where_it_is() -> None:
    world = MemoryWorld()
    world.method = "route"

    def fill(_number: int, name: str, done: bool) -> None:
        if name == "measure" and done and world.weights["v2"] == 20:
            world.live_sessions = 7

    world.trap = fill
    result = rollout(world, method="route", max_sessions_cut=6, sessions_wait=10.0).run()
    assert (result["outcome"], world.weights["v2"], world.record) == ("left", 20, None)
    assert "tcp_rollout_max_sessions_cut allows 6" in result["msg"]
    world.live_sessions, world.trap = 6, lambda number, name, done: None
    assert rollout(world, "second", method="route", max_sessions_cut=6).run()["outcome"] == "completed"


def test_a_record_that_cannot_be_removed_where_it_stops_is_told() -> None:
    world = MemoryWorld()
    world.method, world.live_sessions = "route", 7

    def break_all(_number: int, name: str, done: bool) -> None:
        if name == "write_record" and world.record and not done:
            raise UnreachableError("No answer.")

    world.trap = break_all
    result = rollout(world, method="route", max_sessions_cut=6).run()
    assert (result["outcome"], world.weights) == ("left", BEFORE)
    assert "allows 6" in result["msg"]
    assert result["msg"].endswith("; the record trafficshift.istio/rollout stays on the route, because No answer.")


def test_sessions_that_do_not_end_are_told_and_fail_nothing() -> None:
    world = MemoryWorld()
    world.live_sessions = 3
    result = rollout(world).run()
    assert result["outcome"] == "completed"
    assert (result["drained"]["at"], result["drained"]["total"]) == (None, 3)
    assert result["drained"]["waited"] >= 30


def test_sessions_that_nobody_counts_are_waited_for() -> None:
    world = MemoryWorld()
    world.hidden_until = 25.0
    result = rollout(world).run()
    assert result["drained"]["at"]
    assert world.seconds > 25


def test_an_obstacle_stops_the_way_forward_and_not_the_way_back() -> None:
    world = MemoryWorld()
    with pytest.raises(RampError, match="v2 has no pods"):
        rollout(world, obstacle="v2 has no pods").run()
    world.trap = lambda number, name, done: kill_after(world, name, done)
    with pytest.raises(Killed):
        rollout(world).run()
    assert world.record
    world.dead.add(world.record.place)
    world.trap = lambda number, name, done: None
    assert rollout(world, "second", obstacle="v2 has no pods").run()["outcome"] == "taken_back"


def test_without_a_route_there_is_nothing_to_move() -> None:
    world = MemoryWorld()
    world.weights = {}
    with pytest.raises(RampError, match="declare it with the role tcp_route"):
        rollout(world).run()


def test_a_plan_changes_nothing() -> None:
    world = MemoryWorld()
    plan = rollout(world).plan()
    assert (plan.steps, plan.changes) == (ALLOWED[1:], 3)
    assert (world.generation, world.record) == (0, None)


def test_a_right_that_is_missing_is_named_and_nothing_stays() -> None:
    world = MemoryWorld()

    def refuse(_number: int, name: str, done: bool) -> None:
        if name == "write_record" and not done and world.record is None:
            raise ClusterError("This account may not patch virtualservices")

    world.trap = refuse
    result = rollout(world).run()
    assert (result["outcome"], world.record) == ("unchanged", None)
    assert "may not patch virtualservices" in result["msg"]
