# SPDX-License-Identifier: Apache-2.0
"""The room that forgets: history, solved problems and samples when their time is over, a little at a time.

A commit takes a few hundred rows and some milliseconds, then others have their turn. So a million rows that an
upgrade finds too old take minutes, and nobody waits for them. The file does not shrink: what is free is used again.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from typing import TYPE_CHECKING, Final

from vmwatch.panel import policy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from vmwatch.panel.store import Store

ROWS: Final = 300  # in one commit
PAUSE: Final = 0.1  # seconds between two commits
ROUND: Final = 3600.0  # seconds between two rounds
SAMPLE_DAYS: Final = 8  # the longest plot is a week

_DAY: Final = 86_400_000  # milliseconds

_PROBLEMS: Final = "DELETE FROM problem WHERE id IN (SELECT id FROM problem WHERE solved < ? LIMIT ?)"
# By VM, for so they lie: else each step would read them all.
_SAMPLES: Final = (
    "DELETE FROM sample WHERE (vm, time) IN (SELECT sample.vm, sample.time"
    " FROM vm CROSS JOIN sample ON sample.vm = vm.id AND sample.time < ? LIMIT ?)"
)
_STATISTICS: Final = (
    "DELETE FROM statistics WHERE (hostnode, name) IN"
    " (SELECT hostnode, name FROM statistics WHERE time < ? LIMIT ?)"
)

log = logging.getLogger(__name__)


async def run(store: Store, clock: Callable[[], int]) -> None:
    """Prune, for as long as the panel runs. `clock` gives milliseconds since 1970."""
    while True:
        try:
            for _ in prune(store, clock()):
                await asyncio.sleep(PAUSE)
        except sqlite3.Error as error:  # a full disk: the next round finds it all again
            log.warning("cannot prune: reason=%s", error)
        await asyncio.sleep(ROUND)


def prune(store: Store, now: int) -> Iterator[None]:
    """One round, a commit a step. A VM's last event stays, however old: it says what the VM is."""
    horizon = now - policy.read(store.connection).history_days * _DAY
    yield from _prune_history(store, horizon)
    yield from _prune(store, _PROBLEMS, horizon)
    for statement in (_SAMPLES, _STATISTICS):
        yield from _prune(store, statement, now - SAMPLE_DAYS * _DAY)


def _prune_history(store: Store, horizon: int) -> Iterator[None]:
    # Rows are registered in the order of their ids, so the old ones are the first; no index is needed.
    last = 0
    while ids := _next_old(store.connection, last, horizon):
        last = ids[-1]
        with store.transaction(silent=True) as connection:
            connection.executemany(
                "DELETE FROM history WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM vm WHERE last = ?1)",
                [(entry,) for entry in ids],
            )
        yield


def _next_old(connection: sqlite3.Connection, after: int, horizon: int) -> list[int]:
    rows = connection.execute(
        "SELECT id, registered FROM history WHERE id > ? ORDER BY id LIMIT ?", (after, ROWS)
    )
    return [row["id"] for row in rows if row["registered"] < horizon]


def _prune(store: Store, statement: str, horizon: int) -> Iterator[None]:
    pruned = ROWS
    while pruned == ROWS:
        with store.transaction(silent=True) as connection:
            pruned = connection.execute(statement, (horizon, ROWS)).rowcount
        yield
