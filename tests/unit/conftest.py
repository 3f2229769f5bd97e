# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How the property tests run."""

from __future__ import annotations

from hypothesis import settings

# A busy machine is no failure.
settings.register_profile("unhurried", settings.default, deadline=None)
settings.load_profile("unhurried")
