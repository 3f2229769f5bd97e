# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Counters of gateway replicas: what is read, what has grown, what is refused, and what confirms a probe."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from ansible_collections.trafficshift.istio.plugins.module_utils import _gateway, _sessions
from ansible_collections.trafficshift.istio.plugins.module_utils._gateway import Destination
from ansible_collections.trafficshift.istio.plugins.module_utils._sessions import (
    Counters,
    Reading,
    Replica,
    Window,
    added,
    agree,
    covers,
    decided,
    evidence,
    judge,
    lives,
    pack,
    proxy_runs,
    read_beginnings,
    read_counters,
    repeat,
    steady,
    unpack,
)
from ansible_collections.trafficshift.istio.plugins.module_utils._verdict import ask
from hypothesis import given
from hypothesis import strategies as st

FIXTURES = Path(__file__).parent / "fixtures"
ECHO = Destination("tcp-echo.default", 9000)
TEXT = "tcp-echo.default:9000"
V1, V2 = "10.0.0.1:9000", "10.0.0.2:9000"
PODS = {"10.0.0.1": "one/True", "10.0.0.2": "two/True"}
BOTH = {"v1": True, "v2": True}


def captured(name: str) -> Any:
    return json.loads((FIXTURES / name).read_text())


def replica(v1: int, v2: int, name: str = "gw", **other: Any) -> Replica:
    counters = {"v1": {V1: Counters(v1)}, "v2": {V2: Counters(v2)}, "": {V1: Counters(), V2: Counters()}}
    since = dict.fromkeys(counters, "long ago")
    return Replica(name, other.pop("ready", True), other.pop("counters", counters), other.pop("since", since), **other)


def unread(name: str = "gw", ready: bool = True) -> Replica:
    return Replica(name, ready, error="gone away.")


def reading(second: int = 0, **replicas: Replica) -> Reading:
    return Reading(f"2026-11-24T05:00:{second:02}.000+00:00", TEXT, replicas, PODS)


def window(*readings: Reading, versions: dict[str, bool] | None = None) -> Window:
    found = Window(readings[0], BOTH if versions is None else versions)
    for later in readings[1:]:
        found.add(later)
    return found


def made(found: Window) -> dict[str, int]:
    return {subset: grown.made for subset, grown in found.growth().items() if subset}


def test_a_captured_page() -> None:
    assert read_counters(captured("clusters.json"), ECHO) == {
        "": {"10.244.0.7:9000": Counters(0, 0, 0), "10.244.0.27:9000": Counters(0, 0, 0)},
        "v1": {"10.244.0.7:9000": Counters(734, 0, 6)},
        "v2": {"10.244.0.27:9000": Counters(32, 0, 2)},
    }
    assert read_counters(captured("clusters.json"), Destination("kube-dns.kube-system", 53)).keys() == {""}
    assert read_counters(captured("clusters.json"), Destination("tcp-echo.default", 9001)) == {}


def test_a_captured_beginning() -> None:
    assert read_beginnings(captured("active_clusters.json"), Destination("tcp-echo.m-test", 9000)) == {
        "v1": "2026-11-24T02:50:52.763Z",
        "v2": "2026-11-24T02:50:52.764Z",
        "": "2026-11-24T02:50:52.762Z",
    }


def test_failures_and_ipv6_are_read() -> None:
    stats = [{"name": "cx_connect_fail", "value": "3"}, {"name": "cx_total", "value": "7"}, {"name": "cx_active"}]
    host = {"address": {"socket_address": {"address": "fd00::1", "port_value": 9000}}, "stats": stats}
    name = "outbound|9000|v1|tcp-echo.default.svc.cluster.local"
    page = {"cluster_statuses": [{"name": name, "host_statuses": [host]}, {"name": name.replace("v1", "v2")}]}
    assert read_counters(page, ECHO) == {"v1": {"[fd00::1]:9000": Counters(7, 3, 0)}, "v2": {}}


@pytest.mark.parametrize("page", [[], {"cluster_statuses": [{}]}, {"cluster_statuses": [7]}, {"cluster_statuses": 7}])
def test_another_page_is_an_error(page: Any) -> None:
    with pytest.raises((ValueError, TypeError, KeyError, AttributeError)):
        read_counters(page, ECHO)


