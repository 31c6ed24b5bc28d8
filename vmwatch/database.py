# SPDX-License-Identifier: Apache-2.0
"""SQLite as outbox and ledger use it: one file, one connection, commits that are on the disk when they return."""

from __future__ import annotations

import sqlite3
from contextlib import contextmanager
from typing import TYPE_CHECKING

from vmwatch.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Database:
    """One SQLite file. Every statement runs inside `transaction`; errors of the file are StorageError."""

    def __init__(self, path: Path, *, schema: str, version: int) -> None:
        """Open the file, or make it with its folder. `schema` makes an empty one; another version is refused."""
        self.path = path
        with self._named():
            path.parent.mkdir(parents=True, exist_ok=True)
            # Before SQLite does: the files that it lays beside this one take over its mode.
            path.touch(mode=0o600)
            self._connection = sqlite3.connect(path, isolation_level=None)
        try:
            self._prepare(schema, version)
        except StorageError:
            self.close()
            raise

    def _prepare(self, schema: str, version: int) -> None:
        with self._named():
            self._connection.execute("PRAGMA journal_mode=WAL")
            # After a power loss too, what was told is kept.
            self._connection.execute("PRAGMA synchronous=FULL")
        with self.transaction() as sql:
            (found,) = sql.execute("PRAGMA user_version").fetchone()
            if found not in (0, version):
                raise StorageError(f"{self.path}: written by another version of vmwatch (schema {found})")
            if found == 0:
                for statement in schema.split(";"):
                    sql.execute(statement)
                sql.execute(f"PRAGMA user_version={version}")

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All of it is kept, durably, or, when anything is raised, none."""
        with self._named():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:  # a failed COMMIT may have ended it
                    self._connection.execute("ROLLBACK")
                raise

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """For statements that change nothing."""
        with self._named():
            yield self._connection

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    @contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise StorageError(f"{self.path}: {error}") from error
        except OSError as error:
            raise StorageError(f"{self.path}: {error.strerror}") from error
