# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Counts from the counters of gateway replicas where connections went since a first reading. Pure.

Envoy keeps for each endpoint of a cluster how many connections it began to make (cx_total), how many of these did not
come about (cx_connect_fail) and how many are open (cx_active). What of two readings differs is where connections went,
whoever made them and whatever they carry. Envoy counts a connection when it has drawn its version, before anything can
become of it, so that each reading holds the first so many connections of each replica, in the order of their draws.

With the method "endpoints" there is one cluster, and the locality of an endpoint says its version. Envoy then does not
draw versions but takes turns among them, so that growth is closer to the shares than chance would have it: a test that
allows for chance is wrong no more often.

Replicas are not read at the same moment. What their readings hold together is one beginning from each of several
independent sequences of draws, and where a beginning ends was not chosen by the versions drawn. For a test that may
look at any time that is as good as one sequence. For the same reason a whole replica may be left out, which favours no
version. An endpoint may not: what it still got before it went is missing from one version only.

When a connection to an endpoint fails, Envoy drops all that wait for that endpoint on the same thread. What it had
begun for them it keeps, and gives to later ones without counting again. So failures are at least as many as counted,
and growth can be smaller than what was carried by the connections that were left over.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from ansible_collections.trafficshift.istio.plugins.module_utils import _gateway, _verdict
from ansible_collections.trafficshift.istio.plugins.module_utils._pods import (
    LOCALITY_LABEL,
    SIDECAR,
    Object,
    is_ready,
    labels_of,
)
from ansible_collections.trafficshift.istio.plugins.module_utils._verdict import Question, Verdict

SHOWN = 10  # replicas, endpoints and notes that are returned to be read by people
_NO_SINCE = "since holds no reading: register what gateway_sessions returned, and give that back as it is."
_UNCOUNTED = "connections meant for it are not counted"
_STATS = {"cx_total": "made", "cx_connect_fail": "failed", "cx_active": "live"}


class Counters(NamedTuple):
    """Of one endpoint, or a sum: connections that were begun, those of them that did not come about, and open ones."""

    made: int = 0
    failed: int = 0
    live: int = 0


Subsets = dict[str, dict[str, Counters]]  # by subset, "" for the cluster without one, and by endpoint (address:port)


class Replica(NamedTuple):
    """What was read from one gateway replica; `counters` is None if it could not be read, and `error` says why."""

    name: str
    ready: bool
    counters: Subsets | None = None
    since: Mapping[str, str] = {}  # by subset, when Envoy made the cluster, and began to count at 0
    error: str = ""


class Reading(NamedTuple):
    """Everything that was read at one time. `pods` is None if pods of the destination may not be read."""

    taken: str  # ISO 8601
    destination: str
    replicas: dict[str, Replica]  # by incarnation, of each replica whose proxy runs
    pods: dict[str, str] | None  # by IP address of an endpoint, what changes when its pod leaves and comes back
    method: str = "route"  # or "endpoints": what tells the versions apart

    @property
    def unread(self) -> list[Replica]:
        """The replicas that get connections and could not be read."""
        return [replica for replica in self.replicas.values() if replica.ready and replica.counters is None]


class Agreement(NamedTuple):
    """Whether counters confirm what a probe counted, None if that cannot be known."""

    agrees: bool | None
    reason: str
    others: dict[str, int]  # connections by version that the probe did not count


def counters_query(destination: _gateway.Destination) -> str:
    """Return the path of Envoy's admin page for the counters of a Service.

    Envoy 1.40 leaves out other clusters. Older ones do not know the filter and return all, some 800 bytes an endpoint.
    """
    return f"clusters?format=json&filter={_gateway.clusters_pattern(destination)}"


