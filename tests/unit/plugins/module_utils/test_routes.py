# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The route's objects: valid weights, nobody else's parts touched, the same again on a second run."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from ansible_collections.trafficshift.istio.plugins.module_utils._routes import (
    LOCALITIES_ANNOTATION,
    MANAGED_BY,
    MANAGED_BY_LABEL,
    METHODS,
    SUBSETS_ANNOTATION,
    UNWEIGHTED_ANNOTATION,
    tcp_route_live,
    tcp_route_objects,
    tcp_route_removal,
    tcp_route_switch,
    tcp_route_weights,
    validate_weights,
)
from hypothesis import given
from hypothesis import strategies as st

SPEC: dict[str, Any] = {
    "name": "tcp-echo",
    "namespace": "default",
    "service": "tcp-echo",
    "service_port": 9000,
    "versions": {"v1": {"version": "v1"}, "v2": {"version": "v2"}},
    "weights": {"v1": 80, "v2": 20},
    "gateway_name": "tcp-echo-gateway",
    "gateway_port": 31400,
    "gateway_selector": {"istio": "ingressgateway"},
}
FOREIGN_TCP = {"match": [{"port": 5432}], "route": [{"destination": {"host": "db"}}]}


def store(objects: list[dict[str, Any]], before: list[dict[str, Any]] | None = None) -> list[dict[str, Any]]:
    """Do what the API server does with a merge patch."""

    def merge(old: Any, new: Any) -> Any:
        if not isinstance(new, dict):
            return copy.deepcopy(new)
        old = old if isinstance(old, dict) else {}
        merged = {**old, **{key: merge(old.get(key), value) for key, value in new.items()}}
        return {key: value for key, value in merged.items() if value is not None}

    def key(item: dict[str, Any]) -> tuple[str, str]:
        return item["kind"], item["metadata"]["name"]

    stored = {key(item): item for item in before or []}
    for item in objects:
        stored[key(item)] = merge(stored.get(key(item)), item)
    return list(stored.values())


def remove(spec: dict[str, Any], live: list[dict[str, Any]]) -> list[dict[str, Any]]:
    for step in tcp_route_removal(spec, live):
        if step["state"] == "absent":
            gone = (step["definition"]["kind"], step["definition"]["metadata"]["name"])
            live = [item for item in live if (item["kind"], item["metadata"]["name"]) != gone]
        else:
            live = store([step["definition"]], live)
    return live


def made() -> list[dict[str, Any]]:
    """Return the route's objects as the collection makes them where nothing is."""
    return store(tcp_route_objects(SPEC))


def by_kind(objects: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {item["kind"]: item for item in objects}


def live_object(kind: str, name: str, spec: dict[str, Any], **metadata: Any) -> dict[str, Any]:
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": kind,
        "metadata": {"name": name, "namespace": "default", **metadata},
        "spec": spec,
    }


