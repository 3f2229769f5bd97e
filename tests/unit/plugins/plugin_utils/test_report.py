# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reports: what gets in and what never does, the shape of each file, and whatever is missing."""

from __future__ import annotations

import json
import math
import random
import re
import stat
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml
from ansible_collections.trafficshift.istio.plugins.module_utils._tally import Tally
from ansible_collections.trafficshift.istio.plugins.module_utils._verdict import ask, judge
from ansible_collections.trafficshift.istio.plugins.module_utils._verdict import error_rates as rates_of
from ansible_collections.trafficshift.istio.plugins.modules import gateway_sessions, tcp_probe
from ansible_collections.trafficshift.istio.plugins.plugin_utils._report import (
    ReportError,
    paths,
    to_html,
    to_json,
    to_junit,
    write,
)
from ansible_collections.trafficshift.istio.plugins.plugin_utils._report_data import (
    LONGEST,
    allowed,
    destinations,
    error_rates,
    held_sessions,
    percent,
    report_data,
)
from ansible_collections.trafficshift.istio.plugins.plugin_utils._report_plot import (
    BOTTOM,
    LEFT,
    RIGHT,
    TOP,
    Course,
    draw,
)
from hypothesis import given, settings
from hypothesis import strategies as st

CONVERGENCE = {
    "state": "observed",
    "reason": "All 2 gateway replicas have v1 80 / v2 20 on port 31400.",
    "duration": 0.61,
    "replicas": [
        {"name": f"gateway-{index}", "ok": True, "weights": {"v1": 80, "v2": 20}, "warming": False, "error": ""}
        for index in range(2)
    ],
}


def verified(probes: int = 2000, truth: float = 0.8, profile: str = "strict", **other: Any) -> dict[str, Any]:
    """A result of tcp_verify, of seeded draws; with other=None for what is to be missing."""
    draws, tally = random.Random(8), Tally(["one", "two"])
    question = ask({"one": 80, "two": 20}, profile, probes=probes if profile == "fixed" else None)
    for _each in range(probes):
        tally.add("", "one" if draws.random() < truth else "two", 0.003)
    verdict = judge(question, tally.counts, tally.errors)
    result = {
        "name": "tcp-echo",
        "started": "2026-07-09T14:03:11Z",
        "ended": "2026-07-09T14:03:15Z",
        "verdict": verdict.verdict,
        "passed": verdict.passed,
        "msg": f"192.0.2.1:31400: {verdict.reason}",
        "witness": "probe",
        "probes": tally.probes,
        "counts": tally.counts,
        "shares": tally.shares(),
        "intervals": {word: list(span) for word, span in verdict.intervals.items()},
        "more": verdict.more,
        "errors": tally.errors,
        "error_details": tally.details,
        "unexpected": tally.unexpected,
        "latency": tally.latency(),
        "deviations": [deviation._asdict() for deviation in verdict.deviations],
        "duration": 3.2,
        "address": "192.0.2.1",
        "ingress": {"host": "192.0.2.1", "port": 31400, "source": "loadBalancer", "reason": "it has this address"},
        "trajectory": tally.trajectory.encode(),
        "error_rates": rates_of(question),
        "protocol": "line",
        "convergence": CONVERGENCE,
        "weights": {"v1": 80, "v2": 20},
        "versions": {"ansible": "2.19.14", "collection": "0.1.0", "python": "3.11.2", "kubernetes": None},
        **question._asdict(),
        **other,
    }
    return {key: value for key, value in result.items() if key not in other or value is not None}


NOT_PROBED = {
    "name": "tcp-echo",
    "verdict": "not probed",
    "passed": False,
    "msg": "The gateway replica gateway-1 still has v1 100 on port 31400.",
    "expect": {"one": 80, "two": 20},
    "tolerance": None,
    "ingress": {},
    "convergence": {
        "state": "observed",
        "reason": "The gateway replica gateway-1 still has v1 100 on port 31400.",
        "replicas": [{**CONVERGENCE["replicas"][0]}, {"name": "gateway-1", "ok": False, "weights": {"v1": 100}}],  # type: ignore[index]
    },
    "gateway": None,
}
ERRORS_ONLY = {
    "verdict": "fail",
    "msg": "10 of 10 probes got no valid answer: 9 refused (Connection refused), 1 unexpected (three)",
    "expect": {"one": 80, "two": 20},
    "tolerance": 0.05,
    "max_errors": 0,
    "probes": 10,
    "counts": {"one": 0, "two": 0},
    "shares": {"one": 0.0, "two": 0.0},
    "errors": {"refused": 9, "unexpected": 1},
    "error_details": {"refused": "Connection refused", "unexpected": "three"},
    "unexpected": {"three": 1},
}


