# SPDX-License-Identifier: Apache-2.0
"""What is read of the problems, as the API and the pages show them: filtered, by the page, the newest first.

One cause, one problem. What follows from a node's problem is covered by it: not listed, not counted, until that
one is solved. So an administrator sees what to do first, and then what is left. Covered are

- of `libvirt_lost`, `service_stopped`, `node_silent` and `node_unreachable` of one node, all but the first;
- while one of the first three is open, the problems of the node's VMs, for nothing is known of them. Not a
  `duplicate`: two copies of a VM destroy its disk, and one of them is on another node.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vmwatch.panel.convention import Paging

if TYPE_CHECKING:
    import sqlite3

    from vmwatch.panel.shown_vms import Vm

STATES = ("raised", "solved")
LEVELS = ("error", "warning")


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A problem. Times in milliseconds since 1970; `solved` is None while it is open.

    It was told `count` times, the last time at `last`. `solver` is who solved it by hand. `covered_by`: the
    problem that this one follows from.
    """

    id: int
    problem: str
    hostnode: int | None
    node: str | None
    name: str
    level: str
    text: str
    raised: int
    last: int
    count: int
    solved: int | None
    solver: str | None
    covered_by: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProblemFilter:
    """Which problems: of a state, a level, a node, a VM (a part of its name); "" and 0: any. `covered`: those too."""

    state: str = ""
    level: str = ""
    hostnode: int = 0
    name: str = ""
    covered: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """How many problems are open: the listed ones by level, and the covered ones."""

    error: int
    warning: int
    covered: int


_PROBLEM = (
    "SELECT id, problem, hostnode, node, name, level, text, raised, last, count, solved, solver, covered_by"
    " FROM problem_shown "
)
_COUNT = "SELECT count(*) FROM problem_shown "
_MATCHES = (
    "WHERE (?1 = '' OR (solved IS NULL) = (?1 = 'raised')) AND (?2 = '' OR level = ?2)"
    " AND (?3 = 0 OR hostnode = ?3) AND (?4 = '' OR instr(lower(name), lower(?4)))"
    " AND (?5 OR covered_by IS NULL) "
)
_OF_VM = "WHERE solved IS NULL AND (name = ? OR name = '' AND hostnode IS ?) "
_NEWEST_FIRST = "ORDER BY id DESC "


def problems(connection: sqlite3.Connection, wanted: ProblemFilter, paging: Paging) -> list[Problem]:
    """A page of the problems."""
    query = _PROBLEM + _MATCHES + _NEWEST_FIRST + "LIMIT ?6 OFFSET ?7"
    rows = connection.execute(query, (*_values(wanted), paging.size, paging.offset))
    return [Problem(**row) for row in rows]


def count_problems(connection: sqlite3.Connection, wanted: ProblemFilter) -> int:
    """How many problems there are in all pages."""
    return int(connection.execute(_COUNT + _MATCHES, _values(wanted)).fetchone()[0])


def count_open(connection: sqlite3.Connection) -> int:
    """How many problems are not solved, and not covered: the number on every page."""
    return count_problems(connection, ProblemFilter(state="raised"))


def count_by_level(connection: sqlite3.Connection) -> Count:
    """How many problems are open."""
    row = connection.execute(
        "SELECT count(*) FILTER (WHERE covered_by IS NULL AND level = 'error') AS error,"
        " count(*) FILTER (WHERE covered_by IS NULL AND level = 'warning') AS warning,"
        " count(covered_by) AS covered FROM problem_shown WHERE solved IS NULL"
    ).fetchone()
    return Count(**row)


def open_problems(connection: sqlite3.Connection, limit: int) -> list[Problem]:
    """The newest problems that are not solved, and not covered."""
    return problems(connection, ProblemFilter(state="raised"), Paging(number=1, size=limit))


def problems_of(connection: sqlite3.Connection, vm: Vm) -> list[Problem]:
    """The open problems of a VM and of the node it is on, covered ones too."""
    query = _PROBLEM + _OF_VM + _NEWEST_FIRST + "LIMIT 50"
    rows = connection.execute(query, (vm.name, vm.hostnode if vm.hostnode is not None else -1))
    return [Problem(**row) for row in rows]


def _values(wanted: ProblemFilter) -> tuple[str | int, ...]:
    return (wanted.state, wanted.level, wanted.hostnode, wanted.name, wanted.covered)
