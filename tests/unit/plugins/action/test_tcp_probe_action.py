# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The action tcp_probe: what it passes on, what it returns, what it refuses; the engine is replaced."""

from __future__ import annotations

import json
import ssl
from collections.abc import Generator
from typing import Any, ClassVar
from unittest.mock import MagicMock

import pytest
import yaml
from ansible.errors import AnsibleActionFail
from ansible_collections.trafficshift.istio.plugins.action import tcp_probe
from ansible_collections.trafficshift.istio.plugins.module_utils._tally import Trajectory
from ansible_collections.trafficshift.istio.plugins.modules import tcp_probe as documentation
from ansible_collections.trafficshift.istio.plugins.plugin_utils import _probe_task
from ansible_collections.trafficshift.istio.plugins.plugin_utils._measure import Prober
from ansible_collections.trafficshift.istio.plugins.plugin_utils._probe_engine import Outcome

ARGS: dict[str, Any] = {"host": "192.0.2.1", "port": 31400, "expect": {"one": 80, "two": 20}}
RIGHT = [("", "one", 0.01)] * 8 + [("", "two", 0.02)] * 2
ENDLESS = RIGHT * 1000


class FakeEngine:
    """Plays outcomes; keeps what it was made with."""

    plays: ClassVar[list[Outcome]] = []
    made: ClassVar[dict[str, Any]] = {}
    told = 0

    def __init__(self, addresses: list[Any], protocol: Any, **settings: Any) -> None:
        FakeEngine.made = {"addresses": addresses, "payload": protocol.payload(), **settings}
        FakeEngine.told = 0
        self.address = "192.0.2.1"
        self.probes = settings["probes"]

    def stop(self) -> None:
        self.probes = FakeEngine.told + 3  # under way

    def outcomes(self) -> Generator[Outcome, None, None]:
        for outcome in self.plays:
            if FakeEngine.told >= self.probes:
                return
            FakeEngine.told += 1
            yield outcome


def run(args: dict[str, Any], check_mode: bool = False) -> dict[str, Any]:
    task = MagicMock(args=args, check_mode=check_mode, async_val=0)
    action = tcp_probe.ActionModule(task, MagicMock(), MagicMock(), MagicMock(), MagicMock(), MagicMock())
    return action.run()


LIVES: dict[str, Any] = {
    "kind": "idle",
    "destination": "one",
    "opened": "2026-07-09T14:03:11.204Z",
    "fate": "alive",
    "died": None,
    "lived": 60.0,
    "exchanges": 2,
    "detail": "",
}


class FakeCanary:
    """Has sessions of given fates; keeps what it was made with, and what was done with it."""

    sessions: ClassVar[list[dict[str, Any]]] = []
    made: ClassVar[dict[str, Any]] = {}
    done: ClassVar[list[str]] = []

    def __init__(self, addresses: list[Any], _protocol: Any, **settings: Any) -> None:
        FakeCanary.made = {"addresses": addresses, **settings}

    def start(self) -> None:
        self.done.append(f"started before probe {FakeEngine.told}")

    def stop(self) -> list[dict[str, Any]]:
        self.done.append(f"stopped after probe {FakeEngine.told}")
        return self.sessions


@pytest.fixture
def canary(monkeypatch: pytest.MonkeyPatch) -> type[FakeCanary]:
    monkeypatch.setattr(_probe_task, "SessionCanary", FakeCanary)
    FakeCanary.sessions, FakeCanary.made, FakeCanary.done = [LIVES] * 3, {}, []
    return FakeCanary


@pytest.fixture(autouse=True)
def engine(monkeypatch: pytest.MonkeyPatch) -> type[FakeEngine]:
    monkeypatch.setattr(_probe_task, "Engine", FakeEngine)
    FakeEngine.plays, FakeEngine.made, FakeEngine.told = RIGHT, {}, 0
    return FakeEngine


def test_the_written_task_s_way() -> None:
    result = run({**ARGS, "probes": 10})
    assert (result["failed"], result["changed"]) == (False, False)
    assert (result["verdict"], result["passed"], result["profile"]) == ("pass", True, "fixed")
    assert result["counts"] == {"one": 8, "two": 2}
    assert result["shares"] == {"one": 0.8, "two": 0.2}
    assert (result["errors"], result["deviations"], result["unexpected"]) == ({}, [], {})
    assert (result["probes"], result["runs"], result["more"]) == (10, 1, None)
    assert result["latency"]["max"] == 0.02
    # Ten probes cannot tell much, and the result says so: 8 of 10 is the only count within 5 points.
    assert result["error_rates"]["false_fail"] == pytest.approx(1 - 45 * 0.8**8 * 0.2**2)
    assert result["msg"] == (
        "192.0.2.1:31400: the split is as expected, one 80 %, two 20 % (seen in 10 probes: one 8, two 2)"
    )


