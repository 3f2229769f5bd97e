# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What gateway replicas say of themselves, and the waiting for them, with a clock that is turned by hand."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from ansible_collections.trafficshift.istio.plugins.module_utils import _gateway
from ansible_collections.trafficshift.istio.plugins.module_utils._gateway import (
    Destination,
    Endpoints,
    Listener,
    Outcome,
    Replica,
    Wanted,
    describe_advice,
    describe_lag,
    describe_success,
    judge_replica,
    listener_port,
    locality_name,
    read_clusters,
    read_endpoints,
    read_listener,
    same_weights,
    wait_for_replicas,
)
from hypothesis import given
from hypothesis import strategies as st

FIXTURES = Path(__file__).parent / "fixtures"
ECHO = Destination("tcp-echo.m-test", 9000)
TCP_PROXY = "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy"


def captured(name: str) -> Any:
    return json.loads((FIXTURES / name).read_text())


def dump(*chains: dict[str, Any], name: str = "0.0.0.0_31400", **states: Any) -> dict[str, Any]:
    filters = [{"filters": [{"name": "x", "typed_config": {"@type": TCP_PROXY, **chain}}]} for chain in chains]
    return {"configs": [{"name": name, "active_state": {"listener": {"filter_chains": filters}}, **states}]}


def weighted(**weights: int) -> dict[str, Any]:
    clusters = [
        {"name": f"outbound|9000|{name}|tcp-echo.m-test.svc.cluster.local", "weight": weight}
        for name, weight in weights.items()
    ]
    return {"weighted_clusters": {"clusters": clusters}}


def test_a_captured_configuration() -> None:
    assert read_listener(captured("listeners_80_20.json"), 31777, ECHO) == Listener([{"v1": 80, "v2": 20}], False, "")
    assert read_listener(captured("listeners_80_20.json"), 1777, ECHO) == Listener([], False, "")
    assert read_clusters(captured("active_clusters.json"), ECHO) == ["v1", "v2"]
    assert read_clusters(captured("active_clusters.json"), Destination("tcp-echo.m-test", 9001)) == []


@pytest.mark.parametrize("host", ["tcp-echo.m-test", "tcp-echo.m-test.svc", "tcp-echo.m-test.svc.example.org"])
def test_the_clusters_domain_does_not_matter(host: str) -> None:
    assert read_listener(dump(weighted(v1=100)), 31400, Destination(host, 9000)).routes == [{"v1": 100}]


def test_a_single_destination_has_everything() -> None:
    single = {"cluster": "outbound|9000|v1|tcp-echo.m-test.svc.cluster.local"}
    assert read_listener(dump(single), 31400, ECHO).routes == [{"v1": 100}]


def test_another_service_goes_by_its_whole_name() -> None:
    other = "outbound|9000|v1|other.m-test.svc.cluster.local"
    assert read_listener(dump({"cluster": other}), 31400, ECHO).routes == [{other: 100}]
    assert read_listener(dump({"cluster": "BlackHoleCluster"}), 31400, ECHO).routes == [{"BlackHoleCluster": 100}]


def test_of_several_chains_the_destinations_counts() -> None:
    other = {"cluster": "outbound|443||web.m-test.svc.cluster.local"}
    nowhere = {"cluster": "BlackHoleCluster"}
    for chains in ((other, weighted(v1=100), nowhere), (nowhere, weighted(v1=100), other)):
        assert read_listener(dump(*chains), 31400, ECHO).routes == [{"v1": 100}]


def test_every_way_to_the_destination_counts() -> None:
    wanted = Wanted({"v1": 80, "v2": 20}, [])
    new, old = weighted(v1=80, v2=20), weighted(v1=100)
    for chains in ((new, old), (old, new)):
        replica = judge_replica("a", read_listener(dump(*chains), 31400, ECHO), None, wanted)
        assert (replica.ok, replica.weights) == (False, {"v1": 100})
    second = dump(old, name="[::]_31400")
    both = {"configs": [*dump(new)["configs"], *second["configs"]]}
    assert not judge_replica("a", read_listener(both, 31400, ECHO), None, wanted).ok
    assert judge_replica("a", read_listener(dump(new, new), 31400, ECHO), None, wanted).ok


