# SPDX-License-Identifier: Apache-2.0
"""The master's durable state: how far each node's stream has been taken, who runs where, which calls wait.

It stores and finds; what a message means is decided in `intake`, and when a call is made in `delivery`. All that one
batch of messages changes is one transaction, so that a kill at any moment leaves a state that was true.
"""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from vmwatch.cluster import Copy
from vmwatch.database import Database
from vmwatch.events import CopyState
from vmwatch.protocol import Message, Run
from vmwatch.sequence import Position

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

_VERSION: Final = 1
_SCHEMA: Final = """
CREATE TABLE node (
    id INTEGER PRIMARY KEY, run TEXT NOT NULL, seq INTEGER NOT NULL, ended TEXT NOT NULL
) STRICT;
CREATE TABLE beat (
    node INTEGER PRIMARY KEY, run TEXT NOT NULL, counter INTEGER NOT NULL
) STRICT;
CREATE TABLE vm (
    uuid TEXT NOT NULL, node INTEGER NOT NULL, name TEXT NOT NULL,
    state TEXT NOT NULL, place INTEGER NOT NULL, balance INTEGER NOT NULL,
    PRIMARY KEY (uuid, node)
) STRICT, WITHOUT ROWID;
CREATE INDEX vm_node ON vm (node);
CREATE TABLE problem (
    key TEXT PRIMARY KEY
) STRICT, WITHOUT ROWID;
CREATE TABLE unread (
    node INTEGER NOT NULL, run TEXT NOT NULL, seq INTEGER NOT NULL, kind INTEGER NOT NULL, body BLOB NOT NULL,
    PRIMARY KEY (node, run, seq)
) STRICT, WITHOUT ROWID;
CREATE TABLE lane (
    key TEXT PRIMARY KEY, due REAL NOT NULL, missed_since REAL
) STRICT, WITHOUT ROWID;
CREATE INDEX lane_due ON lane (due);
CREATE TABLE call (
    id INTEGER PRIMARY KEY, key TEXT NOT NULL, func TEXT NOT NULL, fields TEXT NOT NULL
) STRICT;
CREATE INDEX call_key ON call (key, id);
CREATE TABLE parked (
    id INTEGER PRIMARY KEY, key TEXT NOT NULL, func TEXT NOT NULL, fields TEXT NOT NULL, reason TEXT NOT NULL
) STRICT"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A call to the panel that waits: calls of one `key` (a VM, a node's statistics) are made in order."""

    id: int
    key: str
    func: str
    fields: dict[str, str]
    missed_since: float | None
    """When the panel first said `missed` to it (monotonic seconds)."""