def test_stops_when_the_evidence_suffices(engine: type[FakeEngine]) -> None:
    engine.plays = ENDLESS
    result = run(ARGS)
    assert (result["verdict"], result["profile"], result["error_rates"]) == (
        "pass",
        "strict",
        {"false_fail": 0.001, "false_pass": 0.001},
    )
    assert result["probes"] % 50 == 0 and 500 < result["probes"] < 2000
    assert engine.told == result["probes"] + 3
    # What was under way is no evidence, but the gateway has seen it.
    assert sum(result["connections"].values()) == engine.told
    assert sum(result["counts"].values()) == result["probes"]
    low, high = result["intervals"]["one"]
    assert 0.75 < low < 0.8 < high < 0.85
    probes, counts = Trajectory.decode(result["trajectory"])
    assert (probes[-1], counts["one"][-1]) == (result["probes"], result["counts"]["one"])
    quick = run({**ARGS, "profile": "quick"})
    assert quick["probes"] < result["probes"]


def test_inconclusive_is_no_pass(engine: type[FakeEngine]) -> None:
    engine.plays = ([("", "one", 0.01)] * 39 + [("", "two", 0.01)] * 11) * 100
    result = run({**ARGS, "max_probes": 1000})
    assert (result["failed"], result["verdict"], result["passed"]) == (True, "inconclusive", False)
    assert result["more"] > 0
    assert "more probes would settle it" in result["msg"]


def test_fail_keeps_the_whole_result(engine: type[FakeEngine]) -> None:
    engine.plays = [*RIGHT, ("unexpected", "three", 0.1), ("reset", "Connection reset by peer", 0.1)]
    result = run({**ARGS, "expect": {"one": 50, "two": 50}, "probes": 12})
    assert (result["failed"], result["verdict"], result["passed"]) == (True, "fail", False)
    assert result["errors"] == {"unexpected": 1, "reset": 1}
    assert (result["connections"], result["unanswered"]) == ({"one": 8, "two": 2}, 2)
    assert result["unexpected"] == {"three": 1}
    assert result["error_details"]["reset"] == "Connection reset by peer"
    assert [deviation["destination"] for deviation in result["deviations"]] == ["two", "one"]
    assert result["msg"] == (
        "192.0.2.1:31400: 2 of 12 probes got no valid answer: "
        "1 unexpected (three), 1 reset (Connection reset by peer); "
        "two got 16.67 % where 50 % ± 5 points was expected; one got 66.67 % where 50 % ± 5 points was expected "
        "(seen in 12 probes: one 8, two 2)"
    )


def test_ends_early_when_nothing_answers(engine: type[FakeEngine]) -> None:
    engine.plays = [("refused", "Connection refused", 0.0)] * 100
    result = run({**ARGS, "probes": 100})
    assert (result["probes"], engine.told) == (10, 13)
    assert result["msg"].endswith(", nothing answered, so the run ended early")


def test_what_the_engine_gets(engine: type[FakeEngine]) -> None:
    run({**ARGS, "host": "::1", "probes": 3, "concurrency": 2, "interval": "0.5", "timeout": 7, "payload": "hi"})
    assert [address.sockaddr[:2] for address in engine.made.pop("addresses")] == [("::1", 31400)]
    expected = {"payload": b"hi\n", "probes": 3, "concurrency": 2, "interval": 0.5, "timeout": 7.0, "source": None}
    assert engine.made == expected
    run({**ARGS, "payload_base64": "AAEC", "protocol": "exchange", "match": "(.)", "source": "127.0.0.1"})
    assert (engine.made["payload"], engine.made["source"]) == (b"\x00\x01\x02", "127.0.0.1")
    run({**ARGS, "tls": True})
    assert (engine.made["server_name"], engine.made["tls"].verify_mode) == ("192.0.2.1", ssl.CERT_REQUIRED)
    run({**ARGS, "tls": True, "tls_server_name": "echo.example.com"})
    assert engine.made["server_name"] == "echo.example.com"


