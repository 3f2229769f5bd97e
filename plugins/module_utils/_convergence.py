# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads the weights that a gateway's replicas have, and waits until all have those that are wanted."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible_collections.trafficshift.istio.plugins.module_utils import _gateway, _replicas
from ansible_collections.trafficshift.istio.plugins.module_utils._client import (
    Cluster,
    ClusterError,
    ForbiddenError,
    UnreachableError,
    cut,
)
from ansible_collections.trafficshift.istio.plugins.module_utils._gateway import Replica
from ansible_collections.trafficshift.istio.plugins.module_utils._pods import Object, is_ready


class Gateway:
    """The replicas of one gateway; `params` are the options of gateway_weights."""

    def __init__(self, cluster: Cluster, params: Mapping[str, Any]) -> None:
        self.cluster = cluster
        self.params = params
        self.replicas = _replicas.Replicas(cluster, params["namespace"], params["selector"])
        self.destination = _gateway.Destination(params["destination"], params["destination_port"])
        self.wanted = _gateway.Wanted(
            params["weights"], params["clusters"], params["method"], params["endpoint_weights"]
        )
        self.service: dict[str, Any] | None = None

    def pods(self) -> list[Object]:
        """Return the replicas that get connections, and read their Service with the first of them."""
        self.service = self.service or self.cluster.get(
            "v1", "Service", self.params["service"], self.params["namespace"]
        )
        return [pod for pod in self.replicas.pods() if is_ready(pod)]

    def ask(self, pods: Sequence[Object]) -> list[Replica]:
        """Ask replicas, several at the same time; raises ForbiddenError if the account may not."""
        return _replicas.ask(pods, self._ask_one, lambda pod, why: Replica(pod["metadata"]["name"], False, error=why))

    def _ask_one(self, pod: Object) -> Replica:
        name = pod["metadata"]["name"]
        port = _gateway.listener_port(self.service, self.params["port"], pod)
        listener = clusters = endpoints = None
        ahead = self.wanted.endpoint_weights is not None
        try:
            if self.wanted.weights is not None or not (self.wanted.clusters or ahead):
                listener = _gateway.read_listener(
                    self._request(name, _gateway.listener_query(port)), port, self.destination
                )
                listener = listener._replace(error=cut(listener.error))
            if self.wanted.clusters:
                dump = self._request(name, _gateway.clusters_query(self.destination))
                clusters = _gateway.read_clusters(dump, self.destination)
            if ahead or (listener is not None and listener.routes and self.wanted.method == "endpoints"):
                endpoints = _gateway.read_endpoints(
                    self._request(name, _gateway.endpoints_query(self.destination)),
                    self._request(name, _gateway.weighting_query(self.destination)),
                    self.destination,
                )
        except ForbiddenError:
            raise
        except ClusterError as error:  # the replica may just be going
            return Replica(name, False, error=str(error))
        except (ValueError, TypeError, AttributeError) as error:
            return Replica(name, False, error=f"its configuration cannot be read: {cut(error)}")
        return _gateway.judge_replica(name, listener, clusters, self.wanted, endpoints)

    def _request(self, pod: str, path: str) -> Any:
        return json.loads(self.replicas.request(pod, path) or "{}")


def observe(gateway: Gateway, sleep: Callable[[float], None] = time.sleep) -> dict[str, Any]:
    """Return the result of gateway_weights, with `failed` if the waiting was in vain; raises ClusterError."""
    params = gateway.params
    began = time.monotonic()
    timeout = params["wait_timeout"] if params["wait"] else 0
    result: dict[str, Any] = {"changed": False, "replicas": [], "convergence": "observed", "failed": False}
    try:
        outcome = _gateway.wait_for_replicas(
            gateway.pods,
            gateway.ask,
            timeout,
            clock=time.monotonic,
            sleep=sleep,
            needed=params["weights"] != {},
            transient=UnreachableError,
        )
    except ForbiddenError as error:
        result.update(converged=None, convergence="behavioural", reason=f"The gateway could not be looked at. {error}")
    else:
        result["replicas"] = [replica._asdict() for replica in outcome.replicas]
        result["converged"] = outcome.converged
        if outcome.converged:
            result["reason"] = f"{_gateway.describe_success(outcome, gateway.wanted, params['port'])}."
        else:
            lag = _gateway.describe_lag(outcome, gateway.wanted, params["port"], gateway.replicas.labels)
            waited = f", waited {timeout} s" if timeout else ""
            advice = _gateway.describe_advice(outcome)
            result["reason"] = f"{lag} (namespace {params['namespace']}{waited}): {advice}."
            if params["wait"]:
                result.update(failed=True, msg=result["reason"])
    result["duration"] = round(time.monotonic() - began, 3)
    return result
