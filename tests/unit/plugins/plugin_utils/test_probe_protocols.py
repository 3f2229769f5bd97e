# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What protocols send and what they make of replies."""

from __future__ import annotations

import re
from typing import Any

import pytest
from ansible_collections.trafficshift.istio.plugins.plugin_utils._probe_protocols import (
    PAYLOAD_LIMIT,
    PROTOCOLS,
    REPLY_LIMIT,
    Banner,
    Connect,
    Exchange,
    LineEcho,
    compile_match,
    date_line,
    make_protocol,
    printable,
)
from hypothesis import given
from hypothesis import strategies as st

OVERSIZE = ("oversize", "no newline in the first 8192 bytes of the reply")


class TestLineEcho:
    @pytest.mark.parametrize(
        ("data", "closed", "expected"),
        [
            (b"one Mon Nov 12\n", False, ("", "one")),
            (b"one\n", False, ("", "one")),
            (b"  two\r\nmore", False, ("", "two")),
            (b"one\n", True, ("", "one")),
            (b"", True, ("empty", "closed without a byte")),
            (b"one hel", True, ("truncated", "closed before the newline")),
            (b"one hel", False, None),
            (b"oneish\n", False, ("unexpected", "oneish")),
            (b"ONE\n", False, ("unexpected", "ONE")),
            (b"\n", False, ("unexpected", "")),
            (b"{{ 7*7 }}\n", False, ("unexpected", "{{")),
            (b"\x00\xff\x1b[31m\n", False, ("unexpected", "\\x00\\xff\\x1b[31m")),
            (b"x" * REPLY_LIMIT + b"\n", False, OVERSIZE),
            (b"one" + b"x" * (REPLY_LIMIT - 5) + b" \n", False, ("unexpected", "one" + "x" * 36 + "…")),
        ],
    )
    def test_reply(self, data: bytes, closed: bool, expected: tuple[str, str] | None) -> None:
        assert LineEcho(["one", "two"]).read(data, closed) == expected

    def test_words_beyond_ascii(self) -> None:
        assert LineEcho(["öne"]).read("öne x\n".encode(), False) == ("", "öne")

    @given(st.binary(max_size=2 * REPLY_LIMIT), st.booleans())
    def test_anything_is_judged_and_bounded(self, data: bytes, closed: bool) -> None:
        verdict = LineEcho(["one"]).read(data, closed)
        assert verdict is not None or not closed
        assert verdict is None or (len(verdict[1]) <= 60 and verdict[1].replace("…", "").isprintable())

    def test_payload(self) -> None:
        assert LineEcho([], "x").payload() == b"x\n"
        assert LineEcho([], "x\n").payload() == b"x\n"
        assert LineEcho([], b"x\xff").payload() == b"x\xff\n"
        assert LineEcho([], "").payload() == b"\n"
        with pytest.raises(ValueError, match=r"payload has 5001 bytes; at most 4096 are sent, shorten it"):
            LineEcho([], "x" * 5000)
        assert len(LineEcho([], "x" * (PAYLOAD_LIMIT - 1)).payload()) == PAYLOAD_LIMIT

    def test_date(self) -> None:
        assert re.fullmatch(rb"[A-Z][a-z]{2} [A-Z][a-z]{2} [ 1-3]\d \d\d:\d\d:\d\d \S+ 20\d\d\n", date_line())
        assert LineEcho([]).payload() == date_line()


def test_printable() -> None:
    assert printable(b"one") == "one"
    assert printable(b"a b\n") == "a\\x20b\\x0a"
    assert len(printable(b"x" * 10**6)) == 40


def test_banner() -> None:
    """Reads as the line echo does, and says nothing."""
    banner = Banner(["one"])
    assert banner.payload() == b""
    assert banner.read(b"", False) is None
    assert banner.read(b"one ready\n", False) == ("", "one")
    assert banner.read(b"220 ready\n", False) == ("unexpected", "220")


