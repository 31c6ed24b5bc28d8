# SPDX-License-Identifier: Apache-2.0
"""What is written of the services, each function for the transaction of whoever finds out.

What is to be configured is kept here, so that a panel that is killed meanwhile goes on with it: `asked` counts
the times that it was asked for, `done` is the one that has been fulfilled.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmwatch.panel.shown_services import State

if TYPE_CHECKING:
    import sqlite3


def ask(connection: sqlite3.Connection, hostnode: int) -> None:
    """This service is to be configured, for the first time or anew."""
    connection.execute(
        "INSERT INTO service (hostnode) VALUES (?) ON CONFLICT DO UPDATE SET asked = asked + 1", (hostnode,)
    )


def ask_all(connection: sqlite3.Connection) -> None:
    """All services are to be configured."""
    connection.execute("UPDATE service SET asked = asked + 1")


def asked(connection: sqlite3.Connection) -> dict[int, int]:
    """By hostnode, those that are to be configured: the number to give to `configured`."""
    rows = connection.execute("SELECT hostnode, asked FROM service WHERE asked > done")
    return {row["hostnode"]: row["asked"] for row in rows}


def is_stale(connection: sqlite3.Connection, hostnode: int) -> bool:
    """Whether its file was to change, and it has not been started since."""
    row = connection.execute("SELECT stale FROM service WHERE hostnode = ?", (hostnode,)).fetchone()
    return bool(row and row["stale"])


def set_stale(connection: sqlite3.Connection, hostnode: int) -> None:
    """Its file is about to change."""
    connection.execute("UPDATE service SET stale = 1 WHERE hostnode = ?", (hostnode,))


def configured(connection: sqlite3.Connection, hostnode: int, asked: int, *, now: int) -> None:
    """It has the configuration that was asked for with this number."""
    connection.execute(
        "UPDATE service SET done = max(done, ?), stale = 0, configured = ?, error = NULL WHERE hostnode = ?",
        (asked, now, hostnode),
    )


def failed(connection: sqlite3.Connection, hostnode: int, error: str) -> None:
    """It could not be configured; it still is to be."""
    connection.execute("UPDATE service SET error = ? WHERE hostnode = ?", (error, hostnode))


def found(
    connection: sqlite3.Connection, hostnode: int, state: State, report: str | None, *, now: int
) -> State | None:
    """It was looked at. `report` None: it said nothing new. The state before; None: there is no such service now."""
    row = connection.execute("SELECT state FROM service WHERE hostnode = ?", (hostnode,)).fetchone()
    connection.execute(
        "UPDATE service SET state = ?, checked = ?, report = ifnull(?, report) WHERE hostnode = ?",
        (state, now, report, hostnode),
    )
    return State(row["state"]) if row else None


def forget(connection: sqlite3.Connection, hostnode: int) -> bool:
    """The master has forgotten a removed node. False: it was added again meanwhile, and its service stays."""
    gone = connection.execute(
        "DELETE FROM service WHERE hostnode = ?1"
        " AND EXISTS (SELECT 1 FROM hostnode WHERE id = ?1 AND removed IS NOT NULL)",
        (hostnode,),
    )
    return gone.rowcount > 0
