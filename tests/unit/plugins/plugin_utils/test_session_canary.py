# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Held sessions on real sockets, against servers that keep them, end them and mistreat them."""

from __future__ import annotations

import itertools
import re
import socket
import threading
import time
import types
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.trafficshift.istio.plugins.plugin_utils import _session_canary
from ansible_collections.trafficshift.istio.plugins.plugin_utils._probe_engine import Address, resolve
from ansible_collections.trafficshift.istio.plugins.plugin_utils._probe_protocols import make_protocol
from ansible_collections.trafficshift.istio.plugins.plugin_utils._session_canary import SessionCanary
from servers import (
    LONG,
    Behaviour,
    Certificates,
    eventually,
    flood,
    half_close,
    hang,
    leave,
    open_files,
    reset,
    server,
)

LINE = make_protocol("line", ["one", "two"], None, None)
BANNER = make_protocol("banner", ["one", "two"], None, None)
CONNECT = make_protocol("connect", ["connected"], None, None)
EXCHANGE = make_protocol("exchange", ["one", "two"], b"who?", "version=([a-z]+);")
OFTEN = 0.02  # seconds between two exchanges
SHORT = 1.5  # seconds; a timeout that is to pass


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    # What a test of another file left may end meanwhile.
    files, threads = open_files(), set(threading.enumerate())
    yield
    assert eventually(lambda: open_files() <= files and set(threading.enumerate()) <= threads)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


def chat(name: bytes = b"one") -> Behaviour:
    """Answer line by line for as long as the client wants it."""

    def behave(connection: socket.socket) -> None:
        while line := connection.recv(1000):
            connection.sendall(name + b" " + line)

    return behave


def until(change: threading.Event, then: Behaviour) -> Behaviour:
    """Answer the first line, and when the change has come go on with `then`."""

    def behave(connection: socket.socket) -> None:
        connection.sendall(b"one " + connection.recv(1000))
        while not change.wait(0.001):
            pass
        then(connection)

    return behave


@contextmanager
def held(port: int, protocol: Any = LINE, host: str = "127.0.0.1", **settings: Any) -> Iterator[SessionCanary]:
    settings = {"idle": 0, "chatting": 0, "chat_interval": OFTEN, "timeout": LONG, **settings}
    canary = SessionCanary(resolve(host, port), protocol, **settings)
    try:
        canary.start()
        yield canary
    finally:
        canary.stop()


def fates(canary: SessionCanary) -> list[str]:
    return [session["fate"] for session in canary.sessions()]


def fewest(canary: SessionCanary) -> int:
    exchanges: list[int] = [session["exchanges"] for session in canary.sessions()]
    return min(exchanges)


def moment(text: str) -> datetime:
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", text)
    return datetime.fromisoformat(text[:-1] + "+00:00")


@pytest.mark.parametrize("secured", [False, True])
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_sessions_that_live(host: str, secured: bool, certificates: Certificates) -> None:
    ends: list[Any] = []

    def watch(connection: socket.socket) -> None:
        said = 0
        try:
            while line := connection.recv(1000):
                said += 1
                connection.sendall(b"one " + line)
            ends.append(said)
        except OSError as error:
            ends.append(error)

    tls = certificates.server(["localhost"]) if secured else None
    settings = certificates.client() if secured else {}
    with server(watch, host, tls) as port:
        with held(port, host=host, idle=2, chatting=2, **settings) as canary:
            assert eventually(
                lambda: [session["exchanges"] > 5 for session in canary.sessions()] == [False] * 2 + [True] * 2
            )
            before = canary.sessions()
            sessions = canary.stop()
            assert canary.stop()[0]["kind"] == "idle", "may be called again"
        assert eventually(lambda: len(ends) == 4)
    assert [session["exchanges"] for session in before[:2]] == [1, 1], "idle ones say nothing"
    assert [session["exchanges"] for session in sessions[:2]] == [2, 2], "but in the end they have proven to live"
    for earlier, session in zip(before, sessions):
        assert session["lived"] >= earlier["lived"] > 0
        assert earlier["fate"] == session["fate"] == "alive"
        assert (session["died"], session["destination"], session["detail"]) == (None, "one", "")
        assert session["exchanges"] > earlier["exchanges"]
    # No end but FIN, over TLS with its closing message, and not one line that was sent in vain.
    assert sorted(ends) == sorted(session["exchanges"] for session in sessions)


