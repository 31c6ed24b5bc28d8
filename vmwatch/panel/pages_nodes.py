# SPDX-License-Identifier: Apache-2.0
"""The pages of the cluster nodes: how their services and the master are; add, change, configure, remove."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from vmwatch.panel import forms, shown_nodes, shown_services
from vmwatch.panel.forms import Field, Form
from vmwatch.panel.lists import Links, Pager, page_number
from vmwatch.panel.shown_services import MASTER

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.responses import Response
    from starlette.routing import Route

    from vmwatch.panel.shown_nodes import Node
    from vmwatch.panel.shown_services import Service
    from vmwatch.panel.site import Site, Visit
    from vmwatch.panel.views import Content

PAGE: Final = 100  # rows of a list

_NAME = Field(name="name", label="Name")
_ADDRESS = Field(
    name="address",
    label="Address",
    required=False,
    hint="[USER@]HOST, where SSH reaches the node. Empty: it is the panel's own host.",
    attributes={"autocapitalize": "none", "spellcheck": "false"},
)
_URI = Field(
    name="uri",
    label="libvirt's URI",
    required=False,
    hint="As the panel reaches it. Empty: qemu+ssh:// to the address, or qemu:///system here.",
    attributes={"autocapitalize": "none", "spellcheck": "false"},
)
_NUMBER = Field(
    name="elid",
    label="Number",
    kind="number",
    hint="The node's id in the cluster: a positive integer that no other node has.",
    attributes={"min": "1", "inputmode": "numeric"},
)
_ADD = Form(
    title="Add a node",
    func="vmhostnode.edit",
    fixed={"sok": "ok"},
    button="Add",
    fields=(_NUMBER, _NAME, _ADDRESS, _URI),
    back="/nodes",
    back_word="All nodes",
    here="nodes",
    text="Its vmwatch-node is configured and started at once.",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeRow:
    """A node, its service (None: the panel does not manage it), and how the master was with it when last looked at.

    `lag`: so many records behind; `heard`: its last heartbeat, in milliseconds since 1970. None: not known.
    """

    id: int
    node: Node
    service: Service | None
    lag: int | None
    heard: int | None


class NodePages:
    """`/nodes` and below."""

    def __init__(self, site: Site) -> None:
        """`site` frames them."""
        self._site = site
        self._connection = site.panel.store.connection

    def routes(self) -> list[Route]:
        """For the application."""
        site = self._site
        return [
            site.shows("/nodes", self.list_page),
            site.takes("/nodes/configure", self.configure),
            site.shows("/nodes/add", lambda visit: forms.show(site, visit, _ADD, {})),
            site.takes("/nodes/add", self.add),
            site.shows("/nodes/{id:int}", self.edit_page),
            site.takes("/nodes/{id:int}", self.edit),
            site.takes("/nodes/{id:int}/configure", self.configure),
            site.shows("/nodes/{id:int}/remove", self.remove_page),
            site.takes("/nodes/{id:int}/remove", self.remove),
        ]

    def list_page(self, visit: Visit) -> Response:
        """`/nodes`: the master, and the nodes by number. Query: page."""
        return self._site.page(visit, "nodes.html", self.list_content(visit.query), here="nodes")

    def list_content(self, query: Mapping[str, str]) -> Content:
        """The master's state, and one page of the nodes."""
        total = shown_nodes.count_nodes(self._connection)
        pager = Pager(number=page_number(query), size=PAGE, total=total)
        services = {service.hostnode: service for service in shown_services.services(self._connection)}
        master = services.get(MASTER)
        rows = [
            NodeRow(
                id=node.id,
                node=node,
                service=(own := services.get(node.id)),
                lag=lag(own, master),
                heard=heard(node.id, master),
            )
            for node in shown_nodes.nodes(self._connection, pager.paging)
        ]
        leaving = [service for service in services.values() if service.removed]
        return self._site.content(
            context={
                "master": master,
                "leaving": leaving,
                "pager": pager,
                "link": Links(path="/nodes", query={}),
                "empty": "No node yet.",
                "managed": self._site.panel.services.managed,
            },
            parts={"master": (master, leaving), "pager": pager},
            row="node",
            rows=rows,
        )

    async def configure(self, visit: Visit) -> Response:
        """Configure one node, or everything; `secret=new`: with another secret."""
        values = {"secret": visit.form.get("secret", "")}
        if "id" in visit.path:
            values["elid"] = str(visit.path["id"])
        return await forms.act(self._site, visit, "vmwatch.configure", values, "/nodes?done=configured")

    async def add(self, visit: Visit) -> Response:
        """What the form to add a node sends."""
        number = visit.form.get("elid", "")
        twin = shown_nodes.node(self._connection, int(number)) if number.isdecimal() else None
        if twin:
            return forms.refuse(
                self._site, visit, _ADD, "elid", f"This number is taken, by node '{twin.name}'"
            )
        return await forms.submit(self._site, visit, _ADD, "/nodes?done=saved")

    def edit_page(self, visit: Visit) -> Response:
        """`/nodes/ID`: the form to change a node."""
        node = shown_nodes.node(self._connection, visit.path["id"])
        if node is None:
            return self._missing(visit)
        values = {"name": node.name, "address": node.address, "uri": node.uri}
        return forms.show(self._site, visit, _edit(node), values)

    async def edit(self, visit: Visit) -> Response:
        """What that form sends."""
        node = shown_nodes.node(self._connection, visit.path["id"])
        if node is None:
            return self._missing(visit)
        return await forms.submit(self._site, visit, _edit(node), "/nodes?done=saved")

    def remove_page(self, visit: Visit) -> Response:
        """`/nodes/ID/remove`: whether the node is really to be removed."""
        node = shown_nodes.node(self._connection, visit.path["id"])
        return forms.show(self._site, visit, _remove(node), {}) if node else self._missing(visit)

    async def remove(self, visit: Visit) -> Response:
        """What that form sends."""
        node = shown_nodes.node(self._connection, visit.path["id"])
        if node is None:
            return self._missing(visit)
        return await forms.submit(self._site, visit, _remove(node), "/nodes?done=removed")

    def _missing(self, visit: Visit) -> Response:
        return self._site.missing(visit, what="node", name=str(visit.path["id"]), back="/nodes", here="nodes")


