# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The probe engine in a simulated network: scripted peers, a clock that only the poller moves."""

from __future__ import annotations

import errno
import itertools
import os
import re
import socket
from collections.abc import Iterator
from typing import Any, Callable, Union

import pytest
from ansible_collections.trafficshift.istio.plugins.plugin_utils import _probe_engine as engine_module
from ansible_collections.trafficshift.istio.plugins.plugin_utils._probe_engine import (
    READ,
    WRITE,
    Address,
    Engine,
    Net,
    resolve,
)
from ansible_collections.trafficshift.istio.plugins.plugin_utils._probe_protocols import (
    PROTOCOLS,
    REPLY_LIMIT,
    LineEcho,
    make_protocol,
)
from hypothesis import given
from hypothesis import strategies as st

# What a peer does: (seconds since the step before, bytes to send | errno to fail with | None to close). The first step
# is the end of connecting: an errno there fails it, anything else is taken as "connected".
Step = tuple[float, Union[bytes, int, None]]
Script = list[Step]

V4 = Address(socket.AF_INET, ("192.0.2.1", 9000))
V6 = Address(socket.AF_INET6, ("2001:db8::1", 9000, 0, 0))
OVERSIZE = ("oversize", "no newline in the first 8192 bytes of the reply")
ONE: Script = [(0.01, b""), (0.01, b"one hello\n")]
CONNECT = make_protocol("connect", [], None, None)


class FakeSocket:
    def __init__(self, world: FakeNet, fd: int) -> None:
        self.world, self.fd = world, fd
        self.script: Script = []
        self.began = 0.0
        self.sent = b""
        self.closed = False
        self.shut: int | None = None
        self.read = 0  # steps of the script that recv has handed out

    def fileno(self) -> int:
        return self.fd

    def setsockopt(self, _level: int, _name: int, _value: int) -> None:
        pass

    def connect_ex(self, sockaddr: tuple[Any, ...]) -> int:
        self.world.connects.append((self.world.now, sockaddr[0]))
        self.script = self.world.peer(len(self.world.connects) - 1, sockaddr[0])
        self.began = self.world.now
        first = self.script[0] if self.script else (float("inf"), b"")
        return first[1] if first == (0.0, first[1]) and isinstance(first[1], int) else errno.EINPROGRESS

    def times(self) -> list[float]:
        return list(itertools.accumulate((delay for delay, _what in self.script), initial=self.began))[1:]

    def send(self, payload: bytes) -> int:
        times = self.times()
        if not times or times[0] > self.world.now:
            raise BlockingIOError(errno.EAGAIN, "later") if self.world.linux else OSError(errno.ENOTCONN, "too early")
        if isinstance(self.script[0][1], int):
            code = self.script[0][1] if self.world.linux else errno.ENOTCONN
            raise OSError(code, os.strerror(code))
        self.sent += payload
        return len(payload)

    def getsockopt(self, _level: int, _name: int) -> int:
        arrived = self.script and self.times()[0] <= self.world.now
        return self.script[0][1] if arrived and isinstance(self.script[0][1], int) else 0

    def recv(self, _size: int) -> bytes:
        for position, ((_delay, what), at) in enumerate(zip(self.script, self.times())):
            if position < max(1, self.read) or at > self.world.now:
                continue
            self.read = position + 1
            if isinstance(what, int):
                raise OSError(what, os.strerror(what))
            return what or b""
        raise BlockingIOError(errno.EAGAIN, "nothing there")

    def shutdown(self, how: int) -> None:
        self.shut = how

    def close(self) -> None:
        self.closed = True
        self.world.open.pop(self.fd)