def test_a_source_that_cannot_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    with pytest.raises(AnsibleActionFail, match="source 'nowhere' is no IP address; give one of this machine"):
        run({**ARGS, "source": "nowhere"})


def test_connect_is_about_errors_alone(engine: type[FakeEngine]) -> None:
    connect = {name: value for name, value in ARGS.items() if name != "expect"} | {"protocol": "connect"}
    engine.plays = [("", "connected", 0.01)] * 500
    result = run({**connect, "probes": 20})
    assert (result["verdict"], result["counts"]) == ("pass", {"connected": 20})
    engine.plays = [*engine.plays[:19], ("refused", "Connection refused", 0.0)]
    assert run({**connect, "probes": 20})["verdict"] == "fail"
    assert run({**connect, "probes": 20, "max_errors": 1})["verdict"] == "pass"


def test_waits_for_an_answer(engine: type[FakeEngine], monkeypatch: pytest.MonkeyPatch) -> None:
    refused = [("refused", "Connection refused", 0.0)]
    tries = [refused, refused, RIGHT[:1], ENDLESS]
    pauses: list[float] = []

    class Waiting(FakeEngine):
        def outcomes(self) -> Generator[Outcome, None, None]:
            self.plays = tries.pop(0)  # type: ignore[misc]
            return super().outcomes()

    monkeypatch.setattr(_probe_task, "Engine", Waiting)
    monkeypatch.setattr(
        _probe_task, "Prober", lambda *args: Prober(*args, clock=lambda: sum(pauses), sleep=pauses.append)
    )
    result = run({**ARGS, "ready_timeout": 30})
    assert result["passed"] and result["errors"] == {}
    assert result["unanswered"] == 2
    assert sum(result["connections"].values()) == result["probes"] + 3 + 1
    assert pauses == [0.1, 0.2]


