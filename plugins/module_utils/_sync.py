# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a proxy is connected to its control plane and took its configuration, from its own admin interface. Pure.

The proxy itself is asked, not istiod: its word holds with any number of istiods, wherever they run, and takes no right
in their namespace.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

# pilot-agent ends this connection when it loses its own to istiod, so it stands for the whole way.
CONNECTED = "control_plane.connected_state"
REFUSED = ("cluster_manager.cds.update_rejected", "listener_manager.lds.update_rejected")
STATS = f"stats?filter={'|'.join((CONNECTED, *REFUSED))}"
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
    values = dict(line.rsplit(": ", 1) for line in stats.splitlines() if ": " in line)
    if CONNECTED not in values or not isinstance(dump, Mapping):
        raise ValueError("no statistics of a control plane in its answer")
    errors = [
        str((config.get("error_state") or {}).get("details", ""))
        for config in dump.get("configs") or []
        if isinstance(config, Mapping)
    ]
    return State(
        name,
        values[CONNECTED] == "1",
        next((error for error in errors if error), ""),
        sum(int(values.get(stat, 0)) for stat in REFUSED),
    )