SESSIONS = [
    {
        "kind": kind,
        "destination": destination,
        "opened": "2026-07-09T14:03:11.204Z",
        "fate": fate,
        "died": died,
        "lived": lived,
        "exchanges": 1,
        "detail": detail,
    }
    for kind, destination, fate, died, lived, detail in (
        ("idle", "one", "alive", None, 120.04, ""),
        ("idle", "one", "alive", None, 120.06, ""),
        ("idle", "one", "closed", "2026-07-09T14:03:56.480Z", 45.276, ""),
        ("idle", "one", "closed", "2026-07-09T14:03:56.301Z", 45.097, ""),
        ("chatting", "two", "garbled", "2026-07-09T14:03:13.000Z", 1.796, "a reply of one"),
        ("chatting", None, "refused", "2026-07-09T14:03:11.205Z", 0.001, "Connection refused"),
    )
]


def test_everything_that_is_known_gets_in_and_nothing_else() -> None:
    result = verified()
    secret = {"k8s_auth_api_key": "planted-1", "password": "planted-2", "invocation": {"module_args": "planted-3"}}
    data = report_data({**result, **secret, "ingress": {**result["ingress"], **secret}, "versions": secret})
    assert "planted" not in json.dumps(data)
    assert set(data) == {*result, "schema"}
    assert data["schema"] == 1
    assert data["versions"] == {}
    unchanged = set(result) - {"trajectory", "versions"}
    assert {key: data[key] for key in unchanged} == {key: result[key] for key in unchanged}
    trajectory = data["trajectory"]
    assert trajectory["probes"][-1] == 2000
    assert {word: column[-1] for word, column in trajectory["counts"].items()} == result["counts"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("GET https://me:hunter2@192.0.2.1/path failed", "GET ***@192.0.2.1/path failed"),
        ("proxy 'http://me:hun/ter@2@192.0.2.1'", "proxy '***@192.0.2.1'"),
        ("https://hunter2@192.0.2.1", "***@192.0.2.1"),
        ("Authorization: Bearer hunter2.hunter2", "Authorization: ***"),
        ("{'Authorization': 'Basic aHVudGVyMg=='}", "{'Authorization': ***}"),
        ("sent Bearer hunter2", "sent Bearer ***"),
        ("PGPASSWORD=hunter2 psql", "PGPASSWORD=*** psql"),
        ('"client-secret": "hunter 2", "a": 1', '"client-secret": ***, "a": 1'),
        ("api_key=hunter2&x=1", "api_key=***&x=1"),
        ("the token eyJhbGciOi.eyJodW50ZXIy.c2ln was", "the token *** was"),
        ("192.0.2.1:31400: one got 55.5 % (seen in 600 probes: one 333)", None),
        ("[::1]:31400: refused, ask admin@example.org", None),
        ("tokens are not looked at; no password was given", None),
    ],
)
def test_what_looks_like_a_secret_is_masked_everywhere(text: str, told: str | None) -> None:
    told = text if told is None else told
    replica = {"name": text, "ok": False, "error": text}
    result = verified(
        msg=text,
        unexpected={text: 3},
        error_details={"reset": text},
        convergence={"state": "observed", "reason": text, "replicas": [replica]},
        ingress={"host": text, "reason": text},
    )
    data = report_data(result)
    assert data["msg"] == data["error_details"]["reset"] == data["convergence"]["replicas"][0]["error"] == told
    assert data["unexpected"] == {told: 3}
    for report in (to_json(data), to_junit(data), to_html(data)):
        assert "hunter" not in report
        assert "aHVudGVyMg" not in report


def test_texts_are_bounded_before_and_after_they_are_searched() -> None:
    assert report_data({"msg": "a" * 10 * LONGEST})["msg"] == "a" * (LONGEST - 1) + "\u2026"
    assert report_data({"msg": "x" * (LONGEST - 9) + " me:hunter2@192.0.2.1"})["msg"].endswith(" ***@192\u2026")
    assert report_data({"msg": "a\0b\x1b[31m\ud800\ufffe"})["msg"] == "a\ufffdb\ufffd[31m\ufffd\ufffd"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("probes", "many"),
        ("probes", True),
        ("probes", math.nan),
        ("probes", math.inf),
        ("probes", 10**400),
        ("passed", 1),
        ("msg", ["a"]),
        ("msg", True),
        ("counts", [1, 2]),
        ("convergence", "observed"),
        ("deviations", {"destination": "one"}),
        ("trajectory", "rubbish"),
        ("trajectory", {}),
    ],
)
def test_a_value_of_another_type_is_left_out(key: str, value: Any) -> None:
    assert key not in report_data({**verified(10), key: value})