class Transaction:
    """What can be changed, within one commit."""

    def __init__(self, sql: sqlite3.Connection, *, now: float) -> None:
        self._sql = sql
        self._now = now

    def position(self, node: int) -> Position | None:
        """How far the node's stream has been taken."""
        row = self._sql.execute("SELECT run, seq, ended FROM node WHERE id = ?", (node,)).fetchone()
        return Position(run=Run(row[0]), seq=row[1], ended=json.loads(row[2])) if row else None

    def keep_position(self, node: int, position: Position) -> None:
        """The node's stream has been taken that far."""
        self._sql.execute(
            "INSERT OR REPLACE INTO node VALUES (?, ?, ?, ?)",
            (node, position.run, position.seq, json.dumps(position.ended)),
        )

    def goes_forward(self, node: int, run: Run, counter: int) -> bool:
        """Whether a heartbeat or statistics is newer than the last; if so it now is the last."""
        changed = self._sql.execute(
            "INSERT INTO beat VALUES (?, ?, ?) ON CONFLICT DO UPDATE"
            " SET run = excluded.run, counter = excluded.counter"
            " WHERE (excluded.run, excluded.counter) > (beat.run, beat.counter)",
            (node, run, counter),
        )
        return changed.rowcount == 1

    def copies(self, uuid: str) -> dict[int, Copy]:
        """A VM's copies by node."""
        query = "SELECT node, state, place, balance FROM vm WHERE uuid = ?"
        return {
            node: Copy(state=CopyState(state), order=place, balance=balance)
            for node, state, place, balance in self._sql.execute(query, (uuid,))
        }

    def keep_copies(self, uuid: str, name: str, copies: Mapping[int, Copy]) -> None:
        """These are the VM's copies now, and this is its name."""
        self._sql.execute("DELETE FROM vm WHERE uuid = ?", (uuid,))
        self._sql.executemany(
            "INSERT INTO vm VALUES (?, ?, ?, ?, ?, ?)",
            [(uuid, node, name, copy.state, copy.order, copy.balance) for node, copy in copies.items()],
        )

    def vms_on(self, node: int) -> dict[str, tuple[str, CopyState]]:
        """The VMs that have a copy on the node: uuid -> name and that copy's state."""
        query = "SELECT uuid, name, state FROM vm WHERE node = ?"
        return {uuid: (name, CopyState(state)) for uuid, name, state in self._sql.execute(query, (node,))}

    def keep_unread(self, message: Message) -> None:
        """Keep an authentic record that could not be read."""
        envelope = message.envelope
        self._sql.execute(
            "INSERT OR REPLACE INTO unread VALUES (?, ?, ?, ?, ?)",
            (envelope.node, envelope.run, envelope.seq, envelope.kind, message.untrusted_body),
        )

    def raise_problem(self, key: str) -> bool:
        """Whether this problem was not raised yet; now it is."""
        return self._sql.execute("INSERT OR IGNORE INTO problem VALUES (?)", (key,)).rowcount == 1

    def solve_problem(self, key: str) -> bool:
        """Whether this problem was raised; now it is not."""
        return self._sql.execute("DELETE FROM problem WHERE key = ?", (key,)).rowcount == 1

    def enqueue(self, key: str, func: str, fields: Mapping[str, str]) -> None:
        """Have a call made, after those that wait with the same key."""
        self._sql.execute("INSERT OR IGNORE INTO lane VALUES (?, ?, NULL)", (key, self._now))
        self._sql.execute(
            "INSERT INTO call (key, func, fields) VALUES (?, ?, ?)", (key, func, json.dumps(fields))
        )

    def drop_waiting(self, key: str) -> None:
        """Forget the calls that wait with this key: a newer one says it all."""
        self._sql.execute("DELETE FROM call WHERE key = ?", (key,))

    def done(self, call: Call) -> None:
        """The call has been made."""
        self._sql.execute("DELETE FROM call WHERE id = ?", (call.id,))
        if self._sql.execute("SELECT 1 FROM call WHERE key = ? LIMIT 1", (call.key,)).fetchone():
            self._sql.execute(
                "UPDATE lane SET due = ?, missed_since = NULL WHERE key = ?", (self._now, call.key)
            )
        else:
            self._sql.execute("DELETE FROM lane WHERE key = ?", (call.key,))

    def postpone(self, call: Call, *, due: float, missed_since: float | None) -> None:
        """Make the call again, at `due` (monotonic seconds)."""
        self._sql.execute(
            "UPDATE lane SET due = ?, missed_since = ? WHERE key = ?", (due, missed_since, call.key)
        )

    def park(self, call: Call, reason: str) -> None:
        """Put the call aside for good: it is never made later, for newer ones have told more."""
        self._sql.execute(
            "INSERT INTO parked (key, func, fields, reason) VALUES (?, ?, ?, ?)",
            (call.key, call.func, json.dumps(call.fields), reason),
        )
        self.done(call)


class Ledger:
    """The master's state in one SQLite file."""

    def __init__(self, path: Path, *, clock: Callable[[], float]) -> None:
        """`clock` gives monotonic seconds. What an earlier clock said is forgotten: every call is due."""
        self._clock = clock
        self._database = Database(path, schema=_SCHEMA, version=_VERSION)
        with self._database.transaction() as sql:
            sql.execute("UPDATE lane SET due = ?, missed_since = NULL", (clock(),))

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """All of it is kept, durably, or none. Raises StorageError."""
        with self._database.transaction() as sql:
            yield Transaction(sql, now=self._clock())

    def nodes(self) -> list[int]:
        """The nodes that were ever heard of."""
        with self._database.reading() as sql:
            return [node for (node,) in sql.execute("SELECT id FROM node ORDER BY id")]

    def due(self, *, limit: int) -> list[Call]:
        """The first call of each key whose time has come, the longest due first."""
        query = (
            "SELECT call.id, call.key, func, fields, missed_since FROM lane JOIN call ON call.id ="
            " (SELECT min(id) FROM call WHERE call.key = lane.key) WHERE due <= ? ORDER BY due LIMIT ?"
        )
        with self._database.reading() as sql:
            return [_call(row) for row in sql.execute(query, (self._clock(), limit))]

    def next_due(self) -> float | None:
        """When the first waiting call is due; None when none waits."""
        with self._database.reading() as sql:
            (due,) = sql.execute("SELECT min(due) FROM lane").fetchone()
        return float(due) if due is not None else None

    def waiting(self) -> int:
        """How many calls wait."""
        with self._database.reading() as sql:
            (count,) = sql.execute("SELECT count(*) FROM call").fetchone()
        return int(count)

    def close(self) -> None:
        """Close the file."""
        self._database.close()


def _call(row: tuple[int, str, str, str, float | None]) -> Call:
    identifier, key, func, fields, missed_since = row
    return Call(id=identifier, key=key, func=func, fields=json.loads(fields), missed_since=missed_since)
