# SPDX-License-Identifier: Apache-2.0
"""What is written: events, problems, VMs. Each function is one transaction of the store.

Exactly once: an event's effect and the memory of it (`applied`) are committed together, so a repetition,
however late and whoever was killed in between, is known for one, and changes nothing.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from vmwatch.cluster import Copy, Placement, apply, place
from vmwatch.events import CopyState, Status
from vmwatch.panel import problems, register_installation
from vmwatch.panel.convention import ApiError, ErrorType

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Mapping

    from vmwatch.panel.fields import EventId, ProblemReport, VmEvent
    from vmwatch.panel.store import Store

# Runs of one node remembered per VM. Calls of one VM come in order, so no more than the last two can overlap;
# the rest is for a master that was restored from a backup.
RUNS_KEPT = 8

# Of a VM of which nothing is known now, it is not known either whether it is idle.
_UNWARN = "DELETE FROM idle WHERE vm IN (SELECT id FROM vm_shown WHERE hostnode = ? AND status = 'unknown')"


def record_event(store: Store, event: VmEvent, *, clock: Callable[[], int], create: bool) -> bool:
    """Take one event; False if it was taken before. `clock` gives milliseconds since 1970.

    An unknown VM, or its node, is registered if `create`, else it is an ApiError `missed`.
    """
    with store.transaction() as connection:
        vm = _vm_of_event(connection, event, create=create)
        if event.event_id and not _is_new(connection, vm, event.event_id):
            return False
        placement = _follow(connection, vm, event)
        connection.execute("DELETE FROM idle WHERE vm = ?", (vm,))  # the status check begins anew
        # Last: what is registered is the time of the commit, as near as it can be known inside of it.
        now = clock()
        _write_history(connection, vm, event, placement, now=now)
        register_installation.follow(connection, vm, event, placement, now=now)
    return True


def _follow(connection: sqlite3.Connection, vm: int, event: VmEvent) -> Placement:
    """Where the VM is after the event, and its status: the caller's, who sees the whole cluster, or else ours."""
    row = connection.execute("SELECT copies, status, hostnode FROM vm WHERE id = ?", (vm,)).fetchone()
    before = _decode(row["copies"])
    after = apply(before, event.hostnode, event.type, event.subtype)
    connection.execute("UPDATE vm SET copies = ? WHERE id = ?", (_encode(after), vm))
    # Without any copy, and by an event that tells of none, there is no reason to show anything else than before.
    known = Placement(status=Status(row["status"]), node=row["hostnode"])
    placement = place(after) if before or after else known
    if event.uuid and placement.node in (event.hostnode, None):  # else it is of one that had the name before
        connection.execute("UPDATE vm SET uuid = ?1 WHERE id = ?2 AND uuid IS NOT ?1", (event.uuid, vm))
    return placement._replace(status=event.status or placement.status)


def _encode(copies: Mapping[int, Copy]) -> str:
    return json.dumps({str(node): copy._asdict() for node, copy in copies.items()})


def _decode(text: str) -> dict[int, Copy]:
    return {
        int(node): Copy(**{**copy, "state": CopyState(copy["state"])})
        for node, copy in json.loads(text).items()
    }


def _vm_of_event(connection: sqlite3.Connection, event: VmEvent, *, create: bool) -> int:
    row = connection.execute("SELECT id FROM vm WHERE name = ?", (event.name,)).fetchone()
    if create:
        connection.execute(
            "INSERT INTO hostnode (id, name) VALUES (?, ?) ON CONFLICT DO NOTHING",
            (event.hostnode, f"node-{event.hostnode}"),
        )
    require_node(connection, event.hostnode)
    if row is None and not create:
        raise ApiError(ErrorType.MISSED, "vm", f"There is no VM '{event.name}'", value=event.name)
    if row is None:
        return _insert_vm(connection, name=event.name, uuid=event.uuid, hostnode=None)
    return int(row["id"])


