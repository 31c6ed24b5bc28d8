# SPDX-License-Identifier: Apache-2.0
"""The panel's database: its schema, its one connection, its transactions.

What is written stands in `register`, what is read in `shown`, the tables in `schema`.

One connection, used in the event loop's thread alone: a commit is on the disk (`synchronous=FULL`) in about
0.2 ms, less than it costs to hand the work to another thread. The lock is held as long as the panel runs, so
that a second panel on the same file fails at once.
"""

from __future__ import annotations

import sqlite3
from contextlib import contextmanager
from typing import TYPE_CHECKING

from vmwatch.errors import StorageError
from vmwatch.panel import schema

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


class Store:
    """The open database. `changes` counts the commits that are not silent; `on_change` is called after each."""

    def __init__(self, path: Path) -> None:
        """Open, or make, the database. StorageError: not to be opened, in use, or of a newer version."""
        try:
            # Before SQLite does: the log that it lays beside the file takes over its mode, and holds as much.
            path.touch(mode=0o600)
            path.chmod(0o600)
            self.connection = sqlite3.connect(path, isolation_level=None, timeout=0, cached_statements=256)
        except (OSError, sqlite3.Error) as error:
            raise StorageError(f"{path}: {error}") from error
        self.connection.row_factory = sqlite3.Row
        self.changes = 0
        self.on_change: Callable[[], None] = _nobody_listens
        try:
            self._prepare()
        except (sqlite3.Error, StorageError) as error:
            self.connection.close()
            raise StorageError(f"{path}: {error}") from error

    def _prepare(self) -> None:
        # Exclusive before the first access: WAL needs no shared memory then, and a second panel finds it locked.
        for pragma in (
            "locking_mode = EXCLUSIVE",
            "journal_mode = WAL",
            "synchronous = FULL",
            "foreign_keys = ON",
        ):
            self.connection.execute(f"PRAGMA {pragma}")
        with self.transaction():
            (version,) = self.connection.execute("PRAGMA user_version").fetchone()
            if version > schema.VERSION:
                raise StorageError(
                    f"version {version} of the database is newer than this panel's {schema.VERSION}"
                )
            scripts = [schema.SCHEMA] if version == 0 else _migrations(version)
            for script in scripts:
                for statement in _statements(script):
                    self.connection.execute(statement)
            self.connection.execute(f"PRAGMA user_version = {schema.VERSION}")

    @contextmanager
    def transaction(self, *, silent: bool = False) -> Iterator[sqlite3.Connection]:
        """All that is done inside is on the disk when this ends without an exception, else nothing is.

        `silent`: no open page need look at once at what has changed.
        """
        self.connection.execute("BEGIN IMMEDIATE")
        try:
            yield self.connection
            self.connection.execute("COMMIT")
        except BaseException:
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK")
            raise
        if not silent:
            self.changes += 1
            self.on_change()

    def close(self) -> None:
        """Close the file, all of its content in one piece."""
        self.connection.close()


def _nobody_listens() -> None:
    pass


def _migrations(version: int) -> list[str]:
    return [schema.MIGRATIONS[number] for number in range(version, schema.VERSION)]


def _statements(script: str) -> Iterator[str]:
    # executescript() would commit the transaction that the schema has to be made in.
    statement = ""
    for line in script.splitlines():
        statement += line + "\n"
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
