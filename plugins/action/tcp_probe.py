# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Action tcp_probe: arguments in, probe task run, result out. Documented in plugins/modules/tcp_probe.py."""

from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.trafficshift.istio.plugins.module_utils._verdict import error_rates
from ansible_collections.trafficshift.istio.plugins.plugin_utils import _live
from ansible_collections.trafficshift.istio.plugins.plugin_utils._arguments import plain
from ansible_collections.trafficshift.istio.plugins.plugin_utils._probe_task import (
    BOOLEANS,
    MUTUALLY_EXCLUSIVE,
    OPTIONS,
    ProbeTask,
)


class ActionModule(ActionBase):
    """Probes from the controller; no connection to the inventory host is made."""

    TRANSFERS_FILES = False
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the evidence and the verdict; failed if that is not "pass"."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        try:
            task = ProbeTask(self._arguments(), offline=self._task.check_mode)
        except ValueError as error:
            # The sentence says it all; a cause would be told a second time.
            raise AnsibleActionFail(str(error)) from None
        if self._task.check_mode:
            result.update(
                skipped=True,
                msg="check mode: not probed, for the route that this would judge is not applied",
                error_rates=error_rates(task.question),
                **task.question._asdict(),
            )
            return result
        line = _live.LiveLine(task.place, self._draw, _live.WIDTH)
        try:
            evidence = task.run(line if _live.WIDTH else None)
        finally:
            line.clear()
        result.update(changed=False, failed=not evidence["passed"], **evidence)
        return result

    def _draw(self, text: str) -> None:
        Display().display(text, stderr=True, screen_only=True, newline=False)

    def _arguments(self) -> dict[str, Any]:
        """Return the validated arguments as plain types: no tags of Ansible's get into engine, verdict or result."""
        validated = self.validate_argument_spec(argument_spec=OPTIONS, mutually_exclusive=MUTUALLY_EXCLUSIVE)[1]
        args = {name: plain(value) for name, value in validated.items()}
        given = self._task.args
        # The argument spec makes 1.0 of true; left as it is, it gets refused.
        args.update({name: value for name, value in given.items() if isinstance(value, bool) and name not in BOOLEANS})
        if isinstance(held := given.get("session_canary"), dict):
            args["session_canary"].update({name: value for name, value in held.items() if isinstance(value, bool)})
        return args