def test_only_the_part_that_does_not_fit_is_left_out() -> None:
    data = report_data({"intervals": {"one": [0.1, 0.2], "two": [1], "three": [0, "1"]}, "latency": {"min": {}}})
    assert data == {"schema": 1, "intervals": {"one": [0.1, 0.2]}, "latency": {}}
    assert report_data({"deviations": [{"destination": "one", "expected": "x"}, 3]})["deviations"] == [
        {"destination": "one"}
    ]
    assert report_data({"more": None, "expect": {1: 80}})["expect"] == {"1": 80}


def standings(result: dict[str, Any]) -> list[str]:
    return [row.standing for row in destinations(report_data(result))]


def test_where_destinations_stand() -> None:
    assert standings(verified()) == ["inside", "inside"]
    assert standings(verified(600, 0.6)) == ["outside", "outside"]
    assert standings(verified(1450, 0.77)) == ["open", "open"]
    assert standings(verified(300, 0.83, "fixed")) == ["inside", "inside"]
    assert standings(verified(300, 0.6, "fixed")) == ["outside", "outside"]
    assert standings(ERRORS_ONLY) == ["open", "open"]
    assert standings(NOT_PROBED) == ["not probed", "not probed"]
    # An error fails the whole; of the shares, what is known is known.
    failed = verified(verdict="fail", intervals={"one": [0.76, 0.84], "two": [0.1, 0.24]})
    assert standings(failed) == ["inside", "open"]


def test_words() -> None:
    assert allowed(80, 0.05) == "80 % ± 5 points"
    assert allowed(33.3, 0.025) == "33.3 % ± 2.5 points"
    assert allowed(100, 0.05) == "exactly 100 %"
    assert [percent(share) for share in (0, 0.0001, 0.001, 0.5, 0.9996, 1)] == [
        "0 %",
        "< 0.1 %",
        "0.1 %",
        "50.0 %",
        "> 99.9 %",
        "100 %",
    ]


def test_error_rates_in_sentences() -> None:
    assert error_rates(report_data(verified())) == [
        "A split outside of its band is passed at most once in 1,000 runs.",
        "A split inside of its band is failed at most once in 1,000 runs.",
        "No error is allowed.",
    ]
    assert error_rates(report_data(verified(2500, profile="fixed"))) == [
        "A split exactly as declared is failed practically never.",
        "One with a share on the edge of its band is passed in up to 51.1 % of all runs.",
        "One that is off by twice the tolerance is passed practically never.",
        "No error is allowed.",
    ]
    assert error_rates({"max_errors": 3, "expect": {"one": 100}}) == [
        "Of 0 % and 100 %, a single stray reply is a failure.",
        "Up to 3 errors are allowed.",
    ]


def cases(result: dict[str, Any]) -> dict[str, str]:
    """The test cases of the JUnit report by name, each with its outcome and, if it is not passed, its type."""
    suite = ElementTree.fromstring(to_junit(report_data(result)))[0]
    found = {}
    for case in suite.findall("testcase"):
        outcome = case.find("failure") if case.find("failure") is not None else case.find("error")
        skipped = case.find("skipped") is not None
        found[case.get("name", "")] = (
            "skipped" if skipped else "passed" if outcome is None else f"{outcome.tag} {outcome.get('type')}"
        )
    return found


def test_junit_of_each_verdict() -> None:
    one, two = "one: 80 % ± 5 points", "two: 20 % ± 5 points"
    assert cases(verified()) == dict.fromkeys(("verdict", one, two, "errors", "convergence"), "passed")
    assert cases(verified(600, 0.6)) == {
        "verdict": "failure fail",
        one: "failure fail",
        two: "failure fail",
        "errors": "passed",
        "convergence": "passed",
    }
    assert cases(verified(1450, 0.77, convergence={"state": "behavioural", "reason": "may not look inside"})) == {
        "verdict": "failure inconclusive",
        one: "failure inconclusive",
        two: "failure inconclusive",
        "errors": "passed",
        "convergence": "passed",
    }
    assert cases(ERRORS_ONLY) == {
        "verdict": "failure fail",
        one: "skipped",
        two: "skipped",
        "errors": "failure fail",
        "convergence": "skipped",
    }
    assert cases(NOT_PROBED) == {
        "verdict": "error not probed",
        "one: 80 %": "skipped",
        "two: 20 %": "skipped",
        "errors": "skipped",
        "convergence": "failure fail",
    }
    assert cases({}) == {"verdict": "error no verdict", "errors": "skipped", "convergence": "skipped"}


