# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The action tcp_rollout: what it refuses before it touches anything; the scenario rollout has the rest."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
import yaml
from ansible.errors import AnsibleActionFail
from ansible_collections.trafficshift.istio.plugins.action import tcp_rollout
from ansible_collections.trafficshift.istio.plugins.modules import tcp_rollout as documentation

ROLES = Path(__file__).resolve().parents[4] / "roles"
ARGUMENTS: dict[str, Any] = {
    "route": {
        "name": "tcp-echo",
        "namespace": "default",
        "service": "tcp-echo",
        "service_port": 9000,
        "versions": {"v1": {"version": "v1"}, "v2": {"version": "v2"}},
        "gateway_name": "tcp-echo-gateway",
        "gateway_port": 31400,
        "gateway_selector": {"istio": "ingressgateway"},
    },
    "gateway_namespace": "istio-system",
    "gateway_service": "istio-ingressgateway",
    "ingress": {"host": "127.0.0.1", "port": 31400},
    "words": {"one": "v1", "two": "v2"},
    "old": "v1",
    "new": "v2",
    "steps": [5, 100],
}


def action(**arguments: Any) -> tcp_rollout.ActionModule:
    task = MagicMock(args=arguments, check_mode=False, async_val=0)
    task.environment = []
    return tcp_rollout.ActionModule(task, MagicMock(), MagicMock(), MagicMock(), MagicMock(), MagicMock())


def run(kubeconfig: Path, **changed: Any) -> dict[str, Any]:
    return action(**{**ARGUMENTS, "kubeconfig": str(kubeconfig), **changed}).run()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"steps": []}, "tcp_rollout_steps is"),
        ({"old": "v0"}, "tcp_rollout_from is 'v0'"),
        ({"new": "v3"}, "tcp_rollout_to is 'v3'"),
        ({"new": "v1"}, "both v1"),
        ({"hold": -1}, "tcp_rollout_hold is -1"),
        ({"deadline": float("inf")}, "tcp_rollout_deadline is inf"),
        ({"lock_timeout": 14}, "at least 15 seconds"),
        ({"tasks": "/nowhere"}, "tcp_rollout_tasks is /nowhere"),
        ({"checks": [{"name": "page"}]}, "page"),
        ({"route": {**ARGUMENTS["route"], "gateway_port": 0}}, "not a port"),
        ({"route": {}}, "lacks name"),
    ],
)
def test_wrong_input_is_refused_before_there_is_a_cluster(tmp_path: Path, changed: dict[str, Any], said: str) -> None:
    with pytest.raises(AnsibleActionFail) as refusal:
        run(tmp_path / "none", **changed)
    assert said in str(refusal.value)
    assert "cluster" not in str(refusal.value)


def test_a_cluster_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(AnsibleActionFail, match="There is no cluster to talk to"):
        run(tmp_path / "none")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_interrupts_the_rollout(number: signal.Signals) -> None:
    rollout, before = MagicMock(), signal.getsignal(number)
    with action()._signals(rollout):
        os.kill(os.getpid(), number)
    rollout.interrupt.assert_called_once_with(f"interrupted by {number.name}")
    assert signal.getsignal(number) == before


def test_a_hangup_that_is_ignored_stays_ignored() -> None:
    rollout, before = MagicMock(), signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with action()._signals(rollout):
            os.kill(os.getpid(), signal.SIGHUP)
        rollout.interrupt.assert_not_called()
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_documentation_agrees() -> None:
    documented = yaml.safe_load(documentation.DOCUMENTATION)["options"]
    assert list(documented) == list(tcp_rollout.ARGUMENTS)
    for name, option in documented.items():
        told = {key: value for key, value in option.items() if key != "description"}
        assert told == tcp_rollout.ARGUMENTS[name], name


def test_the_role_has_the_same_defaults() -> None:
    defaults = yaml.safe_load((ROLES / "tcp_rollout/defaults/main.yml").read_text())
    for name, argument in tcp_rollout.ARGUMENTS.items():
        option = f"tcp_rollout_{name}"
        if option in defaults and "default" in argument:
            assert defaults[option] == argument["default"], option
