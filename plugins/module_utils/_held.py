# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What sessions live at the gateway and at the sidecars of each version, and what a change of the route would cut.

A change of what a listener does makes Envoy drain the filter chain that was in use before: connections that came in
through it live on and are closed when the drain time is over. Weights in the route are part of that chain, weights of
endpoints are not. Until they are closed, the gateway counts such connections like any other.

When the endpoints of a version lose their share, Envoy forgets them, and does not find connections that are still open
to them again when they get a share later. Only the sidecars of that version's pods count these then, together with
connections from other clients.

Gateway and sidecars begin to count at 0 when Istio makes a cluster anew. For the cluster of a sidecar that is when the
DestinationRule gets its first traffic policy or loses its last (buildInboundCluster in Istio's cluster_builder.go), for
one of the gateway whenever the DestinationRule says something else of it. A change from weights in the route to those
of endpoints leaves the gateway's counts of sessions from before, the change back leaves neither: so sessions are to be
read before the method changes. What nobody counts afterwards is over when the drain time is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from ansible_collections.trafficshift.istio.plugins.module_utils import _gateway, _replicas, _sessions
from ansible_collections.trafficshift.istio.plugins.module_utils._client import (
    UNREADABLE,
    Cluster,
    ClusterError,
    ForbiddenError,
)
from ansible_collections.trafficshift.istio.plugins.module_utils._client import (
    cut as shortened,
)
from ansible_collections.trafficshift.istio.plugins.module_utils._counters import Gateway
from ansible_collections.trafficshift.istio.plugins.module_utils._pods import Object, has_labels, sidecar

DRAIN = "server_info"  # path of Envoy's admin page with its drain time
INBOUND = "clusters?format=json&filter=inbound"  # older Envoys than 1.40 do not know the filter and return all
BEGINNINGS = "config_dump?resource=dynamic_active_clusters&name_regex=inbound.*&mask=cluster.name,last_updated"
SHOWN = 5  # replicas in one sentence
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)s")  # google.protobuf.Duration in JSON


class Live(NamedTuple):
    """What one gateway replica holds; `error` says why it could not be read, and the rest is not known then."""

    replica: str
    drain_seconds: float | None = None
    sessions: Mapping[str, int] = {}  # by version, "" for connections to the Service without a version
    error: str = ""


class Sidecars(NamedTuple):
    """Live connections that each version's sidecars have to their own application, from whichever client."""

    sessions: dict[str, dict[str, int]]  # by version and pod
    since: dict[str, dict[str, str]]  # by version and pod, the time (ISO 8601) from which on connections are counted
    unread: dict[str, dict[str, str]]  # by version and pod, why its connections are not known


class Cut(NamedTuple):
    """Sessions that a change cuts on one replica, the last of them that many seconds after it."""

    replica: str
    seconds: float
    sessions: dict[str, int]  # by version, without those that have none


def drain_seconds(page: Any) -> float:
    """Return the drain time in the JSON of Envoy's page /server_info (envoy.admin.v3.ServerInfo).

    Raises ValueError if it is not there.
    """
    options = page.get("command_line_options") if isinstance(page, Mapping) else None
    found = _DURATION.fullmatch(str(options.get("drain_time"))) if isinstance(options, Mapping) else None
    if not found:
        raise ValueError("it does not say its drain time")
    return float(found[1])


def live_sessions(page: Any, destination: _gateway.Destination, versions: Collection[str]) -> dict[str, int]:
    """Return live connections by version, from the JSON of Envoy's page /clusters, "" for those without a version.

    Whatever the method is now, connections from before it was changed count too: a version's are those of its subset,
    and those of the Service as a whole in the locality that is called like it. Raises like _sessions.read_counters.
    """
    found = dict.fromkeys(versions, 0)
    subsets = _sessions.read_counters(page, destination)
    subsets.pop("", None)
    for counters in (subsets, _sessions.read_counters(page, destination, "endpoints")):
        for name, hosts in counters.items():
            version = name if name in versions else ""
            found[version] = found.get(version, 0) + sum(counted.live for counted in hosts.values())
    return {version: number for version, number in found.items() if number or version in versions}


def inbound_sessions(page: Any, port: int) -> int:
    """Return live connections of a sidecar to a port of its application, from the JSON of its page /clusters.

    Raises ValueError if no connections to that port come through it, and what an odd page makes of itself.
    """
    clusters = [c for c in page.get("cluster_statuses", []) if str(c["name"]).startswith(_inbound(port))]
    if not clusters:
        raise ValueError(f"it has no cluster for the port {port}")
    hosts = [host for cluster in clusters for host in cluster.get("host_statuses", [])]
    return sum(int(stat.get("value", 0)) for host in hosts for stat in host["stats"] if stat["name"] == "cx_active")


def inbound_since(dump: Any, port: int) -> str:
    """Return from which time on a sidecar counts connections to a port, from a dump of active clusters."""
    configs = [c for c in dump.get("configs", []) if str(c["cluster"]["name"]).startswith(_inbound(port))]
    return max(str(config["last_updated"]) for config in configs)


def _inbound(port: int) -> str:
    """Return how a sidecar's cluster begins that leads to a container's port (Istio's pilot/pkg/model/service.go)."""
    return f"inbound|{port}|"