def test_the_filter_takes_the_destination_alone() -> None:
    path, _sep, pattern = unquote(_sessions.counters_query(ECHO)).partition("filter=")
    assert path == "clusters?format=json&"
    assert pattern == r"outbound\|9000\|.*\|tcp\-echo\.default\..*"


def pod(ip: str = "10.0.0.1", ready: str = "True", since: str = "12:00", **metadata: Any) -> dict[str, Any]:
    status = {
        "podIP": ip,
        "conditions": [{"type": "Ready", "status": ready, "lastTransitionTime": since}],
        "containerStatuses": [{"restartCount": metadata.pop("restarts", 0)}],
        "initContainerStatuses": [{"restartCount": metadata.pop("sidecar", 0)}],
    }
    return {"metadata": {"name": "p", "uid": "u", **metadata}, "status": status}


def test_a_pod_has_one_life() -> None:
    lived = lives([pod()])
    assert lived.keys() == {"10.0.0.1"}
    assert lived == lives([pod(labels={"some": "label"})])
    others = [
        pod(uid="other"),
        pod(ready="False"),
        pod(since="12:01"),
        pod(restarts=1),
        pod(sidecar=1),
        pod(deletionTimestamp="now"),
        pod(labels={"istio-locality": "v2"}),
    ]
    assert all(lives([other]) != lived for other in others)
    assert lives([pod(), pod(uid="neighbour")]) == lives([pod(uid="neighbour"), pod()]) != lived


def test_a_pod_that_changed_while_it_was_read_is_like_no_other() -> None:
    assert steady({"a": "1", "b": "2"}, {"a": "1", "b": "3"}) == {"a": "1", "b": "2>3"}
    assert steady({"a": "1"}, {}) == {"a": "1>None"}
    assert steady(None, {}) is None
    assert steady({}, None) is None


@pytest.mark.parametrize(
    ("statuses", "runs"),
    [
        ([{"name": "istio-proxy", "state": {"running": {}}}], True),
        ([{"name": "istio-proxy", "state": {"waiting": {}}}, {"name": "other", "state": {"running": {}}}], False),
        ([], False),
    ],
)
def test_a_proxy_runs_or_has_counted_nothing(statuses: list[Any], runs: bool) -> None:
    assert proxy_runs({"metadata": {}, "status": {"containerStatuses": statuses}}) is runs


def test_a_reading_survives_json() -> None:
    first = reading(a=replica(1, 2), b=unread("other"))
    assert unpack(json.loads(json.dumps({"reading": pack(first), "more": 1})), TEXT) == first
    nobody = reading()._replace(pods=None)
    assert unpack({"reading": pack(nobody)}, TEXT) == nobody


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"reading": 7},
        {"reading": {**pack(reading()), "taken": "yesterday"}},
        {"reading": {**pack(reading()), "replicas": {"a": {}}}},
        {"reading": {**pack(reading(a=replica(1, 2))), "pods": [1]}},
    ],
)
def test_something_else_is_no_reading(given: Any) -> None:
    with pytest.raises(ValueError, match="since holds no reading: register what gateway_sessions returned"):
        unpack(given, TEXT)


def test_another_destination_is_not_compared() -> None:
    with pytest.raises(ValueError, match=r"since was read for tcp-echo\.default:9000, not for web\.default:80"):
        unpack({"reading": pack(reading())}, "web.default:80")


def test_growth_is_the_difference() -> None:
    found = window(reading(a=replica(10, 5)), reading(9, a=replica(90, 25)))
    assert made(found) == {"v1": 80, "v2": 20}
    assert (found.reason(), found.lost, found.settled, found.notes) == ("", False, True, {})


def test_failures_grow_and_what_is_open_is_counted_now() -> None:
    before = replica(0, 0, counters={"v1": {V1: Counters(10, 1, 7)}})
    after = replica(0, 0, counters={"v1": {V1: Counters(15, 3, 2)}})
    assert window(reading(a=before), reading(a=after), versions={}).growth() == {"v1": Counters(5, 2, 2)}


numbers = st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), min_size=1, max_size=5)


