# SPDX-License-Identifier: Apache-2.0
"""What the files of a node that has ended, and of the master, hold."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from vmwatch.messages import Event
from vmwatch.protocol import Kind
from vmwatch.strict import decode

if TYPE_CHECKING:
    from collections.abc import Iterator

Place = tuple[str, int]
"""A record's run and number."""

_TAKEN: Final = "SELECT run, seq FROM node WHERE id = ?"
_TOPS: Final = "SELECT run, max(seq) FROM record GROUP BY run"
_EVENTS: Final = "SELECT run, seq, body FROM record WHERE kind = ?"


def taken(master: Path, node: int) -> Place | None:
    """The node's last record that the master has taken, whether it runs or not."""
    ledger = master / "ledger.db"
    try:
        with contextlib.closing(sqlite3.connect(f"{ledger.as_uri()}?mode=ro", uri=True, timeout=5)) as sql:
            rows = sql.execute(_TAKEN, (node,)).fetchall()
    except sqlite3.OperationalError:  # it does not run, and its full disk has no room for what a reader needs
        rows = _ask_copy(ledger, _TAKEN, node)
    return rows[0] if rows else None


def tops(node: Path) -> dict[str, int]:
    """By run, the last record that the outbox holds."""
    return dict(_ask_copy(node / "outbox.db", _TOPS))


def events(node: Path) -> Iterator[tuple[Place, float]]:
    """The events that the outbox holds, and when each happened."""
    for run, seq, body in _ask_copy(node / "outbox.db", _EVENTS, Kind.EVENT.value):
        yield (run, seq), decode(Event, body).time.timestamp()


def _ask_copy(database: Path, query: str, *values: int) -> list[tuple[Any, ...]]:
    """Opening the file itself would change it. Nothing, if it was spoilt on purpose."""
    with tempfile.TemporaryDirectory() as name:
        for file in database.parent.glob(f"{database.name}*"):
            shutil.copy(file, name)
        with contextlib.closing(sqlite3.connect(Path(name, database.name))) as sql:
            try:
                return sql.execute(query, values).fetchall()
            except sqlite3.DatabaseError:
                return []