GATEWAY = {
    "witness": "available",
    "verdict": "pass",
    "passed": True,
    "reason": "tcp-echo.default:9000: the split is as expected, v1 80 %, v2 20 %",
    "growth": {
        "v1": {"connections": 1610, "connect_failures": 2, "live": 3},
        "v2": {"connections": 390, "connect_failures": 0, "live": 1},
    },
    "counts": {"v1": 1610, "v2": 390},
    "errors": {},
    "intervals": {"v1": [0.769, 0.839], "v2": [0.161, 0.231]},
    "window": 12.3,
    "duration": 1.02,
    "complete": True,
    "notes": ["gateway-1 has started in the meantime and counts from 0"],
    "replicas": [
        {"name": "gateway-0", "ready": True, "growth": {"v1": {"connections": 1610}}, "error": ""},
        {"name": "gateway-1", "ready": True, "growth": {}, "error": "no answer within 10 s"},
    ],
}


@pytest.mark.parametrize(
    ("seen", "outcome", "told"),
    [
        ({}, "passed", "the split is as expected, v1 80 %, v2 20 %"),
        ({"verdict": "fail", "reason": "v1 got 70 %"}, "failure fail", "v1 got 70 %"),
        ({"verdict": "inconclusive", "reason": "not settled"}, "failure inconclusive", "not settled"),
        ({"agreement": {"agrees": True, "reason": "all confirmed"}}, "passed", "all confirmed"),
        (
            {"agreement": {"agrees": True, "reason": "all confirmed"}, "verdict": "inconclusive"},
            "passed",
            "all confirmed",
        ),
        (
            {"agreement": {"agrees": True, "reason": "all confirmed"}, "verdict": "fail", "reason": "v1 got 70 %"},
            "failure fail",
            "v1 got 70 %",
        ),
        ({"agreement": {"agrees": False, "reason": "3 are missing"}}, "failure disagreement", "3 are missing"),
        (
            {"agreement": {"agrees": None, "reason": "the counters went down"}},
            "error unknown",
            "the counters went down",
        ),
        ({"witness": "unavailable", "reason": "may not look inside"}, "error unavailable", "may not look inside"),
        ({"verdict": None, "reason": "the counters were read"}, "skipped", "the counters were read"),
    ],
)
def test_the_second_witness(seen: dict[str, Any], outcome: str, told: str) -> None:
    result = verified(witness="both", gateway={**GATEWAY, **seen})
    assert cases(result)["gateway counters"] == outcome
    assert told in to_junit(report_data(result))
    check_junit(to_junit(report_data(result)))
    found = page(result)
    assert "Second witness" in found.all("h2")
    assert told in found.text
    for cell in ("1,610", "390", "76.9 \u2013 83.9 %", "v1 1,610", "no answer within 10 s", "12.3 s", "counts from 0"):
        assert cell in found.text


@pytest.mark.parametrize(("method", "told"), [("route", "the route"), ("endpoints", "the endpoints")])
def test_every_report_says_where_the_weights_stood(method: str, told: str) -> None:
    replica = {"name": "gw", "weights": {"v1": 80}, "method": method, "missing": ["v2"]}
    result = verified(method=method, convergence={**CONVERGENCE, "replicas": [replica]})
    data = report_data(result)
    assert (data["method"], data["convergence"]["replicas"]) == (method, [replica])
    assert json.loads(to_json(data))["method"] == method
    assert f'<property name="method" value="{method}" />' in to_junit(data)
    assert told in page(result).all("dd")
    assert "Weights in" not in page(verified()).text


def test_the_gateway_as_only_witness() -> None:
    """Its counters go by version, where replies go by word."""
    probe = {"probes", "counts", "shares", "trajectory", "latency", "intervals", "protocol", "address"}
    result = {key: value for key, value in verified().items() if key not in probe}
    result.update(witness="gateway", gateway=GATEWAY, counts=GATEWAY["counts"], intervals=GATEWAY["intervals"])
    assert standings(result) == ["inside", "inside"]
    assert list(cases(result)) == [
        "verdict",
        "v1: 80 % ± 5 points",
        "v2: 20 % ± 5 points",
        "errors",
        "convergence",
        "gateway counters",
    ]
    found = page(result)
    assert "The gateway's counters" in found.all("h2")
    assert {"80.5 %", "19.5 %"} <= set(found.all("td"))
    assert "2,000" in found.all("dd")


