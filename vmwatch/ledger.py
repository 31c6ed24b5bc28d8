# SPDX-License-Identifier: Apache-2.0
"""The master's durable state: how far each node's stream has been taken, who runs where, which calls wait.

It stores and finds; what a message means is decided in `intake`, and when a call is made in `delivery`. All that one
batch of messages changes is one transaction, so that a kill at any moment leaves a state that was true.
"""

from __future__ import annotations

import itertools
import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from vmwatch import ledger_schema
from vmwatch.backlog import Backlog
from vmwatch.database import Damaged, Database, set_aside
from vmwatch.errors import BadBody, StorageError
from vmwatch.ledger_rows import Kept, Vm, read_call, read_kept
from vmwatch.strict import instant

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterator, Mapping
    from datetime import datetime
    from pathlib import Path

    from vmwatch.calls import Call
    from vmwatch.cluster import Copy
    from vmwatch.events import CopyState
    from vmwatch.ledger_rows import CallRow
    from vmwatch.protocol import Message, Run
    from vmwatch.sequence import Position

LIMIT_BYTES: Final = 1 << 30
"""Of what the file holds: some two million calls. Beyond it the master takes nothing in, and the nodes keep it."""

_ROOM_SHARE: Final = 16
"""At the limit, one of so many bytes must be free again before anything is taken in."""

_ASIDE: Final = 10_000
"""Calls put aside that are kept to be looked at, the newest ones."""

_UNREAD: Final = 256
"""Records that could not be read and are kept, the newest ones. They may be large."""

_ANOMALIES: Final = 1_000
"""How many anomalies are remembered as told."""

READ_AT_ONCE: Final = 256
"""Calls."""

_CALL: Final = "SELECT id, key, time, func, fields, hostnode, event_id, status FROM call"
_LAST_ID: Final = (  # of each table by itself: so SQLite reads one row, and not all
    "SELECT max(coalesce((SELECT max(id) FROM call), 0), coalesce((SELECT max(id) FROM latest), 0))"
)
_ENQUEUE: Final = (
    "INSERT INTO call (id, key, time, func, fields, hostnode, event_id, status)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
)


