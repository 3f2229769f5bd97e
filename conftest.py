# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make this checkout importable as ansible_collections.trafficshift.istio, wherever it lies."""

from __future__ import annotations

import atexit
import shutil
import sys
import tempfile
from pathlib import Path

NAME = Path("ansible_collections", "trafficshift", "istio")
ROOT = Path(__file__).resolve().parent


def collections_root() -> Path:
    """Return a directory that holds this checkout under its collection name; make one if there is none."""
    here = Path(__file__).absolute().parents  # not resolved: the checkout may be reached through a link
    for candidate in (*here[3:4], ROOT / ".venv" / "collections"):
        if (candidate / NAME).is_dir() and (candidate / NAME).resolve() == ROOT:
            return candidate
    made = Path(tempfile.mkdtemp(prefix="collections-"))
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    (made / NAME).parent.mkdir(parents=True)
    (made / NAME).symlink_to(ROOT, target_is_directory=True)
    return made


sys.path.insert(0, str(collections_root()))
