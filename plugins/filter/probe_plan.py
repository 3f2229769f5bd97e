# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter probe_plan over module_utils/_verdict.py; documented in probe_plan.yml."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.trafficshift.istio.plugins.module_utils._verdict import REACH, ask, plan


def probe_plan(
    expect: Mapping[str, float],
    profile: str = "strict",
    tolerance: float | None = None,
    alpha: float | None = None,
    beta: float | None = None,
    probes: int | None = None,
) -> dict[str, int]:
    """Return the numbers of probes least, typical and enough; AnsibleFilterError says what makes no sense."""
    try:
        # What max_probes should be is what is asked here.
        question = ask(
            expect,
            profile,
            tolerance=tolerance,
            alpha=alpha,
            beta=beta,
            max_probes=None if profile == "fixed" else REACH,
            probes=probes,
        )
        return plan(question)._asdict()
    except ValueError as error:
        raise AnsibleFilterError(str(error)) from None


class FilterModule:
    """The filter, by name."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"probe_plan": probe_plan}