def lag(node: Service | None, master: Service | None) -> int | None:
    """How many of the node's records the master had not taken when both were last looked at; None: not known.

    Only within one run of the node's service: what another run has left over, nobody counts.
    """
    if node is None or master is None:
        return None
    own, taken = node.report.state, master.report.state.get("nodes") or ()
    mine = [each for each in taken if (each["node"], each["run"]) == (node.hostnode, own.get("run"))]
    return max(0, own["last"] - mine[0]["last"]) if mine else None


def heard(node: int, master: Service | None) -> int | None:
    """When the master had heard the node last, as it was last looked at; None: not known."""
    taken = (master.report.state.get("nodes") or ()) if master else ()
    return next((each["heard"] for each in taken if each["node"] == node), None)


def _edit(node: Node) -> Form:
    return Form(
        title=f"Node {node.name}",
        func="vmhostnode.edit",
        fixed={"elid": str(node.id), "sok": "ok"},
        button="Save",
        fields=(_NAME, _ADDRESS, _URI),
        back="/nodes",
        back_word="All nodes",
        here="nodes",
        text="With another address its service is configured anew.",
    )


def _remove(node: Node) -> Form:
    return Form(
        title=f"Remove node {node.name}?",
        func="vmhostnode.delete",
        fixed={"elid": str(node.id)},
        button="Remove",
        back="/nodes",
        back_word="All nodes",
        here="nodes",
        danger=True,
        text="Its vmwatch-node is blocked, and the master forgets it. Histories keep its name."
        " While VMs run on it, it cannot be removed.",
    )