class FakeNet(Net):
    """A network whose peers follow scripts; `poll` moves the clock to the next thing that happens."""

    def __init__(self, peer: Callable[[int, str], Script], linux: bool = True, files: int = 10**6) -> None:
        self.now = 1000.0
        self.clock = lambda: self.now
        self.peer, self.linux, self.files = peer, linux, files
        self.open: dict[int, FakeSocket] = {}
        self.most_open = 0
        self.connects: list[tuple[float, str]] = []
        self.made: list[FakeSocket] = []
        self.interest: dict[int, int] = {}
        self.told: dict[int, float] = {}

    def new_socket(self, family: int) -> FakeSocket:  # type: ignore[override]
        if len(self.open) >= self.files:
            raise OSError(errno.EMFILE, "Too many open files")
        fd = next(number for number in itertools.count(3) if number not in self.open)
        self.open[fd] = made = FakeSocket(self, fd)
        self.made.append(made)
        self.most_open = max(self.most_open, len(self.open))
        return made

    def poller(self, _connections: int) -> FakeNet:
        return self

    def register(self, fd: int, mask: int) -> None:
        self.interest[fd] = mask
        self.told[fd] = -1.0

    def unregister(self, fd: int) -> None:
        self.interest.pop(fd, None)

    def poll(self, timeout: float, _maxevents: int) -> list[tuple[int, int]]:
        # Edges: what has happened on a connection since it was last told.
        fresh = {
            fd: at
            for fd, sock in self.open.items()
            if (at := min((t for t in sock.times() if t > self.told[fd]), default=None)) is not None
        }
        target = min([*fresh.values(), self.now + timeout])
        assert target < float("inf"), "would wait for ever"
        self.now = max(self.now, target)
        ready = []
        for fd, at in fresh.items():
            if at <= self.now:
                self.told[fd] = self.now
                arrived = sum(time <= self.now for time in self.open[fd].times())
                ready.append((fd, (WRITE if arrived else 0) | (READ if arrived > 1 else 0)))
        return ready

    def close(self) -> None:  # type: ignore[override]
        pass


def run(peer: Callable[[int, str], Script], addresses: list[Address] | None = None, **settings: Any) -> Any:
    """Return (outcomes, net, engine) of a whole run."""
    net = settings.pop("net", None) or FakeNet(peer)
    settings = {"probes": 1, "timeout": 5.0, **settings}
    protocol = settings.pop("protocol", None) or LineEcho(["one", "two"], "hello")
    engine = Engine(addresses or [V4], protocol, net=net, **settings)
    return list(engine.outcomes()), net, engine


def outcome(script: Script) -> tuple[str, str]:
    """Return what a single probe against the script comes to; see that nothing is left open."""
    outcomes, net, _engine = run(lambda _number, _host: script)
    assert len(outcomes) == 1
    assert not net.open
    return outcomes[0][0], outcomes[0][1]


