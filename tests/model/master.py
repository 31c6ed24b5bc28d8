# SPDX-License-Identifier: Apache-2.0
"""The master: takes what arrives, in batches of one commit (link.py, intake.py, ledger.py).

What a message means is decided by `vmwatch.sequence` and `vmwatch.cluster` themselves.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, cast

from tests.model.checker import Step
from tests.model.setup import Fault
from tests.model.world import (
    NODE,
    Call,
    Change,
    Label,
    Ledger,
    Link,
    Master,
    Message,
    Outside,
    Place,
    States,
    World,
    put,
)
from vmwatch import cluster, messages
from vmwatch.cluster import Copy
from vmwatch.protocol import Envelope, Kind, Run
from vmwatch.sequence import Anomaly, Position

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.model.setup import Rules, Setup
    from vmwatch.events import CopyState

_RECORDS = (Kind.BEGIN, Kind.EVENT, Kind.GAP)
_TIME = datetime(2000, 1, 1, tzinfo=UTC)


def steps(setup: Setup, world: World) -> Iterator[Step[World]]:
    """What the master does; the panel's part is in `panel`."""
    batch = world.master.batch
    if batch is None:
        yield Step("master starts", world._replace(master=world.master._replace(batch=())), progress=True)
        return
    if len(batch) < setup.bounds.batch:
        yield from _arrivals(world, batch)
    if batch:
        yield Step("master commits", committed(setup, world), progress=True)


def _arrivals(world: World, batch: tuple[Message, ...]) -> Iterator[Step[World]]:
    for number, host in enumerate(world.hosts):
        if host.process and (session := host.process.session) and session.wire:
            message, *rest = session.wire
            process = host.process._replace(session=session._replace(wire=tuple(rest)))
            hosts = (*world.hosts[:number], host._replace(process=process), *world.hosts[number + 1 :])
            after = world._replace(hosts=hosts, master=world.master._replace(batch=(*batch, message)))
            yield Step(f"master receives {_said(message)}", after, progress=True)
    for number, wire in enumerate(world.late):
        message, *rest = wire
        late = [*world.late[:number], *world.late[number + 1 :], *([tuple(rest)] if rest else [])]
        after = world._replace(late=by_content(late), master=world.master._replace(batch=(*batch, message)))
        yield Step(f"master receives {_said(message)}, late", after, progress=True)


def _said(message: Message) -> str:
    return f"{message.kind.name.lower()} {message.run}.{message.seq}"


def by_content(late: list[tuple[Message, ...]]) -> tuple[tuple[Message, ...], ...]:
    """Dead sessions in an order that does not tell which was first: their states are one."""
    return tuple(
        sorted(late, key=lambda wire: [(message.run, message.seq, message.kind) for message in wire])
    )


def committed(setup: Setup, world: World) -> World:
    """`Intake.accept`: the batch applied and kept, all of it in one commit."""
    ledger, outside = world.master.ledger, world.outside
    for message in world.master.batch or ():
        ledger, outside = _taken(setup.rules, world, ledger, outside, message)
    return world._replace(master=Master(ledger=ledger, batch=()), outside=outside)


def _taken(
    rules: Rules, world: World, ledger: Ledger, outside: Outside, message: Message
) -> tuple[Ledger, Outside]:
    """`Intake._take`."""
    if message.kind is Kind.HELLO:
        if message.body is None and not rules.hello_by_envelope:
            return ledger, outside
        return _followed(rules, world, ledger, outside, message)[1:]
    if message.kind is Kind.KNOWN:
        return _compared(rules, ledger, message), outside
    take, ledger, outside = _followed(rules, world, ledger, outside, message)
    label, body = Label(message.run, message.seq), message.body
    if take and isinstance(body, Change):
        ledger = _applied(ledger, body.vm, label, (body.type, body.subtype))
    elif take and message.kind is Kind.GAP:
        dropped = {Label(message.run, message.seq - number) for number in range(message.span)}
        outside = _warned(outside, "dropped", dropped)
    elif take and body is None and message.kind is not Kind.STATISTICS:
        outside = _warned(outside, "unreadable", {label})
    return ledger, outside


