# SPDX-License-Identifier: Apache-2.0
"""The node: outbox, runs, sessions (outbox.py, session.py, recorder.py), and the events of its libvirt."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.model.checker import Step
from tests.model.setup import Fault, Setup
from tests.model.world import Change, Host, Label, Link, Message, Outbox, Process, Record, Session, World, put
from vmwatch.events import CopyState, EventType, effect
from vmwatch.protocol import Kind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.model.world import States

_NEXT = {
    None: (EventType.STARTED, "booted"),
    CopyState.STOPPED: (EventType.STARTED, "booted"),
    CopyState.RUNNING: (EventType.SUSPENDED, "paused"),
    CopyState.PAUSED: (EventType.STOPPED, "destroyed"),
}
"""What a VM does next: three states, so that missing one, or two, shows."""

_HELLO: States = ()  # the body of a hello: None would be one that cannot be read

_FOUND = {
    CopyState.RUNNING: (EventType.STARTED, "unknown"),
    CopyState.PAUSED: (EventType.SUSPENDED, "unknown"),
    CopyState.STOPPED: (EventType.STOPPED, "unknown"),
}


def steps(setup: Setup, world: World) -> Iterator[Step[World]]:
    """What nodes do, and what happens to their VMs."""
    for number, host in enumerate(world.hosts):
        if host.here:
            yield from _host_steps(setup, world, number, host)


def replaced(world: World, number: int, host: Host) -> World:
    """The world with this host changed."""
    hosts = (*world.hosts[:number], host, *world.hosts[number + 1 :])
    return world._replace(hosts=hosts)


def window_before(setup: Setup, outbox: Outbox, sent: int) -> int:
    """`Outbox.window_before`: the id before the last records up to `sent`, as many as the window has."""
    ids = [record.id for record in outbox.records if record.id <= sent]
    return ids[-setup.window - 1] if len(ids) > setup.window else 0


def _host_steps(setup: Setup, world: World, number: int, host: Host) -> Iterator[Step[World]]:
    name = f"node {number + 1}" if len(world.hosts) > 1 else "node"
    if host.process is None:
        yield Step(f"{name} starts", _start(world, number, host), progress=True)
        if Fault.UNREADABLE in setup.bounds.may and world.outside.faults:
            started = _start(_unreadable(world), number, host, readable=False)
            yield Step(f"{name} starts, its begin unreadable", started, progress=False)
        return
    yield from _events(setup, world, number, host, name)
    session = host.process.session
    if session is None:
        if world.master.batch is not None:
            yield Step(f"{name} says hello", _connect(setup, world, number, host, _HELLO), progress=True)
            if Fault.UNREADABLE in setup.bounds.may and world.outside.faults:
                said = _connect(setup, _unreadable(world), number, host, None)
                yield Step(f"{name} says hello, unreadable", said, progress=False)
        return
    if len(session.wire) < setup.bounds.in_flight:
        yield from _send(setup, world, number, host, name)
    kept = window_before(setup, host.outbox, host.process.sent)
    if host.outbox.records[0].id <= kept:
        changed = replaced(world, number, forgotten(host, kept))
        yield Step(f"{name} forgets up to {kept}", changed, progress=False)


def forgotten(host: Host, up_to: int) -> Host:
    """`Outbox.forget`."""
    left = tuple(record for record in host.outbox.records if record.id > up_to)
    return host._replace(outbox=host.outbox._replace(records=left))


def _unreadable(world: World) -> World:
    outside = world.outside
    return world._replace(
        outside=outside._replace(faults=outside.faults - 1, harm=outside.harm | {Fault.UNREADABLE})
    )


def _start(world: World, number: int, host: Host, *, readable: bool = True) -> World:
    """A new run, and what no event told: libvirt's list compared with the known set."""
    outside = world.outside._replace(clock=world.outside.clock + 1)
    run = str(outside.clock)
    outbox = host.outbox
    last = max((r.message.seq for r in outbox.records if r.message.run == outbox.run), default=None)
    begin = Message(Kind.BEGIN, run, 0, Link(outbox.run, last) if readable else None)
    host = host._replace(outbox=_appended(outbox, begin)._replace(run=run), process=Process())
    for vm, state in host.truth:
        if dict(outbox.known).get(vm) != state:
            host = _kept(host, Change(vm, *_FOUND[state]))
    return replaced(world._replace(outside=outside), number, host)