class TestOneProbe:
    @pytest.mark.parametrize(
        ("script", "expected"),
        [
            (ONE, ("", "one")),
            ([(0.1, b""), (0.1, b"o"), (0.1, b"ne"), (0.1, b" x\n")], ("", "one")),
            ([(0.1, b""), (0.1, b"one x\n"), (0.0, None)], ("", "one")),
            ([(0.0, errno.ECONNREFUSED)], ("refused", "Connection refused")),
            ([(0.1, errno.ECONNREFUSED)], ("refused", "Connection refused")),
            ([(0.1, errno.EHOSTUNREACH)], ("unreachable", "No route to host")),
            ([(0.0, errno.ENETUNREACH)], ("unreachable", "Network is unreachable")),
            ([(0.0, errno.EADDRNOTAVAIL)], ("no_local_port", "Cannot assign requested address")),
            ([(0.0, errno.EPERM)], ("other", "Operation not permitted")),
            ([(0.1, errno.ETIMEDOUT)], ("timeout", "Connection timed out")),
            ([], ("timeout", "no connection within 5 s")),
            ([(0.1, b"")], ("timeout", "no reply within 5 s")),
            ([(0.1, b""), (0.1, b"on")], ("timeout", "no end of the reply within 5 s")),
            ([(0.1, b""), (4.95, b"one x\n")], ("timeout", "no reply within 5 s")),
            ([(0.1, b""), (0.1, None)], ("empty", "closed without a byte")),
            ([(0.1, b""), (0.1, b"one"), (0.1, None)], ("truncated", "closed before the newline")),
            # Bytes and the close arrive together: one edge, and still both are seen.
            ([(0.1, b""), (0.1, b"one"), (0.0, None)], ("truncated", "closed before the newline")),
            ([(0.1, b""), (0.1, errno.ECONNRESET)], ("reset", "Connection reset by peer")),
            ([(0.1, b""), (0.1, b"on"), (0.1, errno.ECONNRESET)], ("reset", "Connection reset by peer")),
            ([(0.1, errno.EPIPE)], ("reset", "Broken pipe")),
            (
                [(0.1, b""), *[(0.01, b"x" * 1000)] * 20],
                OVERSIZE,
            ),
            ([(0.1, b""), (0.1, b"three x\n")], ("unexpected", "three")),
            # A server that speaks, and closes, with the connection itself.
            ([(0.1, b""), (0.0, b"one x\n"), (0.0, None)], ("", "one")),
        ],
    )
    def test_kinds(self, script: Script, expected: tuple[str, str]) -> None:
        assert outcome(script) == expected

    def test_a_drip_does_not_move_the_deadline(self) -> None:
        outcomes, net, _engine = run(lambda *_: [(0.1, b""), *[(0.1, b"x")] * 1000], timeout=2.0)
        assert outcomes[0][:2] == ("timeout", "no end of the reply within 2 s")
        assert net.now - 1000.0 == pytest.approx(2.0)

    def test_a_reply_that_is_slow_to_judge_does_not_move_the_deadline(self) -> None:
        """A search may take its time over each of the many pieces that lie ready."""
        net = FakeNet(lambda *_: [(0.1, b""), *[(0.0, b"x")] * 1000])

        class Slow(LineEcho):
            def read(self, data: bytes, closed: bool) -> tuple[str, str] | None:
                net.now += 0.3 if data else 0.0
                return super().read(data, closed)

        outcomes, net, _engine = run(net.peer, net=net, protocol=Slow([]), timeout=2.0)
        assert outcomes[0][:2] == ("timeout", "no end of the reply within 2 s")
        assert net.now - 1000.0 < 2.5

    def test_the_payload_is_sent_once(self) -> None:
        _outcomes, net, _engine = run(lambda *_: [(0.1, b""), (0.1, b"on"), (0.1, b"e\n")])
        assert net.made[0].sent == b"hello\n"

    def test_latency_runs_from_connect_to_newline(self) -> None:
        outcomes, _net, _engine = run(lambda *_: [(0.25, b""), (0.5, b"one"), (0.25, b"\n")])
        assert outcomes[0] == ("", "one", pytest.approx(1.0))


