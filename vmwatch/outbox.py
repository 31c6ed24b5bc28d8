# SPDX-License-Identifier: Apache-2.0
"""The node's durable queue: the records of its stream, and what the node last knew of each domain.

An event is kept here, together with what it makes known, before it is sent. PUSH answers nothing, so a record is
never known to have arrived; it is known to have arrived only when so much was sent after it that no buffer on the
way could still hold it. That much, the window, is kept and sent again when a session begins (docs/protocol.md).

The file has a limit: beyond it the oldest events go, and a gap record stands in their place. Each row has a
checksum: a file that is not what was written is set aside, and a new one begins.
"""

from __future__ import annotations

import logging
import zlib
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from vmwatch import messages, protocol
from vmwatch.database import Damaged, Database, set_aside
from vmwatch.errors import StorageError
from vmwatch.events import CopyState
from vmwatch.protocol import OVERHEAD, Kind, Run
from vmwatch.snapshot import Known, after
from vmwatch.strict import encode, instant

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

WINDOW_BYTES: Final = 128 << 10
"""Bytes that a connection's buffers may hold. 8 KiB were asked for each; the kernel doubles and rounds."""

WINDOW_MESSAGES: Final = 112 + 256
"""Messages in both ZeroMQ queues, one on its way out of or into each, and those in one commit of the master."""

LIMIT_BYTES: Final = 64 << 20
"""Of record bodies: a quarter of a million events or so."""

_DROPPED_SHARE: Final = 16
"""At the limit, one of so many bytes goes at once, so that not every event has to drop another one."""

_VERSION: Final = 2
_SCHEMA: Final = """
CREATE TABLE record (
    id INTEGER PRIMARY KEY,
    run TEXT NOT NULL, seq INTEGER NOT NULL, span INTEGER NOT NULL, kind INTEGER NOT NULL, body BLOB NOT NULL,
    checksum INTEGER NOT NULL
) STRICT;
CREATE TABLE known (
    uuid TEXT PRIMARY KEY, name TEXT NOT NULL, state TEXT NOT NULL, domain_id INTEGER,
    checksum INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE run (
    only INTEGER PRIMARY KEY CHECK (only = 1), id TEXT NOT NULL, confirmed TEXT, boot TEXT NOT NULL,
    size INTEGER NOT NULL, -- bytes of all bodies: counted here, so that no start has to add them up
    checksum INTEGER NOT NULL
) STRICT"""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A record of the stream as it is kept: unsigned, for the secret may change before it is sent."""

    id: int
    """Its place in the outbox, growing over all runs."""
    run: Run
    seq: int
    span: int
    kind: Kind
    body: bytes

    @property
    def size(self) -> int:
        """Bytes on the wire."""
        return len(self.body) + OVERHEAD


_FULL: Final = "the outbox was full"

_EARLIER_BOOT: Final = -1
"""In place of libvirt's id of a domain that was alive when the host went down: no domain has this one."""