def test_connect() -> None:
    assert Connect().payload() == b""
    assert Connect().read(b"", False) == ("", "connected")


def exchange(match: str, words: tuple[str, ...] = ("one", "two")) -> Exchange:
    return Exchange(words, b"which?", compile_match(match))


class TestExchange:
    @pytest.mark.parametrize(
        ("match", "data", "closed", "expected"),
        [
            ("v=([a-z]+);", b"v=one;", False, ("", "one")),
            ("v=([a-z]+);", b"\x00\nv=two;v=one;", False, ("", "two")),
            ("v=([a-z]+);", b"v=one", False, None),
            ("v=([a-z]+);", b"v=one", True, ("unexpected", "v=one")),
            ("v=([a-z]+);", b"v=three;", False, ("unexpected", "three")),
            ("v=([a-z]+);", b"", False, None),
            ("v=([a-z]+);", b"", True, ("empty", "closed without a byte")),
            # Only so much is searched, and less the more an expression leaves to choose.
            ("v=([a-z]+);", b"x" * (4096 - 6) + b"v=one;", False, ("", "one")),
            ("v=([a-z]+);", b"x" * (4096 - 5) + b"v=one;", False, ("unexpected", "x" * 39 + "…")),
            ("v=.*([a-z]+);", b"x" * (512 - 6) + b"v=one;", False, ("unexpected", "e")),
            ("v=.*(one);", b"x" * (512 - 6) + b"v=one;", False, ("", "one")),
            ("v=.*(one);", b"x" * (512 - 5) + b"v=one;", False, ("unexpected", "x" * 39 + "…")),
            ("v=(.+);", b"v=\x1b[0m;", False, ("unexpected", "\\x1b[0m")),
            # The group called destination, else the first.
            ("(a)(?P<destination>one)", b"aone;", False, ("", "one")),
            ("(?P<x>one)(two)", b"onetwo;", False, ("", "one")),
            # A group that took no part says nothing.
            ("a|(one)", b"a;", False, None),
            ("a|(one)", b"a;", True, ("unexpected", "a;")),
            # A word at the end of what came may be the beginning of another.
            ("([a-z]+)", b"one", False, ("", "one")),
            ("([a-z]+)", b"on", False, None),
            ("([a-z]+)", b"on", True, ("unexpected", "on")),
            ("([a-z]+)", b"one ", False, ("", "one")),
            ("([a-z]+)", b"on ", False, ("unexpected", "on")),
            ("([a-z]+)$", b"on", False, None),
        ],
    )
    def test_reply(self, match: str, data: bytes, closed: bool, expected: tuple[str, str] | None) -> None:
        assert exchange(match).read(data, closed) == expected

    def test_a_word_that_another_begins_with_waits_for_more(self) -> None:
        protocol = exchange(r"v(\d+)", ("1", "12"))
        assert protocol.read(b"v1", False) is None
        assert protocol.read(b"v1", True) == ("", "1")
        assert protocol.read(b"v1\n", False) == ("", "1")
        assert protocol.read(b"v12", False) == ("", "12")

    def test_words_beyond_ascii(self) -> None:
        assert exchange("v=(ö[a-z]*);", ("öne",)).read("v=öne;".encode(), False) == ("", "öne")

    def test_payload(self) -> None:
        assert exchange("(x)").payload() == b"which?"
        with pytest.raises(ValueError, match=r"^payload has 4097 bytes; at most 4096 are sent, shorten it$"):
            Exchange(["one"], b"x" * (PAYLOAD_LIMIT + 1), compile_match("(x)"))

    @given(st.binary(max_size=2 * REPLY_LIMIT), st.booleans())
    def test_anything_is_judged_and_bounded(self, data: bytes, closed: bool) -> None:
        verdict = exchange(r"(\w+)").read(data, closed)
        assert verdict is not None or not (closed or len(data) >= 4096)
        assert verdict is None or (len(verdict[1]) <= 40 and verdict[1].replace("…", "").isprintable())

    @given(st.lists(st.sampled_from([b"v=", b"on", b"e", b"one", b"two", b";", b" ", b"\n"]), max_size=12))
    def test_how_a_reply_is_cut_makes_no_difference(self, pieces: list[bytes]) -> None:
        """The first verdict along the pieces is the verdict on the whole."""
        protocol = exchange("v=([a-z]+)[; \n]")
        along = (protocol.read(b"".join(pieces[:count]), False) for count in range(len(pieces) + 1))
        first = next((verdict for verdict in along if verdict is not None), None)
        assert first == protocol.read(b"".join(pieces), False)


