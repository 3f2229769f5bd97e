# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The live line of a measurement on a terminal: probes, shares, and how uncertain these still are."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from typing import Callable

from ansible_collections.trafficshift.istio.plugins.module_utils._tally import Tally
from ansible_collections.trafficshift.istio.plugins.module_utils._verdict import Question, intervals, more

PATIENCE = 2.0  # seconds before a line is shown: what is over sooner needs none
PERIOD = 0.25  # seconds between two lines


def terminal_width() -> int:
    """Return the columns of the terminal that standard error is, 0 if it is none."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        if sys.__stderr__.isatty():  # type: ignore[union-attr]
            return os.get_terminal_size(sys.__stderr__.fileno()).columns  # type: ignore[union-attr]
    return 0


# Ansible loads an action's code before it starts the worker that runs it, and that worker has no terminal any more.
WIDTH = terminal_width()


class LiveLine:
    """Draws one line over and over; a watch for Prober."""

    def __init__(
        self,
        title: str,
        write: Callable[[str], None],
        width: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take what the line begins with and the way to the terminal. Nothing is written with a width of 0."""
        self._title = title
        self._write = write
        self._width = width
        self._clock = clock
        self._began = clock()
        self._drawn = 0  # columns

    def __call__(self, question: Question, tally: Tally) -> int:
        """Draw; return how many probes may pass until the next line."""
        seconds = self._clock() - self._began
        if seconds >= PATIENCE and self._width:
            text = describe(self._title, question, tally)
            text = text if len(text) < self._width else text[: self._width - 2] + "…"
            self._write("\r" + text.ljust(self._drawn))
            self._drawn = len(text)
        return max(1, int(tally.probes / max(seconds, PERIOD) * PERIOD))

    def clear(self) -> None:
        """Take the line away."""
        if self._drawn:
            self._write("\r" + " " * self._drawn + "\r")
            self._drawn = 0


def describe(title: str, question: Question, tally: Tally) -> str:
    """Return the line, for example ``10.0.0.1:31400: 650 probes, one 80.3 % (75.9 to 84.1), about 700 more``."""
    spans = intervals(question, tally.counts, tally.errors)
    shares = tally.shares()
    parts = [f"{title}: {tally.probes} probes"]
    for name, (low, high) in spans.items():
        parts.append(f"{name} {100 * shares[name]:.1f} % ({100 * low:.1f} to {100 * high:.1f})")
    errors = sum(tally.errors.values())
    if errors:
        parts.append(f"{errors} errors")
    left = more(question, tally.counts, tally.errors)
    if left:
        parts.append(f"about {float(f'{left:.2g}'):.0f} more")
    return ", ".join(parts)
