# SPDX-License-Identifier: Apache-2.0
"""The panel's database: its schema, its one connection, its transactions.

What is written stands in `register`, what is read in `shown`.

One connection, used in the event loop's thread alone: a commit is on the disk (`synchronous=FULL`) in about
0.2 ms, less than it costs to hand the work to another thread. The lock is held as long as the panel runs, so
that a second panel on the same file fails at once.

Times are integers: milliseconds since 1970, UTC.
"""

from __future__ import annotations

import sqlite3
from contextlib import contextmanager
from typing import TYPE_CHECKING

from vmwatch.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

VERSION = 1

_SCHEMA = """
CREATE TABLE account (
    name TEXT PRIMARY KEY,
    password TEXT NOT NULL -- access.hash_password
) WITHOUT ROWID;
CREATE TABLE hostnode (
    id INTEGER PRIMARY KEY, -- the node_id of vmwatch-node.conf
    name TEXT NOT NULL UNIQUE
);
CREATE TABLE vm (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    uuid TEXT,
    hostnode INTEGER REFERENCES hostnode, -- where it is; NULL: on none that is known
    status TEXT NOT NULL, -- the last known: an unreachable node does not change it
    since INTEGER, -- of the status; NULL: nothing has been heard of this VM
    copies TEXT NOT NULL DEFAULT '{}', -- the VM as each node has it: register._encode
    last INTEGER REFERENCES history -- its last event
);
CREATE TABLE applied ( -- the last event taken of a node's run and VM: what is not newer is a repetition
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    vm INTEGER NOT NULL REFERENCES vm ON DELETE CASCADE,
    hostnode INTEGER NOT NULL,
    run TEXT NOT NULL,
    seq INTEGER NOT NULL,
    UNIQUE (vm, hostnode, run)
);
CREATE TABLE history (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    vm INTEGER NOT NULL REFERENCES vm ON DELETE CASCADE,
    reporter INTEGER NOT NULL REFERENCES hostnode, -- the node that told
    type TEXT NOT NULL,
    subtype TEXT NOT NULL,
    cause TEXT,
    source TEXT NOT NULL,
    earliest INTEGER, -- of a snapshot's finding: it happened after this
    time INTEGER NOT NULL, -- of the event, by the node's clock
    registered INTEGER NOT NULL, -- of the commit, by the panel's clock
    status TEXT NOT NULL, -- after it
    hostnode INTEGER, -- where the VM is after it
    event_id TEXT
);
CREATE INDEX history_of_vm ON history (vm, id);
CREATE TABLE problem (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    problem TEXT NOT NULL,
    hostnode INTEGER, -- neither this nor the name need be known to the panel: that may be the problem
    name TEXT NOT NULL,
    text TEXT NOT NULL,
    raised INTEGER NOT NULL,
    solved INTEGER
);
CREATE UNIQUE INDEX problem_open ON problem (problem, ifnull(hostnode, 0), name) WHERE solved IS NULL;
CREATE INDEX problem_of_vm ON problem (name) WHERE solved IS NULL;
CREATE TABLE statistics ( -- the latest of each domain
    hostnode INTEGER NOT NULL,
    name TEXT NOT NULL,
    time INTEGER NOT NULL,
    domain TEXT NOT NULL, -- JSON, as the node counted it
    PRIMARY KEY (hostnode, name)
) WITHOUT ROWID;
CREATE VIEW unreachable AS -- nodes that nothing is known of now
    SELECT hostnode, min(raised) AS since FROM problem
    WHERE solved IS NULL AND problem IN ('node_silent', 'libvirt_lost') AND hostnode IS NOT NULL
    GROUP BY hostnode;
CREATE VIEW vm_shown AS -- unreachable is not off: the status is unknown, the last one known stands beside it
    SELECT vm.id, vm.name, vm.uuid, vm.hostnode, vm.last, hostnode.name AS node,
        iif(unreachable.since IS NULL, vm.status, 'unknown') AS status,
        vm.status AS last_status,
        ifnull(unreachable.since, vm.since) AS since
    FROM vm LEFT JOIN hostnode ON hostnode.id = vm.hostnode
    LEFT JOIN unreachable ON unreachable.hostnode = vm.hostnode;
"""


class Store:
    """The open database. `changes` counts this process's commits; `on_change` is called after each."""

    def __init__(self, path: Path) -> None:
        """Open, or make, the database. StorageError: not to be opened, in use, or of a newer version."""
        try:
            self.connection = sqlite3.connect(path, isolation_level=None, timeout=0, cached_statements=256)
        except sqlite3.Error as error:
            raise StorageError(f"{path}: {error}") from error
        self.connection.row_factory = sqlite3.Row
        self.changes = 0
        self.on_change: Callable[[], None] = _nobody_listens
        try:
            self._prepare()
        except (sqlite3.Error, StorageError) as error:
            self.connection.close()
            raise StorageError(f"{path}: {error}") from error
        path.chmod(0o600)

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
            version = self.connection.execute("PRAGMA user_version").fetchone()[0]
            if version > VERSION:
                raise StorageError(f"version {version} of the database is newer than this panel's {VERSION}")
            if version == 0:
                for statement in _statements(_SCHEMA):
                    self.connection.execute(statement)
                self.connection.execute(f"PRAGMA user_version = {VERSION}")

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All that is done inside is on the disk when this ends without an exception, else nothing is."""
        self.connection.execute("BEGIN IMMEDIATE")
        try:
            yield self.connection
            self.connection.execute("COMMIT")
        except BaseException:
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK")
            raise
        self.changes += 1
        self.on_change()

    def close(self) -> None:
        """Close the file, all of its content in one piece."""
        self.connection.close()


def _nobody_listens() -> None:
    pass


def _statements(script: str) -> Iterator[str]:
    # executescript() would commit the transaction that the schema has to be made in.
    statement = ""
    for line in script.splitlines():
        statement += line + "\n"
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
