# SPDX-License-Identifier: Apache-2.0
"""docs/configuration.md says what the code does: every parameter, its default, its values, its meaning."""

from __future__ import annotations

from dataclasses import MISSING, fields
from pathlib import Path

import pytest

from vmwatch import config
from vmwatch.config import MasterSettings, NodeSettings, ServiceSettings

DOCUMENT = Path(__file__).parents[2] / "docs/configuration.md"
BOTH = "Both services"


def documented() -> dict[str, set[str]]:
    """The parameters' rows of each section by its title."""
    sections = DOCUMENT.read_text(encoding="utf-8").split("\n## ")[1:]
    rows = ((section.partition("\n")[0], section.splitlines()) for section in sections)
    return {title: {line for line in lines if line.startswith("| `")} for title, lines in rows}


def declared(settings: type[ServiceSettings]) -> set[str]:
    """The rows that the declarations of the code would make."""
    parameters = config.parameters(settings)
    rows = set()
    for item in fields(settings):
        default = {MISSING: "required", None: "none"}.get(item.default) or f"`{config.shown(item.default)}`"
        parameter = parameters[item.name]
        rows.add(f"| `{item.name}` | {default} | {parameter.expected} | {parameter.help} |")
    return rows


@pytest.mark.parametrize(
    ("settings", "path"), [(NodeSettings, config.NODE_CONFIG), (MasterSettings, config.MASTER_CONFIG)]
)
def test_the_tables_are_the_declarations(settings: type[ServiceSettings], path: Path) -> None:
    sections = documented()
    assert sections[BOTH] | sections[path.name] == declared(settings)
    assert f"`{path}`" in DOCUMENT.read_text(encoding="utf-8")
