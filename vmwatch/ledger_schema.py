# SPDX-License-Identifier: Apache-2.0
"""The tables of the ledger's file, and how an older file comes to have them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

VERSION: Final = 3
SCHEMA: Final = """
CREATE TABLE node (
    id INTEGER PRIMARY KEY, run TEXT NOT NULL, seq INTEGER NOT NULL, ended TEXT NOT NULL
) STRICT;
CREATE TABLE beat (
    node INTEGER PRIMARY KEY, run TEXT NOT NULL, counter INTEGER NOT NULL,
    heard TEXT -- when it came, by the master's clock (NULL: not known)
) STRICT;
CREATE TABLE vm (
    uuid TEXT NOT NULL, node INTEGER NOT NULL, name TEXT NOT NULL,
    state TEXT NOT NULL, place INTEGER NOT NULL, balance INTEGER NOT NULL,
    PRIMARY KEY (uuid, node)
) STRICT, WITHOUT ROWID;
CREATE TABLE problem (
    key TEXT PRIMARY KEY
) STRICT, WITHOUT ROWID;
CREATE TABLE anomaly (
    id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE
) STRICT;
CREATE TABLE unread (
    id INTEGER PRIMARY KEY,
    node INTEGER NOT NULL, run TEXT NOT NULL, seq INTEGER NOT NULL, kind INTEGER NOT NULL, body BLOB NOT NULL
) STRICT;
CREATE TABLE call (
    id INTEGER PRIMARY KEY, key TEXT NOT NULL, time REAL NOT NULL, func TEXT NOT NULL, fields TEXT NOT NULL,
    -- of a VM's event, whose body `fields` is then, as it came: what is told beside it
    hostnode INTEGER, event_id TEXT, status TEXT,
    passed INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX call_passed ON call (key, id) WHERE passed = 1;
CREATE TABLE latest (
    id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, time REAL NOT NULL, func TEXT NOT NULL, fields TEXT NOT NULL
) STRICT;
CREATE TABLE parked (
    id INTEGER PRIMARY KEY, key TEXT NOT NULL, func TEXT NOT NULL, fields TEXT NOT NULL, reason TEXT NOT NULL
) STRICT"""

_FROM_1: Final = """
CREATE TABLE anomaly (
    id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE
) STRICT;
INSERT INTO anomaly (key) SELECT key FROM problem WHERE key NOT LIKE 'problem %';
DELETE FROM problem WHERE key NOT LIKE 'problem %';
ALTER TABLE unread RENAME TO unread_1;
CREATE TABLE unread (
    id INTEGER PRIMARY KEY,
    node INTEGER NOT NULL, run TEXT NOT NULL, seq INTEGER NOT NULL, kind INTEGER NOT NULL, body BLOB NOT NULL
) STRICT;
INSERT INTO unread (node, run, seq, kind, body) SELECT node, run, seq, kind, body FROM unread_1;
DROP TABLE unread_1;
DROP INDEX vm_node;
DROP INDEX call_key;
ALTER TABLE call ADD COLUMN hostnode INTEGER;
ALTER TABLE call ADD COLUMN event_id TEXT;
ALTER TABLE call ADD COLUMN status TEXT;
ALTER TABLE call ADD COLUMN passed INTEGER NOT NULL DEFAULT 0;
CREATE INDEX call_passed ON call (key, id) WHERE passed = 1;
CREATE TABLE latest (
    id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, time REAL NOT NULL, func TEXT NOT NULL, fields TEXT NOT NULL
) STRICT;
INSERT INTO latest SELECT id, key, time, func, fields FROM call WHERE func = 'vmwatch.statistics';
DELETE FROM call WHERE func = 'vmwatch.statistics'"""

_FROM_2: Final = """
ALTER TABLE beat ADD COLUMN heard TEXT"""

MIGRATIONS: Final[Mapping[int, str]] = {1: _FROM_1, 2: _FROM_2}
"""Version -> the statements that lead from it to the next."""
