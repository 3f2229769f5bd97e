# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter asks the planner, without a limit to the probes, and fails with its sentences."""

from __future__ import annotations

import re
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.trafficshift.istio.plugins.filter.probe_plan import FilterModule
from ansible_collections.trafficshift.istio.plugins.module_utils._verdict import ask, plan

SPLIT = {"v1": 80, "v2": 20}
probe_plan = FilterModule().filters()["probe_plan"]


@pytest.mark.parametrize(
    "options",
    [{}, {"profile": "quick"}, {"profile": "quick", "tolerance": 0.08}, {"alpha": 0.01}, {"beta": 0.01}],
)
def test_the_planner_is_asked(options: dict[str, Any]) -> None:
    assert probe_plan(SPLIT, **options) == plan(ask(SPLIT, **options))._asdict()


def test_more_probes_than_the_profile_makes_can_be_planned() -> None:
    numbers = probe_plan(SPLIT, tolerance=0.01)
    assert 5000 < numbers["least"] < numbers["typical"] < numbers["enough"]


def test_fixed_is_as_many_as_it_says() -> None:
    assert probe_plan(SPLIT, "fixed", probes=10) == {"least": 10, "typical": 10, "enough": 10}


@pytest.mark.parametrize(
    ("expect", "options", "message"),
    [
        ({"v1": 80}, {}, "the percentages in expect sum to 80 (v1 80 %); make them sum to 100"),
        (SPLIT, {"profile": "slow"}, "profile is 'slow'; give one of strict, quick, fixed"),
        (SPLIT, {"profile": ["quick"]}, "profile is ['quick']; give one of strict, quick, fixed"),
    ],
)
def test_a_question_without_sense_fails_with_its_sentence(expect: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(AnsibleFilterError, match=rf"^{re.escape(message)}"):
        probe_plan(expect, **options)