def read_counters(page: Any, destination: _gateway.Destination, method: str = "route") -> Subsets:
    """Return what the JSON of Envoy's page /clusters (envoy.admin.v3.Clusters) says of the destination.

    With the method "endpoints" only the cluster of the Service as a whole counts, and localities stand for subsets.
    Envoy leaves out zeros. Raises ValueError, TypeError, KeyError or AttributeError if the page is something else.
    """
    subsets: Subsets = {}
    for cluster in page.get("cluster_statuses", []):
        subset = destination.subset(str(cluster["name"]))
        if subset is None or (subset and method == "endpoints"):
            continue
        subsets.setdefault(subset, {})
        for host in cluster.get("host_statuses", []):
            address = host["address"]["socket_address"]
            ip = f"[{address['address']}]" if ":" in address["address"] else address["address"]
            stats = {_STATS.get(stat["name"]): int(stat.get("value", 0)) for stat in host["stats"]}
            version = _gateway.locality_name(host.get("locality")) if method == "endpoints" else subset
            hosts = subsets.setdefault(version, {})
            hosts[f"{ip}:{address['port_value']}"] = Counters(stats["made"], stats["failed"], stats["live"])
    return subsets


def read_beginnings(dump: Any, destination: _gateway.Destination) -> dict[str, str]:
    """Return by subset when Envoy made its cluster, from a dump of active clusters.

    A cluster is made anew, with counters at 0, when what the DestinationRule says of it changes. A change of weights or
    of endpoints does not touch it.
    """
    found = {}
    for config in dump.get("configs", []):
        subset = destination.subset(str(config["cluster"]["name"]))
        if subset is not None:
            found[subset] = str(config["last_updated"])
    return found


def proxy_runs(pod: Object) -> bool:
    """Whether the proxy of a gateway's pod runs; one that does not has counted nothing."""
    statuses = (pod.get("status") or {}).get("containerStatuses") or []
    return any(s.get("name") == SIDECAR and "running" in (s.get("state") or {}) for s in statuses)


def lives(pods: Iterable[Object]) -> dict[str, str]:
    """Return by IP address what changes when a pod stops to be an endpoint, even if it comes back at once.

    Envoy also replaces an endpoint, counters and all, when its locality changes, which a label can do.
    """
    found: dict[str, str] = {}
    for pod in pods:
        status = pod.get("status") or {}
        conditions = {c.get("type"): c for c in status.get("conditions") or []}
        containers = [*(status.get("containerStatuses") or []), *(status.get("initContainerStatuses") or [])]
        restarts = sum(int(container.get("restartCount", 0)) for container in containers)
        changed = conditions.get("Ready", {}).get("lastTransitionTime", "")
        locality = labels_of(pod).get(LOCALITY_LABEL, "")
        life = f"{pod['metadata'].get('uid', '')}/{is_ready(pod)}/{changed}/{restarts}/{locality}"
        for entry in status.get("podIPs") or [{"ip": status.get("podIP", "")}]:
            # Pods on their node's network share its address.
            found[entry["ip"]] = "+".join(sorted([*filter(None, [found.get(entry["ip"])]), life]))
    return found


def steady(before: dict[str, str] | None, after: dict[str, str] | None) -> dict[str, str] | None:
    """Return the pods' lives from before and after a reading; one that changed is like no other."""
    if before is None or after is None:
        return None
    return {ip: life if after.get(ip) == life else f"{life}>{after.get(ip)}" for ip, life in before.items()}


def pack(reading: Reading) -> dict[str, Any]:
    """Return the reading as plain mappings and lists."""
    replicas: dict[str, dict[str, Any]] = {
        incarnation: {
            "name": replica.name,
            "ready": replica.ready,
            "counters": replica.counters
            and {s: {address: list(c) for address, c in hosts.items()} for s, hosts in replica.counters.items()},
            "since": dict(replica.since),
            "error": replica.error,
        }
        for incarnation, replica in reading.replicas.items()
    }
    return {**reading._asdict(), "replicas": replicas}


