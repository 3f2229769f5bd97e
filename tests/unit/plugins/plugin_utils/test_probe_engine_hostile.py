# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The probe engine against servers that do what servers should not: the right kind, in time, with nothing left open."""

from __future__ import annotations

import os
import re
import socket
import ssl
from collections.abc import Iterator
from typing import Any

import pytest
from ansible_collections.trafficshift.istio.plugins.plugin_utils import _probe_engine as engine_module
from ansible_collections.trafficshift.istio.plugins.plugin_utils._probe_engine import tls_context
from ansible_collections.trafficshift.istio.plugins.plugin_utils._probe_protocols import REPLY_LIMIT, make_protocol
from servers import (
    Behaviour,
    Certificates,
    PortableNet,
    WatchedNet,
    drip,
    echo,
    eventually,
    flood,
    half_close,
    hang,
    leave,
    open_files,
    probe,
    reset,
    say,
    server,
)

SHORT = 0.4  # seconds; for probes that have to run out of time
EMPTY = ("empty", "closed without a byte")
TRUNCATED = ("truncated", "closed before the newline")
RESET = ("reset", "Connection reset by peer")
OVERSIZE = ("oversize", f"no newline in the first {REPLY_LIMIT} bytes of the reply")
RUBBISH = bytes(range(256)) * 20
EXCHANGE = ("exchange", ["one", "two"], b"which?", r"v=(\w+);")
BANNER = ("banner", ["one", "two"], None, None)
LINE = ("line", ["one", "two"], b"hello", None)

NETS = pytest.mark.parametrize("net", [WatchedNet, PortableNet])
HOSTS = pytest.mark.parametrize("host", ["127.0.0.1", "::1"])


@pytest.fixture(autouse=True)
def no_file_left_open() -> Iterator[None]:
    before = open_files()
    yield
    assert eventually(lambda: open_files() <= before)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def trusted(certificates: Certificates) -> ssl.SSLContext:
    return certificates.server(["localhost", "127.0.0.1", "::1"])


def deaf(connection: socket.socket) -> None:
    """Close the side that reads, answer all the same."""
    connection.shutdown(socket.SHUT_RD)
    connection.sendall(b"one x\n")


DEAF = say(then=deaf)
# What servers do after they got the payload, and what a probe for a line has to make of it.
AFTER_REQUEST: list[tuple[Behaviour, tuple[str, str]]] = [
    (say(then=leave), EMPTY),
    (say(then=half_close), EMPTY),
    (say(b"one half", then=leave), TRUNCATED),
    (say(b"o", b"n", b"e", then=half_close), TRUNCATED),
    (say(b"one half", then=reset), RESET),
    (say(then=reset), RESET),
    (say(b"one ", b"x\n", then=half_close), ("", "one")),
    (say(b"one x\n", then=leave), ("", "one")),
    (DEAF, ("", "one")),
    (say(b"\x00\xff\xfe\x80 \n", then=leave), ("unexpected", "\\x00\\xff\\xfe\\x80")),
    (say(b"\n" + RUBBISH, then=leave), ("unexpected", "")),
    (say(b"\x1b[31m" * 1000 + b"\n", then=leave), ("unexpected", "\\x1b[31m" * 4 + "\\x1b[31…")),
    (say(b"one" + b"x" * REPLY_LIMIT + b"\n", then=leave), OVERSIZE),
    (flood, OVERSIZE),
]


@NETS
@HOSTS
@pytest.mark.parametrize(("behave", "expected"), AFTER_REQUEST)
def test_line(behave: Behaviour, expected: tuple[str, str], net: type[WatchedNet], host: str) -> None:
    with server(behave, host) as port:
        assert probe(port, host, make_protocol(*LINE), net=net()) == [expected] * 3


@NETS
@pytest.mark.parametrize("request_", [LINE, BANNER, EXCHANGE])
@pytest.mark.parametrize("behave", [hang, drip, say(b"v=one", then=hang)])
def test_out_of_time(behave: Behaviour, net: type[WatchedNet], request_: Any) -> None:
    """A banner that never comes, a reply that never comes, one that comes byte by byte and never ends."""
    with server(behave) as port:
        outcomes = probe(port, protocol=make_protocol(*request_), net=net(), timeout=SHORT)
    assert [kind for kind, _text in outcomes] == ["timeout"] * 3
    assert all(text.endswith("within 0.4 s") for _kind, text in outcomes)


