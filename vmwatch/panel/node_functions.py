# SPDX-License-Identifier: Apache-2.0
"""The API's functions about cluster nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from vmwatch.panel import register_nodes, shown_nodes
from vmwatch.panel.call import Content, Function, Kind
from vmwatch.panel.convention import OK, ApiError, ErrorType, listing, scalars
from vmwatch.panel.fields import iso

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vmwatch.panel.call import Call
    from vmwatch.panel.shown_nodes import Node


def node_list(call: Call) -> Content:
    """`vmhostnode`: the cluster nodes, by id."""
    connection = call.panel.store.connection
    paging = call.fields.paging()
    rows = [_node(node) for node in shown_nodes.nodes(connection, paging)]
    return listing(rows, paging=paging, total=shown_nodes.count_nodes(connection))


def node_edit(call: Call) -> Content:
    """`vmhostnode.edit`: show (elid), or write (sok) node `elid`, which is made if it is new: name, address, uri.

    An address or uri that is not given stays; given and empty it is the panel's own host, or what follows from the
    address.
    """
    number = call.fields.required_number("elid")
    if call.fields.flag("sok"):
        register_nodes.write_node(
            call.panel.store,
            number,
            name=call.fields.name("name"),
            address=call.fields.ssh_address("address"),
            uri=call.fields.uri("uri"),
        )
        call.panel.services.wake()
        return (*OK, *scalars({"id": number}))
    node = shown_nodes.node(call.panel.store.connection, number)
    if node is None:
        raise ApiError(ErrorType.MISSED, "elid", f"There is no node {number}", value=str(number))
    return scalars({"id": number, "name": node.name, "address": node.address, "uri": node.uri})


def node_delete(call: Call) -> Content:
    """`vmhostnode.delete`: remove the nodes `elid` (`1, 2`), on which no VM runs."""
    register_nodes.remove_nodes(call.panel.store, call.fields.numbers("elid"), now=call.panel.clock())
    call.panel.services.wake()
    return OK


FUNCTIONS: Final[Mapping[str, Function]] = {
    "vmhostnode": Function(handler=node_list, kind=Kind.READS),
    "vmhostnode.delete": Function(handler=node_delete, kind=Kind.WRITES),
    "vmhostnode.edit": Function(handler=node_edit, kind=Kind.FORM),
}


def _node(node: Node) -> dict[str, object]:
    return {
        "id": node.id,
        "name": node.name,
        "address": node.address,
        "uri": node.uri,
        "vms": node.vms,
        "unreachable": iso(node.unreachable),
    }
