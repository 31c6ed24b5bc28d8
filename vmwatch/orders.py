# SPDX-License-Identifier: Apache-2.0
"""What an operator has the master forget: calls that were put aside, a node that is gone for good.

An order is an empty file in the master's `state_dir`, whose name says it all. The master alone writes its ledger, of
which it has much in memory: so it carries the order out, in one transaction, and then removes the file. Killed in
between, it does so once more, and finds nothing left to forget.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from vmwatch import calls, cluster, problems
from vmwatch.errors import StorageError
from vmwatch.protocol import new_run

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from vmwatch.ledger import Ledger, Transaction
    from vmwatch.presence import Presence

_FILE: Final = re.compile(r"order-(forget-node|forget-aside)-([1-9][0-9]{0,9})", re.ASCII)
_VM: Final = "vm "  # what the keys of a VM's calls begin with
_AT_ONCE: Final = 32  # orders in a commit, for which everything else waits

log = logging.getLogger(__name__)


class What(StrEnum):
    """What is to be forgotten."""

    NODE = "forget-node"
    """`number`: the node's id."""
    ASIDE = "forget-aside"
    """`number`: of the calls put aside, the last one that is to be forgotten."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One order."""

    what: What
    number: int

    def file(self, folder: Path) -> Path:
        """Where it lies, until it is carried out."""
        return folder / f"order-{self.what}-{self.number}"


def give(folder: Path, order: Order) -> Path:
    """Lay the order into the master's `state_dir`. Raises StorageError."""
    file = order.file(folder)
    try:
        file.touch()
    except OSError as error:
        raise StorageError(f"{file}: {error.strerror}") from None
    return file


def carry_out(folder: Path, ledger: Ledger, presence: Presence, *, now: datetime) -> bool:
    """Carry out the orders that lie there, some at a time. Whether there were any. Raises StorageError."""
    lying = _lying_in(folder)[:_AT_ONCE]
    if not lying:
        return False
    with ledger.transaction() as transaction:
        forgotten = [order.number for order in lying if _forget(transaction, ledger, order, now=now)]
    for node in forgotten:
        presence.forget(node)
    for order in lying:
        _remove(order.file(folder))
    return True


def _lying_in(folder: Path) -> list[Order]:
    try:
        names = sorted(file.name for file in folder.glob("order-*") if file.is_file())
    except OSError as error:  # such as no descriptor left
        raise StorageError(f"{folder}: {error.strerror}") from None
    matches = [match for name in names if (match := _FILE.fullmatch(name))]
    return [Order(what=What(match[1]), number=int(match[2])) for match in matches]


def _remove(file: Path) -> None:
    try:
        file.unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(f"{file}: {error.strerror}") from None


def _forget(transaction: Transaction, ledger: Ledger, order: Order, *, now: datetime) -> bool:
    """Whether a node is forgotten."""
    if order.what is What.NODE:
        return _forget_node(transaction, ledger, order.number, now=now)
    _forget_aside(transaction, up_to=order.number)
    return False


def _forget_aside(transaction: Transaction, *, up_to: int) -> None:
    keys = transaction.forget_aside(up_to)
    log.info("calls put aside are forgotten, as ordered: count=%d", len(keys))
    for name in {key.removeprefix(_VM) for key in keys if key.startswith(_VM)}:
        for problem in ("vm_unknown", "call_refused"):
            problems.end(transaction, problem, None, name=name)


def _forget_node(transaction: Transaction, ledger: Ledger, node: int, *, now: datetime) -> bool:
    """A node that is silent. One that speaks would be heard again only in its next session: it is kept, False."""
    if not problems.is_raised(ledger, "node_silent", node):
        log.warning("a node that is not silent is not forgotten: node=%d", node)
        return False
    log.info("node forgotten, as ordered: node=%d", node)
    position = transaction.position(node)
    # Newer than any of the node's, for the panel too, though the clock was set back.
    run = new_run(int(now.timestamp() * 1e6), node, after=position.run if position else None)
    for seq, (uuid, (name, _)) in enumerate(sorted(transaction.vms_on(node).items()), start=1):
        _forget_copy(transaction, uuid, name, node, event_id=f"{node}.{run}.{seq}", now=now)
    for name in problems.raised_of_vms(ledger, "vm_not_responding", node):
        problems.end(transaction, "vm_not_responding", node, name=name)
    for problem in ("call_refused", "libvirt_lost", "node_silent"):  # that one last: it hides what was there
        problems.end(transaction, problem, node)
    transaction.forget_node(node)
    return True


def _forget_copy(
    transaction: Transaction, uuid: str, name: str, node: int, *, event_id: str, now: datetime
) -> None:
    """The node is gone, and with it what it ran: told as what nobody saw, unless the VM lives elsewhere."""
    before = transaction.copies(uuid)
    rest = {other: copy for other, copy in before.items() if other != node}
    transaction.keep_copies(uuid, name, rest)
    told = cluster.untold(before[node].state, None)
    if told is None or cluster.is_alive(rest):
        return
    fields = calls.event_fields(
        hostnode=node,
        name=name,
        type=told[0],
        subtype=told[1],
        uuid=uuid,
        time=now,
        event_id=event_id,
        status=cluster.place(rest).status,
        source="snapshot",
    )
    transaction.enqueue(f"{_VM}{name}", "vm.event", fields)