def unpack(given: Any, destination: str, method: str = "route") -> Reading:
    """Return the reading in a result of gateway_sessions; raises ValueError with one sentence if there is none."""
    try:
        packed = given["reading"]
        datetime.fromisoformat(packed["taken"])
        replicas = {
            str(incarnation): Replica(
                str(replica["name"]),
                bool(replica["ready"]),
                None
                if replica["counters"] is None
                else {
                    str(subset): {str(address): Counters(*map(int, numbers)) for address, numbers in hosts.items()}
                    for subset, hosts in replica["counters"].items()
                },
                {str(subset): str(since) for subset, since in replica["since"].items()},
                str(replica["error"]),
            )
            for incarnation, replica in packed["replicas"].items()
        }
        pods = packed["pods"] and {str(ip): str(life) for ip, life in packed["pods"].items()}
        reading = Reading(packed["taken"], str(packed["destination"]), replicas, pods, str(packed["method"]))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(_NO_SINCE) from error
    if reading.destination != destination:
        raise ValueError(f"since was read for {reading.destination[:200]}, not for {destination}.")
    if reading.method != method:
        raise ValueError(f"since was read with the method {reading.method[:20]}, not with {method}.")
    return reading


def seconds_between(one: str, other: str) -> float:
    """Return the seconds from one time to the other, both in ISO 8601."""
    return (datetime.fromisoformat(other) - datetime.fromisoformat(one)).total_seconds()


def added(*counters: Counters) -> Counters:
    """Return the sum."""
    return Counters(*map(sum, zip(*counters))) if counters else Counters()


def _grown(before: Counters, now: Counters) -> Counters:
    return Counters(max(0, now.made - before.made), max(0, now.failed - before.failed), now.live)


