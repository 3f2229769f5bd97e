# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads and writes a live route and the record of its rollout; what is not written here stays as it is.

A change that somebody else made since the route was read is never overwritten: it raises ConflictError.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from ansible_collections.trafficshift.istio.plugins.module_utils import _ramp, _routes
from ansible_collections.trafficshift.istio.plugins.module_utils._client import Cluster
from ansible_collections.trafficshift.istio.plugins.module_utils._ramp import ANNOTATION, Record, Weights

_KINDS = ("DestinationRule", "Gateway", "VirtualService")


class Live(NamedTuple):
    """A route as it is: its objects, its weights by version, the method that gives them, and who is moving it."""

    objects: list[dict[str, Any]]
    weights: Weights
    method: str  # "" if there is no route that gives weights by version
    record: Record | None


class RouteStore:
    """One route of a cluster. `spec` is the description that _routes takes, without weights and method."""

    def __init__(self, cluster: Cluster, spec: Mapping[str, Any]) -> None:
        self._cluster = cluster
        self._spec = dict(spec)
        self.reference = f"{spec['namespace']}/{spec['name']}"

    def read(self) -> Live:
        """Return the route as it is now; raises ClusterError, and RampError if its record cannot be read."""
        objects = [
            item
            for kind in _KINDS
            for item in self._cluster.find(_routes.API_VERSION, kind, str(self._spec["namespace"]))
        ]
        found = _routes.tcp_route_live(self._spec, objects)
        weights = {**dict.fromkeys(self._spec["versions"], 0), **found["weights"]} if found["method"] else {}
        return Live(objects, weights, found["method"], _ramp.decode(self._virtual_service(objects)))

    def write_record(self, live: Live, record: Record | None) -> None:
        """Write the record, or remove it, on the route as it was read."""
        virtual_service = self._virtual_service(live.objects)
        metadata = {key: virtual_service["metadata"][key] for key in ("name", "namespace", "resourceVersion")}
        annotation = {ANNOTATION: _ramp.encode(record) if record else None}
        self._cluster.patch(
            {
                "apiVersion": _routes.API_VERSION,
                "kind": "VirtualService",
                "metadata": {**metadata, "annotations": annotation},
            }
        )

    def write_weights(self, live: Live, weights: Weights, record: Record) -> None:
        """Write the weights where the route's method has them, and the record with them or just before them."""
        rule, _gateway, virtual_service = self.objects(live, weights, live.method)
        if live.method == "route":
            annotations = {**virtual_service["metadata"].get("annotations", {}), ANNOTATION: _ramp.encode(record)}
            virtual_service["metadata"]["annotations"] = annotations
            self._cluster.patch(virtual_service)
        else:
            self.write_record(live, record)
            self._cluster.patch(rule)

    def objects(self, live: Live, weights: Weights, method: str, prune: bool = False) -> list[dict[str, Any]]:
        """Return DestinationRule, Gateway and VirtualService with weights; ValueError if they cannot be declared."""
        spec = {**self._spec, "weights": weights, "method": method}
        return _routes.tcp_route_objects(spec, live.objects, prune)

    def patch(self, definition: Mapping[str, Any]) -> None:
        """Write one of the objects."""
        self._cluster.patch(definition)

    def restore_command(self, live: Live, weights: Weights) -> str:
        """Return the kubectl command that gives the live route other weights, whatever else is broken."""
        rule, _gateway, virtual_service = self.objects(live, weights, live.method)
        definition = virtual_service if live.method == "route" else rule
        return _routes.patch_command(definition)

    def _virtual_service(self, objects: list[dict[str, Any]]) -> dict[str, Any]:
        return _routes.virtual_service(self._spec, objects)
