# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The probe engine on real sockets, against servers on loopback that do what servers should not."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.trafficshift.istio.plugins.plugin_utils import _probe_engine as engine_module
from ansible_collections.trafficshift.istio.plugins.plugin_utils._probe_engine import (
    Engine,
    Net,
    SelectorsPoller,
    resolve,
)
from ansible_collections.trafficshift.istio.plugins.plugin_utils._probe_protocols import LineEcho

Behaviour = Callable[[socket.socket], Any]


class PortableNet(Net):
    """What systems without epoll get."""

    linux = False

    def poller(self) -> SelectorsPoller:
        return SelectorsPoller()


NETS = pytest.mark.parametrize("net", [Net, PortableNet])


@contextlib.contextmanager
def server(behave: Behaviour, family: int = socket.AF_INET) -> Iterator[int]:
    """Serve each connection with `behave` in a thread of its own; yield the port."""
    listener = socket.socket(family)
    listener.bind(("::1" if family == socket.AF_INET6 else "127.0.0.1", 0))
    listener.listen(512)
    over = threading.Event()

    def serve(connection: socket.socket) -> None:
        # The client may be gone at any time.
        with connection, contextlib.suppress(OSError):
            behave(connection)

    def accept() -> None:
        while not over.is_set():
            with contextlib.suppress(OSError):
                threading.Thread(target=serve, args=[listener.accept()[0]], daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        over.set()
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(5)
        listener.close()


def reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def hang(connection: socket.socket) -> None:
    while connection.recv(100):
        pass


def drip(connection: socket.socket) -> None:
    while True:
        connection.sendall(b"x")
        time.sleep(0.02)


def flood(connection: socket.socket) -> None:
    while True:
        connection.sendall(b"x" * 65536)


def echo(connection: socket.socket) -> None:
    line = connection.makefile("rb").readline()
    connection.sendall(b"one " + line)
    connection.recv(1)


def half_close(connection: socket.socket) -> None:
    connection.recv(100)
    connection.sendall(b"one ")
    time.sleep(0.02)
    connection.sendall(b"x\n")
    connection.shutdown(socket.SHUT_WR)
    hang(connection)


def mute_half_close(connection: socket.socket) -> None:
    connection.recv(100)
    connection.shutdown(socket.SHUT_WR)
    hang(connection)


def after(sent: bytes, then: Behaviour) -> Behaviour:
    def behave(connection: socket.socket) -> None:
        connection.recv(100)
        connection.sendall(sent)
        # Separate segments: what comes first is read first.
        time.sleep(0.02)
        then(connection)

    return behave


def probe(port: int, host: str = "127.0.0.1", **settings: Any) -> list[tuple[str, str]]:
    settings = {"probes": 3, "concurrency": 3, "timeout": 0.4, **settings}
    net = settings.pop("net", Net)()
    engine = Engine(resolve(host, port), LineEcho(["one", "two"]), net=net, **settings)
    return [(kind, text) for kind, text, _seconds in engine.outcomes()]


@NETS
@pytest.mark.parametrize(
    ("behave", "expected"),
    [
        (echo, ("", "one")),
        (hang, ("timeout", "no reply within 0.4 s")),
        (drip, ("timeout", "no end of the reply within 0.4 s")),
        (flood, ("oversize", "no newline in the first 8192 bytes of the reply")),
        (reset, ("reset", "Connection reset by peer")),
        (after(b"one half", reset), ("reset", "Connection reset by peer")),
        (after(b"one half", lambda connection: None), ("truncated", "closed before the newline")),
        (after(b"", lambda connection: None), ("empty", "closed without a byte")),
        (after(b"\x00\xff\xfe\x80 \n", lambda connection: None), ("unexpected", "\\x00\\xff\\xfe\\x80")),
        (half_close, ("", "one")),
        (mute_half_close, ("empty", "closed without a byte")),
    ],
)
def test_misbehaviour(behave: Behaviour, expected: tuple[str, str], net: type[Net]) -> None:
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    with server(behave) as port:
        began = time.monotonic()
        assert probe(port, net=net) == [expected] * 3
        assert time.monotonic() - began < 1.0
    assert _eventually(lambda: len(list(Path("/proc/self/fd").iterdir())) <= descriptors)


def _eventually(happened: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 5
    while not happened() and time.monotonic() < deadline:
        time.sleep(0.01)
    return happened()


@NETS
def test_refused(net: type[Net]) -> None:
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))  # bound, not listening
        port = unheard.getsockname()[1]
        assert probe(port, net=net) == [("refused", "Connection refused")] * 3


