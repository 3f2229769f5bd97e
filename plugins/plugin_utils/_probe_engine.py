# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The probe engine: many short TCP conversations from one process, told as outcomes in launch order.

Three parts that can be tested apart: a protocol (bytes in, outcome out; see _probe_protocols, also for all kinds of
errors), the world (Net: sockets, poller and clock, all replaceable) and the Engine between them, which knows neither
what a reply means nor what a verdict is.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import ssl
import sys
import time
from collections.abc import Generator
from typing import Any, Callable, NamedTuple

from ansible_collections.trafficshift.istio.plugins.plugin_utils._probe_protocols import REPLY_LIMIT, ProbeProtocol

# (kind, text, seconds). Kind "" is an answer: text names the destination, seconds run from connect to what decided it.
# Any other kind is an error: text says more about it, for "unexpected" it is the word that came.
Outcome = tuple[str, str, float]

TLS_LIMIT = 262144  # bytes off the wire that a TLS connection may take, certificates and all
DETAIL_LIMIT = 120  # characters of what TLS says about an error
WINDOW = 16384  # probes launched ahead of the oldest unfinished one; bounds what waits for its turn in launch order
KNOWN = 64  # replies that are remembered with what they mean: most are like one before
BATCH = 256  # events taken at once
LINGER = 1.0  # seconds for the other side to end a connection that needs no reply
MANY_READS = 8  # of what such a connection is told all the same, before it is closed in the middle of that
LONGEST_WAIT = 3600.0  # seconds; epoll takes no more than some weeks

_KINDS = {
    errno.ECONNREFUSED: "refused",
    errno.ETIMEDOUT: "timeout",
    errno.ECONNRESET: "reset",
    errno.ECONNABORTED: "reset",
    errno.EPIPE: "reset",
    errno.EHOSTUNREACH: "unreachable",
    errno.ENETUNREACH: "unreachable",
    errno.EHOSTDOWN: "unreachable",
    errno.ENETDOWN: "unreachable",
    errno.EADDRNOTAVAIL: "no_local_port",
}
_TOO_MANY_FILES = (errno.EMFILE, errno.ENFILE)
# ip(7): let connect() choose the port, which it does by where the connection goes: more are free than for bind().
_BIND_WITHOUT_PORT = getattr(socket, "IP_BIND_ADDRESS_NO_PORT", 24 if sys.platform == "linux" else None)


class Address(NamedTuple):
    """One place to connect to: the address family and what connect() takes."""

    family: int
    sockaddr: tuple[Any, ...]


