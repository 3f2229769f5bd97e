# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Connections that are held open through a change, to tell which of them it cut and when.

All of them are looked after by one thread in the background, whatever the caller does meanwhile. An idle one says
nothing between its first exchange and its last; a chatting one makes an exchange again and again. A session ends in one
of these fates:

    alive    it lived to the end; where there is something to send, a last exchange has proven it
    closed   the other side ended it, if only its own half of it
    reset    it was broken off
    timeout  a reply did not come in time
    garbled  a reply was rubbish, or another destination's
    refused  it never came about: no connection, or no end of the TLS handshake
"""

from __future__ import annotations

import contextlib
import errno
import os
import selectors
import socket
import ssl
import threading
import time
from datetime import datetime, timedelta, timezone
from typing import Any, Callable

from ansible_collections.trafficshift.istio.plugins.plugin_utils._probe_engine import (
    DETAIL_LIMIT,
    Address,
    Net,
    TlsSession,
    check_settings,
    checked_name,
    leave_from,
    tls_detail,
)
from ansible_collections.trafficshift.istio.plugins.plugin_utils._probe_protocols import ProbeProtocol

MOST = 200  # sessions
PATIENCE = 30.0  # seconds that an exchange may take, if the timeout is longer
TURN = 0.1  # seconds, at most, until the thread looks up
REST = 0.01  # seconds between two turns: a server that floods the sessions must not take all of the processor
CHUNK = 65536  # bytes read at once
NEVER = float("inf")

# What a session waits for; a resting one for nothing.
CONNECTING, SHAKING, ASKING, RESTING = "connection", "end of the TLS handshake", "reply", ""
_NOT_YET = (BlockingIOError, ssl.SSLWantReadError)


class _Session:
    """One connection and what became of it."""

    def __init__(self, kind: str, now: float, deadline: float) -> None:
        self.kind = kind
        self.opened = now
        self.end: tuple[str, float, str] | None = None  # fate, when, and what there is to say about it
        self.destination: str | None = None
        self.exchanges = 0
        self.state = CONNECTING
        self.ready = False  # it has rested once
        self.deadline = deadline  # of its connection and its first exchange together
        self.until = deadline  # when what it waits for has to be there
        self.due = NEVER  # when its next exchange begins
        self.hop = -1  # position in addresses
        self.sock: Any = None
        self.fd = -1
        self.unsent = b""
        self.partial = b""  # the beginning of a reply


class _TlsSocket:
    """A socket that speaks TLS. The standard library's takes a reset for an end."""

    def __init__(self, sock: Any, session: TlsSession) -> None:
        self._sock, self._session = sock, session
        self.close = sock.close

    def do_handshake(self) -> None:
        """Shake hands; raises BlockingIOError until that is over."""
        while True:
            try:
                self._session.tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                self._session.flush(self._sock)
                self._fill()
            except ssl.SSLError:
                with contextlib.suppress(OSError):
                    self._session.flush(self._sock)  # the alert, which tells the server's log
                raise
        self._flush()

    def send(self, data: bytes) -> int:
        """Send, or keep it until something is received."""
        sent = self._session.tls.write(data)
        self._flush()
        return sent

    def recv(self, _size: int) -> bytes:
        """Return all that has come, b"" after the closing message; raises SSLEOFError for an end without it."""
        self._flush()
        try:
            return self._read()
        except ssl.SSLWantReadError:
            self._fill()
            return self._read()

    def unwrap(self) -> None:
        """Send the closing message; the other side's is not waited for."""
        with contextlib.suppress(OSError):
            self._session.tls.unwrap()
        self._flush()

    def _read(self) -> bytes:
        whole = b""
        try:
            while data := self._session.tls.read(CHUNK):
                whole += data
        except ssl.SSLWantReadError:
            if not whole:
                raise
        return whole

    def _fill(self) -> None:
        data = self._sock.recv(CHUNK)
        if not data:
            raise ssl.SSLEOFError
        self._session.incoming.write(data)

    def _flush(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._session.flush(self._sock)


class SessionCanary:
    """Holds sessions; start() opens them, stop() ends it, sessions() tells about them at any time."""

    def __init__(
        self,
        addresses: list[Address],
        protocol: ProbeProtocol,
        *,
        idle: int,
        chatting: int,
        chat_interval: float = 1.0,
        timeout: float = 5.0,
        source: str | None = None,
        tls: ssl.SSLContext | None = None,
        server_name: str | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take how many sessions of each kind to hold; chat_interval and timeout are seconds, all else as in Engine.

        Raises ValueError, in one sentence, for values that make no sense or cannot be used here.
        """
        check_canary(protocol, idle=idle, chatting=chatting, interval=chat_interval)
        check_settings(probes=1, concurrency=1, interval=0, timeout=timeout)
        self._protocol = protocol
        self._speaks = bool(protocol.payload())
        self._silent = protocol.read(b"", False) is not None  # a connection is all there is to it
        self._interval = chat_interval
        self._timeout = min(timeout, PATIENCE)
        self._tls, self._server_name = tls, checked_name(tls, server_name) if tls else None
        self._addresses: list[Address] = addresses
        self._new_socket: Callable[[int], Any] = Net.new_socket
        if source is not None:
            self._addresses, self._new_socket = leave_from(source, addresses, self._new_socket)
        self._clock = clock
        self._kinds = ["idle"] * idle + ["chatting"] * chatting
        self._sessions: list[_Session] = []
        self._selector: Any = None
        # No locks, events and joins: a signal handler that raises at the wrong moment leaves those locked.
        self._opened = self._over = self._closed = False
        self._first: dict[str, str] = {}  # what came first of _hold and stop(), told by setdefault() in one step
        self._thread = threading.Thread(target=self._hold, name="session canary", daemon=True)

    def start(self) -> None:
        """Open the sessions; return when each has had its first exchange or has failed, so within the timeout."""
        self._began, self._moment = self._clock(), datetime.now(timezone.utc)
        self._sessions = [_Session(kind, self._began, self._began + self._timeout) for kind in self._kinds]
        self._thread.start()
        while not self._opened:
            time.sleep(REST)

    def stop(self) -> list[dict[str, Any]]:
        """Prove by a last exchange which sessions live, close them, and return what became of all.

        That takes no longer than the timeout, and than PATIENCE. It may be called again, and after a start() that was
        interrupted.
        """
        self._over = True
        if self._first.setdefault("was", "stop") == "hold":
            while not self._closed:
                time.sleep(REST)
        return self.sessions()

    def sessions(self) -> list[dict[str, Any]]:
        """Return kind, destination, opened, fate, died, lived, exchanges and detail of each session.

        destination is None if none is known, opened (when connecting began) and died are moments in UTC by ISO 8601,
        died is None for the fate alive, lived is in seconds, and detail is a bounded text.
        """
        return [self._told(session) for session in self._sessions]

    def _told(self, session: _Session) -> dict[str, Any]:
        fate, ended, detail = session.end or ("alive", self._clock(), "")
        return {
            "kind": session.kind,
            "destination": session.destination,
            "opened": self._iso(session.opened),
            "fate": fate,
            "died": None if fate == "alive" else self._iso(ended),
            "lived": round(ended - session.opened, 3),
            "exchanges": session.exchanges,
            "detail": detail,
        }

    def _iso(self, moment: float) -> str:
        # All by one clock: were the system's set meanwhile, a session could have died before it was opened.
        told = self._moment + timedelta(seconds=moment - self._began)
        return told.isoformat(timespec="milliseconds").replace("+00:00", "Z")

    def _hold(self) -> None:
        """Look after the sessions until it is over: all that the thread does."""
        if self._first.setdefault("was", "hold") == "stop":
            return
        fate, detail, ending = "closed", "by the canary, which failed", False
        try:
            self._selector = selectors.DefaultSelector()
            for session in self._sessions:
                self._connect(session)
            # Once more through the loop when it is over, for all that has come until then.
            while not (ending and self._all(lambda session: session.state == RESTING)):
                if self._over and not ending:
                    ending = True
                    self._have_the_last_word()
                for key, _events in self._selector.select(self._see_to_what_is_due()):
                    self._advance(key.data)
                self._opened = self._opened or self._all(lambda session: session.ready)
                time.sleep(REST)
            fate, detail = "alive", ""
        finally:
            try:
                for session in self._sessions:
                    if not session.end:
                        self._end(session, fate, detail)
                if self._selector:
                    self._selector.close()
            finally:
                self._opened = self._closed = True

    def _all(self, what: Callable[[_Session], bool]) -> bool:
        return all(session.end or what(session) for session in self._sessions)

    def _have_the_last_word(self) -> None:
        """Let the exchange that comes next, or is under way, be a session's last."""
        for session in self._sessions:
            session.due = self._clock() if session.state == RESTING and self._speaks else NEVER

    def _see_to_what_is_due(self) -> float:
        """Begin exchanges, end what takes too long; return the seconds until there is more to see to, TURN at most."""
        now = self._clock()
        for session in self._sessions:
            if session.end:
                continue
            if session.state == RESTING and session.due <= now:
                self._advance(session)  # what is left of the reply before is not to be taken for the next
                if not session.end:
                    self._ask(session, now + self._timeout)
                    self._advance(session)
            elif session.state != RESTING and session.until <= now:
                self._give_up(session)
        live = (session for session in self._sessions if not session.end)
        then = min((session.until if session.state else session.due for session in live), default=NEVER)
        return min(max(0.0, then - now), TURN)

    def _connect(self, session: _Session) -> None:
        """Begin to connect to the next address."""
        now = self._clock()
        session.hop += 1
        family, sockaddr = self._addresses[session.hop]
        # A silent address may use up only its part of the time that the others need too.
        session.until = now + (session.deadline - now) / (len(self._addresses) - session.hop)
        try:
            session.sock = self._new_socket(family)
            session.fd = session.sock.fileno()
            code = session.sock.connect_ex(sockaddr)
        except OSError as error:
            code = error.errno or 0
        if code in (0, errno.EINPROGRESS) and session.sock:
            self._selector.register(session.fd, selectors.EVENT_WRITE, session)
        else:
            self._fail_to_connect(session, os.strerror(code))

    def _advance(self, session: _Session) -> None:
        """Go on with a session that may have news."""
        try:
            if session.state == CONNECTING:
                self._arrive(session)
            if session.state == SHAKING:
                if self._tls:
                    session.sock.do_handshake()
                self._ask(session, session.deadline)
            if session.unsent:
                session.unsent = session.unsent[session.sock.send(session.unsent) :]
            self._hear(session, session.sock.recv(CHUNK))
        except _NOT_YET:
            return
        except ssl.SSLError as error:
            cut_off = isinstance(error, ssl.SSLEOFError)
            if session.state == SHAKING:
                self._end(session, "refused", "closed in the handshake" if cut_off else tls_detail(error))
            elif cut_off:
                self._end(session, "closed", "without TLS's closing message")
            else:
                self._end(session, "garbled", tls_detail(error))
        except OSError as error:
            detail = os.strerror(error.errno or 0)
            if session.state == CONNECTING:
                self._fail_to_connect(session, detail)
            elif session.state == SHAKING:
                self._end(session, "refused", detail)
            else:
                self._end(session, "timeout" if error.errno == errno.ETIMEDOUT else "reset", detail)

    def _arrive(self, session: _Session) -> None:
        """Take note that the connection is there; raise OSError when it is not."""
        code = session.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, os.strerror(code))
        session.state, session.until = SHAKING, session.deadline
        self._selector.modify(session.fd, selectors.EVENT_READ, session)
        if self._tls:
            session.sock = _TlsSocket(session.sock, TlsSession(self._tls, self._server_name or ""))

    def _ask(self, session: _Session, until: float) -> None:
        """Begin an exchange, if the protocol has one."""
        if self._silent:
            session.state, session.ready = RESTING, True
            return
        session.state, session.until = ASKING, until
        session.partial, session.unsent = b"", self._protocol.payload()
        chats = session.kind == "chatting" and not self._over
        session.due = self._clock() + self._interval if chats else NEVER

    def _hear(self, session: _Session, data: bytes) -> None:
        """Take what came, b"" for the end."""
        if not data:
            owing = "in mid-reply" if session.partial else "instead of a reply"
            self._end(session, "closed", owing if session.state == ASKING else "")
            return
        if session.state == RESTING:
            return  # the rest of a reply that said enough before its end, or what nobody asked for
        session.partial += data
        understood = self._protocol.read(session.partial, False)
        if understood is None:
            return
        kind, text = understood
        if kind:
            self._end(session, "garbled", f"unexpected reply {text}" if kind == "unexpected" else text)
        elif text != (session.destination or text):
            self._end(session, "garbled", f"a reply of {text}")
        else:
            session.destination, session.exchanges = text, session.exchanges + 1
            session.state, session.ready, session.partial = RESTING, True, b""

    def _give_up(self, session: _Session) -> None:
        """End what has taken too long."""
        awaited = "end of the reply" if session.partial else session.state
        detail = f"no {awaited} within {self._timeout:g} s"
        if session.state == CONNECTING:
            self._fail_to_connect(session, detail)
        else:
            self._end(session, "timeout" if session.state == ASKING else "refused", detail)

    def _fail_to_connect(self, session: _Session, detail: str) -> None:
        """Try the next address; if there is none, that was it."""
        self._close(session)
        if session.hop + 1 < len(self._addresses):
            self._connect(session)
        else:
            self._end(session, "refused", detail)

    def _end(self, session: _Session, fate: str, detail: str) -> None:
        session.end = fate, self._clock(), detail[:DETAIL_LIMIT]
        if fate == "alive" and self._tls:
            with contextlib.suppress(OSError):
                session.sock.unwrap()
        self._close(session)

    def _close(self, session: _Session) -> None:
        if session.sock:
            with contextlib.suppress(KeyError):  # of a connection that failed at once
                self._selector.unregister(session.fd)
            session.sock.close()
            session.sock = None


def check_canary(protocol: ProbeProtocol, *, idle: int, chatting: int, interval: float) -> None:
    """Raise ValueError, in one sentence, when that is nothing to hold."""
    for name, number in (("idle", idle), ("chatting", chatting)):
        if isinstance(number, bool) or not isinstance(number, int) or number < 0:
            raise ValueError(f"{name} is {number!r}; give the number of sessions to hold, 0 for none")
    if not 1 <= idle + chatting <= MOST:
        raise ValueError(f"idle and chatting make {idle + chatting} sessions to hold; give from 1 to {MOST} in all")
    if isinstance(interval, bool) or not 0 < interval < float("inf"):
        raise ValueError(f"interval is {interval!r}; give the seconds between two exchanges of a session, more than 0")
    if chatting and not protocol.payload():
        raise ValueError(
            f"chatting is {chatting}, and the protocol has nothing to send; give 0, or the protocol line or exchange"
        )