def _followed(
    rules: Rules, world: World, ledger: Ledger, outside: Outside, message: Message
) -> tuple[bool, Ledger, Outside]:
    """`intake._follow`: where the stream stands, and the problem that is told if it must not stand there."""
    take, place, anomaly = _decided(rules, ledger.position, message)
    ledger = ledger._replace(position=place)
    if anomaly is None or place is None:
        return take, ledger, outside
    key = (str(anomaly), message.run)
    if key in ledger.told and (rules.losses_once or not take):
        return take, ledger, outside
    ledger = ledger._replace(told=ledger.told | {key})
    if anomaly is Anomaly.TWO_NODES_ONE_ID:
        # Where the clock went back there is one host: what ended with the file is in doubt as well.
        doubted = {message.run, place.run} if Fault.CLOCK_BACK in outside.harm else {message.run}
        outside = outside._replace(strange_runs=outside.strange_runs | doubted)
    until = Label(place.run, place.seq)
    here = {call.label for call in ledger.calls} | {label for _, label, _ in world.panel.history}
    lost = {
        label
        for host in world.hosts
        for _, label in host.committed
        if label <= until and label not in here and not (take and label == (message.run, message.seq))
    }
    return take, ledger, _warned(outside, str(anomaly), lost)


def _warned(outside: Outside, problem: str, lost: set[Label]) -> Outside:
    return outside._replace(problems=outside.problems | {problem}, excused=outside.excused | lost)


@cache
def _decided(
    rules: Rules, place: Place | None, message: Message
) -> tuple[bool, Place | None, Anomaly | None]:
    """What the product's own rules say, in values that a state can hold."""
    position = place and Position(
        run=Run(place.run), seq=place.seq, ended={Run(r): n for r, n in place.ended}
    )
    envelope = Envelope(
        node=NODE, run=Run(message.run), seq=message.seq, kind=message.kind, span=message.span
    )
    if message.kind is Kind.HELLO:
        decision = rules.greet(position, envelope)
    else:
        link = message.body if isinstance(message.body, Link) else None
        begin = link and messages.Begin(previous=link.previous, last=link.last, time=_TIME)
        decision = rules.receive(position, envelope, begin)
    after = decision.position
    there = Place(after.run, after.seq, tuple(sorted(after.ended.items()))) if after else None
    return decision.take, there, decision.anomaly


def _compared(rules: Rules, ledger: Ledger, message: Message) -> Ledger:
    """`Intake._compare`: correct what the ledger has by what the node knows, as of one and the same record."""
    position = ledger.position
    there = position is not None and (position.run, position.seq) == (message.run, message.seq)
    if rules.known_at_its_place and not there:
        return ledger
    kept, known = dict(ledger.kept), dict(cast("States", message.body))
    for vm in sorted(kept.keys() | known.keys()):
        told = rules.untold(kept.get(vm), known.get(vm))
        if told is not None:
            ledger = _applied(ledger, vm, Label(message.run, message.seq), told, found=True)
    return ledger


def _applied(ledger: Ledger, vm: str, label: Label, told: tuple[str, str], *, found: bool = False) -> Ledger:
    """`intake._apply`: the VM's copy, and the call that tells the panel."""
    state = _state_after(dict(ledger.kept).get(vm), told)
    call = Call(vm, label, state, found)
    return ledger._replace(kept=put(ledger.kept, vm, state), calls=(*ledger.calls, call))


@cache
def _state_after(state: CopyState | None, told: tuple[str, str]) -> CopyState | None:
    copies = {} if state is None else {NODE: Copy(state=state)}
    after = cluster.apply(copies, NODE, *told)
    return after[NODE].state if NODE in after else None