def resolve(host: str, port: int) -> list[Address]:
    """Return the addresses of host (a name, an IPv4 or an IPv6 address), in the system's order of preference.

    Raises ValueError, in one sentence, when the name does not resolve.
    """
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    try:
        found = socket.getaddrinfo(bare, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ValueError(f"host {host!r} does not resolve ({reason}); check the name") from error
    return list(dict.fromkeys(Address(family, sockaddr) for family, _type, _proto, _name, sockaddr in found))


READ, WRITE = select.POLLIN, select.POLLOUT  # the same numbers in epoll
FEW = 50  # connections up to which poll(2) takes less time than epoll(7)


class Poll:
    """poll(2), for few connections, and for many where there is no epoll.

    Each call looks at all connections, but none has to be announced to the system, which for few takes longer.
    """

    def __init__(self) -> None:
        self._poll = select.poll()
        self.register, self.unregister = self._poll.register, self._poll.unregister

    def poll(self, timeout: float, _most: int) -> list[tuple[int, int]]:
        ready = self._poll.poll(1000 * timeout)
        for fd, events in ready:
            if events & WRITE:
                # Told once only, as an edge is; a level would be told for ever.
                self._poll.modify(fd, READ)
        return ready

    def close(self) -> None:
        pass


class Epoll:
    """epoll(7), for many connections. It forgets a closed socket by itself."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self.poll, self.close = self._epoll.poll, self._epoll.close

    def register(self, fd: int, mask: int) -> None:
        self._epoll.register(fd, mask | select.EPOLLET)

    def unregister(self, fd: int) -> None:
        pass


class Net:
    """The real world: the system's sockets, its poller, its monotonic clock. Tests put a simulated one in its place."""

    clock: Callable[[], float] = staticmethod(time.monotonic)
    # There a send before the connection is there says "not yet".
    linux = sys.platform == "linux"

    def poller(self, connections: int) -> Any:
        return Epoll() if hasattr(select, "epoll") and connections > FEW else Poll()

    if hasattr(socket, "SOCK_NONBLOCK"):

        @staticmethod
        def new_socket(family: int) -> Any:
            # The C type itself, non-blocking from birth: half the cost of socket.socket() and one system call less.
            return socket.SocketType(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)

    else:

        @staticmethod
        def new_socket(family: int) -> Any:
            made = socket.socket(family, socket.SOCK_STREAM)
            made.setblocking(False)
            return made


def tls_context(ca_file: str | None) -> ssl.SSLContext:
    """Return a context that trusts the certificates in ca_file (PEM), or the system's if None, and checks the name.

    Raises ValueError, in one sentence, when the file cannot be read or holds no certificate.
    """
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except ssl.SSLError as error:
        raise ValueError(f"ca_file {ca_file!r} holds no certificate; give a file with certificates in PEM") from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ValueError(
            f"ca_file {ca_file!r} cannot be read ({reason}); give a file with certificates in PEM"
        ) from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    return context


class TlsSession:
    """The TLS side of one connection."""

    def __init__(self, context: ssl.SSLContext, server_name: str) -> None:
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname=server_name)
        self.shaken = False  # the handshake is over
        self.taken = 0  # bytes off the wire
        self.unsent = b""  # bytes for the wire

    def flush(self, sock: Any) -> None:
        """Send what is there to send; raise BlockingIOError when it cannot be sent now."""
        self.unsent += self.outgoing.read()
        while self.unsent:
            self.unsent = self.unsent[sock.send(self.unsent) :]


# number, socket, when connect began, when this attempt ends, position in addresses, when the probe ends
Flight = tuple[int, Any, float, float, int, float]