@NETS
@pytest.mark.parametrize("request_", [LINE, BANNER, EXCHANGE, ("connect", [], None, None)])
def test_a_full_backlog_is_a_timeout(net: type[WatchedNet], request_: Any) -> None:
    """Nobody accepts; the system itself takes the first connection or two, on which nothing ever comes."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            outcomes = probe(port, protocol=make_protocol(*request_), probes=5, concurrency=5, timeout=SHORT, net=net())
    assert [kind for kind, _text in outcomes].count("timeout") >= (4 if request_[0] == "connect" else 5)
    assert ("timeout", "no connection within 0.4 s") in outcomes


@NETS
@pytest.mark.parametrize("request_", [LINE, BANNER, EXCHANGE, ("connect", [], None, None)])
def test_refused(net: type[WatchedNet], request_: Any) -> None:
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))  # bound, not listening
        port = unheard.getsockname()[1]
        assert probe(port, protocol=make_protocol(*request_), net=net()) == [("refused", "Connection refused")] * 3


@NETS
@pytest.mark.parametrize("behave", [flood, drip, hang, leave, echo])
def test_connect_asks_for_no_more(net: type[WatchedNet], behave: Behaviour) -> None:
    with server(behave) as port:
        assert probe(port, protocol=make_protocol("connect", [], None, None), net=net()) == [("", "connected")] * 3


@NETS
def test_closed_or_reset_at_once(net: type[WatchedNet]) -> None:
    """Whether the payload meets an open connection is a race that the server's system decides."""
    for behave in (leave, reset):
        with server(behave) as port:
            kinds = {kind for kind, _text in probe(port, net=net(), probes=20)}
        assert kinds <= {"empty", "reset"}


@NETS
@HOSTS
@pytest.mark.parametrize(
    ("behave", "expected"),
    [
        (say(b"v=one;", then=hang), ("", "one")),
        (say(b"garbage\0v=t", b"w", b"o", b";", then=hang), ("", "two")),
        (say(b"v=one", then=leave), ("unexpected", "v=one")),
        (say(b"v=three;", then=hang), ("unexpected", "three")),
        (say(RUBBISH * 2, then=hang), ("unexpected", "".join(f"\\x{byte:02x}" for byte in range(10))[:39] + "…")),
        (flood, ("unexpected", "x" * 39 + "…")),
        (say(then=leave), EMPTY),
        (say(b"v=o", then=reset), RESET),
    ],
)
def test_exchange(behave: Behaviour, expected: tuple[str, str], net: type[WatchedNet], host: str) -> None:
    with server(behave, host) as port:
        assert probe(port, host, make_protocol(*EXCHANGE), net=net()) == [expected] * 3


def unasked(*pieces: bytes, then: Behaviour) -> Behaviour:
    return say(*pieces, then=then, first=lambda connection: None)


@NETS
@HOSTS
@pytest.mark.parametrize(
    ("behave", "expected"),
    [
        (unasked(b"one ready\n", then=hang), ("", "one")),
        (unasked(b"on", b"e", b" ready\r\nmore", then=hang), ("", "one")),
        (unasked(b"220 ready\n", then=leave), ("unexpected", "220")),
        (unasked(b"one", then=leave), TRUNCATED),
        (unasked(then=leave), EMPTY),
        (flood, OVERSIZE),
    ],
)
def test_banner(behave: Behaviour, expected: tuple[str, str], net: type[WatchedNet], host: str) -> None:
    with server(behave, host) as port:
        assert probe(port, host, make_protocol(*BANNER), net=net()) == [expected] * 3


