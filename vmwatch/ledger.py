# SPDX-License-Identifier: Apache-2.0
"""The master's durable state: how far each node's stream has been taken, who runs where, which calls wait.

It stores and finds; what a message means is decided in `intake`, and when a call is made in `delivery`. All that one
batch of messages changes is one transaction, so that a kill at any moment leaves a state that was true.
"""

from __future__ import annotations

import itertools
import json
from contextlib import contextmanager
from dataclasses import dataclass, field
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
CREATE TABLE call (
    id INTEGER PRIMARY KEY, key TEXT NOT NULL, time REAL NOT NULL, func TEXT NOT NULL, fields TEXT NOT NULL
) STRICT;
CREATE INDEX call_key ON call (key, id);
CREATE TABLE parked (
    id INTEGER PRIMARY KEY, key TEXT NOT NULL, func TEXT NOT NULL, fields TEXT NOT NULL, reason TEXT NOT NULL
) STRICT"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A call to the panel that waits: calls of one `key` (a VM, a node's statistics) are made in order."""

    id: int
    """Growing, and no other call's while the process lives: a call may be dropped while it is being made."""
    key: str
    time: float
    """When it was enqueued (monotonic seconds, by the clock of the process that did)."""
    func: str
    fields: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Vm:
    """A VM's name, and its copies by node."""

    name: str
    copies: Mapping[int, Copy]


@dataclass(slots=True)
class _Kept:
    """What the file has, of what each message asks for: as of the last commit, so that nobody has to read it."""

    positions: dict[int, Position] = field(default_factory=dict)
    vms: dict[str, _Vm] = field(default_factory=dict)


class Transaction:
    """What can be changed, within one commit. Most of it is written at once, by `finish`."""

    def __init__(self, sql: sqlite3.Connection, kept: _Kept, *, ids: Iterator[int], now: float) -> None:
        """`ids` gives each call its own."""
        self._sql = sql
        self._kept = kept
        self._changed = _Kept()
        self._ids = ids
        self._now = now
        self._enqueued: list[tuple[int, str, float, str, str]] = []
        self._done: list[tuple[int]] = []

    @property
    def enqueued(self) -> set[str]:
        """The keys of new calls."""
        return {key for _, key, *_ in self._enqueued}

    def position(self, node: int) -> Position | None:
        """How far the node's stream has been taken."""
        return self._changed.positions.get(node) or self._kept.positions.get(node)

    def keep_position(self, node: int, position: Position) -> None:
        """The node's stream has been taken that far."""
        self._changed.positions[node] = position

    def goes_forward(self, node: int, run: Run, counter: int) -> bool:
        """Whether a heartbeat or statistics is newer than the last; if so it now is the last."""
        changed = self._sql.execute(
            "INSERT INTO beat VALUES (?, ?, ?) ON CONFLICT DO UPDATE"
            " SET run = excluded.run, counter = excluded.counter"
            " WHERE (excluded.run, excluded.counter) > (beat.run, beat.counter)",
            (node, run, counter),
        )
        return changed.rowcount == 1

    def copies(self, uuid: str) -> Mapping[int, Copy]:
        """A VM's copies by node."""
        vm = self._changed.vms.get(uuid) or self._kept.vms.get(uuid)
        return vm.copies if vm else {}

    def keep_copies(self, uuid: str, name: str, copies: Mapping[int, Copy]) -> None:
        """These are the VM's copies now, and this is its name."""
        self._changed.vms[uuid] = _Vm(name=name, copies=copies)

    def vms_on(self, node: int) -> dict[str, tuple[str, CopyState]]:
        """The VMs that have a copy on the node: uuid -> name and that copy's state."""
        vms = self._kept.vms | self._changed.vms
        return {uuid: (vm.name, vm.copies[node].state) for uuid, vm in vms.items() if node in vm.copies}

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
        self._enqueued.append((next(self._ids), key, self._now, func, json.dumps(fields)))

    def drop_waiting(self, key: str) -> None:
        """Forget the calls that wait with this key: a newer one says it all."""
        self._enqueued = [call for call in self._enqueued if call[1] != key]
        self._sql.execute("DELETE FROM call WHERE key = ?", (key,))

    def done(self, call: Call) -> None:
        """The call has been made."""
        self._done.append((call.id,))

    def park(self, call: Call, reason: str) -> None:
        """Put the call aside for good: it is never made later, for newer ones have told more."""
        self._sql.execute(
            "INSERT INTO parked (key, func, fields, reason) VALUES (?, ?, ?, ?)",
            (call.key, call.func, json.dumps(call.fields), reason),
        )
        self.done(call)

    def finish(self) -> None:
        """Write what was left for the end."""
        self._write_positions()
        self._write_copies()
        self._sql.executemany("INSERT INTO call VALUES (?, ?, ?, ?, ?)", self._enqueued)
        self._sql.executemany("DELETE FROM call WHERE id = ?", self._done)

    def committed(self) -> None:
        """What was changed is what the file has now."""
        self._kept.positions |= self._changed.positions
        self._kept.vms |= self._changed.vms
        for uuid in [uuid for uuid, vm in self._changed.vms.items() if not vm.copies]:
            del self._kept.vms[uuid]

    def _write_positions(self) -> None:
        rows = [
            (node, position.run, position.seq, json.dumps(position.ended))
            for node, position in self._changed.positions.items()
        ]
        self._sql.executemany("INSERT OR REPLACE INTO node VALUES (?, ?, ?, ?)", rows)

    def _write_copies(self) -> None:
        gone, here = [], []
        for uuid, vm in self._changed.vms.items():
            before = self._kept.vms.get(uuid)
            gone += [(uuid, node) for node in (before.copies if before else ()) if node not in vm.copies]
            here += [
                (uuid, node, vm.name, copy.state.value, copy.order, copy.balance)
                for node, copy in vm.copies.items()
            ]
        self._sql.executemany("DELETE FROM vm WHERE uuid = ? AND node = ?", gone)
        self._sql.executemany("INSERT OR REPLACE INTO vm VALUES (?, ?, ?, ?, ?, ?)", here)


