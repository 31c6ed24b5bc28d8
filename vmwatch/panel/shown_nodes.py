# SPDX-License-Identifier: Apache-2.0
"""What is read of the cluster nodes. Those that were removed are shown nowhere but in the histories."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import sqlite3

    from vmwatch.panel.convention import Paging


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A cluster node, and how many VMs are on it. `unreachable` is since when nothing is known of it.

    `address` is where SSH reaches it, "" on the panel's own host; `uri` its libvirt, "" where that follows from it.
    """

    id: int
    name: str
    address: str
    uri: str
    vms: int
    unreachable: int | None


_NODE = (
    "SELECT id, name, address, uri, (SELECT count(*) FROM vm WHERE vm.hostnode = hostnode.id) AS vms,"
    " unreachable.since AS unreachable FROM hostnode"
    " LEFT JOIN unreachable ON unreachable.hostnode = hostnode.id WHERE removed IS NULL "
)


def nodes(connection: sqlite3.Connection, paging: Paging) -> list[Node]:
    """A page of the nodes, by id."""
    rows = connection.execute(_NODE + "ORDER BY id LIMIT ? OFFSET ?", (paging.size, paging.offset))
    return [Node(**row) for row in rows]


def node_names(connection: sqlite3.Connection) -> dict[int, str]:
    """All nodes' names by id, to choose from."""
    return dict(connection.execute("SELECT id, name FROM hostnode WHERE removed IS NULL ORDER BY id"))


def count_nodes(connection: sqlite3.Connection) -> int:
    """How many nodes there are."""
    return int(connection.execute("SELECT count(*) FROM hostnode WHERE removed IS NULL").fetchone()[0])


def node(connection: sqlite3.Connection, number: int) -> Node | None:
    """One node; None: there is no such node."""
    row = connection.execute(_NODE + "AND id = ?", (number,)).fetchone()
    return Node(**row) if row else None
