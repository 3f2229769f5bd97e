# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The probe engine on real sockets, against orderly servers on loopback."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.trafficshift.istio.plugins.plugin_utils import _probe_engine as engine_module
from ansible_collections.trafficshift.istio.plugins.plugin_utils._probe_engine import Engine, Net, resolve
from ansible_collections.trafficshift.istio.plugins.plugin_utils._probe_protocols import LineEcho, make_protocol
from servers import LONG, PortableNet, WatchedNet, echo, eventually, hang, probe, server

NETS = pytest.mark.parametrize("net", [Net, PortableNet])


@NETS
def test_unlimited_patience(net: type[Net]) -> None:
    with server(echo) as port:
        assert probe(port, timeout=1e12, net=net()) == [("", "one")] * 3


@NETS
def test_waiting_takes_no_processor(net: type[Net]) -> None:
    with server(hang) as port:
        began = time.process_time()
        probe(port, timeout=1.0, net=net())
        assert time.process_time() - began < 0.5


@NETS
def test_ipv6(net: type[Net]) -> None:
    with server(echo, "::1") as port:
        for host in ("::1", "[::1]"):
            assert probe(port, host, net=net()) == [("", "one")] * 3


@NETS
def test_a_name_whose_first_address_refuses(net: type[Net], monkeypatch: pytest.MonkeyPatch) -> None:
    real = socket.getaddrinfo

    def both(host: str, port: int, **hints: Any) -> Any:
        return real("::1", port, **hints) + real("127.0.0.1", port, **hints)

    with server(echo) as port:
        monkeypatch.setattr(engine_module.socket, "getaddrinfo", both)
        assert probe(port, "both.example", probes=50, concurrency=20, net=net()) == [("", "one")] * 50


@NETS
def test_a_hundred_at_once(net: type[Net]) -> None:
    arrived = []
    everyone = threading.Barrier(100, timeout=LONG)

    def together(connection: socket.socket) -> None:
        arrived.append(1)
        everyone.wait()
        echo(connection)

    with server(together) as port:
        assert probe(port, probes=300, concurrency=100, net=net()) == [("", "one")] * 300
    assert len(arrived) == 300


def test_connections_end_in_an_ordinary_close() -> None:
    """A reset would raise ConnectionResetError at the server, and count as an error in proxies on the way."""
    ends = []

    def watch(connection: socket.socket) -> None:
        connection.sendall(b"one " + connection.recv(100))
        ends.append(connection.recv(100))

    with server(watch) as port:
        assert probe(port, probes=20) == [("", "one")] * 20
        assert eventually(lambda: len(ends) == 20)
    assert ends == [b""] * 20


@NETS
@pytest.mark.parametrize("concurrency", [20, 60])
def test_the_other_side_s_end_is_seen(net: type[Net], concurrency: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not waited for in vain, with either way of waiting."""
    monkeypatch.setattr(engine_module, "LINGER", LONG)
    monkeypatch.setattr(Engine, "_expire", lambda *_: pytest.fail("it was not seen"))
    protocol = make_protocol("connect", [], None, None)
    with server(hang) as port:
        outcomes = probe(port, protocol=protocol, probes=100, concurrency=concurrency, net=net())
    assert outcomes == [("", "connected")] * 100


def test_stop() -> None:
    """What is under way, and no more than that, is waited for."""
    with server(echo) as port:
        net = WatchedNet()
        engine = Engine(resolve("127.0.0.1", port), LineEcho(["one"]), probes=10**6, concurrency=10, net=net)
        outcomes = []
        for kind, _text, _seconds in engine.outcomes():
            outcomes.append(kind)
            if len(outcomes) == 100:
                engine.stop()
    assert outcomes == [""] * engine.launched
    assert 100 <= engine.launched == len(net.made) <= 110


class TestSource:
    @NETS
    @pytest.mark.parametrize(
        ("host", "source"),
        [
            ("127.0.0.1", "127.0.0.1"),
            pytest.param("127.0.0.1", "127.0.0.2", marks=pytest.mark.skipif(not Net.linux, reason="no such address")),
            ("::1", "::1"),
        ],
    )
    def test_connections_come_from_it(self, host: str, source: str, net: type[Net]) -> None:
        peers = []

        def watch(connection: socket.socket) -> None:
            peers.append(connection.getpeername())
            echo(connection)

        with server(watch, host) as port:
            assert probe(port, host, source=source, probes=20, net=net()) == [("", "one")] * 20
        assert {peer[0] for peer in peers} == {source}

    @pytest.mark.skipif(sys.platform != "linux", reason="an option of Linux")
    @pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
    def test_the_port_is_chosen_on_connecting(self, host: str) -> None:
        """A port taken on binding is taken for all destinations, and the machine is out of ports much sooner."""
        options = []

        class Net(WatchedNet):
            def new_socket(self, family: int) -> Any:
                made = super().new_socket(family)
                made.connect_ex = lambda _sockaddr: options.append(made.getsockopt(socket.IPPROTO_IP, 24)) or 111
                return made

        assert probe(9, host, source=host, probes=2, net=Net()) == [("refused", "Connection refused")] * 2
        assert options == [1, 1]

    def test_only_addresses_of_its_family_are_tried(self) -> None:
        with server(echo, "::1") as port:
            both = [*resolve("127.0.0.1", port), *resolve("::1", port)]
            engine = Engine(both, LineEcho(["one"]), probes=3, source="::1", timeout=LONG)
            assert [kind for kind, _text, _seconds in engine.outcomes()] == [""] * 3
        assert engine.address == "::1"

    @pytest.mark.parametrize(
        ("source", "message"),
        [
            ("eth0", "source 'eth0' is no IP address; give one of this machine"),
            ("localhost", "source 'localhost' is no IP address; give one of this machine"),
            ("", "source '' is no IP address; give one of this machine"),
            ("x" * 300, f"source '{'x' * 300}' is no IP address; give one of this machine"),
            (
                "192.0.2.1",
                "source '192.0.2.1' cannot be used (Cannot assign requested address); give an address of this machine",
            ),
            ("::1", "source '::1' is IPv6, but host has no such address; give one of its kind"),
        ],
    )
    def test_refused(self, source: str, message: str) -> None:
        net = WatchedNet()
        with pytest.raises(ValueError, match=rf"^{re.escape(message)}$"):
            Engine(resolve("127.0.0.1", 9), LineEcho(["one"]), probes=1, source=source, net=net)
        assert all(made.fileno() < 0 for made in net.made)


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
        "list(e.Engine(e.resolve('127.0.0.1', int(sys.argv[2])), LineEcho([]), probes=9, timeout=600.0).outcomes())"
    )
    there, gone = threading.Event(), threading.Event()

    def watch(connection: socket.socket) -> None:
        connection.recv(100)
        there.set()
        hang(connection)
        gone.set()

    with server(watch) as port:
        command = [sys.executable, "-c", code, str(Path(engine_module.__file__).parents[5]), str(port)]
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
            try:
                assert there.wait(LONG)
                os.kill(process.pid, number)
                process.wait(LONG)
            finally:
                process.kill()
        assert gone.wait(LONG)
