# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""gateway_weights: what its options may not be."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.trafficshift.istio.plugins.modules.gateway_weights import check_options


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"destination": "tcp-echo", "weights": None}, "The destination tcp-echo has no namespace: give it as"),
        ({"destination": "tcp-echo.shop", "weights": {"v1": 90}}, "The weights add up to 90, not to 100"),
    ],
)
def test_wrong_options_get_one_sentence(params: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_options(params)


@pytest.mark.parametrize("wrong", [{"endpoint_weights": {}}, {"endpoint_weights": {"v1": 100}, "weights": {"v1": 100}}])
def test_endpoint_weights_take_the_place_of_weights(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="endpoint_weights needs a version, and takes the place of weights"):
        check_options({"destination": "a.b", "weights": None, **wrong})