class TestRun:
    def test_outcomes_come_in_launch_order(self) -> None:
        """The first probe is the slowest; its outcome comes first all the same."""
        slow = [2.0, 0.1, 1.0, 0.1]
        words = [b"one", b"two", b"one", b"two"]
        outcomes, _net, _engine = run(
            lambda number, _host: [(0.01, b""), (slow[number], words[number] + b"\n")], probes=4, concurrency=4
        )
        assert [text for _kind, text, _seconds in outcomes] == ["one", "two", "one", "two"]
        assert outcomes[0][2] > outcomes[1][2]

    def test_concurrency_is_used_and_kept(self) -> None:
        _outcomes, net, _engine = run(lambda *_: ONE, probes=100, concurrency=7)
        assert net.most_open == 7

    def test_interval_paces_the_starts(self) -> None:
        _outcomes, net, _engine = run(lambda *_: ONE, probes=10, interval=1.0, concurrency=5)
        assert [at - 1000.0 for at, _host in net.connects] == pytest.approx(list(range(10)))

    def test_interval_never_bunches_starts(self) -> None:
        """One probe at a time, one takes 3.5 s: the next start comes when it is over, the pace is kept from there."""
        scripts: list[Script] = [ONE, [(0.01, b""), (3.49, b"one\n")], ONE, ONE]
        _outcomes, net, _engine = run(lambda number, _host: scripts[number], probes=4, interval=1.0)
        starts = [at - 1000.0 for at, _host in net.connects]
        assert starts == pytest.approx([0.0, 1.0, 4.5, 5.5], abs=0.02)

    @pytest.mark.parametrize("linux", [True, False])
    def test_stop_ends_with_what_is_under_way(self, linux: bool) -> None:
        slow: Script = [(0.01, b""), (3.0, b"two\n")]
        net = FakeNet(lambda number, _host: ONE if number % 10 else slow, linux=linux)
        engine = Engine([V4], LineEcho(["one", "two"]), probes=1000, concurrency=7, interval=0.001, net=net)
        words, until_then = [], 0
        for _kind, text, _seconds in engine.outcomes():
            words.append(text)
            assert engine.launched == len(net.connects)
            if len(words) == 25:
                engine.stop()
                until_then = engine.launched
        assert words == ["one" if number % 10 else "two" for number in range(until_then)]
        assert engine.launched == until_then < 1000
        assert not net.open

    def test_stop_waits_for_no_beat(self) -> None:
        net = FakeNet(lambda *_: ONE)
        engine = Engine([V4], LineEcho(["one"]), probes=9, interval=100.0, net=net)
        for _outcome in engine.outcomes():
            engine.stop()
        assert engine.launched == 1
        assert net.now - 1000.0 == pytest.approx(0.02)

    def test_stop_before_the_first(self) -> None:
        net = FakeNet(lambda *_: ONE)
        engine = Engine([V4], LineEcho(["one"]), probes=9, net=net)
        engine.stop()
        assert not list(engine.outcomes())
        assert not net.connects

    def test_stopping_early_closes_everything(self) -> None:
        net = FakeNet(lambda number, _host: [(0.01, b""), (0.01 * (number % 7), b"one\n")])
        outcomes = Engine([V4], LineEcho(["one"]), probes=1000, concurrency=10, net=net).outcomes()
        for _attempt in range(5):
            next(outcomes)
        assert net.open
        outcomes.close()
        assert not net.open

    def test_an_exception_out_of_a_signal_closes_everything(self) -> None:
        def peer(number: int, _host: str) -> Script:
            if number == 20:
                raise KeyboardInterrupt
            return ONE

        net = FakeNet(peer)
        with pytest.raises(KeyboardInterrupt):
            list(Engine([V4], LineEcho(["one"]), probes=1000, concurrency=10, net=net).outcomes())
        assert not net.open

    def test_what_waits_for_its_turn_is_bounded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(engine_module, "WINDOW", 50)
        hanging: Script = [(0.01, b"")]
        outcomes, net, _engine = run(lambda number, _host: ONE if number else hanging, probes=200, concurrency=10)
        assert outcomes[0][0] == "timeout"
        assert sum(kind == "" for kind, _text, _seconds in outcomes) == 199
        assert sum(at < 1004.9 for at, _host in net.connects) == 50

    def test_a_low_limit_of_open_files_lowers_the_concurrency(self) -> None:
        net = FakeNet(lambda *_: ONE, files=3)
        outcomes, _net, _engine = run(lambda *_: ONE, net=net, probes=50, concurrency=10)
        assert [kind for kind, _text, _seconds in outcomes] == [""] * 50
        assert net.most_open == 3

    def test_no_file_at_all_is_an_error_and_no_hang(self) -> None:
        outcomes, _net, _engine = run(lambda *_: ONE, net=FakeNet(lambda *_: ONE, files=0), probes=3)
        assert outcomes == [("other", "Too many open files", 0.0)] * 3

    def test_no_attempt_to_send_before_the_connection_is_there_but_on_linux(self) -> None:
        net = FakeNet(lambda *_: ONE, linux=False)
        outcomes, _net, _engine = run(lambda *_: ONE, net=net, probes=20, concurrency=3)
        assert [kind for kind, _text, _seconds in outcomes] == [""] * 20
        assert not net.interest, "told when a socket is closed"

    @pytest.mark.parametrize("linux", [True, False])
    @pytest.mark.parametrize(
        ("rest", "over"),
        [
            ([(0.3, None)], 0.4),
            ([(0.2, b"welcome\n"), (0.1, None)], 0.4),
            ([(0.3, errno.ECONNRESET)], 0.4),
            ([(0.3, b"x")] * 9, 1.1),
            ([(0.1, b"x")] + [(0.0, b"x")] * 20, 0.2),
            ([], 1.1),
        ],
    )
    def test_what_needs_no_reply_is_over_when_the_other_side_has_ended_it(
        self, rest: Script, over: float, linux: bool
    ) -> None:
        """Or after a second: proxies let more connections in than they serve at a time."""
        script: Script = [(0.1, b""), *rest]
        outcomes, net, _engine = run(
            lambda *_: script, net=FakeNet(lambda *_: script, linux=linux), protocol=CONNECT, probes=6, concurrency=2
        )
        assert outcomes == [("", "connected", pytest.approx(0.1))] * 6
        starts = [at - 1000.0 for at, _host in net.connects]
        assert starts == pytest.approx([0.0, 0.0, over, over, 2 * over, 2 * over])
        assert {sock.shut for sock in net.made} == {socket.SHUT_WR}
        assert not net.open

    def test_the_deadline_covers_the_other_side_s_end(self) -> None:
        outcomes, net, _engine = run(lambda *_: [(0.1, b"")], protocol=CONNECT, probes=2, timeout=0.5)
        assert outcomes == [("", "connected", pytest.approx(0.1))] * 2
        assert net.now - 1000.0 == pytest.approx(1.0)

    def test_news_before_the_connection_is_there_is_no_connection(self) -> None:
        class Hasty(FakeNet):
            def poll(self, timeout: float, _maxevents: int) -> list[tuple[int, int]]:
                return super().poll(timeout, _maxevents) if self.now > 1000.0 else self.hasten()

            def hasten(self) -> list[tuple[int, int]]:
                self.now += 0.001
                return [(fd, READ) for fd in self.open]

        net = Hasty(lambda *_: [(0.1, errno.ECONNREFUSED)])
        outcomes, _net, _engine = run(net.peer, net=net, protocol=CONNECT)
        assert [kind for kind, _text, _seconds in outcomes] == ["refused"]

    def test_memory_stays_flat(self) -> None:
        net = FakeNet(lambda *_: ONE)
        engine = Engine([V4], LineEcho(["one"]), probes=5000, concurrency=8, net=net)
        net.made = _Forgetful()  # type: ignore[assignment]
        largest = 0
        for _outcome in engine.outcomes():
            largest = max(largest, len(engine._flying) + len(engine._done) + len(engine._partial) + len(engine._unsent))
        assert largest <= 4 * 8