def test_all_that_the_modules_return_gets_in() -> None:
    """Except what is for other tasks, and endpoints and pods by their ids."""
    returned = yaml.safe_load(tcp_probe.RETURN)
    samples = {key: entry.get("sample") for key, entry in returned.items()} | {"trajectory": ""}
    assert set(report_data(samples)) == {"schema", *returned}
    returned = yaml.safe_load(gateway_sessions.RETURN)
    known = report_data({"gateway": {key: entry.get("sample", []) for key, entry in returned.items()}})["gateway"]
    assert set(returned) - set(known) == {"reading"}
    contained = set(returned["replicas"]["contains"])
    assert contained - set(known["replicas"][0]) == {"incarnation"}


def check_junit(text: str) -> None:
    """Check what the schemas of Ant and Jenkins, and GitLab's reader, have in common."""
    root = ElementTree.fromstring(text.encode())
    assert root.tag == "testsuites"
    assert set(root.attrib) == {"name", "tests", "failures", "errors", "time"}
    (suite,) = root
    assert suite.tag == "testsuite"
    assert set(suite.attrib) - {"timestamp"} == {"name", "tests", "failures", "errors", "skipped", "time"}
    if "timestamp" in suite.attrib:
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", suite.attrib["timestamp"])
    tags = [child.tag for child in suite]
    assert tags == [*["properties"] * tags.count("properties"), *["testcase"] * tags.count("testcase")]
    assert tags.count("properties") <= 1
    for entry in suite.findall("properties/property"):
        assert set(entry.attrib) == {"name", "value"}
    found = suite.findall("testcase")
    assert len({(case.get("classname"), case.get("name")) for case in found}) == len(found), "GitLab needs them unique"
    for case in found:
        assert set(case.attrib) == {"classname", "name", "time"}
        assert re.fullmatch(r"trafficshift\.[^.]+", case.attrib["classname"])
        assert re.fullmatch(r"\d+\.\d{3}", case.attrib["time"])
        (outcome,) = case
        assert outcome.tag in ("failure", "error", "skipped", "system-out")
        if outcome.tag in ("failure", "error"):
            assert set(outcome.attrib) == {"message", "type"}
            assert outcome.text, "GitLab shows no message"
        elif outcome.tag == "skipped":
            assert outcome.get("message")
        else:
            assert outcome.text
    for kind, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        assert suite.get(kind) == str(sum(case[0].tag == tag for case in found))
    assert suite.get("tests") == str(len(found))
    assert float(suite.get("time", "")) == pytest.approx(sum(float(case.get("time", "")) for case in found))


@pytest.mark.parametrize(
    "result",
    [verified(), verified(600, 0.6), verified(1450, 0.77), NOT_PROBED, ERRORS_ONLY, {}],
    ids=["pass", "fail", "inconclusive", "not probed", "errors only", "nothing"],
)
def test_junit_has_the_form_that_build_servers_take(result: dict[str, Any]) -> None:
    check_junit(to_junit(report_data(result)))


def test_junit_says_what_was_measured_and_when() -> None:
    suite = ElementTree.fromstring(to_junit(report_data(verified())))[0]
    assert suite.get("timestamp") == "2026-07-09T14:03:11"
    assert suite.get("time") == "3.810"
    known = {entry.get("name"): entry.get("value") for entry in suite.findall("properties/property")}
    assert known["profile"] == "strict"
    assert known["probes"] == "2000"
    assert known["version.ansible"] == "2.19.14"
    assert "version.kubernetes" not in known
    message = suite.findall("testcase")[1].findtext("system-out")
    assert message == ("one had 80.7 % of 2000 probes (interval 77.0 to 84.0 %), expected was 80 % ± 5 points")


class Page(HTMLParser):
    """Reads a page: which elements are open when, all text by element, all attributes."""

    VOID = ("meta",)

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: list[tuple[str, str]] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        assert len(dict(attrs)) == len(attrs)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append((self.open[-1] if self.open else "", data.replace("\u00a0", " ")))

    def all(self, tag: str) -> list[str]:
        return [text for name, text in self.texts if name == tag]

    @property
    def text(self) -> str:
        return "\n".join(text for name, text in self.texts if name != "style")


def page(result: dict[str, Any]) -> Page:
    return Page(to_html(report_data(result)))


