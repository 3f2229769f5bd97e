# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters over module_utils/_routes.py; each is documented in the .yml file of its name."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.trafficshift.istio.plugins.module_utils import _routes


def _readable(function: Callable[..., Any]) -> Callable[..., Any]:
    """Let a filter fail with the sentence of the ValueError."""

    def checked(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except ValueError as error:
            raise AnsibleFilterError(str(error)) from None

    return checked


def tcp_route_problem(spec: Any, existing: Iterable[dict[str, Any]] = ()) -> str:
    """Return the sentence that says why a route cannot be declared around the live objects, empty if it can."""
    try:
        _routes.tcp_route_objects(spec, existing)
    except ValueError as error:
        return str(error)
    return ""


class FilterModule:
    """The route's filters, by name."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        names = ("tcp_route_live", "tcp_route_objects", "tcp_route_removal", "tcp_route_switch", "tcp_route_weights")
        return {"tcp_route_problem": tcp_route_problem, **{name: _readable(getattr(_routes, name)) for name in names}}
