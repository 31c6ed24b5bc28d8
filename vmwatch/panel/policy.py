# SPDX-License-Identifier: Apache-2.0
"""What people set on pages or by the API for the whole cluster, kept in table `setting`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from vmwatch.panel import kept

if TYPE_CHECKING:
    import sqlite3

    from vmwatch.panel.store import Store

DAYS_MOST: Final = 36_500

_STATUS_CHECK: Final = "status_check"
_HISTORY_DAYS: Final = "history_days"


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """`status_check`: idle VMs get a warning. `history_days`: how long history and solved problems are kept."""

    status_check: bool = False
    history_days: int = 90


def read(connection: sqlite3.Connection) -> Policy:
    """The policy; what was never set has its default."""
    checked, days = kept.read(connection, _STATUS_CHECK), kept.read(connection, _HISTORY_DAYS)
    return Policy(status_check=checked == "on", history_days=int(days) if days else Policy().history_days)


def set_status_check(store: Store, *, on: bool) -> None:
    """Switch the status check. Off: its warnings go at once."""
    with store.transaction() as connection:
        kept.write(connection, _STATUS_CHECK, "on" if on else "off")
        if not on:
            connection.execute("DELETE FROM idle")


def set_history_days(store: Store, days: int) -> None:
    """From 1 to DAYS_MOST. What is older then is pruned from the next round on."""
    with store.transaction() as connection:
        kept.write(connection, _HISTORY_DAYS, str(days))
