# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a proxy is connected to its control plane and took its configuration, from its own admin interface. Pure.

The proxy itself is asked, not istiod: its word holds with any number of istiods, wherever they run, and takes no right
in their namespace.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import quote

# pilot-agent ends Envoy's stream to it when it loses its own to istiod, so this one stands for the whole way. Istio
# keeps these statistics whatever else is left out; newer proxies write a semicolon after the name of the cluster.
STREAMS = re.compile(r"^cluster\.xds-grpc;?\.upstream_rq_active: (\d+)$", re.MULTILINE)
REFUSED = re.compile(r"^(?:cluster_manager\.cds|listener_manager\.lds)\.update_rejected: (\d+)$", re.MULTILINE)
STATS = f"stats?filter={quote('xds-grpc.*upstream_rq_active|update_rejected')}"
LISTENERS = "config_dump?resource=dynamic_listeners&mask=name,error_state"  # without what the listeners are


class State(NamedTuple):
    """What a proxy says of its configuration."""

    name: str  # namespace/name of the pod
    connected: bool = True
    refused: str = ""  # why the latest configuration of a listener was refused
    once: int = 0  # configurations refused since the proxy started; whether the latest is among them is not told
    error: str = ""  # why it could not be asked


def read_state(name: str, stats: str, dump: Any) -> State:
    """Return the state from the pages STATS and LISTENERS; raises ValueError if they are something else."""
    streams = STREAMS.search(stats)
    if streams is None or not isinstance(dump, Mapping):
        raise ValueError("it does not say how it is connected to istiod")
    errors = [
        str((config.get("error_state") or {}).get("details", ""))
        for config in dump.get("configs") or []
        if isinstance(config, Mapping)
    ]
    return State(
        name,
        streams[1] != "0",
        next((error for error in errors if error), ""),
        sum(map(int, REFUSED.findall(stats))),
    )
