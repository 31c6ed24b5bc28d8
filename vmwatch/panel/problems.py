# SPDX-License-Identifier: Apache-2.0
"""Problems: begun, told again, ended. Each function is for the transaction of whoever finds out.

A problem is one for its name, node and VM: while it is open, telling it again counts, and renews its text. One
that was solved, by itself or by hand, and is told again is raised anew.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

_WARNINGS: Final = frozenset({"events_lost", "outbox_replaced", "installation_waiting"})
"""Problems that need no hand at once, for nothing fails while they wait. All others, unknown ones too, are errors."""

_AGAIN: Final = "UPDATE problem SET text = ?, last = ?, count = count + 1 "
_SOLVED: Final = "UPDATE problem SET solved = ? "
# A node's id is never 0: none and 0 are the same, as in the index.
_OPEN: Final = "WHERE problem = ? AND ifnull(hostnode, 0) = ifnull(?, 0) AND name = ? AND solved IS NULL"


def level(problem: str) -> str:
    """`warning` or `error`."""
    return "warning" if problem in _WARNINGS else "error"


def begin(
    connection: sqlite3.Connection,
    problem: str,
    *,
    hostnode: int | None = None,
    name: str = "",
    text: str,
    now: int,
) -> bool:
    """The problem is there: of a node, a VM (`name`), both or neither. True: it was not before."""
    if connection.execute(_AGAIN + _OPEN, (text, now, problem, hostnode, name)).rowcount:
        return False
    connection.execute(
        "INSERT INTO problem (problem, hostnode, name, level, text, raised, last)"
        " VALUES (?, nullif(?, 0), ?, ?, ?, ?, ?)",
        (problem, hostnode, name, level(problem), text, now, now),
    )
    return True


def end(
    connection: sqlite3.Connection, problem: str, *, hostnode: int | None = None, name: str = "", now: int
) -> bool:
    """Its cause has ended. True: it was open."""
    return connection.execute(_SOLVED + _OPEN, (now, problem, hostnode, name)).rowcount > 0


def solve(connection: sqlite3.Connection, ids: Sequence[int], *, solver: str, now: int) -> list[int]:
    """A person has dealt with them. What of `ids` is no problem is returned; solved ones stay as they are."""
    unknown = []
    for problem in ids:
        if connection.execute("SELECT 1 FROM problem WHERE id = ?", (problem,)).fetchone() is None:
            unknown.append(problem)
        connection.execute(
            "UPDATE problem SET solved = ?, solver = ? WHERE id = ? AND solved IS NULL",
            (now, solver, problem),
        )
    return unknown