class _Forgetful(list):  # type: ignore[type-arg]
    def append(self, _item: object) -> None:
        pass


class TestAddresses:
    def test_the_next_family_is_tried(self) -> None:
        refused: Script = [(0.1, errno.ECONNREFUSED)]
        outcomes, net, engine = run(
            lambda _number, host: refused if ":" in host else ONE, [V6, V4], probes=30, concurrency=10
        )
        assert [kind for kind, _text, _seconds in outcomes] == [""] * 30
        assert engine.address == "192.0.2.1"
        # Once an address has proved good, the other is left alone.
        assert all(host == "192.0.2.1" for _at, host in net.connects[20:])

    def test_a_silent_address_takes_only_its_part_of_the_time(self) -> None:
        outcomes, net, _engine = run(lambda _number, host: [] if ":" in host else ONE, [V6, V4], probes=3, timeout=4.0)
        assert [kind for kind, _text, _seconds in outcomes] == [""] * 3
        assert net.now - 1000.0 == pytest.approx(2.0 + 3 * 0.02, abs=0.05)

    def test_a_proven_address_is_not_given_up(self) -> None:
        """A backend that refuses half of the connections must show, even if another address would answer."""
        answers: Iterator[Script] = itertools.cycle([ONE, [(0.0, errno.ECONNREFUSED)]])
        outcomes, _net, engine = run(lambda _number, host: ONE if ":" in host else next(answers), [V4, V6], probes=10)
        assert [kind for kind, _text, _seconds in outcomes] == ["", "refused"] * 5
        assert engine.address == "192.0.2.1"

    def test_a_connection_that_was_there_is_not_tried_again_elsewhere(self) -> None:
        """Two probes begin with the first address; one settles the second, the other is cut at the first."""
        scripts: list[Script] = [[(0.1, errno.ECONNREFUSED)], [(0.2, b""), (0.1, errno.ECONNRESET)]]
        outcomes, _net, engine = run(
            lambda number, host: scripts[number] if ":" in host else ONE, [V6, V4], probes=2, concurrency=2
        )
        assert [kind for kind, _text, _seconds in outcomes] == ["", "reset"]
        assert engine.address == "192.0.2.1"

    def test_nothing_answers(self) -> None:
        outcomes, _net, engine = run(lambda _number, host: [(0.0, errno.ENETUNREACH)], [V6, V4], probes=2)
        assert [kind for kind, _text, _seconds in outcomes] == ["unreachable"] * 2
        assert engine.address is None

    def test_resolve(self) -> None:
        assert resolve("127.0.0.1", 80) == [Address(socket.AF_INET, ("127.0.0.1", 80))]
        assert resolve("::1", 80) == resolve("[::1]", 80) == [Address(socket.AF_INET6, ("::1", 80, 0, 0))]
        assert "127.0.0.1" in [address.sockaddr[0] for address in resolve("localhost", 80)]

    @pytest.mark.parametrize("host", ["does-not-exist.invalid", "300.1.1.1", "a" * 300, "white space", "x..y"])
    def test_a_name_that_does_not_resolve(self, host: str) -> None:
        with pytest.raises(ValueError, match=r"^host '.*' does not resolve \(.*\); check the name$"):
            resolve(host, 80)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"probes": 0}, "probes is 0; give a whole number of at least 1"),
        ({"probes": True}, "probes is True; give a whole number of at least 1"),
        ({"probes": 1.5}, "probes is 1.5; give a whole number of at least 1"),
        ({"concurrency": 0}, "concurrency is 0; give a whole number of at least 1"),
        ({"concurrency": -1}, "concurrency is -1; give a whole number of at least 1"),
        ({"interval": -0.1}, "interval is -0.1; give the seconds between two starts, 0 for no pause"),
        ({"interval": float("nan")}, "interval is nan; give the seconds between two starts, 0 for no pause"),
        ({"interval": float("inf")}, "interval is inf; give the seconds between two starts, 0 for no pause"),
        ({"timeout": 0}, "timeout is 0; give the seconds that a probe may take, more than 0"),
        ({"timeout": True}, "timeout is True; give the seconds that a probe may take, more than 0"),
        ({"timeout": "5"}, "timeout is '5'; give the seconds that a probe may take, more than 0"),
    ],
)
def test_refused_settings(setting: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=rf"^{re.escape(message)}$"):
        Engine([V4], LineEcho(["one"]), **{"probes": 1, **setting})


