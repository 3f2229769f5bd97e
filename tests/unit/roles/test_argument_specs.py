# Copyright: (c) 2026, trafficshift.istio maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Each role's defaults and argument specs say the same, and its names keep to the rules."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

ROLES = sorted((Path(__file__).resolve().parents[3] / "roles").iterdir())
TYPES = {"str": str, "path": str, "int": int, "float": float, "bool": bool, "dict": dict, "list": list}


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def options(role: Path) -> dict[str, dict[str, Any]]:
    loaded: dict[str, dict[str, Any]] = load(role / "meta/argument_specs.yml")["argument_specs"]["main"]["options"]
    return loaded


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
class TestRole:
    def test_defaults_and_specs_agree(self, role: Path) -> None:
        specified = {
            name: option.get("default") for name, option in options(role).items() if not option.get("required")
        }
        assert load(role / "defaults/main.yml") == specified

    def test_defaults_have_the_type_that_the_spec_gives(self, role: Path) -> None:
        for name, option in options(role).items():
            if "default" in option:
                assert isinstance(option["default"], TYPES[option["type"]]), name
                # True is an int for isinstance, and no number for anybody else.
                assert isinstance(option["default"], bool) == (option["type"] == "bool"), name

    def test_every_option_is_typed_and_described(self, role: Path) -> None:
        for name, option in options(role).items():
            assert {"type", "description"} <= set(option), name

    def test_names_carry_the_role(self, role: Path) -> None:
        assert [name for name in options(role) if not name.startswith(f"{role.name}_")] == []
        internal = role / "vars/main.yml"
        if internal.exists():
            assert [name for name in load(internal) if not name.startswith(f"__{role.name}_")] == []

    def test_there_is_a_readme(self, role: Path) -> None:
        assert f"trafficshift.istio.{role.name}" in (role / "README.md").read_text()