def test_the_written_tasks_route() -> None:
    objects = tcp_route_objects(SPEC)
    assert [item["kind"] for item in objects] == ["DestinationRule", "Gateway", "VirtualService"]
    assert [item["metadata"]["name"] for item in objects] == ["tcp-echo-destination", "tcp-echo-gateway", "tcp-echo"]
    assert all(item["metadata"]["labels"] == {MANAGED_BY_LABEL: MANAGED_BY} for item in objects)
    assert objects[0]["spec"] == {
        "host": "tcp-echo",
        "subsets": [{"name": "v1", "labels": {"version": "v1"}}, {"name": "v2", "labels": {"version": "v2"}}],
    }
    assert objects[1]["spec"] == {
        "selector": {"istio": "ingressgateway"},
        "servers": [{"port": {"number": 31400, "name": "tcp", "protocol": "TCP"}, "hosts": ["*"]}],
    }
    destination = {"host": "tcp-echo", "port": {"number": 9000}}
    assert objects[2]["spec"] == {
        "hosts": ["*"],
        "gateways": ["tcp-echo-gateway"],
        "tcp": [
            {
                "match": [{"port": 31400}],
                "route": [
                    {"destination": {**destination, "subset": "v1"}, "weight": 80},
                    {"destination": {**destination, "subset": "v2"}, "weight": 20},
                ],
            }
        ],
    }


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"v1": 80, "v2": 30}, r"The weights add up to 110, not to 100 \(80 \+ 30\)\."),
        ({"v1": 0}, r"The weights add up to 0, not to 100 \(0\)\."),
        ({"v1": 80, "v3": 20}, r"weights names v3, but versions only knows v1, v2\."),
        ({"v1": 100.0}, r"The weight of v1 is 100\.0, not a whole number"),
        ({"v1": True, "v2": 99}, r"The weight of v1 is True, not a whole number"),
        ({"v1": 120, "v2": -20}, r"The weight of v1 is 120, not a whole number from 0 to 100\."),
        ({"v1": "all"}, r"The weight of v1 is 'all', not"),
        ({"v1": None}, r"The weight of v1 is None, not"),
        ({}, r"weights names no version"),
        ([80, 20], r"weights names no version"),
    ],
)
def test_wrong_weights_get_one_sentence(weights: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        validate_weights(weights, SPEC["versions"])


def test_weights_are_completed_in_the_order_of_the_versions() -> None:
    assert list(validate_weights({"v2": "30", "v1": 70}, {"v1": 1, "v2": 1, "v3": 1}).items()) == [
        ("v1", 70),
        ("v2", 30),
        ("v3", 0),
    ]


@given(st.dictionaries(st.sampled_from(["v1", "v2", "v3", "v4"]), st.integers(-5, 105)))
def test_weights_are_taken_exactly_if_they_are_right(weights: dict[str, int]) -> None:
    right = weights.keys() <= {"v1", "v2", "v3"} and sum(weights.values()) == 100 and min(weights.values()) >= 0
    versions = {"v1": {}, "v2": {}, "v3": {}}
    if right:
        checked = validate_weights(weights, versions)
        assert sum(checked.values()) == 100
        assert checked == {**dict.fromkeys(versions, 0), **weights}
    else:
        with pytest.raises(ValueError, match=r"\.$"):
            validate_weights(weights, versions)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"service_port": 0}, "service_port is 0, not a port"),
        ({"gateway_port": "web"}, "gateway_port is 'web', not a port"),
        ({"name": ""}, "name is '', not a name"),
        ({"gateway_selector": {}}, "The gateway selector has no labels"),
        ({"versions": {"v1": {}, "v2": {"version": "v2"}}}, "The version v1 has no labels"),
        ({"versions": {"v1": {"version": 1}, "v2": {"version": "v2"}}}, "both have to be text"),
    ],
)
def test_a_wrong_description_gets_one_sentence(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tcp_route_objects({**SPEC, **change})


def test_a_missing_key_is_named() -> None:
    with pytest.raises(ValueError, match="lacks gateway_port"):
        tcp_route_objects({key: value for key, value in SPEC.items() if key != "gateway_port"})


matches = st.fixed_dictionaries(
    {},
    optional={
        "port": st.sampled_from([31400, 5432]),
        "gateways": st.sampled_from([["mesh"], ["tcp-echo-gateway"], ["other"]]),
        "sourceSubnet": st.just("10.0.0.0/8"),
    },
)
entries = st.lists(
    st.fixed_dictionaries(
        {"route": st.just([{"destination": {"host": "db"}}])}, optional={"match": st.lists(matches, min_size=1)}
    ),
    max_size=4,
)
virtual_services = st.fixed_dictionaries(
    {},
    optional={
        "hosts": st.just(["db.example.com"]),
        "gateways": st.lists(
            st.sampled_from(["mesh", "other", "tcp-echo-gateway", "default/tcp-echo-gateway", "a/tcp-echo-gateway"]),
            min_size=1,
            unique=True,
        ),
        "http": st.just([{"route": [{"destination": {"host": "web"}}]}]),
        "tcp": entries,
    },
)
servers = st.lists(
    st.fixed_dictionaries(
        {"port": st.fixed_dictionaries({"number": st.sampled_from([80, 443]), "name": st.sampled_from(["tcp", "web"])})}
    ),
    max_size=2,
)
subsets = st.lists(
    st.sampled_from(["v1", "v2", "theirs"]).map(lambda name: {"name": name, "labels": {"version": name}}),
    unique_by=lambda subset: subset["name"],
)
FOREIGN_GATEWAY = {"selector": SPEC["gateway_selector"]}
FOREIGN_RULE = {"host": "tcp-echo.default.svc.cluster.local"}
splits = st.integers(0, 100).map(lambda first: {"v1": first, "v2": 100 - first})


def theirs(entries: list[dict[str, Any]]) -> list[tuple[Any, Any]]:
    """Return the matches that are not the route's."""

    def own(match: dict[str, Any]) -> bool:
        return match.get("port") == 31400 and "sourceSubnet" not in match and match.get("gateways") != ["mesh"]

    return [(match, e["route"]) for e in entries for match in e.get("match") or [{}] if not own(match)]


@given(virtual_services, servers, subsets, splits)
def test_what_others_wrote_stays_and_a_second_run_changes_nothing(
    service: dict[str, Any], gateway: list[Any], rule: list[Any], weights: dict[str, int]
) -> None:
    spec = {**SPEC, "weights": weights}
    live = [
        live_object("VirtualService", "tcp-echo", service),
        live_object("Gateway", "tcp-echo-gateway", {**FOREIGN_GATEWAY, "servers": gateway}),
        live_object(
            "DestinationRule", "tcp-echo-destination", {**FOREIGN_RULE, "subsets": rule, "trafficPolicy": {"a": 1}}
        ),
    ]
    after = store(tcp_route_objects(spec, live), live)
    assert store(tcp_route_objects(spec, after), after) == after
    found = by_kind(after)
    route = found["VirtualService"]["spec"]
    assert tcp_route_weights(found["VirtualService"], 31400) == weights
    assert route.get("http") == service.get("http")
    assert route["hosts"] == service.get("hosts", ["*"])
    assert set(service.get("gateways", [])) <= set(route["gateways"])
    assert theirs(route["tcp"]) == theirs(service.get("tcp", []))
    assert [s for s in found["Gateway"]["spec"]["servers"] if s["port"]["number"] != 31400] == gateway
    assert found["Gateway"]["spec"]["selector"] == SPEC["gateway_selector"]
    names = [subset["name"] for subset in found["DestinationRule"]["spec"]["subsets"]]
    assert len(names) == len(set(names))
    assert {"v1", "v2"} | {subset["name"] for subset in rule} == set(names)
    assert found["DestinationRule"]["spec"]["trafficPolicy"] == {"a": 1}
    assert found["DestinationRule"]["spec"]["host"] == FOREIGN_RULE["host"]
    assert not any("labels" in item["metadata"] for item in after)


@given(virtual_services, servers, subsets)
def test_removal_leaves_what_others_wrote(service: dict[str, Any], gateway: list[Any], rule: list[Any]) -> None:
    before = [
        live_object("VirtualService", "tcp-echo", service),
        live_object("Gateway", "tcp-echo-gateway", {**FOREIGN_GATEWAY, "servers": gateway}),
        live_object("DestinationRule", "tcp-echo-destination", {**FOREIGN_RULE, "subsets": rule}),
    ]
    routed = tcp_route_weights(before[0], 31400)
    live = remove(SPEC, store(tcp_route_objects(SPEC, before), before))
    found = by_kind(live)
    assert not tcp_route_removal(SPEC, live)
    assert set(found) == {"VirtualService", "Gateway", "DestinationRule"}
    assert theirs(found["VirtualService"]["spec"].get("tcp", [])) == theirs(service.get("tcp", []))
    assert found["VirtualService"]["spec"].get("http") == service.get("http")
    assert [s for s in found["Gateway"]["spec"]["servers"] if s["port"]["number"] != 31400] == gateway
    left = found["DestinationRule"]["spec"].get("subsets", [])
    assert left[: len(rule)] == rule
    if routed or not (service.get("http") or service.get("tcp")):
        assert tcp_route_weights(found["VirtualService"], 31400) == SPEC["weights"]
        assert {"v1", "v2"} <= {subset["name"] for subset in left}  # the route that stays needs them
    else:
        assert tcp_route_weights(found["VirtualService"], 31400) == {}
        assert found["VirtualService"]["spec"]["gateways"] == service.get("gateways", ["mesh"])
        assert left == rule
        assert not any(item["metadata"].get("annotations") for item in live)


def test_objects_that_were_there_do_not_become_ours() -> None:
    before = [{**item, "metadata": live_object("", item["metadata"]["name"], {})["metadata"]} for item in made()]
    shifted = {**SPEC, "weights": {"v1": 0, "v2": 100}}
    after = store(tcp_route_objects(shifted, before), before)
    assert [item["metadata"] for item in after] == [item["metadata"] for item in before]
    assert tcp_route_weights(by_kind(after)["VirtualService"], 31400) == {"v1": 0, "v2": 100}
    assert tcp_route_removal(shifted, after) == []


def test_only_what_was_missing_in_a_foreign_rule_is_taken_out_again() -> None:
    theirs = {"name": "v1", "labels": {"version": "v1"}}
    before = [live_object("DestinationRule", "tcp-echo-destination", {"host": "tcp-echo", "subsets": [theirs]})]
    live = store(tcp_route_objects(SPEC, before), before)
    assert live[0]["metadata"]["annotations"] == {SUBSETS_ANNOTATION: "v2"}
    live = store(tcp_route_objects(SPEC, live), live)
    assert live[0]["metadata"]["annotations"] == {SUBSETS_ANNOTATION: "v2"}
    only_v1 = {**SPEC, "versions": {"v1": {"version": "v1"}}, "weights": {"v1": 100}}
    assert store(tcp_route_objects(only_v1, live, prune=True), live)[0]["metadata"]["annotations"] == {}
    assert by_kind(remove(SPEC, live))["DestinationRule"]["spec"]["subsets"] == [theirs]


@pytest.mark.parametrize("label", [{}, {"labels": {MANAGED_BY_LABEL: "Helm"}}])
@pytest.mark.parametrize(
    ("kind", "name", "spec", "message"),
    [
        (
            "Gateway",
            "tcp-echo-gateway",
            {"selector": {"istio": "internal"}},
            r"Gateway default/tcp-echo-gateway .* selector istio=internal, not istio=ingressgateway: .*gateway_name",
        ),
        ("Gateway", "tcp-echo-gateway", {"servers": []}, r"has no selector, not istio=ingressgateway"),
        (
            "DestinationRule",
            "tcp-echo-destination",
            {"host": "other"},
            r"DestinationRule default/tcp-echo-destination .* host other, not tcp-echo: choose another tcp_route_name",
        ),
        (
            "DestinationRule",
            "tcp-echo-destination",
            {"host": "tcp-echo", "subsets": [{"name": "v1", "labels": {"version": "old"}}]},
            r"subset v1 .* version=old, not version=v1: ",
        ),
    ],
)
def test_what_does_not_fit_in_a_foreign_object_is_refused(
    kind: str, name: str, spec: dict[str, Any], message: str, label: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match=message):
        tcp_route_objects(SPEC, [live_object(kind, name, spec, **label)])


@pytest.mark.parametrize("ours", [True, False])
def test_a_port_that_is_open_for_something_else_is_refused(ours: bool) -> None:
    server = {"port": {"number": 31400, "name": "https", "protocol": "HTTPS"}, "hosts": ["a.example.com"]}
    metadata = {"labels": {MANAGED_BY_LABEL: MANAGED_BY}} if ours else {}
    live = live_object("Gateway", "tcp-echo-gateway", {**FOREIGN_GATEWAY, "servers": [server]}, **metadata)
    with pytest.raises(ValueError, match=r"opens port 31400 for HTTPS, not for TCP: choose another .*gateway_port"):
        tcp_route_objects(SPEC, [live])


def test_a_foreign_gateways_tcp_server_stays_as_it_is() -> None:
    server = {"port": {"number": 31400, "name": "db", "protocol": "TCP"}, "hosts": ["default/*"], "bind": "0.0.0.0"}
    before = [live_object("Gateway", "tcp-echo-gateway", {**FOREIGN_GATEWAY, "servers": [server]})]
    after = store(tcp_route_objects(SPEC, before), before)
    assert after[0] == before[0]
    assert remove(SPEC, after) == before


def test_our_gateway_follows_the_selector() -> None:
    live = made()
    spec = {**SPEC, "gateway_selector": {"app": "edge"}}
    assert by_kind(store(tcp_route_objects(spec, live), live))["Gateway"]["spec"]["selector"] == {"app": "edge"}


def test_removal_needs_only_names_and_ports() -> None:
    spec = {**SPEC, "versions": {"blue": {}, "green": {}}, "gateway_selector": {}}
    assert remove(spec, made()) == []
    assert remove({key: value for key, value in spec.items() if key not in ("weights", "versions")}, made()) == []
    with pytest.raises(ValueError, match="gateway_port is 0, not a port"):
        tcp_route_removal({**spec, "gateway_port": 0}, [])


def test_removal_keeps_what_others_added_to_our_objects() -> None:
    live = by_kind(made())
    live["VirtualService"]["spec"]["tcp"].append(FOREIGN_TCP)
    live["Gateway"]["spec"]["servers"].append({"port": {"number": 5432, "name": "db", "protocol": "TCP"}})
    live["DestinationRule"]["spec"]["subsets"].append({"name": "theirs", "labels": {"tier": "x"}})
    left = by_kind(remove(SPEC, list(live.values())))
    assert left["VirtualService"]["spec"]["tcp"] == [FOREIGN_TCP]
    assert [server["port"]["number"] for server in left["Gateway"]["spec"]["servers"]] == [5432]
    assert [subset["name"] for subset in left["DestinationRule"]["spec"]["subsets"]] == ["theirs"]
    assert not any(item["metadata"].get("labels") for item in left.values())


def test_removal_is_the_reverse_order() -> None:
    steps = tcp_route_removal(SPEC, tcp_route_objects(SPEC))
    assert [(step["state"], step["definition"]["kind"]) for step in steps] == [
        ("absent", "VirtualService"),
        ("absent", "Gateway"),
        ("absent", "DestinationRule"),
    ]
    assert tcp_route_removal(SPEC, []) == []


def test_a_gateway_that_others_use_or_made_is_not_deleted() -> None:
    live = tcp_route_objects(SPEC)
    other = live_object("VirtualService", "other", {"gateways": ["default/tcp-echo-gateway"]})
    assert "Gateway" not in {step["definition"]["kind"] for step in tcp_route_removal(SPEC, [*live, other])}
    live[1]["metadata"]["labels"][MANAGED_BY_LABEL] = "Helm"
    assert "Gateway" not in {step["definition"]["kind"] for step in tcp_route_removal(SPEC, live)}


def test_versions_no_longer_wanted_stay_until_pruned() -> None:
    live = store(tcp_route_objects(SPEC))
    live[0]["spec"]["subsets"].append({"name": "theirs", "labels": {"tier": "x"}})
    spec = {**SPEC, "versions": {"v2": {"version": "v2"}, "v3": {"version": "v3"}}, "weights": {"v3": 100}}
    live = store(tcp_route_objects(spec, live), live)
    assert [subset["name"] for subset in live[0]["spec"]["subsets"]] == ["v1", "v2", "theirs", "v3"]
    assert live[0]["metadata"]["annotations"] == {SUBSETS_ANNOTATION: "v1,v2,v3"}
    live = store(tcp_route_objects(spec, live, prune=True), live)
    assert [subset["name"] for subset in live[0]["spec"]["subsets"]] == ["v2", "theirs", "v3"]
    assert live[0]["metadata"]["annotations"] == {SUBSETS_ANNOTATION: "v2,v3"}
    assert store(tcp_route_objects(spec, live, prune=True), live) == live


def test_a_subset_keeps_its_own_traffic_policy() -> None:
    live = store(tcp_route_objects(SPEC))
    live[0]["spec"]["subsets"][0]["trafficPolicy"] = {"tls": {"mode": "ISTIO_MUTUAL"}}
    assert tcp_route_objects(SPEC, live)[0]["spec"]["subsets"][0]["trafficPolicy"] == {"tls": {"mode": "ISTIO_MUTUAL"}}


def test_another_tools_mark_is_not_taken_over() -> None:
    live = [live_object("Gateway", "tcp-echo-gateway", FOREIGN_GATEWAY, labels={MANAGED_BY_LABEL: "Helm"})]
    assert "labels" not in tcp_route_objects(SPEC, live)[1]["metadata"]


def test_a_change_in_between_is_not_overwritten() -> None:
    live = [live_object("VirtualService", "tcp-echo", {}, resourceVersion="7")]
    objects = by_kind(tcp_route_objects(SPEC, live))
    assert objects["VirtualService"]["metadata"]["resourceVersion"] == "7"
    assert "resourceVersion" not in objects["Gateway"]["metadata"]


def test_objects_of_others_are_not_mixed_up() -> None:
    live = [
        live_object("VirtualService", "other", {"hosts": ["x"]}),
        {
            **live_object("VirtualService", "tcp-echo", {"hosts": ["x"]}),
            "metadata": {"name": "tcp-echo", "namespace": "a"},
        },
        {**live_object("Gateway", "tcp-echo-gateway", {"x": 1}), "apiVersion": "gateway.networking.k8s.io/v1"},
    ]
    assert tcp_route_objects(SPEC, live) == tcp_route_objects(SPEC)


def test_the_new_route_stands_before_one_that_takes_everything() -> None:
    anything: dict[str, Any] = {"route": [{"destination": {"host": "db"}}]}
    live = [live_object("VirtualService", "tcp-echo", {"gateways": ["other"], "tcp": [FOREIGN_TCP, anything]})]
    spec = by_kind(tcp_route_objects(SPEC, live))["VirtualService"]["spec"]
    assert [entry.get("match") for entry in spec["tcp"]] == [
        [{"port": 5432}],
        [{"port": 31400, "gateways": ["tcp-echo-gateway"]}],
        None,
    ]


def test_a_route_that_shares_its_entry_is_taken_out_of_it() -> None:
    shared = {"match": [{"port": 31400}, {"port": 5432}], "route": [{"destination": {"host": "db"}}]}
    live = [live_object("VirtualService", "tcp-echo", {"gateways": ["tcp-echo-gateway"], "tcp": [shared]})]
    tcp = by_kind(tcp_route_objects(SPEC, live))["VirtualService"]["spec"]["tcp"]
    assert [entry["match"] for entry in tcp] == [[{"port": 31400}], [{"port": 5432}]]
    assert tcp[1]["route"] == shared["route"]


@pytest.mark.parametrize(
    ("destinations", "weights"),
    [
        ([{"destination": {"host": "tcp-echo", "subset": "v1"}}], {"v1": 100}),
        ([{"destination": {"host": "tcp-echo"}}], {"tcp-echo": 100}),
        ([{"destination": {"subset": "v1"}, "weight": 100}, {"destination": {"subset": "v2"}}], {"v1": 100, "v2": 0}),
        (
            [{"destination": {"subset": "v1"}, "weight": 60}, {"destination": {"subset": "v1"}, "weight": 40}],
            {"v1": 100},
        ),
    ],
)
def test_weights_are_read_as_istio_reads_them(destinations: list[Any], weights: dict[str, int]) -> None:
    service = live_object("VirtualService", "a", {"tcp": [{"match": [{"port": 31400}], "route": destinations}]})
    assert tcp_route_weights(service, 31400) == weights


@pytest.mark.parametrize(
    "match",
    [[], [{"port": 1}], [{"port": 31400, "gateways": ["mesh"]}], [{"port": 31400, "sourceSubnet": "10.0.0.0/8"}]],
)
def test_routes_for_something_else_have_no_weights(match: list[Any]) -> None:
    route = [{"destination": {"subset": "v1"}}]
    service = live_object("VirtualService", "a", {"tcp": [{"match": match, "route": route}]})
    assert tcp_route_weights(service, 31400) == {}
    assert tcp_route_weights({}, 31400) == {}


ENDPOINTS = {**SPEC, "method": "endpoints"}
IGNORES = {"loadBalancer": {"localityLbSetting": {"enabled": False}}}


def distributed(**to: int) -> dict[str, Any]:
    return {"enabled": True, "distribute": [{"from": "*", "to": to}]}


def switched(spec: dict[str, Any], live: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Do what the role does to change the method: keep the weights, converge, take out what is left over."""
    held = {**spec, "weights": tcp_route_switch(spec, live) or spec["weights"]}
    live = store(tcp_route_objects(held, live), live)
    return store(tcp_route_objects(held, live, prune=True), live)


def test_weights_on_endpoints() -> None:
    objects = by_kind(tcp_route_objects(ENDPOINTS))
    assert objects["DestinationRule"]["spec"] == {
        "host": "tcp-echo",
        "trafficPolicy": {"loadBalancer": {"localityLbSetting": distributed(v1=80, v2=20)}},
        "subsets": [
            {"name": "v1", "labels": {"version": "v1"}, "trafficPolicy": IGNORES},
            {"name": "v2", "labels": {"version": "v2"}, "trafficPolicy": IGNORES},
        ],
    }
    assert objects["DestinationRule"]["metadata"]["annotations"] == {
        SUBSETS_ANNOTATION: "v1,v2",
        LOCALITIES_ANNOTATION: "v1,v2",
        UNWEIGHTED_ANNOTATION: "v1,v2",
    }
    assert objects["VirtualService"]["spec"]["tcp"] == [
        {"match": [{"port": 31400}], "route": [{"destination": {"host": "tcp-echo", "port": {"number": 9000}}}]}
    ]


def test_a_version_without_a_share_is_left_out() -> None:
    rule = tcp_route_objects({**ENDPOINTS, "weights": {"v1": 100}})[0]
    assert rule["spec"]["trafficPolicy"]["loadBalancer"]["localityLbSetting"] == distributed(v1=100)


def test_another_method_is_refused() -> None:
    with pytest.raises(ValueError, match=r"The route's method is 'localities', not one of route, endpoints\."):
        tcp_route_objects({**SPEC, "method": "localities"})


@given(st.sampled_from(METHODS), splits)
def test_weights_come_back_as_they_were_given(method: str, weights: dict[str, int]) -> None:
    spec = {**SPEC, "method": method, "weights": weights}
    assert tcp_route_live(spec, store(tcp_route_objects(spec))) == {"method": method, "weights": weights}


balancers = st.fixed_dictionaries({}, optional={"simple": st.just("LEAST_REQUEST"), "warmup": st.just({"d": "1s"})})
policies = st.fixed_dictionaries({}, optional={"loadBalancer": balancers, "tls": st.just({"mode": "ISTIO_MUTUAL"})})
policed_subsets = st.lists(
    st.fixed_dictionaries(
        {"name": st.sampled_from(["v1", "v2", "theirs"])},
        optional={"trafficPolicy": st.one_of(policies, st.just(IGNORES))},
    ).map(lambda subset: {**subset, "labels": {"version": subset["name"]}}),
    unique_by=lambda subset: subset["name"],
)


def tidy(value: Any) -> Any:
    """Return it without empty mappings, which say nothing to Istio."""
    if isinstance(value, list):
        return [tidy(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {key: tidy(item) for key, item in value.items() if tidy(item) != {}}


@given(virtual_services, policies, policed_subsets, splits, splits)
def test_a_method_there_and_back_leaves_what_others_wrote(
    service: dict[str, Any], policy: dict[str, Any], rule: list[Any], weights: dict[str, int], later: dict[str, int]
) -> None:
    before = [
        live_object("VirtualService", "tcp-echo", service),
        live_object(
            "DestinationRule", "tcp-echo-destination", {**FOREIGN_RULE, "subsets": rule, "trafficPolicy": policy}
        ),
    ]
    routed = {**SPEC, "weights": weights}
    start = store(tcp_route_objects(routed, before), before)
    there = switched({**ENDPOINTS, "weights": later}, start)
    assert tcp_route_live(SPEC, there) == {"method": "endpoints", "weights": weights}
    assert tcp_route_switch({**ENDPOINTS, "weights": later}, there) == {}
    assert store(tcp_route_objects({**ENDPOINTS, "weights": weights}, there), there) == there
    found = by_kind(there)
    assert theirs(found["VirtualService"]["spec"]["tcp"]) == theirs(service.get("tcp", []))
    told = found["DestinationRule"]["spec"]["trafficPolicy"]
    assert {key: told.get(key) for key in policy if key != "loadBalancer"} == {
        key: value for key, value in policy.items() if key != "loadBalancer"
    }
    assert told["loadBalancer"] == {
        **policy.get("loadBalancer", {}),
        "localityLbSetting": distributed(**{version: weight for version, weight in weights.items() if weight}),
    }
    # No subset follows the weights of the Service, and those with a policy of their own keep it.
    for subset in found["DestinationRule"]["spec"]["subsets"]:
        own = next((s.get("trafficPolicy", {}).get("loadBalancer") for s in rule if s["name"] == subset["name"]), None)
        expected = own or {**policy.get("loadBalancer", {}), "localityLbSetting": {"enabled": False}}
        assert subset["trafficPolicy"]["loadBalancer"] == expected
    shifted = store(tcp_route_objects({**ENDPOINTS, "weights": later}, there), there)
    assert tcp_route_live(SPEC, shifted) == {"method": "endpoints", "weights": later}
    assert tcp_route_switch(SPEC, shifted) == later
    back = switched({**SPEC, "weights": weights}, shifted)
    assert tcp_route_live(SPEC, back) == {"method": "route", "weights": later}
    assert tidy(store(tcp_route_objects(routed, back), back)) == tidy(start)
    left = remove(SPEC, shifted)
    if not tcp_route_weights(by_kind(left)["VirtualService"], 31400):
        assert tidy(left) == tidy(remove(SPEC, start))


def test_weights_of_endpoints_stay_until_pruned() -> None:
    live = store(tcp_route_objects(ENDPOINTS))
    live = store(tcp_route_objects(SPEC, live), live)
    assert by_kind(live)["DestinationRule"]["spec"]["trafficPolicy"]["loadBalancer"]["localityLbSetting"]
    pruned = store(tcp_route_objects(SPEC, live, prune=True), live)
    assert pruned == made()


def test_removal_takes_the_weights_of_endpoints_out() -> None:
    assert remove(SPEC, store(tcp_route_objects(ENDPOINTS))) == []
    before = [
        live_object(
            "DestinationRule",
            "tcp-echo-destination",
            {**FOREIGN_RULE, "subsets": [{"name": "theirs", "labels": {"a": "b"}}], "trafficPolicy": {"tls": {"a": 1}}},
        )
    ]
    left = by_kind(remove(SPEC, store(tcp_route_objects(ENDPOINTS, before), before)))["DestinationRule"]
    assert left["spec"] == before[0]["spec"]
    assert not left["metadata"]["annotations"]


def rule_with(**policy: Any) -> dict[str, Any]:
    return live_object("DestinationRule", "tcp-echo-destination", {**FOREIGN_RULE, "trafficPolicy": policy})


@pytest.mark.parametrize(
    ("live", "message"),
    [
        (
            rule_with(loadBalancer={"localityLbSetting": {"enabled": True, "failover": [{"from": "a", "to": "b"}]}}),
            r"default/tcp-echo-destination has a localityLbSetting that was not made by this collection, so that "
            r"localities are places and cannot stand for versions: .*route\.$",
        ),
        (rule_with(loadBalancer={"localityLbSetting": distributed(v1=80, v2=20)}), "not made by this collection"),
        (
            rule_with(portLevelSettings=[{"port": {"number": 9000}, "tls": {"mode": "DISABLE"}}]),
            "portLevelSettings for port 9000, which would hide the weights",
        ),
        (
            live_object("DestinationRule", "theirs", {**FOREIGN_RULE, "trafficPolicy": {"tls": {"mode": "DISABLE"}}}),
            r"DestinationRule default/theirs has a trafficPolicy for the same host tcp-echo\.default",
        ),
    ],
)
def test_what_makes_localities_mean_something_else_is_refused(live: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tcp_route_objects(ENDPOINTS, [live])
    assert tcp_route_objects(SPEC, [live])


def test_localities_that_others_added_to_ours_are_refused() -> None:
    live = store(tcp_route_objects(ENDPOINTS))
    live[0]["spec"]["trafficPolicy"]["loadBalancer"]["localityLbSetting"]["failoverPriority"] = ["a"]
    with pytest.raises(ValueError, match="not made by this collection"):
        tcp_route_objects(ENDPOINTS, live)


def test_what_does_not_hide_the_weights_is_not_refused() -> None:
    live = [
        rule_with(portLevelSettings=[{"port": {"number": 9001}}]),
        live_object("DestinationRule", "other", {"host": "other", "trafficPolicy": {"tls": {}}}),
        live_object("DestinationRule", "more", {**FOREIGN_RULE, "subsets": []}),
    ]
    assert tcp_route_objects(ENDPOINTS, live)


def test_the_method_changes_before_the_versions() -> None:
    spec = {**ENDPOINTS, "versions": {"v2": {"version": "v2"}, "v3": {"version": "v3"}}, "weights": {"v3": 100}}
    with pytest.raises(ValueError, match="Connections go to v1, which is not among the versions: change the method"):
        tcp_route_objects(spec, made())


@pytest.mark.parametrize(
    ("route", "rule", "live"),
    [
        ([], {}, {"method": "", "weights": {}}),
        ([{"destination": {"host": "tcp-echo"}}], {}, {"method": "", "weights": {"tcp-echo": 100}}),
        ([{"destination": {"host": "db"}}], distributed(v1=100), {"method": "", "weights": {"db": 100}}),
        ([{"destination": {"host": "tcp-echo"}}], distributed(v1=100), {"method": "endpoints", "weights": {"v1": 100}}),
        (
            [{"destination": {"host": "tcp-echo"}}],
            {"enabled": True, "distribute": [{"from": "here/*", "to": {"v1": 100}}]},
            {"method": "", "weights": {"tcp-echo": 100}},
        ),
        (
            [{"destination": {"host": "x", "subset": "v1"}}],
            distributed(v2=100),
            {"method": "route", "weights": {"v1": 100}},
        ),
    ],
)
def test_the_live_method_is_read(route: list[Any], rule: dict[str, Any], live: dict[str, Any]) -> None:
    objects = [
        live_object("VirtualService", "tcp-echo", {"tcp": [{"match": [{"port": 31400}], "route": route}]}),
        rule_with(loadBalancer={"localityLbSetting": rule}),
    ]
    assert tcp_route_live(SPEC, objects) == live
    assert tcp_route_switch({**SPEC, "method": "route"}, objects) == (
        live["weights"] if live["method"] == "endpoints" else {}
    )
