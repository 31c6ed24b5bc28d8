# SPDX-License-Identifier: Apache-2.0
"""Rules that differ from the product's, and must fail.

Each function stands in for the rule of the same name in `vmwatch.sequence` or `vmwatch.cluster`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmwatch import sequence
from vmwatch.sequence import Decision, Position

if TYPE_CHECKING:
    from vmwatch.messages import Begin
    from vmwatch.protocol import Envelope


def greet_anew(_position: Position | None, hello: Envelope) -> Decision:
    """Every hello says where the stream stands."""
    return Decision(take=False, position=Position(run=hello.run, seq=hello.seq - 1))


def receive_unlinked(position: Position | None, record: Envelope, begin: Begin | None) -> Decision:
    """A run follows any other: there is no begin that says which."""
    if position is not None and record.run > position.run:
        return Decision(take=True, position=position._replace(run=record.run, seq=record.seq))
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
        return decision._replace(anomaly=None)
    return decision
