# SPDX-License-Identifier: Apache-2.0
"""SQLite as outbox and ledger use it: one file, one connection, commits that are on the disk when they return."""

from __future__ import annotations

import logging
import sqlite3
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from vmwatch.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

_FILES: Final = ("-wal", "-shm", "")
"""Of a database, by the ends of their names. The log goes first: beside a new file it would be taken for its own."""

_KEPT_ASIDE: Final = 3
"""Damaged files of a name that are kept, the latest ones: a disk may spoil each new one."""

log = logging.getLogger(__name__)


class Damaged(StorageError):
    """A file of ours is not what was written. What a kill cut short never is: SQLite undoes it."""


class Database:
    """One SQLite file. Every statement runs inside `transaction`; errors of the file are StorageError.

    Damaged is raised where SQLite finds damage, or by who finds it in what was read; `damage` then has its text.
    """

    def __init__(
        self, path: Path, *, schema: str, version: int, migrations: Mapping[int, str] | None = None
    ) -> None:
        """Open the file, or make it with its folder. `schema` makes an empty one, of this version.

        `migrations`: older version -> the statements that lead to the next one. Any other version is refused.
        """
        self.path = path
        self.damage = ""
        with self._named():
            path.parent.mkdir(parents=True, exist_ok=True)
            # Before SQLite does: the files that it lays beside this one take over its mode.
            path.touch(mode=0o600)
            self._connection = sqlite3.connect(path, isolation_level=None)
        try:
            self._prepare(schema, version, migrations or {})
        except StorageError:
            self.close()
            raise

    def _prepare(self, schema: str, version: int, migrations: Mapping[int, str]) -> None:
        with self._named():
            self._connection.execute("PRAGMA journal_mode=WAL")
            # After a power loss too, what was told is kept.
            self._connection.execute("PRAGMA synchronous=FULL")
        with self.transaction() as sql:
            (found,) = sql.execute("PRAGMA user_version").fetchone()
            steps = [schema] if found == 0 else [migrations.get(older) for older in range(found, version)]
            if found > version or None in steps:
                raise StorageError(f"{self.path}: written by another version of vmwatch (schema {found})")
            for statement in (statement for step in steps if step for statement in step.split(";")):
                sql.execute(statement)
            sql.execute(f"PRAGMA user_version={version}")
            if found not in (0, version):
                log.info("file brought up to date: file=%s schema=%d before=%d", self.path, version, found)

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All of it is kept, durably, or, when anything is raised, none."""
        with self._named():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException as error:
                if self._connection.in_transaction:  # a failed COMMIT may have ended it
                    self._connection.execute("ROLLBACK")
                if _code(error) == sqlite3.SQLITE_FULL:
                    self._make_room()
                raise

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """For statements that change nothing."""
        with self._named():
            yield self._connection

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def _make_room(self) -> None:
        """On a full disk, take the log into the file and give back its room: what is deleted next may need it."""
        with suppress(sqlite3.Error):
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    @contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except Damaged as error:
            self.damage = str(error)
            raise
        except sqlite3.Error as error:
            if not _tells_damage(error):
                raise StorageError(f"{self.path}: {error}") from error
            self.damage = f"{self.path}: {error}"
            raise Damaged(self.damage) from error
        except OSError as error:
            raise StorageError(f"{self.path}: {error.strerror}") from error


def set_aside(path: Path, reason: str) -> None:
    """Rename a closed file, with what belongs to it, so that a new one can begin. Raises StorageError.

    It is kept for who wants to look at it, but only a few are.
    """
    aside = f"{path.name}.damaged-{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}"
    try:
        for suffix in _FILES:
            file = path.with_name(path.name + suffix)
            if file.exists():
                file.rename(path.with_name(aside + suffix))
    except OSError as error:
        raise StorageError(f"{path}: cannot be set aside: {error.strerror}") from error
    log.error("file damaged, set aside, a new one begins: aside=%s reason=%s", path.with_name(aside), reason)
    for oldest in sorted(path.parent.glob(f"{path.name}.damaged-*Z"))[:-_KEPT_ASIDE]:
        for file in path.parent.glob(f"{oldest.name}*"):  # what SQLite lays beside it too
            with suppress(OSError):
                file.unlink()


def _tells_damage(error: sqlite3.Error) -> bool:
    # Python's own errors have no code. The only operational one: a text is not UTF-8, and we never wrote such.
    undecodable = isinstance(error, sqlite3.OperationalError) and _code(error) is None
    return undecodable or _code(error) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def _code(error: BaseException) -> int | None:
    """SQLite's primary result code, where the error has one."""
    code = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF
