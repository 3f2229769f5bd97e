# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Action tcp_probe: arguments in, engine and verdict called, result out. Documented in plugins/modules/tcp_probe.py."""

from __future__ import annotations

import base64
import binascii
import re
import time
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.trafficshift.istio.plugins.module_utils._verdict import PROFILES, Question, ask, error_rates
from ansible_collections.trafficshift.istio.plugins.plugin_utils import _live
from ansible_collections.trafficshift.istio.plugins.plugin_utils._arguments import plain
from ansible_collections.trafficshift.istio.plugins.plugin_utils._measure import Prober
from ansible_collections.trafficshift.istio.plugins.plugin_utils._probe_engine import (
    Engine,
    check_address,
    check_settings,
    resolve,
    tls_context,
)
from ansible_collections.trafficshift.istio.plugins.plugin_utils._probe_protocols import PROTOCOLS, make_protocol

ARGUMENTS = {
    "host": {"type": "str", "required": True},
    "port": {"type": "int", "required": True},
    "expect": {"type": "dict"},
    "protocol": {"type": "str", "default": "line", "choices": list(PROTOCOLS)},
    "payload": {"type": "str"},
    "payload_base64": {"type": "str"},
    "match": {"type": "str"},
    "profile": {"type": "str", "choices": list(PROFILES)},
    "tolerance": {"type": "float"},
    "alpha": {"type": "float"},
    "beta": {"type": "float"},
    "max_probes": {"type": "int"},
    "max_errors": {"type": "int", "default": 0},
    "probes": {"type": "int"},
    "concurrency": {"type": "int", "default": 20},
    "interval": {"type": "float", "default": 0.0},
    "timeout": {"type": "float", "default": 5.0},
    "ready_timeout": {"type": "float", "default": 0.0},
    "settle_timeout": {"type": "float", "default": 0.0},
    "source": {"type": "str"},
    "tls": {"type": "bool", "default": False},
    "tls_server_name": {"type": "str"},
    "tls_ca_file": {"type": "path"},
}
BOOLEANS = ("tls",)


class ActionModule(ActionBase):
    """Probes from the controller; no connection to the inventory host is made."""

    TRANSFERS_FILES = False
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the evidence and the verdict; failed if that is not "pass"."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        args = self._arguments()
        host, port = args["host"], args["port"]
        place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        settings = {name: args[name] for name in ("concurrency", "interval", "timeout")}
        try:
            check_address(host, port)
            question = self._question(args)
            check_settings(probes=question.max_probes, **settings)
            for name in ("ready_timeout", "settle_timeout"):
                if isinstance(args[name], bool) or not 0 <= args[name] < float("inf"):
                    raise ValueError(f"{name} is {args[name]!r}; give the seconds to wait, 0 for none")
            protocol = make_protocol(args["protocol"], question.expect, _payload(args), args["match"])
            tls = _tls(args)
            if self._task.check_mode:
                result.update(
                    skipped=True,
                    msg="check mode: not probed, for the route that this would judge is not applied",
                    error_rates=error_rates(question),
                    **question._asdict(),
                )
                return result
            addresses = resolve(host, port)

            def make_engine(probes: int) -> Engine:
                return Engine(addresses, protocol, probes=probes, source=args["source"], **tls, **settings)

            make_engine(1)  # refuses, before anything waits, what cannot be
        except ValueError as error:
            # The sentence says it all; a cause would be told a second time.
            raise AnsibleActionFail(str(error)) from None
        line = _live.LiveLine(place, self._draw, _live.WIDTH)
        prober = Prober(make_engine, line if _live.WIDTH else None)
        began = time.monotonic()
        try:
            if args["ready_timeout"]:
                prober.wait_for_answer(args["ready_timeout"])
            question, tally, verdict, hopeless = prober.measure(question, args["settle_timeout"])
        finally:
            line.clear()
        result.update(
            changed=False,
            failed=verdict.verdict != "pass",
            msg=f"{place}: {verdict.reason}" + (", nothing answered, so the run ended early" if hopeless else ""),
            address=prober.address,
            protocol=args["protocol"],
            counts=tally.counts,
            shares=tally.shares(),
            intervals={name: [round(end, 6) for end in span] for name, span in verdict.intervals.items()},
            more=verdict.more,
            errors=tally.errors,
            error_details=tally.details,
            unexpected=tally.unexpected,
            probes=tally.probes,
            connections=prober.connections,
            unanswered=prober.unanswered,
            runs=prober.runs,
            duration=round(time.monotonic() - began, 3),
            latency=tally.latency(),
            error_rates=error_rates(question),
            verdict=verdict.verdict,
            passed=verdict.verdict == "pass",
            deviations=[deviation._asdict() for deviation in verdict.deviations],
            trajectory=tally.trajectory.encode(),
            **question._asdict(),
        )
        return result

    def _question(self, args: dict[str, Any]) -> Question:
        expect, profile = args["expect"], args["profile"]
        if args["protocol"] == "connect":
            if expect is not None:
                raise ValueError(
                    "expect goes with replies, and the protocol connect waits for none; leave expect out and judge the "
                    "gateway's own counters with gateway_sessions"
                )
            expect = {"connected": 100}
        elif expect is None:
            raise ValueError(
                "expect is missing; give a mapping of reply word to percent, such as {one: 80, two: 20}, in sum 100"
            )
        if profile is None:
            profile = "strict" if args["probes"] is None else "fixed"
        names = ("tolerance", "alpha", "beta", "max_probes", "max_errors", "probes")
        return ask(expect, profile, **{name: args[name] for name in names})

    def _draw(self, text: str) -> None:
        Display().display(text, stderr=True, screen_only=True, newline=False)

    def _arguments(self) -> dict[str, Any]:
        """Return the validated arguments as plain types: no tags of Ansible's get into engine, verdict or result."""
        validated = self.validate_argument_spec(
            argument_spec=ARGUMENTS, mutually_exclusive=[("payload", "payload_base64")]
        )[1]
        args = {name: plain(value) for name, value in validated.items()}
        # The argument spec makes 1.0 of true; left as it is, it gets refused.
        args.update(
            {name: value for name, value in self._task.args.items() if isinstance(value, bool) and name not in BOOLEANS}
        )
        if isinstance(args["expect"], dict):
            args["expect"] = {
                str(word) if isinstance(word, int) and not isinstance(word, bool) else word: plain_percent(percent)
                for word, percent in args["expect"].items()
            }
        return args


def plain_percent(value: Any) -> Any:
    """Return the number that a string spells (templates of older ansible-core yield strings), else the value itself."""
    if isinstance(value, str) and re.fullmatch(r"[0-9]+(\.[0-9]+)?", value):
        return float(value) if "." in value else int(value)
    return value


def _payload(args: dict[str, Any]) -> bytes | None:
    if args["payload_base64"] is None:
        return None if args["payload"] is None else args["payload"].encode()
    try:
        return base64.b64decode(args["payload_base64"], validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("payload_base64 is no base64; give the bytes to send in that encoding") from None


def _tls(args: dict[str, Any]) -> dict[str, Any]:
    if args["tls"]:
        return {"tls": tls_context(args["tls_ca_file"]), "server_name": args["tls_server_name"] or args["host"]}
    for name in ("tls_server_name", "tls_ca_file"):
        if args[name]:
            raise ValueError(f"{name} is given and tls is not; set tls to true, or leave {name} out")
    return {}
