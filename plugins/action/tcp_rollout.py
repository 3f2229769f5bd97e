# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Action tcp_rollout: arguments in, one rollout made, its result out. Documented in plugins/modules/tcp_rollout.py."""

from __future__ import annotations

import contextlib
import os
import signal
import uuid
from collections.abc import Iterator, Mapping
from types import FrameType
from typing import Any

from ansible import context
from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.kubernetes.core.plugins.module_utils.args_common import AUTH_ARG_SPEC
from ansible_collections.trafficshift.istio.plugins.module_utils import _ramp, _routes
from ansible_collections.trafficshift.istio.plugins.module_utils._client import IMPORT_ERROR, Cluster, ClusterError
from ansible_collections.trafficshift.istio.plugins.module_utils._gates import Gate
from ansible_collections.trafficshift.istio.plugins.module_utils._gateway import weights_text
from ansible_collections.trafficshift.istio.plugins.plugin_utils import (
    _health_checks,
    _process,
    _rollout,
    _rollout_report,
    _task_file,
)
from ansible_collections.trafficshift.istio.plugins.plugin_utils._arguments import plain
from ansible_collections.trafficshift.istio.plugins.plugin_utils._report import ReportError
from ansible_collections.trafficshift.istio.plugins.plugin_utils._rollout import Rollout, Settings
from ansible_collections.trafficshift.istio.plugins.plugin_utils._rollout_world import ClusterWorld, Target
from ansible_collections.trafficshift.istio.plugins.plugin_utils._versions import versions

ARGUMENTS = {
    "route": {"type": "dict", "required": True},
    "gateway_namespace": {"type": "str", "required": True},
    "gateway_service": {"type": "str", "required": True},
    "ingress": {"type": "dict", "required": True},
    "probe": {"type": "dict", "default": {}},
    "words": {"type": "dict", "required": True},
    "witness": {"type": "str", "choices": ["probe", "gateway", "both"], "default": "probe"},
    "window": {"type": "int", "default": 300},
    "old": {"type": "str", "required": True},
    "new": {"type": "str", "required": True},
    "steps": {"type": "list", "elements": "raw", "required": True},
    "method": {"type": "str", "choices": list(_routes.METHODS), "default": "endpoints"},
    "hold": {"type": "float", "default": 0.0},
    "deadline": {"type": "float", "default": 3600.0},
    "on_resume": {"type": "str", "choices": list(_ramp.ON_RESUME), "default": "back"},
    "take_lock": {"type": "str", "default": ""},
    "lock_timeout": {"type": "int", "default": 60},
    "max_failures": {"type": "int", "default": 0},
    "alpha": {"type": "float", "default": 0.001},
    "obstacle": {"type": "str", "default": ""},
    "checks": {"type": "list", "elements": "dict", "default": []},
    "tasks": {"type": "str", "default": ""},
    "max_sessions_cut": {"type": "int"},
    "sessions_wait": {"type": "float", "default": 0.0},
    "drain_timeout": {"type": "float", "default": 300.0},
    "canary_idle": {"type": "int", "default": 0},
    "canary_chatting": {"type": "int", "default": 0},
    "wait_timeout": {"type": "float", "default": 60.0},
    "report_dir": {"type": "str", "default": ""},
}
SHORTEST_LEASE = 15  # seconds; shorter than a few requests to a busy API server it would be lost for no reason
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def _own_stderr() -> int:
    """Return a copy of standard error that survives Ansible's, -1 without one."""
    try:
        return os.dup(2)
    except OSError:
        return -1


# Ansible loads an action's code before it starts the worker that runs it, and takes standard error from that worker.
_STDERR = _own_stderr()