def test_it_is_known_who_holds_them() -> None:
    names = itertools.cycle([b"one", b"two"])

    def one_or_two(connection: socket.socket) -> None:
        chat(next(names))(connection)

    with server(one_or_two) as port, held(port, idle=4, chatting=4) as canary:
        assert eventually(lambda: all(session["exchanges"] > 1 for session in canary.sessions()[4:]))
        destinations = [session["destination"] for session in canary.stop()]
    assert sorted(destinations) == ["one"] * 4 + ["two"] * 4
    assert set(fates(canary)) == {"alive"}


def test_as_many_as_there_may_be() -> None:
    with server(chat()) as port, held(port, idle=100, chatting=100, chat_interval=0.5) as canary:
        sessions = canary.stop()
    assert [session["fate"] for session in sessions] == ["alive"] * 200


@pytest.mark.parametrize("secured", [False, True])
@pytest.mark.parametrize(
    ("then", "fate", "detail"),
    [
        (leave, "closed", ""),
        (half_close, "closed", ""),
        (reset, "reset", "Connection reset by peer"),
    ],
)
def test_an_end_is_noticed_without_a_word(
    then: Behaviour, fate: str, detail: str, secured: bool, certificates: Certificates
) -> None:
    """Idle sessions send nothing that could bring it out; the server would hear it."""
    change, heard = threading.Event(), []

    def end(connection: socket.socket) -> None:
        connection.setblocking(False)
        try:
            heard.append(connection.recv(1000))
        except OSError:
            then(connection)

    tls = certificates.server(["localhost"]) if secured else None
    settings = certificates.client() if secured else {}
    with server(until(change, end), tls=tls) as port, held(port, idle=3, **settings) as canary:
        assert fates(canary) == ["alive"] * 3
        change.set()
        assert eventually(lambda: "alive" not in fates(canary))
        sessions = canary.sessions()
        assert canary.stop() == sessions, "what has ended does not change any more"
    assert heard == []
    for session in sessions:
        assert (session["fate"], session["destination"], session["exchanges"]) == (fate, "one", 1)
        ended = "without TLS's closing message" if secured and fate == "closed" else detail
        assert session["detail"] == ended
        lived = moment(session["died"]) - moment(session["opened"])
        assert abs(lived - timedelta(seconds=session["lived"])) < timedelta(seconds=0.01)


@pytest.mark.parametrize(
    ("then", "fate", "detail"),
    [
        (leave, "closed|reset", ""),
        (reset, "reset", "Connection reset by peer"),
        (hang, "timeout", "no reply within 1.5 s"),
        (chat(b"two"), "garbled", "a reply of two"),
        (chat(b"<script>"), "garbled", "unexpected reply <script>"),
        (chat(b"\0\xff"), "garbled", r"unexpected reply \\x00\\xff"),
        (chat(b"x" * 9000), "garbled", "unexpected reply x+…|no newline in the first 8192 bytes of the reply"),
        (flood, "garbled", "no newline in the first 8192 bytes of the reply"),
        (lambda connection: (connection.recv(100), connection.sendall(b"on")), "closed", "in mid-reply"),
        (lambda connection: (connection.recv(100), connection.sendall(b"on"), hang(connection)), "timeout",
         "no end of the reply within 1.5 s"),
        (lambda connection: connection.recv(100), "closed", "instead of a reply"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["idle", "chatting"])
def test_bad_ends(then: Behaviour, fate: str, detail: str, kind: str) -> None:
    """A chatting session finds out by itself, an idle one when it has its last word."""
    change = threading.Event()
    with server(until(change, then)) as port, held(port, chat_interval=LONG, **{kind: 2}) as canary:
        assert fates(canary) == ["alive"] * 2
        if fate == "timeout":
            canary._timeout = SHORT
        if kind == "chatting":
            for session in canary._sessions:
                session.due = 0.0  # what the clock would do in time
        change.set()
        if kind == "chatting":
            assert eventually(lambda: "alive" not in fates(canary))
        sessions = canary.stop()
    for session in sessions:
        assert re.fullmatch(fate, session["fate"])
        if detail:
            assert re.fullmatch(detail, session["detail"])
        assert (session["destination"], session["exchanges"]) == ("one", 1)
        assert session["died"]


@pytest.mark.parametrize(
    ("behave", "fate", "detail"),
    [
        (leave, "closed|reset", "instead of a reply|Connection reset by peer"),
        (reset, "reset|refused", "Connection reset by peer"),
        (hang, "timeout", "no reply within 1.5 s"),
        (chat(b"three"), "garbled", "unexpected reply three"),
    ],
)
def test_bad_beginnings(behave: Behaviour, fate: str, detail: str) -> None:
    timeout = SHORT if fate == "timeout" else LONG
    with server(behave) as port, held(port, idle=1, chatting=1, timeout=timeout) as canary:
        sessions = canary.sessions()
        assert canary.stop() == sessions
    for session in sessions:
        assert re.fullmatch(fate, session["fate"])
        assert re.fullmatch(detail, session["detail"])
        assert (session["destination"], session["exchanges"]) == (None, 0)


def test_nobody_there() -> None:
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))  # bound, not listening
        with held(unheard.getsockname()[1], idle=1, chatting=1) as canary:
            sessions = canary.sessions()
    assert [(session["fate"], session["detail"]) for session in sessions] == [("refused", "Connection refused")] * 2
    assert all(session["died"] and session["destination"] is None for session in sessions)