def test_other_ports_are_not_looked_at() -> None:
    assert read_listener(dump(weighted(v1=100), name="0.0.0.0_1400"), 31400, ECHO).routes == []
    assert read_listener(dump(weighted(v1=100), name="0.0.0.0_31400"), 1400, ECHO).routes == []


def test_a_newer_configuration_that_is_not_in_use_is_seen() -> None:
    listener = read_listener(dump(weighted(v1=100), warming_state={"listener": {}}), 31400, ECHO)
    assert listener.warming
    assert not judge_replica("a", listener, None, Wanted({"v1": 100}, [])).ok


def test_a_refused_configuration_says_why() -> None:
    refused = dump(weighted(v1=100), error_state={"details": "no such filter"})
    assert read_listener(refused, 31400, ECHO).error == "no such filter"


KEYS = ("filter_chains", "filters", "typed_config", "weighted_clusters", "clusters", "cluster", "name", "weight")
json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.sampled_from(["_31400", TCP_PROXY])),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(KEYS), inner, max_size=3)),
    max_leaves=10,
)
odd_dumps = st.one_of(
    json_values,
    st.builds(lambda listener: dump() | {"configs": [{"name": "_31400", "active_state": listener}]}, json_values),
    st.builds(lambda chain: dump({"weighted_clusters": chain}), json_values),
)


@given(odd_dumps)
def test_any_json_is_read_without_surprise(anything: Any) -> None:
    read = read_listener(anything, 31400, ECHO)
    assert not any(route.keys() & {"v1", "v2"} for route in read.routes)
    assert read_clusters(anything, ECHO) == []


@given(st.dictionaries(st.sampled_from(["v1", "v2", "v3"]), st.integers(0, 100), min_size=1), st.integers(1, 7))
def test_weights_are_compared_as_percentages(weights: dict[str, int], factor: int) -> None:
    total = sum(weights.values())
    scaled = {name: weight * factor for name, weight in weights.items()}
    read = next(iter(read_listener(dump(weighted(**scaled)), 31400, ECHO).routes), {})
    assert same_weights(read, {name: 100 * weight / total for name, weight in weights.items() if weight}) or not total
    assert not read or abs(sum(read.values()) - 100) < 1e-4


@pytest.mark.parametrize(
    ("has", "wanted", "ok"),
    [
        ({"v1": 80, "v2": 20}, {"v1": 80, "v2": 20}, True),
        ({"v1": 100}, {"v1": 100, "v2": 0}, True),
        ({"v1": 100}, {"v1": 80, "v2": 20}, False),
        ({"v1": 81, "v2": 19}, {"v1": 80, "v2": 20}, False),
        ({"v1": 100}, {}, False),
        ({}, {}, True),
        ({"v1": 80, "outbound|1||x.y": 20}, {"v1": 80, "v2": 20}, False),
        ({"v1": 80, "v2": 20}, None, True),
    ],
)
def test_a_replica_has_exactly_what_is_wanted(has: Any, wanted: Any, ok: bool) -> None:
    assert judge_replica("a", Listener([has] if has else [], False, ""), None, Wanted(wanted, [])).ok is ok


@pytest.mark.parametrize(
    ("known", "ok"), [(["v1", "v2"], True), (["v1", "v2", "v3"], True), (["v1"], False), ([], False)]
)
def test_a_replica_knows_the_versions(known: list[str], ok: bool) -> None:
    assert judge_replica("a", None, known, Wanted(None, ["v1", "v2"])).ok is ok


