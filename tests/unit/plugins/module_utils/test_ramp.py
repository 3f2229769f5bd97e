# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from ansible_collections.trafficshift.istio.plugins.module_utils import _ramp
from ansible_collections.trafficshift.istio.plugins.module_utils._ramp import Place, RampError, Record
from hypothesis import given
from hypothesis import strategies as st

NOW = datetime(2026, 11, 24, 10, 0, tzinfo=timezone.utc)
RECORD = Record(
    id="3f2a9c1b",
    owner="ci@runner (process 7)",
    place=Place("boot/pid:[1]", 7, "123"),
    since="2026-11-24T09:58:00Z",
    renewed="2026-11-24T09:59:40Z",
    lease=60,
    phase="forward",
    method="endpoints",
    old="v1",
    new="v2",
    before={"v1": 100, "v2": 0},
    weights={"v1": 80, "v2": 20},
    last={"v1": 95, "v2": 5},
)


def on_route(text: str) -> dict[str, Any]:
    return {"metadata": {"name": "tcp-echo", "namespace": "default", "annotations": {_ramp.ANNOTATION: text}}}


def test_a_record_comes_back_as_it_was_written() -> None:
    assert _ramp.decode(on_route(_ramp.encode(RECORD))) == RECORD


def test_without_annotation_there_is_no_record() -> None:
    assert _ramp.decode({}) is None
    assert _ramp.decode({"metadata": {"annotations": None}}) is None


@pytest.mark.parametrize(
    "text",
    [
        "no JSON",
        "[]",
        "{}",
        json.dumps({"format": 1}),
        json.dumps({"format": 2, **RECORD._asdict()}),
        _ramp.encode(RECORD._replace(phase="sideways")),
        _ramp.encode(RECORD._replace(renewed="2026-11-24T09:59:40")),
        _ramp.encode(RECORD._replace(before={"v1": 100})),
        _ramp.encode(RECORD)[:-5],
        _ramp.encode(RECORD._replace(owner="x" * 5000)),
    ],
)
def test_what_is_no_record_is_refused_with_the_way_out(text: str) -> None:
    with pytest.raises(
        RampError, match=r"default/tcp-echo .*annotate virtualservice tcp-echo trafficshift.istio/rollout-"
    ):
        _ramp.decode(on_route(text))


@given(st.text())
def test_no_annotation_makes_anything_but_a_record_or_a_refusal(text: str) -> None:
    try:
        record = _ramp.decode(on_route(text))
    except RampError:
        return
    assert record is None


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ([], "give rising percentages"),
        ("5", "give rising percentages"),
        (5, "give rising percentages"),
        ([0], "not a whole number from 1 to 100"),
        ([101], "not a whole number"),
        ([True], "not a whole number"),
        ([5.5], "not a whole number"),
        ([20, 5], "goes from 20 to 5"),
        ([20, 20], "goes from 20 to 20"),
    ],
)
def test_steps_that_make_no_sense(steps: Any, said: str) -> None:
    with pytest.raises(RampError, match=said):
        _ramp.validate_steps(steps)


def test_steps_may_be_text() -> None:
    assert _ramp.validate_steps(["5", 20]) == [5, 20]


@pytest.mark.parametrize(("old", "new", "said"), [("v0", "v2", "tcp_rollout_from"), ("v1", "v1", "both v1")])
def test_versions_that_make_no_sense(old: str, new: str, said: str) -> None:
    with pytest.raises(RampError, match=said):
        _ramp.validate_versions(old, new, {"v1": {}, "v2": {}})


STEPS = st.lists(st.integers(1, 100), min_size=1, max_size=8, unique=True).map(sorted)


@given(STEPS, st.integers(0, 100))
def test_a_plan_never_takes_traffic_back(steps: list[int], reached: int) -> None:
    live = {"v1": 100 - reached, "v2": reached}
    if reached > steps[-1]:
        with pytest.raises(RampError, match="takes no traffic back"):
            _ramp.plan(steps, "v1", "v2", live, live)
        return
    plan = _ramp.plan(steps, "v1", "v2", live, live)
    shares = [weights["v2"] for weights in plan.steps]
    assert shares == [step for step in steps if step >= reached]
    assert all(sum(weights.values()) == 100 for weights in plan.steps)
    assert plan.changes == len([share for share in shares if share != reached])
    assert plan.before == live


def test_a_third_version_with_connections_is_refused() -> None:
    with pytest.raises(RampError, match="go to v3 too"):
        _ramp.plan([50], "v1", "v2", {"v1": 90, "v2": 0, "v3": 10}, {})


def test_a_third_version_without_connections_keeps_its_weight() -> None:
    live = {"v1": 100, "v2": 0, "v3": 0}
    assert _ramp.plan([50], "v1", "v2", live, live).steps == [{"v1": 50, "v2": 50, "v3": 0}]


@pytest.mark.parametrize(
    ("age", "alive", "stale"),
    [(20, None, False), (61, None, True), (20, True, False), (20, False, True), (61, True, True)],
)
def test_a_record_is_stale_when_its_run_is_gone(age: int, alive: bool | None, stale: bool) -> None:
    record = RECORD._replace(renewed=_ramp.iso(NOW - timedelta(seconds=age)))
    assert _ramp.is_stale(record, NOW, alive) is stale
    if stale:
        _ramp.check_free(record, NOW, alive, "", "default/tcp-echo")
    else:
        with pytest.raises(RampError) as refusal:
            _ramp.check_free(record, NOW, alive, "", "default/tcp-echo")
        for part in ("3f2a9c1b", "ci@runner", "09:58:00Z", "40 s", "tcp_rollout_take_lock=3f2a9c1b"):
            assert part in str(refusal.value)
        _ramp.check_free(record, NOW, alive, "3f2a9c1b", "default/tcp-echo")
        with pytest.raises(RampError):
            _ramp.check_free(record, NOW, alive, "another", "default/tcp-echo")


@pytest.mark.parametrize("live", [RECORD.weights, RECORD.last, RECORD.before, {"v1": 100}])
def test_a_lost_rollout_left_its_step_or_the_one_before(live: dict[str, int]) -> None:
    _ramp.check_live(RECORD, live, "default/tcp-echo")


def test_weights_that_no_rollout_left_are_refused() -> None:
    with pytest.raises(RampError, match="somebody changed it since"):
        _ramp.check_live(RECORD, {"v1": 70, "v2": 30}, "default/tcp-echo")


def test_another_rollout_is_not_resumed() -> None:
    _ramp.check_resumable(RECORD, "v1", "v2")
    with pytest.raises(RampError, match="went from v1 to v2, not from v1 to v3"):
        _ramp.check_resumable(RECORD, "v1", "v3")


@pytest.mark.parametrize(
    ("percent", "expected"), [(0, 0.05), (1, 0.02), (4, 0.02), (5, 0.025), (20, 0.05), (95, 0.025), (100, 0.05)]
)
def test_a_small_step_has_a_small_tolerance(percent: int, expected: float) -> None:
    assert _ramp.tolerance(percent, 0.05) == expected


def test_a_smaller_tolerance_stays() -> None:
    assert _ramp.tolerance(5, 0.01) == 0.01