class Window:
    """What gateway replicas counted since a first reading. Growth is never negative, and never a guess.

    With `versions`, mapped to whether they should get connections, what happens to the cluster without a subset takes
    nothing from the others' growth.
    """

    def __init__(self, base: Reading, versions: Mapping[str, bool]) -> None:
        self.base = base
        self.now = base
        self.faults: dict[str, None] = {}  # why growth is not known and never will be, an ordered set of clauses
        self.notes: dict[str, None] = {}  # what else is to be known, likewise
        self._versions = versions
        self._last = {name: replica for name, replica in base.replicas.items() if replica.counters is not None}
        self._left_out: set[str] = set()
        self._deserted: set[tuple[str, str]] = set()  # incarnation and version without an endpoint
        self._lives: dict[str, str] = {}
        for replica in base.unread:
            why = replica.error.rstrip(".")
            self.faults.setdefault(f"the gateway replica {replica.name} could not be read at the beginning ({why})")
        self._follow(base)

    def add(self, reading: Reading) -> None:
        """Take in a later reading of the same destination."""
        for incarnation, replica in reading.replicas.items():
            if replica.counters is None:
                continue
            first = self.base.replicas.get(incarnation)
            if first is not None and first.counters is None:
                self._left_out.add(incarnation)
                self.notes.setdefault(f"{replica.name} is left out, as it could not be read at the beginning")
                continue
            if incarnation not in self._last:
                self.notes.setdefault(f"{replica.name} started in the meantime and counts from 0")
            self._compare(self._last.get(incarnation, replica), replica)
            self._last[incarnation] = replica
        self.now = reading
        self._follow(reading)
        for incarnation in self._gone():
            self.notes.setdefault(f"{self._last[incarnation].name} has gone, and what it counted last stands")

    @property
    def lost(self) -> bool:
        """Whether connections of whole replicas are not all counted."""
        return bool(self._gone() or self._left_out) or any(r.counters is None for r in self.now.replicas.values())

    @property
    def settled(self) -> bool:
        """Whether all replicas that get connections were read, or nothing can mend the window any more."""
        return bool(self.faults) or (bool(self.now.replicas) and not self.now.unread)

    def reason(self) -> str:
        """Return why growth is not known, "" if it is."""
        unread = [
            f"the gateway replica {replica.name} could not be read ({replica.error.rstrip('.')})"
            for replica in self.now.unread
        ]
        found = [*self.faults, *unread] if self.now.replicas else ["no gateway replica runs"]
        more = f" ({len(found) - 1} more like this)" if len(found) > 1 else ""
        return f"{found[0]}{more}" if found else ""

    def growth_by_replica(self) -> dict[str, dict[str, Counters]]:
        """Return by incarnation and by subset what was counted since the beginning; `live` is what is open now."""
        found = {}
        for incarnation, replica in self._last.items():
            first = self.base.replicas.get(incarnation)
            started = (first and first.counters) or {}
            growth = {}
            for subset, hosts in _told(replica.counters or {}, self.base.method):
                from_here = started.get(subset, {})
                growth[subset] = added(*(_grown(from_here.get(a, Counters()), now) for a, now in hosts.items()))
                if incarnation not in self.now.replicas:
                    growth[subset] = growth[subset]._replace(live=0)
            found[incarnation] = growth
        return found

    def growth(self) -> dict[str, Counters]:
        """Return the growth of all replicas together by subset, that of each version even if nothing was counted."""
        total = dict.fromkeys(self._versions, Counters())
        for growth in self.growth_by_replica().values():
            for subset in sorted(growth):
                total[subset] = added(total.get(subset, Counters()), growth[subset])
        return total

    def left_over(self, version: str) -> int:
        """Return how many connections at most Envoy had left over from failed attempts at the beginning."""
        hosts = [(replica.counters or {}).get(version, {}).values() for replica in self.base.replicas.values()]
        return sum(counters.live for counters in itertools.chain(*hosts) if counters.failed)

    def _gone(self) -> list[str]:
        return [incarnation for incarnation in self._last if incarnation not in self.now.replicas]

    def _matters(self, subset: str) -> bool:
        return bool(subset) or not self._versions

    def _compare(self, before: Replica, now: Replica) -> None:
        """Note everything that makes the difference of two readings of one replica too small."""
        for subset, hosts in (before.counters or {}).items():
            if not self._matters(subset):
                continue
            where = f"of {_version(subset)} on the gateway replica {now.name}"
            found = (now.counters or {}).get(subset)
            cluster = "" if self.base.method == "endpoints" else subset
            began = {since[cluster] for since in (before.since, now.since) if cluster in since}
            if cluster not in (now.counters or {}) or len(began) > 1:
                self.faults.setdefault(f"the cluster {where} was removed or made anew, and its counters with it")
                continue
            found = found or {}
            for address, counters in hosts.items():
                if address not in found:
                    self.faults.setdefault(f"the endpoint {address} {where} has gone, with what it still got")
                elif found[address].made < counters.made or found[address].failed < counters.failed:
                    self.faults.setdefault(f"the endpoint {address} {where} left and came back: its counters went down")

    def _follow(self, reading: Reading) -> None:
        """Note what counters do not show: versions without endpoints, and endpoints that left and came back."""
        for incarnation, replica in reading.replicas.items():
            if replica.counters is None:
                continue
            for version, wanted in self._versions.items():
                if not replica.counters.get(version):
                    self._deserted.add((incarnation, version))
                    lost = "others get its share" if reading.method == "endpoints" else _UNCOUNTED
                    self.notes.setdefault(f"{version} has no endpoint on {replica.name}, and {lost}")
                elif wanted and (incarnation, version) in self._deserted:
                    self.faults.setdefault(
                        f"{version} had no endpoint on the gateway replica {replica.name} for a time"
                    )
            for subset, hosts in replica.counters.items():
                for address in hosts if self._matters(subset) else ():
                    self._follow_pod(reading, subset, address)

    def _follow_pod(self, reading: Reading, subset: str, address: str) -> None:
        ip = address.rpartition(":")[0].strip("[]")
        life = (reading.pods or {}).get(ip, "")
        if reading.pods is None or not self._lives.setdefault(ip, life):
            self.notes.setdefault(
                "whether endpoints left and came back is not fully known, as not all are pods that can be seen"
            )
        elif life != self._lives[ip]:
            self.faults.setdefault(f"the pod of the endpoint {address} of {_version(subset)} left or came back")


