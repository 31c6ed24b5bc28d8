# SPDX-License-Identifier: Apache-2.0
"""What is read of installations: how far each is, its templates, and what is to be done at which node."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vmwatch.panel import installation
from vmwatch.panel.installation import Action

if TYPE_CHECKING:
    import sqlite3

    from vmwatch.panel.convention import Paging


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """How an operating system is installed: see the table `osmgr`. `timelimit` in seconds."""

    id: int
    name: str
    rebootcount: int
    timelimit: int
    medium: str
    kernel: str
    initrd: str
    cmdline: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownInstallation:
    """One that goes on. Times in milliseconds since 1970.

    `waits`: for a person, and why, in words; None: it goes on. `guessed`: how many reboots were counted though
    nobody knows the cause of the stop. `action` is what is being done at the node, `error` why it failed last.
    """

    vm: int
    osmgr: int
    template: str
    steps: int
    remaining: int
    began: int
    since: int
    deadline: int
    waits: str | None
    guessed: int
    action: str | None
    error: str | None

    @property
    def step(self) -> int:
        """Which reboot is waited for, from 1; one more than `steps`: none, it boots from its disk."""
        return self.steps - self.remaining + 1

    @property
    def reason(self) -> str:
        """Why it waits, in words for people; "": it goes on."""
        return installation.describe(self.waits) if self.waits else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Intent:
    """What is to be done at a node's libvirt. `hostnode` None: the VM is on no node that is known.

    `unreachable`: nothing is known of that node now, and a person knows that. Medium and kernel: of the template.
    """

    id: int
    action: Action
    name: str
    hostnode: int | None
    address: str
    uri: str
    unreachable: bool
    created: int
    medium: str
    kernel: str
    initrd: str
    cmdline: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Unheard:
    """A VM that the panel has started, of which nothing has been heard since, and where it is."""

    vm: int
    name: str
    address: str
    uri: str


_INSTALLATION = (
    "SELECT installation.vm, osmgr, osmgr.name AS template, steps, remaining, began, since, deadline, waits, guessed,"
    " action, error FROM installation JOIN osmgr ON osmgr.id = osmgr LEFT JOIN intent ON intent.vm = installation.vm "
)
_TEMPLATE = "SELECT id, name, rebootcount, timelimit, medium, kernel, initrd, cmdline FROM osmgr "
_INTENT = (
    "SELECT intent.id, action, vm.name, vm.hostnode, ifnull(address, '') AS address, ifnull(uri, '') AS uri,"
    " unreachable.since IS NOT NULL AS unreachable, created, ifnull(medium, '') AS medium,"
    " ifnull(kernel, '') AS kernel, ifnull(initrd, '') AS initrd, ifnull(cmdline, '') AS cmdline"
    " FROM intent JOIN vm ON vm.id = intent.vm LEFT JOIN hostnode ON hostnode.id = vm.hostnode"
    " LEFT JOIN unreachable ON unreachable.hostnode = vm.hostnode"
    " LEFT JOIN installation ON installation.vm = intent.vm LEFT JOIN osmgr ON osmgr.id = osmgr"
    " ORDER BY intent.id"
)


_UNHEARD = (
    "SELECT vm.id AS vm, vm.name, address, uri FROM installation JOIN vm ON vm.id = installation.vm"
    " JOIN hostnode ON hostnode.id = vm.hostnode"
    " WHERE NOT heard AND waits IS NULL AND started < ? AND vm.id NOT IN (SELECT vm FROM intent)"
)


def of_vm(connection: sqlite3.Connection, vm: int) -> ShownInstallation | None:
    """The installation of a VM; None: it is not being installed."""
    row = connection.execute(_INSTALLATION + "WHERE installation.vm = ?", (vm,)).fetchone()
    return ShownInstallation(**row) if row else None


def all_by_vm(connection: sqlite3.Connection) -> dict[int, ShownInstallation]:
    """All installations that go on, by the VM's id: there are never many."""
    return {row["vm"]: ShownInstallation(**row) for row in connection.execute(_INSTALLATION)}


def templates(connection: sqlite3.Connection, paging: Paging) -> list[Template]:
    """A page of the templates, by name."""
    rows = connection.execute(_TEMPLATE + "ORDER BY name LIMIT ? OFFSET ?", (paging.size, paging.offset))
    return [Template(**row) for row in rows]


def count_templates(connection: sqlite3.Connection) -> int:
    """How many templates there are."""
    return int(connection.execute("SELECT count(*) FROM osmgr").fetchone()[0])


def template(connection: sqlite3.Connection, osmgr: int) -> Template | None:
    """One template."""
    row = connection.execute(_TEMPLATE + "WHERE id = ?", (osmgr,)).fetchone()
    return Template(**row) if row else None


def has_intents(connection: sqlite3.Connection) -> bool:
    """Whether anything is to be done."""
    return connection.execute("SELECT 1 FROM intent LIMIT 1").fetchone() is not None


def open_intents(connection: sqlite3.Connection) -> list[Intent]:
    """All that is to be done, the oldest first."""
    return [
        Intent(**{**row, "action": Action(row["action"]), "unreachable": bool(row["unreachable"])})
        for row in connection.execute(_INTENT)
    ]


def unheard(connection: sqlite3.Connection, *, before: int) -> list[Unheard]:
    """The VMs that were started before this moment, and not heard of since."""
    return [Unheard(**row) for row in connection.execute(_UNHEARD, (before,))]


def next_deadline(connection: sqlite3.Connection) -> int | None:
    """When the next time limit ends; None: nothing is being installed, or all of them wait."""
    query = "SELECT min(deadline) FROM installation WHERE waits IS NULL"
    deadline: int | None = connection.execute(query).fetchone()[0]
    return deadline