class TestSessionCanary:
    def test_it_is_held_while_there_are_probes(self, canary: type[FakeCanary]) -> None:
        options = {"idle": 1, "chatting": "2", "interval": 0.5}
        result = run(
            {**ARGS, "probes": 10, "timeout": 7, "source": "127.0.0.1", "tls": True, "session_canary": options}
        )
        assert [address.sockaddr[:2] for address in canary.made.pop("addresses")] == [("192.0.2.1", 31400)]
        assert canary.made.pop("tls").verify_mode == ssl.CERT_REQUIRED
        expected = {"idle": 1, "chatting": 2, "chat_interval": 0.5, "timeout": 7.0, "source": "127.0.0.1"}
        assert canary.made == {**expected, "server_name": "192.0.2.1"}
        assert canary.done == ["started before probe 0", "stopped after probe 10"]
        assert (result["sessions"], result["sessions_lost"], result["passed"]) == ([LIVES] * 3, 0, True)
        assert result["msg"].endswith("(seen in 10 probes: one 8, two 2)")
        # They are no evidence, but the gateway has seen them.
        assert (result["counts"], result["connections"]) == ({"one": 8, "two": 2}, {"one": 11, "two": 2})

    def test_its_defaults(self, canary: type[FakeCanary]) -> None:
        run({**ARGS, "probes": 10, "session_canary": {}})
        assert (canary.made["idle"], canary.made["chatting"], canary.made["chat_interval"]) == (5, 5, 1.0)

    @pytest.mark.parametrize(("most", "passed"), [(None, True), (3, True), (2, False), (0, False)])
    def test_lost_sessions_are_told(self, most: int | None, passed: bool, canary: type[FakeCanary]) -> None:
        closed, reset = {**LIVES, "fate": "closed"}, {**LIVES, "fate": "reset", "destination": "two"}
        canary.sessions = [reset, LIVES, closed, closed, {**LIVES, "destination": None}]
        result = run({**ARGS, "probes": 10, "session_canary": {} if most is None else {"max_sessions_lost": most}})
        assert (result["sessions_lost"], result["passed"], result["failed"]) == (3, passed, not passed)
        assert result["verdict"] == ("pass" if passed else "fail")
        assert (result["connections"], result["unanswered"]) == ({"one": 11, "two": 3}, 1)
        allowed = "" if most is None else f", {most} may be"
        assert result["msg"].endswith(f"; 3 of 5 held sessions were lost{allowed}: 2 closed, 1 reset")

    def test_connections_alone(self, canary: type[FakeCanary], engine: type[FakeEngine]) -> None:
        engine.plays = [("", "connected", 0.01)] * 20
        canary.sessions = [{**LIVES, "destination": None, "fate": fate} for fate in ("alive", "reset", "refused")]
        args = {name: value for name, value in ARGS.items() if name != "expect"} | {"protocol": "connect", "probes": 20}
        result = run({**args, "session_canary": {"chatting": 0}})
        assert (result["connections"], result["unanswered"]) == ({"connected": 22}, 1)

    def test_hold(self, canary: type[FakeCanary], monkeypatch: pytest.MonkeyPatch) -> None:
        pauses: list[float] = []
        monkeypatch.setattr(_probe_task.time, "sleep", pauses.append)
        run({**ARGS, "probes": 10, "session_canary": {"hold": 60}})
        assert 30 < pauses.pop() <= 60
        run({**ARGS, "probes": 10, "session_canary": {}})
        assert pauses == [0]

    def test_it_waits_until_there_is_somebody_to_answer(self, canary: type[FakeCanary]) -> None:
        run({**ARGS, "probes": 10, "ready_timeout": 5, "session_canary": {}})
        assert canary.done[0] == "started before probe 1"

    def test_it_ends_with_the_task_whatever_ends_that(
        self, canary: type[FakeCanary], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def interrupt(*_args: Any) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(Prober, "measure", interrupt)
        with pytest.raises(KeyboardInterrupt):
            run({**ARGS, "session_canary": {}})
        assert [done.split()[0] for done in canary.done] == ["started", "stopped"]


def test_percentages_that_older_templates_made_strings() -> None:
    result = run({**ARGS, "expect": {"one": "80", "two": "20.0"}, "probes": 10})
    assert result["expect"] == {"one": 80, "two": 20.0}
    assert result["passed"]


def test_a_number_as_reply_word() -> None:
    with pytest.raises(AnsibleActionFail, match="sum to 99"):
        run({**ARGS, "expect": {1: 99}})


def test_check_mode_skips_but_still_refuses(engine: type[FakeEngine]) -> None:
    result = run(ARGS, check_mode=True)
    assert result["skipped"] and result["msg"].startswith("check mode: not probed")
    # The question as it would be asked, for a report on why it was not.
    assert (result["tolerance"], result["max_probes"], result["expect"]) == (0.05, 5000, ARGS["expect"])
    assert "verdict" not in result
    with pytest.raises(AnsibleActionFail, match="sum to 90"):
        run({**ARGS, "expect": {"one": 90}}, check_mode=True)
    assert not engine.made


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"port": 0}, "port is 0; give a whole number from 1 to 65535"),
        ({"port": 70000}, "port is 70000; give a whole number from 1 to 65535"),
        ({"port": True}, "port is True; give a whole number from 1 to 65535"),
        ({"host": ""}, "host is empty; give a name, an IPv4 or an IPv6 address"),
        # What follows in parentheses is the resolver's own word, another one where there is no network.
        ({"host": "nope.invalid"}, "host 'nope.invalid' does not resolve ("),
        ({"expect": {}}, "expect names no destination"),
        ({"expect": None}, "expect is missing; give a mapping of reply word to percent"),
        ({"protocol": "connect"}, "expect goes with replies, and the protocol connect waits for none"),
        ({"protocol": "exchange", "payload": "x"}, "protocol exchange has no match"),
        ({"protocol": "banner", "match": "v[0-9]"}, "match 'v[0-9]' has no group"),
        ({"protocol": "smtp"}, "value of protocol must be one of: line, connect, banner, exchange, got: smtp"),
        ({"payload": "x", "payload_base64": "eA=="}, "parameters are mutually exclusive: payload|payload_base64"),
        ({"payload_base64": "?"}, "payload_base64 is no base64"),
        ({"profile": "fast"}, "value of profile must be one of: strict, quick, fixed, got: fast"),
        ({"profile": "strict", "probes": 10}, "probes has no meaning in the profile strict"),
        ({"probes": 10, "alpha": 0.01}, "alpha has no meaning in the profile fixed"),
        ({"alpha": 0.7}, "alpha is 0.7; give the chance of a wrong verdict, above 0 and below 0.5"),
        ({"beta": 0}, "beta is 0.0; give the chance of a wrong verdict, above 0 and below 0.5"),
        ({"tolerance": 0.8}, "tolerance is 0.8, which lets one have any share from 0 to 100 %; give less than 0.8"),
        ({"max_probes": 100}, "max_probes is 100, with which nothing can pass at a tolerance of 0.05; give at least"),
        ({"max_errors": -1}, "max_errors is -1; give a whole number from 0"),
        ({"ready_timeout": -1}, "ready_timeout is -1.0; give the seconds to wait, 0 for none"),
        ({"settle_timeout": True}, "settle_timeout is True; give the seconds to wait, 0 for none"),
        ({"tls_server_name": "a"}, "tls_server_name is given and tls is not"),
        ({"tls": True, "tls_ca_file": "/nowhere"}, "ca_file '/nowhere' cannot be read"),
        ({"expect": {"one": 90}}, "the percentages in expect sum to 90 (one 90 %); make them sum to 100"),
        ({"expect": {"one": "many"}}, "expect gives one 'many' percent; give a number from 0 to 100"),
        ({"expect": {"one": -1, "two": 101}}, "expect gives one -1 percent; give a number from 0 to 100"),
        ({"expect": {"one": True, "two": 99}}, "expect gives one True percent; give a number from 0 to 100"),
        ({"expect": {True: 100}}, "expect has the key True"),
        ({"tolerance": 0}, "tolerance is 0.0; give a fraction between 0 and 1"),
        ({"tolerance": 5}, "tolerance is 5.0; give a fraction between 0 and 1"),
        ({"tolerance": True}, "tolerance is True; give a fraction between 0 and 1"),
        ({"probes": 0}, "probes is 0; give a whole number, at least 1"),
        ({"concurrency": 0}, "concurrency is 0; give a whole number of at least 1"),
        ({"interval": -1}, "interval is -1.0; give the seconds between two starts, 0 for no pause"),
        ({"timeout": 0}, "timeout is 0.0; give the seconds that a probe may take, more than 0"),
        ({"timeout": True}, "timeout is True; give the seconds that a probe may take, more than 0"),
        ({"payload": "x" * 4096}, "payload has 4097 bytes; at most 4096 are sent, shorten it"),
        ({"port": "http"}, "argument 'port' is of type str and we were unable to convert to int"),
        ({"prots": 1}, "Unsupported parameters for"),
        (
            {"session_canary": {"idle": -1}},
            "session_canary: idle is -1; give the number of sessions to hold, 0 for none",
        ),
        ({"session_canary": {"idle": 200}}, "session_canary: idle and chatting make 205 sessions to hold; give from 1"),
        ({"session_canary": {"interval": True}}, "session_canary: interval is True; give the seconds between two"),
        (
            {"session_canary": {"hold": True}},
            "session_canary: hold is True; give the seconds to hold the sessions, from",
        ),
        ({"session_canary": {"hold": 1e12}}, "session_canary: hold is 1000000000000.0; give the seconds to hold the"),
        ({"session_canary": {"max_sessions_lost": -1}}, "session_canary: max_sessions_lost is -1; give the number of"),
        ({"session_canary": {"max_sessions_lost": True}}, "session_canary: max_sessions_lost is True; give the number"),
        (
            {"session_canary": {}, "protocol": "banner"},
            "session_canary: chatting is 5, and the protocol has nothing to",
        ),
        ({"session_canary": {"idel": 1}}, "Unsupported parameters for"),
    ],
)
def test_refused(args: dict[str, Any], message: str, engine: type[FakeEngine]) -> None:
    with pytest.raises(AnsibleActionFail) as refusal:
        run({**ARGS, **args})
    assert str(refusal.value).startswith(message)
    assert "\n" not in str(refusal.value)
    assert refusal.value.__cause__ is None, "would be told a second time"
    assert not engine.made


def specified(options: dict[str, Any]) -> dict[str, Any]:
    """An argument spec, as the options in the documentation have it."""
    names = {"suboptions": "options"}
    return {
        name: {
            names.get(key, key): specified(value) if key == "suboptions" else value
            for key, value in option.items()
            if key != "description"
        }
        for name, option in options.items()
    }


def test_documentation_agrees(canary: type[FakeCanary]) -> None:
    assert specified(yaml.safe_load(documentation.DOCUMENTATION)["options"]) == _probe_task.OPTIONS
    returned = yaml.safe_load(documentation.RETURN)
    result = run({**ARGS, "probes": 10, "session_canary": {}})
    assert set(returned) == set(result) - {"changed", "failed"}
    assert set(returned["sessions"]["contains"]) == set(LIVES)
    assert [set(session) for session in returned["sessions"]["sample"]] == [set(LIVES)] * 2
    json.dumps(result)
    assert {"sessions", "sessions_lost"} == set(result) - set(run({**ARGS, "probes": 10}))
