# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The world of a rollout for real: the route on the API server, the gateway's replicas, and probes through them."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple, TypeVar

from ansible_collections.trafficshift.istio.plugins.module_utils import (
    _convergence,
    _counters,
    _held,
    _ramp,
    _sessions,
    _verdict,
)
from ansible_collections.trafficshift.istio.plugins.module_utils._client import (
    Cluster,
    ClusterError,
    UnreachableError,
    forbidden,
)
from ansible_collections.trafficshift.istio.plugins.module_utils._gates import Exposure, Gate
from ansible_collections.trafficshift.istio.plugins.module_utils._ramp import Place, Record, Weights
from ansible_collections.trafficshift.istio.plugins.module_utils._route_store import Live, RouteStore
from ansible_collections.trafficshift.istio.plugins.plugin_utils import _health_checks, _process
from ansible_collections.trafficshift.istio.plugins.plugin_utils._probe_task import ProbeTask, with_defaults
from ansible_collections.trafficshift.istio.plugins.plugin_utils._rollout import StepError
from ansible_collections.trafficshift.istio.plugins.plugin_utils._session_canary import SessionCanary

FIRST_PAUSE = 0.2  # seconds between two tries to reach the API server; each pause is twice the one before
LONGEST_PAUSE = 5.0
PROBES_A_TICK = 200
CHAT_INTERVAL = 1.0  # seconds between two words on a connection that is held
COUNTERS_LAG = 10  # seconds that a gateway's counters may be behind the probe

Answer = TypeVar("Answer")


class Target(NamedTuple):
    """Where connections go in, and how they are told apart."""

    namespace: str  # of the gateway
    service: str
    selector: Mapping[str, str]
    port: int
    ingress: Mapping[str, Any]  # host, port, source and reason
    words: Mapping[str, str]  # version by what a reply says
    witness: str
    window: int  # seconds to wait for connections of others


