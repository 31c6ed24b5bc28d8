# SPDX-License-Identifier: Apache-2.0
"""What a model is of: how much of everything there is, and which rules hold.

The rules that decide are the real ones, called and not written again. A failing variant is `Rules` with one of
them taken away: the model must find what goes wrong without it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

from vmwatch import cluster, sequence
from vmwatch.events import CopyState
from vmwatch.messages import Begin
from vmwatch.protocol import Envelope
from vmwatch.sequence import Decision, Position


class Fault(StrEnum):
    """What may go wrong, each time for one of `Bounds.faults`."""

    BREAK = "the connection breaks"
    NODE_KILLED = "kill -9 of the node"
    MASTER_KILLED = "kill -9 of the master"
    COMMIT_FAILED = "the master's commit fails"
    ANSWER_LOST = "the panel's answer is lost"
    UNREADABLE = "an event with a body that the master cannot read"
    DROPPED = "the outbox drops its oldest event"
    OUTBOX_LOST = "the outbox's file is lost"
    OUTBOX_ROLLED_BACK = "the outbox's file is an older one"
    LEDGER_LOST = "the ledger's file is lost"
    LEDGER_ROLLED_BACK = "the ledger's file is an older one"
    CLOCK_BACK = "the outbox's file is lost and the host's clock goes back"
    CLONED = "a second host starts with a copy of the outbox"
    TWIN = "a second host starts with the same node id"


KILLS = frozenset(
    {Fault.BREAK, Fault.NODE_KILLED, Fault.MASTER_KILLED, Fault.COMMIT_FAILED, Fault.ANSWER_LOST}
)
"""What loses no file: after these nothing may be lost, doubled, out of order, or told as a problem."""


Greet = Callable[[Position | None, Envelope], Decision]
Receive = Callable[[Position | None, Envelope, Begin | None], Decision]
Untold = Callable[[CopyState | None, CopyState | None], tuple[str, str] | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How much there is of everything.

    `in_flight`: messages that a connection holds, hello and known set too; `batch`: messages in one commit;
    `late`: dead sessions with data under way at a time.
    """

    events: int
    faults: int
    may: frozenset[Fault]
    vms: tuple[str, ...] = ("a",)
    in_flight: int = 1
    batch: int = 1
    late: int = 1
    twins: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What holds. Every default is the product's."""

    greet: Greet = sequence.greet
    receive: Receive = sequence.receive
    untold: Untold = cluster.untold
    window: int = 0
    """Added to the window of the outbox: -1 is one record less than what may be under way."""
    hello_by_envelope: bool = True
    """A hello whose body cannot be read is one all the same."""
    known_at_its_place: bool = True
    """The known set counts only as of the master's own position."""
    known_again: bool = True
    """The known set is sent again in the same session, when there are new records."""
    forgets_first: bool = True
    """A session begins with the oldest record that is kept: what is before the window is forgotten first."""
    one_commit: bool = True
    """Position, copies and calls are one commit."""
    closes: bool = True
    """A master that cannot commit closes its socket."""
    remembers: bool = True
    """The panel remembers what it applied."""
    losses_once: bool = False
    """A loss is told once for each (anomaly, run), and not each time that the position moves on over one."""
    statistics_numbered: bool = False
    """Statistics are records of the stream, and a newer one takes the older one's place."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """Bounds and rules."""

    bounds: Bounds
    rules: Rules = field(default_factory=Rules)

    @property
    def window(self) -> int:
        """`outbox.window_before`, in messages: what is in flight, and one commit."""
        return self.bounds.in_flight + self.bounds.batch + self.rules.window
