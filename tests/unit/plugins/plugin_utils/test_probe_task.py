# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A probe task without Ansible; what its options do is tested with the action."""

from __future__ import annotations

import contextlib
import dis
import socket
import sys
import threading
import time
import types
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from ansible_collections.trafficshift.istio.plugins.plugin_utils import (
    _measure,
    _probe_engine,
    _probe_task,
    _session_canary,
)
from ansible_collections.trafficshift.istio.plugins.plugin_utils._probe_task import (
    OPTIONS,
    ProbeTask,
    plain_percent,
    with_defaults,
)
from servers import LONG, Behaviour, CountingSocket, echo, eventually, server

WATCHED = {module.__file__ for module in (_measure, _probe_engine, _probe_task, _session_canary)}


class Interrupted(Exception):
    """What a signal handler would raise."""


class Interrupter:
    """Raises when the code under test comes to its line number `at`, counted from the beginning of the run."""

    def __init__(self, at: int = sys.maxsize) -> None:
        self.left = at

    def __call__(self, frame: Any, event: str, _arg: Any) -> Callable[..., Any] | None:
        if frame.f_code.co_filename not in WATCHED:
            return None
        # Where "try:" stands, newer Pythons have a NOP outside of what the try covers, and handle no signals.
        if event == "line" and frame.f_code.co_code[frame.f_lasti] != dis.opmap["NOP"]:
            self.left -= 1
            if not self.left:
                raise Interrupted
        return self


def named(name: bytes) -> Behaviour:
    """A version that answers line by line for as long as the client wants it."""

    def behave(connection: socket.socket) -> None:
        while line := connection.recv(1000):
            connection.sendall(name + b" " + line)

    return behave


chat = named(b"one")


def test_options_alone_suffice() -> None:
    with server(echo) as port:
        options = {"host": "127.0.0.1", "port": port, "expect": {"one": "100", "two": 0}, "probes": 20, "timeout": LONG}
        task = ProbeTask(with_defaults(options))
        assert (task.place, task.question.max_probes) == (f"127.0.0.1:{port}", 20)
        for _each in range(2):
            result = task.run()
            assert (result["passed"], result["counts"]) == (True, {"one": 20, "two": 0})
        watched: list[int] = []
        task.run(lambda _question, tally: watched.append(tally.probes) or 7)  # type: ignore[func-returns-value]
        assert watched == [1, 8, 15]


def test_defaults() -> None:
    filled = with_defaults({"host": "::1", "port": 1})
    assert list(filled) == list(OPTIONS)
    assert (filled["protocol"], filled["concurrency"], filled["tls"], filled["expect"]) == ("line", 20, False, None)
    assert ProbeTask({**filled, "expect": {1: 100}}, offline=True).place == "[::1]:1"
    held = with_defaults({"host": "::1", "port": 1, "session_canary": {"idle": 7}})["session_canary"]
    assert held == {"idle": 7, "chatting": 5, "interval": 1.0, "hold": 0.0, "max_sessions_lost": None}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prots": 1}, "the probe has no option 'prots'; give some of host, port, "),
        ({"port": None}, "the probe has no port; give it"),
        ({"session_canary": {"idel": 1}}, "session_canary has no option 'idel'; give some of idle, chatting, "),
        ({"payload": "x", "payload_base64": "eA=="}, "payload and payload_base64 are both given; leave one of"),
        ({"host": "nope.invalid"}, "host 'nope.invalid' does not resolve ("),
        ({"host": None}, "the probe has no host; give it"),
        ({"expect": {"one": 99}}, "the percentages in expect sum to 99"),
        ({"source": "nowhere"}, "source 'nowhere' is no IP address"),
    ],
)
def test_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as refusal:
        ProbeTask(with_defaults({"host": "192.0.2.1", "port": 1, "expect": {"one": 100}, **options}))
    assert str(refusal.value).startswith(message)


def test_offline_asks_nobody() -> None:
    ProbeTask(with_defaults({"host": "nope.invalid", "port": 1, "expect": {"one": 100}}), offline=True)


@pytest.mark.parametrize(
    ("value", "number"), [("80", 80), ("20.5", 20.5), (80, 80), ("-1", "-1"), ("1e9", "1e9"), (True, True), ("", "")]
)
def test_plain_percent(value: Any, number: Any) -> None:
    assert plain_percent(value) == number