class Judged(NamedTuple):
    """A verdict on growth, what it rests on, and what else is to be known."""

    verdict: Verdict
    counts: dict[str, int]  # connections that came about, by version
    errors: dict[str, int]
    details: dict[str, str]  # by kind of error, the versions that it concerns
    notes: list[str]


def evidence(growth: Mapping[str, Counters], versions: Collection[str]) -> tuple[dict[str, int], dict[str, int]]:
    """Return what the growth means for a verdict: answers by version, and errors by kind.

    An error is a connection that the gateway could not make, or one to a version that is not among those asked for. A
    failure counts when it is known, so that one that was begun before the window can make answers one too few.
    """
    counts = {version: max(0, growth[version].made - growth[version].failed) for version in versions}
    errors = {
        "connect_fail": sum(growth[version].failed for version in versions),
        "unexpected": sum(g.made for subset, g in growth.items() if subset and subset not in versions),
    }
    return counts, {kind: number for kind, number in errors.items() if number}


def decided(question: Question, growth: Mapping[str, Counters]) -> bool:
    """Whether there is nothing to wait for. In the profile fixed only the number of connections says so."""
    counts, errors = evidence(growth, question.expect)
    if sum(counts.values()) + sum(errors.values()) >= question.max_probes:
        return True
    return _verdict.judge(question, counts, errors).verdict != "inconclusive"


def judge(window: Window, question: Question) -> Judged:
    """Judge what was counted; what is not wholly known is inconclusive, whatever it looks like."""
    growth = window.growth()
    counts, errors = evidence(growth, question.expect)
    failed = [f"{version} {growth[version].failed}" for version in question.expect if growth[version].failed]
    strangers = [f"{s} {g.made}" for s, g in growth.items() if s and s not in question.expect and g.made]
    concerned = {"connect_fail": failed, "unexpected": strangers}
    details = {kind: ", ".join(concerned[kind][:SHOWN]) for kind in errors}
    verdict = _verdict.judge(question, counts, errors, details, "connection")
    if window.reason():
        verdict = verdict._replace(verdict="inconclusive", reason=window.reason(), deviations=[], more=None)
    notes = []
    plain = growth.get("", Counters()).made
    if plain:
        notes.append(f"{plain} connections went to the Service without a version, and are not judged")
    if failed:
        notes.append(
            "when a connection fails, Envoy may drop others and use what it had begun for later ones, uncounted"
        )
    return Judged(verdict, counts, errors, details, notes)


def covers(growth: Mapping[str, Counters], tally: Mapping[str, int]) -> bool:
    """Whether at least the connections of a probe's tally were counted."""
    return all(growth.get(version, Counters()).made >= number for version, number in tally.items())


def agree(window: Window, tally: Mapping[str, int], failed: int, question: Question | None = None) -> Agreement:
    """Compare the window with what a probe counted in it; `failed` of its connections got no answer."""
    growth = {subset: grown.made for subset, grown in window.growth().items() if subset}
    others = {version: made - tally.get(version, 0) for version, made in growth.items()}
    mine, theirs = sum(tally.values()), sum(others.values())
    if window.reason():
        return Agreement(None, f"the counters cannot confirm what the probe counted: {window.reason()}", others)
    for version, number in tally.items():
        if growth[version] >= number:
            continue
        said = f"the probe counted {number} connections to {version}, the gateway's replicas only {growth[version]}"
        if window.lost:
            return Agreement(None, f"{said}, but theirs need not be all: {'; '.join(window.notes)}", others)
        if growth[version] + window.left_over(version) >= number:
            some = f"{window.left_over(version)} that were left over from failed attempts can have been used again"
            return Agreement(None, f"{said}, but {some}", others)
        if theirs < 0:
            meaning = f"at least {-theirs} of its {mine} connections did not go through these replicas"
        else:
            meaning = f"not all replies that are taken for {version}'s come from {version}"
        return Agreement(False, f"{said}: {meaning}", others)
    if question and _passes(question, tally, failed):
        verdict = judge(window, question).verdict
        if verdict.verdict == "fail":
            return Agreement(
                False, f"the probe's connections were split as expected, all together are not: {verdict.reason}", others
            )
    some = f", of which up to {failed} can be the probe's that got no answer" if failed and theirs else ""
    return Agreement(
        True, f"the gateway's replicas counted all {mine} connections of the probe, and {theirs} others{some}", others
    )


