# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The probe engine: many short TCP conversations from one process, told as outcomes in launch order.

Three parts that can be tested apart: a protocol (LineEcho: bytes in, outcome out), the world (Net: sockets, poller and
clock, all replaceable) and the Engine between them, which knows neither what a reply means nor what a verdict is.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import selectors
import socket
import time
from collections.abc import Generator, Iterable
from typing import Any, Callable, NamedTuple

# (kind, text, seconds). Kind "" is an answer: text names the destination, seconds run from connect to the newline.
# Any other kind is an error: text says more about it, for "unexpected" it is the word that came.
Outcome = tuple[str, str, float]

REPLY_LIMIT = 8192  # bytes within which a reply's newline has to come
PAYLOAD_LIMIT = 4096  # bytes; fits every system's smallest send buffer, so that one send call is enough
WORD_LIMIT = 40  # characters of an unknown word that are shown
WINDOW = 16384  # probes launched ahead of the oldest unfinished one; bounds what waits for its turn in launch order
BATCH = 256  # events taken at once
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


def printable(word: bytes) -> str:
    """Return a word off the wire as bounded, printable ASCII."""
    text = "".join(chr(byte) if 32 < byte < 127 else f"\\x{byte:02x}" for byte in word[: WORD_LIMIT + 1])
    return text if len(text) <= WORD_LIMIT else text[: WORD_LIMIT - 1] + "…"


def date_line() -> bytes:
    """Return a line with the current date, like date(1) prints in the C locale."""
    now = time.localtime()
    day = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")[now.tm_wday]
    month = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"][now.tm_mon - 1]
    return f"{day} {month} {now.tm_mday:2d} {time.strftime('%H:%M:%S %Z %Y', now)}\n".encode()


class LineEcho:
    """The line echo protocol: send a line, read a line, whose first word names the destination."""

    def __init__(self, destinations: Iterable[str], payload: str | None = None) -> None:
        """Take the words to expect and the line to send (the current date if None; a missing newline is added).

        Raises ValueError when the line is too long.
        """
        self._names = {name.encode(): name for name in destinations}
        self._line = None if payload is None else payload.encode() + b"\n" * (not payload.endswith("\n"))
        if self._line is not None and len(self._line) > PAYLOAD_LIMIT:
            raise ValueError(f"payload has {len(self._line)} bytes; at most {PAYLOAD_LIMIT} are sent, shorten it")

    def payload(self) -> bytes:
        """Return what the next probes send."""
        return date_line() if self._line is None else self._line

    def read(self, data: bytes, closed: bool) -> tuple[str, str] | None:
        """Return (kind, text) for all bytes that came so far, or None if the reply may go on."""
        end = data.find(b"\n", 0, REPLY_LIMIT)
        if end >= 0:
            words = data[:end].split(None, 1)
            word = words[0] if words else b""
            name = self._names.get(word)
            return ("unexpected", printable(word)) if name is None else ("", name)
        if len(data) >= REPLY_LIMIT:
            return "oversize", f"no newline in the first {REPLY_LIMIT} bytes of the reply"
        if closed:
            return ("truncated", "closed before the newline") if data else ("empty", "closed without a byte")
        return None


class SelectorsPoller:
    """What the engine needs of epoll, on systems without it."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()

    def register(self, fd: int, mask: int) -> None:
        events = (selectors.EVENT_READ if mask & READ else 0) | (selectors.EVENT_WRITE if mask & WRITE else 0)
        self._selector.register(fd, events)

    def unregister(self, fd: int) -> None:
        with contextlib.suppress(KeyError):
            self._selector.unregister(fd)

    def poll(self, timeout: float, maxevents: int) -> list[tuple[int, int]]:
        ready = []
        for key, events in self._selector.select(timeout):
            if events & selectors.EVENT_WRITE:
                # Told once only, as an edge is; a level would be told for ever.
                self._selector.modify(key.fd, selectors.EVENT_READ)
            ready.append((key.fd, events))
        return ready

    def close(self) -> None:
        self._selector.close()


_EPOLL = hasattr(select, "epoll")
READ = select.EPOLLIN if _EPOLL else 1
WRITE = select.EPOLLOUT if _EPOLL else 2
EDGE = select.EPOLLET if _EPOLL else 0


class Net:
    """The real world: the system's sockets, its poller, its monotonic clock. Tests put a simulated one in its place."""

    clock: Callable[[], float] = staticmethod(time.monotonic)
    # Linux: epoll forgets a closed socket by itself, and a send before the connection is there says "not yet".
    linux = _EPOLL

    def poller(self) -> Any:
        return select.epoll() if _EPOLL else SelectorsPoller()

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


# number, socket, when connect began, when this attempt ends, position in addresses, when the probe ends
Flight = tuple[int, Any, float, float, int, float]