def read_live(gateway: Gateway, versions: Collection[str]) -> list[Live]:
    """Return what each replica holds whose proxy runs, several read at the same time.

    One that cannot be read says so. Raises ForbiddenError if the account may not ask, ClusterError if the pods cannot
    be listed.
    """

    def ask(pod: Object) -> Live:
        name = pod["metadata"]["name"]
        try:
            drain = drain_seconds(_load(gateway.replicas.request(name, DRAIN)))
            page = _load(gateway.replicas.request(name, _sessions.counters_query(gateway.destination)))
            return Live(name, drain, live_sessions(page, gateway.destination, versions))
        except ForbiddenError:
            raise
        except ClusterError as error:  # the replica may just be going
            return Live(name, error=str(error))
        except UNREADABLE as error:
            return Live(name, error=f"its sessions cannot be read: {shortened(error)}")

    pods = [pod for pod in gateway.replicas.pods() if _sessions.proxy_runs(pod)]
    found = _replicas.ask(pods, ask, lambda pod, why: Live(pod["metadata"]["name"], error=why))
    return sorted(found, key=lambda live: live.replica)


def read_at_sidecars(
    cluster: Cluster, service: Object, port: int, labels_of_version: Mapping[str, Mapping[str, str]]
) -> Sidecars:
    """Return the live connections at the sidecars of each version's pods, those included that are just going.

    `service` is the live Service and `port` one of its ports. Connections that do not come from the gateway count too.
    A pod without a sidecar, or one that cannot be read, is named and not taken for one without connections. Raises
    ForbiddenError if the account may not ask, ClusterError if the pods cannot be listed.
    """
    namespace = service["metadata"]["namespace"]
    selector = (service.get("spec") or {}).get("selector") or {}
    proxies = _replicas.Replicas(cluster, namespace, selector)
    # One that has not started or has ended has no connections.
    running = [pod for pod in proxies.pods() if (pod.get("status") or {}).get("phase") in ("Running", "Unknown")]
    versions = {version: [p for p in running if has_labels(p, labels)] for version, labels in labels_of_version.items()}

    def ask(pod: Object) -> tuple[int, str] | str:
        name, target = pod["metadata"]["name"], _gateway.listener_port(service, port, pod)
        if not sidecar(pod)[0]:
            return "it has no sidecar"
        try:
            # In this order the time is not too early if the cluster is made anew in between.
            number = inbound_sessions(_load(proxies.request(name, INBOUND)), target)
            return number, inbound_since(_load(proxies.request(name, BEGINNINGS)), target)
        except ForbiddenError:
            raise
        except ClusterError as error:  # the pod may just be going
            return str(error)
        except UNREADABLE as error:
            return f"its connections cannot be read: {shortened(error)}"

    asked = [(version, pod) for version, pods in versions.items() for pod in pods]
    answers = _replicas.ask([pod for _version, pod in asked], ask, lambda _pod, why: why)
    found = Sidecars(*({version: {} for version in versions} for _field in Sidecars._fields))  # type: ignore[arg-type]
    for (version, pod), answer in zip(asked, answers):
        name = pod["metadata"]["name"]
        if isinstance(answer, str):
            found.unread[version][name] = answer
        else:
            found.sessions[version][name], found.since[version][name] = answer
    return found


def still_open(version: str, live: Sequence[Live], at_sidecars: Sidecars) -> int | None:
    """Return how many sessions of a version are at least open, None if a witness could not be read.

    Neither the gateway nor the sidecars see all of them, see above; what either sees is there. Before unseen_until,
    there can be more.
    """
    if at_sidecars.unread[version] or any(replica.error for replica in live):
        return None
    at_gateway = sum(replica.sessions.get(version, 0) for replica in live)
    return max(at_gateway, sum(at_sidecars.sessions[version].values()))


def unseen_until(version: str, live: Sequence[Live], at_sidecars: Sidecars) -> datetime | None:
    """Return until when sessions may live on that are older than what sidecars count, None if no sidecar was read.

    A change that made the sidecars' clusters anew was one of the route's method, which drained the gateway's listener.
    """
    begun = [datetime.fromisoformat(f"{since[:19]}+00:00") for since in at_sidecars.since[version].values()]
    longest = max((replica.drain_seconds or 0.0 for replica in live), default=0.0)
    return max(begun) + timedelta(seconds=longest) if begun else None


def cut_forecast(live: Sequence[Live]) -> list[Cut]:
    """Return what a change of the route would cut on each replica that holds sessions and was read.

    That a session was already doomed by an earlier change is not told: it is cut sooner then.
    """
    cuts = []
    for replica in live:
        held = {version: number for version, number in replica.sessions.items() if number}
        if held and replica.drain_seconds is not None:
            cuts.append(Cut(replica.replica, replica.drain_seconds, held))
    return cuts


def describe_forecast(live: Sequence[Live]) -> str:
    """Return the forecast in one sentence."""
    cuts = cut_forecast(live)
    parts = [f"{_sessions_text(cut.sessions)} on {cut.replica} {cut.seconds:g} s later" for cut in cuts[:SHOWN]]
    if len(cuts) > SHOWN:
        parts.append(f"{sum(sum(cut.sessions.values()) for cut in cuts[SHOWN:])} on others")
    unread = [replica for replica in live if replica.error]
    silence = ""
    if unread:
        others = f" and {len(unread) - 1} more" if len(unread) > 1 else ""
        silence = f"what {unread[0].replica}{others} would cut is not known ({unread[0].error.rstrip('.')})"
    if silence and not parts:
        return f"At a change of the route, {silence}."
    saw = f"A change of the route would cut {', '.join(parts) or 'no session'}"
    return f"{saw}; {silence}." if silence else f"{saw}."


def _sessions_text(sessions: Mapping[str, int]) -> str:
    """Return for example 12 sessions of v1 and 3 of v2."""
    parts = [f"{number} of {version or 'no version'}" for version, number in sessions.items()]
    number, _space, rest = parts[0].partition(" ")
    parts[0] = f"{number} session{'s' if int(number) > 1 else ''} {rest}"
    return " and ".join(filter(None, [", ".join(parts[:-1]), parts[-1]]))


def _load(text: str) -> Any:
    return json.loads(text or "{}")