class ActionModule(ActionBase):
    """Runs on the controller, in one piece, so that it can take back what it did; no connection to the host is made."""

    TRANSFERS_FILES = False
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return what was done and proven; failed unless the last step is."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        args = plain(self.validate_argument_spec(argument_spec={**AUTH_ARG_SPEC, **ARGUMENTS})[1])
        self._use_environment(args)
        self._name, self._parent, self._interrupted = args["route"].get("name", ""), os.getppid(), False
        if IMPORT_ERROR:
            raise AnsibleActionFail(
                "The Python libraries kubernetes and openshift are missing on the controller: install them."
            )
        try:
            rollout, world = self._prepare(args, task_vars or {})
            plan = rollout.plan()
            world.check([plan.before, *plan.steps], args["new"], None if plan.back else args["method"])
            if self._task.check_mode:
                result.update(
                    rollout.result, changed=plan.changes > 0, outcome="planned", msg=_planned(plan, rollout.result)
                )
                result["plan"] = plan.steps
                return result
            with self._signals(rollout):
                told = rollout.run()
        except (ClusterError, ValueError) as error:
            # The sentence says it all; a cause would be told a second time.
            raise AnsibleActionFail(str(error)) from None
        told["unanswered"] = world.unanswered
        told["table"] = _rollout_report.table(told)
        if args["report_dir"]:
            try:
                told["files"] = _rollout_report.write(args["report_dir"], args["route"]["name"], told, versions())
            except ReportError as error:
                told["msg"] += f" {str(error)[:1].upper()}{str(error)[1:]}."
        if not told["passed"]:
            self._say(told["msg"])
        result.update(told, failed=not told["passed"])
        if self._task.diff:
            result["diff"] = {"before": told["before"], "after": told["live"], "before_header": "weights"}
        return result

    def _prepare(self, args: Mapping[str, Any], task_vars: Mapping[str, Any]) -> tuple[Rollout, ClusterWorld]:
        # Weights come with the steps; these are only there to be valid.
        weights = dict.fromkeys(list(args["route"].get("versions") or {})[:1], 100)
        route = _routes.validate_spec({**args["route"], "weights": weights})
        _ramp.validate_versions(args["old"], args["new"], route["versions"])
        _check_numbers(args)
        settings = Settings(
            steps=_ramp.validate_steps(args["steps"]),
            lease=args["lock_timeout"],
            **{name: args[name] for name in Settings._fields if name in args and name != "steps"},
        )
        if args["tasks"]:
            _task_file.check(args["tasks"])
        checks = _health_checks.validate_checks(args["checks"])
        world = ClusterWorld(
            Cluster(args),
            {key: value for key, value in route.items() if key not in ("weights", "method")},
            Target(
                namespace=args["gateway_namespace"],
                service=args["gateway_service"],
                selector=route["gateway_selector"],
                port=route["gateway_port"],
                ingress=args["ingress"],
                words={str(word): str(version) for word, version in args["words"].items()},
                witness=args["witness"],
                window=args["window"],
            ),
            {"host": args["ingress"].get("host"), "port": args["ingress"].get("port"), **args["probe"]},
            checks,
            self._tasks(args, route, task_vars) if args["tasks"] else None,
            {"idle": args["canary_idle"], "chatting": args["canary_chatting"]},
            name=route["name"],
            patience=args["wait_timeout"],
            say=self._say,
        )
        me = _rollout.blank(uuid.uuid4().hex[:8], _process.owner(), _process.here(), args["lock_timeout"])
        return Rollout(settings, world, me), world

    def _tasks(self, args: Mapping[str, Any], route: Mapping[str, Any], task_vars: Mapping[str, Any]) -> Any:
        """Return what runs the user's tasks, given the percentage and the way to wait."""
        cli = context.CLIARGS
        options = [part for source in cli.get("inventory") or () for part in ("-i", source)]
        options += [part for given in cli.get("extra_vars") or () for part in ("-e", given)]
        options += [part for path in cli.get("vault_password_files") or () for part in ("--vault-password-file", path)]
        host = str(task_vars.get("inventory_hostname", "localhost"))

        def run(percent: int, pause: Any) -> Gate:
            variables = {"tcp_rollout_percent": percent, "tcp_rollout_route": f"{route['namespace']}/{route['name']}"}
            return _task_file.run(args["tasks"], host, options, variables, pause)

        return run

    def _use_environment(self, args: dict[str, Any]) -> None:
        """Give this process, which ends with the task, the environment that modules of the task would have."""
        environment: dict[str, Any] = {}
        self._compute_environment_string(environment)
        os.environ.update({str(name): str(value) for name, value in environment.items()})
        # The library reads KUBECONFIG when it is loaded, which was before.
        if not args["kubeconfig"] and not os.environ.get("K8S_AUTH_KUBECONFIG"):
            args["kubeconfig"] = os.environ.get("KUBECONFIG")

    @contextlib.contextmanager
    def _signals(self, rollout: Rollout) -> Iterator[None]:
        """Let signals interrupt the way forward, and nothing end the way back.

        What is ignored stays ignored, as a hangup is under nohup.
        """

        def interrupt(number: int, _frame: FrameType | None) -> None:
            self._interrupted = True
            rollout.interrupt(f"interrupted by {signal.Signals(number).name}")

        heard = [number for number in _SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
        kept = {number: signal.signal(number, interrupt) for number in heard}
        try:
            yield
        finally:
            for number, handler in kept.items():
                signal.signal(number, handler)

    def _say(self, text: str) -> None:
        """Tell the user; without Ansible once that is ending, because it does not listen to its workers any more."""
        line = f"{self._name}: {text}"
        if os.getppid() == self._parent and not self._interrupted:
            Display().display(line)
        elif _STDERR >= 0:
            with contextlib.suppress(OSError):
                os.write(_STDERR, f"{line}\n".encode())


def _check_numbers(args: Mapping[str, Any]) -> None:
    """Raise ValueError with one sentence for numbers that make no sense."""
    for name in ("hold", "deadline", "max_failures", "max_sessions_cut", "sessions_wait", "drain_timeout"):
        if args[name] is not None and not 0 <= args[name] < float("inf"):
            raise ValueError(f"tcp_rollout_{name} is {args[name]:g}: give 0 or more.")
    if args["lock_timeout"] < SHORTEST_LEASE:
        raise ValueError(f"tcp_rollout_lock_timeout is {args['lock_timeout']}: give at least {SHORTEST_LEASE} seconds.")


def _planned(plan: _ramp.Plan, result: Mapping[str, Any]) -> str:
    steps = ", then ".join(weights_text(step) for step in plan.steps)
    if not plan.changes:
        return f"check mode: {steps} is live, and would be verified"
    switch = result["switch"]
    first = f"move the weights from the method {switch['from']} to {switch['to']}, then " if switch else ""
    return f"check mode: would {first}go to {steps}"