def test_nobody_accepts() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)), held(port, CONNECT, idle=4, timeout=SHORT) as canary:
            told = {(session["fate"], session["detail"]) for session in canary.sessions()}
    assert ("refused", "no connection within 1.5 s") in told


def test_no_more_files(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_family: int) -> Any:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(_session_canary.Net, "new_socket", staticmethod(refuse))
    with held(9, idle=1) as canary:
        (session,) = canary.sessions()
    assert (session["fate"], session["detail"]) == ("refused", "Too many open files")


def test_the_next_address_is_tried() -> None:
    with socket.socket() as unheard, server(chat()) as port:
        unheard.bind(("127.0.0.1", 0))
        addresses = [Address(socket.AF_INET, unheard.getsockname()), *resolve("127.0.0.1", port)]
        canary = SessionCanary(addresses, LINE, idle=2, chatting=0, timeout=LONG)
        canary.start()
        assert [session["destination"] for session in canary.stop()] == ["one", "one"]


def test_they_leave_from_the_source() -> None:
    peers = []

    def watch(connection: socket.socket) -> None:
        peers.append(connection.getpeername()[0])
        chat()(connection)

    with server(watch) as port, held(port, idle=2, source="127.0.0.2") as canary:
        assert fates(canary) == ["alive"] * 2
    assert peers == ["127.0.0.2"] * 2


class TestTls:
    @contextmanager
    def over_tls(
        self, behave: Behaviour, certificates: Certificates, name: str = "localhost", trust: Any = None, **settings: Any
    ) -> Iterator[SessionCanary]:
        settings = {"idle": 1, **settings, **(trust or certificates).client()}
        with server(behave, tls=certificates.server([name])) as port, held(port, **settings) as canary:
            yield canary

    def test_a_certificate_that_nobody_knows(self, certificates: Certificates, tmp_path: Path) -> None:
        with self.over_tls(chat(), certificates, trust=Certificates(tmp_path)) as canary:
            (session,) = canary.sessions()
        assert session["fate"] == "refused"
        assert session["detail"].startswith("certificate verify failed: ")

    def test_another_name(self, certificates: Certificates) -> None:
        with self.over_tls(chat(), certificates, "elsewhere.example") as canary:
            (session,) = canary.sessions()
        assert session["fate"] == "refused"
        assert "localhost" in session["detail"]

    @pytest.mark.parametrize(
        ("behave", "detail"),
        [
            (chat(), "wrong version number"),
            (leave, "closed in the handshake|Connection reset by peer"),
            (half_close, "closed in the handshake"),
            (reset, "Connection reset by peer"),
            (hang, "no end of the TLS handshake within 1.5 s"),
        ],
    )
    def test_a_server_that_speaks_none(self, behave: Behaviour, detail: str, certificates: Certificates) -> None:
        timeout = SHORT if behave is hang else LONG
        with server(behave) as port, held(port, idle=1, timeout=timeout, **certificates.client()) as canary:
            (session,) = canary.sessions()
        assert session["fate"] == "refused"
        assert re.fullmatch(detail, session["detail"])

    def test_a_closing_message_is_a_close(self, certificates: Certificates) -> None:
        change = threading.Event()

        def part(connection: Any) -> None:
            connection.unwrap()

        with self.over_tls(until(change, part), certificates) as canary:
            change.set()
            assert eventually(lambda: fates(canary) == ["closed"])
            assert canary.sessions()[0]["detail"] == ""

    def test_a_record_that_is_none(self, certificates: Certificates) -> None:
        """Something on the way, or the wrong server, goes on with the connection."""
        change = threading.Event()

        def spoil(connection: socket.socket) -> None:
            with socket.socket(fileno=socket.dup(connection.fileno())) as raw:
                raw.sendall(b"one who are you?\n")
                hang(raw)

        with self.over_tls(until(change, spoil), certificates) as canary:
            change.set()
            assert eventually(lambda: fates(canary) == ["garbled"])
            assert canary.sessions()[0]["detail"] == "wrong version number"

    def test_an_answer_in_many_records(self, certificates: Certificates) -> None:
        """What came in one piece off the wire is seen at once, for nothing more may come."""

        def chatter(connection: socket.socket) -> None:
            while connection.recv(1000):
                for piece in (b"o", b"n", b"e", b" ", b"\n"):
                    connection.sendall(piece)

        with self.over_tls(chatter, certificates, idle=1, chatting=3) as canary:
            assert eventually(lambda: all(session["exchanges"] > 5 for session in canary.sessions()[1:]))
            assert {session["fate"] for session in canary.stop()} == {"alive"}

    def test_connect_is_over_with_the_handshake(self, certificates: Certificates) -> None:
        with self.over_tls(hang, certificates, protocol=CONNECT) as canary:
            (session,) = canary.stop()
        assert (session["fate"], session["exchanges"], session["destination"]) == ("alive", 0, None)


