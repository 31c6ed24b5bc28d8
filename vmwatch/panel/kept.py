# SPDX-License-Identifier: Apache-2.0
"""The table `setting`: what people set on pages, and what the panel made for itself, by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import sqlite3


def read(connection: sqlite3.Connection, name: str) -> str | None:
    """A setting's value; None: it was never written."""
    row = connection.execute("SELECT value FROM setting WHERE name = ?", (name,)).fetchone()
    return str(row["value"]) if row else None


def write(connection: sqlite3.Connection, name: str, value: str) -> None:
    """Keep a setting's value, in the caller's transaction."""
    connection.execute("INSERT OR REPLACE INTO setting (name, value) VALUES (?, ?)", (name, value))