@NETS
@pytest.mark.parametrize("secured", [False, True])
def test_a_flood_is_not_read(net: type[WatchedNet], secured: bool, request: pytest.FixtureRequest) -> None:
    """The reading stops at the limit, whatever else is there to read."""
    settings = request.getfixturevalue("certificates").client() if secured else {}
    tls = request.getfixturevalue("trusted") if secured else None
    watched = net()
    with server(flood, tls=tls) as port:
        assert probe(port, net=watched, **settings) == [OVERSIZE] * 3
    # With TLS: less than 8 KiB for the handshake, and records of 16 KiB that can be read as a whole only.
    assert all(REPLY_LIMIT <= made.taken <= 2 * REPLY_LIMIT + (8192 + 16384) * secured for made in watched.made)


def goodbye(connection: Any) -> None:
    """End a TLS connection as it should be ended."""
    connection.unwrap()


def garble(connection: socket.socket) -> None:
    """Send what is no TLS after the handshake."""
    with socket.socket(fileno=os.dup(connection.fileno())) as below:
        below.sendall(b"one x\n" * 10)
        hang(connection)


@NETS
@pytest.mark.parametrize(("behave", "expected"), [case for case in AFTER_REQUEST if case[0] is not DEAF])
def test_line_over_tls(behave: Behaviour, expected: tuple[str, str], net: type[WatchedNet], certificates: Certificates,
                       trusted: ssl.SSLContext) -> None:  # fmt: skip
    """Not to end TLS before the connection is no worse than it is without TLS, if the reply was whole."""
    with server(behave, tls=trusted) as port:
        assert probe(port, protocol=make_protocol(*LINE), net=net(), **certificates.client()) == [expected] * 3


@NETS
@pytest.mark.parametrize(
    ("behave", "expected"),
    [
        (say(b"v=one;", then=hang), ("", "one")),
        (say(b"v=o", b"n", b"e", then=goodbye), ("", "one")),
        (say(b"v=one", then=leave), ("truncated", "closed without TLS's closing message")),
        (say(b"v=onet", then=goodbye), ("unexpected", "onet")),
        (say(b"nothing", then=goodbye), ("unexpected", "nothing")),
        (say(b"nothing", then=leave), ("truncated", "closed without TLS's closing message")),
        (say(b"v=one", then=reset), RESET),
        (say(then=goodbye), EMPTY),
        (say(then=leave), EMPTY),
    ],
)
def test_only_a_proper_end_of_tls_is_the_end_of_a_reply(
    behave: Behaviour, expected: tuple[str, str], net: type[WatchedNet], certificates: Certificates,
    trusted: ssl.SSLContext
) -> None:  # fmt: skip
    """Expected are "one" and "onetwo", so that where the reply ends makes a difference."""
    protocol = make_protocol("exchange", ["one", "onetwo"], b"which?", r"v=(\w+)")
    with server(behave, tls=trusted) as port:
        assert probe(port, protocol=protocol, net=net(), **certificates.client()) == [expected] * 3


@NETS
@pytest.mark.parametrize("behave", [hang, drip])
def test_out_of_time_over_tls(
    behave: Behaviour, net: type[WatchedNet], certificates: Certificates, trusted: ssl.SSLContext
) -> None:
    with server(behave, tls=trusted) as port:
        outcomes = probe(port, net=net(), timeout=SHORT, **certificates.client())
    assert [kind for kind, _text in outcomes] == ["timeout"] * 3


@NETS
def test_a_handshake_that_hangs(net: type[WatchedNet], certificates: Certificates) -> None:
    with server(hang) as port:
        outcomes = probe(port, net=net(), timeout=2.0, **certificates.client())
    assert outcomes == [("timeout", "no end of the TLS handshake within 2 s")] * 3


@NETS
@pytest.mark.parametrize("request_", [LINE, ("connect", [], None, None)])
@pytest.mark.parametrize(
    ("behave", "expected"),
    [
        (unasked(b"220 mail ready\r\n", then=hang), "tls"),
        (say(RUBBISH, then=hang), "tls"),
        (flood, "tls"),
        (say(then=leave), "tls"),
        (say(then=reset), "reset"),
    ],
)
def test_no_tls(
    behave: Behaviour, expected: str, request_: Any, net: type[WatchedNet], certificates: Certificates
) -> None:
    with server(behave) as port:
        outcomes = probe(port, protocol=make_protocol(*request_), net=net(), **certificates.client())
    assert [kind for kind, _text in outcomes] == [expected] * 3
    # In words, without places in Python's source.
    assert all(re.fullmatch(r"[A-Za-z0-9 ]+", text) for _kind, text in outcomes)