@given(st.lists(numbers, min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_sums_do_not_depend_on_the_readings_in_between(steps: list[list[tuple[int, int]]], random: Any) -> None:
    """`steps` has for each replica what it counted between two readings, of which some are left out."""
    rounds = max(map(len, steps))
    totals = [[added(*(Counters(*pair) for pair in own[:number])) for number in range(rounds + 1)] for own in steps]
    everything = [
        reading(**{f"r{i}": replica(own[number].made, own[number].failed) for i, own in enumerate(totals)})
        for number in range(rounds + 1)
    ]
    some = [everything[0], *(one for one in everything[1:-1] if random.random() < 0.5), everything[-1]]
    expected = added(*(Counters(*pair) for own in steps for pair in own))
    for readings in (everything, some, [everything[0], everything[-1]]):
        found = window(*readings)
        assert made(found) == {"v1": expected.made, "v2": expected.failed}
        assert not found.reason()


@given(st.permutations(["a", "b", "c"]), st.permutations(["a", "b", "c"]))
def test_the_order_of_replicas_does_not_matter(one: list[str], other: list[str]) -> None:
    before = {"a": replica(1, 2), "b": replica(3, 4), "c": replica(5, 6)}
    after = {"a": replica(11, 2), "b": replica(3, 24), "c": replica(35, 6)}
    found = window(reading(**{n: before[n] for n in one}), reading(**{n: after[n] for n in other}))
    assert made(found) == {"v1": 40, "v2": 20}


@given(
    st.lists(
        st.dictionaries(st.sampled_from("abc"), st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=3),
        min_size=1,
        max_size=6,
    )
)
def test_growth_is_never_negative_and_a_reset_is_never_silent(rounds: list[dict[str, tuple[int, int]]]) -> None:
    found = window(*(reading(**{n: replica(*pair) for n, pair in one.items()}) for one in rounds))
    assert all(min(grown) >= 0 for grown in found.growth().values())
    last: dict[str, tuple[int, int]] = {}
    fell = False
    for one in rounds:
        fell = fell or any(now[0] < last[n][0] or now[1] < last[n][1] for n, now in one.items() if n in last)
        last.update(one)
    assert bool(found.faults) is fell


def test_a_counter_that_went_down_is_refused() -> None:
    found = window(reading(a=replica(10, 5)), reading(a=replica(90, 4)))
    assert found.reason() == (
        f"the endpoint {V2} of v2 on the gateway replica gw left and came back: its counters went down"
    )
    assert found.settled
    found = window(reading(a=replica(10, 5)), reading(a=replica(90, 4)), reading(a=replica(990, 250)))
    assert "went down" in found.reason()


def test_an_endpoint_that_goes_is_refused_and_one_that_comes_counts_from_0() -> None:
    third = "10.0.0.3:9000"
    more = replica(0, 0, counters={"v1": {V1: Counters(20)}, "v2": {V2: Counters(9), third: Counters(3)}})
    found = window(reading(a=replica(10, 5)), reading(a=more), versions={})
    assert made(found) == {"v1": 10, "v2": 7}
    assert "was removed" in found.reason()  # the cluster without a subset
    found = window(reading(a=replica(10, 5)), reading(a=more))
    assert not found.reason()
    found.add(reading(a=replica(30, 15)))
    assert found.reason() == f"the endpoint {third} of v2 on the gateway replica gw has gone, with what it still got"


def test_without_versions_the_service_as_a_whole_counts_too() -> None:
    after = replica(0, 0, counters={"v1": {V1: Counters(20)}, "v2": {V2: Counters(9)}, "": {V1: Counters(8)}})
    found = window(reading(a=replica(10, 5)), reading(a=after), versions={})
    assert "of the Service without a version on" in found.reason()
    assert found.growth()[""].made == 8


def test_a_cluster_that_was_made_anew_is_refused() -> None:
    since = {"v1": "long ago", "v2": "just now"}
    found = window(reading(a=replica(10, 5)), reading(a=replica(90, 25, since=since)))
    assert (
        found.reason()
        == "the cluster of v2 on the gateway replica gw was removed or made anew, and its counters with it"
    )
    found = window(reading(a=replica(10, 5)), reading(a=replica(50, 15)), reading(a=replica(90, 25, since=since)))
    assert "made anew" in found.reason()


def test_a_pod_that_left_is_noticed_though_counters_grew() -> None:
    found = window(
        reading(a=replica(10, 5)), reading(a=replica(90, 25))._replace(pods={**PODS, "10.0.0.2": "two again"})
    )
    assert found.reason() == f"the pod of the endpoint {V2} of v2 left or came back"
    found = window(reading(a=replica(10, 5)), reading(a=replica(90, 25))._replace(pods={"10.0.0.1": "one/True"}))
    assert "left or came back" in found.reason()


@pytest.mark.parametrize("pods", [None, {}, {"10.0.0.1": "one/True"}])
def test_pods_that_cannot_be_seen_are_noted(pods: dict[str, str] | None) -> None:
    found = window(*(reading(a=replica(*counted))._replace(pods=pods) for counted in ((10, 5), (90, 25))))
    assert not found.reason()
    assert list(found.notes) == [
        "whether endpoints left and came back is not fully known, as not all are pods that can be seen"
    ]


def test_a_replica_that_comes_counts_from_0() -> None:
    found = window(reading(a=replica(10, 5)), reading(a=replica(50, 15), b=replica(40, 10, "new")))
    assert made(found) == {"v1": 80, "v2": 20}
    assert list(found.notes) == ["new started in the meantime and counts from 0"]
    assert not found.lost
    assert {name: growth["v1"].made for name, growth in found.growth_by_replica().items()} == {"a": 40, "b": 40}


def test_what_a_replica_counted_last_stands() -> None:
    open_ones = replica(0, 0, counters={"v1": {V1: Counters(50, 0, 4)}, "v2": {V2: Counters(15, 0, 4)}})
    found = window(reading(a=replica(10, 5), b=replica(0, 0)), reading(a=open_ones, b=replica(0, 0)))
    assert found.growth()["v1"].live == 4
    found.add(reading(b=replica(40, 10)))
    assert found.growth() == {"v1": Counters(80), "v2": Counters(20), "": Counters()}
    assert not found.reason()
    assert found.lost
    assert list(found.notes) == ["gw has gone, and what it counted last stands"]


def test_a_proxy_that_starts_anew_is_another_replica() -> None:
    found = window(reading(**{"u/0": replica(10, 5)}), reading(**{"u/1": replica(8, 2)}))
    assert made(found) == {"v1": 8, "v2": 2}
    assert not found.reason()
    assert found.lost


def test_a_replica_that_cannot_be_read_is_waited_for_and_then_refused() -> None:
    found = window(reading(a=replica(10, 5), b=replica(0, 0)), reading(a=replica(50, 15), b=unread("late")))
    assert not found.settled
    assert found.reason() == "the gateway replica late could not be read (gone away)"
    found.add(reading(a=replica(50, 15), b=replica(40, 10)))
    assert found.settled
    assert not found.reason()
    assert made(found) == {"v1": 80, "v2": 20}


def test_one_that_gets_no_connections_may_be_silent() -> None:
    found = window(reading(a=replica(10, 5), b=replica(0, 0)), reading(a=replica(50, 15), b=unread("old", False)))
    assert found.settled
    assert not found.reason()
    assert found.lost


def test_a_replica_not_read_at_the_beginning_is_never_counted_from_0() -> None:
    found = window(reading(a=replica(10, 5), b=unread("late")), reading(a=replica(50, 15), b=replica(999, 999)))
    assert made(found) == {"v1": 40, "v2": 10}
    assert found.reason() == "the gateway replica late could not be read at the beginning (gone away)"
    found = window(
        reading(a=replica(10, 5), b=unread("l", False)), reading(a=replica(50, 15), b=replica(999, 999, "l"))
    )
    assert made(found) == {"v1": 40, "v2": 10}
    assert not found.reason()
    assert found.lost
    assert list(found.notes) == ["l is left out, as it could not be read at the beginning"]


def test_a_version_without_endpoints_is_told_and_not_counted_from_the_middle() -> None:
    without = replica(0, 0, counters={"v1": {V1: Counters(10)}, "v2": {}})
    found = window(reading(a=without), reading(a=without))
    assert list(found.notes) == ["v2 has no endpoint on gw, and connections meant for it are not counted"]
    assert not found.reason()
    found.add(reading(a=replica(50, 3)))
    assert found.reason() == "v2 had no endpoint on the gateway replica gw for a time"
    # One that is to get nothing may be on its way.
    assert not window(reading(a=without), reading(a=replica(50, 0)), versions={"v1": True, "v2": False}).reason()


def test_faults_are_counted() -> None:
    found = window(reading(a=replica(10, 5)), reading(a=replica(1, 1)))
    assert found.reason().endswith("its counters went down (1 more like this)")


def test_evidence() -> None:
    growth = {"v1": Counters(80, 2), "v2": Counters(1, 3), "v3": Counters(5, 1), "": Counters(9)}
    assert evidence(growth, ["v1", "v2"]) == ({"v1": 78, "v2": 0}, {"connect_fail": 5, "unexpected": 5})
    assert evidence({"v1": Counters(), "v2": Counters()}, ["v1", "v2"]) == ({"v1": 0, "v2": 0}, {})


QUICK = ask({"v1": 80, "v2": 20}, "quick")


def grown(v1: int, v2: int, **other: Any) -> Window:
    return window(reading(a=replica(0, 0)), reading(9, a=replica(v1, v2, **other)))


def test_judgement() -> None:
    judged = judge(grown(800, 200), QUICK)
    assert (judged.verdict.verdict, judged.counts, judged.errors, judged.notes) == (
        "pass",
        {"v1": 800, "v2": 200},
        {},
        [],
    )
    assert "1000 connections: v1 800, v2 200" in judged.verdict.reason
    assert "probe" not in judged.verdict.reason
    assert judge(grown(200, 800), QUICK).verdict.verdict == "fail"
    assert judge(grown(8, 2), QUICK).verdict.verdict == "inconclusive"
    assert judge(grown(0, 0), QUICK).verdict.reason == "no connection was made"


def test_what_is_not_known_is_inconclusive_whatever_it_looks_like() -> None:
    for good in ((800, 200), (200, 800)):
        found = window(reading(a=replica(0, 0)), reading(a=replica(*good, since={"v1": "now"})))
        verdict = judge(found, QUICK).verdict
        assert (verdict.verdict, verdict.reason, verdict.more) == ("inconclusive", found.reason(), None)
        assert verdict.deviations == []


def test_failures_and_other_versions_are_errors() -> None:
    counters = {"v1": {V1: Counters(800, 1)}, "v2": {V2: Counters(200)}, "v3": {V2: Counters(7)}, "": {V1: Counters(4)}}
    judged = judge(grown(0, 0, counters=counters), QUICK)
    assert judged.verdict.verdict == "fail"
    assert "7 unexpected (v3 7), 1 connect_fail (v1 1)" in judged.verdict.reason
    assert (judged.errors, judged.details) == (
        {"connect_fail": 1, "unexpected": 7},
        {"connect_fail": "v1 1", "unexpected": "v3 7"},
    )
    assert judged.notes == [
        "4 connections went to the Service without a version, and are not judged",
        "when a connection fails, Envoy may drop others and use what it had begun for later ones, uncounted",
    ]
    assert judge(grown(0, 0, counters=counters), QUICK._replace(max_errors=8)).verdict.verdict == "pass"


def test_when_waiting_ends() -> None:
    def after(question: Any, *pair: int) -> bool:
        return decided(question, grown(*pair).growth())

    assert not after(QUICK, 8, 2)
    assert after(QUICK, 80, 920)
    assert after(QUICK, 850, 150)  # not settled, but max_probes are there
    fixed = ask({"v1": 80, "v2": 20}, "fixed", probes=100)
    assert not after(fixed, 0, 99)  # looks once
    assert after(fixed, 80, 20)


def test_counters_confirm_a_probe() -> None:
    found = grown(805, 200)
    assert covers(found.growth(), {"v1": 800, "v2": 200})
    agreement = agree(found, {"v1": 800, "v2": 200}, 0, QUICK)
    assert agreement == (
        True,
        "the gateway's replicas counted all 1000 connections of the probe, and 5 others",
        {"v1": 5, "v2": 0},
    )
    agreement = agree(found, {"v1": 800, "v2": 200}, 2)
    assert agreement.reason.endswith("and 5 others, of which up to 2 can be the probe's that got no answer")


def test_counters_deny_a_probe() -> None:
    found = grown(200, 800)
    assert not covers(found.growth(), {"v1": 800, "v2": 200})
    agreement = agree(found, {"v1": 800, "v2": 200}, 0)
    assert agreement == (
        False,
        "the probe counted 800 connections to v1, the gateway's replicas only 200: not all replies that are taken for "
        "v1's come from v1",
        {"v1": -600, "v2": 600},
    )
    agreement = agree(grown(0, 0), {"v1": 800, "v2": 200}, 0)
    assert agreement.agrees is False
    assert agreement.reason.endswith("at least 1000 of its 1000 connections did not go through these replicas")
    assert not covers({}, {"v1": 1})


def test_a_split_that_fails_denies_a_probe_that_passed() -> None:
    found = grown(800, 1200)
    agreement = agree(found, {"v1": 800, "v2": 200}, 0, QUICK)
    assert agreement.agrees is False
    assert agreement.reason.startswith(
        "the probe's connections were split as expected, all together are not: v1 got 40 %"
    )
    # A probe that failed is not denied by that.
    assert agree(found, {"v1": 800, "v2": 1200}, 0, QUICK).agrees
    assert agree(found, {"v1": 800, "v2": 200}, 1, QUICK).agrees
    # Nor does the gateway have to come to a verdict of its own.
    assert agree(grown(870, 200), {"v1": 800, "v2": 200}, 0, QUICK).agrees


def test_what_is_not_known_neither_confirms_nor_denies() -> None:
    lost = window(reading(a=replica(0, 0), b=replica(0, 0, "gone")), reading(a=replica(400, 100)))
    agreement = agree(lost, {"v1": 800, "v2": 200}, 0)
    assert agreement.agrees is None
    assert agreement.reason.endswith("but theirs need not be all: gone has gone, and what it counted last stands")
    assert agree(lost, {"v1": 400, "v2": 100}, 0).agrees  # whatever is missing could only add to it
    refused = window(reading(a=replica(9, 9)), reading(a=replica(800, 1)))
    agreement = agree(refused, {"v1": 1}, 0)
    assert agreement.agrees is None
    assert agreement.reason == f"the counters cannot confirm what the probe counted: {refused.reason()}"


def test_connections_that_were_left_over_may_be_missing() -> None:
    before = replica(0, 0, counters={"v1": {V1: Counters(50, 0, 9)}, "v2": {V2: Counters(50, 1, 2)}})
    after = replica(0, 0, counters={"v1": {V1: Counters(130, 0, 0)}, "v2": {V2: Counters(68, 1, 0)}})
    found = window(reading(a=before), reading(a=after))
    agreement = agree(found, {"v1": 80, "v2": 20}, 0)
    assert agreement.agrees is None
    assert agreement.reason.endswith("but 2 that were left over from failed attempts can have been used again")
    assert agree(found, {"v1": 80, "v2": 21}, 0).agrees is False
    assert agree(found, {"v1": 81, "v2": 18}, 0).agrees is False


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def sleep(self, seconds: float) -> None:
        assert 0 <= seconds <= _gateway.LONGEST_PAUSE
        self.now += seconds


def test_reading_ends_when_it_is_enough_or_the_time_is_over() -> None:
    clock = Clock()
    timing: dict[str, Any] = {"clock": lambda: clock.now, "sleep": clock.sleep}
    assert repeat(reading, lambda _reading: True, 0, **timing) == reading()
    assert clock.now == 100
    assert repeat(reading, lambda _reading: False, 0, **timing) == reading()
    assert clock.now == 100
    repeat(reading, lambda _reading: False, 5, **timing)
    assert clock.now == pytest.approx(105)
    repeat(reading, lambda _reading: clock.now > 107, 5, **timing)
    assert clock.now < 109


def test_a_short_trouble_is_waited_out() -> None:
    clock = Clock()

    def read() -> Reading:
        if clock.now < 102:
            raise TimeoutError("busy")
        return reading()

    timing: dict[str, Any] = {"clock": lambda: clock.now, "sleep": clock.sleep}
    assert repeat(read, lambda _reading: True, 10, **timing) == reading()
    clock.now = 90.0
    with pytest.raises(TimeoutError, match="busy"):
        repeat(read, lambda _reading: True, 5, **timing)
    with pytest.raises(TimeoutError, match="busy"):
        repeat(read, lambda _reading: True, 0, **timing)


def test_what_people_read_is_bounded() -> None:
    hosts = {f"10.0.0.{number}:9000": Counters(1, 1, 1) for number in range(30)}
    many = {f"i{number}": replica(0, 0, f"gw-{number:02}", counters={"v1": hosts}) for number in range(30)}
    shown = _sessions.shown_replicas(reading(**many, dead=unread("a")))
    assert [entry["name"] for entry in shown] == ["a", *(f"gw-{number:02}" for number in range(9))]
    assert shown[0]["subsets"] is None
    assert shown[1]["subsets"]["v1"]["cx_total"] == 30
    assert len(shown[1]["subsets"]["v1"]["endpoints"]) == _sessions.SHOWN
    assert _sessions.totals(reading(**many, dead=unread())) == {
        "v1": {"cx_total": 900, "cx_connect_fail": 900, "cx_active": 900}
    }


def by_endpoints(v1: int | None, v2: int | None, since: str = "long ago") -> Replica:
    """Return a replica as it is read with the method endpoints: one cluster, and versions with an endpoint."""
    hosts = {"v1": {V1: Counters(v1 or 0)}, "v2": {V2: Counters(v2 or 0)}}
    gone = {version for version, number in (("v1", v1), ("v2", v2)) if number is None}
    counters = {"": {}, **{version: found for version, found in hosts.items() if version not in gone}}
    return Replica("gw", True, counters, {"": since, "v1": "earlier"})


def endpoints_window(*replicas: Replica) -> Window:
    return window(*(reading(at, gw=replica)._replace(method="endpoints") for at, replica in enumerate(replicas)))


def test_localities_tell_versions_apart() -> None:
    page = captured("clusters_by_locality.json")
    found = read_counters(page, Destination("tcp-echo.m-test", 9000), "endpoints")
    assert found.keys() == {"", "v1", "v2"}
    assert found[""] == {}
    assert all(counters.made > 0 for hosts in (found["v1"], found["v2"]) for counters in hosts.values())
    by_route = read_counters(page, Destination("tcp-echo.m-test", 9000))
    assert by_route[""] == {**found["v1"], **found["v2"]}


def test_growth_by_endpoints() -> None:
    found = endpoints_window(by_endpoints(0, 0), by_endpoints(80, 20))
    assert (made(found), found.reason()) == ({"v1": 80, "v2": 20}, "")
    assert "" not in found.growth()
    assert _sessions.totals(found.now).keys() == {"v1", "v2"}
    assert _sessions.shown_replicas(found.now)[0]["subsets"].keys() == {"v1", "v2"}


def test_a_version_that_left_is_told_by_its_endpoint() -> None:
    """Envoy forgets the endpoints of a locality without weight, and what they counted."""
    found = endpoints_window(by_endpoints(0, 5), by_endpoints(80, None))
    assert f"the endpoint {V2} of v2 on the gateway replica gw has gone" in found.reason()
    assert any("v2 has no endpoint on gw, and others get its share" in note for note in found.notes)


def test_a_cluster_of_all_versions_that_was_made_anew() -> None:
    found = endpoints_window(by_endpoints(0, 0), by_endpoints(80, 20, since="now"))
    assert "was removed or made anew" in found.reason()


def test_a_reading_by_the_other_method_is_refused() -> None:
    packed = {"reading": pack(reading(gw=replica(1, 1)))}
    with pytest.raises(ValueError, match="since was read with the method route, not with endpoints"):
        unpack(packed, TEXT, "endpoints")
    again = {"reading": pack(reading(gw=replica(1, 1))._replace(method="endpoints"))}
    assert unpack(again, TEXT, "endpoints").method == "endpoints"
