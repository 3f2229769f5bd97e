# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The action tcp_probe: what it passes on, what it returns, what it refuses; the engine is replaced."""

from __future__ import annotations

import json
from collections.abc import Generator
from typing import Any, ClassVar
from unittest.mock import MagicMock

import pytest
import yaml
from ansible.errors import AnsibleActionFail, AnsibleActionSkip
from ansible_collections.trafficshift.istio.plugins.action import tcp_probe
from ansible_collections.trafficshift.istio.plugins.modules import tcp_probe as documentation
from ansible_collections.trafficshift.istio.plugins.plugin_utils._probe_engine import Outcome

ARGS: dict[str, Any] = {"host": "192.0.2.1", "port": 31400, "expect": {"one": 80, "two": 20}}
RIGHT = [("", "one", 0.01)] * 8 + [("", "two", 0.02)] * 2


class FakeEngine:
    """Plays outcomes; keeps what it was made with."""

    plays: ClassVar[list[Outcome]] = []
    made: ClassVar[dict[str, Any]] = {}
    told = 0

    def __init__(self, addresses: list[Any], protocol: Any, **settings: Any) -> None:
        FakeEngine.made = {"addresses": addresses, "payload": protocol.payload(), **settings}
        FakeEngine.told = 0
        self.address = "192.0.2.1"

    def outcomes(self) -> Generator[Outcome, None, None]:
        for outcome in self.plays:
            FakeEngine.told += 1
            yield outcome


def run(args: dict[str, Any], check_mode: bool = False) -> dict[str, Any]:
    task = MagicMock(args=args, check_mode=check_mode, async_val=0)
    action = tcp_probe.ActionModule(task, MagicMock(), MagicMock(), MagicMock(), MagicMock(), MagicMock())
    return action.run()


@pytest.fixture(autouse=True)
def engine(monkeypatch: pytest.MonkeyPatch) -> type[FakeEngine]:
    monkeypatch.setattr(tcp_probe, "Engine", FakeEngine)
    FakeEngine.plays, FakeEngine.made = RIGHT, {}
    return FakeEngine


def test_pass() -> None:
    result = run({**ARGS, "probes": 10})
    assert (result["failed"], result["changed"]) == (False, False)
    assert (result["verdict"], result["passed"]) == ("pass", True)
    assert result["counts"] == {"one": 8, "two": 2}
    assert result["shares"] == {"one": 0.8, "two": 0.2}
    assert (result["errors"], result["deviations"], result["unexpected"]) == ({}, [], {})
    assert result["probes"] == 10
    assert result["latency"]["max"] == 0.02
    assert result["msg"] == (
        "192.0.2.1:31400: the split is as expected, one 80 %, two 20 % (seen in 10 probes: one 8, two 2)"
    )


def test_fail_keeps_the_whole_result(engine: type[FakeEngine]) -> None:
    engine.plays = [*RIGHT, ("unexpected", "three", 0.1), ("reset", "Connection reset by peer", 0.1)]
    result = run({**ARGS, "expect": {"one": 50, "two": 50}, "probes": 12})
    assert (result["failed"], result["verdict"], result["passed"]) == (True, "fail", False)
    assert result["errors"] == {"unexpected": 1, "reset": 1}
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
    assert result["probes"] == engine.told == 10
    assert result["msg"].endswith(", nothing answered, so the run ended early")
    engine.plays = [*[("refused", "Connection refused", 0.0)] * 9, ("", "one", 0.1), *RIGHT]
    assert run({**ARGS, "probes": 20})["probes"] == 20


def test_what_the_engine_gets(engine: type[FakeEngine]) -> None:
    run({**ARGS, "host": "::1", "probes": 3, "concurrency": 2, "interval": "0.5", "timeout": 7, "payload": "hi"})
    assert [address.sockaddr[:2] for address in engine.made.pop("addresses")] == [("::1", 31400)]
    assert engine.made == {"payload": b"hi\n", "probes": 3, "concurrency": 2, "interval": 0.5, "timeout": 7.0}


def test_percentages_that_older_templates_made_strings() -> None:
    result = run({**ARGS, "expect": {"one": "80", "two": "20.0"}})
    assert result["expect"] == {"one": 80, "two": 20.0}
    assert result["passed"]


def test_a_number_as_reply_word() -> None:
    with pytest.raises(AnsibleActionFail, match="sum to 99"):
        run({**ARGS, "expect": {1: 99}})


def test_check_mode_skips_but_still_refuses(engine: type[FakeEngine]) -> None:
    with pytest.raises(AnsibleActionSkip, match="check mode: not probed"):
        run(ARGS, check_mode=True)
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
        ({"host": "nope.invalid"}, "host 'nope.invalid' does not resolve (Name or service not known); check the name"),
        ({"expect": {}}, "expect names no destination"),
        ({"expect": {"one": 90}}, "the percentages in expect sum to 90 (one 90 %); make them sum to 100"),
        ({"expect": {"one": "many"}}, "expect gives one 'many' percent; give a number from 0 to 100"),
        ({"expect": {"one": -1, "two": 101}}, "expect gives one -1 percent; give a number from 0 to 100"),
        ({"expect": {"one": True, "two": 99}}, "expect gives one True percent; give a number from 0 to 100"),
        ({"expect": {True: 100}}, "expect has the key True"),
        ({"tolerance": 0}, "tolerance is 0.0; give a fraction between 0 and 1"),
        ({"tolerance": 5}, "tolerance is 5.0; give a fraction between 0 and 1"),
        ({"tolerance": True}, "tolerance is True; give a fraction between 0 and 1"),
        ({"probes": 0}, "probes is 0; give a whole number of at least 1"),
        ({"concurrency": 0}, "concurrency is 0; give a whole number of at least 1"),
        ({"interval": -1}, "interval is -1.0; give the seconds between two starts, 0 for no pause"),
        ({"timeout": 0}, "timeout is 0.0; give the seconds that a probe may take, more than 0"),
        ({"timeout": True}, "timeout is True; give the seconds that a probe may take, more than 0"),
        ({"payload": "x" * 4096}, "payload has 4097 bytes; at most 4096 are sent, shorten it"),
        ({"port": "http"}, "argument 'port' is of type str and we were unable to convert to int"),
        ({"prots": 1}, "Unsupported parameters for"),
    ],
)
def test_refused(args: dict[str, Any], message: str, engine: type[FakeEngine]) -> None:
    with pytest.raises(AnsibleActionFail) as refusal:
        run({**ARGS, **args})
    assert str(refusal.value).startswith(message)
    assert "\n" not in str(refusal.value)
    assert refusal.value.__cause__ is None, "would be told a second time"
    assert not engine.made


def test_documentation_agrees() -> None:
    options = yaml.safe_load(documentation.DOCUMENTATION)["options"]
    plain = {
        name: {key: value for key, value in option.items() if key != "description"} for name, option in options.items()
    }
    assert plain == tcp_probe.ARGUMENTS
    result = run(ARGS)
    assert set(yaml.safe_load(documentation.RETURN)) == set(result) - {"changed", "failed"}
    json.dumps(result)
