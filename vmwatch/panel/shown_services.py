# SPDX-License-Identifier: Apache-2.0
"""What is read of the services that the panel configures and watches."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Mapping

MASTER: Final = 0
"""The number under which vmwatch-master stands among the nodes."""


class State(StrEnum):
    """How a service was found."""

    RUNNING = "running"
    STOPPED = "stopped"
    DISABLED = "disabled"  # blocked by disabled=yes, and not running
    UNREACHABLE = "unreachable"  # its host did not answer
    UNKNOWN = "unknown"  # nobody has looked yet


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a service says of itself. `version` "": its host did not say."""

    version: str
    service: Mapping[str, Any]
    """As `service_report` has it; empty where nothing was said."""

    @property
    def state(self) -> Mapping[str, Any]:
        """What its files hold, an outbox or a ledger; empty where it never ran."""
        return self.service.get("state") or {}

    @property
    def unsent(self) -> int | None:
        """Of a node: so many records at least have not been sent. None: not known."""
        return self.state.get("unsent")

    @property
    def wants(self) -> list[str]:
        """What wants a hand."""
        return list(self.service.get("wants", []))


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A node's service, or the master's (`hostnode` MASTER). Times in milliseconds since 1970, None: never.

    `removed`: its node was removed, and the master is still to forget it. `waits`: it is to be configured.
    `error`: why it could not be, the last time.
    """

    hostnode: int
    name: str
    address: str
    state: State
    checked: int | None
    configured: int | None
    waits: bool
    removed: bool
    error: str | None
    report: Report


_SERVICE: Final = (
    "SELECT service.hostnode, ifnull(name, '') AS name, ifnull(address, '') AS address, state, checked, configured,"
    " asked > done AS waits, removed IS NOT NULL AS removed, error, report"
    " FROM service LEFT JOIN hostnode ON hostnode.id = service.hostnode "
)


def services(connection: sqlite3.Connection) -> list[Service]:
    """All of them by their node's id: the master is the first."""
    return [_service(row) for row in connection.execute(_SERVICE + "ORDER BY service.hostnode")]


def service(connection: sqlite3.Connection, hostnode: int) -> Service | None:
    """One of them; None: the panel does not manage this node."""
    row = connection.execute(_SERVICE + "WHERE service.hostnode = ?", (hostnode,)).fetchone()
    return _service(row) if row else None


def _service(row: sqlite3.Row) -> Service:
    report = json.loads(row["report"])
    return Service(
        hostnode=row["hostnode"],
        name=row["name"],
        address=row["address"],
        state=State(row["state"]),
        checked=row["checked"],
        configured=row["configured"],
        waits=bool(row["waits"]),
        removed=bool(row["removed"]),
        error=row["error"],
        report=Report(version=report.get("version", ""), service=report.get("service", {})),
    )
