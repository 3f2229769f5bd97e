# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The action split_report: what it writes, what it returns, what it refuses."""

from __future__ import annotations

import json
import platform
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
import yaml
from ansible.errors import AnsibleActionFail
from ansible.release import __version__ as ansible_version
from ansible_collections.trafficshift.istio.plugins.action import split_report
from ansible_collections.trafficshift.istio.plugins.modules import split_report as documentation

RESULT: dict[str, Any] = {"verdict": "pass", "msg": "the split is as expected", "expect": {"one": 80, "two": 20}}


class Tagged(str):
    """A string as a template returns it, of a type that is not str."""


def run(args: dict[str, Any], check_mode: bool = False) -> dict[str, Any]:
    task = MagicMock(args=args, check_mode=check_mode, async_val=0)
    action = split_report.ActionModule(task, MagicMock(), MagicMock(), MagicMock(), MagicMock(), MagicMock())
    return action.run()


def test_writes_and_never_changes(tmp_path: Path) -> None:
    directory = tmp_path / "reports"
    for _each in range(2):
        result = run({"directory": str(directory), "name": "tcp-echo", "result": RESULT})
        assert result == {
            "changed": False,
            "files": {
                "json": f"{directory}/tcp-echo.json",
                "junit": f"{directory}/tcp-echo.xml",
                "html": f"{directory}/tcp-echo.html",
            },
        }
    assert sorted(path.name for path in directory.iterdir()) == ["tcp-echo.html", "tcp-echo.json", "tcp-echo.xml"]
    report = json.loads((directory / "tcp-echo.json").read_text())
    versions = report.pop("versions")
    assert report == {"schema": 1, "name": "tcp-echo", **RESULT}
    galaxy = yaml.safe_load((Path(__file__).resolve().parents[4] / "galaxy.yml").read_text())
    assert versions == {
        "ansible": ansible_version,
        "collection": galaxy["version"],
        "python": platform.python_version(),
    }


def test_check_mode_tells_where_and_writes_nothing(tmp_path: Path) -> None:
    args = {"directory": str(tmp_path / "reports"), "name": "tcp-echo", "result": RESULT}
    result = run(args, check_mode=True)
    assert result["files"]["html"] == f"{tmp_path}/reports/tcp-echo.html"
    assert not result["changed"]
    assert not list(tmp_path.iterdir())
    with pytest.raises(AnsibleActionFail, match="name is"):
        run({**args, "name": "../x"}, check_mode=True)


def test_what_templates_return_is_made_plain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}
    monkeypatch.setattr(split_report, "write", lambda directory, name, result: seen.update(result))
    replica = {Tagged("name"): Tagged("gateway-0")}
    run(
        {
            "directory": str(tmp_path),
            "name": Tagged("x"),
            "result": {Tagged("convergence"): {"replicas": [replica]}, "more": None, "versions": {"kubernetes": "v1"}},
        }
    )
    assert seen.pop("versions")["kubernetes"] == "v1"
    assert seen == {"convergence": {"replicas": [{"name": "gateway-0"}]}, "more": None}
    told = seen["convergence"]["replicas"][0]
    assert {type(text) for text in (*seen, *told, *told.values())} == {str}


def test_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for args, message in (
        ({"name": ""}, "name is ''; give the reports' file name without suffix"),
        ({"directory": f"{tmp_path}/file"}, f"the reports cannot be written to '{tmp_path}/file': File exists; give a"),
        ({"result": "text"}, "argument 'result' is of type str and we were unable to convert to dict"),
        ({"results": {}}, "Unsupported parameters for"),
    ):
        with pytest.raises(AnsibleActionFail) as refusal:
            run({"directory": str(tmp_path), "name": "x", "result": RESULT, **args})
        assert str(refusal.value).startswith(message)
        assert "\n" not in str(refusal.value)
        assert refusal.value.__cause__ is None, "would be told a second time"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_documentation_agrees(tmp_path: Path) -> None:
    options = yaml.safe_load(documentation.DOCUMENTATION)["options"]
    plain = {
        name: {key: value for key, value in option.items() if key != "description"} for name, option in options.items()
    }
    assert plain == split_report.ARGUMENTS
    result = run({"directory": str(tmp_path), "name": "x", "result": RESULT})
    returned = yaml.safe_load(documentation.RETURN)
    assert set(returned) == set(result) - {"changed"}
    assert set(returned["files"]["contains"]) == set(result["files"])