class ClusterWorld:
    """See _rollout.World.

    `probe` are options of tcp_probe, `held` the connections of each kind to hold from each step on, and `patience` is
    in seconds, for whatever is waited for.
    """

    def __init__(
        self,
        cluster: Cluster,
        spec: Mapping[str, Any],
        target: Target,
        probe: Mapping[str, Any],
        checks: Sequence[_health_checks.Check],
        tasks: Callable[[int, Callable[[float], None]], Gate] | None,
        held: Mapping[str, int],
        *,
        name: str,
        patience: float,
        say: Callable[[str], None],
    ) -> None:
        self.name = name
        self.tick: Callable[[], None] = lambda: None
        self.say = say
        self.unanswered = 0  # requests that the API server did not answer, and that were made again
        self._cluster = cluster
        self._store = RouteStore(cluster, spec)
        self.reference = self._store.reference
        self._spec = spec
        self._target = target
        self._probe = probe
        self._checks = checks
        self._tasks = tasks
        self._held_kinds = held
        self._canaries: list[SessionCanary] = []
        self._patience = patience
        self._parent = os.getppid()
        self._destination = {
            "destination": f"{spec['service']}.{spec['namespace']}",
            "destination_port": spec["service_port"],
        }
        self._window: _sessions.Window | None = None
        self._counters: _counters.Gateway | None = None

    def check(self, steps: Sequence[Weights], new: str, method: str | None = None) -> None:
        """Raise ValueError or ClusterError with one sentence if a step cannot be measured, or could not be written.

        Without a method, the way back, what others wrote is no reason to leave traffic where it is.
        """
        for resource in ("virtualservices", "destinationrules"):
            if not self._cluster.may("patch", "networking.istio.io", resource, str(self._spec["namespace"])):
                raise forbidden("patch", f"{resource}.networking.istio.io", str(self._spec["namespace"]))
        if method:
            if not self._cluster.may("get", "", "pods/exec", self._target.namespace):
                raise forbidden("get and create", "pods/exec", self._target.namespace)
            self._store.objects(self.read(), steps[-1], method)
        for weights in steps:
            self._question(weights, weights.get(new, 0))
            if self._probes or any(self._held_kinds.values()):
                held = {"session_canary": dict(self._held_kinds)} if any(self._held_kinds.values()) else {}
                ProbeTask(with_defaults({**self._options(weights, weights.get(new, 0)), **held}), offline=True)

    def now(self) -> datetime:
        return self._cluster.time

    def read(self) -> Live:
        return self._patiently(self._store.read)

    def is_abandoned(self) -> bool:
        return os.getppid() != self._parent

    def is_alive(self, place: Place) -> bool | None:
        return _process.is_alive(place)

    def write_record(self, live: Live, record: Record | None) -> None:
        self._patiently(lambda: self._store.write_record(live, record))

    def write_weights(self, live: Live, weights: Weights, record: Record) -> None:
        self._patiently(lambda: self._store.write_weights(live, weights, record))

    def switch(self, live: Live, method: str) -> None:
        rule, _gateway, virtual_service = self._store.objects(live, live.weights, method)
        self._patiently(lambda: self._store.patch(rule))
        # A route must not name what the gateway does not know yet.
        if method == "endpoints":
            self._converged(endpoint_weights=live.weights)
        else:
            self._converged(clusters=[version for version, weight in live.weights.items() if weight])
        # The record may have been renewed meanwhile.
        virtual_service["metadata"].pop("resourceVersion", None)
        self._patiently(lambda: self._store.patch(virtual_service))
        self._converged(weights=live.weights, method=method)
        pruned = self._store.objects(self.read(), live.weights, method, prune=True)[0]
        self._patiently(lambda: self._store.patch(pruned))

    def converge(self, weights: Weights, method: str) -> dict[str, Any]:
        seen = self._observe(weights=weights, method=method)
        return {
            "state": seen["convergence"],
            "converged": seen.get("converged"),
            "reason": seen["reason"],
            "duration": seen["duration"],
            "replicas": seen["replicas"],
        }

    def measure(self, weights: Weights, method: str, percent: int, settle: bool = False) -> dict[str, Any]:
        started = _ramp.iso(self.now())
        self._counters = _counters.Gateway(self._cluster, self._gateway(method=method))
        base = self._patiently(self._counters.read)
        self._window = _sessions.Window(base, {version: bool(weight) for version, weight in weights.items()})
        probe: dict[str, Any] = {}
        gateway: dict[str, Any] = {}
        if self._probes:
            options = self._options(weights, percent)
            options["settle_timeout"] = self._patience if settle else options["settle_timeout"]
            if percent and not settle:
                options["ready_timeout"] = 0.0  # a step that does not answer at first is not in order
            probe = ProbeTask(options).run(self._watch)
        if self._target.witness != "probe" or self._connects:
            gateway = self._judge_counters(self._counters, base, probe, weights, percent)
        judges = [judge for judge in (probe if not self._connects else {}, gateway) if judge]
        evidence = judges[0]
        judge = next((judge for judge in judges if not judge["passed"]), evidence)
        return {
            **evidence,
            "name": f"{self.name}-{percent}",
            "started": started,
            "ended": _ramp.iso(self.now()),
            "method": method,
            "witness": self._target.witness,
            "protocol": self._probe.get("protocol", "line"),
            "weights": weights,
            "expect": evidence.get("expect") or weights,
            "ingress": dict(self._target.ingress),
            "gateway": gateway or None,
            "passed": judge["passed"],
            "verdict": judge["verdict"],
            "msg": judge.get("msg") or judge["reason"],
        }

    def exposures(self) -> tuple[dict[str, Exposure], str]:
        if self._window is None or self._counters is None:
            return {}, "nothing was counted"
        reading = self._patiently(self._counters.read)
        self._window.add(reading)
        growth = self._window.growth()
        # A connection begun before the window can fail in it.
        seen = {version: Exposure(max(grown.made, grown.failed), grown.failed) for version, grown in growth.items()}
        lacking = self._window.reason() or ("; ".join(self._window.notes) if self._window.lost else "")
        return {version: exposure for version, exposure in seen.items() if version}, lacking

    def sessions(self, method: str) -> dict[str, Any]:
        gateway = _counters.Gateway(self._cluster, self._gateway(method=method))
        live = self._patiently(lambda: _held.read_live(gateway, list(self._spec["versions"])))
        cuts = _held.cut_forecast(live)
        known = not any(replica.error for replica in live)
        return {
            "total": sum(sum(cut.sessions.values()) for cut in cuts) if known else None,
            "replicas": [cut._asdict() for cut in cuts],
            "msg": _held.describe_forecast(live).rstrip("."),
        }

    def remaining(self, version: str) -> dict[str, Any]:
        namespace, name = str(self._spec["namespace"]), str(self._spec["service"])
        labels = {version: self._spec["versions"][version]}
        gateway = _counters.Gateway(self._cluster, self._gateway(method="endpoints"))

        def read() -> tuple[list[_held.Live], _held.Sidecars]:
            service = self._cluster.get("v1", "Service", name, namespace)
            if service is None:
                raise ClusterError(f"The Service {namespace}/{name} is gone: find out who removed it.")
            at_sidecars = _held.read_at_sidecars(self._cluster, service, self._spec["service_port"], labels)
            return _held.read_live(gateway, list(self._spec["versions"])), at_sidecars

        live, at_sidecars = self._patiently(read)
        total = _held.still_open(version, live, at_sidecars)
        unseen = _held.unseen_until(version, live, at_sidecars)
        if total is None:
            unread = [*at_sidecars.unread[version].values(), *(replica.error for replica in live if replica.error)]
            said = f"how many sessions of {version} live on is not known ({unread[0].rstrip('.')})"
        else:
            total = max(0, total - self._own_sessions(version))
            said = f"{total} sessions of {version} live on"
        hidden = unseen is not None and unseen > self.now()
        if unseen is not None and hidden:
            said += f", and more that nobody counts may until {_ramp.iso(unseen)}"
        return {"total": total, "hidden": hidden, "pods": dict(at_sidecars.sessions[version]), "msg": said}

    def checks(self, percent: int) -> list[Gate]:
        gates = []
        for check in self._checks:
            self.tick()
            gates.append(_health_checks.run_check(check))
        if self._tasks:
            gates.append(self._tasks(percent, self.pause))
        return gates

    def hold_sessions(self, weights: Weights, percent: int) -> None:
        if any(self._held_kinds.values()):
            canary = ProbeTask(self._options(weights, percent)).make_canary(**self._held_kinds, interval=CHAT_INTERVAL)
            self._canaries.append(canary)
            canary.start()

    def let_sessions_go(self) -> list[dict[str, Any]]:
        sessions = [session for canary in self._canaries for session in canary.stop()]
        self._canaries = []
        return sessions

    def pause(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while True:
            self.tick()
            left = deadline - time.monotonic()
            if left <= 0:
                return
            time.sleep(min(left, 1.0))

    def restore_command(self, weights: Weights) -> str:
        return self._store.restore_command(self.read(), weights)

    @contextlib.contextmanager
    def impatient(self) -> Iterator[None]:
        kept, self._patience = self._patience, 0.0
        try:
            yield
        finally:
            self._patience = kept

    @property
    def _connects(self) -> bool:
        return self._probe.get("protocol") == "connect"

    @property
    def _probes(self) -> bool:
        return self._target.witness != "gateway" or self._connects

    def _own_sessions(self, version: str) -> int:
        """Return how many of a version's sessions are held by this rollout itself."""
        held = [session for canary in self._canaries for session in canary.sessions() if session["fate"] == "alive"]
        words = self._target.words
        return sum(words.get(str(session["destination"]), session["destination"]) == version for session in held)

    def _gateway(self, **given: Any) -> dict[str, Any]:
        """Return the options of a module that reads from the gateway."""
        return {
            "namespace": self._target.namespace,
            "service": self._target.service,
            "selector": dict(self._target.selector),
            "port": self._target.port,
            **self._destination,
            **given,
        }

    def _observe(self, **wanted: Any) -> dict[str, Any]:
        options = {"weights": None, "clusters": [], "method": "route", "endpoint_weights": None, **wanted}
        params = self._gateway(**options, wait=True, wait_timeout=self._patience)
        return self._patiently(
            lambda: _convergence.observe(_convergence.Gateway(self._cluster, params), sleep=self.pause)
        )

    def _converged(self, **wanted: Any) -> None:
        seen = self._observe(**wanted)
        if not seen.get("converged"):
            raise StepError(seen["reason"].rstrip("."))

    def _profile(self, percent: int) -> dict[str, Any]:
        """Return the question's options, with a tolerance that fits the step."""
        given = {key: self._probe.get(key) for key in ("profile", "tolerance", "alpha", "beta", "max_probes", "probes")}
        profile = given["profile"] or ("strict" if given["probes"] is None else "fixed")
        if given["tolerance"] is None:
            given["tolerance"] = _ramp.tolerance(percent, _verdict.PROFILES[profile].tolerance)
        return {**given, "profile": profile, "max_errors": self._probe.get("max_errors", 0)}

    def _question(self, weights: Weights, percent: int) -> _verdict.Question:
        options = self._profile(percent)
        profile = options.pop("profile")
        if self._connects and profile == "fixed":  # the probes are made, and the counters judged as they come
            profile, options["probes"] = "strict", None
        return _verdict.ask(weights, profile, **options)

    def _options(self, weights: Weights, percent: int) -> dict[str, Any]:
        """Return the options of tcp_probe for a step."""
        options = {key: value for key, value in self._probe.items() if value is not None}
        if self._connects:
            question = self._question(weights, percent)
            for key in ("profile", "tolerance", "alpha", "beta", "max_probes"):
                options.pop(key, None)
            return with_defaults({**options, "probes": options.get("probes") or _verdict.plan(question).enough})
        words = {version: word for word, version in self._target.words.items()}
        lacking = [version for version in weights if version not in words]
        if lacking or len(words) != len(self._target.words):
            said = f"no reply says {', '.join(lacking)}" if lacking else "several replies say the same version"
            raise ValueError(
                f"tcp_verify_subsets maps replies to versions, and {said}: give one reply for each of "
                f"{', '.join(weights)}."
            )
        expect = {words[version]: weight for version, weight in weights.items()}
        asked = {key: value for key, value in self._profile(percent).items() if value is not None}
        return with_defaults({**options, **asked, "expect": expect})

    def _watch(self, _question: _verdict.Question, _tally: Any) -> int:
        self.tick()
        return PROBES_A_TICK

    def _judge_counters(
        self,
        counters: _counters.Gateway,
        base: _sessions.Reading,
        probe: Mapping[str, Any],
        weights: Weights,
        percent: int,
    ) -> dict[str, Any]:
        """Return what gateway_sessions would: a verdict on its counters, and whether they confirm the probe's tally."""
        words = self._target.words
        tally = None
        if self._target.witness == "both" and not self._connects:
            tally = dict.fromkeys(weights, 0)
            for word, count in probe["connections"].items():
                tally[words.get(word, word)] = tally.get(words.get(word, word), 0) + count
        params = {
            "namespace": self._target.namespace,
            "since": {"reading": _sessions.pack(base)},
            "wait_timeout": COUNTERS_LAG if probe else self._target.window,
            "tally": tally,
            "tally_failed": probe.get("unanswered", 0),
        }
        found = _counters.observe(counters, params, self._question(weights, percent), self.pause)
        return {key: value for key, value in found.items() if key not in ("changed", "failed", "reading")}

    def _patiently(self, call: Callable[[], Answer]) -> Answer:
        """Return what `call` returns, trying again as long as there is patience while the API server cannot answer."""
        deadline, pause = time.monotonic() + self._patience, FIRST_PAUSE
        self.tick()
        while True:
            try:
                return call()
            except UnreachableError as error:
                if time.monotonic() >= deadline:
                    raise
                if pause == FIRST_PAUSE:
                    self.say(f"{error} Trying again for up to {self._patience:g} s")
                self.unanswered += 1
            self.pause(min(pause, max(0.0, deadline - time.monotonic())))
            pause = min(2 * pause, LONGEST_PAUSE)
