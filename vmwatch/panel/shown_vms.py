# SPDX-License-Identifier: Apache-2.0
"""What is read of the VMs, as the API and the pages show them: filtered, sorted, by the page."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Mapping

    from vmwatch.panel.convention import Paging


class Warned(StrEnum):
    """Which warnings of the status check a list is narrowed to."""

    ANY = "any"
    NETWORK = "network"  # no packet sent
    DISK = "disk"  # no write request


class Column(StrEnum):
    """What a list of VMs can be sorted by."""

    NAME = "name"
    STATUS = "status"
    NODE = "node"
    SINCE = "since"
    EVENT = "event"  # type, then subtype
    TIME = "time"  # of the last event


@dataclass(frozen=True, slots=True, kw_only=True)
class Vm:
    """A VM as it is shown. Times in milliseconds since 1970; those of its last event are None before the first.

    On an unreachable node `status` is unknown, `since` is since when, and `last_status` is what was known last.
    `idle_…` is the status check's warning, `idle_seconds` None without one: what was counted in the last interval
    (None: not judged), how long that was, and when the first interval of this warning began.
    """

    id: int
    name: str
    uuid: str | None
    status: str
    last_status: str
    since: int | None
    hostnode: int | None
    node: str | None
    type: str | None
    subtype: str | None
    cause: str | None
    source: str | None
    time: int | None
    problems: int
    idle_packets: int | None
    idle_writes: int | None
    idle_seconds: float | None
    idle_since: int | None

    @property
    def warning(self) -> str:
        """What did not move: `network`, `disk`, both with a comma between; "": no warning."""
        found = {Warned.NETWORK: self.idle_packets, Warned.DISK: self.idle_writes}
        return ",".join(kind for kind, count in found.items() if count == 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which VMs: a part of the name, in any case of letters; a shown status, a node, a warning; "" and 0: any."""

    name: str = ""
    status: str = ""
    hostnode: int = 0
    warning: Warned | str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """How a list is sorted. VMs that are alike, or have no such value, follow by name."""

    column: Column = Column.NAME
    descending: bool = False


_VM = (
    "SELECT vm_shown.id, vm_shown.name, uuid, vm_shown.status, last_status, vm_shown.since, vm_shown.hostnode,"
    " node, history.type, history.subtype, history.cause, history.source, history.time,"
    " (SELECT count(*) FROM problem WHERE problem.name = vm_shown.name AND solved IS NULL) AS problems,"
    " idle.packets_sent AS idle_packets, idle.write_requests AS idle_writes, idle.seconds AS idle_seconds,"
    " idle.since AS idle_since"
    " FROM vm_shown LEFT JOIN history ON history.id = vm_shown.last LEFT JOIN idle ON idle.vm = vm_shown.id "
)
_MATCHES = (
    " WHERE (?1 = '' OR instr(lower(vm_shown.name), lower(?1))) AND (?2 = '' OR vm_shown.status = ?2)"
    " AND (?3 = 0 OR vm_shown.hostnode = ?3)"
    " AND (?4 = '' OR vm_shown.id IN (SELECT vm FROM idle WHERE ?4 = 'any'"
    " OR ?4 = 'network' AND packets_sent = 0 OR ?4 = 'disk' AND write_requests = 0)) "
)
_COUNT = "SELECT count(*) FROM vm_shown"
_BY_STATUS = "SELECT status, count(*) FROM vm_shown"
_SORTED: Final[Mapping[Column, tuple[str, ...]]] = {
    Column.NAME: (),
    Column.STATUS: ("vm_shown.status",),
    Column.NODE: ("node",),
    Column.SINCE: ("vm_shown.since",),
    Column.EVENT: ("history.type", "history.subtype"),
    Column.TIME: ("history.time",),
}


def vms(
    connection: sqlite3.Connection, wanted: Filter, paging: Paging, order: Order | None = None
) -> list[Vm]:
    """A page of the VMs; by name, unless another order is given."""
    query = _VM + _MATCHES + _ordered(order or Order()) + " LIMIT ?5 OFFSET ?6"
    rows = connection.execute(query, (*_values(wanted), paging.size, paging.offset))
    return [Vm(**row) for row in rows]


def count_vms(connection: sqlite3.Connection, wanted: Filter) -> int:
    """How many VMs there are in all pages."""
    return int(connection.execute(_COUNT + _MATCHES, _values(wanted)).fetchone()[0])


def count_by_status(connection: sqlite3.Connection, wanted: Filter) -> dict[str, int]:
    """How many VMs are shown with each status, whichever `wanted` names; statuses without any are not in it."""
    rows = connection.execute(_BY_STATUS + _MATCHES + "GROUP BY status", _values(replace(wanted, status="")))
    return {row[0]: row[1] for row in rows}


def vm_by_id(connection: sqlite3.Connection, vm: int) -> Vm | None:
    """One VM."""
    row = connection.execute(_VM + "WHERE vm_shown.id = ?", (vm,)).fetchone()
    return Vm(**row) if row else None


def vm_by_name(connection: sqlite3.Connection, name: str) -> Vm | None:
    """One VM."""
    row = connection.execute(_VM + "WHERE vm_shown.name = ?", (name,)).fetchone()
    return Vm(**row) if row else None


def _values(wanted: Filter) -> tuple[str | int, ...]:
    return (wanted.name, wanted.status, wanted.hostnode, wanted.warning)


def _ordered(order: Order) -> str:
    way = " DESC" if order.descending else ""
    terms = [f"{column} IS NULL, {column}{way}" for column in _SORTED[order.column]]
    by_name = "vm_shown.name" + (way if order.column is Column.NAME else "")
    return "ORDER BY " + ", ".join([*terms, by_name])