class Engine:
    """Runs probes against an address; see outcomes().

    A probe is: a new connection, the payload, the reply, an ordinary close (FIN, as real clients do: a reset would be
    counted as an error by proxies on the way). Where no reply is needed, the other side's end is waited for, LINGER
    seconds at most. One deadline covers all of it, however the other side dawdles.
    """

    def __init__(
        self,
        addresses: list[Address],
        protocol: ProbeProtocol,
        *,
        probes: int,
        concurrency: int = 1,
        interval: float = 0.0,
        timeout: float = 5.0,
        source: str | None = None,
        tls: ssl.SSLContext | None = None,
        server_name: str | None = None,
        net: Net | None = None,
    ) -> None:
        """Take the addresses to try, in order, and how to go about it; interval and timeout are seconds.

        `source` is the IP address of this machine to connect from: only addresses of its family are tried. With `tls`
        (see tls_context) the server has to prove that it is `server_name`, a host name, which it is told, or an IP
        address. Raises ValueError, in one sentence, for values that make no sense or cannot be used here.
        """
        check_settings(probes=probes, concurrency=concurrency, interval=interval, timeout=timeout)
        self.launched = 0  # probes that were begun
        self._addresses = addresses
        self._protocol = protocol
        self._probes = probes
        self._concurrency = concurrency
        self._interval = interval
        self._timeout = timeout
        self._net = net or Net()
        self._clock = self._net.clock
        self._new_socket: Callable[[int], Any] = self._net.new_socket
        if source is not None:
            self._addresses, self._new_socket = leave_from(source, addresses, self._new_socket)
        # Chosen once: the way of a plain exchange knows nothing of the others.
        self._go_on: Callable[[int, int], None] = self._advance
        self._content = protocol.read(b"", False)  # the verdict of a protocol that needs no reply
        if tls is not None:
            self._tls, self._server_name = tls, checked_name(tls, server_name)
            self._go_on = self._advance_tls
        elif self._content is not None:
            self._go_on = self._advance_silently
        self._eager = self._net.linux and self._go_on == self._advance
        # Position of the address that has let a connection in: from then on all probes go there and failures show.
        self._settled: int | None = None
        self._flying: dict[int, Flight] = {}  # by file descriptor, as the next two
        self._fresh: list[int] = []  # begun, and nothing done with them since
        self._unsent: set[int] = set()  # still connecting
        self._partial: dict[int, bytes] = {}  # the beginning of a reply that came in pieces
        self._sessions: dict[int, TlsSession] = {}  # with TLS only
        self._ended: dict[int, Outcome] = {}  # what connections came to that only the other side has yet to end
        self._known: dict[bytes, tuple[str, str]] = {}
        self._done: dict[int, Outcome] = {}  # finished, waiting for earlier probes

    @property
    def address(self) -> str | None:
        """The IP address that the probes went to, None if no connection came about."""
        return None if self._settled is None else str(self._addresses[self._settled].sockaddr[0])

    def stop(self) -> None:
        """Begin no more probes; outcomes() goes on to yield those that are under way, and ends."""
        self._probes = 0

    def outcomes(self) -> Generator[Outcome, None, None]:
        """Yield the outcome of every probe, in the order in which they were launched.

        The consumer may stop at any time. However the run ends, also by an exception out of a signal handler, all
        sockets are closed.
        """
        clock, timeout, interval, probes = self._clock, self._timeout, self._interval, self._probes
        flying, unsent, partial, done = self._flying, self._unsent, self._partial, self._done
        known, go_on = self._known, self._go_on
        plain = go_on == self._advance
        room = self._concurrency
        launched = delivered = 0
        now = due = payload_until = clock()
        self._check = now + timeout
        self._poller = poller = self._net.poller(room)
        poll, unregister = poller.poll, poller.unregister
        try:
            while delivered < probes:
                if now >= payload_until:
                    self._payload = self._protocol.payload()
                    payload_until = now + 0.5
                last = min(probes, delivered + WINDOW)
                while launched < last and len(flying) < room and now >= due:
                    try:
                        self._start(launched, self._settled or 0, now, now + timeout)
                    except OSError as error:
                        if error.errno not in _TOO_MANY_FILES or not flying:
                            done[launched] = (_kind(error.errno), str(error.strerror), 0.0)
                        else:
                            # The process may open no more files: go on with as many connections as it has.
                            room = len(flying)
                            break
                    launched += 1
                    if interval:
                        # Keep to the beat after a late wake-up, but never bunch starts to catch up.
                        due = max(due + interval, now + interval - 0.01)
                self.launched = launched
                self._greet()
                if flying or delivered not in done:
                    until = self._check if flying else due
                    if interval and launched < last and len(flying) < room:
                        until = min(until, due)
                    ready = poll(min(max(0.0, until - now), LONGEST_WAIT), BATCH)
                    now = clock()
                    for fd, events in ready:
                        if not plain or fd in unsent or fd in partial:
                            go_on(fd, events)
                            continue
                        # What nearly every reply is, whole at once, is dealt with here: calls would take longer.
                        number, sock, began, _ends, _hop, _deadline = flying[fd]
                        try:
                            data = sock.recv(REPLY_LIMIT)
                        except OSError as error:
                            self._break(fd, error)
                            continue
                        verdict = known.get(data) or self._understand(data)
                        if verdict is None:
                            partial[fd] = data
                            go_on(fd, events)
                            continue
                        # All of them were there when the waiting ended: none waits for those before it.
                        done[number] = (verdict[0], verdict[1], now - began)
                        del flying[fd]
                        unregister(fd)
                        sock.close()
                now = clock()
                if now >= self._check:
                    self._expire(now)
                while delivered in done:
                    yield done.pop(delivered)
                    delivered += 1
                probes = max(self._probes, launched)
        finally:
            for flight in flying.values():
                flight[1].close()
            flying.clear()
            poller.close()

    def _start(self, number: int, hop: int, now: float, deadline: float) -> None:
        """Begin probe `number` with the address at position `hop`; raise OSError when no socket can be had."""
        family, sockaddr = self._addresses[hop]
        sock = self._new_socket(family)
        fd = sock.fileno()
        ends = deadline
        if self._settled is None:
            # A silent address may use up only its part of the time that the others need too.
            ends = now + (deadline - now) / (len(self._addresses) - hop)
            self._check = min(self._check, ends)
        self._flying[fd] = (number, sock, self._clock(), ends, hop, deadline)
        if self._payload and self._net.linux:
            # tcp(7): the packet that ends the handshake waits for the payload and goes out with it.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 0)
        code = sock.connect_ex(sockaddr)
        if code not in (0, errno.EINPROGRESS):
            self._unsent.add(fd)
            self._fail(fd, _kind(code), os.strerror(code))
            return
        self._fresh.append(fd)

    def _greet(self) -> None:
        """Send on the connections just begun where they are there already, and have all of them watched."""
        for fd in self._fresh:
            _number, sock, _began, _ends, hop, _deadline = self._flying[fd]
            if self._eager:
                # Over loopback a connection is there at once: sending right away saves waiting for it.
                try:
                    sock.send(self._payload)
                except BlockingIOError:
                    self._eager = False
                except OSError as error:
                    self._unsent.add(fd)
                    self._fail(fd, _kind(error.errno), str(error.strerror))
                    continue
                else:
                    if self._settled is None:
                        self._settled = hop
                    self._poller.register(fd, READ)
                    continue
            self._unsent.add(fd)
            self._poller.register(fd, READ | WRITE)
        self._fresh.clear()

    def _advance(self, fd: int, events: int) -> None:
        """Go on with a connection that has news: send if it just came about, read, finish if the reply is whole."""
        flight = self._flying[fd]
        sock = flight[1]
        try:
            if fd in self._unsent:
                sock.send(self._payload)
                self._unsent.discard(fd)
                if self._settled is None:
                    self._settled = flight[4]
                if not events & READ:
                    return
            # An edge is told once: read until nothing is left, or for as long as there is time.
            while self._clock() <= flight[3]:
                data = sock.recv(REPLY_LIMIT)
                whole = self._partial.get(fd, b"") + data
                verdict = self._protocol.read(whole, not data)
                if verdict is not None:
                    self._finish(fd, flight, verdict)
                    return
                self._partial[fd] = whole
        except OSError as error:
            self._break(fd, error)

    def _understand(self, data: bytes) -> tuple[str, str] | None:
        """Return what the protocol makes of the beginning of a reply, and remember it if that is final."""
        verdict = self._protocol.read(data, not data)
        if verdict is not None:
            if len(self._known) >= KNOWN:
                self._known.clear()
            self._known[data] = verdict
        return verdict

    def _break(self, fd: int, error: OSError) -> None:
        """Fail a connection for what its socket says, unless that is that nothing is there yet."""
        if isinstance(error, BlockingIOError):
            return
        code = error.errno
        if fd in self._unsent and code in (errno.ENOTCONN, errno.EPIPE):
            code = self._flying[fd][1].getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) or code
        self._fail(fd, _kind(code), os.strerror(code or 0))

    def _advance_silently(self, fd: int, events: int) -> None:
        """End a connection that came about, for a protocol that needs no more."""
        if fd in self._ended:
            self._linger(fd)
            return
        flight = self._flying[fd]
        try:
            if self._content is not None and self._arrived(fd, flight, events):
                self._end(fd, flight, self._content)
        except OSError as error:
            self._fail(fd, _kind(error.errno), os.strerror(error.errno or 0))

    def _advance_tls(self, fd: int, events: int) -> None:
        """Go on with a TLS connection that has news: pass bytes between its socket and its session."""
        if fd in self._ended:
            self._linger(fd)
            return
        flight = self._flying[fd]
        sock = flight[1]
        try:
            if fd in self._unsent:
                if not self._arrived(fd, flight, events):
                    return
                self._sessions[fd] = TlsSession(self._tls, self._server_name)
            session = self._sessions[fd]
            while self._clock() <= flight[3]:
                verdict = self._converse(fd, session)
                if verdict is None:
                    session.flush(sock)
                    data = sock.recv(REPLY_LIMIT)
                    session.taken += session.incoming.write(data)
                    verdict = None if data else self._cut_off(fd, session)
                if verdict is not None:
                    self._part(fd, flight, verdict)
                    return
        except BlockingIOError:
            return
        except ssl.SSLError as error:
            with contextlib.suppress(OSError):
                session.flush(sock)  # the alert, which tells the server's log
            self._fail(fd, "tls", tls_detail(error))
        except OSError as error:
            self._fail(fd, _kind(error.errno), os.strerror(error.errno or 0))

    def _arrived(self, fd: int, flight: Flight, events: int) -> bool:
        """Tell whether the connection is there, and note it; raise OSError when it failed."""
        code = flight[1].getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, os.strerror(code))
        if not events & WRITE:
            return False
        self._unsent.discard(fd)
        if self._settled is None:
            self._settled = flight[4]
        return True

    def _converse(self, fd: int, session: TlsSession) -> tuple[str, str] | None:
        """Shake hands, send and read as far as the bytes at hand go; return what they come to, None if more are needed.

        Raises ssl.SSLError when the server breaks the rules of TLS.
        """
        tls, protocol = session.tls, self._protocol
        try:
            if not session.shaken:
                tls.do_handshake()
                session.shaken = True
                if self._payload:
                    tls.write(self._payload)
                if self._content is not None:
                    return self._content
            while True:
                data = tls.read(REPLY_LIMIT)
                whole = self._partial.get(fd, b"") + data
                verdict = protocol.read(whole, not data)
                if verdict is not None:
                    return verdict
                self._partial[fd] = whole
        except ssl.SSLWantReadError:
            # Empty records, new keys and the like are no reply, and a server can send them without end.
            return ("oversize", f"no end in the first {TLS_LIMIT} bytes of TLS") if session.taken > TLS_LIMIT else None

    def _cut_off(self, fd: int, session: TlsSession) -> tuple[str, str]:
        """Return what a connection comes to that ended without TLS having been ended."""
        if not session.shaken:
            return "tls", "closed in the handshake"
        verdict = self._protocol.read(self._partial.get(fd, b""), True)
        if verdict is not None and verdict[0] in ("empty", "truncated"):
            return verdict
        # Anyone on the way can cut a connection: such an end is not the server's word.
        return "truncated", "closed without TLS's closing message"

    def _part(self, fd: int, flight: Flight, verdict: tuple[str, str]) -> None:
        """Finish a TLS connection with its closing message, as real clients do."""
        session = self._sessions.pop(fd)
        with contextlib.suppress(OSError):
            session.tls.unwrap()
        with contextlib.suppress(OSError):
            session.flush(flight[1])
        if verdict == self._content:
            self._end(fd, flight, verdict)
        else:
            self._finish(fd, flight, verdict)

    def _end(self, fd: int, flight: Flight, verdict: tuple[str, str]) -> None:
        """End this side of a connection that needs no reply, note what it came to, and linger.

        A system lets connections in faster than a proxy can serve them: if the next one began now, `concurrency` would
        bound nothing, and everybody else would queue behind all those that this side is done with.
        """
        now = self._clock()
        ends = min(flight[3], now + LINGER)
        self._ended[fd] = (*verdict, now - flight[2])
        self._flying[fd] = (*flight[:3], ends, *flight[4:])
        self._check = min(self._check, ends)
        with contextlib.suppress(OSError):
            flight[1].shutdown(socket.SHUT_WR)
        self._linger(fd)

    def _linger(self, fd: int) -> None:
        """Finish a connection that this side has ended if the other side has ended it too, or talks on and on."""
        flight = self._flying[fd]
        try:
            for _each in range(MANY_READS):
                if not flight[1].recv(REPLY_LIMIT):
                    break
        except BlockingIOError:
            return
        except OSError:
            pass  # it came about, which is all that counts
        self._finish(fd, flight, self._ended[fd][:2])

    def _finish(self, fd: int, flight: Flight, verdict: tuple[str, str]) -> None:
        timed = (*verdict, self._clock() - flight[2])
        self._done[flight[0]] = self._ended.pop(fd, timed)  # what was noted stands, however long the end took
        del self._flying[fd]
        if self._partial:
            self._partial.pop(fd, None)
        with contextlib.suppress(KeyError):  # of a connection that failed before it was watched
            self._poller.unregister(fd)
        flight[1].close()

    def _fail(self, fd: int, kind: str, text: str) -> None:
        """Close; try another address if this one was never reached and another may be good, else note the failure."""
        flight = self._flying[fd]
        number, hop = flight[0], flight[4]
        other = hop + 1 if self._settled is None else self._settled
        connecting = fd in self._unsent
        self._unsent.discard(fd)
        self._sessions.pop(fd, None)
        self._finish(fd, flight, (kind, text))
        if connecting and other != hop and other < len(self._addresses):
            del self._done[number]
            try:
                self._start(number, other, self._clock(), flight[5])
            except OSError as error:
                self._done[number] = (_kind(error.errno), str(error.strerror), 0.0)

    def _expire(self, now: float) -> None:
        """Fail the connections whose time is over and note when to look again."""
        for fd, flight in list(self._flying.items()):
            if flight[3] <= now:
                self._fail(fd, "timeout", f"no {self._awaited(fd)} within {self._timeout:g} s")
        self._check = min((flight[3] for flight in self._flying.values()), default=now + self._timeout)

    def _awaited(self, fd: int) -> str:
        if fd in self._unsent:
            return "connection"
        if fd in self._sessions and not self._sessions[fd].shaken:
            return "end of the TLS handshake"
        return "end of the reply" if fd in self._partial else "reply"