def test_the_page_tells_it_all() -> None:
    found = page(verified())
    assert found.all("h1") == ["tcp-echo"]
    assert found.all("h2") == [
        "Expected and observed",
        "How the shares closed in",
        "Replicas of the gateway",
        "From connect to reply",
        "How it was judged",
        "When and where",
    ]
    for told in (
        "Pass",
        "the split is as expected",
        "80 % ± 5 points",
        "80.7 %",
        "77.0 \u2013 84.0 %",
        "as expected",
        "2,000",
        "3.2 s",
        "gateway-1",
        "v1 80 %, v2 20 %",
        "3 ms",
        "at most once in 1,000 runs",
        "2026-07-09 14:03:11 UTC",
        "192.0.2.1:31400",
        "ansible 2.19.14, collection 0.1.0, python 3.11.2",
    ):
        assert told in found.text, told


def test_the_page_loads_nothing_and_runs_nothing() -> None:
    text = to_html(report_data(verified()))
    found = Page(text)
    assert not {tag for tag, _attributes in found.tags} & {"script", "link", "img", "iframe", "object", "base", "form"}
    for _tag, attributes in found.tags:
        assert not [name for name in attributes if name.startswith("on") or name in ("src", "href", "style")]
    policy = next(attributes["content"] for tag, attributes in found.tags if "http-equiv" in attributes)
    assert policy is not None
    assert re.fullmatch(
        r"default-src 'none'; style-src 'sha256-[\w+/]{43}='; base-uri 'none'; form-action 'none'", policy
    )
    assert "url(" not in text
    assert "@import" not in text
    assert "http" not in text.replace("http-equiv", "")


def test_nothing_of_a_result_is_markup() -> None:
    evil = "<script>alert(1)</script><!--\"'&amp;]]>"
    expect = {evil: 80, "two": 20}
    tally = Tally(expect)
    for number in range(100):
        tally.add("", evil if number % 5 else "two", 0.1)
    result = dict.fromkeys(
        ("name", "started", "ended", "verdict", "msg", "witness", "profile", "address", "protocol"), evil
    )
    found = page(
        {
            **result,
            "expect": expect,
            "probes": 100,
            "counts": tally.counts,
            "shares": tally.shares(),
            "errors": {evil: 1},
            "error_details": {evil: evil},
            "unexpected": {evil: 1},
            "ingress": {"host": evil, "reason": evil},
            "trajectory": tally.trajectory.encode(),
            "convergence": {"state": evil, "reason": evil, "replicas": [{"name": evil, "error": evil}]},
            "weights": {evil: 80},
            "sessions": [{**SESSIONS[0], "kind": evil, "destination": evil, "fate": evil, "detail": evil}],
            "versions": {"ansible": evil},
        }
    )
    assert "script" not in {tag for tag, _attributes in found.tags}
    assert found.text.count(evil) > 12
    assert found.all("h1") == [evil]
    check_junit(to_junit(report_data({**result, "expect": expect})))


@pytest.mark.parametrize(
    ("result", "verdict", "missing"),
    [
        (NOT_PROBED, "Not probed", "How the shares closed in"),
        (ERRORS_ONLY, "Fail", "How the shares closed in"),
        (verified(trajectory=None), "Pass", "How the shares closed in"),
        (verified(trajectory=""), "Pass", "How the shares closed in"),
        (verified(convergence=None), "Pass", "Replicas of the gateway"),
        ({**verified(), "profile": None}, "Pass", "How it was judged"),
        (verified(latency=None), "Pass", "From connect to reply"),
        ({}, "No verdict", "Expected and observed"),
    ],
    ids=lambda value: "" if isinstance(value, dict) else value,
)
def test_a_page_without_what_is_missing(result: dict[str, Any], verdict: str, missing: str) -> None:
    found = page(result)
    assert verdict in found.all("p")
    assert missing not in found.all("h2")
    if result.get("msg"):
        assert result["msg"] in found.text.replace("\n", "")


