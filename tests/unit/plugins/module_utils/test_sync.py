# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a proxy's admin pages say of its configuration."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.trafficshift.istio.plugins.module_utils._sync import State, read_state

STATS = "cluster.xds-grpc;.upstream_rq_active: 1\ncluster_manager.cds.update_rejected: 0\n"


def dump(*errors: str) -> dict[str, Any]:
    listeners = [{"name": "a"}, *({"name": "b", "error_state": {"details": error}} for error in errors)]
    return {"configs": listeners}


@pytest.mark.parametrize(
    ("stats", "page", "state"),
    [
        (STATS, dump(), State("shop/p")),
        (STATS, {}, State("shop/p")),
        (STATS.replace("grpc;", "grpc"), dump(), State("shop/p")),
        (STATS.replace(": 1", ": 0"), dump(), State("shop/p", connected=False)),
        (STATS, dump("", "no such filter", "other"), State("shop/p", refused="no such filter")),
        (STATS.replace(": 0", ": 1") + "listener_manager.lds.update_rejected: 3\n", dump(), State("shop/p", once=4)),
        (STATS + "cluster.other.upstream_rq_active: 0\nhttp.x.rds.y.update_rejected: 3\n", dump(), State("shop/p")),
    ],
)
def test_state(stats: str, page: Any, state: State) -> None:
    assert read_state("shop/p", stats, page) == state


@pytest.mark.parametrize(("stats", "page"), [("", {}), ("no such page", {}), (STATS, [])])
def test_another_page_is_an_error(stats: str, page: Any) -> None:
    with pytest.raises(ValueError, match="does not say how it is connected"):
        read_state("shop/p", stats, page)