@pytest.mark.parametrize(
    ("ports", "found"),
    [
        ([{"port": 31400, "targetPort": 8400}], 8400),
        ([{"port": 31400, "targetPort": "echo"}], 9400),
        ([{"port": 31400}], 31400),
        ([{"port": 80, "targetPort": 8080}], 31400),
        ([], 31400),
    ],
)
def test_the_pods_port_is_the_services_target(ports: list[Any], found: int) -> None:
    pod = {"spec": {"containers": [{"ports": [{"name": "echo", "containerPort": 9400}, {"containerPort": 1}]}]}}
    assert listener_port({"spec": {"ports": ports}}, 31400, pod) == found
    assert listener_port(None, 31400, pod) == 31400


class World:
    """A cluster and a clock: each pod gets the route at its own time, and time only passes while one sleeps."""

    def __init__(self, **ready_at: float) -> None:
        self.now = 100.0
        self.ready_at = ready_at
        self.restarts: dict[str, int] = {}
        self.asked: list[list[str]] = []
        self.at: dict[float, Callable[[], None]] = {}

    def sleep(self, seconds: float) -> None:
        assert 0 <= seconds <= _gateway.LONGEST_PAUSE
        self.now += seconds
        for when in [when for when in self.at if when <= self.now - 100]:
            self.at.pop(when)()

    def pods(self) -> list[dict[str, Any]]:
        return [
            {
                "metadata": {"name": name, "uid": name},
                "status": {"containerStatuses": [{"name": "istio-proxy", "restartCount": self.restarts.get(name, 0)}]},
            }
            for name in self.ready_at
        ]

    def ask(self, pods: Sequence[Any]) -> list[Replica]:
        names = [pod["metadata"]["name"] for pod in pods]
        self.asked.append(names)
        return [Replica(name, self.now - 100 >= self.ready_at[name], {}) for name in names]

    def wait(self, timeout: float = 10, **options: Any) -> Outcome:
        return wait_for_replicas(self.pods, self.ask, timeout, clock=lambda: self.now, sleep=self.sleep, **options)


def test_all_at_once() -> None:
    outcome = World(a=0, b=0).wait()
    assert (outcome.converged, outcome.rounds) == (True, 1)


def test_only_those_that_lag_are_asked_again() -> None:
    world = World(a=0, b=3)
    assert world.wait().converged
    assert world.asked[0] == ["a", "b"]
    assert all(names == ["b"] for names in world.asked[1:])
    assert 103 <= world.now <= 104


def test_the_time_runs_out() -> None:
    world = World(a=0, b=99)
    outcome = world.wait(timeout=5)
    assert not outcome.converged
    assert world.now == pytest.approx(105)
    assert [(replica.name, replica.ok) for replica in outcome.replicas] == [("a", True), ("b", False)]


def test_without_waiting_one_look_is_taken() -> None:
    world = World(a=99)
    assert world.wait(timeout=0) == Outcome([Replica("a", False, {})], False, 1)
    assert world.now == 100


def test_a_replica_that_comes_later_counts() -> None:
    world = World(a=0, b=2)
    world.at[1] = lambda: world.ready_at.update(c=4)
    outcome = world.wait()
    assert outcome.converged
    assert [replica.name for replica in outcome.replicas] == ["a", "b", "c"]


def test_a_replica_that_goes_is_not_waited_for() -> None:
    world = World(a=0, b=99)
    world.at[1] = lambda: world.ready_at.__delitem__("b")
    outcome = world.wait()
    assert outcome.converged
    assert [replica.name for replica in outcome.replicas] == ["a"]


def test_a_replica_that_starts_anew_is_asked_again() -> None:
    world = World(a=0, b=2)

    def restart() -> None:
        world.restarts["a"] = 1
        world.ready_at["a"] = 5

    world.at[1] = restart
    assert world.wait().converged
    assert world.now >= 105


def test_no_replica_is_no_success_unless_none_is_needed() -> None:
    assert not World().wait(timeout=1).converged
    assert World().wait(timeout=1, needed=False).converged


