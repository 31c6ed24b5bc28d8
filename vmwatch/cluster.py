# SPDX-License-Identifier: Apache-2.0
"""Who runs where: one VM's copies on the cluster's nodes, and the status that follows from them. Pure.

Two nodes have no common order: of one migration, the target's `resumed(migrated)` may be heard before or
after the source's `stopped(migrated)`, or long after it. Letting the last one heard win ends wrong in half of
the interleavings. So each node's copy of a VM is followed by itself, in that node's own order, and the VM's
status is read from all of its copies together.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from vmwatch.events import CopyState, EventType, Status, effect


class Copy(NamedTuple):
    """A VM as one node has it.

    `order` counts the changes of the VM's copies as they were heard: of copies that are off, the last one to
    change speaks for the VM. `balance` is how often the VM was heard to leave this node by a migration, less
    how often it was heard to come: over all copies it is 0 when both ends of each have been heard.
    """

    state: CopyState
    order: int = 0
    balance: int = 0


class Placement(NamedTuple):
    """What the panel shows of a VM: its status, and the node that it is on (None: on none that is known)."""

    status: Status
    node: int | None


Copies = Mapping[int, Copy]
"""One VM's copies by node id."""

_SHOWN_AS = {
    CopyState.RUNNING: Status.RUNNING,
    CopyState.PAUSED: Status.PAUSED,
    CopyState.SLEEPING: Status.SLEEPING,
    CopyState.SAVED: Status.SAVED,
    CopyState.STOPPED: Status.STOPPED,
    CopyState.CRASHED: Status.CRASHED,
    CopyState.INCOMING: Status.MIGRATING,
    CopyState.LEAVING: Status.MIGRATING,
    CopyState.DEPARTED: Status.MIGRATING,
}
_ALIVE = (CopyState.SLEEPING, CopyState.PAUSED, CopyState.RUNNING)  # the later, the more it speaks for the VM
_LIVE = frozenset(_SHOWN_AS[state] for state in _ALIVE)
_LIVELINESS = {state: number for number, state in enumerate(_ALIVE, start=1)}
_OFF = (CopyState.STOPPED, CopyState.SAVED, CopyState.CRASHED)
_SETTLED = frozenset((*_ALIVE, *_OFF))
_UNDER_WAY = (CopyState.INCOMING, CopyState.LEAVING)
_RETOLD: Mapping[CopyState, tuple[str, str]] = {
    CopyState.RUNNING: (EventType.STARTED, "unknown"),
    CopyState.PAUSED: (EventType.SUSPENDED, "unknown"),
    CopyState.SLEEPING: (EventType.PMSUSPENDED, "unknown"),
    CopyState.SAVED: (EventType.STOPPED, "saved"),
    CopyState.STOPPED: (EventType.STOPPED, "unknown"),
    CopyState.CRASHED: (EventType.STOPPED, "crashed"),
    CopyState.DEPARTED: (EventType.STOPPED, "migrated"),
}


def place(copies: Copies) -> Placement:
    """The status that follows from all copies: a live one speaks for the VM, else the last that changed."""
    if len(copies) == 1:
        ((node, copy),) = copies.items()
        if copy.state is not CopyState.DEPARTED:
            return Placement(_SHOWN_AS[copy.state], node)
    # Where as many came as left, a copy that left went to one that has been heard.
    leavers_speak = _balance(copies) > 0
    speaking = [
        (_LIVELINESS.get(copy.state, 0), copy.order, -node)
        for node, copy in copies.items()
        if leavers_speak or copy.state is not CopyState.DEPARTED
    ]
    if not speaking:
        return Placement(status=Status.STOPPED, node=None)
    node = -max(speaking)[2]
    return Placement(status=_SHOWN_AS[copies[node].state], node=node)


def place_name(copies: Copies, namesakes: Iterable[Copies]) -> Placement:
    """The status of a name that several VMs have had: the panel knows VMs by name.

    `copies` are those of the VM that was just heard of. It speaks for the name, unless it is off and another one
    is alive: what ends late, or is found late, is a forerunner.
    """
    own = place(copies)
    if own.status in _LIVE:
        return own
    return next((place(other) for other in namesakes if is_alive(other)), own)


def is_alive(copies: Copies) -> bool:
    """Whether any copy runs, sleeps or is paused."""
    return any(copy.state in _ALIVE for copy in copies.values())


def apply(copies: Copies, node: int, event: str, detail: str) -> dict[int, Copy]:
    """The copies after libvirt on `node` told `event(detail)`, both in libvirt's words."""
    state = effect(event, detail)
    if state is None:
        return _define(copies, node) if event == EventType.DEFINED else dict(copies)
    if state is CopyState.GONE:
        return _undefine(copies, node)
    if _stays(copies, node, state, detail):
        return {node: Copy(state, copies[node].order + 1)}
    return _move(copies, node, state, detail)