class TestMatch:
    @pytest.mark.parametrize(
        ("text", "message"),
        [
            (
                "(a",
                "match '(a' is no regular expression (missing ), unterminated subpattern at position 0); correct it",
            ),
            ("a", "match 'a' has no group; put what names the destination in parentheses"),
            ("(?:a)", "match '(?:a)' has no group; put what names the destination in parentheses"),
            ("", "match '' has no group; put what names the destination in parentheses"),
        ],
    )
    def test_refused(self, text: str, message: str) -> None:
        with pytest.raises(ValueError, match=rf"^{re.escape(message)}$"):
            compile_match(text)

    @pytest.mark.parametrize("text", ["(a){99999999999999999999}", "(" * 5000 + ")" * 5000, "(\ud800)", "(?P<1>a)"])
    def test_no_expression(self, text: str) -> None:
        with pytest.raises(ValueError, match=r"^match .* is no regular expression \(.*\); correct it$"):
            compile_match(text)

    @pytest.mark.parametrize(
        "text",
        [
            "(a+)+",
            "((a+)*)",
            "(?:.*)*(x)",
            "(?:.*,)*(x)",
            "(a|b+)*",
            "(a|aa)*",
            "(?:a?a+b)*(x)",
            "(?:a?b?)*(x)",
            r"(\w+\s*)*",
            r"(\w+\s?)+",
            "(a*)*?",
            "(a{1,20})+",
            "(a+){1,50}",
            "((a+){2})*",
            "((?:a+)?b?)*",
            "(a?){25}a{25}",
            "(x)(?i:a+)+",
            "(?i)(?:[a-z]+Q)*(x)",
            "(?=(a+)+b)(x)",
            "(x)(?(1)(a+)+|b)",
            ".*a.*(b)",
            "(.*)x(.*)y",
            "(?:[a-z]+){1,3}(x)d",
            "(?:.*,){3}(x)",
            r"(x)(?:a*|b*)[ab]*\1",
            r"(.*)\s*\b",
        ],
    )
    def test_too_much_choice(self, text: str) -> None:
        message = (
            f"match {text!r} leaves too much choice in what it repeats, as (a+)+ and .*a.*b do, so that some replies "
            "would keep the search busy for ever; let a repetition end where the next piece begins, as [^;]*; does"
        )
        with pytest.raises(ValueError, match=rf"^{re.escape(message)}$"):
            compile_match(text)

    @pytest.mark.parametrize(
        ("text", "reply", "word"),
        [
            (r"HTTP/1\.1 200\r\n(?:[^\r]*\r\n)*Version: (\w+)\r\n", b"HTTP/1.1 200\r\na: b\r\nVersion: v1\r\n", b"v1"),
            (r"([a-z]+(?:-[a-z0-9]+)*) ", b"tcp-echo-v1 ", b"tcp-echo-v1"),
            (r"(?:\w+\s+)*=(\w+)", b"a b =v1", b"v1"),
            (r"(?:\w+, )+(\w+)", b"a, b, v1", b"v1"),
            (r"(?:(?:ab)+c)*(d)", b"ababcd", b"d"),
            (r"(?:(a+b)*c)+(d)", b"ababcd", b"ab"),
            (r"(a|b+c)*", b"abbca", b"a"),
            (r"(?:x(?:-[a-z]+)?,)*(y)", b"x,x-z,y", b"y"),
            (r"(\w+)(?:@(\w+))?\s*", b"v1@x ", b"v1"),
            (r'"name": *"([^"]*)".*"ready": *true', b'{"name":  "v1", "ready": true}', b"v1"),
            (r"(.*) on (.*)\n", b"v1 on x\n", b"v1"),
            (r"(?m)^Version:\s*(\S+)\s*$", b"a: b\nVersion: v1 \n", b"v1"),
            (r"(\w+)\Z", b"a v1", b"v1"),
            (r"(?<=v=)(\w+)", b"v=v1", b"v1"),
            (r"\x00(\w+)\x00", b"\x00v1\x00", b"v1"),
            (r"((?:[0-9a-f]{16}){16})", b"0" * 256, b"0" * 256),
            (r"((?:\d{1,3}\.){3}\d{1,3})", b"10.0.0.1", b"10.0.0.1"),
            (r"\b(one|two)\b", b"<two>", b"two"),
            (r"(?s)begin.*v=(\w+)", b"begin\nv=v1", b"v1"),
        ],
    )  # fmt: skip
    def test_accepted(self, text: str, reply: bytes, word: bytes) -> None:
        found = compile_match(text).search(reply)
        assert found
        assert found[1] == word