def test_a_short_trouble_is_waited_out() -> None:
    world = World(a=0)
    troubled = world.pods

    def pods() -> list[dict[str, Any]]:
        if world.now < 102:
            raise TimeoutError("busy")
        return troubled()

    world.pods = pods  # type: ignore[method-assign]
    assert world.wait().converged
    world.now = 90.0
    with pytest.raises(TimeoutError, match="busy"):
        world.wait(timeout=5)


def test_what_is_missing_is_said() -> None:
    wanted = Wanted({"v1": 80, "v2": 20}, [])
    lagging = Replica("gw-b", False, {"v1": 100})
    outcome = Outcome([Replica("gw-a", True, {"v1": 80, "v2": 20}), lagging], False, 9)
    assert (
        describe_lag(outcome, wanted, 31400, "a=b")
        == "The gateway replica gw-b has v1 100 on port 31400, not v1 80 / v2 20"
    )
    outcome = Outcome([lagging, lagging._replace(warming=True)], False, 9)
    assert describe_lag(outcome, wanted, 31400, "a=b").endswith("(1 other of 2 too)")
    outcome = Outcome([lagging._replace(warming=True, error="bad.")], False, 9)
    assert "a newer one that is not in use yet, after it refused the latest (bad)" in describe_lag(
        outcome, wanted, 1, ""
    )
    outcome = Outcome([Replica("gw-a", False, error="gone.")], False, 9)
    assert describe_lag(outcome, wanted, 31400, "") == "The gateway replica gw-a could not be asked (gone)"
    outcome = Outcome([Replica("gw-a", False, None, ["v1"])], False, 9)
    assert describe_lag(outcome, Wanted(None, ["v1", "v2"]), 1, "") == "The gateway replica gw-a does not know v2 yet"
    assert describe_lag(Outcome([], False, 9), wanted, 1, "a=b") == "No gateway replica with a=b is ready"


def test_what_was_seen_is_said() -> None:
    one = Outcome([Replica("gw-a", True, {"v1": 80, "v2": 20})], True, 1)
    assert describe_success(one, Wanted({}, []), 31400) == "The only gateway replica has v1 80 / v2 20 on port 31400"
    two = Outcome([Replica("a", True, {}, ["v1"]), Replica("b", True, {}, ["v1"])], True, 1)
    assert (
        describe_success(two, Wanted({}, ["v1"]), 1)
        == "All 2 gateway replicas have no route on port 1 and the versions v1"
    )
    assert "none has a route" in describe_success(Outcome([], True, 1), Wanted({}, []), 1)


WHOLE = "outbound|9000||tcp-echo.m-test.svc.cluster.local"


def locality(name: str, weight: int, *health: str, **more: Any) -> dict[str, Any]:
    endpoints = [{"endpoint": {}, **({"health_status": state} if state else {})} for state in health]
    return {"locality": {"region": name}, "load_balancing_weight": weight, "lb_endpoints": endpoints, **more}


def endpoint_dumps(*localities: dict[str, Any], weighted: bool = True, cluster: str = WHOLE) -> tuple[Any, Any]:
    config = {"locality_weighted_lb_config": {}} if weighted else {"healthy_panic_threshold": {}}
    return (
        {"configs": [{"endpoint_config": {"cluster_name": cluster, "endpoints": list(localities)}}]},
        {"configs": [{"cluster": {"name": cluster, "common_lb_config": config}}]},
    )


def test_captured_endpoints() -> None:
    dumps = captured("endpoints_80_20.json"), captured("weighting.json")
    assert read_endpoints(*dumps, ECHO) == Endpoints({"v1": 80, "v2": 20}, True)
    assert read_endpoints(*dumps, Destination("tcp-echo.m-test", 9001)) == Endpoints({}, False)


