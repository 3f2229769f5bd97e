# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Probes over TLS against orderly servers, and what is refused before there is any probe."""

from __future__ import annotations

import re
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.trafficshift.istio.plugins.plugin_utils import _probe_engine as engine_module
from ansible_collections.trafficshift.istio.plugins.plugin_utils._probe_engine import Address, Engine, tls_context
from ansible_collections.trafficshift.istio.plugins.plugin_utils._probe_protocols import (
    PAYLOAD_LIMIT,
    LineEcho,
    make_protocol,
)
from servers import (
    LONG,
    Certificates,
    CountingSocket,
    PortableNet,
    WatchedNet,
    echo,
    eventually,
    hang,
    probe,
    say,
    server,
)

NETS = pytest.mark.parametrize("net", [WatchedNet, PortableNet])
HERE = [Address(socket.AF_INET, ("127.0.0.1", 9))]


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def trusted(certificates: Certificates) -> ssl.SSLContext:
    return certificates.server(["localhost", "127.0.0.1", "::1"])


@NETS
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_versions(
    net: type[WatchedNet], version: ssl.TLSVersion, certificates: Certificates, trusted: ssl.SSLContext
) -> None:
    trusted.maximum_version = version
    with server(echo, tls=trusted) as port:
        outcomes = probe(port, probes=60, concurrency=10, net=net(), **certificates.client())
    assert outcomes == [("", "one")] * 60


@pytest.mark.parametrize(
    ("host", "server_name", "told"),
    [
        ("127.0.0.1", "localhost", "localhost"),
        ("127.0.0.1", "127.0.0.1", None),
        ("::1", "::1", None),
        ("::1", "[::1]", None),
        ("::1", "localhost", "localhost"),
    ],
)
def test_the_server_is_told_the_name_but_no_address(
    host: str, server_name: str, told: str | None, certificates: Certificates, trusted: ssl.SSLContext
) -> None:
    names = []
    trusted.sni_callback = lambda _socket, name, _context: names.append(name)
    with server(echo, host, trusted) as port:
        assert probe(port, host, **certificates.client(server_name)) == [("", "one")] * 3
    assert names == [told] * 3


@NETS
@pytest.mark.parametrize(
    ("request_", "behave", "expected"),
    [
        (("connect", [], None, None), hang, "connected"),
        (("banner", ["one"], None, None), say(b"one ready\n", then=hang, first=lambda connection: None), "one"),
        (("exchange", ["one"], b"which?", "v=(one)"), say(b"v=", b"one", then=hang), "one"),
        (("line", ["one"], b"x" * (PAYLOAD_LIMIT - 1), None), echo, "one"),
    ],
)
def test_protocols(
    request_: Any, behave: Any, expected: str, net: type[WatchedNet], certificates: Certificates,
    trusted: ssl.SSLContext,
) -> None:  # fmt: skip
    with server(behave, tls=trusted) as port:
        outcomes = probe(port, protocol=make_protocol(*request_), net=net(), **certificates.client())
    assert outcomes == [("", expected)] * 3


class HesitantSocket(CountingSocket):
    """Sends a few bytes at once, and at every second attempt none."""

    calls = 0

    def send(self, data: Any, flags: int = 0) -> int:
        self.calls += 1
        if self.calls % 2 == 0:
            raise BlockingIOError
        return super().send(data[:500], flags)


class HesitantNet(PortableNet):
    """Tells of a socket for as long as it is ready: an edge would need a buffer that is really full."""

    kind = HesitantSocket

    def poller(self, connections: int) -> Any:
        poller = super().poller(connections)
        poller.poll = lambda timeout, _most: poller._poll.poll(1000 * timeout)
        return poller


def test_what_one_call_does_not_send_is_sent_later(certificates: Certificates, trusted: ssl.SSLContext) -> None:
    protocol = make_protocol("line", ["one"], b"x" * (PAYLOAD_LIMIT - 1), None)
    with server(echo, tls=trusted) as port:
        assert probe(port, protocol=protocol, net=HesitantNet(), **certificates.client()) == [("", "one")] * 3


def test_the_connection_is_ended_in_tls_too(certificates: Certificates, trusted: ssl.SSLContext) -> None:
    """A server would log a connection that just stops as cut off."""
    trusted.options &= ~getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 0)
    ends = []

    def watch(connection: socket.socket) -> None:
        try:
            echo(connection)
            ends.append("in order")
        except OSError as error:
            ends.append(repr(error))

    with server(watch, tls=trusted) as port:
        assert probe(port, probes=20, **certificates.client()) == [("", "one")] * 20
        assert eventually(lambda: len(ends) == 20)
    assert ends == ["in order"] * 20


@NETS
@pytest.mark.parametrize("concurrency", [20, 60])
def test_the_other_side_s_end_is_seen(
    net: type[WatchedNet],
    concurrency: int,
    monkeypatch: pytest.MonkeyPatch,
    certificates: Certificates,
    trusted: ssl.SSLContext,
) -> None:
    """Not waited for in vain, with either way of waiting."""
    monkeypatch.setattr(engine_module, "LINGER", LONG)
    monkeypatch.setattr(Engine, "_expire", lambda *_: pytest.fail("it was not seen"))
    protocol = make_protocol("connect", [], None, None)
    with server(hang, tls=trusted) as port:
        outcomes = probe(
            port, protocol=protocol, probes=100, concurrency=concurrency, net=net(), **certificates.client()
        )
    assert outcomes == [("", "connected")] * 100


def test_context(certificates: Certificates) -> None:
    for context in (tls_context(None), tls_context(certificates.ca_file)):
        assert context.verify_mode == ssl.CERT_REQUIRED
        assert context.check_hostname
        assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert len(tls_context(certificates.ca_file).get_ca_certs()) == 1, "the system's are trusted too"


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("none.pem", None, r"cannot be read \(No such file or directory\); give a file with certificates in PEM"),
        ("empty.pem", b"", "holds no certificate; give a file with certificates in PEM"),
        ("text.pem", b"certificate", "holds no certificate; give a file with certificates in PEM"),
        (
            "cut.pem",
            b"-----BEGIN CERTIFICATE-----\nMIIB\n",
            "holds no certificate; give a file with certificates in PEM",
        ),
        ("", None, r"cannot be read \(Is a directory\); give a file with certificates in PEM"),
        ("nul\0.pem", None, r"cannot be read \(.*\); give a file with certificates in PEM"),
    ],
)
def test_no_authorities(name: str, content: bytes | None, reason: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    path = str(tmp_path / name)
    with pytest.raises(ValueError, match=rf"^ca_file {re.escape(repr(path))} {reason}$"):
        tls_context(path)


@pytest.mark.parametrize("name", ["", None, ".example", "a" * 64 + ".example", "x..y", "nul\0"])
def test_no_name(name: str | None) -> None:
    with pytest.raises(ValueError, match=r"^server_name .* is no name; give the one in the server's certificate$"):
        Engine(HERE, LineEcho(["one"]), probes=1, tls=tls_context(None), server_name=name)