@pytest.mark.parametrize("held", [None, {"idle": 1, "chatting": 1}])
def test_an_exception_at_any_line_leaves_no_socket_open(
    held: dict[str, Any] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its traceback is kept, as it is by whoever handles it: nothing may hang on when memory is freed."""
    made: weakref.WeakSet[CountingSocket] = weakref.WeakSet()

    def new_socket(family: int) -> CountingSocket:
        sock = CountingSocket(family, socket.SOCK_STREAM)
        sock.setblocking(False)
        made.add(sock)
        return sock

    monkeypatch.setattr(_probe_engine.Net, "new_socket", staticmethod(new_socket))
    for pause in ("TURN", "REST"):
        monkeypatch.setattr(_session_canary, pause, 0.001)
    threads = set(threading.enumerate())
    with server(chat) as port:
        options = {"host": "127.0.0.1", "port": port, "expect": {"one": 100}, "probes": 4, "ready_timeout": LONG}
        task = ProbeTask(with_defaults({**options, "timeout": LONG, "concurrency": 2, "session_canary": held}))

        def run(interrupter: Interrupter) -> Interrupted | None:
            before = sys.gettrace()
            sys.settrace(interrupter)
            try:
                task.run()
            except Interrupted as error:
                return error
            finally:
                sys.settrace(before)
            return None

        at, kept = 1, []
        while error := run(interrupter := Interrupter(at)):
            kept.append(error)
            assert all(sock.fileno() < 0 for sock in made), at
            at += 1
    assert interrupter.left > 0, "an exception was lost"
    assert at > 100
    assert eventually(lambda: set(threading.enumerate()) <= threads)


class Gateway:
    """A proxy in front of two versions, that cuts the sessions of before a change some time after it, as Envoy does."""

    def __init__(self, versions: dict[bytes, int]) -> None:
        self.version = b"one"
        self._versions = versions
        self._held: list[socket.socket] = []

    def __call__(self, connection: socket.socket) -> None:
        with socket.create_connection(("127.0.0.1", self._versions[self.version])) as upstream:
            self._held.append(connection)
            while request := connection.recv(1000):
                upstream.sendall(request)
                connection.sendall(upstream.recv(1000))

    def shift(self, version: bytes, cut: bool) -> None:
        self.version = version
        for connection in self._held if cut else ():
            with contextlib.suppress(OSError):  # those of probes have ended
                connection.shutdown(socket.SHUT_RDWR)
        self._held.clear()


@pytest.mark.parametrize("cut", [False, True])
def test_sessions_through_a_change(cut: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the change all goes to one, after it to two; what was open then is held by one, or is cut."""
    with server(named(b"one")) as one, server(named(b"two")) as two:
        gateway = Gateway({b"one": one, b"two": two})
        with server(gateway) as port:
            options = {"host": "127.0.0.1", "port": port, "expect": {"one": 100, "two": 0}, "probes": 20}
            held = {"idle": 3, "chatting": 3, "interval": 0.01, "hold": 60, "max_sessions_lost": 5}
            task = ProbeTask(with_defaults({**options, "timeout": LONG, "session_canary": held}))
            canaries = []
            made = task.make_canary
            monkeypatch.setattr(
                task, "make_canary", lambda **settings: canaries.append(made(**settings)) or canaries[0]
            )  # type: ignore[func-returns-value]

            def change(_seconds: float) -> None:
                """What happens while the task only holds its sessions."""
                assert eventually(lambda: all(session["exchanges"] > 3 for session in canaries[0].sessions()[3:]))
                gateway.shift(b"two", cut)
                assert eventually(lambda: len(lost(canaries[0].sessions())) == (6 if cut else 0))

            clock = types.SimpleNamespace(sleep=change, monotonic=time.monotonic)
            monkeypatch.setattr(_probe_task, "time", clock)
            result = task.run()
            assert {session["destination"] for session in result["sessions"]} == {"one"}
            assert lost(result["sessions"]) == result["sessions"][: result["sessions_lost"]]
            if cut:
                assert (result["verdict"], result["passed"], result["sessions_lost"]) == ("fail", False, 6)
                assert "; 6 of 6 held sessions were lost, 5 may be: " in result["msg"]
                assert [session["exchanges"] for session in result["sessions"][:3]] == [1] * 3
            else:
                assert (result["verdict"], result["sessions_lost"]) == ("pass", 0)
            assert result["connections"] == {"one": 26, "two": 0}
            after = ProbeTask(with_defaults({**options, "expect": {"one": 0, "two": 100}, "timeout": LONG})).run()
            assert after["passed"]


def lost(sessions: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [session for session in sessions if session["fate"] != "alive"]