def test_connections_alone() -> None:
    change = threading.Event()

    def some(connection: socket.socket) -> None:
        if arrived.append(1) or len(arrived) > 2:  # type: ignore[func-returns-value]
            change.wait(LONG)
        else:
            hang(connection)

    arrived: list[int] = []
    with server(some) as port, held(port, CONNECT, idle=5) as canary:
        assert fates(canary) == ["alive"] * 5
        assert eventually(lambda: len(arrived) == 5)
        change.set()
        assert eventually(lambda: fates(canary).count("closed") == 3)
        sessions = canary.stop()
    assert sorted(session["fate"] for session in sessions) == ["alive"] * 2 + ["closed"] * 3
    assert {(session["destination"], session["exchanges"]) for session in sessions} == {(None, 0)}


def test_banners() -> None:
    def greet(connection: socket.socket) -> None:
        connection.sendall(b"two ready\n")
        hang(connection)

    with server(greet) as port, held(port, BANNER, idle=2) as canary:
        sessions = canary.stop()
    assert [(session["fate"], session["destination"], session["exchanges"]) for session in sessions] == [
        ("alive", "two", 1)
    ] * 2


class Turns:
    """Holds the thread up between two turns, in place of its rest."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._held, self._go = threading.Semaphore(0), threading.Semaphore(0)
        self.free = True
        clock = types.SimpleNamespace(sleep=self._rest, monotonic=time.monotonic)
        monkeypatch.setattr(_session_canary, "time", clock)

    def _rest(self, seconds: float) -> None:
        if self.free:
            time.sleep(seconds)
        else:
            self._held.release()
            self._go.acquire(timeout=LONG)

    @contextmanager
    def hold(self) -> Iterator[None]:
        self.free = False
        assert self._held.acquire(timeout=LONG)
        try:
            yield
        finally:
            self.free = True
            self._go.release()


class TestWhatFollowsAnAnswer:
    """An answer that is understood before its end must not have the rest of it taken for the next."""

    def test_it_belongs_to_it(self) -> None:
        change = threading.Event()

        def long_winded(connection: socket.socket) -> None:
            connection.recv(1000)
            connection.sendall(b"version=one;")
            change.wait(LONG)
            connection.sendall(b" version=two;")

        with server(long_winded) as port, held(port, EXCHANGE, idle=2) as canary:
            change.set()
            assert eventually(lambda: "alive" not in fates(canary))
            assert fates(canary) == ["closed"] * 2

    def test_it_is_out_of_the_way_before_the_next_question(self, monkeypatch: pytest.MonkeyPatch) -> None:
        turns, change, sent = Turns(monkeypatch), threading.Event(), threading.Event()

        def long_winded(connection: socket.socket) -> None:
            connection.recv(1000)
            connection.sendall(b"version=one;")
            change.wait(LONG)
            connection.sendall(b" version=two;")
            sent.set()
            while connection.recv(1000):
                connection.sendall(b"version=one;")

        with server(long_winded) as port, held(port, EXCHANGE, chatting=1, chat_interval=LONG) as canary:
            with turns.hold():
                change.set()
                assert sent.wait(LONG)
                canary._sessions[0].due = 0.0  # what the clock would do in time
            assert eventually(lambda: fewest(canary) == 2)
            assert fates(canary) == ["alive"]


def test_what_nobody_asked_for_is_nothing() -> None:
    """A server may push what it likes; the thread stays within bounds, and an end after it is an end."""
    change = threading.Event()

    def push(connection: socket.socket) -> None:
        connection.sendall(b"one " + connection.recv(1000))
        while not change.is_set():
            connection.sendall(b"two news\n" * 1000)

    with server(push) as port, held(port, CONNECT, idle=1) as other, held(port, idle=2) as canary:
        assert fates(canary) == ["alive"] * 2
        change.set()
        assert eventually(lambda: "alive" not in fates(canary))
        assert fates(other) == ["alive"]


def test_one_that_dies_does_not_disturb_the_others() -> None:
    numbers, change = itertools.count(), threading.Event()

    def mixed(connection: socket.socket) -> None:
        (until(change, leave) if next(numbers) % 2 else chat())(connection)

    with server(mixed) as port, held(port, chatting=0, idle=6) as canary:
        change.set()
        assert eventually(lambda: fates(canary).count("closed") == 3)
        assert sorted(session["fate"] for session in canary.stop()) == ["alive"] * 3 + ["closed"] * 3


def test_stop_waits_for_the_replies_that_are_due() -> None:
    asked, answer = threading.Event(), threading.Event()

    def late(connection: socket.socket) -> None:
        connection.sendall(b"one " + connection.recv(1000))
        line = connection.recv(1000)
        asked.set()
        answer.wait(LONG)
        connection.sendall(b"one " + line)
        chat()(connection)

    with server(late) as port, held(port, chatting=1) as canary:
        assert asked.wait(LONG)
        threading.Timer(0.05, answer.set).start()
        (session,) = canary.stop()
    assert session["fate"] == "alive"
    assert session["exchanges"] >= 2


def test_the_clock_of_the_machine_may_be_set() -> None:
    clock = iter(range(10**9))
    with server(chat()) as port:
        canary = SessionCanary(
            resolve("127.0.0.1", port), LINE, idle=1, chatting=0, timeout=10**8, clock=lambda: float(next(clock))
        )
        canary.start()
        (session,) = canary.stop()
    assert session["lived"] >= 1


def test_no_exchange_takes_longer_than_patience() -> None:
    assert SessionCanary([], LINE, idle=1, chatting=0, timeout=1e12)._timeout == _session_canary.PATIENCE


def test_stopped_before_it_began(monkeypatch: pytest.MonkeyPatch) -> None:
    """An interruption may come when the thread is made, and before it is alive."""
    canary = SessionCanary(resolve("127.0.0.1", 9), LINE, idle=1, chatting=0)
    assert canary.stop() == canary.sessions() == []

    def start() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(canary._thread, "start", start)
    with pytest.raises(KeyboardInterrupt):
        canary.start()
    assert [session["kind"] for session in canary.stop()] == ["idle"]
    canary._hold()
    assert canary._sessions[0].hop == -1, "it has come too late to open anything"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_fault_of_its_own_is_no_life() -> None:
    class Faulty:
        def payload(self) -> bytes:
            return b"x"

        def read(self, data: bytes, closed: bool) -> None:
            if data:
                raise ZeroDivisionError

    with server(chat()) as port, held(port, Faulty(), idle=2) as canary:
        assert {(session["fate"], session["detail"]) for session in canary.sessions()} == {
            ("closed", "by the canary, which failed")
        }


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_no_file_left_to_watch_them_with(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> Any:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(_session_canary.selectors, "DefaultSelector", refuse)
    with held(9, idle=1) as canary:
        assert fates(canary) == ["closed"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"idle": -1}, "idle is -1; give the number of sessions to hold, 0 for none"),
        ({"chatting": True}, "chatting is True; give the number of sessions to hold, 0 for none"),
        ({"idle": 1.5}, "idle is 1.5; give the number of sessions to hold, 0 for none"),
        ({}, "idle and chatting make 0 sessions to hold; give from 1 to 200 in all"),
        ({"idle": 150, "chatting": 51}, "idle and chatting make 201 sessions to hold; give from 1 to 200 in all"),
        (
            {"idle": 1, "chat_interval": 0},
            "interval is 0; give the seconds between two exchanges of a session, more than 0",
        ),
        ({"idle": 1, "timeout": 0}, "timeout is 0; give the seconds that a probe may take, more than 0"),
        ({"chatting": 3, "protocol": BANNER}, "chatting is 3, and the protocol has nothing to send; give 0, or the"),
        ({"chatting": 3, "protocol": CONNECT}, "chatting is 3, and the protocol has nothing to send; give 0, or the"),
        ({"idle": 1, "source": "nowhere"}, "source 'nowhere' is no IP address; give one of this machine"),
    ],
)
def test_refused(settings: dict[str, Any], message: str) -> None:
    settings = {"protocol": LINE, "idle": 0, "chatting": 0, **settings}
    with pytest.raises(ValueError, match=rf"^{re.escape(message)}") as refusal:
        SessionCanary(resolve("127.0.0.1", 9), **settings)
    assert "\n" not in str(refusal.value)
