# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One probe task: options in, measurement made, evidence and verdict out. Knows nothing of Ansible.

Its options and its result are documented in plugins/modules/tcp_probe.py.
"""

from __future__ import annotations

import base64
import binascii
import re
import time
import traceback
from collections import Counter
from collections.abc import Mapping
from typing import Any

from ansible_collections.trafficshift.istio.plugins.module_utils._verdict import PROFILES, Question, ask, error_rates
from ansible_collections.trafficshift.istio.plugins.plugin_utils._measure import Prober, Watch
from ansible_collections.trafficshift.istio.plugins.plugin_utils._probe_engine import (
    Address,
    Engine,
    check_address,
    check_settings,
    resolve,
    tls_context,
)
from ansible_collections.trafficshift.istio.plugins.plugin_utils._probe_protocols import (
    CONNECTED,
    PROTOCOLS,
    make_protocol,
)
from ansible_collections.trafficshift.istio.plugins.plugin_utils._session_canary import SessionCanary, check_canary

# As an argument spec of Ansible's has it.
OPTIONS: dict[str, dict[str, Any]] = {
    "host": {"type": "str", "required": True},
    "port": {"type": "int", "required": True},
    "expect": {"type": "dict"},
    "protocol": {"type": "str", "default": "line", "choices": list(PROTOCOLS)},
    "payload": {"type": "str"},
    "payload_base64": {"type": "str"},
    "match": {"type": "str"},
    "profile": {"type": "str", "choices": list(PROFILES)},
    "tolerance": {"type": "float"},
    "alpha": {"type": "float"},
    "beta": {"type": "float"},
    "max_probes": {"type": "int"},
    "max_errors": {"type": "int", "default": 0},
    "probes": {"type": "int"},
    "concurrency": {"type": "int", "default": 20},
    "interval": {"type": "float", "default": 0.0},
    "timeout": {"type": "float", "default": 5.0},
    "ready_timeout": {"type": "float", "default": 0.0},
    "settle_timeout": {"type": "float", "default": 0.0},
    "source": {"type": "str"},
    "tls": {"type": "bool", "default": False},
    "tls_server_name": {"type": "str"},
    "tls_ca_file": {"type": "path"},
    "session_canary": {
        "type": "dict",
        "options": {
            "idle": {"type": "int", "default": 5},
            "chatting": {"type": "int", "default": 5},
            "interval": {"type": "float", "default": 1.0},
            "hold": {"type": "float", "default": 0.0},
            "max_sessions_lost": {"type": "int"},
        },
    },
}
BOOLEANS = ("tls",)
MUTUALLY_EXCLUSIVE = [("payload", "payload_base64")]
LONGEST_HOLD = 86400  # seconds


def with_defaults(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options with the defaults of those that are missing, as ProbeTask takes them.

    Raises ValueError, in one sentence, for an unknown option and for a required one that is missing.
    """
    filled = _filled(OPTIONS, options, "the probe")
    if filled["session_canary"] is not None:
        held = _filled(OPTIONS["session_canary"]["options"], filled["session_canary"], "session_canary")
        filled["session_canary"] = held
    return filled


def _filled(known: Mapping[str, Mapping[str, Any]], options: Mapping[str, Any], owner: str) -> dict[str, Any]:
    for name in options:
        if name not in known:
            raise ValueError(f"{owner} has no option {name!r}; give some of {', '.join(known)}")
    for name, option in known.items():
        if option.get("required") and options.get(name) is None:
            raise ValueError(f"{owner} has no {name}; give it")
    return {name: option.get("default") for name, option in known.items()} | dict(options)


