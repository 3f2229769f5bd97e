# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What protocols send and what they make of replies."""

from __future__ import annotations

import re

import pytest
from ansible_collections.trafficshift.istio.plugins.plugin_utils._probe_protocols import (
    PAYLOAD_LIMIT,
    REPLY_LIMIT,
    LineEcho,
    date_line,
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
            (
                b"x" * REPLY_LIMIT + b"\n",
                False,
                OVERSIZE,
            ),
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
