# SPDX-License-Identifier: Apache-2.0
"""Which record of a node's stream is next, repeated, or missing. Pure.

A node's stream is a chain of runs; the records of a run are numbered from 0, and record 0, `begin`, names the run
before it. A session repeats what the master may not have, and late data of dead sessions arrives in between: so
nothing but these numbers orders records. The rules stand in docs/protocol.md, *The master's position*.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from vmwatch.protocol import Envelope, Kind, Run

if TYPE_CHECKING:
    from vmwatch.messages import Begin

REMEMBERED_RUNS: Final = 16
"""How many ended runs of a node are told from runs that nobody knows. A session replays a few at most."""


class Anomaly(StrEnum):
    """What a stream must not do, and did: each becomes a problem at the panel."""

    EVENTS_LOST = "events_lost"
    OUTBOX_REPLACED = "outbox_replaced"
    TWO_NODES_ONE_ID = "two_nodes_one_id"


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """How far a node's stream has been taken: run, the last record's number, and the runs before it.

    `ended`: run -> its last number taken, of the last runs that a `begin` ended.
    """

    run: Run
    seq: int
    ended: dict[Run, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What to do with a record. `take`: apply it, in the transaction that keeps `position`."""

    take: bool
    position: Position | None
    anomaly: Anomaly | None = None
    text: str = ""


def greet(position: Position | None, hello: Envelope) -> Decision:
    """A session begins, its first record being the envelope's: the baseline of a master that knows nothing."""
    baseline = Position(run=hello.run, seq=hello.seq - 1)
    if position is None:
        return Decision(take=False, position=baseline)
    if hello.run == position.run and hello.seq > position.seq + 1:
        text = f"records {position.seq + 1} to {hello.seq - 1} of run {hello.run} are no more"
        return Decision(
            take=False,
            position=replace(position, seq=hello.seq - 1),
            anomaly=Anomaly.EVENTS_LOST,
            text=text,
        )
    if hello.run > position.run and hello.seq > 0:
        text = f"the records between run {position.run} and record {hello.seq} of run {hello.run} are no more"
        return Decision(
            take=False, position=_after(position, baseline), anomaly=Anomaly.EVENTS_LOST, text=text
        )
    return Decision(take=False, position=position)


def receive(position: Position | None, record: Envelope, begin: Begin | None) -> Decision:
    """Whether a record is the next one. `begin` is the body of a begin, None if it could not be read."""
    if position is None:
        return Decision(
            take=False, position=None
        )  # the session's hello comes first, and says where it starts
    if record.run == position.run:
        return _within(position, record)
    if record.run < position.run:
        return _from_before(position, record)
    if record.kind == Kind.BEGIN:
        return _next_run(position, record, begin)
    return Decision(
        take=False, position=position
    )  # late data of a session whose begin was lost: it is repeated


def _within(position: Position, record: Envelope) -> Decision:
    """Same run: the record stands for the numbers seq - span + 1 .. seq."""
    if record.seq <= position.seq:
        return Decision(take=False, position=position)
    taken = replace(position, seq=record.seq)
    missing = record.seq - record.span - position.seq
    if missing <= 0:
        return Decision(take=True, position=taken)
    text = f"{missing} records before record {record.seq} of run {record.run} never arrived"
    return Decision(take=True, position=taken, anomaly=Anomaly.EVENTS_LOST, text=text)


def _from_before(position: Position, record: Envelope) -> Decision:
    """An older run than ours: what the master has of it, or a second host that speaks with this node's id."""
    if record.run not in position.ended or record.seq <= position.ended[record.run]:
        return Decision(take=False, position=position)
    text = f"run {record.run} goes on at {record.seq} though run {position.run} began after it"
    return Decision(take=False, position=position, anomaly=Anomaly.TWO_NODES_ONE_ID, text=text)


def _next_run(position: Position, record: Envelope, begin: Begin | None) -> Decision:
    taken = _after(position, Position(run=record.run, seq=record.seq))
    anomaly, text = _link(position, begin)
    return Decision(take=True, position=taken, anomaly=anomaly, text=text)


def _link(position: Position, begin: Begin | None) -> tuple[Anomaly | None, str]:
    """How a new run hangs together with the one taken last."""
    if begin is None:
        return Anomaly.EVENTS_LOST, f"whether events of run {position.run} are missing cannot be read"
    if begin.previous in position.ended:
        return Anomaly.TWO_NODES_ONE_ID, f"two runs follow run {begin.previous}"
    if begin.previous != position.run or begin.last is None:
        return (
            Anomaly.OUTBOX_REPLACED,
            f"a new run does not follow run {position.run}: its outbox is another one",
        )
    if begin.last < position.seq:
        return (
            Anomaly.OUTBOX_REPLACED,
            f"run {position.run} ended at {begin.last}: its outbox is an older one",
        )
    if begin.last > position.seq:
        count = begin.last - position.seq
        return Anomaly.EVENTS_LOST, f"the last {count} records of run {position.run} never arrived"
    return None, ""


def _after(position: Position, following: Position) -> Position:
    ended = {**position.ended, position.run: position.seq}
    return replace(following, ended=dict(sorted(ended.items())[-REMEMBERED_RUNS:]))
