# SPDX-License-Identifier: Apache-2.0
"""What is read of what happened: VMs' histories, and when nodes were unreachable."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmwatch.panel.timeline import Entry, Gap

if TYPE_CHECKING:
    import sqlite3

    from vmwatch.panel.convention import Paging


_HISTORY = (
    "SELECT history.id, reporter, teller.name AS reporter_name, type, subtype, cause, source, earliest, time,"
    " registered, status, history.hostnode, hostnode.name AS node, event_id"
    " FROM history JOIN hostnode AS teller ON teller.id = reporter"
    " LEFT JOIN hostnode ON hostnode.id = history.hostnode WHERE vm = ?"
    " ORDER BY history.id DESC LIMIT ? OFFSET ?"
)


def history(connection: sqlite3.Connection, vm: int, paging: Paging) -> list[Entry]:
    """A page of a VM's history, the newest first."""
    return [Entry(**row) for row in connection.execute(_HISTORY, (vm, paging.size, paging.offset))]


def count_history(connection: sqlite3.Connection, vm: int) -> int:
    """How many entries a VM's history has."""
    return int(connection.execute("SELECT count(*) FROM history WHERE vm = ?", (vm,)).fetchone()[0])


def gaps(connection: sqlite3.Connection, since: int) -> list[Gap]:
    """When nodes were unreachable, as far as it was after `since`."""
    rows = connection.execute(
        "SELECT hostnode, raised AS since, solved AS until FROM problem"
        " WHERE problem IN ('node_silent', 'libvirt_lost') AND hostnode IS NOT NULL"
        " AND ifnull(solved, ?1) >= ?1 ORDER BY id DESC LIMIT 200",
        (since,),
    )
    return [Gap(**row) for row in rows]
