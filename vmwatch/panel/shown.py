# SPDX-License-Identifier: Apache-2.0
"""What is read: problems and histories as the API and the pages show them. VMs: `shown_vms`; nodes: `shown_nodes`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vmwatch.panel.timeline import Entry, Gap

if TYPE_CHECKING:
    import sqlite3

    from vmwatch.panel.convention import Paging
    from vmwatch.panel.shown_vms import Vm


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A problem; `solved` is None while it is open."""

    id: int
    problem: str
    hostnode: int | None
    node: str | None
    name: str
    text: str
    raised: int
    solved: int | None


_HISTORY = (
    "SELECT history.id, reporter, teller.name AS reporter_name, type, subtype, cause, source, earliest, time,"
    " registered, status, history.hostnode, hostnode.name AS node, event_id"
    " FROM history JOIN hostnode AS teller ON teller.id = reporter"
    " LEFT JOIN hostnode ON hostnode.id = history.hostnode WHERE vm = ?"
    " ORDER BY history.id DESC LIMIT ? OFFSET ?"
)
_PROBLEM = (
    "SELECT problem.id, problem, hostnode, hostnode.name AS node, problem.name, text, raised, solved"
    " FROM problem LEFT JOIN hostnode ON hostnode.id = problem.hostnode "
)


def history(connection: sqlite3.Connection, vm: int, paging: Paging) -> list[Entry]:
    """A page of a VM's history, the newest first."""
    return [Entry(**row) for row in connection.execute(_HISTORY, (vm, paging.size, paging.offset))]


def count_history(connection: sqlite3.Connection, vm: int) -> int:
    """How many entries a VM's history has."""
    return int(connection.execute("SELECT count(*) FROM history WHERE vm = ?", (vm,)).fetchone()[0])


def open_problems(connection: sqlite3.Connection, limit: int) -> list[Problem]:
    """The newest problems that are not solved."""
    rows = connection.execute(_PROBLEM + "WHERE solved IS NULL ORDER BY problem.id DESC LIMIT ?", (limit,))
    return [Problem(**row) for row in rows]


def problems(connection: sqlite3.Connection, paging: Paging) -> list[Problem]:
    """A page of all problems, the newest first."""
    rows = connection.execute(
        _PROBLEM + "ORDER BY problem.id DESC LIMIT ? OFFSET ?", (paging.size, paging.offset)
    )
    return [Problem(**row) for row in rows]


def count_problems(connection: sqlite3.Connection, *, only_open: bool) -> int:
    """How many problems there are, or how many are open."""
    query = "SELECT count(*) FROM problem WHERE solved IS NULL OR NOT ?"
    return int(connection.execute(query, (only_open,)).fetchone()[0])


def problems_of(connection: sqlite3.Connection, vm: Vm) -> list[Problem]:
    """The open problems of a VM and of the node it is on."""
    rows = connection.execute(
        _PROBLEM
        + "WHERE solved IS NULL AND (problem.name = ? OR problem.name = '' AND problem.hostnode IS ?)"
        " ORDER BY problem.id DESC LIMIT 50",
        (vm.name, vm.hostnode if vm.hostnode is not None else -1),
    )
    return [Problem(**row) for row in rows]


def gaps(connection: sqlite3.Connection, since: int) -> list[Gap]:
    """When nodes were unreachable, as far as it was after `since`."""
    rows = connection.execute(
        "SELECT hostnode, raised AS since, solved AS until FROM problem"
        " WHERE problem IN ('node_silent', 'libvirt_lost') AND hostnode IS NOT NULL"
        " AND ifnull(solved, ?1) >= ?1 ORDER BY id DESC LIMIT 200",
        (since,),
    )
    return [Gap(**row) for row in rows]