def test_held_sessions_are_told() -> None:
    data = report_data(verified(sessions=SESSIONS, sessions_lost=4))
    assert data["sessions"] == SESSIONS, "as they are"
    assert [row.detail for row in held_sessions(data)] == ["", "a reply of one", "Connection refused", ""]
    assert [(row.kind, row.fate, row.number, row.lived) for row in held_sessions(data)] == [
        ("idle", "closed", 2, (45.097, 45.276)),
        ("chatting", "garbled", 1, (1.796, 1.796)),
        ("chatting", "refused", 1, (0.001, 0.001)),
        ("idle", "alive", 2, (120.04, 120.06)),
    ]
    found = Page(to_html(data))
    assert "4 of 6 were lost." in found.all("p")
    cells = found.all("td")
    start = cells.index("one", cells.index("closed") - 2)
    assert cells[start : start + 5] == [
        "one",
        "2",
        "closed",
        "45.1 \u2013 45.3 s",
        "14:03:56.301 \u2013 14:03:56.480",
    ]
    assert "refused: Connection refused; garbled: a reply of one" in found.all("p")
    alive = cells.index("alive")
    assert cells[alive - 2 : alive + 3] == ["one", "2", "alive", "120.0 \u2013 120.1 s", "\u2013"]


def test_held_sessions_that_all_live() -> None:
    found = page(verified(sessions=SESSIONS[:2], sessions_lost=0))
    assert "All 2 lived to the end." in found.all("p")
    assert "Held sessions" not in page(verified(sessions=[], sessions_lost=0)).all("h2")


def test_the_page_of_errors() -> None:
    found = page(ERRORS_ONLY)
    assert [text for text in found.all("th") if text in ("refused", "unexpected", "three")] == [
        "refused",
        "unexpected",
        "three",
    ]
    assert "Connection refused" in found.all("td")


def plot(result: dict[str, Any]) -> ElementTree.Element:
    """The first picture of a page; the pages are well-formed but for the doctype and void elements."""
    text = to_html(report_data(result))
    return ElementTree.fromstring(text[text.index("<svg") : text.index("</svg>") + 6])


def points(element: ElementTree.Element | None) -> list[tuple[float, float]]:
    assert element is not None
    return [(float(pair.split(",")[0]), float(pair.split(",")[1])) for pair in element.get("points", "").split()]


@pytest.mark.parametrize("probes", [1, 2, 9, 49, 50, 51, 600, 5000])
@pytest.mark.parametrize("truth", [0.0, 0.5, 0.8, 1.0])
@pytest.mark.parametrize("profile", ["strict", "fixed"])
def test_the_plot_stays_within_its_frame(probes: int, truth: float, profile: str) -> None:
    picture = plot(verified(probes, truth, profile))
    lines = picture.findall("polyline")
    drawn = [point for line in [*lines, *picture.findall("polygon")] for point in points(line)]
    for x, y in drawn:
        assert LEFT <= x <= RIGHT
        assert TOP <= y <= BOTTOM
    final = picture.find("circle")
    assert final is not None
    assert (float(final.get("cx", "")), float(final.get("cy", ""))) == pytest.approx(points(lines[-1])[-1], abs=0.1)
    assert TOP < float(final.get("cy", "")) < BOTTOM, "the final share is always in sight"
    for told in picture.iter("text"):
        assert 0 <= float(told.get("x", "")) <= RIGHT + 10
        assert 0 <= float(told.get("y", "")) <= 236