class Ledger:
    """The master's state in one SQLite file."""

    def __init__(self, path: Path, *, clock: Callable[[], float]) -> None:
        """`clock` gives monotonic seconds."""
        self._clock = clock
        self._database = Database(path, schema=_SCHEMA, version=_VERSION)
        with self._database.reading() as sql:
            self._kept = _read_kept(sql)
            (last,) = sql.execute("SELECT max(id) FROM call").fetchone()
            self._new = {key for (key,) in sql.execute("SELECT DISTINCT key FROM call")}
        self._ids = itertools.count(1 + (last or 0))

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """All of it is kept, durably, or none. Raises StorageError."""
        with self._database.transaction() as sql:
            transaction = Transaction(sql, self._kept, ids=self._ids, now=self._clock())
            yield transaction
            transaction.finish()
        transaction.committed()
        self._new |= transaction.enqueued

    def take_new(self) -> set[str]:
        """The keys that calls were enqueued with since this was last asked; the first time, all that wait."""
        new, self._new = self._new, set()
        return new

    def nodes(self) -> list[int]:
        """The nodes that were ever heard of."""
        return sorted(self._kept.positions)

    def problems(self, prefix: str) -> list[str]:
        """What follows the prefix in the keys of the raised problems that begin with it."""
        query = "SELECT substr(key, length(?1) + 1) FROM problem WHERE substr(key, 1, length(?1)) = ?1"
        with self._database.reading() as sql:
            return [rest for (rest,) in sql.execute(query, (prefix,))]

    def running_twice(self) -> dict[str, tuple[tuple[int, int], ...]]:
        """The VMs that run on more than one node, by uuid or by name: name -> (node, its copy's order)."""
        names = "SELECT name FROM vm WHERE state = 'running' GROUP BY name HAVING count(DISTINCT node) > 1"
        query = (
            f"SELECT name, node, place FROM vm WHERE state = 'running' AND name IN ({names}) ORDER BY node"  # noqa: S608 (no value in it)
        )
        found: dict[str, tuple[tuple[int, int], ...]] = {}  # copies of one uuid have one name
        with self._database.reading() as sql:
            for name, node, place in sql.execute(query):
                found[name] = (*found.get(name, ()), (node, place))
        return found

    def first(self, key: str) -> Call | None:
        """The call that is the next of its key."""
        query = "SELECT id, key, time, func, fields FROM call WHERE key = ? ORDER BY id LIMIT 1"
        with self._database.reading() as sql:
            row = sql.execute(query, (key,)).fetchone()
        return _call(row) if row else None

    def close(self) -> None:
        """Close the file."""
        self._database.close()


def _read_kept(sql: sqlite3.Connection) -> _Kept:
    positions = {
        node: Position(run=Run(run), seq=seq, ended=json.loads(ended))
        for node, run, seq, ended in sql.execute("SELECT * FROM node")
    }
    copies: dict[str, dict[int, Copy]] = {}
    names: dict[str, str] = {}
    for uuid, node, name, state, place, balance in sql.execute("SELECT * FROM vm"):
        copies.setdefault(uuid, {})[node] = Copy(state=CopyState(state), order=place, balance=balance)
        names[uuid] = name
    return _Kept(positions, {uuid: _Vm(name=names[uuid], copies=copies[uuid]) for uuid in copies})


def _call(row: tuple[int, str, float, str, str]) -> Call:
    identifier, key, time, func, fields = row
    return Call(id=identifier, key=key, time=time, func=func, fields=json.loads(fields))
