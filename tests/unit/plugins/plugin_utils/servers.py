# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Servers on loopback, orderly and not, for the tests of the probe engine; each connection has a thread of its own."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from ansible_collections.trafficshift.istio.plugins.plugin_utils._probe_engine import (
    Engine,
    Net,
    Poll,
    resolve,
    tls_context,
)
from ansible_collections.trafficshift.istio.plugins.plugin_utils._probe_protocols import LineEcho
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

Behaviour = Callable[[socket.socket], Any]
LONG = 20.0  # seconds; more than a busy machine takes for anything here


class CountingSocket(socket.SocketType):
    """Counts what was read."""

    taken = 0

    def recv(self, size: int, flags: int = 0) -> bytes:
        data = super().recv(size, flags)
        self.taken += len(data)
        return data


class WatchedNet(Net):
    """Remembers the sockets it made."""

    kind = CountingSocket

    def __init__(self) -> None:
        self.made: list[CountingSocket] = []

    def new_socket(self, family: int) -> Any:  # type: ignore[override]
        made = self.kind(family, socket.SOCK_STREAM)
        made.setblocking(False)
        self.made.append(made)
        return made


class PortableNet(WatchedNet):
    """What systems without epoll get."""

    linux = False

    def poller(self, _connections: int) -> Poll:
        return Poll()


@contextlib.contextmanager
def server(behave: Behaviour, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None) -> Iterator[int]:
    """Serve each connection with `behave`, after the TLS handshake if there is one; yield the port."""
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.bind((host, 0))
    listener.listen(512)
    over = threading.Event()

    def serve(raw: socket.socket) -> None:
        # The client may be gone, or refuse the certificate, at any time.
        with raw, contextlib.suppress(OSError):
            if tls is None:
                behave(raw)
            else:
                with tls.wrap_socket(raw, server_side=True, suppress_ragged_eofs=False) as secured:
                    behave(secured)

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


def probe(port: int, host: str = "127.0.0.1", protocol: Any = None, **settings: Any) -> list[tuple[str, str]]:
    """Return (kind, text) of each probe; see that all of them ended in time and that no socket is left open."""
    settings = {"probes": 3, "concurrency": 3, "timeout": LONG, "net": WatchedNet(), **settings}
    engine = Engine(resolve(host, port), protocol or LineEcho(["one", "two"]), **settings)
    outcomes = list(engine.outcomes())
    # Late by no more than what a busy machine is late by.
    assert all(0 <= seconds < settings["timeout"] + LONG for _kind, _text, seconds in outcomes)
    assert all(made.fileno() < 0 for made in getattr(settings["net"], "made", ()))
    assert not (engine._flying or engine._partial or engine._unsent or engine._sessions or engine._done)
    return [(kind, text) for kind, text, _seconds in outcomes]


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def eventually(happened: Callable[[], bool]) -> bool:
    """Return whether it happens; the servers' threads may need a moment for it."""
    deadline = time.monotonic() + LONG
    while not happened() and time.monotonic() < deadline:
        time.sleep(0.005)
    return happened()


def reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def leave(connection: socket.socket) -> None:
    """Return, and with that close."""


def hang(connection: socket.socket) -> None:
    while connection.recv(1000):
        pass


def drip(connection: socket.socket) -> None:
    while True:
        connection.sendall(b"x")
        time.sleep(0.02)


def flood(connection: socket.socket) -> None:
    while True:
        connection.sendall(b"x" * 65536)


def echo(connection: socket.socket) -> None:
    line = data = connection.recv(1000)
    while data and not line.endswith(b"\n"):
        line += (data := connection.recv(1000))
    connection.sendall(b"one " + line)
    hang(connection)


def say(
    *pieces: bytes, then: Behaviour = leave, first: Behaviour = lambda connection: connection.recv(1000)
) -> Behaviour:
    """Return a behaviour: read something, send the pieces one by one, go on with `then`."""

    def behave(connection: socket.socket) -> None:
        first(connection)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in pieces:
            connection.sendall(piece)
        then(connection)

    return behave


def half_close(connection: socket.socket) -> None:
    connection.shutdown(socket.SHUT_WR)
    hang(connection)


class Certificates:
    """A certificate authority of a test run, and what it and others signed; files in PEM."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name("test authority")
        self._ca = _certificate(self._name, self._name, self._key, self._key, [], 1)
        self.ca_file = str(self._write("ca.pem", self._ca.public_bytes(serialization.Encoding.PEM)))

    def server(self, names: Iterable[str], days: int = 1, self_signed: bool = False) -> ssl.SSLContext:
        """Return the context of a server with a certificate for the names and IP addresses, valid for `days`."""
        key, name = ec.generate_private_key(ec.SECP256R1()), _name("test server")
        signer = (name, key) if self_signed else (self._name, self._key)
        made = _certificate(name, signer[0], key, signer[1], names, days)
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self._write("server.pem", private + made.public_bytes(serialization.Encoding.PEM)))
        return context

    def client(self, server_name: str = "localhost") -> dict[str, Any]:
        """Return the engine's settings for a client that trusts the authority."""
        return {"tls": tls_context(self.ca_file), "server_name": server_name}

    def _write(self, name: str, content: bytes) -> Path:
        path = self._directory / name
        path.write_bytes(content)
        return path


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])


def _certificate(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    signer: ec.EllipticCurvePrivateKey,
    names: Iterable[str],
    days: int,
) -> x509.Certificate:
    now = datetime.datetime.now(datetime.timezone.utc)
    alternatives: list[x509.GeneralName] = []
    for name in names:
        try:
            alternatives.append(x509.IPAddress(ipaddress.ip_address(name)))
        except ValueError:
            alternatives.append(x509.DNSName(name))
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=10))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=not alternatives, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    )
    if alternatives:
        builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
    else:
        usage = x509.KeyUsage(
            digital_signature=True, content_commitment=False, key_encipherment=False, data_encipherment=False,
            key_agreement=False, key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False,
        )  # fmt: skip
        builder = builder.add_extension(usage, critical=True)
    return builder.sign(signer, hashes.SHA256())