class TestMakeProtocol:
    @pytest.mark.parametrize(
        ("arguments", "kind", "payload"),
        [
            (("line", ["one"], b"hello", None), LineEcho, b"hello\n"),
            (("banner", ["one"], None, None), Banner, b""),
            (("banner", ["one"], None, "(one)"), Exchange, b""),
            (("exchange", ["one"], b"which?", "(one)"), Exchange, b"which?"),
            (("exchange", ["one"], b"", "(one)"), Exchange, b""),
            (("connect", [], None, None), Connect, b""),
        ],
    )
    def test_made(self, arguments: Any, kind: type, payload: bytes) -> None:
        made = make_protocol(*arguments)
        assert made.__class__ is kind
        assert made.payload() == payload
        if kind is not Connect:
            assert made.read(b"one\n", True) == ("", "one")

    def test_the_date_is_sent_if_nothing_else_is(self) -> None:
        assert re.search(rb" 20\d\d\n$", make_protocol("line", ["one"], None, None).payload())

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("http", [], None, None), "protocol 'http' is not known; choose line, connect, banner or exchange"),
            (
                ("exchange", [], None, "(a)"),
                "protocol exchange has no payload; give both what to send and the expression to search for",
            ),
            (
                ("exchange", [], b"a", None),
                "protocol exchange has no match; give both what to send and the expression to search for",
            ),
            (
                ("banner", [], b"a", None),
                "protocol banner sends nothing; take the payload away or choose line or exchange",
            ),
            (
                ("connect", [], b"", None),
                "protocol connect sends nothing; take the payload away or choose line or exchange",
            ),
            (
                ("line", [], None, "(a)"),
                "protocol line has no use for match; take it away or choose banner or exchange",
            ),
            (
                ("connect", [], None, "(a)"),
                "protocol connect has no use for match; take it away or choose banner or exchange",
            ),
            (("line", [], b"x" * 5000, None), "payload has 5001 bytes; at most 4096 are sent, shorten it"),
            (("exchange", [], b"x", "a"), "match 'a' has no group; put what names the destination in parentheses"),
        ],
    )
    def test_refused(self, arguments: Any, message: str) -> None:
        with pytest.raises(ValueError, match=rf"^{re.escape(message)}$"):
            make_protocol(*arguments)

    def test_all_are_known(self) -> None:
        for name in PROTOCOLS:
            make_protocol(name, ["one"], b"x" if name == "exchange" else None, "(x)" if name == "exchange" else None)
