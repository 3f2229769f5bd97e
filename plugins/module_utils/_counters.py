# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads the counters of a gateway's replicas, waits until they suffice, and says what they show."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from typing import Any

from ansible_collections.trafficshift.istio.plugins.module_utils import _gateway, _replicas, _sessions, _verdict
from ansible_collections.trafficshift.istio.plugins.module_utils._client import (
    Cluster,
    ClusterError,
    ForbiddenError,
    UnreachableError,
    cut,
)
from ansible_collections.trafficshift.istio.plugins.module_utils._pods import Object, is_ready, selector_text
from ansible_collections.trafficshift.istio.plugins.module_utils._sessions import Reading, Replica, Window


class Gateway:
    """The replicas of one gateway, and the pods of one destination.

    `params` are the options namespace, selector, destination, destination_port and method of gateway_sessions.
    """

    def __init__(self, cluster: Cluster, params: Mapping[str, Any]) -> None:
        self.cluster = cluster
        self.method = params["method"]
        self.replicas = _replicas.Replicas(cluster, params["namespace"], params["selector"])
        self.destination = _gateway.Destination(params["destination"], params["destination_port"])
        self.text = f"{_gateway.short_host(params['destination'])}:{params['destination_port']}"

    def read(self) -> Reading:
        """Read all replicas that run; raises ClusterError.

        What tells whether counters were lost is read before and after them.
        """
        taken, before = _now(), self._pods()
        pods = [pod for pod in self.replicas.pods() if _sessions.proxy_runs(pod)]
        answers = _replicas.ask(
            pods,
            self._ask_one,
            lambda pod, why: Replica(pod["metadata"]["name"], is_ready(pod), error=why),
        )
        found = {"/".join(map(str, _gateway.incarnation(pod))): answer for pod, answer in zip(pods, answers)}
        return Reading(taken, self.text, found, _sessions.steady(before, self._pods()), self.method)

    def _pods(self) -> dict[str, str] | None:
        """Return the destination's pods; None if they may not be read, or if its Service does not select any."""
        name, namespace = _gateway.short_host(self.destination.host).split(".")
        try:
            service = self.cluster.get("v1", "Service", name, namespace) or {}
            labels = selector_text((service.get("spec") or {}).get("selector") or {})
            return _sessions.lives(self.cluster.find("v1", "Pod", namespace, labels)) if labels else None
        except ForbiddenError:
            return None

    def _ask_one(self, pod: Object) -> Replica:
        name, ready = pod["metadata"]["name"], is_ready(pod)
        clusters = _gateway.clusters_query(self.destination)
        try:
            began = _sessions.read_beginnings(self._request(name, clusters), self.destination)
            page = self._request(name, _sessions.counters_query(self.destination))
            counters = _sessions.read_counters(page, self.destination, self.method)
            if _sessions.read_beginnings(self._request(name, clusters), self.destination) != began:
                return Replica(name, ready, error="its clusters changed while it was read")
            return Replica(name, ready, counters, began)
        except ForbiddenError:
            raise
        except ClusterError as error:  # the replica may just be going
            return Replica(name, ready, error=str(error))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            return Replica(name, ready, error=f"its counters cannot be read: {cut(error)}")

    def _request(self, pod: str, path: str) -> Any:
        return json.loads(self.replicas.request(pod, path) or "{}")


def observe(
    gateway: Gateway,
    params: Mapping[str, Any],
    question: _verdict.Question | None,
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, Any]:
    """Return the result of gateway_sessions, with `failed` if the split is not as expected.

    `params` are its options. Raises ClusterError, and ValueError if the option since holds no reading.
    """
    began = time.monotonic()
    result: dict[str, Any] = {"changed": False, "failed": False, "witness": "available"}
    since = params["since"]
    try:
        if since and since.get("witness") == "unavailable":
            raise ForbiddenError(cut(since.get("reason")), params["namespace"])
        window = look(gateway, params, question, sleep)
    except ForbiddenError as error:
        result.update(witness="unavailable", failed=question is not None)
        result["reason"] = str(error)
    else:
        result.update(describe(window, params, question))
        if not window.now.replicas:
            place = f"in the namespace {params['namespace']}"
            result["reason"] = f"No gateway pod with {gateway.replicas.labels} runs {place}, so nothing was counted."
    result["duration"] = round(time.monotonic() - began, 3)
    if result["failed"]:
        result["msg"] = result["reason"]
    return result


