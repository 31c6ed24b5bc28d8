# SPDX-License-Identifier: Apache-2.0
"""Rules that differ from the product's: those that must fail, and repairs of those that do.

Each function stands in for the rule of the same name in `vmwatch.sequence` or `vmwatch.cluster`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from vmwatch import sequence
from vmwatch.protocol import Envelope, Kind
from vmwatch.sequence import Anomaly, Decision, Position

if TYPE_CHECKING:
    from vmwatch.messages import Begin

# Rules that must fail.


def greet_anew(_position: Position | None, hello: Envelope) -> Decision:
    """Every hello says where the stream stands."""
    return Decision(take=False, position=Position(run=hello.run, seq=hello.seq - 1))


def receive_unlinked(position: Position | None, record: Envelope, begin: Begin | None) -> Decision:
    """A run follows any other: there is no begin that says which."""
    if position is not None and record.run > position.run:
        return Decision(take=True, position=replace(position, run=record.run, seq=record.seq))
    return sequence.receive(position, record, begin)


def receive_as_it_comes(position: Position | None, record: Envelope, _begin: Begin | None) -> Decision:
    """Arrival orders: whatever is not the record that was taken last is new."""
    if position is not None and (record.run, record.seq) == (position.run, position.seq):
        return Decision(take=False, position=position)
    return Decision(take=True, position=Position(run=record.run, seq=record.seq))


def receive_unsuspecting(position: Position | None, record: Envelope, begin: Begin | None) -> Decision:
    """An older run that nobody knows is taken for late data."""
    decision = sequence.receive(position, record, begin)
    if position is not None and record.run < position.run and record.run not in position.ended:
        return replace(decision, anomaly=None)
    return decision


# Repairs.


def greet_midway(position: Position | None, hello: Envelope) -> Decision:
    """A master without a position that meets a stream in its middle had a ledger once, with calls in it."""
    decision = sequence.greet(position, hello)
    if position is None and hello.seq > 0:
        text = f"nothing is kept of this node, and record {hello.seq} of run {hello.run} is its first"
        return replace(decision, anomaly=Anomaly.EVENTS_LOST, text=text)
    return decision


def receive_midway(position: Position | None, record: Envelope, begin: Begin | None) -> Decision:
    """And so had one whose first record is a begin that follows another run."""
    decision = sequence.receive(position, record, begin)
    baseline = position is not None and position.seq < 0 and not position.ended
    if not (
        baseline and decision.take and record.kind == Kind.BEGIN and begin and begin.previous is not None
    ):
        return decision
    text = f"nothing is kept of this node, and run {record.run} is not its first"
    return replace(decision, anomaly=Anomaly.EVENTS_LOST, text=text)
