# SPDX-License-Identifier: Apache-2.0
"""The master's position: each case of the table in docs/protocol.md, and streams heard in any order there is."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.unit.wire import TIME
from vmwatch.messages import Begin
from vmwatch.protocol import Envelope, Kind, Run, new_run
from vmwatch.sequence import REMEMBERED_RUNS, Anomaly, Decision, Position, greet, receive

R = [new_run(number, 0) for number in range(40)]  # runs, each later than the one before
OURS = Position(run=R[5], seq=20, ended={R[3]: 9, R[4]: 7})
LOST, REPLACED, TWO = Anomaly.EVENTS_LOST, Anomaly.OUTBOX_REPLACED, Anomaly.TWO_NODES_ONE_ID


def envelope(run: int, seq: int, kind: Kind = Kind.EVENT, span: int = 1) -> Envelope:
    return Envelope(node=1, run=R[run], seq=seq, kind=kind, span=span)


def begin(previous: int | None, last: int | None) -> Begin:
    return Begin(previous=None if previous is None else R[previous], last=last, time=TIME)


def test_the_first_hello_is_the_baseline_of_a_master_that_knows_nothing() -> None:
    assert greet(None, envelope(5, 7, Kind.HELLO)).position == Position(run=R[5], seq=6)
    assert greet(None, envelope(5, 0, Kind.HELLO)) == Decision(
        take=False, position=Position(run=R[5], seq=-1)
    )


def test_a_baseline_in_the_middle_of_a_stream_is_told() -> None:
    assert greet(None, envelope(5, 7, Kind.HELLO)).anomaly is Anomaly.EVENTS_LOST
    start = greet(None, envelope(5, 0, Kind.HELLO)).position
    later = receive(start, envelope(5, 0, Kind.BEGIN), begin(4, 3))
    assert (later.take, later.anomaly) == (True, Anomaly.EVENTS_LOST)
    new = receive(start, envelope(5, 0, Kind.BEGIN), begin(None, None))
    assert (new.take, new.anomaly) == (True, None)


@pytest.mark.parametrize("hello", [(5, 0), (5, 21), (5, 30), (4, 3), (6, 0), (6, 9), (1, 1)])
def test_a_hello_moves_no_position(hello: tuple[int, int]) -> None:
    assert greet(OURS, envelope(*hello, Kind.HELLO)) == Decision(take=False, position=OURS)


def test_without_a_position_a_hello_comes_first() -> None:
    assert receive(None, envelope(5, 7), None) == Decision(take=False, position=None)


@pytest.mark.parametrize(
    ("record", "position", "anomaly"),
    [
        (envelope(5, 21), 21, None),
        (envelope(5, 25, Kind.GAP, span=5), 25, None),
        (envelope(5, 25, Kind.GAP, span=9), 25, None),
        (envelope(5, 22), 22, LOST),
        (envelope(5, 25, Kind.GAP, span=4), 25, LOST),
    ],
    ids=["next", "gap from the next", "gap from before", "one is missing", "one is missing before a gap"],
)
def test_records_of_our_run_are_taken(record: Envelope, position: int, anomaly: Anomaly | None) -> None:
    decision = receive(OURS, record, None)
    assert (decision.take, decision.anomaly) == (True, anomaly)
    assert decision.position == OURS._replace(seq=position)
    assert bool(decision.text) == bool(anomaly)


@pytest.mark.parametrize(
    ("record", "anomaly"),
    [
        (envelope(5, 20), None),
        (envelope(5, 0, Kind.BEGIN), None),
        (envelope(5, 20, Kind.GAP, span=5), None),
        (envelope(4, 7), None),
        (envelope(4, 8), TWO),
        (envelope(3, 9), None),
        (envelope(3, 10), TWO),
        (envelope(1, 10), TWO),
        (envelope(2, 0, Kind.BEGIN), TWO),
    ],
    ids=["our last", "our begin", "a gap we have", "end of an ended run", "an ended run goes on", "an older end",
         "an older run goes on", "a run that we never had", "its begin"],
)  # fmt: skip
def test_records_that_are_skipped(record: Envelope, anomaly: Anomaly | None) -> None:
    decision = receive(OURS, record, begin(4, 7) if record.kind == Kind.BEGIN else None)
    assert (decision.take, decision.position, decision.anomaly) == (False, OURS, anomaly)


@pytest.mark.parametrize(
    ("said", "anomaly"),
    [
        (begin(5, 20), None),
        (begin(5, 22), LOST),
        (begin(5, 19), REPLACED),
        (begin(4, 7), TWO),
        (begin(3, 1), TWO),
        (begin(6, 3), LOST),
        (begin(2, 3), REPLACED),
        (begin(None, None), REPLACED),
        (begin(5, None), REPLACED),
        (None, LOST),
    ],
    ids=["complete", "its end is missing", "an older copy of the outbox", "two follow one", "two follow an older",
         "a whole run is missing", "another outbox", "a new outbox", "without its end", "cannot be read"],
)  # fmt: skip
def test_a_begin_of_a_newer_run_is_taken_and_ends_ours(said: Begin | None, anomaly: Anomaly | None) -> None:
    decision = receive(OURS, envelope(7, 0, Kind.BEGIN), said)
    assert (decision.take, decision.anomaly) == (True, anomaly)
    assert decision.position is not None
    assert (decision.position.run, decision.position.seq) == (R[7], 0)
    assert decision.position.ended.keys() == {R[3], R[4], R[5]}


@pytest.mark.parametrize("record", [envelope(7, 4), envelope(7, 0), envelope(7, 4, Kind.GAP, span=5)])
def test_a_newer_run_without_its_begin_is_never_silent(record: Envelope) -> None:
    decision = receive(OURS, record, None)
    assert (decision.take, decision.anomaly) == (True, LOST)
    following = receive(decision.position, envelope(7, record.seq + 1), None)
    assert (following.take, following.anomaly) == (True, None)


def test_what_was_told_lost_and_comes_late_is_not_taken_for_another_node() -> None:
    lost = receive(OURS, envelope(7, 0, Kind.BEGIN), begin(5, 22))
    assert receive(lost.position, envelope(5, 22), None) == Decision(take=False, position=lost.position)
    assert receive(lost.position, envelope(5, 23), None).anomaly == TWO


def test_two_hosts_with_one_id_are_told_as_each_speaks() -> None:
    first = greet(None, envelope(1, 0, Kind.HELLO))
    first = receive(first.position, envelope(1, 0, Kind.BEGIN), begin(None, None))
    second = receive(first.position, envelope(2, 0, Kind.BEGIN), begin(None, None))
    assert second.anomaly == REPLACED
    assert receive(second.position, envelope(1, 1), None).anomaly == TWO
    third = receive(second.position, envelope(3, 0, Kind.BEGIN), begin(1, 1))
    assert (third.take, third.anomaly) == (True, TWO)


def test_an_outbox_rolled_back_over_runs_has_two_runs_follow_one() -> None:
    assert receive(OURS, envelope(7, 0, Kind.BEGIN), begin(4, 7)).anomaly == TWO


def test_ended_runs_are_remembered_up_to_a_number() -> None:
    position: Position | None = Position(run=R[0], seq=0)
    for number in range(1, 40):
        position = receive(position, envelope(number, 0, Kind.BEGIN), begin(number - 1, 0)).position
    assert position is not None
    assert list(position.ended) == R[39 - REMEMBERED_RUNS : 39]
    assert receive(position, envelope(38 - REMEMBERED_RUNS, 0, Kind.BEGIN), None).anomaly is None
    missed = new_run(39 - REMEMBERED_RUNS, 1)
    assert receive(position, envelope(39, 5)._replace(run=missed), None).anomaly == TWO


@pytest.mark.parametrize("kind", [Kind.BEGIN, Kind.EVENT])
def test_of_two_new_hosts_the_one_that_began_first_is_told_though_it_is_heard_second(kind: Kind) -> None:
    position = greet(None, envelope(2, 0, Kind.HELLO)).position
    position = receive(position, envelope(2, 0, Kind.BEGIN), begin(None, None)).position
    other = receive(position, envelope(1, 0, kind), begin(None, None))
    assert (other.take, other.position, other.anomaly) == (False, position, TWO)


# A node, its sessions and a master, as they are: a session is a connection that delivers a prefix of what was sent
# on it, any time until the master restarts, between the data of other sessions. The window is what is not known to be
# committed: what is in flight, and the batch that the master has received and not committed.

IN_FLIGHT, BATCH = 4, 3
WINDOW = IN_FLIGHT + BATCH


@dataclass
class Session:
    """What is in its buffers, oldest first, and the place in the outbox that it sends next."""

    next: int
    buffer: deque[tuple[Envelope, Begin | None]] = field(default_factory=deque)


class Stream(RuleBasedStateMachine):
    """Breaks, kills of both, late data, lost batches: each record is taken once, in order, and nothing is told."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = 0
        self.outbox: list[tuple[Envelope, Begin | None]] = []
        self.sent = 0  # how many records of the outbox any session of this life has sent
        self.kept = 0  # those before this one were forgotten
        self.sessions: list[Session] = []  # the last one may be alive
        self.alive = False
        self.committed: Position | None = None
        self.taken: list[Envelope] = []
        self.batch: list[tuple[Envelope, Begin | None]] = []
        self.start_node()

    def start_node(self) -> None:
        self.clock += 1
        run, last = R[0], None
        previous: Run | None = None
        if self.outbox:
            previous, last = self.outbox[-1][0].run, self.outbox[-1][0].seq
        run = new_run(self.clock, 0, after=previous)
        said = Begin(previous=previous, last=last, time=TIME)
        self.outbox.append((Envelope(node=1, run=run, seq=0, kind=Kind.BEGIN), said))

    @rule(count=st.integers(1, 5))
    def append(self, count: int) -> None:
        for _ in range(count):
            last = self.outbox[-1][0]
            self.outbox.append((last._replace(seq=last.seq + 1, kind=Kind.EVENT), None))

    @rule(count=st.integers(2, 6))
    def drop(self, count: int) -> None:
        """The outbox is full: the oldest records that were not sent become a gap."""
        run = self.outbox[-1][0].run
        unsent = [place for place in range(self.sent, len(self.outbox)) if self.outbox[place][0].run == run][
            :count
        ]
        unsent = [place for place in unsent if self.outbox[place][0].kind != Kind.BEGIN]
        if self.alive or not unsent:
            return
        first, last = self.outbox[unsent[0]][0], self.outbox[unsent[-1]][0]
        gap = last._replace(kind=Kind.GAP, span=last.seq - first.first + 1)
        self.outbox[unsent[0] : unsent[-1] + 1] = [(gap, None)]

    @rule()
    def kill_node(self) -> None:
        """The next life does not know what was sent: it sends all that the outbox kept, just the window at worst."""
        self.alive = False
        self.kept = self.sent = max(self.kept, self.sent - WINDOW)
        self.start_node()

    @precondition(lambda self: not self.alive)
    @rule()
    def connect(self) -> None:
        session = Session(next=max(self.kept, self.sent - WINDOW))
        first = self.outbox[session.next][0]
        session.buffer.append((first._replace(seq=first.first, kind=Kind.HELLO, span=1), None))
        self.sessions.append(session)
        self.alive = True

    @precondition(lambda self: self.alive)
    @rule()
    def disconnect(self) -> None:
        self.alive = False

    @precondition(lambda self: self.alive)
    @rule(count=st.integers(1, 20))
    def send(self, count: int) -> None:
        session = self.sessions[-1]
        for _ in range(count):
            if len(session.buffer) >= IN_FLIGHT or session.next == len(self.outbox):
                return
            session.buffer.append(self.outbox[session.next])
            session.next += 1
            self.sent = max(self.sent, session.next)

    @precondition(lambda self: self.sessions)
    @rule(data=st.data(), count=st.integers(1, 4))
    def arrive(self, data: st.DataObject, count: int) -> None:
        """From any session, dead or alive, what is oldest in it."""
        session = data.draw(st.sampled_from(self.sessions))
        for _ in range(count):
            if len(self.batch) == BATCH:
                self.commit()
            if session.buffer:
                self.batch.append(session.buffer.popleft())

    @rule()
    def commit(self) -> None:
        for record, said in self.batch:
            if record.kind == Kind.HELLO:
                decision = greet(self.committed, record)
            else:
                decision = receive(self.committed, record, said)
            assert decision.anomaly is None, decision.text
            self.committed = decision.position
            if decision.take:
                self.taken.append(record)
        self.batch.clear()

    @rule()
    def kill_master(self) -> None:
        """All that was received and not committed is gone, and all connections with what they held."""
        self.batch.clear()
        self.sessions.clear()
        self.alive = False

    @precondition(lambda self: len(self.sessions) > 1)
    @rule()
    def lose_what_the_oldest_session_held(self) -> None:
        self.sessions.pop(0)

    @invariant()
    def taken_once_and_in_order(self) -> None:
        assert self.taken == [record for record, _ in self.outbox[: len(self.taken)]]

    def teardown(self) -> None:
        """In the end, over a connection that holds, all arrives."""
        self.disconnect()
        self.connect()
        while self.sessions[-1].next < len(self.outbox) or any(session.buffer for session in self.sessions):
            self.send(IN_FLIGHT)
            for session in self.sessions:
                self.batch += session.buffer
                session.buffer.clear()
            self.commit()
        assert self.taken == [record for record, _ in self.outbox]


TestStream = Stream.TestCase
TestStream.settings = settings(max_examples=300, stateful_step_count=40, deadline=None)
