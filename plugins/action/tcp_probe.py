# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Action tcp_probe: arguments in, engine and judge called, result out. Documented in plugins/modules/tcp_probe.py."""

from __future__ import annotations

import re
import time
from typing import Any

from ansible.errors import AnsibleActionFail, AnsibleActionSkip
from ansible.plugins.action import ActionBase
from ansible_collections.trafficshift.istio.plugins.module_utils._tally import Tally
from ansible_collections.trafficshift.istio.plugins.module_utils._verdict import check_question, judge
from ansible_collections.trafficshift.istio.plugins.plugin_utils._probe_engine import (
    Engine,
    LineEcho,
    check_address,
    check_settings,
    resolve,
)

ARGUMENTS = {
    "host": {"type": "str", "required": True},
    "port": {"type": "int", "required": True},
    "expect": {"type": "dict", "required": True},
    "tolerance": {"type": "float", "default": 0.05},
    "probes": {"type": "int", "default": 2500},
    "concurrency": {"type": "int", "default": 20},
    "interval": {"type": "float", "default": 0.0},
    "timeout": {"type": "float", "default": 5.0},
    "payload": {"type": "str"},
}
HOPELESS = 10  # first probes that, if none gets an answer, end the run: the rest would only take more time to say so


class ActionModule(ActionBase):
    """Probes from the controller; no connection to the inventory host is made."""

    TRANSFERS_FILES = False
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return counts, shares, errors and the verdict; failed if it is not "pass"."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        args = self._arguments()
        host, port, expect, tolerance = args["host"], args["port"], args["expect"], args["tolerance"]
        settings = {name: args[name] for name in ("probes", "concurrency", "interval", "timeout")}
        try:
            check_address(host, port)
            check_question(expect, tolerance)
            check_settings(**settings)
            protocol = LineEcho(expect, args["payload"])
            if self._task.check_mode:
                raise AnsibleActionSkip("check mode: not probed, for the route that this would judge is not applied")
            engine = Engine(resolve(host, port), protocol, **settings)
        except ValueError as error:
            # The sentence says it all; a cause would be told a second time.
            raise AnsibleActionFail(str(error)) from None
        tally = Tally(expect)
        began = time.monotonic()
        outcomes = engine.outcomes()
        for kind, text, seconds in outcomes:
            tally.add(kind, text, seconds)
            if tally.probes == HOPELESS and not tally.answered:
                outcomes.close()
        duration = time.monotonic() - began
        judged = judge(expect, tolerance, tally.counts, tally.errors, tally.details)
        place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        gave_up = tally.probes < settings["probes"]
        result.update(
            changed=False,
            failed=not judged.passed,
            msg=f"{place}: {judged.reason}" + (", nothing answered, so the run ended early" if gave_up else ""),
            address=engine.address,
            counts=tally.counts,
            shares=tally.shares(),
            errors=tally.errors,
            error_details=tally.details,
            unexpected=tally.unexpected,
            probes=tally.probes,
            duration=round(duration, 3),
            latency=tally.latency(),
            expect=expect,
            tolerance=tolerance,
            verdict=judged.verdict,
            passed=judged.passed,
            deviations=[deviation._asdict() for deviation in judged.deviations],
        )
        return result

    def _arguments(self) -> dict[str, Any]:
        """Return the validated arguments as plain types: no tags of Ansible's get into engine, judge or result."""
        args = {name: plain(value) for name, value in self.validate_argument_spec(argument_spec=ARGUMENTS)[1].items()}
        # The argument spec makes 1.0 of true; left as it is, it gets refused.
        args.update({name: value for name, value in self._task.args.items() if isinstance(value, bool)})
        args["expect"] = {
            str(word) if isinstance(word, int) and not isinstance(word, bool) else word: plain_percent(percent)
            for word, percent in args["expect"].items()
        }
        return args


def plain(value: Any) -> Any:
    """Return strings, numbers and mappings of them without the tags that ansible-core 2.19 gives them."""
    if isinstance(value, dict):
        return {plain(key): plain(item) for key, item in value.items()}
    for kind in (bool, str, int, float):
        if isinstance(value, kind):
            return kind(value)
    return value


def plain_percent(value: Any) -> Any:
    """Return the number that a string spells (templates of older ansible-core yield strings), else the value itself."""
    if isinstance(value, str) and re.fullmatch(r"[0-9]+(\.[0-9]+)?", value):
        return float(value) if "." in value else int(value)
    return value