def leave_from(
    source: str, addresses: list[Address], new_socket: Callable[[int], Any]
) -> tuple[list[Address], Callable[[int], Any]]:
    """Return those addresses that the IP address source can connect to, and what makes sockets bound to it.

    Raises ValueError, in one sentence, when that cannot be.
    """
    try:
        found = socket.getaddrinfo(source, 0, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except (OSError, UnicodeError) as error:
        raise ValueError(f"source {source!r} is no IP address; give one of this machine") from error
    own, _type, _proto, _name, place = found[0]
    late = _BIND_WITHOUT_PORT

    def bound(family: int) -> Any:
        made = new_socket(family)
        try:
            if late is not None:
                made.setsockopt(socket.IPPROTO_IP, late, 1)
            made.bind(place)
        except BaseException:
            made.close()
            raise
        return made

    try:
        bound(own).close()
    except OSError as error:
        hint = "give an address of this machine"
        raise ValueError(f"source {source!r} cannot be used ({error.strerror}); {hint}") from error
    reached = [address for address in addresses if address.family == own]
    if not reached:
        version = "IPv6" if own == socket.AF_INET6 else "IPv4"
        raise ValueError(f"source {source!r} is {version}, but host has no such address; give one of its kind")
    return reached, bound


def check_settings(*, probes: int, concurrency: int, interval: float, timeout: float) -> None:
    """Raise ValueError, in one sentence, when a setting makes no sense."""
    for name, value, least in (("probes", probes, 1), ("concurrency", concurrency, 1)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(f"{name} is {value!r}; give a whole number of at least {least}")
    if not _is_seconds(interval) or interval < 0:
        raise ValueError(f"interval is {interval!r}; give the seconds between two starts, 0 for no pause")
    if not _is_seconds(timeout) or timeout <= 0:
        raise ValueError(f"timeout is {timeout!r}; give the seconds that a probe may take, more than 0")


def check_address(host: str, port: int) -> None:
    """Raise ValueError, in one sentence, when host or port cannot be an address."""
    if not isinstance(host, str) or not host.strip():
        raise ValueError("host is empty; give a name, an IPv4 or an IPv6 address")
    if isinstance(port, bool) or not isinstance(port, int) or not 1 <= port <= 65535:
        raise ValueError(f"port is {port!r}; give a whole number from 1 to 65535")


def checked_name(tls: ssl.SSLContext, server_name: str | None) -> str:
    """Return the name without the brackets of an IPv6 address; raise ValueError when a certificate cannot have it."""
    name = (server_name or "").strip("[]")
    try:
        TlsSession(tls, name)
    except (ValueError, TypeError) as error:
        raise ValueError(f"server_name {name!r} is no name; give the one in the server's certificate") from error
    return name


def tls_detail(error: ssl.SSLError) -> str:
    """Return what is wrong, bounded, without what is of no use to a user."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate verify failed: {error.verify_message.rstrip('.')}"[:DETAIL_LIMIT]
    # Without its place in the source of Python, which str(error) has.
    return (error.reason or "broken off").replace("_", " ").lower()[:DETAIL_LIMIT]


def _is_seconds(value: object) -> bool:
    return not isinstance(value, bool) and isinstance(value, (int, float)) and abs(value) < float("inf")


def _kind(code: int | None) -> str:
    return _KINDS.get(code or 0, "other")
