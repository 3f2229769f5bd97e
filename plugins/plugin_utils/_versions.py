# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The versions that a report names."""

from __future__ import annotations

import contextlib
import json
import platform
from pathlib import Path

import yaml
from ansible.release import __version__ as ansible_version


def versions() -> dict[str, str]:
    """Return the versions of what runs on the controller; without the collection's if it cannot be found."""
    found = {"ansible": ansible_version, "python": platform.python_version()}
    top = Path(__file__).resolve().parents[2]
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, yaml.YAMLError):
        if (top / "MANIFEST.json").exists():
            found["collection"] = str(json.loads((top / "MANIFEST.json").read_text())["collection_info"]["version"])
        else:  # a checkout
            found["collection"] = str(yaml.safe_load((top / "galaxy.yml").read_text())["version"])
    return found
