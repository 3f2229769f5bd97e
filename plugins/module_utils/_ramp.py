# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The plan of a rollout, and the record of it on the route: who has it, and what the next run may do. Pure.

The record is JSON in an annotation of the VirtualService. It is written before the weights that it tells of, so that
whatever is live when a run is lost is either what the record says or the step before it. It is a lease too: who holds
it renews it, and it may be taken over when it was not renewed for longer than it lasts. All times are the API server's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import Any, NamedTuple

from ansible_collections.trafficshift.istio.plugins.module_utils._routes import validate_weights

ANNOTATION = "trafficshift.istio/rollout"
FORMAT = 1
FORWARD, BACK = "forward", "back"
ON_RESUME = ("back", "resume")
LONGEST = 4096  # characters of a record that are read

Weights = dict[str, int]


class RampError(ValueError):
    """Why a rollout cannot begin or go on, in one sentence. Nothing was changed."""


class Place(NamedTuple):
    """Where a run works: a process id means something only in the process namespace of one boot of one machine."""

    namespace: str  # "" if it cannot be known
    pid: int
    started: str  # of the process, as its system counts


class Record(NamedTuple):
    """What stands on the route while a rollout has it."""

    id: str
    owner: str
    place: Place
    since: str  # ISO 8601, as all times
    renewed: str
    lease: int  # seconds
    phase: str
    method: str
    old: str
    new: str
    before: Weights  # where the way back leads
    weights: Weights  # the step that is being made, or was made last
    last: Weights  # the step before it


class Plan(NamedTuple):
    """The weights to go through. The first may be live already, and is only verified then."""

    steps: list[Weights]
    before: Weights
    changes: int  # steps that are not live yet
    back: bool = False  # a lost rollout is to be taken back, and nothing else done


def validate_steps(steps: Any) -> list[int]:
    """Return the steps as whole percentages; raises RampError unless they rise and end at 100 at most."""
    if isinstance(steps, (str, bytes)) or not isinstance(steps, Sequence) or not steps:
        raise RampError(f"tcp_rollout_steps is {_cut(steps)}: give rising percentages, like [5, 20, 50, 100].")
    checked: list[int] = []
    for given in steps:
        # Templates of older ansible-core turn numbers into text.
        step = int(given) if isinstance(given, str) and given.isdecimal() and len(given) <= 3 else given
        if isinstance(step, bool) or not isinstance(step, int) or not 0 < step <= 100:
            raise RampError(f"tcp_rollout_steps has {_cut(given)} in it, not a whole number from 1 to 100.")
        if checked and step <= checked[-1]:
            raise RampError(
                f"tcp_rollout_steps goes from {checked[-1]} to {step}: each step has to be more than the last."
            )
        checked.append(step)
    return checked


def validate_versions(old: str, new: str, versions: Mapping[str, Any]) -> None:
    """Raise RampError unless both are versions, and not the same."""
    for option, version in (("tcp_rollout_from", old), ("tcp_rollout_to", new)):
        if version not in versions:
            raise RampError(f"{option} is {_cut(version)}, which is not among the versions {', '.join(versions)}.")
    if old == new:
        raise RampError(f"tcp_rollout_from and tcp_rollout_to are both {old}: name two versions.")


def plan(steps: Sequence[int], old: str, new: str, live: Mapping[str, int], before: Mapping[str, int]) -> Plan:
    """Return the steps from the live weights on: traffic that has gone further than a step is not taken back to it.

    `before` are the weights that the way back leads to. Raises RampError if other versions take connections, or if
    traffic is past the last step.
    """
    others = [version for version, weight in live.items() if weight and version not in (old, new)]
    if others:
        raise RampError(
            f"{_text(live)} are the live weights: connections go to {', '.join(others)} too, and a rollout moves them "
            f"from {old} to {new} only; set weights for these two first."
        )
    reached = live.get(new, 0)
    if reached > steps[-1]:
        raise RampError(
            f"{new} has {reached} % of the connections already, which is more than the last step, {steps[-1]} %, and a "
            "rollout takes no traffic back: set the weights that you want with playbooks/shift.yml."
        )
    versions = dict.fromkeys({**before, **live, old: 0, new: 0})
    ahead = [validate_weights({new: step, old: 100 - step}, versions) for step in steps if step >= reached]
    return Plan(ahead, dict(before), sum(step.get(new) != reached for step in ahead))


def encode(record: Record) -> str:
    """Return the record as the annotation's value."""
    return json.dumps({"format": FORMAT, **record._asdict(), "place": list(record.place)}, separators=(",", ":"))