class Engine:
    """Runs probes against an address; see outcomes().

    A probe is: a new connection, the payload, the reply, an ordinary close (FIN, as real clients do: a reset would be
    counted as an error by proxies on the way). One deadline covers all of it, however the other side dawdles.
    """

    def __init__(
        self,
        addresses: list[Address],
        protocol: LineEcho,
        *,
        probes: int,
        concurrency: int = 1,
        interval: float = 0.0,
        timeout: float = 5.0,
        net: Net | None = None,
    ) -> None:
        """Take the addresses to try, in order, and how to go about it; interval and timeout are seconds.

        Raises ValueError, in one sentence, for values that make no sense.
        """
        check_settings(probes=probes, concurrency=concurrency, interval=interval, timeout=timeout)
        self._addresses = addresses
        self._protocol = protocol
        self._probes = probes
        self._concurrency = concurrency
        self._interval = interval
        self._timeout = timeout
        self._net = net or Net()
        self._clock = self._net.clock
        self._eager = self._net.linux
        # Position of the address that has let a connection in: from then on all probes go there and failures show.
        self._settled: int | None = None
        self._flying: dict[int, Flight] = {}  # by file descriptor, as the next two
        self._unsent: set[int] = set()  # still connecting
        self._partial: dict[int, bytes] = {}  # the beginning of a reply that came in pieces
        self._done: dict[int, Outcome] = {}  # finished, waiting for earlier probes

    @property
    def address(self) -> str | None:
        """The IP address that the probes went to, None if no connection came about."""
        return None if self._settled is None else str(self._addresses[self._settled].sockaddr[0])

    def outcomes(self) -> Generator[Outcome, None, None]:
        """Yield the outcome of every probe, in the order in which they were launched.

        The consumer may stop at any time. However the run ends, also by an exception out of a signal handler, all
        sockets are closed.
        """
        clock, timeout, interval, probes = self._clock, self._timeout, self._interval, self._probes
        flying, done = self._flying, self._done
        room = self._concurrency
        launched = delivered = 0
        now = due = payload_until = clock()
        self._check = now + timeout
        self._poller = poller = self._net.poller()
        poll = poller.poll
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
                if flying or delivered not in done:
                    until = self._check if flying else due
                    if interval and launched < last and len(flying) < room:
                        until = min(until, due)
                    for fd, events in poll(min(max(0.0, until - now), LONGEST_WAIT), BATCH):
                        self._advance(fd, events)
                now = clock()
                if now >= self._check:
                    self._expire(now)
                while delivered in done:
                    yield done.pop(delivered)
                    delivered += 1
        finally:
            for flight in flying.values():
                flight[1].close()
            flying.clear()
            poller.close()

    def _start(self, number: int, hop: int, now: float, deadline: float) -> None:
        """Begin probe `number` with the address at position `hop`; raise OSError when no socket can be had."""
        family, sockaddr = self._addresses[hop]
        sock = self._net.new_socket(family)
        fd = sock.fileno()
        ends = deadline
        if self._settled is None:
            # A silent address may use up only its part of the time that the others need too.
            ends = now + (deadline - now) / (len(self._addresses) - hop)
            self._check = min(self._check, ends)
        self._flying[fd] = (number, sock, self._clock(), ends, hop, deadline)
        code = sock.connect_ex(sockaddr)
        if code not in (0, errno.EINPROGRESS):
            self._unsent.add(fd)
            self._fail(fd, _kind(code), os.strerror(code))
            return
        if self._eager:
            # Over loopback a connection is there at once: sending right away saves waiting for it.
            try:
                sock.send(self._payload)
            except BlockingIOError:
                self._eager = False
            except OSError as error:
                self._unsent.add(fd)
                self._fail(fd, _kind(error.errno), str(error.strerror))
                return
            else:
                if self._settled is None:
                    self._settled = hop
                self._poller.register(fd, READ | EDGE)
                return
        self._unsent.add(fd)
        self._poller.register(fd, READ | WRITE | EDGE)

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
            data = sock.recv(REPLY_LIMIT)
            if fd not in self._partial:
                verdict = self._protocol.read(data, not data)
                if verdict is not None:
                    self._finish(fd, flight, verdict)
                    return
                self._partial[fd] = data
                data = sock.recv(REPLY_LIMIT)
            # An edge is told once: read until nothing is left.
            while True:
                whole = self._partial[fd] + data
                verdict = self._protocol.read(whole, not data)
                if verdict is not None:
                    self._finish(fd, flight, verdict)
                    return
                self._partial[fd] = whole
                data = sock.recv(REPLY_LIMIT)
        except BlockingIOError:
            return
        except OSError as error:
            code = error.errno
            if fd in self._unsent and code in (errno.ENOTCONN, errno.EPIPE):
                code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) or code
            self._fail(fd, _kind(code), os.strerror(code or 0))

    def _finish(self, fd: int, flight: Flight, verdict: tuple[str, str]) -> None:
        self._done[flight[0]] = (verdict[0], verdict[1], self._clock() - flight[2])
        del self._flying[fd]
        if self._partial:
            self._partial.pop(fd, None)
        if not self._net.linux:
            self._poller.unregister(fd)
        flight[1].close()

    def _fail(self, fd: int, kind: str, text: str) -> None:
        """Close; try another address if this one was never reached and another may be good, else note the failure."""
        flight = self._flying[fd]
        number, hop = flight[0], flight[4]
        other = hop + 1 if self._settled is None else self._settled
        connecting = fd in self._unsent
        self._unsent.discard(fd)
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
                what = "connection" if fd in self._unsent else "end of the reply" if fd in self._partial else "reply"
                self._fail(fd, "timeout", f"no {what} within {self._timeout:g} s")
        self._check = min((flight[3] for flight in self._flying.values()), default=now + self._timeout)


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


def _is_seconds(value: object) -> bool:
    return not isinstance(value, bool) and isinstance(value, (int, float)) and abs(value) < float("inf")


def _kind(code: int | None) -> str:
    return _KINDS.get(code or 0, "other")
