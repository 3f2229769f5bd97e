# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The action behind the module cached_artifact: arguments in, the cache called, result out."""

from __future__ import annotations

import json
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.trafficshift.istio.plugins.plugin_utils._artifact_cache import (
    ArtifactCache,
    BuildError,
    artifact_key,
)

display = Display()


class ActionModule(ActionBase):
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        _validation, raw = self.validate_argument_spec(
            argument_spec={
                "cache_dir": {"type": "path", "required": True},
                "name": {"type": "str", "required": True},
                "inputs": {"type": "dict", "default": {}},
                "sources": {"type": "list", "elements": "path", "default": []},
                "argv": {"type": "list", "elements": "str", "required": True},
                "env": {"type": "dict", "default": {}},
            }
        )
        # Plain types from here on: values from templates carry tags that the engine has no use for.
        args = json.loads(json.dumps(raw))
        name = args["name"]
        cache = ArtifactCache(args["cache_dir"])
        try:
            key = artifact_key(args["inputs"], args["sources"])
            result.update(path=str(cache.path(name, key)), key=key, log=str(cache.log(name, key)))
            if self._task.check_mode:
                result["changed"] = not cache.intact(name, key)
                result["intact"] = not result["changed"]
            else:
                env = {variable: str(value) for variable, value in args["env"].items()}
                result["changed"] = cache.ensure(
                    name, key, args["argv"], env, lambda line: display.display(f"  {name}: {line}")
                )
                result["intact"] = True
        except BuildError as error:
            raise AnsibleActionFail(str(error), result=result) from error
        except OSError as error:
            raise AnsibleActionFail(
                f"The cache {cache.root} cannot be used: {error.strerror or error}.", result=result
            ) from error
        return result
