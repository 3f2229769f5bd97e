# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What probes say and how they read the reply: bytes in, outcome out. Pure.

Every probe ends in one of these kinds; only the first is counted for a destination:

    ""             an answer that names an expected destination; for "connect", a connection that came about
    unexpected     a whole reply that names none, or, where an expression decides, a reply that it does not match
    empty          closed without a byte
    truncated      closed in mid-reply; over TLS, also closed without its closing message where the end matters
    oversize       no end of the reply within the bytes that are read of it
    timeout        the probe's time was over: while connecting, in the TLS handshake, before or in the reply
    refused        nobody listens there
    unreachable    no way to the host or its network
    reset          the connection was broken off
    tls            the TLS handshake or a TLS record is no good: an unknown, expired or foreign certificate, no TLS
    no_local_port  this machine has no free port left towards the destination
    other          any other error of the system, which the text names
"""

from __future__ import annotations

import importlib
import math
import re
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any, Protocol

REPLY_LIMIT = 8192  # bytes within which a reply has to be decided
PAYLOAD_LIMIT = 4096  # bytes; fits every system's smallest send buffer, so that one send call is enough
WORD_LIMIT = 40  # characters of an unknown word that are shown
PROTOCOLS = ("line", "connect", "banner", "exchange")
CONNECTED = "connected"  # stands for the destination where none is named
# Bytes of a reply that are searched, by how many choices the expression leaves (see _choices): what the worst replies
# take is n**2 and n**3 steps, and that is some tenths of a second with either.
SEARCH_LIMITS = {0: 4096, 1: 512}
MANY = 10  # rounds of a repeat, from here on as good as unbounded

_parser = importlib.import_module("re._parser" if sys.version_info >= (3, 11) else "sre_parse")
_compiler = importlib.import_module("re._compiler" if sys.version_info >= (3, 11) else "sre_compile")
_ONE_BYTE = (_parser.LITERAL, _parser.NOT_LITERAL, _parser.ANY, _parser.IN)
_REPEATS = (_parser.MAX_REPEAT, _parser.MIN_REPEAT)
_ENDS: dict[Any, set[int]] = {_parser.AT_END: {10}, _parser.AT_END_STRING: set()}  # what may come after $ and \Z


class ProbeProtocol(Protocol):
    """What the engine needs to know of a protocol."""

    def payload(self) -> bytes:
        """Return what the next probes send, b"" if nothing: at most PAYLOAD_LIMIT bytes."""

    def read(self, data: bytes, closed: bool) -> tuple[str, str] | None:
        """Return (kind, text) for all bytes that came so far, or None if the reply may go on.

        It may not go on when it is closed or has REPLY_LIMIT bytes. A protocol that makes something of no bytes of an
        open connection needs no reply.
        """


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


class Banner:
    """The server speaks first: nothing is sent, the first word of the first line names the destination."""

    def __init__(self, destinations: Iterable[str]) -> None:
        """Take the words to expect."""
        self._names = {name.encode(): name for name in destinations}

    def payload(self) -> bytes:
        """Return nothing to send."""
        return b""

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


class LineEcho(Banner):
    """The line echo protocol: send a line, read a line, whose first word names the destination."""

    def __init__(self, destinations: Iterable[str], payload: str | bytes | None = None) -> None:
        """Take the words to expect and the line to send (the current date if None; a missing newline is added).

        Raises ValueError when the line is too long.
        """
        super().__init__(destinations)
        line = payload.encode() if isinstance(payload, str) else payload
        self._line = None if line is None else _sendable(line + b"\n" * (not line.endswith(b"\n")))

    def payload(self) -> bytes:
        """Return what the next probes send."""
        return date_line() if self._line is None else self._line


class Connect:
    """A connection, with its TLS handshake if there is one, and no more."""

    def payload(self) -> bytes:
        """Return nothing to send."""
        return b""

    def read(self, data: bytes, closed: bool) -> tuple[str, str]:
        """Return that all is well."""
        return "", CONNECTED


class Exchange:
    """Send bytes, search the reply for an expression whose group names the destination; it need not end in a newline.

    The first match decides. Only when its word reaches the last byte that came, and more bytes may make an expected or
    another expected one of it, they are waited for: how the reply was cut into packets must not choose the destination.
    Only the beginning of the reply is searched, see SEARCH_LIMITS.
    """

    def __init__(self, destinations: Iterable[str], payload: bytes, match: re.Pattern[bytes]) -> None:
        """Take the words to expect, what to send (b"": the server speaks first) and an expression of compile_match.

        Raises ValueError when the payload is too long.
        """
        self._names = {name.encode(): name for name in destinations}
        self._open = {word for word in self._names if any(o != word and o.startswith(word) for o in self._names)}
        self._payload = _sendable(payload)
        self._limit = SEARCH_LIMITS[int(_choices(_parser.parse(match.pattern), set()))]
        self._search = match.search
        self._group = match.groupindex.get("destination", 1)

    def payload(self) -> bytes:
        """Return what the next probes send."""
        return self._payload

    def read(self, data: bytes, closed: bool) -> tuple[str, str] | None:
        """Return (kind, text) for all bytes that came so far, or None if the reply may go on."""
        if not data:
            return ("empty", "closed without a byte") if closed else None
        whole = closed or len(data) >= self._limit
        found = self._search(data, 0, self._limit)
        word = found[self._group] if found else None
        if found and word is not None:
            name = self._names.get(word)
            if whole or found.end(self._group) < len(data) or (name is not None and word not in self._open):
                return ("unexpected", printable(word)) if name is None else ("", name)
        return ("unexpected", printable(data)) if whole else None


def compile_match(text: str) -> re.Pattern[bytes]:
    """Return the expression for bytes that text, in UTF-8, spells; its group destination, or the first, names one.

    Raises ValueError, in one sentence, when it is no expression, has no group, or could search some reply for ever.
    """
    try:
        pattern = re.compile(text.encode())
        choices = _choices(_parser.parse(text.encode()), set())
    except (re.error, OverflowError, RecursionError, UnicodeError) as error:
        raise ValueError(f"match {text!r} is no regular expression ({error}); correct it") from error
    if not pattern.groups:
        raise ValueError(f"match {text!r} has no group; put what names the destination in parentheses")
    if choices not in SEARCH_LIMITS:
        raise ValueError(
            f"match {text!r} leaves too much choice in what it repeats, as (a+)+ and .*a.*b do, so that some replies "
            "would keep the search busy for ever; let a repetition end where the next piece begins, as [^;]*; does"
        )
    return pattern


def make_protocol(name: str, expect_words: Iterable[str], payload: bytes | None, match: str | None) -> ProbeProtocol:
    """Return the protocol called name: one of PROTOCOLS.

    Raises ValueError, in one sentence, for another name and for a payload or an expression that is missing, too much or
    no good.
    """
    if name not in PROTOCOLS:
        raise ValueError(f"protocol {name!r} is not known; choose {', '.join(PROTOCOLS[:-1])} or {PROTOCOLS[-1]}")
    if name == "exchange" and (payload is None or match is None):
        missing = "payload" if payload is None else "match"
        raise ValueError(f"protocol exchange has no {missing}; give both what to send and the expression to search for")
    if payload is not None and name in ("connect", "banner"):
        raise ValueError(f"protocol {name} sends nothing; take the payload away or choose line or exchange")
    if match is not None and name in ("line", "connect"):
        raise ValueError(f"protocol {name} has no use for match; take it away or choose banner or exchange")
    if name == "connect":
        return Connect()
    if match is not None:
        return Exchange(expect_words, payload or b"", compile_match(match))
    return Banner(expect_words) if name == "banner" else LineEcho(expect_words, payload)


def _sendable(payload: bytes) -> bytes:
    if len(payload) > PAYLOAD_LIMIT:
        raise ValueError(f"payload has {len(payload)} bytes; at most {PAYLOAD_LIMIT} are sent, shorten it")
    return payload


def _choices(items: Any, follow: set[int], looped: bool = False) -> float:
    """Return how many repeats of a parsed expression leave a choice of where they end; infinite if one is in a loop.

    No choice is left where none of the bytes that may follow a repeat (`follow` after the last item) can begin another
    round. A search in n bytes that fails has tried all there is to choose: each of n places to begin, each of up to n
    places to end for every choice, and for one in a loop up to 2**n ways.
    """
    items = _ungrouped(items)
    total = 0.0
    for position, (op, arg) in enumerate(items):
        if op in _REPEATS:
            least, most, body = arg
            after = _begins(items[position + 1 :], follow)
            begin = _begins(body, after)
            if least != most and begin & after:
                total += math.inf if looped else 1
            loops = most >= MANY
            total += (1 if loops else most) * _choices(body, begin | after if most > 1 else after, looped or loops)
        elif op is _parser.BRANCH:
            after = _begins(items[position + 1 :], follow)
            begins = [_begins(part, after) for part in arg[1]]
            if looped and sum(map(len, begins)) > len(set().union(*begins)):
                return math.inf
            total += sum(_choices(part, after, looped) for part in arg[1])
        else:
            # Nothing goes back into a look-around, an atomic group or a possessive repeat.
            total += sum(_choices(part, set()) for part in _parts(arg))
    return total


def _ungrouped(items: Any) -> Any:
    """Return the items of a parsed expression with those of its groups in their places."""
    flat = _parser.SubPattern(items.state, [])
    for op, arg in items:
        flat.data.extend(_ungrouped(arg[3]).data if op is _parser.SUBPATTERN else [(op, arg)])
    return flat


def _parts(arg: Any) -> Iterator[Any]:
    """Yield the expressions in an item's argument, at any depth of tuples and lists."""
    if isinstance(arg, _parser.SubPattern):
        yield arg
    elif isinstance(arg, (tuple, list)):
        for part in arg:
            yield from _parts(part)


def _begins(items: Any, follow: set[int]) -> set[int]:
    """Return the bytes that what the items match, with what follows, can begin with; all where that is hard to say."""
    items = _ungrouped(items)
    if not len(items):
        return follow
    (op, arg), rest = items[0], items[1:]
    if op in _ONE_BYTE:
        one = _compiler.compile(items[:1])
        return {byte for byte in range(256) if one.fullmatch(bytes([byte]))}
    if op in _REPEATS:
        after = _begins(rest, follow)
        return _begins(arg[2], after) | (set() if arg[0] else after)
    if op is _parser.BRANCH:
        after = _begins(rest, follow)
        return set().union(*(_begins(part, after) for part in arg[1]))
    if op is _parser.AT and arg in _ENDS:
        return _ENDS[arg]
    return _begins(rest, follow) if op is _parser.AT and len(rest) else set(range(256))
