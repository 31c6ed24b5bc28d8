# SPDX-License-Identifier: Apache-2.0
"""Rules that differ from the product's: those that must fail, and repairs of those that do.

Each function stands in for the rule of the same name in `vmwatch.sequence` or `vmwatch.cluster`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from vmwatch import sequence
from vmwatch.protocol import Envelope, Kind
from vmwatch.sequence import REMEMBERED_RUNS, Anomaly, Decision, Position

if TYPE_CHECKING:
    from tests.model.setup import Receive
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


# Repairs.


def greet_midway(position: Position | None, hello: Envelope) -> Decision:
    """A master without a position that meets a stream in its middle had a ledger once, with calls in it."""
    decision = sequence.greet(position, hello)
    if position is None and hello.seq > 0:
        text = f"nothing is kept of this node, and record {hello.seq} of run {hello.run} is its first"
        return replace(decision, anomaly=Anomaly.EVENTS_LOST, text=text)
    return decision


def receive_strangers(
    position: Position | None, record: Envelope, begin: Begin | None, remembered: int = REMEMBERED_RUNS
) -> Decision:
    """An older run than ours that never was ours is a second host's. And a baseline has no run before it."""
    if position is None:
        return sequence.receive(position, record, begin)
    if record.run < position.run and record.run not in position.ended:
        if len(position.ended) == remembered and record.run < min(position.ended):
            return Decision(take=False, position=position)
        text = f"run {record.run} is not one that run {position.run} follows"
        return Decision(take=False, position=position, anomaly=Anomaly.TWO_NODES_ONE_ID, text=text)
    decision = sequence.receive(position, record, begin)
    baseline = record.run == position.run and position.seq < 0 and not position.ended
    if baseline and record.kind == Kind.BEGIN and (begin is None or begin.previous is not None):
        text = f"nothing is kept of this node, and run {record.run} is not its first"
        return replace(decision, anomaly=Anomaly.EVENTS_LOST, text=text)
    return decision


def forgetful(remembered: int) -> Receive:
    """The repaired rule with a shorter memory of ended runs."""

    def receive(position: Position | None, record: Envelope, begin: Begin | None) -> Decision:
        decision = receive_strangers(position, record, begin, remembered)
        after = decision.position
        if after is None:
            return decision
        kept = dict(sorted(after.ended.items())[-remembered:])
        return replace(decision, position=replace(after, ended=kept))

    return receive
