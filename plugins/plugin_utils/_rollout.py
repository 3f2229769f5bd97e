# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The course of one rollout: step by step forward, and back when anything says so. Touches the world by World only.

Whatever raises between the first change and the end leads back. An interruption is kept until the next tick, so that it
leaves nothing half done, no lock either, and is not heard any more once the way back has begun.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any, NamedTuple, Protocol

from ansible_collections.trafficshift.istio.plugins.module_utils import _gates, _ramp
from ansible_collections.trafficshift.istio.plugins.module_utils._client import (
    ClusterError,
    ConflictError,
    UnreachableError,
)
from ansible_collections.trafficshift.istio.plugins.module_utils._gates import Exposure, Gate
from ansible_collections.trafficshift.istio.plugins.module_utils._gateway import weights_text
from ansible_collections.trafficshift.istio.plugins.module_utils._ramp import (
    BACK,
    FORWARD,
    Place,
    RampError,
    Record,
    Weights,
)
from ansible_collections.trafficshift.istio.plugins.module_utils._route_store import Live

LOOK = 5.0  # seconds between two looks at the gates while a step is held
TRIES = 5  # to write what somebody else writes too


class Interrupted(BaseException):
    """A signal came, or the process that waits for this one is gone. No Exception: libraries catch these."""


class Abandoned(BaseException):
    """Nobody waits for this run any more, and the next one is to resume it: everything stays, the record too."""


class Left(Exception):
    """The rollout ends where it is; the weights stay."""


class StepError(Exception):
    """Why a step failed, in one clause."""


class Settings(NamedTuple):
    """What a rollout is to do; the role's options of these names tell more."""

    old: str
    new: str
    steps: Sequence[int]
    method: str
    hold: float
    deadline: float
    on_resume: str
    take_lock: str
    lease: int
    max_failures: int
    max_sessions_cut: int | None
    sessions_wait: float
    drain_timeout: float
    alpha: float
    obstacle: str  # what is known to stand in the way forward


class World(Protocol):
    """Everything outside. What cannot be done raises ClusterError, after as much patience as there is."""

    name: str
    reference: str
    tick: Callable[[], None]  # to be called while waiting

    def now(self) -> datetime:
        """Return the API server's time."""

    def read(self) -> Live:
        """Return the live route."""

    def is_abandoned(self) -> bool:
        """Return whether the process that waits for this run is gone."""

    def is_alive(self, place: Place) -> bool | None:
        """Return whether a process lives, None if that cannot be told."""

    def write_record(self, live: Live, record: Record | None) -> None:
        """Write the record on the route, or remove it."""

    def write_weights(self, live: Live, weights: Weights, record: Record) -> None:
        """Write weights and record."""

    def switch(self, live: Live, method: str) -> None:
        """Let another method give the weights that are live."""

    def converge(self, weights: Weights, method: str) -> dict[str, Any]:
        """Return the convergence of a report, with `converged`."""

    def measure(self, weights: Weights, method: str, percent: int, settle: bool = False) -> dict[str, Any]:
        """Return a verification as reports have it, and begin to count failures.

        With `settle` what is wrong may mend itself for a while, and is measured again.
        """

    def exposures(self) -> tuple[dict[str, Exposure], str]:
        """Return by version what the gateway counted since the last measurement began, and why that is not all."""

    def sessions(self, method: str) -> dict[str, Any]:
        """Return what a change that drains the listener would cut: `total`, `replicas` and `msg`."""

    def remaining(self, version: str) -> dict[str, Any]:
        """Return the sessions of a version: `total` (None if unknown), whether some may be `hidden`, and `msg`."""

    def checks(self, percent: int) -> list[Gate]:
        """Return what the user's own checks say."""

    def hold_sessions(self, weights: Weights, percent: int) -> None:
        """Open the connections that are to be held through all that comes."""

    def let_sessions_go(self) -> list[dict[str, Any]]:
        """Close the connections that were held, and return what became of each."""

    def pause(self, seconds: float) -> None:
        """Wait."""

    def say(self, text: str) -> None:
        """Tell the user, now."""

    def restore_command(self, weights: Weights) -> str:
        """Return the command that sets weights by hand."""

    def impatient(self) -> AbstractContextManager[None]:
        """Let what cannot be done raise at once."""