class ProbeTask:
    """Probes one place until its question is answered; may be run again and again.

    `place` is host and port for messages, `question` what is going to be judged.
    """

    def __init__(self, args: Mapping[str, Any], *, offline: bool = False) -> None:
        """Take all options, as plain types, with their defaults (see with_defaults).

        With `offline`, for a task that is not going to be run, what takes the network to check is not: whether the host
        resolves and the source can be used. Raises ValueError, in one sentence, for what makes no sense or cannot be.
        """
        host, port = args["host"], args["port"]
        self.place = f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}"
        check_address(host, port)
        self.question = _question(args)
        self._settings = {name: args[name] for name in ("concurrency", "interval", "timeout")}
        check_settings(probes=self.question.max_probes, **self._settings)
        for name in ("ready_timeout", "settle_timeout"):
            if isinstance(args[name], bool) or not 0 <= args[name] < float("inf"):
                raise ValueError(f"{name} is {args[name]!r}; give the seconds to wait, 0 for none")
        self._args = args
        self._protocol = make_protocol(args["protocol"], self.question.expect, _payload(args), args["match"])
        self._settings.update(_tls(args), source=args["source"])
        self._held: dict[str, Any] = args["session_canary"] or {}
        if self._held:
            self._check_held(self._held)
        self._addresses: list[Address] = []
        if not offline:
            self._addresses = resolve(host, port)
            self.make_engine(1)  # refuses, before anything waits, what cannot be

    def make_engine(self, probes: int) -> Engine:
        """Return an engine for so many probes."""
        return Engine(self._addresses, self._protocol, probes=probes, **self._settings)

    def make_canary(self, *, idle: int, chatting: int, interval: float) -> SessionCanary:
        """Return a canary that would hold sessions where the probes go. Raises ValueError, in one sentence."""
        settings: dict[str, Any] = {
            name: self._settings[name] for name in ("timeout", "source", "tls", "server_name") if name in self._settings
        }
        settings.update(idle=idle, chatting=chatting, chat_interval=interval)
        return SessionCanary(self._addresses, self._protocol, **settings)

    def run(self, watch: Watch | None = None) -> dict[str, Any]:
        """Probe; return the evidence and the verdict.

        An exception out of a signal handler ends the run: it comes through, and all connections are closed.
        """
        prober = Prober(self.make_engine, watch)
        held = self._held
        canary = self.make_canary(**{name: held[name] for name in ("idle", "chatting", "interval")}) if held else None
        began = time.monotonic()
        try:
            if self._args["ready_timeout"]:
                prober.wait_for_answer(self._args["ready_timeout"])
            if canary:
                canary.start()
            held_since = time.monotonic()
            question, tally, verdict, hopeless = prober.measure(self.question, self._args["settle_timeout"])
            if canary:
                time.sleep(max(0.0, held["hold"] - (time.monotonic() - held_since)))
                sessions = canary.stop()
        except BaseException as error:
            if canary:
                canary.stop()
            # It may have come between two lines that make or close a socket, and its traceback would keep that open.
            traceback.clear_frames(error.__traceback__)
            raise
        result = {
            "msg": f"{self.place}: {verdict.reason}"
            + (", nothing answered, so the run ended early" if hopeless else ""),
            "address": prober.address,
            "protocol": self._args["protocol"],
            "counts": tally.counts,
            "shares": tally.shares(),
            "intervals": {name: [round(end, 6) for end in span] for name, span in verdict.intervals.items()},
            "more": verdict.more,
            "errors": tally.errors,
            "error_details": tally.details,
            "unexpected": tally.unexpected,
            "probes": tally.probes,
            "connections": prober.connections,
            "unanswered": prober.unanswered,
            "runs": prober.runs,
            "duration": round(time.monotonic() - began, 3),
            "latency": tally.latency(),
            "error_rates": error_rates(question),
            "verdict": verdict.verdict,
            "passed": verdict.verdict == "pass",
            "deviations": [deviation._asdict() for deviation in verdict.deviations],
            "trajectory": tally.trajectory.encode(),
            **question._asdict(),
        }
        if held:
            self._account(sessions, held["max_sessions_lost"], result)
        return result

    def _check_held(self, held: Mapping[str, Any]) -> None:
        try:
            check_canary(self._protocol, **{name: held[name] for name in ("idle", "chatting", "interval")})
            if isinstance(held["hold"], bool) or not 0 <= held["hold"] <= LONGEST_HOLD:
                raise ValueError(
                    f"hold is {held['hold']!r}; give the seconds to hold the sessions, from 0 to {LONGEST_HOLD}"
                )
            most = held["max_sessions_lost"]
            if most is not None and (isinstance(most, bool) or not isinstance(most, int) or most < 0):
                raise ValueError(f"max_sessions_lost is {most!r}; give the number of sessions that may be lost")
        except ValueError as error:
            raise ValueError(f"session_canary: {error}") from None

    def _account(self, sessions: list[dict[str, Any]], most: int | None, result: dict[str, Any]) -> None:
        """Put what became of the held sessions into the result; `most` of them may be lost."""
        for session in sessions:
            name = session["destination"]
            if self._args["protocol"] == "connect" and session["fate"] != "refused":
                name = CONNECTED
            # The gateway has seen them too.
            if name is None:
                result["unanswered"] += 1
            else:
                result["connections"][name] = result["connections"].get(name, 0) + 1
        fates = Counter(session["fate"] for session in sessions if session["fate"] != "alive")
        lost = sum(fates.values())
        result.update(sessions=sessions, sessions_lost=lost)
        allowed = "" if most is None else f", {most} may be"
        if lost:
            told = ", ".join(f"{count} {fate}" for fate, count in fates.most_common())
            result["msg"] += f"; {lost} of {len(sessions)} held sessions were lost{allowed}: {told}"
        if most is not None and lost > most:
            result.update(verdict="fail", passed=False)


def _question(args: Mapping[str, Any]) -> Question:
    expect, profile = args["expect"], args["profile"]
    if args["protocol"] == "connect":
        if expect is not None:
            raise ValueError(
                "expect goes with replies, and the protocol connect waits for none; leave expect out and judge the "
                "gateway's own counters with gateway_sessions"
            )
        expect = {CONNECTED: 100}
    elif expect is None:
        raise ValueError(
            "expect is missing; give a mapping of reply word to percent, such as {one: 80, two: 20}, in sum 100"
        )
    if isinstance(expect, dict):
        expect = {
            str(word) if isinstance(word, int) and not isinstance(word, bool) else word: plain_percent(percent)
            for word, percent in expect.items()
        }
    if profile is None:
        profile = "strict" if args["probes"] is None else "fixed"
    names = ("tolerance", "alpha", "beta", "max_probes", "max_errors", "probes")
    return ask(expect, profile, **{name: args[name] for name in names})


def plain_percent(value: Any) -> Any:
    """Return the number that a string spells (templates of older ansible-core yield strings), else the value itself."""
    if isinstance(value, str) and re.fullmatch(r"[0-9]+(\.[0-9]+)?", value):
        return float(value) if "." in value else int(value)
    return value


def _payload(args: Mapping[str, Any]) -> bytes | None:
    if args["payload_base64"] is None:
        return None if args["payload"] is None else args["payload"].encode()
    if args["payload"] is not None:
        raise ValueError("payload and payload_base64 are both given; leave one of them out")
    try:
        return base64.b64decode(args["payload_base64"], validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("payload_base64 is no base64; give the bytes to send in that encoding") from None


def _tls(args: Mapping[str, Any]) -> dict[str, Any]:
    if args["tls"]:
        return {"tls": tls_context(args["tls_ca_file"]), "server_name": args["tls_server_name"] or args["host"]}
    for name in ("tls_server_name", "tls_ca_file"):
        if args[name]:
            raise ValueError(f"{name} is given and tls is not; set tls to true, or leave {name} out")
    return {}
