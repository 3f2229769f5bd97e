# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""gateway_sessions: what its options may not be."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.trafficshift.istio.plugins.modules.gateway_sessions import check_options

SPLIT = {"v1": 80, "v2": 20}
DEFAULTS: dict[str, Any] = {
    "destination": "tcp-echo.default",
    **dict.fromkeys(("since", "expect", "tolerance", "alpha", "beta", "max_probes", "tally")),
    "profile": "strict",
    "max_errors": 0,
    "wait_timeout": 0,
}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"destination": "tcp-echo"}, "The destination tcp-echo has no namespace: give it as name.namespace"),
        ({"expect": SPLIT}, "expect has no connections to judge: give an earlier reading as since, or a wait_timeout"),
        ({"expect": {"v1": 90}, "wait_timeout": 5}, "sum to 90"),
        ({"expect": SPLIT, "wait_timeout": 5, "tolerance": 2.0}, "tolerance is 2.0"),
        ({"expect": SPLIT, "wait_timeout": 5, "profile": "fixed", "max_probes": 0}, "give a whole number"),
        ({"tally": SPLIT}, "tally is what a probe counted since a first reading: give that reading as since"),
        ({"tally": {"v1": "x"}, "since": {"reading": 1}}, "tally has something else than numbers of"),
        ({"tally": {"v1": -1}, "since": {"reading": 1}}, "tally has a number of connections below 0 in it"),
    ],
)
def test_wrong_options_get_one_sentence(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_options({**DEFAULTS, **given})
