# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from ansible_collections.trafficshift.istio.plugins.plugin_utils import _rollout_report

SEEN = {"state": "observed", "converged": True, "reason": "All have it.", "duration": 0.1, "replicas": []}


def probe(verdict: str, **shares: float) -> dict[str, Any]:
    return {
        "name": "tcp-echo",
        "passed": verdict == "pass",
        "verdict": verdict,
        "msg": f"verdict {verdict}",
        "probes": 500,
        "shares": shares,
        "trajectory": "long",
        "gateway": {"reading": {}},
    }


def step(percent: int, verdict: str = "pass") -> dict[str, Any]:
    good = verdict == "pass"
    return {
        "percent": percent,
        "weights": {"v1": 100 - percent, "v2": percent},
        "convergence": SEEN,
        "probe": probe(verdict, one=1 - percent / 100, two=percent / 100),
        "gates": [{"gate": "split", "ok": good, "msg": f"verdict {verdict}"}, {"gate": "url", "ok": True, "msg": "ok"}],
        "passed": good,
    }


def result(*steps: dict[str, Any], back: dict[str, Any] | None = None) -> dict[str, Any]:
    passed = back is None
    return {"outcome": "completed", "passed": passed, "msg": "told", "steps": list(steps), "back": back, "canary": []}


BACK = {"weights": {"v1": 100, "v2": 0}, "probe": probe("pass", one=1.0, two=0.0), "proven": True, "msg": "proven"}


def test_the_table_has_a_line_for_each_step_and_the_way_back() -> None:
    lines = _rollout_report.table(result(step(0), step(20, "fail"), back=BACK))
    assert [line.split()[0] for line in lines] == ["step", "0", "20", "back"]
    assert "one 80.0 % / two 20.0 %" in lines[2]
    assert lines[2].endswith("failed: split")
    assert lines[3].endswith("proven")


def test_a_step_that_was_not_measured_has_a_line_too() -> None:
    lines = _rollout_report.table(result({"percent": 5, "weights": {"v1": 95, "v2": 5}, "passed": False}))
    assert lines[1].endswith("failed: not converged")


def test_a_step_that_was_interrupted_did_not_fail() -> None:
    lines = _rollout_report.table(result({**step(5), "passed": False}))
    assert lines[1].endswith("broken off")


def test_the_table_counts_the_sessions_that_were_held() -> None:
    told = {**result(step(0)), "canary": [{"fate": "alive"}, {"fate": "reset"}]}
    assert _rollout_report.table(told)[-1] == "2 sessions were held through it, 1 of them lost"


def test_all_files_are_written(tmp_path: Path) -> None:
    told = result(step(0), step(20, "fail"), back=BACK)
    files = _rollout_report.write(str(tmp_path), "tcp-echo", told, {"collection": "1"})
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(Path(file).name for file in files)
    names = {"rollout.json", "rollout.xml", *(f"{s}.{k}" for s in ("0", "20", "back") for k in ("json", "xml", "html"))}
    assert {Path(file).name.removeprefix("tcp-echo-") for file in files} == names
    data = json.loads((tmp_path / "tcp-echo-rollout.json").read_text())
    assert (data["schema"], data["versions"], data["outcome"]) == (1, {"collection": "1"}, "completed")
    # The measurements' own reports have these in full.
    assert not {"trajectory", "gateway"} & data["steps"][0]["probe"].keys()
    assert not {"trajectory", "gateway"} & data["back"]["probe"].keys()
    assert json.loads((tmp_path / "tcp-echo-20.json").read_text())["verdict"] == "fail"


@pytest.mark.parametrize(("proven", "failures", "errors"), [(True, 2, 0), (False, 2, 1)])
def test_junit_counts_what_failed(proven: bool, failures: int, errors: int) -> None:
    told = result(step(0), step(20, "fail"), back={**BACK, "proven": proven})
    suite = ElementTree.fromstring(_rollout_report.to_junit("tcp-echo", told))[0]
    assert (suite.get("failures"), suite.get("errors")) == (str(failures), str(errors))
    names = [case.get("name") for case in suite]
    assert names[:3] == ["0 %: convergence", "0 %: split", "0 %: url"]
    assert names[-2:] == ["way back", "rollout"]
    assert suite.get("tests") == str(len(names))


def test_text_from_elsewhere_makes_no_broken_xml() -> None:
    told = {**result(step(0)), "passed": False, "msg": "a\x00b <&> \x1b[31m"}
    ElementTree.fromstring(_rollout_report.to_junit("tcp-echo", told))