@NETS
def test_unlimited_patience(net: type[Net]) -> None:
    with server(echo) as port:
        assert probe(port, timeout=1e12, net=net) == [("", "one")] * 3


@NETS
def test_waiting_takes_no_processor(net: type[Net]) -> None:
    with server(hang) as port:
        began = time.process_time()
        probe(port, timeout=1.0, net=net)
        assert time.process_time() - began < 0.5


@NETS
def test_a_full_backlog_is_a_timeout(net: type[Net]) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        outcomes = probe(listener.getsockname()[1], probes=5, concurrency=5, net=net)
    assert [kind for kind, _text in outcomes] == ["timeout"] * 5


@NETS
def test_ipv6(net: type[Net]) -> None:
    with server(echo, socket.AF_INET6) as port:
        for host in ("::1", "[::1]"):
            assert probe(port, host, net=net) == [("", "one")] * 3


@NETS
def test_a_name_whose_first_address_refuses(net: type[Net], monkeypatch: pytest.MonkeyPatch) -> None:
    real = socket.getaddrinfo

    def both(host: str, port: int, **hints: Any) -> Any:
        return real("::1", port, **hints) + real("127.0.0.1", port, **hints)

    with server(echo) as port:
        monkeypatch.setattr(engine_module.socket, "getaddrinfo", both)
        assert probe(port, "both.example", probes=50, concurrency=20, net=net) == [("", "one")] * 50


@NETS
def test_a_hundred_at_once(net: type[Net]) -> None:
    arrived = []
    everyone = threading.Barrier(100, timeout=5)

    def together(connection: socket.socket) -> None:
        arrived.append(1)
        everyone.wait()
        echo(connection)

    with server(together) as port:
        assert probe(port, probes=300, concurrency=100, timeout=5.0, net=net) == [("", "one")] * 300
    assert len(arrived) == 300


def test_connections_end_in_an_ordinary_close() -> None:
    """A reset would raise ConnectionResetError at the server, and count as an error in proxies on the way."""
    ends = []

    def watch(connection: socket.socket) -> None:
        connection.sendall(b"one " + connection.recv(100))
        ends.append(connection.recv(100))

    with server(watch) as port:
        assert probe(port, probes=20) == [("", "one")] * 20
        assert _eventually(lambda: len(ends) == 20)
    assert ends == [b""] * 20


def test_interval() -> None:
    with server(echo) as port:
        began = time.monotonic()
        assert len(probe(port, probes=6, interval=0.1)) == 6
        assert time.monotonic() - began > 0.48


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_at_once(number: signal.Signals) -> None:
    code = (
        "import signal, sys; sys.path.insert(0, sys.argv[1])\n"
        "from ansible_collections.trafficshift.istio.plugins.plugin_utils import _probe_engine as e\n"
        "from ansible_collections.trafficshift.istio.plugins.plugin_utils._probe_protocols import LineEcho\n"
        # Whoever runs the tests in the background may have told all of them to ignore interrupts.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "print('probing', flush=True)\n"
        "list(e.Engine(e.resolve('127.0.0.1', int(sys.argv[2])), LineEcho([]), probes=9, timeout=60.0).outcomes())"
    )
    gone = threading.Event()

    def watch(connection: socket.socket) -> None:
        hang(connection)
        gone.set()

    with server(watch) as port:
        command = [sys.executable, "-c", code, str(Path(engine_module.__file__).parents[5]), str(port)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
            try:
                assert process.stdout and process.stdout.readline() == b"probing\n"
                time.sleep(0.2)
                began = time.monotonic()
                os.kill(process.pid, number)
                process.wait(5)
            finally:
                process.kill()
        assert time.monotonic() - began < 2
        assert gone.wait(5)