def test_the_queries_take_the_service_as_a_whole() -> None:
    for query in (_gateway.endpoints_query(ECHO), _gateway.weighting_query(ECHO)):
        pattern = unquote(query).partition("name_regex=")[2].partition("&")[0]
        assert re.fullmatch(pattern, WHOLE)
        assert not re.fullmatch(pattern, WHOLE.replace("||", "|v1|"))
        assert not re.fullmatch(pattern, WHOLE.replace("m-test", "other"))


@pytest.mark.parametrize(
    ("localities", "weights"),
    [
        ([locality("v1", 80, "HEALTHY"), locality("v2", 20, "")], {"v1": 80, "v2": 20}),
        ([locality("v1", 80, "HEALTHY"), locality("v2", 20, "UNHEALTHY", "DRAINING")], {"v1": 80}),
        ([locality("v1", 80, "HEALTHY"), locality("v2", 20)], {"v1": 80}),
        ([locality("v1", 80, "HEALTHY"), locality("v2", 20, "HEALTHY", priority=1)], {"v1": 80}),
        ([locality("v1", 40, "HEALTHY"), locality("v1", 40, "HEALTHY")], {"v1": 80}),
        ([], {}),
    ],
)
def test_only_endpoints_that_take_connections_count(localities: list[Any], weights: dict[str, int]) -> None:
    assert read_endpoints(*endpoint_dumps(*localities), ECHO) == Endpoints(weights, True)


def test_other_clusters_say_nothing_of_the_whole() -> None:
    for cluster in (WHOLE.replace("||", "|v1|"), WHOLE.replace("m-test", "other")):
        dumps = endpoint_dumps(locality("v1", 1, "HEALTHY"), cluster=cluster)
        assert read_endpoints(*dumps, ECHO) == Endpoints({}, False)


@given(odd_dumps, odd_dumps)
def test_any_json_is_read_as_endpoints_without_surprise(one: Any, other: Any) -> None:
    assert isinstance(read_endpoints(one, other, ECHO).weights, dict)


@pytest.mark.parametrize(
    ("given", "name"),
    [({"region": "v1"}, "v1"), ({"region": "r", "zone": "z", "sub_zone": "s"}, "r/z/s"), ({}, ""), (None, "")],
)
def test_a_locality_has_one_name(given: Any, name: str) -> None:
    assert locality_name(given) == name


BY_ENDPOINTS = Wanted({"v1": 80, "v2": 20, "v3": 0}, [], "endpoints")
TO_WHOLE = Listener([{"": 100}], False, "")


def by_endpoints(endpoints: Endpoints | None, listener: Listener | None = TO_WHOLE, wanted: Any = None) -> Replica:
    return judge_replica("a", listener, None, wanted or BY_ENDPOINTS, endpoints)


@pytest.mark.parametrize(
    ("endpoints", "listener", "expected"),
    [
        (Endpoints({"v1": 80, "v2": 20}, True), TO_WHOLE, (True, {"v1": 80, "v2": 20}, "endpoints", [])),
        (Endpoints({"v1": 50, "v2": 50}, True), TO_WHOLE, (False, {"v1": 50, "v2": 50}, "endpoints", [])),
        (Endpoints({"v1": 80, "v2": 20, "v3": 1}, True), TO_WHOLE, (False, None, "endpoints", [])),
        # The weights are there and v2 is not; another weight of v1 is another configuration.
        (Endpoints({"v1": 80}, True), TO_WHOLE, (False, {"v1": 100}, "endpoints", ["v2"])),
        (Endpoints({"v1": 100}, True), TO_WHOLE, (False, {"v1": 100}, "endpoints", [])),
        (Endpoints({}, True), TO_WHOLE, (False, {}, "endpoints", ["v1", "v2"])),
        # Without the setting Envoy does not look at the weights.
        (Endpoints({"v1": 80, "v2": 20}, False), TO_WHOLE, (False, {"": 100}, None, [])),
        # The same numbers in the other place.
        (
            Endpoints({"v1": 80, "v2": 20}, True),
            Listener([{"v1": 80, "v2": 20}], False, ""),
            (False, {"v1": 80, "v2": 20}, "route", []),
        ),
        (Endpoints({"v1": 80, "v2": 20}, True), TO_WHOLE._replace(warming=True), (False, None, "endpoints", [])),
        (None, Listener([], False, ""), (False, {}, None, [])),
    ],
)
def test_a_replica_has_exactly_the_weights_of_endpoints(
    endpoints: Endpoints | None, listener: Listener, expected: tuple[Any, ...]
) -> None:
    replica = by_endpoints(endpoints, listener)
    ok, weights, method, missing = expected
    assert (replica.ok, replica.method, replica.missing) == (ok, method, missing)
    assert weights is None or replica.weights == weights


