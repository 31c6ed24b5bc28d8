# SPDX-License-Identifier: Apache-2.0
"""What is read of the samples: a VM's network and disk rates, thinned to what a picture can show."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from vmwatch.panel.plot import Sample

if TYPE_CHECKING:
    import sqlite3

COLUMNS_MOST: Final = 1000  # samples in one picture

# Neighbours become one sample with their average; times that nothing was measured in do not count for it.
_SAMPLES: Final = (
    "SELECT max(time) AS time, sum(seconds) AS seconds, sum(bytes_received), sum(bytes_sent), sum(read_bytes),"
    " sum(write_bytes) FROM sample WHERE vm = ? AND time > ? GROUP BY time / ? ORDER BY time"
)

Series = list[tuple[str, list[Sample]]]


def rates(connection: sqlite3.Connection, vm: int, *, since: int, until: int) -> tuple[Series, Series]:
    """The network's rates and the disks', each by name, since a time (ms since 1970)."""
    width = max(1, (until - since) // COLUMNS_MOST)
    rows = connection.execute(_SAMPLES, (vm, since, width)).fetchall()
    names = ("received", "sent", "read", "written")
    series = [(name, [_sample(row, column) for row in rows]) for column, name in enumerate(names, start=2)]
    return series[:2], series[2:]


def latest(connection: sqlite3.Connection, vm: int) -> int | None:
    """When the last sample ended; None: there is none."""
    row = connection.execute("SELECT max(time) FROM sample WHERE vm = ?", (vm,)).fetchone()
    return None if row[0] is None else int(row[0])


def _sample(row: sqlite3.Row, column: int) -> Sample:
    seconds = max(0.001, row["seconds"])
    return Sample(begin=round(row["time"] - seconds * 1000), end=row["time"], rate=row[column] / seconds)