class Transaction:
    """What can be changed, within one commit. Most of it is written at once, by `finish`."""

    def __init__(self, sql: sqlite3.Connection, kept: Kept, *, ids: Iterator[int], now: float) -> None:
        """`ids` gives each call its own."""
        self._sql = sql
        self._kept = kept
        self._changed = Kept()
        self._ids = ids
        self._now = now
        self._forgotten: set[int] = set()
        self._enqueued: list[CallRow] = []
        self.replaced: set[str] = set()
        """The keys whose call is another one now."""
        self.settled: list[Call] = []
        """The calls that no longer wait."""

    def position(self, node: int) -> Position | None:
        """How far the node's stream has been taken."""
        return self._changed.positions.get(node) or self._kept.positions.get(node)

    def keep_position(self, node: int, position: Position) -> None:
        """The node's stream has been taken that far."""
        self._changed.positions[node] = position

    def goes_forward(self, node: int, run: Run, counter: int, *, heard: datetime) -> bool:
        """Whether a heartbeat or statistics, heard at this time, is newer than the last; if so it now is the last."""
        changed = self._sql.execute(
            "INSERT INTO beat VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE"
            " SET run = excluded.run, counter = excluded.counter, heard = excluded.heard"
            " WHERE (excluded.run, excluded.counter) > (beat.run, beat.counter)",
            (node, run, counter, instant(heard)),
        )
        return changed.rowcount == 1

    def copies(self, uuid: str) -> Mapping[int, Copy]:
        """A VM's copies by node."""
        vm = self._changed.vms.get(uuid) or self._kept.vms.get(uuid)
        return vm.copies if vm else {}

    def keep_copies(self, uuid: str, name: str, copies: Mapping[int, Copy]) -> None:
        """These are the VM's copies now, and this is its name."""
        self._changed.add(uuid, Vm(name, copies))

    def namesakes(self, uuid: str, name: str) -> Iterator[Mapping[int, Copy]]:
        """The copies of the other VMs that have this name."""
        for other in (self._kept.named.get(name, set()) | self._changed.named.get(name, set())) - {uuid}:
            vm = self._changed.vms.get(other) or self._kept.vms[other]
            if vm.name == name:
                yield vm.copies

    def vms_on(self, node: int) -> dict[str, tuple[str, CopyState]]:
        """The VMs that have a copy on the node: uuid -> name and that copy's state."""
        vms = self._kept.vms | self._changed.vms
        return {uuid: (vm.name, vm.copies[node].state) for uuid, vm in vms.items() if node in vm.copies}

    def keep_unread(self, message: Message) -> None:
        """Keep an authentic record that could not be read."""
        envelope = message.envelope
        self._sql.execute(
            "INSERT INTO unread (node, run, seq, kind, body) VALUES (?, ?, ?, ?, ?)",
            (envelope.node, envelope.run, envelope.seq, envelope.kind, message.untrusted_body),
        )
        self._keep_newest("unread", _UNREAD)

    def raise_problem(self, key: str) -> bool:
        """Whether this problem was not raised yet; now it is."""
        return self._sql.execute("INSERT OR IGNORE INTO problem VALUES (?)", (key,)).rowcount == 1

    def solve_problem(self, key: str) -> bool:
        """Whether this problem was raised; now it is not."""
        return self._sql.execute("DELETE FROM problem WHERE key = ?", (key,)).rowcount == 1

    def tell_anomaly(self, key: str) -> bool:
        """Whether this anomaly was not told yet; now it is."""
        told = self._sql.execute("INSERT OR IGNORE INTO anomaly (key) VALUES (?)", (key,)).rowcount == 1
        if told:
            self._keep_newest("anomaly", _ANOMALIES)
        return told

    def enqueue(self, key: str, func: str, fields: Mapping[str, str]) -> None:
        """Have a call made, after those that wait with the same key."""
        row = (next(self._ids), key, self._now, func, json.dumps(fields), None, None, None)
        self._enqueued.append(row)

    def enqueue_event(self, name: str, body: str, *, hostnode: int, event_id: str, status: str) -> None:
        """Have the panel told of a VM's event. Its body is kept as it came: the fields are made of it when sent."""
        row = (next(self._ids), f"vm {name}", self._now, "vm.event", body, hostnode, event_id, status)
        self._enqueued.append(row)

    def enqueue_latest(self, key: str, func: str, fields: Mapping[str, str]) -> None:
        """Have a call made in the place of the one that waits with the same key, if one does: it says it all."""
        call = (next(self._ids), key, self._now, func, json.dumps(fields))
        self._sql.execute("INSERT OR REPLACE INTO latest VALUES (?, ?, ?, ?, ?)", call)
        self.replaced.add(key)

    def done(self, call: Call) -> None:
        """The call has been made."""
        self.settled.append(call)

    def park(self, call: Call, reason: str) -> None:
        """Put the call aside for good: it is never made later, for newer ones have told more."""
        self._sql.execute(
            "INSERT INTO parked (key, func, fields, reason) VALUES (?, ?, ?, ?)",
            (call.key, call.func, json.dumps(call.fields), reason),
        )
        self._keep_newest("parked", _ASIDE)
        self.done(call)

    def forget_aside(self, up_to: int) -> list[str]:
        """Forget the calls put aside, up to this id. Their keys."""
        query = "DELETE FROM parked WHERE id <= ? RETURNING key"
        return [key for (key,) in self._sql.execute(query, (up_to,)).fetchall()]

    def forget_node(self, node: int) -> None:
        """The node was never heard of, but for the copies that its VMs have there (`keep_copies`)."""
        self._forgotten.add(node)
        self._sql.execute("DELETE FROM node WHERE id = ?", (node,))
        self._sql.execute("DELETE FROM beat WHERE node = ?", (node,))

    def _keep_newest(self, table: str, count: int) -> None:
        self._sql.execute(f"DELETE FROM {table} WHERE id <= (SELECT max(id) FROM {table}) - ?", (count,))  # noqa: S608 (a name of ours)

    def finish(self) -> None:
        """Write what was left for the end."""
        self._write_positions()
        self._write_copies()
        self._sql.executemany(_ENQUEUE, self._enqueued)
        settled = [(call.id,) for call in self.settled]
        self._sql.executemany("DELETE FROM call WHERE id = ?", settled)
        self._sql.executemany("DELETE FROM latest WHERE id = ?", settled)

    def committed(self) -> None:
        """What was changed is what the file has now."""
        self._kept.positions |= self._changed.positions
        for node in self._forgotten:
            self._kept.positions.pop(node, None)
        for uuid, vm in self._changed.vms.items():
            before = self._kept.vms.get(uuid)
            if before is not None and (before.name != vm.name or not vm.copies):
                self._kept.remove(uuid)
            if vm.copies:
                self._kept.add(uuid, vm)

    def _write_positions(self) -> None:
        rows = [
            (node, position.run, position.seq, json.dumps(position.ended))
            for node, position in self._changed.positions.items()
        ]
        self._sql.executemany("INSERT OR REPLACE INTO node VALUES (?, ?, ?, ?)", rows)

    def _write_copies(self) -> None:
        gone, here = [], []
        for uuid, vm in self._changed.vms.items():
            if before := self._kept.vms.get(uuid):
                gone += [(uuid, node) for node in before.copies if node not in vm.copies]
            for node, (state, order, balance) in vm.copies.items():
                here.append((uuid, node, vm.name, state.value, order, balance))
        self._sql.executemany("DELETE FROM vm WHERE uuid = ? AND node = ?", gone)
        self._sql.executemany("INSERT OR REPLACE INTO vm VALUES (?, ?, ?, ?, ?, ?)", here)