def test_the_plot_closes_in() -> None:
    picture = plot(verified(2000))
    band = picture.find("rect[@class='band']")
    funnel = points(picture.find("polygon"))
    assert band is not None
    top = float(band.get("y", ""))
    bottom = top + float(band.get("height", ""))
    upper, lower = funnel[: len(funnel) // 2], funnel[len(funnel) // 2 :][::-1]
    assert [x for x, _y in upper] == [x for x, _y in lower]
    assert top < upper[-1][1] < lower[-1][1] < bottom, "a pass: at the end the funnel is inside the band"
    assert upper[0][1] < top < bottom < lower[0][1], "at first it is around it"


def test_what_one_points_at_is_told() -> None:
    told = [element.findtext("g/text") for element in plot(verified(2000)).findall("g")]
    assert len(told) == 40
    assert told[-1] == "80.5\u00a0% after 1,880"


def test_a_line_that_leaves_the_frame_is_cut_there() -> None:
    svg = ElementTree.Element("div")
    counts = [5, 10, 10, 10, 10, 50]
    draw(svg, Course("one", 0.5, 0.05, [10, 20, 40, 60, 80, 100], counts, None, []), "plot", "")
    first, second = (points(line) for line in svg.iter("polyline"))
    assert first[-1][1] == second[0][1] == pytest.approx(BOTTOM - 5)
    assert first[-1][0] < second[0][0]


def test_a_share_far_off_is_in_sight_without_an_interval_too() -> None:
    svg = ElementTree.Element("div")
    draw(svg, Course("one", 0.5, 0.05, [50, 100], [45, 90], None, []), "plot", "")
    (line,) = (points(line) for line in svg.iter("polyline"))
    assert TOP + 5 < line[-1][1] < BOTTOM / 2


def test_files(tmp_path: Path) -> None:
    directory = tmp_path / "a" / "b"
    found = write(str(directory), "run-1", verified())
    assert found == [str(directory / f"run-1.{suffix}") for suffix in ("json", "xml", "html")]
    assert sorted(path.name for path in directory.iterdir()) == ["run-1.html", "run-1.json", "run-1.xml"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()} == {0o644}
    assert json.loads((directory / "run-1.json").read_text())["name"] == "tcp-echo"
    ElementTree.parse(directory / "run-1.xml")
    write(str(directory), "run-1", {})
    assert json.loads((directory / "run-1.json").read_text()) == {"schema": 1, "name": "run-1"}


@pytest.mark.parametrize(
    "name", ["", ".", "..", ".hidden", "a/b", "a\\b", "/a", "a\nb", "a\0", "a\x7f", "\ud800", "ü" * 101]
)
def test_a_name_that_makes_no_file(name: str, tmp_path: Path) -> None:
    with pytest.raises(ReportError, match="name is ") as refusal:
        write(str(tmp_path), name, {})
    assert "\n" not in str(refusal.value)
    assert not list(tmp_path.iterdir())


def test_names_that_do() -> None:
    assert paths("reports", "tcp echo.v1 - ü") == {
        "json": "reports/tcp echo.v1 - ü.json",
        "junit": "reports/tcp echo.v1 - ü.xml",
        "html": "reports/tcp echo.v1 - ü.html",
    }


def test_a_directory_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ReportError) as refusal:
        write(str(tmp_path / "file"), "run", {})
    assert str(refusal.value) == (
        f"the reports cannot be written to '{tmp_path}/file': File exists; give a directory that can be written to"
    )
    with pytest.raises(ReportError, match="embedded null byte"):
        write("a\0", "run", {})


def test_a_report_that_cannot_be_finished_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(str(tmp_path), "run", {"msg": "old"})

    def refuse(self: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(ReportError, match="No space left on device"):
        write(str(tmp_path), "run", {"msg": "new"})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run.html", "run.json", "run.xml"]
    assert json.loads((tmp_path / "run.json").read_text())["msg"] == "old"


rubbish = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=3),
    max_leaves=6,
)
counts = st.dictionaries(st.sampled_from(["one", "two", "<b>", "a:b@c", "\ud800"]), st.integers(-1, 200) | st.floats())


def trajectory_of(words: list[str]) -> str:
    tally = Tally(["one", "two"])
    for word in words:
        tally.add("" if word else "reset", word, 0.1)
    return tally.trajectory.encode()


trajectories = st.lists(st.sampled_from(["one", "two", ""]), max_size=40).map(trajectory_of)
results = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(verified(), rubbish),
        "verdict": st.sampled_from(["pass", "fail", "inconclusive", "not probed", "", "<"]) | rubbish,
        "profile": st.sampled_from(["strict", "quick", "fixed", ""]) | rubbish,
        "tolerance": st.floats() | rubbish,
        "beta": st.floats(0, 1) | rubbish,
        "probes": st.integers(0, 200) | rubbish,
        "expect": counts,
        "counts": counts,
        "shares": st.dictionaries(st.sampled_from(["one", "two"]), st.floats(0, 1)),
        "intervals": st.dictionaries(st.sampled_from(["one", "two"]), st.tuples(st.floats(), st.floats())),
        "errors": counts | rubbish,
        "trajectory": trajectories | rubbish,
        "sessions": st.lists(st.fixed_dictionaries({}, optional=dict.fromkeys(SESSIONS[0], rubbish)), max_size=5),
        "sessions_lost": rubbish,
        "error_rates": st.dictionaries(st.sampled_from(["false_pass", "false_fail", "edge"]), st.floats(0, 1)),
        "convergence": st.fixed_dictionaries(
            {},
            optional={
                "state": st.text(max_size=3),
                "replicas": st.lists(st.fixed_dictionaries({}, optional={"ok": rubbish, "weights": rubbish})),
            },
        ),
    },
)


@settings(max_examples=100)
@given(results)
def test_a_report_can_be_made_of_whatever_there_is(result: dict[str, Any]) -> None:
    data = report_data(result)
    assert report_data({**data, **{key: result[key] for key in ("trajectory",) if key in result}}) == data
    json.loads(to_json(data).encode())
    check_junit(to_junit(data))
    Page(to_html(data))
    to_html(data).encode()