@pytest.mark.parametrize("port", [0, -1, 65536, True, "80", 80.5, None])
def test_refused_port(port: Any) -> None:
    with pytest.raises(ValueError, match=r"^port is .*; give a whole number from 1 to 65535$"):
        engine_module.check_address("host", port)


@pytest.mark.parametrize("host", ["", " ", None, 5])
def test_refused_host(host: Any) -> None:
    with pytest.raises(ValueError, match=r"^host is empty; give a name, an IPv4 or an IPv6 address$"):
        engine_module.check_address(host, 80)


delays = st.floats(0, 3).map(lambda seconds: round(seconds, 2))
codes = st.sampled_from([errno.ECONNREFUSED, errno.ECONNRESET, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL])
replies = st.sampled_from([b"one x\n", b"two\n", b"on", b"e x", b"\n", b"x" * 5000])
chunks = st.one_of(replies, st.none(), codes, st.binary(min_size=1, max_size=9))
scripts = st.lists(st.tuples(delays, chunks), max_size=6)


def told(script: Script, timeout: float) -> str:
    """Return the kind, or the word, that a probe for a line has to come to: the rules as they are, without events."""
    now, data = 0.0, b""
    for position, (delay, what) in enumerate(script):
        now += delay
        if now > timeout:
            break
        if isinstance(what, int):
            return engine_module._kind(what)
        if position == 0:
            continue
        data += what or b""
        if b"\n" in data[:REPLY_LIMIT]:
            words = data[: data.index(b"\n")].split()
            return words[0].decode() if words[:1] in ([b"one"], [b"two"]) else "unexpected"
        if len(data) >= REPLY_LIMIT:
            return "oversize"
        if what is None:
            return "truncated" if data else "empty"
    return "timeout"