class Rollout:
    """One run. `result` is what it can tell at any time."""

    def __init__(
        self, settings: Settings, world: World, me: Record, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Take `me`, a record with this run's id, owner and place; the rest of it is filled in."""
        self._settings = settings
        self._world = world
        self._me = me
        self._clock = clock
        self._deadline = clock() + settings.deadline
        self._holds = False  # the record on the route is this run's
        self._moved = False  # weights were written, or a lost run may have written some
        self._ended = False  # nothing interrupts any more
        self._ticking = False
        self._interruption = ""
        self._compared = _gates.Comparison(settings.alpha, settings.old, settings.new)
        self._baseline: _gates.ErrorComparison | None = None
        world.tick = self._tick
        self.result: dict[str, Any] = {
            "name": world.name,
            "id": me.id,
            "owner": me.owner,
            "outcome": "refused",
            "passed": False,
            "msg": "",
            "method": settings.method,
            "from": settings.old,
            "to": settings.new,
            "before": {},
            "live": {},
            "lost": None,
            "switch": None,
            "changed": False,
            "steps": [],
            "back": None,
            "drained": None,
            "canary": [],
            "restore": "",
        }

    def plan(self) -> _ramp.Plan:
        """Return what a run would do; raises RampError and ClusterError for what stands in its way. Changes nothing."""
        return self._prepare()[1]

    def run(self) -> dict[str, Any]:
        """Go through the steps, or back; return the result. Raises RampError and ClusterError if it did not begin."""
        try:
            live, plan, lost = self._prepare()
        except Interrupted as reason:
            self._end("unchanged", f"{reason}; nothing was changed")
            return self.result
        if lost and plan.back:
            self._ended = True
            self._claim(live, lost, BACK)
            self._moved = True
            self._back(f"the rollout {lost.id} of {lost.owner} was lost at {weights_text(lost.weights)}")
            return self.result
        if not plan.changes and live.method == self._settings.method and not lost:
            return self._verify_only(plan)
        try:
            self._claim(live, lost, FORWARD)
            self._moved = lost is not None
            self._forward(plan)
            self._release()
            self._end("completed", f"{weights_text(plan.steps[-1])} is live, and every step was proven")
        except Left as reason:
            self._leave(str(reason))
        except Abandoned:
            self._end("abandoned", "the playbook is gone, and the next run is to resume this one")
        except (Exception, Interrupted) as error:  # whatever it is, traffic must not stay half way
            self._back(_said(error))
        return self.result

    def interrupt(self, reason: str) -> None:
        """Take the traffic back as soon as it can be done; for signal handlers."""
        self._interruption = self._interruption or reason

    def _prepare(self) -> tuple[Live, _ramp.Plan, Record | None]:
        settings, world = self._settings, self._world
        live = world.read()
        if not live.weights:
            raise RampError(
                f"There is no TCP route {world.reference} with weights to move: declare it with the role tcp_route, "
                f"all connections to {settings.old}."
            )
        lost = live.record
        if lost:
            alive = world.is_alive(lost.place)
            _ramp.check_free(lost, world.now(), alive, settings.take_lock, world.reference)
            _ramp.check_live(lost, live.weights, world.reference)
            if lost.phase == FORWARD and settings.on_resume == "resume":
                _ramp.check_resumable(lost, settings.old, settings.new)
            self.result["lost"] = {"id": lost.id, "owner": lost.owner, "since": lost.since, "weights": lost.weights}
        before = lost.before if lost else live.weights
        self.result.update(before=before, live=live.weights)
        if lost and (lost.phase == BACK or settings.on_resume == "back"):
            return live, _ramp.Plan([before], before, int(not _ramp.same(before, live.weights)), back=True), lost
        if settings.obstacle:
            raise RampError(settings.obstacle)
        if live.method != settings.method:
            self.result["switch"] = {"from": live.method, "to": settings.method, "cut": None}
        return live, _ramp.plan(settings.steps, settings.old, settings.new, live.weights, before), lost

    def _verify_only(self, plan: _ramp.Plan) -> dict[str, Any]:
        try:
            self._step(plan.steps[0])
            self._end("completed", f"{weights_text(plan.steps[0])} was live already, and is proven")
        except (StepError, ClusterError, ValueError, Interrupted) as error:
            self._end("unchanged", f"nothing was changed: {_said(error)}")
        return self.result

    def _forward(self, plan: _ramp.Plan) -> None:
        live = self._world.read()
        if not _ramp.same(live.weights, plan.steps[0]):
            self._step(live.weights)  # what is not in order before anything moves would be blamed on the first step
        if live.method != self._settings.method:
            self._switch(live)
        for weights in plan.steps:
            self._step(weights)
        if plan.steps[-1].get(self._settings.new) == 100:
            self._drain()

    def _switch(self, live: Live) -> None:
        settings, world = self._settings, self._world
        world.say(
            f"the weights move from the method {live.method} to {settings.method}, {weights_text(live.weights)} as "
            "they are; this touches the listener once"
        )
        self.result["switch"]["cut"] = self._allow_cut(live.method)
        self.result["changed"] = True
        world.switch(live, settings.method)

    def _step(self, weights: Weights) -> None:
        """Make one step and prove it; raises StepError if that fails, and Left if too many sessions would be cut."""
        settings, world = self._settings, self._world
        percent = weights.get(settings.new, 0)
        step: dict[str, Any] = {
            "percent": percent,
            "weights": weights,
            "started": _ramp.iso(world.now()),
            "passed": False,
        }
        live = world.read()
        moves = not _ramp.same(live.weights, weights)
        if moves:
            step["cut"] = self._allow_cut(live.method) if live.method == "route" else None
            self._write(weights)
        self.result["steps"].append(step)
        try:
            self._prove(step, live.method)
            world.say(f"{weights_text(weights)}: proven by {step['probe'].get('probes', 0)} probes")
            world.hold_sessions(weights, percent)
            if moves and settings.hold:
                world.say(f"{weights_text(weights)}: held for {settings.hold:g} s")
                self._hold(step, live.method)
            step["gates"] += [gate._asdict() for gate in world.checks(percent)]
            self._pass_gates(step)
            step["passed"] = True
        finally:
            step["ended"] = _ramp.iso(world.now())

    def _prove(self, step: dict[str, Any], method: str) -> None:
        world, percent = self._world, step["percent"]
        step["convergence"] = world.converge(step["weights"], method)
        if not step["convergence"].get("converged"):
            raise StepError(f"at {percent} %: {step['convergence']['reason'].rstrip('.')}")
        probe = step["probe"] = world.measure(step["weights"], method, percent)
        step["gates"] = [{"gate": "split", "ok": probe["passed"], "msg": probe["msg"]}]
        self._look(step, probe)

    def _hold(self, step: dict[str, Any], method: str) -> None:
        end = self._clock() + self._settings.hold
        while self._clock() < end:
            self._world.pause(min(LOOK, end - self._clock()))
            self._look(step)
        # What was held is to be what was proven.
        again = self._world.converge(step["weights"], method)
        step["gates"].append({"gate": "held", "ok": bool(again.get("converged")), "msg": again["reason"]})
        self._pass_gates(step)

    def _look(self, step: dict[str, Any], probe: Mapping[str, Any] | None = None) -> None:
        """Look at what the gateway counted since the step was measured; raises StepError if a gate trips."""
        settings = self._settings
        exposures, lacking = self._world.exposures()
        before = step.get("failures") or {}
        step["failures"] = {version: seen._asdict() for version, seen in exposures.items()}
        step["uncounted"] = lacking
        told = []
        for version, seen in exposures.items():
            gate = _gates.absolute(version, seen, settings.max_failures)
            told.append(gate._replace(gate=f"{gate.gate} {version}"))
        if settings.old in exposures and settings.new in exposures:
            self._compared.add(*(_grown(exposures[v], before.get(v)) for v in (settings.old, settings.new)))
            told.append(self._compared.gate())
        if probe:
            errors = probe.get("errors") or {}
            told.append(_gates.errors_gate(errors, probe.get("probes", 0), probe.get("max_errors", 0)))
            if self._baseline is None:
                self._baseline = _gates.ErrorComparison(settings.alpha, errors, probe.get("probes", 0))
            else:
                self._baseline.add(errors, probe.get("probes", 0))
                told.append(self._baseline.gate())
        fresh = {gate.gate: gate._asdict() for gate in told}
        step["gates"] = [gate for gate in step["gates"] if gate["gate"] not in fresh] + list(fresh.values())
        self._pass_gates(step)

    def _pass_gates(self, step: Mapping[str, Any]) -> None:
        tripped = [gate for gate in step["gates"] if not gate["ok"]]
        if tripped:
            raise StepError(f"at {step['percent']} %: {tripped[0]['msg'].rstrip('.')}")

    def _allow_cut(self, method: str) -> dict[str, Any]:
        """Return the forecast of sessions that the next change cuts; raises Left if they are, and stay, too many."""
        settings, world = self._settings, self._world
        until = self._clock() + settings.sessions_wait
        while True:
            forecast = world.sessions(method)
            allowed = settings.max_sessions_cut
            if allowed is None or (forecast["total"] is not None and forecast["total"] <= allowed):
                world.say(forecast["msg"])
                return forecast
            if self._clock() >= until:
                raise Left(
                    f"{forecast['msg']}, and tcp_rollout_max_sessions_cut allows {allowed}: wait until fewer remain "
                    "(tcp_rollout_sessions_wait), or move the weights with the method endpoints, which cuts none"
                )
            world.pause(min(LOOK, until - self._clock()))

    def _drain(self) -> None:
        """Wait until the old version's sessions have ended; if they do not, that is told and fails nothing."""
        world, old = self._world, self._settings.old
        began = self._clock()
        while True:
            left = world.remaining(old)
            waited = round(self._clock() - began, 1)
            done = left["total"] == 0 and not left["hidden"]
            at = _ramp.iso(world.now()) if done else None
            self.result["drained"] = {"version": old, "at": at, "waited": waited, **left}
            if done or left["total"] is None or waited >= self._settings.drain_timeout:
                world.say(f"the last session of {old} has ended" if done else left["msg"])
                return
            world.pause(min(LOOK, self._settings.drain_timeout - waited))

    def _claim(self, live: Live, lost: Record | None, phase: str) -> None:
        """Put this run's record on the route; raises RampError if somebody else was quicker."""
        for _try in range(TRIES):
            now = _ramp.iso(self._world.now())
            record = self._me._replace(
                since=now,
                renewed=now,
                phase=phase,
                method=live.method,
                old=lost.old if lost else self._settings.old,
                new=lost.new if lost else self._settings.new,
                before=lost.before if lost else live.weights,
                weights=live.weights,
                last=live.weights,
            )
            self._me, self._holds = record, True  # before it is written: what is interrupted then is let go of again
            try:
                self._world.write_record(live, record)
                return
            except ConflictError:
                self._holds = False
                live = self._world.read()
                if live.record and live.record.id != (lost.id if lost else ""):
                    _ramp.check_free(live.record, self._world.now(), None, "", self._world.reference)
        raise RampError(f"The route {self._world.reference} is written by somebody else all the time: find out who.")

    def _write(self, weights: Weights) -> None:
        """Write weights, with what is now live as the step before."""

        def write(live: Live) -> None:
            if not _ramp.same(live.weights, weights):
                record = self._me._replace(weights=weights, last=live.weights, renewed=_ramp.iso(self._world.now()))
                self._moved = self.result["changed"] = True
                self._me = record  # before it is written: a renewal in the middle must not put the old one back
                self._world.write_weights(live, weights, record)

        self._mine(write)
        self._world.say(f"{weights_text(weights)}: written")

    def _mine(self, write: Callable[[Live], None]) -> None:
        """Write something on the route as long as this run has it; raises Left if it was taken over."""
        for _try in range(TRIES):
            live = self._world.read()
            if live.record is None or live.record.id != self._me.id:
                self._holds = False
                who = f"the rollout {live.record.id} of {live.record.owner}" if live.record else "somebody"
                raise Left(f"{who} took the route {self._world.reference} over")
            try:
                write(live)
                return
            except ConflictError:
                continue
        raise ClusterError(f"The route {self._world.reference} is written by somebody else all the time: find out who.")

    def _tick(self) -> None:
        """Keep the lease, and end the way forward when its time is over or nobody waits for it any more."""
        if self._ticking:
            return
        if self._interruption and not self._ended:
            raise Interrupted(self._interruption)
        if not self._holds:
            return
        self._ticking = True
        try:
            if not self._ended and self._world.is_abandoned():
                if self._settings.on_resume == "resume":
                    raise Abandoned
                raise Interrupted("the playbook is gone")
            self._renew()
            if self._me.phase == FORWARD and self._clock() > self._deadline:
                raise StepError(f"not done after {self._settings.deadline:g} s, which is tcp_rollout_deadline")
        finally:
            self._ticking = False

    def _renew(self) -> None:
        """Say that this run lives, unless it just did."""
        now = self._world.now()
        if (now - _ramp.parse_time(self._me.renewed)).total_seconds() <= self._me.lease / 3:
            return
        record = self._me._replace(renewed=_ramp.iso(now))
        try:
            with self._world.impatient():
                self._mine(lambda live: self._world.write_record(live, record))
            self._me = record
        except UnreachableError:  # comes again with the next tick
            pass

    def _release(self) -> None:
        self._ended = True
        live = self._world.read()
        if live.record and live.record.id == self._me.id:
            self._mine(lambda live: self._world.write_record(live, None))
        self._holds = False

    def _back(self, reason: str) -> None:
        """Give the route the weights from before, prove it, and let go of it; tells loudly what cannot be done."""
        self._ended = True
        before = self.result["before"]
        if not self._holds:
            self._end("unchanged" if not self._moved else "left", f"{reason}; the weights were left as they are")
            return
        back: dict[str, Any] = {"reason": reason, "weights": before, "converged": False, "proven": False}
        self.result["back"] = back
        try:
            if self._moved:
                self._world.say(f"going back to {weights_text(before)}, because {reason}")
                self._go_back(back)
            self._release()
        except Left as taken:
            self._end("left", f"{reason}; not taken back, because {taken}")
            return
        except Exception as error:  # whatever it is, it is told loudly
            back["msg"] = _said(error)
            self._stuck(reason, back["msg"])
            return
        if not self._moved:
            self.result["back"] = None
            self._end("unchanged", f"{reason}; no weights had been changed")
            return
        back["proven"] = True
        back["msg"] = f"{weights_text(before)} is live on every replica and proven by {back['probe']['probes']} probes"
        self._end("taken_back", f"{reason}; taken back: {back['msg']}")

    def _go_back(self, back: dict[str, Any]) -> None:
        world, before = self._world, back["weights"]
        self._me = self._me._replace(phase=BACK)
        live = world.read()
        if live.method == "route" and not _ramp.same(live.weights, before):
            back["cut"] = world.sessions(live.method)
        self._write(before)
        back["convergence"] = world.converge(before, live.method)
        back["converged"] = bool(back["convergence"].get("converged"))
        if not back["converged"]:
            raise StepError(back["convergence"]["reason"])
        back["probe"] = world.measure(before, live.method, before.get(self._me.new, 0), settle=True)
        back["verdict"] = back["probe"]["verdict"]
        if not back["probe"]["passed"]:
            raise StepError(back["probe"]["msg"])

    def _stuck(self, reason: str, error: str) -> None:
        before, state = self.result["before"], "which could not be read"
        try:
            state = weights_text(self._world.read().weights)
            self.result["restore"] = self._world.restore_command(before)
        except Exception:  # only helps to tell
            self.result["restore"] = f"ansible-playbook playbooks/shift.yml -e '{{\"shift_weights\": {before}}}'"
        self._end(
            "stuck",
            f"NOT TAKEN BACK. {reason}; and on the way back: {error.rstrip('.')}. Live are the weights {state}, wanted "
            f"{weights_text(before)}. To restore them: {self.result['restore']}",
        )

    def _leave(self, reason: str) -> None:
        """End at the step that is live."""
        self._ended = True
        try:
            if self._holds:
                self._release()
        except Exception as error:  # the weights are as they are to be, and the result has to say so
            reason += f"; the record {_ramp.ANNOTATION} stays on the route, because {_said(error)}"
        self._end("left", f"stopped, {reason}")

    def _end(self, outcome: str, message: str) -> None:
        self._ended = True
        self.result["canary"] = self._world.let_sessions_go()
        self.result.update(outcome=outcome, passed=outcome == "completed", msg=f"{self._world.reference}: {message}.")
        try:
            self.result["live"] = self._world.read().weights
        except (ClusterError, RampError):
            self.result["live"] = {}


def _said(error: BaseException) -> str:
    known = isinstance(error, (StepError, ClusterError, ValueError, Interrupted))
    return (str(error) if known else f"{type(error).__name__}: {error}").rstrip(".")


def _grown(now: Exposure, before: Mapping[str, int] | None) -> Exposure:
    """Return what is new, and never less than nothing: an endpoint that left took its counters along."""
    failed = max(0, now.failed - (before or {}).get("failed", 0))
    return Exposure(max(failed, now.made - (before or {}).get("made", 0)), failed)


def blank(run: str, owner: str, place: Place, lease: int) -> Record:
    """Return the beginnings of a record."""
    return Record(run, owner, place, "", "", lease, FORWARD, "", "", "", {}, {}, {})
