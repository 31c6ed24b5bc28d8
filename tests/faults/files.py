# SPDX-License-Identifier: Apache-2.0
"""What the files of a node that has ended, and of the master, hold."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vmwatch.messages import Event
from vmwatch.protocol import Kind
from vmwatch.strict import decode

if TYPE_CHECKING:
    from collections.abc import Iterator

Place = tuple[str, int]
"""A record's run and number."""


def taken(master: Path, node: int) -> Place | None:
    """The node's last record that the master has taken, whether it runs or not."""
    file = master / "ledger.db"
    with contextlib.closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True, timeout=5)) as sql:
        row = sql.execute("SELECT run, seq FROM node WHERE id = ?", (node,)).fetchone()
    return (row[0], row[1]) if row else None


def tops(node: Path) -> dict[str, int]:
    """By run, the last record that the outbox holds."""
    return dict(_ask(node, "SELECT run, max(seq) FROM record GROUP BY run"))


def events(node: Path) -> Iterator[tuple[Place, float]]:
    """The events that the outbox holds, and when each happened."""
    for run, seq, body in _ask(node, f"SELECT run, seq, body FROM record WHERE kind = {Kind.EVENT.value}"):
        yield (run, seq), decode(Event, body).time.timestamp()


def _ask(node: Path, query: str) -> list[tuple[Any, ...]]:
    """Of a copy, for opening the file would change it. Nothing, if it was spoilt on purpose."""
    with tempfile.TemporaryDirectory() as name:
        for file in node.glob("outbox.db*"):
            shutil.copy(file, name)
        with contextlib.closing(sqlite3.connect(Path(name, "outbox.db"))) as sql:
            try:
                return sql.execute(query).fetchall()
            except sqlite3.DatabaseError:
                return []