class Ledger:
    """The master's state in one SQLite file."""

    def __init__(self, path: Path, *, clock: Callable[[], float], limit: int = LIMIT_BYTES) -> None:
        """`clock` gives monotonic seconds, `limit` is in bytes. Raises StorageError.

        A damaged file is set aside, and nothing is known. What is not read here is looked at when it is read: Damaged
        is raised then, and the file is set aside when it is closed.
        """
        self._path = path
        self._clock = clock
        self._limit = limit
        self._backlog = Backlog()
        self._read_to = 0  # an earlier process may have read further: who was passed over then is read anew
        try:
            self._open()
        except Damaged as error:
            set_aside(path, str(error))
            self._open()

    def _open(self) -> None:
        self._database = Database(
            self._path,
            schema=ledger_schema.SCHEMA,
            version=ledger_schema.VERSION,
            migrations=ledger_schema.MIGRATIONS,
        )
        try:
            with self._reading() as sql:
                # All at once: a cursor that an error's traceback holds keeps a closed file open (see outbox).
                nodes = sql.execute("SELECT * FROM node").fetchall()
                self._kept = read_kept(nodes, sql.execute("SELECT * FROM vm").fetchall())
                (last,) = sql.execute(_LAST_ID).fetchone()
                self._ids = itertools.count(1 + last)
                self._new = {key for (key,) in sql.execute("SELECT key FROM latest")}
                (self._page_size,) = sql.execute("PRAGMA page_size").fetchone()
        except StorageError:
            self._database.close()
            raise

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """All of it is kept, durably, or none. Raises StorageError."""
        with self._database.transaction() as sql:
            transaction = Transaction(sql, self._kept, ids=self._ids, now=self._clock())
            yield transaction
            transaction.finish()
        transaction.committed()
        self._new |= transaction.replaced
        for call in transaction.settled:
            self._backlog.remove(call)

    def check_room(self, *, again: bool = False) -> None:
        """Raise StorageError when the file has reached its limit. `again`: until there is room worth speaking of."""
        most = self._limit - (self._limit // _ROOM_SHARE if again else 0)
        if self._bytes("page_count") <= most:  # as it is nearly always, so nothing more is asked
            return
        if self._bytes("page_count") - self._bytes("freelist_count") > most:
            raise StorageError(f"{self._path}: its limit is reached, {self._limit} bytes")

    def _bytes(self, pragma: str) -> int:
        with self._database.reading() as sql:
            (pages,) = sql.execute(f"PRAGMA {pragma}").fetchone()
        size: int = pages * self._page_size
        return size

    def take_new(self) -> set[str]:
        """Read on, for a moment. The keys that a call was found of; none: there was nothing more to read."""
        calls = self._read_on()
        keep, over = self._backlog.divide(calls)
        if over:
            with self._database.transaction() as sql:
                query = "UPDATE call SET passed = 1 WHERE id = ? AND passed = 0"
                sql.executemany(query, [(call.id,) for call in over])
        self._backlog.add(keep, over)
        if calls:
            self._read_to = calls[-1].id
        new, self._new = self._new, set()
        return new | {call.key for call in calls}

    def first(self, key: str) -> Call | None:
        """The call that is the next of its key, of those that were read."""
        if key in self._backlog.passed and self._backlog.first(key) is None:
            self._bring(key)
        return self._backlog.first(key) or self._latest(key)

    def nodes(self) -> list[int]:
        """The nodes that were ever heard of."""
        return sorted(self._kept.positions)

    def problems(self, prefix: str) -> list[str]:
        """What follows the prefix in the keys of the raised problems that begin with it."""
        query = "SELECT substr(key, ?) FROM problem WHERE key >= ? AND key < ?"
        beyond = prefix[:-1] + chr(ord(prefix[-1]) + 1)  # so that SQLite searches, and reads no other problem
        with self._database.reading() as sql:
            return [rest for (rest,) in sql.execute(query, (len(prefix) + 1, prefix, beyond)).fetchall()]

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

    def close(self) -> None:
        """Close the file, and set it aside if it was found to be damaged."""
        self._database.close()
        damage, self._database.damage = self._database.damage, ""
        if damage:
            set_aside(self._path, damage)

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        """For values that we wrote: one that cannot be understood raises Damaged."""
        with self._database.reading() as sql:
            try:
                yield sql
            except (ValueError, BadBody) as error:
                raise Damaged(f"{self._path}: not what was written: {error}") from error

    def _read_on(self) -> list[Call]:
        query = f"{_CALL} WHERE id > ? ORDER BY id LIMIT ?"
        return self._read(query, self._read_to, READ_AT_ONCE)

    def _bring(self, key: str) -> None:
        """Read calls of the key that were passed over, which are made before all that was not read yet."""
        query = f"{_CALL} WHERE passed = 1 AND key = ? AND id <= ? ORDER BY id LIMIT ?"
        most = self._backlog.most
        calls = self._read(query, key, self._read_to, most + 1)
        self._backlog.bring(key, calls[:most], more=len(calls) > most)

    def _read(self, query: str, *values: str | int) -> list[Call]:
        with self._database.reading() as sql:
            return [read_call(row) for row in sql.execute(query, values).fetchall()]

    def _latest(self, key: str) -> Call | None:
        query = "SELECT *, NULL, NULL, NULL FROM latest WHERE key = ?"
        return next(iter(self._read(query, key)), None)