def untold(kept: CopyState | None, known: CopyState | None) -> tuple[str, str] | None:
    """The event that corrects a kept copy which is not what its node knows; None when there is nothing to tell.

    For a ledger that has lost, or never had, what came before. Of migrations only the outcome is told.
    """
    if known in _ALIVE:
        return None if kept is known else _RETOLD[known]
    if kept in (*_ALIVE, *_UNDER_WAY) and known not in _UNDER_WAY:
        return _RETOLD[known or CopyState.STOPPED]
    if known in _OFF and kept in (None, *_OFF) and kept is not known:
        return _RETOLD[known]
    return None


def _stays(copies: Copies, node: int, state: CopyState, detail: str) -> bool:
    """Whether it is the VM's only copy, and no migration has to do with it.

    So are nearly all events. `_move` makes the same of them, in four times as long.
    """
    own = copies.get(node)
    return (
        own is not None
        and len(copies) == 1
        and state in _SETTLED
        and detail != "migrated"
        and not own.balance
        and own.state is not CopyState.INCOMING
    )


def _move(copies: Copies, node: int, state: CopyState, detail: str) -> dict[int, Copy]:
    if state in _UNDER_WAY:
        # Not last: its other end may have come, and even stopped, long before.
        return _change(copies, node, state, last=False)
    if state is CopyState.DEPARTED or (detail == "unknown" and _has_gone_elsewhere(copies, node, state)):
        state = CopyState.DEPARTED
        return _settle(_change(copies, node, state, balance=+1))
    if state in _ALIVE:
        came = _comes_by_migration(copies.get(node), detail)
        return _settle(_change(copies, node, state, balance=-1 if came else 0))
    return _end(copies, node, state)


def _balance(copies: Copies) -> int:
    return sum([copy.balance for copy in copies.values()])


def _change(
    copies: Copies, node: int, state: CopyState, *, balance: int = 0, last: bool = True
) -> dict[int, Copy]:
    own = copies.get(node)
    order, known = (own.order, own.balance) if own else (0, 0)
    if last:
        order = 1 + max([copy.order for copy in copies.values()], default=0)
    return {**copies, node: Copy(state=state, order=order, balance=known + balance)}


def _settle(copies: Copies) -> dict[int, Copy]:
    """Forget the migrations of which both ends have been heard, and the copies that left by them."""
    if _balance(copies):
        return dict(copies)
    return {
        node: copy._replace(balance=0) if copy.balance else copy
        for node, copy in copies.items()
        if copy.state is not CopyState.DEPARTED
    }


def _define(copies: Copies, node: int) -> dict[int, Copy]:
    # Not last: a definition left by a migration does not speak for a VM that is off elsewhere.
    return dict(copies) if node in copies else _change(copies, node, CopyState.STOPPED, last=False)


def _undefine(copies: Copies, node: int) -> dict[int, Copy]:
    own = copies.get(node)
    if own is None or own.state in (*_ALIVE, *_UNDER_WAY):
        return dict(copies)  # one that is alive became transient
    if own.balance:  # remembered for the other end of its migration, but no copy that speaks for the VM
        return {**copies, node: own._replace(state=CopyState.DEPARTED)}
    return _without(copies, node)


def _comes_by_migration(own: Copy | None, detail: str) -> bool:
    """Whether a copy that runs now (or is paused, as its source was) came by a migration."""
    if own is not None and own.state is CopyState.INCOMING:
        return True
    was_here = own is not None and own.state in (*_ALIVE, CopyState.LEAVING)
    return detail == "migrated" and not was_here  # else a migration from here was cancelled


def _has_gone_elsewhere(copies: Copies, node: int, state: CopyState) -> bool:
    """Whether a copy that a snapshot found off, for no known reason, is the source of one that came elsewhere."""
    own = copies.get(node)
    was_here = own is not None and own.state in (*_ALIVE, CopyState.LEAVING)
    return state is CopyState.STOPPED and was_here and _balance(_without(copies, node)) < 0


def _end(copies: Copies, node: int, state: CopyState) -> dict[int, Copy]:
    """The node's copy is off. What ends before it came was not the VM, unless nothing else is known."""
    own = copies.get(node)
    if own is None or own.state is not CopyState.INCOMING:
        return _change(copies, node, state)
    if own.balance:
        return _change(copies, node, CopyState.DEPARTED if own.balance > 0 else state, last=False)
    return _without(copies, node) or _change(copies, node, state)


def _without(copies: Copies, node: int) -> dict[int, Copy]:
    return {other: copy for other, copy in copies.items() if other != node}
