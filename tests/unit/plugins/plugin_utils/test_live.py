# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The live line: when it is drawn, what it says, and that it goes away."""

from __future__ import annotations

import os
import pty
import sys
from pathlib import Path

import pytest
from ansible_collections.trafficshift.istio.plugins.module_utils._tally import Tally
from ansible_collections.trafficshift.istio.plugins.module_utils._verdict import ask
from ansible_collections.trafficshift.istio.plugins.plugin_utils import _live
from ansible_collections.trafficshift.istio.plugins.plugin_utils._live import LiveLine

QUESTION = ask({"one": 80, "two": 20})


def tallied(one: int, two: int, errors: int = 0) -> Tally:
    tally = Tally(QUESTION.expect)
    outcomes = [("", "one", 0.01)] * one + [("", "two", 0.01)] * two + [("reset", "Connection reset", 0.0)] * errors
    for outcome in outcomes:
        tally.add(*outcome)
    return tally


class Terminal:
    def __init__(self, width: int = 120) -> None:
        self.now = 0.0
        self.written: list[str] = []
        self.line = LiveLine("127.0.0.1:31400", self.written.append, width, clock=lambda: self.now)


def test_what_is_over_soon_shows_nothing() -> None:
    terminal = Terminal()
    terminal.now = 1.9
    terminal.line(QUESTION, tallied(80, 20))
    terminal.line.clear()
    assert terminal.written == []


def test_it_tells_probes_shares_and_uncertainty() -> None:
    terminal = Terminal()
    terminal.now = 2.0
    terminal.line(QUESTION, tallied(400, 100))
    (text,) = terminal.written
    assert text.startswith("\r127.0.0.1:31400: 500 probes, one 80.0 % (")
    assert "two 20.0 % (" in text and text.rstrip().endswith("more")


def test_errors_are_told() -> None:
    terminal = Terminal()
    terminal.now = 2.0
    terminal.line(QUESTION, tallied(400, 100, 2))
    assert ", 2 errors" in terminal.written[0]


def test_a_shorter_line_covers_a_longer_one_and_clear_covers_all() -> None:
    terminal = Terminal()
    terminal.now = 3.0
    terminal.line(QUESTION, tallied(400, 100))
    terminal.line(QUESTION, tallied(640, 160))  # settled: nothing about more
    assert len(terminal.written[1]) == len(terminal.written[0])
    terminal.line.clear()
    assert terminal.written[2].strip() == "" and terminal.written[2].count("\r") == 2
    terminal.line.clear()
    assert len(terminal.written) == 3


def test_it_stays_in_its_terminal() -> None:
    terminal = Terminal(width=40)
    terminal.now = 3.0
    terminal.line(QUESTION, tallied(400, 100))
    assert len(terminal.written[0]) <= 40  # the carriage return takes no column


@pytest.mark.parametrize(("seconds", "probes", "wait"), [(1.0, 400, 100), (100.0, 100, 1), (0.0, 50, 50)])
def test_it_wants_to_be_called_four_times_a_second(seconds: float, probes: int, wait: int) -> None:
    terminal = Terminal()
    terminal.now = seconds
    assert terminal.line(QUESTION, tallied(probes, 0)) == wait


def test_width_of_a_terminal_and_of_none(monkeypatch: pytest.MonkeyPatch) -> None:
    master, slave = pty.openpty()
    with os.fdopen(slave, "w") as terminal:
        monkeypatch.setattr(sys, "__stderr__", terminal)
        monkeypatch.setattr(os, "get_terminal_size", lambda _fd: os.terminal_size((132, 40)))
        assert _live.terminal_width() == 132
    os.close(master)
    with Path(os.devnull).open("w") as nothing:
        monkeypatch.setattr(sys, "__stderr__", nothing)
        assert _live.terminal_width() == 0
    monkeypatch.setattr(sys, "__stderr__", None)
    assert _live.terminal_width() == 0
