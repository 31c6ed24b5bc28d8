# SPDX-License-Identifier: Apache-2.0
"""What is written of a node's statistics: the latest of each domain, a sample a VM, the status check's warnings."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from vmwatch.events import Status
from vmwatch.panel import policy, status_check
from vmwatch.panel.register import require_node

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

    from vmwatch.panel.status_check import Interval
    from vmwatch.panel.store import Store


def record_statistics(store: Store, hostnode: int, domains: Sequence[dict[str, Any]], *, time: int) -> None:
    """Take a collection of a node's counters, one transaction; one that is not newer than the last changes nothing.

    ApiError `missed`: the node is not known. A domain that is no VM of the panel's is kept, and nothing else.
    """
    with store.transaction() as connection:
        require_node(connection, hostnode)
        checked = policy.read(connection).status_check
        for domain in domains:
            interval = _interval(connection, hostnode, domain, time)
            vm = _vm(connection, domain["name"])
            if not _keep(connection, hostnode, domain, time) or vm is None:
                continue
            if interval is not None:
                _write_sample(connection, vm["id"], interval)
            if checked and vm["hostnode"] == hostnode:
                _check(connection, vm, interval)


def _interval(
    connection: sqlite3.Connection, hostnode: int, domain: dict[str, Any], time: int
) -> Interval | None:
    row = connection.execute(
        "SELECT time, domain FROM statistics WHERE hostnode = ? AND name = ?", (hostnode, domain["name"])
    ).fetchone()
    before = status_check.read(json.loads(row["domain"]), row["time"]) if row else None
    after = status_check.read(domain, time)
    return status_check.compare(before, after) if before and after else None


def _keep(connection: sqlite3.Connection, hostnode: int, domain: dict[str, Any], time: int) -> bool:
    kept = connection.execute(
        "INSERT INTO statistics (hostnode, name, time, domain) VALUES (?, ?, ?, ?)"
        " ON CONFLICT (hostnode, name) DO UPDATE SET time = excluded.time, domain = excluded.domain"
        " WHERE excluded.time > time",
        (hostnode, domain["name"], time, json.dumps(domain)),
    )
    return kept.rowcount > 0


def _vm(connection: sqlite3.Connection, name: str) -> sqlite3.Row | None:
    """What the panel shows of a VM, and when the last thing happened to it."""
    row: sqlite3.Row | None = connection.execute(
        "SELECT vm_shown.id, vm_shown.status, vm_shown.hostnode, history.time AS touched"
        " FROM vm_shown LEFT JOIN history ON history.id = vm_shown.last WHERE vm_shown.name = ?",
        (name,),
    ).fetchone()
    return row


def _write_sample(connection: sqlite3.Connection, vm: int, interval: Interval) -> None:
    grown = interval.grown
    connection.execute(
        "INSERT OR REPLACE INTO sample (vm, time, seconds, bytes_received, bytes_sent, packets_sent, read_bytes,"
        " write_bytes, write_requests) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            vm,
            interval.end,
            interval.seconds,
            grown["bytes_received"],
            grown["bytes_sent"],
            grown["packets_sent"],
            grown["read_bytes"],
            grown["write_bytes"],
            grown["write_requests"],
        ),
    )


def _check(connection: sqlite3.Connection, vm: sqlite3.Row, interval: Interval | None) -> None:
    idle = status_check.judge(interval) if interval and _ran_through(vm, interval) else None
    if interval is None or idle is None:
        connection.execute("DELETE FROM idle WHERE vm = ?", (vm["id"],))
        return
    connection.execute(
        "INSERT INTO idle (vm, packets_sent, write_requests, seconds, since) VALUES (?, ?, ?, ?, ?)"
        " ON CONFLICT (vm) DO UPDATE SET packets_sent = excluded.packets_sent,"
        " write_requests = excluded.write_requests, seconds = excluded.seconds",
        (vm["id"], idle.packets_sent, idle.write_requests, interval.seconds, interval.begin),
    )


def _ran_through(vm: sqlite3.Row, interval: Interval) -> bool:
    """Whether it did, and undisturbed: no event happened to it meanwhile."""
    return vm["status"] == Status.RUNNING and (vm["touched"] is None or vm["touched"] <= interval.begin)
