# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filters hand over to the pure functions and fail with their sentences."""

from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.trafficshift.istio.plugins.filter.tcp_routes import FilterModule

FILTERS = FilterModule().filters()
SPEC = {
    "name": "tcp-echo",
    "namespace": "default",
    "service": "tcp-echo",
    "service_port": 9000,
    "gateway_name": "tcp-echo-gateway",
    "gateway_port": 31400,
    "gateway_selector": {"istio": "ingressgateway"},
    "versions": {"v1": {"version": "v1"}},
    "weights": {"v1": 100},
}


def test_names() -> None:
    names = ("live", "objects", "problem", "removal", "switch", "weights")
    assert set(FILTERS) == {f"tcp_route_{name}" for name in names}


def test_a_result_comes_through() -> None:
    service = {"spec": {"tcp": [{"match": [{"port": 1}], "route": [{"destination": {"subset": "v1"}}]}]}}
    assert FILTERS["tcp_route_weights"](service, 1) == {"v1": 100}


def test_a_wrong_description_fails_with_its_sentence() -> None:
    with pytest.raises(AnsibleFilterError, match="The description of the route lacks name, namespace"):
        FILTERS["tcp_route_objects"]({})


def test_a_wrong_description_is_told_instead() -> None:
    assert FILTERS["tcp_route_problem"]({}).startswith("The description of the route lacks name, namespace")


def test_a_right_description_is_no_problem() -> None:
    assert FILTERS["tcp_route_problem"](SPEC) == ""


def test_a_live_object_that_does_not_fit_is_told() -> None:
    gateway = {
        "apiVersion": "networking.istio.io/v1",
        "kind": "Gateway",
        "metadata": {"name": "tcp-echo-gateway", "namespace": "default"},
        "spec": {"selector": {"istio": "internal"}},
    }
    assert "selector istio=internal" in FILTERS["tcp_route_problem"](SPEC, [gateway])
    with pytest.raises(AnsibleFilterError, match="selector istio=internal"):
        FILTERS["tcp_route_objects"](SPEC, [gateway])
