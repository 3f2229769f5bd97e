# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Action split_report: arguments in, files written, their paths out. Documented in plugins/modules/split_report.py."""

from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.trafficshift.istio.plugins.plugin_utils._arguments import plain
from ansible_collections.trafficshift.istio.plugins.plugin_utils._report import ReportError, paths, write
from ansible_collections.trafficshift.istio.plugins.plugin_utils._versions import versions

ARGUMENTS = {
    "directory": {"type": "path", "required": True},
    "name": {"type": "str", "required": True},
    "result": {"type": "dict", "required": True},
}


class ActionModule(ActionBase):
    """Writes on the controller; no connection to the inventory host is made."""

    TRANSFERS_FILES = False
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the files' paths; never changed, for a report tells of a run and is not what the run is about."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        args = plain(self.validate_argument_spec(argument_spec=ARGUMENTS)[1])
        told = args["result"].get("versions")
        args["result"]["versions"] = {**versions(), **(told if isinstance(told, dict) else {})}
        try:
            files = paths(args["directory"], args["name"])
            if not self._task.check_mode:
                write(args["directory"], args["name"], args["result"])
        except ReportError as error:
            # The sentence says it all; a cause would be told a second time.
            raise AnsibleActionFail(str(error)) from None
        result.update(changed=False, files=files)
        return result
