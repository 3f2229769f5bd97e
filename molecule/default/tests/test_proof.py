# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What tcp_verify's verdict rests on, while 80 of 100 connections go to v1: convergence, two witnesses, reports."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import socket
import threading
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

NAMESPACE = "molecule-echo"
REPORTS = Path(os.environ["TRAFFICSHIFT_REPORTS"])
SPLIT = {"one": 80, "two": 20}

Verify = Callable[..., tuple[int, str, dict[str, Any]]]


def test_both_witnesses_agree(verify: Verify) -> None:
    code, message, report = verify("both", SPLIT, witness="both")
    assert code == 0, message
    assert (report["verdict"], report["profile"], report["convergence"]["state"]) == ("pass", "strict", "observed")
    assert [replica["weights"] for replica in report["convergence"]["replicas"]] == [{"v1": 80, "v2": 20}]
    gateway = report["gateway"]
    assert gateway["agreement"]["agrees"]
    # Nobody else is connected here, so that the gateway has counted the probe's connections and no other.
    made = {"v1": report["connections"]["one"], "v2": report["connections"]["two"]}
    # The Service as a whole, which no version is named for, is counted apart.
    assert {name: grown["connections"] for name, grown in gateway["growth"].items()} == {**made, "": 0}
    low, high = report["intervals"]["two"]
    assert 0.15 < low < report["shares"]["two"] < high < 0.25


def test_the_reports_are_there(verify: Verify) -> None:
    verify("reports", SPLIT)
    suites = ET.parse(REPORTS / "reports.xml").getroot()
    cases = list(suites.iter("testcase"))
    assert len(cases) >= 4
    assert not list(suites.iter("failure")) and not list(suites.iter("error"))
    page = (REPORTS / "reports.html").read_text()
    assert "<svg" in page and "http://" not in page.replace("http://www.w3.org/", "")


def test_ten_points_off_are_failed(verify: Verify) -> None:
    """By behaviour alone, since the replicas' own weights would tell at once."""
    code, message, report = verify("off", {"one": 90, "two": 10}, service="", wait_timeout=1)
    assert code != 0
    assert (report["verdict"], report["convergence"]["state"]) == ("fail", "behavioural")
    assert "where 90 % ± 5 points was expected" in message


def test_less_than_the_tolerance_is_not(verify: Verify) -> None:
    code, message, report = verify("near", {"one": 82, "two": 18}, service="", wait_timeout=1)
    assert code == 0, message
    assert (report["verdict"], report["convergence"]["state"]) == ("pass", "behavioural")


def test_a_stale_route_that_looks_right_is_not_taken_for_the_new_one(verify: Verify) -> None:
    """On the wire 80/20 is within the tolerance of 81/19; the replica's configuration tells them apart."""
    code, message, report = verify("stale", {"one": 81, "two": 19}, wait_timeout=2)
    assert code != 0
    assert report["verdict"] == "not probed"
    assert "istio-ingressgateway-" in message and "has v1 80 / v2 20 on port 31400, not v1 81 / v2 19" in message
    assert [replica["ok"] for replica in report["convergence"]["replicas"]] == [False]


def test_without_the_right_to_look_it_is_behavioural(
    verify: Verify, kubectl: Callable[..., str], tmp_path: Path
) -> None:
    kubectl("create", "serviceaccount", "reader", "-n", NAMESPACE)
    try:
        kubectl(
            "create",
            "clusterrolebinding",
            "molecule-reader",
            "--clusterrole=view",
            f"--serviceaccount={NAMESPACE}:reader",
        )
        token = kubectl("create", "token", "reader", "-n", NAMESPACE).strip()
        loaded = json.loads(kubectl("config", "view", "--raw", "--minify", "-o", "json"))
        loaded["users"][0]["user"] = {"token": token}
        kubeconfig = tmp_path / "kubeconfig"
        kubeconfig.write_text(json.dumps(loaded))
        address = {"host": "127.0.0.1", "port": json.loads((REPORTS / "both.json").read_text())["ingress"]["port"]}
        code, message, report = verify("reader", SPLIT, k8s_kubeconfig=str(kubeconfig), **address)
        assert code == 0, message
        assert (report["verdict"], report["convergence"]["state"]) == ("pass", "behavioural")
        assert "pods/exec" in report["convergence"]["reason"]
        assert token not in (REPORTS / "reader.json").read_text() + (REPORTS / "reader.html").read_text()
        # The second witness cannot be called, and that is said rather than passed over.
        code, message, _report = verify("no-witness", SPLIT, witness="both", k8s_kubeconfig=str(kubeconfig), **address)
        assert code != 0 and "pods/exec" in message
    finally:
        kubectl("delete", "clusterrolebinding", "molecule-reader", "--ignore-not-found")
        kubectl("delete", "serviceaccount", "reader", "-n", NAMESPACE)


