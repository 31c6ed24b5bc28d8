# SPDX-License-Identifier: Apache-2.0
"""What goes wrong. Each fault is one of `Bounds.faults`; what follows it (a restart, a new session) is not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.model.checker import Step
from tests.model.master import by_content, committed
from tests.model.node import replaced
from tests.model.setup import Fault, Setup
from tests.model.world import Host, Label, Ledger, Message, Outbox, Record, World
from vmwatch.protocol import Kind

if TYPE_CHECKING:
    from collections.abc import Iterator


def steps(setup: Setup, world: World) -> Iterator[Step[World]]:
    """Every fault that may happen now."""
    yield from _copies_made(setup, world)
    if not world.outside.faults:
        return
    before = world
    world = world._replace(outside=world.outside._replace(faults=world.outside.faults - 1))
    for fault, after, how in _outcomes(setup, world):
        if fault in setup.bounds.may and after != before:
            yield Step(f"{fault.upper()}{how}", after, progress=False)


_Outcome = tuple[Fault, World, str]


def _outcomes(setup: Setup, world: World) -> Iterator[_Outcome]:
    for number, host in enumerate(world.hosts):
        if host.here:
            yield from _at_host(setup, world, number, host)
    yield from _at_master(setup, world)
    if not world.hosts[-1].here:
        yield from _second_host(world)


def _at_host(setup: Setup, world: World, number: int, host: Host) -> Iterator[_Outcome]:
    which = f" at host {number + 1}" if len(world.hosts) > 1 else ""
    process = host.process
    if process is not None:
        wire = process.session.wire if process.session else ()
        dead = host._replace(process=None)
        without = host._replace(process=process._replace(session=None))
        for left, how in _left_under_way(setup, world, wire):
            if process.session:
                yield Fault.BREAK, replaced(left, number, without), which + how
            yield Fault.NODE_KILLED, replaced(left, number, dead), which + how
        yield from _dropped(world, number, host, which)
    harmed, lost = _harm(world, Fault.OUTBOX_LOST), host._replace(process=None, outbox=Outbox())
    yield Fault.OUTBOX_LOST, replaced(_excused(harmed, lost), number, lost), which
    if Fault.CLOCK_BACK not in world.outside.harm:  # the second time, runs here would get ids that were given
        harmed = _harm(world, Fault.CLOCK_BACK)
        early = harmed._replace(outside=harmed.outside._replace(clock=0))
        yield Fault.CLOCK_BACK, replaced(_excused(early, lost), number, lost), which
    if (older := world.outside.outbox_copy) is not None:
        harmed, back = _harm(world, Fault.OUTBOX_ROLLED_BACK), host._replace(process=None, outbox=older)
        excused = _excused(harmed, back)
        used = excused._replace(outside=excused.outside._replace(outbox_copy=None))
        yield Fault.OUTBOX_ROLLED_BACK, replaced(used, number, back), which


def _left_under_way(setup: Setup, world: World, wire: tuple[Message, ...]) -> Iterator[tuple[World, str]]:
    """What was under way arrives much later, or a part of it, or nothing."""
    yield world, ""
    if len(world.late) < setup.bounds.late:
        for count in range(1, len(wire) + 1):
            yield world._replace(late=by_content([*world.late, wire[:count]])), f", {count} still under way"


def _dropped(world: World, number: int, host: Host, which: str) -> Iterator[_Outcome]:
    """The oldest event goes; in its place, with the last number that went, stands a gap."""
    records = host.outbox.records
    place = next((n for n, record in enumerate(records) if record.message.kind is Kind.EVENT), None)
    if place is None:
        return
    span, start = 1, place
    gone, before = records[place], records[place - 1].message
    if place and before.kind is Kind.GAP and before.run == gone.message.run:
        span, start = 1 + before.span, place - 1
    message = Message(Kind.GAP, gone.message.run, gone.message.seq, span, span)
    left = (*records[:start], Record(gone.id, message), *records[place + 1 :])
    changed = host._replace(outbox=host.outbox._replace(records=left))
    yield Fault.DROPPED, replaced(_harm(world, Fault.DROPPED), number, changed), which


def _at_master(setup: Setup, world: World) -> Iterator[_Outcome]:
    if world.master.batch is None:
        return
    closed = _closed(world)
    dead = closed._replace(master=closed.master._replace(batch=None))
    yield Fault.MASTER_KILLED, dead, ""
    if world.master.batch:
        failed = closed if setup.rules.closes else world
        yield Fault.COMMIT_FAILED, failed._replace(master=failed.master._replace(batch=())), ""
        if not setup.rules.one_commit:
            yield Fault.MASTER_KILLED, _half_committed(setup, world, dead), ", between position and calls"
    lost = _harm(dead, Fault.LEDGER_LOST)
    yield Fault.LEDGER_LOST, lost._replace(master=lost.master._replace(ledger=Ledger())), ""
    if (older := world.outside.ledger_copy) is not None:
        back = _harm(dead, Fault.LEDGER_ROLLED_BACK)
        back = back._replace(outside=back.outside._replace(ledger_copy=None))
        yield Fault.LEDGER_ROLLED_BACK, back._replace(master=back.master._replace(ledger=older)), ""


def _half_committed(setup: Setup, world: World, dead: World) -> World:
    position = committed(setup, world).master.ledger.position
    ledger = dead.master.ledger._replace(position=position)
    return dead._replace(master=dead.master._replace(ledger=ledger))


def _closed(world: World) -> World:
    """The master's socket is gone, and with it all that was under way: nodes see it."""
    hosts = tuple(
        host._replace(process=host.process and host.process._replace(session=None)) for host in world.hosts
    )
    return world._replace(hosts=hosts, late=())


def _second_host(world: World) -> Iterator[_Outcome]:
    first, absent = world.hosts
    twin = _harm(world, Fault.TWIN)
    yield Fault.TWIN, replaced(twin, 1, absent._replace(here=True)), ""
    clone = _harm(world, Fault.CLONED)
    yield Fault.CLONED, replaced(clone, 1, absent._replace(here=True, outbox=first.outbox)), ""


def _copies_made(setup: Setup, world: World) -> Iterator[Step[World]]:
    """A copy is made of a file, for a rollback to come."""
    outside = world.outside
    if Fault.OUTBOX_ROLLED_BACK in setup.bounds.may and outside.outbox_copy is None and outside.faults:
        copied = outside._replace(outbox_copy=world.hosts[0].outbox)
        yield Step("a copy of the outbox is made", world._replace(outside=copied), progress=False)
    if Fault.LEDGER_ROLLED_BACK in setup.bounds.may and outside.ledger_copy is None and outside.faults:
        copied = outside._replace(ledger_copy=world.master.ledger)
        yield Step("a copy of the ledger is made", world._replace(outside=copied), progress=False)


def _harm(world: World, fault: Fault) -> World:
    """The world, in which something was harmed: so a problem may be told, and a loss."""
    return world._replace(outside=world.outside._replace(harm=world.outside.harm | {fault}))


def _excused(world: World, after: Host) -> World:
    """What no master can notice: events that went with the file, if what is left has all that the master heard."""
    place, records = world.master.ledger.position, after.outbox.records
    left = {Label(record.message.run, record.message.seq) for record in records}
    if place is not None and not (left and (place.run, place.seq) <= max(left)):
        return world
    heard = () if place is None else ((place.run, place.seq), *place.ended)
    lost = {
        label
        for host in world.hosts
        for _, label in host.committed
        if label not in left and not any(run == label.run and label.seq <= seq for run, seq in heard)
    }
    return world._replace(outside=world.outside._replace(excused=world.outside.excused | lost))