@NETS
@pytest.mark.parametrize("request_", [LINE, ("connect", [], None, None)])
@pytest.mark.parametrize(
    ("names", "days", "self_signed", "server_name", "reason"),
    [
        (["localhost"], 1, True, "localhost", "self.signed certificate"),
        (["elsewhere.example"], 1, False, "localhost",
         "Hostname mismatch, certificate is not valid for 'localhost'"),
        (["localhost"], 1, False, "127.0.0.1", "IP address mismatch, certificate is not valid for '127.0.0.1'"),
        (["localhost"], 1, False, "[::1]", "IP address mismatch, certificate is not valid for '::1'"),
        (["localhost"], -1, False, "localhost", "certificate has expired"),
    ],
)  # fmt: skip
def test_certificates_that_are_no_good(
    names: list[str], days: int, self_signed: bool, server_name: str, reason: str, request_: Any,
    net: type[WatchedNet], certificates: Certificates,
) -> None:  # fmt: skip
    with server(echo, tls=certificates.server(names, days, self_signed)) as port:
        protocol = make_protocol(*request_)
        outcomes = probe(port, protocol=protocol, net=net(), **certificates.client(server_name))
    assert [kind for kind, _text in outcomes] == ["tls"] * 3
    assert re.fullmatch(f"certificate verify failed: {reason}", outcomes[0][1])


def test_a_long_name_is_not_told_in_full(certificates: Certificates, trusted: ssl.SSLContext) -> None:
    with server(echo, tls=trusted) as port:
        outcomes = probe(port, **certificates.client(".".join(["long"] * 50)))
    assert {kind for kind, _text in outcomes} == {"tls"}
    assert len(outcomes[0][1]) == engine_module.DETAIL_LIMIT


def test_an_unknown_authority(certificates: Certificates, trusted: ssl.SSLContext) -> None:
    with server(echo, tls=trusted) as port:
        outcomes = probe(port, tls=tls_context(None), server_name="localhost")
    assert outcomes == [("tls", "certificate verify failed: unable to get local issuer certificate")] * 3


@NETS
def test_rubbish_after_the_handshake(
    net: type[WatchedNet], certificates: Certificates, trusted: ssl.SSLContext
) -> None:
    with server(garble, tls=trusted) as port:
        outcomes = probe(port, net=net(), **certificates.client())
    assert [kind for kind, _text in outcomes] == ["tls"] * 3


def test_a_server_that_wants_a_certificate_of_the_client(certificates: Certificates) -> None:
    demanding = certificates.server(["localhost"])
    demanding.verify_mode = ssl.CERT_REQUIRED
    with server(echo, tls=demanding) as port:
        outcomes = probe(port, **certificates.client())
    assert {kind for kind, _text in outcomes} <= {"tls", "reset"}


@pytest.mark.parametrize("request_", [LINE, BANNER, EXCHANGE])
def test_a_plain_probe_of_a_tls_server(request_: Any, trusted: ssl.SSLContext) -> None:
    with server(echo, tls=trusted) as port:
        kinds = {kind for kind, _text in probe(port, protocol=make_protocol(*request_), timeout=SHORT)}
    assert kinds <= {"timeout"} if request_ == BANNER else kinds <= {"unexpected", "truncated", "empty", "reset"}


def test_tls_without_a_reply_is_not_read_for_ever(
    monkeypatch: pytest.MonkeyPatch, certificates: Certificates, trusted: ssl.SSLContext
) -> None:
    """A byte a record: the bytes off the wire reach their limit long before the reply does."""
    monkeypatch.setattr(engine_module, "TLS_LIMIT", 30000)
    with server(say(*[b"x"] * (REPLY_LIMIT - 1), then=hang), tls=trusted) as port:
        outcomes = probe(port, **certificates.client())
    assert outcomes == [("oversize", "no end in the first 30000 bytes of TLS")] * 3
