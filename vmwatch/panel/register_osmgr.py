# SPDX-License-Identifier: Apache-2.0
"""What is written of the templates of operating systems. Each function is one transaction."""

from __future__ import annotations

from dataclasses import astuple
from typing import TYPE_CHECKING

from vmwatch.panel.convention import ApiError, ErrorType

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vmwatch.panel.shown_installation import Template
    from vmwatch.panel.store import Store


def write(store: Store, template: Template) -> int:
    """Make it (`id` 0), or change it; its id. ApiError: `exists` (name), `missed` (elid)."""
    with store.transaction() as connection:
        twin = "SELECT 1 FROM osmgr WHERE name = ? AND id <> ?"
        if connection.execute(twin, (template.name, template.id)).fetchone():
            text = f"The name '{template.name}' is taken"
            raise ApiError(ErrorType.EXISTS, "name", text, value=template.name)
        values = astuple(template)[1:]
        if template.id == 0:
            made = connection.execute(
                "INSERT INTO osmgr (name, rebootcount, timelimit, medium, kernel, initrd, cmdline)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                values,
            )
            return int(made.lastrowid or 0)
        changed = connection.execute(
            "UPDATE osmgr SET name = ?, rebootcount = ?, timelimit = ?, medium = ?, kernel = ?, initrd = ?,"
            " cmdline = ? WHERE id = ?",
            (*values, template.id),
        )
        if changed.rowcount == 0:
            raise _missed(template.id)
        return template.id


def delete(store: Store, templates: Sequence[int]) -> None:
    """Delete them all, or none. ApiError: `missed` (elid), `value` (a VM is being installed from one of them)."""
    with store.transaction() as connection:
        for osmgr in templates:
            used = "SELECT 1 FROM installation WHERE osmgr = ?"
            if connection.execute(used, (osmgr,)).fetchone():
                text = f"A VM is being installed from template {osmgr}"
                raise ApiError(ErrorType.VALUE, "elid", text, value=str(osmgr))
            if connection.execute("DELETE FROM osmgr WHERE id = ?", (osmgr,)).rowcount == 0:
                raise _missed(osmgr)


def _missed(osmgr: int) -> ApiError:
    return ApiError(ErrorType.MISSED, "elid", f"There is no template {osmgr}", value=str(osmgr))