def look(
    gateway: Gateway,
    params: Mapping[str, Any],
    question: _verdict.Question | None,
    sleep: Callable[[float], None] = time.sleep,
) -> Window:
    """Read until it is enough, or the time is over."""
    timeout, tally = params["wait_timeout"], params["tally"]
    deadline = time.monotonic() + timeout
    timing: dict[str, Any] = {"clock": time.monotonic, "sleep": sleep, "transient": UnreachableError}
    if params["since"]:
        base = _sessions.unpack(params["since"], gateway.text, gateway.method)
    else:
        base = _sessions.repeat(gateway.read, lambda reading: not reading.unread, timeout, **timing)
    versions = {**(tally or {}), **(question.expect if question else {})}
    window = Window(base, {version: bool(wanted) for version, wanted in versions.items()})

    def enough(reading: Reading) -> bool:
        window.add(reading)
        if window.faults or not window.settled:
            return bool(window.faults)
        if tally is not None:
            return _sessions.covers(window.growth(), tally)
        return question is None or _sessions.decided(question, window.growth())

    if params["since"] or question:
        _sessions.repeat(gateway.read, enough, max(0.0, deadline - time.monotonic()), **timing)
    return window


def describe(window: Window, params: Mapping[str, Any], question: _verdict.Question | None) -> dict[str, Any]:
    """Return what the window says, with `failed` if that is not what was expected."""
    growth, text = window.growth(), window.base.destination
    replicas = _sessions.shown_replicas(window.now)
    result: dict[str, Any] = {
        "replicas": replicas,
        "totals": _sessions.totals(window.now),
        "method": window.now.method,
        "taken": window.now.taken,
        "reading": _sessions.pack(window.now),
        "complete": not window.reason() and not window.lost,
    }
    notes = list(window.notes)
    number = len(window.now.replicas)
    reason = window.reason() or f"the counters of {number} gateway replica{'s' if number > 1 else ''} were read"
    if params["since"] or question:
        seconds = _sessions.seconds_between(window.base.taken, window.now.taken)
        result.update(growth=_sessions.shown_growth(growth), window=round(max(0.0, seconds), 3))
        by_replica = window.growth_by_replica()
        for replica in replicas:
            replica["growth"] = _sessions.shown_growth(by_replica.get(replica["incarnation"], {}))
        made = ", ".join(f"{subset or '(no version)'} {grown.made}" for subset, grown in growth.items())
        reason = window.reason() or f"connections in {max(0.0, seconds):.1f} s: {made or 'none'}"
    if question:
        verdict, counts, errors, details, more_notes = _sessions.judge(window, question)
        notes += more_notes
        reason = verdict.reason
        probes = sum(counts.values()) + sum(errors.values())
        result.update(
            question._asdict(),
            error_rates=_verdict.error_rates(question),
            verdict=verdict.verdict,
            probes=probes,
            counts=counts,
            shares={version: round(count / probes, 6) if probes else 0.0 for version, count in counts.items()},
            errors=errors,
            error_details=details,
            intervals={name: [round(end, 6) for end in span] for name, span in verdict.intervals.items()},
            more=verdict.more,
            deviations=[deviation._asdict() for deviation in verdict.deviations],
            passed=verdict.passed,
        )
    if params["tally"] is not None:
        agreement = _sessions.agree(window, params["tally"], params["tally_failed"], question)
        result["agreement"] = {"agrees": agreement.agrees, "reason": agreement.reason}
        result["others"] = agreement.others
        # The probe gave the verdict: the counters only have to confirm it, and to have nothing against it.
        if not agreement.agrees:
            result["verdict"] = "inconclusive" if agreement.agrees is None else "fail"
        result["passed"] = bool(agreement.agrees) and result.get("verdict") != "fail"
        if result["passed"] or not agreement.agrees:
            reason = agreement.reason
    result["failed"] = not result.get("passed", True)
    return {**result, "notes": notes[: _sessions.SHOWN], "reason": f"{text}: {reason}"}


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")