def decode(virtual_service: Mapping[str, Any]) -> Record | None:
    """Return the record on a VirtualService, None without one; RampError if it cannot be read."""
    metadata = virtual_service.get("metadata") or {}
    text = (metadata.get("annotations") or {}).get(ANNOTATION)
    if not text:
        return None
    where = f"{metadata.get('namespace')}/{metadata.get('name')}"
    try:
        if len(text) > LONGEST:
            raise ValueError("too long")
        read = json.loads(text)
        if read.pop("format") != FORMAT:
            raise ValueError("another format")
        read["place"] = Place(str(read["place"][0]), int(read["place"][1]), str(read["place"][2]))
        for name in ("before", "weights", "last"):
            read[name] = {str(version): int(weight) for version, weight in read[name].items()}
        record = Record(**read)
        parse_time(record.since), parse_time(record.renewed), int(record.lease)
        if record.phase not in (FORWARD, BACK) or not all(map(record.before.__contains__, (record.old, record.new))):
            raise ValueError("it contradicts itself")
    except (ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
        raise RampError(
            f"The VirtualService {where} has an annotation {ANNOTATION} that this version of the collection cannot "
            f"read ({_cut(error)}): look at it, set the weights that you want, and remove it with kubectl -n "
            f"{metadata.get('namespace')} annotate virtualservice {metadata.get('name')} {ANNOTATION}-."
        ) from error
    return record


def is_stale(record: Record, now: datetime, alive: bool | None) -> bool:
    """Return whether a record's run is gone: its process is known to be, or it did not renew its lease.

    `alive` is whether the process lives, None if that cannot be told from here.
    """
    return alive is False or (now - parse_time(record.renewed)).total_seconds() > record.lease


def check_free(record: Record, now: datetime, alive: bool | None, take_lock: str, name: str) -> None:
    """Raise RampError, which names who has the route and the way out, unless the record's run is gone or given up."""
    if is_stale(record, now, alive) or take_lock == record.id:
        return
    left = max(0, round(record.lease - (now - parse_time(record.renewed)).total_seconds()))
    raise RampError(
        f"The route {name} is being moved by the rollout {record.id} of {record.owner}, begun {record.since}, last "
        f"seen {record.renewed}, now at {_text(record.weights)}: wait for its end. If it is dead, it counts as lost in "
        f"{left} s, or at once with -e tcp_rollout_take_lock={record.id}."
    )


def check_live(record: Record, live: Mapping[str, int], name: str) -> None:
    """Raise RampError if the live weights are none that the recorded rollout can have left."""
    known = (record.weights, record.last, record.before)
    if any(same(live, weights) for weights in known):
        return
    raise RampError(
        f"The rollout {record.id} of {record.owner} was lost at {_text(record.weights)}, but the route {name} has "
        f"{_text(live)}: somebody changed it since. Set the weights that you want with playbooks/shift.yml and remove "
        f"the annotation {ANNOTATION} from the VirtualService."
    )


def check_resumable(record: Record, old: str, new: str) -> None:
    """Raise RampError if the lost rollout was another one."""
    if (record.old, record.new) != (old, new):
        raise RampError(
            f"The lost rollout {record.id} went from {record.old} to {record.new}, not from {old} to {new}: take it "
            "back first, with tcp_rollout_on_resume set to back, or go on with its versions."
        )


def same(one: Mapping[str, int], other: Mapping[str, int]) -> bool:
    """Whether two mappings are the same weights, zeros or not."""
    return {v: w for v, w in one.items() if w} == {v: w for v, w in other.items() if w}


def parse_time(text: str) -> datetime:
    """Return the time that ISO 8601 says; ValueError if it has no time zone."""
    time = datetime.fromisoformat(text.replace("Z", "+00:00"))
    if time.tzinfo is None:
        raise ValueError("a time without its zone")
    return time


def iso(time: datetime) -> str:
    """Return a time in UTC as records and reports have it."""
    return time.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def tolerance(percent: int, usual: float) -> float:
    """Return how far a step's share may be off: the usual tolerance, but no more than half a small step.

    Five points around a step of 5 % would let a version pass that gets next to nothing. Less than two points would take
    more probes than a run has.
    """
    share = min(percent, 100 - percent) / 100
    return usual if not share else min(usual, max(0.02, share / 2))


def _text(weights: Mapping[str, int]) -> str:
    return " / ".join(f"{version} {weight}" for version, weight in weights.items()) or "no weights"


def _cut(value: Any) -> str:
    text = str(value) if isinstance(value, Exception) else repr(value)
    return text if len(text) <= 60 else text[:60] + "…"