def _is_new(connection: sqlite3.Connection, vm: int, event_id: EventId) -> bool:
    stream = (vm, event_id.node, event_id.run)
    row = connection.execute(
        "SELECT seq FROM applied WHERE vm = ? AND hostnode = ? AND run = ?", stream
    ).fetchone()
    if row is None:
        connection.execute(
            "INSERT INTO applied (vm, hostnode, run, seq) VALUES (?, ?, ?, ?)", (*stream, event_id.seq)
        )
        connection.execute(
            "DELETE FROM applied WHERE vm = ? AND hostnode = ? AND id NOT IN"
            " (SELECT id FROM applied WHERE vm = ? AND hostnode = ? ORDER BY id DESC LIMIT ?)",
            (vm, event_id.node, vm, event_id.node, RUNS_KEPT),
        )
        return True
    if event_id.seq <= row["seq"]:
        return False
    connection.execute(
        "UPDATE applied SET seq = ? WHERE vm = ? AND hostnode = ? AND run = ?", (event_id.seq, *stream)
    )
    return True


def _write_history(
    connection: sqlite3.Connection, vm: int, event: VmEvent, placement: Placement, *, now: int
) -> None:
    time = now if event.time is None else event.time
    entry = connection.execute(
        "INSERT INTO history (vm, reporter, type, subtype, cause, source, earliest, time, registered, status,"
        " hostnode, event_id) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            vm,
            event.hostnode,
            event.type,
            event.subtype,
            event.cause,
            event.source,
            event.earliest,
            time,
            now,
            placement.status,
            placement.node,
            str(event.event_id) if event.event_id else None,
        ),
    )
    connection.execute(
        "UPDATE vm SET since = iif(status = ?1 AND since IS NOT NULL, since, ?2), status = ?1, hostnode = ?3,"
        " last = ?4 WHERE id = ?5",
        (placement.status, time, placement.node, entry.lastrowid, vm),
    )


def record_problem(store: Store, report: ProblemReport, *, now: int) -> None:
    """Raise a problem (again: it is counted, its text renewed) or solve it (none open: nothing to do)."""
    with store.transaction() as connection:
        if report.raised:
            problems.begin(
                connection,
                report.problem,
                hostnode=report.hostnode,
                name=report.name,
                text=report.text,
                now=now,
            )
            connection.execute(_UNWARN, (report.hostnode,))
        else:
            problems.end(connection, report.problem, hostnode=report.hostnode, name=report.name, now=now)


def create_vm(store: Store, *, name: str, uuid: str | None, hostnode: int) -> int:
    """The id of a new VM, of which nothing has been heard yet. ApiError: `exists` (name), `missed` (hostnode)."""
    with store.transaction() as connection:
        require_node(connection, hostnode)
        _refuse_twin(connection, name, None)
        return _insert_vm(connection, name=name, uuid=uuid, hostnode=hostnode)


def change_vm(store: Store, vm: int, *, name: str, uuid: str | None, hostnode: int) -> None:
    """Change a VM. ApiError: `missed` (elid, hostnode), `exists` (name)."""
    with store.transaction() as connection:
        require_node(connection, hostnode)
        _refuse_twin(connection, name, vm)
        changed = connection.execute(
            "UPDATE vm SET name = ?, uuid = ?, hostnode = ? WHERE id = ?", (name, uuid, hostnode, vm)
        )
        if changed.rowcount == 0:
            raise ApiError(ErrorType.MISSED, "elid", f"There is no VM {vm}", value=str(vm))


def require_node(connection: sqlite3.Connection, node: int) -> None:
    """ApiError `missed` (hostnode) unless there is such a node."""
    if connection.execute("SELECT 1 FROM hostnode WHERE id = ?", (node,)).fetchone() is None:
        raise ApiError(ErrorType.MISSED, "hostnode", f"There is no node {node}", value=str(node))


def _insert_vm(connection: sqlite3.Connection, *, name: str, uuid: str | None, hostnode: int | None) -> int:
    row = connection.execute(
        "INSERT INTO vm (name, uuid, hostnode, status) VALUES (?, ?, ?, ?)",
        (name, uuid, hostnode, Status.UNKNOWN),
    )
    return int(row.lastrowid or 0)


def _refuse_twin(connection: sqlite3.Connection, name: str, own: int | None) -> None:
    if connection.execute("SELECT 1 FROM vm WHERE name = ? AND id IS NOT ?", (name, own)).fetchone():
        raise ApiError(ErrorType.EXISTS, "name", f"The name '{name}' is taken", value=name)