def test_the_gateway_s_counters_need_no_echo(verify: Verify) -> None:
    # As many as settle it all but surely: of the role's own number, 1 in 100 would not.
    question = {"protocol": "connect", "tolerance": 0.1, "probes": 2000}
    code, message, report = verify("connect", {"v1": 80, "v2": 20}, witness="gateway", **question)
    assert code == 0, message
    assert (report["verdict"], set(report["counts"])) == ("pass", {"v1", "v2"})


class Others:
    """Somebody else's connections, two at a time, some 200 a second at most, for as long as the block lasts."""

    def __init__(self, host: str, port: int) -> None:
        self._place = (host, port)
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._connect) for _each in range(2)]
        self.replies: list[str] = []
        self.errors: list[str] = []

    def _connect(self) -> None:
        while not self._ended.wait(0.01):
            try:
                with socket.create_connection(self._place, timeout=60) as connection:
                    connection.sendall(b"hello\n")
                    reply = connection.makefile().readline()
                (self.replies if reply else self.errors).append(reply)
            except OSError as error:
                self.errors.append(repr(error))

    def __enter__(self) -> Others:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()


def test_live_traffic_is_judged_without_probes(verify: Verify) -> None:
    ingress = json.loads((REPORTS / "both.json").read_text())["ingress"]
    with Others(ingress["host"], ingress["port"]) as others:
        code, message, report = verify("live", {"v1": 80, "v2": 20}, witness="gateway")
    assert not others.errors
    assert code == 0, message
    assert report["verdict"] == "pass"
    # Fewer than 960 cannot pass, and the verification made none itself.
    assert 960 <= sum(report["counts"].values()) <= len(others.replies)


def test_without_traffic_there_is_no_verdict(verify: Verify) -> None:
    code, _message, report = verify("idle", {"v1": 80, "v2": 20}, witness="gateway", window=2)
    assert code != 0
    assert (report["verdict"], report["passed"]) == ("inconclusive", False)


def test_other_clients_are_allowed_for(verify: Verify) -> None:
    ingress = json.loads((REPORTS / "both.json").read_text())["ingress"]
    with Others(ingress["host"], ingress["port"]) as others:
        code, message, report = verify("others", SPLIT, witness="both")
    assert not others.errors
    assert code == 0, message
    assert report["gateway"]["agreement"]["agrees"]
    assert sum(report["gateway"]["others"].values()) > 0


def test_probes_that_do_not_go_through_the_gateway_are_found_out(verify: Verify) -> None:
    """A server of the test's own answers just as tcp-echo behind an 80/20 route does."""
    words = itertools.cycle([b"one", b"one", b"two", b"one", b"one"])
    with socket.create_server(("127.0.0.1", 0), backlog=128) as server:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _peer = server.accept()
                    with connection:
                        connection.sendall(next(words) + b" " + connection.recv(1000))

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            code, message, report = verify(
                "elsewhere", SPLIT, witness="both", host="127.0.0.1", port=server.getsockname()[1]
            )
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()
    assert code != 0
    assert report["shares"]["two"] == pytest.approx(0.2, abs=0.01)
    assert not report["gateway"]["agreement"]["agrees"]
    assert report["verdict"] == "fail", message