class Outbox:
    """The queue of one node service. Opening it begins a new run.

    `run` and `top` name the last record; `known` is the known set by uuid, as it stands after it, and `confirmed`
    when it was last known to be right.
    """

    def __init__(
        self, path: Path, *, now: datetime, random: int, boot: str, limit: int = LIMIT_BYTES
    ) -> None:
        """Open or make the file. `boot`: the id of this boot of the host. Raises StorageError.

        A damaged file is set aside, and nothing is known. What is not read here is looked at when it is read: Damaged
        is raised then, and the file is set aside when it is closed.

        `limit`: bytes of record bodies. What a session would repeat, and the begin of each run, stay beyond it too.

        libvirt counts its domains anew after each boot, so that an id from before it says nothing: it becomes
        one that no domain has, here and now, for this process may end before it has compared anything.
        """
        self.confirmed: datetime | None = None
        self.top = 0
        self._path = path
        self._boot = boot
        self._limit = limit
        self._limit_told = False
        self._size = 0
        try:
            self._open(now, random)
        except Damaged as error:
            set_aside(path, str(error))
            self._open(now, random)

    def append(self, events: Iterable[messages.Event]) -> None:
        """Keep events, in this order, and what they make known: all of them in one commit."""
        learned: dict[str, Known | None] = {}
        top, size = self.top, self._size
        with self._database.transaction() as sql:
            for event in events:
                top += 1
                size += _insert(sql, self.run, top, Kind.EVENT, encode(event))
                before = learned[event.uuid] if event.uuid in learned else self.known.get(event.uuid)
                learned[event.uuid] = after(before, event)
            _keep_known(sql, learned)
            full = size > self._limit
            if full:
                size = self._drop_oldest(sql, size)
            self._keep_run(sql, self.confirmed, size)
        self.top, self._size = top, size
        if full:
            self._tell_limit()
        for uuid, known in learned.items():
            if known is None:
                self.known.pop(uuid, None)
            else:
                self.known[uuid] = known

    def confirm(self, time: datetime) -> None:
        """Keep that the known set was compared with libvirt's list, and was right at `time`."""
        with self._database.transaction() as sql:
            self._keep_run(sql, time, self._size)
        self.confirmed = time

    def read(self, *, after: int, limit: int) -> list[Record]:
        """The next records after the one with this id, oldest first."""
        query = "SELECT * FROM record WHERE id > ? ORDER BY id LIMIT ?"
        with self._database.reading() as sql:
            rows = sql.execute(query, (after, limit)).fetchall()  # see _read_known
            return [self._record(row) for row in rows]

    def window_before(self, sent: int) -> int:
        """The id before the window: what a new session repeats when all up to `sent` was sent once."""
        query = "SELECT id, length(body) FROM record WHERE id <= ? ORDER BY id DESC"
        count, size = 0, 0
        with self._database.reading() as sql:
            for identifier, length in sql.execute(query, (sent,)):
                if count >= WINDOW_MESSAGES and size >= WINDOW_BYTES:
                    return int(identifier)
                # The messages come on top of the bytes: a queue may hold large ones and the buffers small ones.
                count += 1
                size += length + OVERHEAD if count > WINDOW_MESSAGES else 0
        return 0

    def forget(self, *, up_to: int) -> None:
        """Drop the records up to this id: the master has them. On a full disk they stay until the next call."""
        try:
            self._delete(up_to)
        except Damaged:
            raise
        except StorageError as error:
            log.warning("what has arrived stays in the outbox: reason=%s", error)
            return
        self._limit_told &= self._size > self._limit // 2  # room again: the next time is another one

    def _delete(self, up_to: int) -> None:
        with self._database.transaction() as sql:
            query = "SELECT coalesce(sum(length(body)), 0) FROM record WHERE id <= ?"
            (gone,) = sql.execute(query, (up_to,)).fetchone()
            sql.execute("DELETE FROM record WHERE id <= ?", (up_to,))
            self._keep_run(sql, self.confirmed, self._size - gone)
        self._size -= gone

    def close(self) -> None:
        """Close the file, and set it aside if it was found to be damaged."""
        self._database.close()
        damage, self._database.damage = self._database.damage, ""
        if damage:
            set_aside(self._path, damage)

    def _open(self, now: datetime, random: int) -> None:
        self._database = Database(self._path, schema=_SCHEMA, version=_VERSION)
        try:
            with self._database.transaction() as sql:
                self._begin(sql, now, random)
        except BaseException:
            self._database.close()
            raise

    def _begin(self, sql: sqlite3.Connection, now: datetime, random: int) -> None:
        row = sql.execute("SELECT id, confirmed, boot, size, checksum FROM run").fetchone()
        previous, confirmed, boot, size = self._checked(row) if row else (None, None, self._boot, 0)
        self.confirmed = datetime.fromisoformat(confirmed) if confirmed else None
        self.known = self._read_known(sql)
        if boot != self._boot:
            self.known = {uuid: _after_boot(known) for uuid, known in self.known.items()}
            _keep_known(sql, self.known)
        self.run = protocol.new_run(int(now.timestamp() * 1_000_000), random, after=previous)
        begin = messages.Begin(previous=previous, last=self._last_of(sql, previous), time=now)
        self._size = size + _insert(sql, self.run, 0, Kind.BEGIN, encode(begin))
        self._keep_run(sql, self.confirmed, self._size)

    def _last_of(self, sql: sqlite3.Connection, run: str | None) -> int | None:
        """The run's last number. The window keeps that record at least until the next run has begun."""
        query = "SELECT * FROM record WHERE run = ? ORDER BY id DESC LIMIT 1"
        row = sql.execute(query, (run,)).fetchone()
        return self._record(row).seq if row else None

    def _keep_run(self, sql: sqlite3.Connection, confirmed: datetime | None, size: int) -> None:
        row = _sealed(self.run, instant(confirmed) if confirmed else None, self._boot, size)
        sql.execute("INSERT OR REPLACE INTO run VALUES (1, ?, ?, ?, ?, ?)", row)

    def _drop_oldest(self, sql: sqlite3.Connection, size: int) -> int:
        """Put gaps in the place of the oldest events, but not within the window. Returns the size that is left."""
        last = self._last_to_drop(sql, size - self._limit + self._limit // _DROPPED_SHARE)
        if last is None:
            return size
        # A begin stays: it ties its run to the one before. All else up to here are events, or gaps of events.
        where = "FROM record WHERE id <= ? AND kind != ?"
        query = f"SELECT max(id), run, max(seq), sum(span), sum(length(body)) {where} GROUP BY run"
        gaps = sql.execute(query, (last, Kind.BEGIN)).fetchall()
        sql.execute(f"DELETE {where}", (last, Kind.BEGIN))
        for identifier, run, seq, span, gone in gaps:
            body = encode(messages.Gap(count=span, reason=_FULL))
            size += _insert(sql, run, seq, Kind.GAP, body, span=span, identifier=identifier) - gone
        return size

    def _last_to_drop(self, sql: sqlite3.Connection, size: int) -> int | None:
        """The id up to which the events outside the window hold so many bytes, or all that they hold."""
        (newest,) = sql.execute("SELECT max(id) FROM record").fetchone()
        query = "SELECT id, length(body) FROM record WHERE id <= ? AND kind = ? ORDER BY id"
        last = None
        for identifier, length in sql.execute(query, (self.window_before(newest), Kind.EVENT)):
            last = identifier
            size -= length
            if size <= 0:
                break
        return last

    def _tell_limit(self) -> None:
        if not self._limit_told:
            log.error("the outbox is full, its oldest events go: file=%s limit=%d", self._path, self._limit)
        self._limit_told = True

    def _read_known(self, sql: sqlite3.Connection) -> dict[str, Known]:
        # All at once: a cursor that an error's traceback holds keeps a closed file open, and SQLite would, when
        # it goes, remove the log of the next file of this name.
        rows = [self._checked(row) for row in sql.execute("SELECT * FROM known").fetchall()]
        return {
            uuid: Known(name=name, state=CopyState(state), domain_id=domain_id)
            for uuid, name, state, domain_id in rows
        }

    def _record(self, row: tuple[Any, ...]) -> Record:
        identifier, *sealed = row
        run, seq, span, kind, body = self._checked(sealed)
        return Record(id=identifier, run=Run(run), seq=seq, span=span, kind=Kind(kind), body=body)

    def _checked(self, row: Sequence[Any]) -> tuple[Any, ...]:
        """A row's columns, which its checksum, the last one, says to be what was written. Raises Damaged."""
        columns = tuple(row[:-1])
        if _sealed(*columns)[-1] != row[-1]:
            raise Damaged(f"{self._path}: a checksum is wrong")
        return columns


def _sealed(*columns: str | int | bytes | None) -> tuple[str | int | bytes | None, ...]:
    """The columns, and their checksum."""
    return (*columns, zlib.crc32(repr(columns).encode()))


def _after_boot(known: Known) -> Known:
    return known if known.domain_id is None else replace(known, domain_id=_EARLIER_BOOT)


def _insert(
    sql: sqlite3.Connection,
    run: Run,
    seq: int,
    kind: Kind,
    body: bytes,
    *,
    span: int = 1,
    identifier: int | None = None,
) -> int:
    """Returns the size of the body. `identifier`: None for the next one."""
    row = _sealed(run, seq, span, kind.value, body)
    sql.execute("INSERT INTO record VALUES (?, ?, ?, ?, ?, ?, ?)", (identifier, *row))
    return len(body)


def _keep_known(sql: sqlite3.Connection, learned: Mapping[str, Known | None]) -> None:
    gone = [(uuid,) for uuid, known in learned.items() if known is None]
    here = [
        _sealed(uuid, known.name, known.state.value, known.domain_id)
        for uuid, known in learned.items()
        if known
    ]
    sql.executemany("DELETE FROM known WHERE uuid = ?", gone)
    sql.executemany("INSERT OR REPLACE INTO known VALUES (?, ?, ?, ?, ?)", here)