def test_a_route_that_lags_hides_behind_no_other() -> None:
    listener = Listener([{"": 100}, {"v1": 100}], False, "")
    assert not by_endpoints(Endpoints({"v1": 80, "v2": 20}, True), listener).ok


def test_endpoints_are_known_ahead_of_the_route() -> None:
    wanted = Wanted(None, [], "route", {"v1": 80, "v2": 20})
    assert by_endpoints(Endpoints({"v1": 80, "v2": 20}, True), None, wanted).ok
    late = by_endpoints(Endpoints({"v1": 1, "v2": 1}, False), None, wanted)
    assert not late.ok
    said = describe_lag(Outcome([late], False, 1), wanted, 31400, "istio=x")
    assert said.endswith("a has (all versions) 100 on port 31400, not v1 80 / v2 20 by the weights of endpoints")


def test_no_route_is_wanted_whatever_the_method() -> None:
    wanted = Wanted({}, [], "endpoints")
    assert by_endpoints(None, Listener([], False, ""), wanted).ok
    left = by_endpoints(Endpoints({"v1": 80, "v2": 20}, True), TO_WHOLE, wanted)
    assert not left.ok
    said = describe_lag(Outcome([left], False, 1), wanted, 31400, "istio=x")
    assert said == "The gateway replica a has v1 80 / v2 20 on port 31400, not no route"


@pytest.mark.parametrize(
    ("endpoints", "listener", "said", "advice"),
    [
        (
            Endpoints({"v1": 80}, True),
            TO_WHOLE,
            "The gateway replica a has the weights, but no ready endpoint of v2, so that the others get its share",
            "look at the pods of v2, whether they are ready and have the label istio-locality",
        ),
        (Endpoints({}, True), TO_WHOLE, "no ready endpoint of v1, v2", "look at the pods of v1, v2,"),
        (
            Endpoints({"v1": 80, "v2": 20}, True),
            Listener([{"v1": 80, "v2": 20}], False, ""),
            "has v1 80 / v2 20 by its route on port 31400, not v1 80 / v2 20 by the weights of endpoints",
            "look at istioctl proxy-status",
        ),
        (
            Endpoints({"v1": 100}, True),
            TO_WHOLE,
            "has v1 100 by the weights of endpoints on port 31400, not v1 80 / v2 20 by the weights of endpoints",
            "look at istioctl proxy-status",
        ),
    ],
)
def test_what_endpoints_lack_is_said(endpoints: Endpoints, listener: Listener, said: str, advice: str) -> None:
    outcome = Outcome([by_endpoints(endpoints, listener)], False, 1)
    assert said in describe_lag(outcome, BY_ENDPOINTS, 31400, "istio=x")
    assert describe_advice(outcome).startswith(advice)


def test_weights_of_endpoints_are_told_apart() -> None:
    replica = by_endpoints(Endpoints({"v1": 80, "v2": 20}, True))
    said = describe_success(Outcome([replica], True, 1), BY_ENDPOINTS, 31400)
    assert said == "The only gateway replica has v1 80 / v2 20 by the weights of endpoints on port 31400"
