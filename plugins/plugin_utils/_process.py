# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Says where a process is, and whether one lives, by what Linux tells in /proc (proc(5), pid_namespaces(7))."""

from __future__ import annotations

import getpass
import os
import socket
from pathlib import Path

from ansible_collections.trafficshift.istio.plugins.module_utils._ramp import Place

_PROC = Path("/proc")


def here() -> Place:
    """Return the place of this process; its namespace is "" where there is no /proc to tell."""
    return Place(_namespace(), os.getpid(), _started(os.getpid()))


def is_alive(place: Place) -> bool | None:
    """Return whether a process lives, None if it cannot be seen from here."""
    if not place.namespace or place.namespace != _namespace():
        return None
    return _started(place.pid) == place.started


def owner() -> str:
    """Return who runs this process and where, for people."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user need not have a name
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()} (process {os.getpid()})"


def _namespace() -> str:
    try:
        boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{(_PROC / 'self/ns/pid').readlink()}"
    except OSError:
        return ""


def _started(pid: int) -> str:
    """Return the clock ticks since boot at which a process started, "" if there is none."""
    try:
        # The name, in parentheses, can have anything in it; the state, a letter, comes after it.
        fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
        return "" if fields[0] == "Z" else fields[19]
    except (OSError, IndexError):
        return ""
