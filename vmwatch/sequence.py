# SPDX-License-Identifier: Apache-2.0
"""Which record of a node's stream is next, repeated, or missing. Pure.

A node's stream is a chain of runs; the records of a run are numbered from 0, and record 0, `begin`, names the run
before it. A session repeats what the master may not have, and late data of dead sessions arrives in between: so
nothing but these numbers orders records. The rules stand in docs/protocol.md, *The master's position*.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vmwatch.messages import Begin
    from vmwatch.protocol import Envelope, Run

REMEMBERED_RUNS: Final = 16
"""How many ended runs of a node are told from runs that nobody knows. A session replays a few at most."""


class Anomaly(StrEnum):
    """What a stream must not do, and did: each becomes a problem at the panel."""

    EVENTS_LOST = "events_lost"
    OUTBOX_REPLACED = "outbox_replaced"
    TWO_NODES_ONE_ID = "two_nodes_one_id"


class Position(NamedTuple):
    """How far a node's stream has been taken: run, the last record's number, and the runs before it.

    `ended`: run -> its last number taken, of the last runs that a `begin` ended.
    """

    run: Run
    seq: int
    ended: Mapping[Run, int] = {}


class Decision(NamedTuple):
    """What to do with a record. `take`: apply it, in the transaction that keeps `position`."""

    take: bool
    position: Position | None
    anomaly: Anomaly | None = None
    text: str = ""


def greet(position: Position | None, hello: Envelope) -> Decision:
    """A session begins, its first record being the envelope's: the baseline of a master that knows nothing.

    If that is not where the node's stream began, another ledger knew of it, and had calls that were not made.
    """
    if position is not None:
        return Decision(take=False, position=position)
    baseline = Position(run=hello.run, seq=hello.seq - 1)
    if hello.seq == 0:
        return Decision(take=False, position=baseline)
    text = f"nothing is kept of this node, whose stream goes on at record {hello.seq} of run {hello.run}"
    return Decision(take=False, position=baseline, anomaly=Anomaly.EVENTS_LOST, text=text)


def receive(position: Position | None, record: Envelope, begin: Begin | None) -> Decision:
    """Whether a record is the next one. `begin` is the body of a begin, None if it could not be read."""
    if position is None:
        return Decision(take=False, position=None)  # a session's hello comes first, and says where it starts
    if record.run == position.run:
        return _within(position, record, begin)
    if record.run < position.run:
        return _from_before(position, record)
    return _next_run(position, record, begin)


def _within(position: Position, record: Envelope, begin: Begin | None) -> Decision:
    if record.seq <= position.seq:
        return Decision(take=False, position=position)
    taken = Position(position.run, record.seq, position.ended)
    if begin is not None and begin.previous is not None and not position.ended:
        text = f"nothing is kept of this node, whose run {begin.previous} was before run {record.run}"
        return Decision(take=True, position=taken, anomaly=Anomaly.EVENTS_LOST, text=text)
    if record.first <= position.seq + 1:
        return Decision(take=True, position=taken)
    text = f"records {position.seq + 1} to {record.first - 1} of run {record.run} never arrived"
    return Decision(take=True, position=taken, anomaly=Anomaly.EVENTS_LOST, text=text)


def _from_before(position: Position, record: Envelope) -> Decision:
    """An older run than ours: what the master has of it, or a second host that speaks with this node's id."""
    if record.seq <= position.ended.get(record.run, -1) or _forgotten(position, record.run):
        return Decision(take=False, position=position)
    text = (
        f"record {record.seq} of run {record.run} comes though run {position.run} began later: "
        "two hosts have this id, or the outbox is another one and the clock was set back"
    )
    return Decision(take=False, position=position, anomaly=Anomaly.TWO_NODES_ONE_ID, text=text)


def _forgotten(position: Position, run: Run) -> bool:
    """Whether it may have ended so long ago that this is not known any more.

    What was before the master's first hello of a node is not: a session starts where none before it was read.
    """
    return len(position.ended) == REMEMBERED_RUNS and run < min(position.ended)


def _next_run(position: Position, record: Envelope, begin: Begin | None) -> Decision:
    anomaly, text = _link(position, record, begin)
    last = position.seq
    if begin is not None and begin.previous == position.run and begin.last is not None:
        last = max(last, begin.last)  # what was told lost may still come, late, from a dead session
    ended = {**position.ended, position.run: last}
    taken = Position(run=record.run, seq=record.seq, ended=dict(sorted(ended.items())[-REMEMBERED_RUNS:]))
    return Decision(take=True, position=taken, anomaly=anomaly, text=text)


def _link(position: Position, record: Envelope, begin: Begin | None) -> tuple[Anomaly | None, str]:
    """How a new run hangs together with the one taken last."""
    if begin is None or record.first > 0:
        text = f"after run {position.run} comes record {record.first} of run {record.run}"
        return Anomaly.EVENTS_LOST, text
    if begin.previous in position.ended:
        return Anomaly.TWO_NODES_ONE_ID, f"two runs follow run {begin.previous}"
    if begin.previous is None or begin.last is None or begin.previous < position.run:
        text = f"run {record.run} knows nothing of run {position.run}: its outbox is another one"
        return Anomaly.OUTBOX_REPLACED, text
    if begin.previous > position.run:
        return Anomaly.EVENTS_LOST, f"run {begin.previous}, after run {position.run}, never arrived"
    return _end(position, begin.last)


def _end(position: Position, last: int) -> tuple[Anomaly | None, str]:
    """How the run taken last ended, by what its outbox says."""
    if last < position.seq:
        return Anomaly.OUTBOX_REPLACED, f"run {position.run} ended at {last}: its outbox is an older one"
    if last > position.seq:
        text = f"records {position.seq + 1} to {last} of run {position.run} never arrived"
        return Anomaly.EVENTS_LOST, text
    return None, ""