@given(
    st.lists(scripts, min_size=1, max_size=12),
    st.integers(1, 6),
    st.sampled_from([0.0, 0.05, 1.0]),
    st.booleans(),
)
def test_any_peers(peers: list[Script], concurrency: int, interval: float, linux: bool) -> None:
    """Whatever the peers do: an outcome each, the right one, in launch order, in time, and nothing left open."""
    timeout = 4.999
    net = FakeNet(lambda number, _host: peers[number], linux=linux)
    engine = Engine([V4], LineEcho(["one", "two"]), probes=len(peers), concurrency=concurrency, timeout=timeout,
                    interval=interval, net=net)  # fmt: skip
    outcomes = list(engine.outcomes())
    assert [kind or text for kind, text, _seconds in outcomes] == [told(peer, timeout) for peer in peers]
    assert all(0 <= seconds <= timeout + 1e-6 for _kind, _text, seconds in outcomes)
    assert not net.open
    assert net.most_open <= concurrency
    starts = [at for at, _host in net.connects]
    assert all(later - earlier >= interval - 0.011 for earlier, later in zip(starts, starts[1:]))


@given(st.lists(scripts, min_size=1, max_size=9), st.integers(1, 6), st.booleans(), st.sampled_from(PROTOCOLS[1:]))
def test_any_peers_of_other_protocols(peers: list[Script], concurrency: int, linux: bool, name: str) -> None:
    """As with a line, except that the protocol is asked what it makes of the bytes."""
    timeout = 4.999
    protocol = make_protocol(name, ["one", "two"], *((b"which?", "(one|e)") if name == "exchange" else (None, None)))

    def expected(script: Script) -> str:
        now, data = 0.0, b""
        for position, (delay, what) in enumerate(script):
            now += delay
            if now > timeout:
                break
            if isinstance(what, int):
                return engine_module._kind(what)
            data += (what or b"") if position else b""
            verdict = protocol.read(data, what is None and position > 0)
            if verdict:
                return verdict[0] or verdict[1]
        return "timeout"

    outcomes, net, _engine = run(
        lambda number, _host: peers[number], net=FakeNet(lambda number, _host: peers[number], linux=linux),
        protocol=protocol, probes=len(peers), concurrency=concurrency, timeout=timeout,
    )  # fmt: skip
    assert [kind or text for kind, text, _seconds in outcomes] == [expected(peer) for peer in peers]
    assert not net.open
    assert {sock.sent for sock in net.made} <= {b"", protocol.payload()}