def _passes(question: Question, tally: Mapping[str, int], failed: int) -> bool:
    counts = {version: tally.get(version, 0) for version in question.expect}
    return _verdict.judge(question, counts, {"unanswered": failed} if failed else {}).passed


def repeat(
    read: Callable[[], Reading],
    enough: Callable[[Reading], bool],
    timeout: float,
    *,
    clock: Callable[[], float],
    sleep: Callable[[float], None],
    transient: type[Exception] = TimeoutError,
) -> Reading:
    """Read until it is enough or `timeout` seconds have passed, at least once, and return the last reading.

    What `read` raises goes through, `transient` only when the time is over.
    """
    deadline = clock() + timeout
    pause = _gateway.FIRST_PAUSE
    while True:
        try:
            reading = read()
        except transient:
            if clock() >= deadline:
                raise
        else:
            if enough(reading) or clock() >= deadline:
                return reading
        sleep(min(pause, max(0.0, deadline - clock())))
        pause = min(pause * 1.5, _gateway.LONGEST_PAUSE)


def shown_replicas(reading: Reading) -> list[dict[str, Any]]:
    """Return replicas for people: with every number by version, and of a bounded number of replicas and endpoints."""
    shown = []
    for incarnation, replica in sorted(reading.replicas.items(), key=lambda item: item[1].name)[:SHOWN]:
        subsets = None
        if replica.counters is not None:
            subsets = {
                subset: {
                    **_named(added(*hosts.values())),
                    "endpoints": {address: _named(hosts[address]) for address in sorted(hosts)[:SHOWN]},
                }
                for subset, hosts in sorted(_told(replica.counters, reading.method))
            }
        entry = {"name": replica.name, "incarnation": incarnation, "ready": replica.ready}
        shown.append({**entry, "subsets": subsets, "error": replica.error})
    return shown


def totals(reading: Reading) -> dict[str, dict[str, int]]:
    """Return all replicas' counters together, by subset."""
    total: dict[str, Counters] = {}
    for replica in reading.replicas.values():
        for subset, hosts in _told(replica.counters or {}, reading.method):
            total[subset] = added(total.get(subset, Counters()), *hosts.values())
    return {subset: _named(total[subset]) for subset in sorted(total)}


def _told(counters: Subsets, method: str) -> list[tuple[str, dict[str, Counters]]]:
    """Return what there is to tell: by endpoints, a Service as a whole of which each endpoint has a version is not."""
    return [(subset, hosts) for subset, hosts in counters.items() if hosts or subset or method == "route"]


def shown_growth(growth: Mapping[str, Counters]) -> dict[str, dict[str, int]]:
    """Return growth under the names that it has in a result."""
    return {
        subset: {"connections": grown.made, "connect_failures": grown.failed, "live": grown.live}
        for subset, grown in growth.items()
    }


def _named(counters: Counters) -> dict[str, int]:
    return {"cx_total": counters.made, "cx_connect_fail": counters.failed, "cx_active": counters.live}


def _version(subset: str) -> str:
    return subset or "the Service without a version"
