# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the documentation of the modules that only read from a cluster has in common."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options: {}
attributes:
  check_mode:
    description: Can run in check mode and say what it would do without changing anything.
    support: full
  diff_mode:
    description: Says what it changed.
    support: none
    details:
      - The module changes nothing.
requirements:
  - kubernetes >= 24.2.0
  - openshift >= 0.13.2
"""
