# SPDX-License-Identifier: Apache-2.0
"""What is written of the cluster nodes, each function one transaction. Their services are asked for with it.

A node that came by `write_node` is one that the panel manages. One that an event registered, or an older version
kept, becomes one when it is written, for until then nobody has said where it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmwatch.panel import register_services
from vmwatch.panel.convention import ApiError, ErrorType
from vmwatch.panel.shown_services import MASTER

if TYPE_CHECKING:
    import sqlite3

    from vmwatch.panel.store import Store

_AT_REST = "('stopped', 'saved', 'crashed', 'unknown')"  # statuses of a VM that does not keep its node


def write_node(
    store: Store, node: int, *, name: str, address: str | None = None, uri: str | None = None
) -> bool:
    """Make a node, or change it; what is None stays as it is, or is "". ApiError: `exists` (name).

    True: it is new, or elsewhere than it was, so that services are to be configured; that is asked for.
    """
    with store.transaction() as connection:
        _refuse_twin(connection, node, name)
        before = connection.execute(
            "SELECT address FROM hostnode JOIN service ON service.hostnode = id WHERE id = ? AND removed IS NULL",
            (node,),
        ).fetchone()
        connection.execute(
            "INSERT INTO hostnode (id, name, address, uri) VALUES (?1, ?2, ifnull(?3, ''), ifnull(?4, ''))"
            " ON CONFLICT (id) DO UPDATE SET name = ?2, address = ifnull(?3, address), uri = ifnull(?4, uri),"
            " removed = NULL",
            (node, name, address, uri),
        )
        if before and address in (None, before["address"]):
            return False
        register_services.ask(connection, MASTER)
        register_services.ask(connection, node)
    return True


def remove_nodes(store: Store, nodes: list[int], *, now: int) -> None:
    """Remove nodes, all or none; their services' rows stay until the master has forgotten them.

    ApiError: `missed` (elid); `access` (elid) where VMs run, which would go on unwatched.
    """
    with store.transaction() as connection:
        for node in nodes:
            _require_empty(connection, node)
            connection.execute(
                "UPDATE hostnode SET removed = ?, name = name || ' (removed, ' || id || ')' WHERE id = ?",
                (now, node),
            )
            if connection.execute("SELECT 1 FROM service WHERE hostnode = ?", (node,)).fetchone():
                register_services.ask(connection, node)
        register_services.ask(connection, MASTER)


def _require_empty(connection: sqlite3.Connection, node: int) -> None:
    query = "SELECT name FROM hostnode WHERE id = ? AND removed IS NULL"
    if connection.execute(query, (node,)).fetchone() is None:
        raise ApiError(ErrorType.MISSED, "elid", f"There is no node {node}", value=str(node))
    (vms,) = connection.execute(
        f"SELECT count(*) FROM vm_shown WHERE hostnode = ? AND status NOT IN {_AT_REST}",  # noqa: S608 (no value)
        (node,),
    ).fetchone()
    if vms:
        text = f"VMs run on node {node}: {vms}. Move or stop them first"
        raise ApiError(ErrorType.ACCESS, "elid", text, value=str(node))


def _refuse_twin(connection: sqlite3.Connection, node: int, name: str) -> None:
    query = "SELECT 1 FROM hostnode WHERE name = ? AND id != ?"
    if connection.execute(query, (name, node)).fetchone():
        raise ApiError(ErrorType.EXISTS, "name", f"The name '{name}' is taken", value=name)