def _appended(outbox: Outbox, message: Message) -> Outbox:
    identifier = outbox.records[-1].id + 1 if outbox.records else 1
    return outbox._replace(records=(*outbox.records, Record(identifier, message)))


def _kept(host: Host, change: Change, *, readable: bool = True) -> Host:
    """`Outbox.append`: the record and what it makes known, in one commit."""
    run = host.outbox.run
    assert run is not None
    seq = 1 + max((r.message.seq for r in host.outbox.records if r.message.run == run), default=0)
    body = change if readable else None
    outbox = _appended(host.outbox, Message(Kind.EVENT, run, seq, body))
    known = put(outbox.known, change.vm, effect(change.type, change.subtype))
    committed = (*host.committed, (change.vm, Label(run, seq)))
    return host._replace(outbox=outbox._replace(known=known), committed=committed)


def _events(setup: Setup, world: World, number: int, host: Host, name: str) -> Iterator[Step[World]]:
    outside = world.outside
    if not outside.events:
        return
    fewer = world._replace(outside=outside._replace(events=outside.events - 1))
    for vm in setup.bounds.vms:
        change = Change(vm, *_NEXT[dict(host.truth).get(vm)])
        after = host._replace(truth=put(host.truth, vm, effect(change.type, change.subtype)))
        kept = _kept(after, change)
        yield Step(
            f"{name} keeps {_said(kept)}: {vm} {change.type}", replaced(fewer, number, kept), progress=False
        )
        if Fault.UNREADABLE in setup.bounds.may and outside.faults:
            kept = _kept(after, change, readable=False)
            harmed = _unreadable(fewer)
            yield Step(
                f"{name} keeps {_said(kept)}, unreadable", replaced(harmed, number, kept), progress=False
            )
    if setup.rules.statistics_numbered:
        run, top = host.outbox.run or "", host.outbox.records[-1].message.seq
        records = tuple(
            record for record in host.outbox.records if record.message.kind is not Kind.STATISTICS
        )
        outbox = _appended(
            host.outbox._replace(records=records), Message(Kind.STATISTICS, run, top + 1, None)
        )
        changed = replaced(fewer, number, host._replace(outbox=outbox))
        yield Step(f"{name} keeps statistics {run}.{top + 1}", changed, progress=False)


def _said(host: Host) -> str:
    _, label = host.committed[-1]
    return f"{label.run}.{label.seq}"


def _connect(setup: Setup, world: World, number: int, host: Host, body: States | None) -> World:
    """A session begins: `Stream._greeting`, from the window back."""
    process = host.process
    assert process is not None
    cursor = window_before(setup, host.outbox, process.sent)
    if setup.rules.forgets_first:
        host = forgotten(host, cursor)
    first = next(record for record in host.outbox.records if record.id > cursor).message
    hello = Message(Kind.HELLO, first.run, first.seq - first.span + 1, body)
    session = Session(cursor=cursor, wire=(hello,))
    return replaced(world, number, host._replace(process=process._replace(session=session)))


def _send(setup: Setup, world: World, number: int, host: Host, name: str) -> Iterator[Step[World]]:
    """`Stream._speak`: the next record, or, when there is none and once, the known set."""
    process, outbox = host.process, host.outbox
    assert process is not None
    assert process.session is not None
    session = process.session
    record = next((record for record in outbox.records if record.id > session.cursor), None)
    if record is not None:
        message = record.message
        session = session._replace(cursor=record.id)
        process = process._replace(sent=max(process.sent, record.id))
    elif not session.known_told or (setup.rules.known_again and session.known_told < session.cursor):
        last = outbox.records[-1].message
        message = Message(Kind.KNOWN, last.run, last.seq, outbox.known)
        session = session._replace(known_told=session.cursor)
    else:
        return
    session = session._replace(wire=(*session.wire, message))
    changed = host._replace(process=process._replace(session=session))
    said = f"{name} sends {message.kind.name.lower()} {message.run}.{message.seq}"
    yield Step(said, replaced(world, number, changed), progress=True)
