# SPDX-License-Identifier: Apache-2.0
"""What a node says, session after session: a real outbox, and a `send` that is a list."""

from __future__ import annotations

import asyncio
import itertools
import logging
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

import pytest

from tests.unit.wire import EXAMPLES, NODE, TIME, keys
from vmwatch.events import CopyState
from vmwatch.messages import (
    Begin,
    Body,
    Event,
    Gap,
    Heartbeat,
    Hello,
    KnownSet,
    LibvirtState,
    Source,
    Statistics,
)
from vmwatch.outbox import WINDOW_MESSAGES, Outbox
from vmwatch.protocol import MAX_MESSAGE, OVERHEAD, Envelope, Kind, read, verify
from vmwatch.session import Stream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

B = TypeVar("B")

DEADLINE = 10.0
STARTED = Event(
    uuid="6d1a3f0e-4c52-4f3b-9a57-2f6c1b8d7e90",
    name="web",
    type="started",
    subtype="booted",
    time=TIME,
    cause=None,
    source=Source.EVENT,
    since=None,
    domain_id=7,
)
STATISTICS = Statistics(time=TIME, domains=())


class Wire:
    """A connection: what was sent on it, in order. With `room`, so many messages and no more."""

    def __init__(self, room: int | None = None) -> None:
        self.sent: list[tuple[Envelope, Body]] = []
        self.before_each: Callable[[], None] = lambda: None
        self._room = None if room is None else asyncio.Semaphore(room)

    async def send(self, frame: bytes) -> None:
        self.before_each()
        if self._room is not None:
            await self._room.acquire()
        message = verify(frame, keys().signature)
        assert message.envelope.node == NODE
        self.sent.append((message.envelope, read(message)))

    @property
    def kinds(self) -> list[int]:
        return [envelope.kind for envelope, _ in self.sent]

    @property
    def numbers(self) -> list[int]:
        """Of the records."""
        return [envelope.seq for envelope, _ in self.sent if envelope.numbered]

    def of(self, kind: type[B]) -> list[B]:
        return [body for _, body in self.sent if isinstance(body, kind)]


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    with closing(Outbox(tmp_path / "outbox.db", now=TIME, random=1, boot="boot")) as opened:
        yield opened


def speaking(outbox: Outbox, libvirt: LibvirtState | None = LibvirtState.CONNECTED) -> Stream:
    stream = Stream(
        outbox,
        node=NODE,
        signature=keys().signature,
        hello=Hello(host="kvm3", version="1"),
        heartbeat_seconds=2.5,
        clock=lambda: TIME,
    )
    stream.libvirt = libvirt
    return stream


@asynccontextmanager
async def session(stream: Stream, wire: Wire) -> AsyncIterator[None]:
    speaker = asyncio.create_task(stream.run(wire.send))
    try:
        yield
    finally:
        speaker.cancel()
        with pytest.raises(asyncio.CancelledError):
            await speaker


async def idle(stream: Stream) -> None:
    await asyncio.wait_for(stream.idle.wait(), DEADLINE)


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE):
        while not true():  # noqa: ASYNC110 (of a list, nobody is told that it grows)
            await asyncio.sleep(0)


def append(stream: Stream, outbox: Outbox, count: int) -> None:
    outbox.append([STARTED] * count)
    stream.wake()


async def test_hello_records_heartbeat_and_then_the_known_set(outbox: Outbox) -> None:
    stream, wire = speaking(outbox), Wire()
    outbox.append([STARTED])
    async with session(stream, wire):
        await idle(stream)
    assert wire.kinds == [Kind.HELLO, Kind.BEGIN, Kind.EVENT, Kind.HEARTBEAT, Kind.KNOWN]
    hello, known = wire.sent[0][0], wire.sent[-1][0]
    assert (hello.run, hello.seq) == (outbox.run, 0)
    assert (known.run, known.seq) == (outbox.run, 1)
    assert [one.state for one in wire.of(KnownSet)[0].domains] == [CopyState.RUNNING]
    assert wire.of(Begin) == [Begin(previous=None, last=None, time=TIME)]
    assert wire.of(Event) == [STARTED]
    assert wire.of(Heartbeat)[0] == Heartbeat(
        top=1, time=TIME, interval_ms=2500, libvirt=LibvirtState.CONNECTED, not_responding=()
    )


async def test_what_is_new_follows_at_once_and_the_known_set_is_told_once(outbox: Outbox) -> None:
    stream, wire = speaking(outbox), Wire()
    async with session(stream, wire):
        await idle(stream)
        told = len(wire.sent)
        append(stream, outbox, 2)
        assert not stream.idle.is_set()
        await idle(stream)
    assert wire.kinds[told:] == [Kind.EVENT, Kind.EVENT]
    assert wire.numbers == [0, 1, 2]


async def test_the_known_set_is_told_when_it_was_compared_with_libvirts_list(outbox: Outbox) -> None:
    stream, wire = speaking(outbox, libvirt=None), Wire()
    async with session(stream, wire):
        await idle(stream)
        assert wire.of(KnownSet) == []
        append(stream, outbox, 1)
        stream.libvirt = LibvirtState.CONNECTED
        stream.beat()
        await idle(stream)
    assert wire.kinds[-3:] == [Kind.EVENT, Kind.HEARTBEAT, Kind.KNOWN]


async def test_the_known_set_is_told_again_with_statistics(outbox: Outbox) -> None:
    stream, wire = speaking(outbox), Wire()
    async with session(stream, wire):
        await idle(stream)
        append(stream, outbox, 1)
        stream.offer(Statistics(time=TIME, domains=()))
        await idle(stream)
    assert wire.kinds[-3:] == [Kind.EVENT, Kind.STATISTICS, Kind.KNOWN]
    assert wire.sent[-1][0].seq == outbox.top


async def test_a_session_of_another_process_begins_no_earlier(outbox: Outbox) -> None:
    first, second = Wire(), Wire()
    stream = speaking(outbox)
    append(stream, outbox, 1500)
    for wire in (Wire(), first):
        async with session(stream, wire):
            await idle(stream)
    async with session(speaking(outbox), second):  # it does not know what was sent before
        await until(lambda: bool(second.sent))
    assert second.sent[0][0].seq >= first.sent[0][0].seq > 0


async def test_the_next_session_repeats_the_window_and_no_more(outbox: Outbox) -> None:
    stream, first, second = speaking(outbox), Wire(), Wire()
    append(stream, outbox, 3000)
    async with session(stream, first):
        await idle(stream)
    assert first.numbers == list(range(3001))
    async with session(stream, second):
        await idle(stream)
    repeated = second.numbers
    assert repeated == list(range(repeated[0], 3001))
    assert second.sent[0][0].seq == repeated[0]
    assert WINDOW_MESSAGES < len(repeated) < 3000
    assert len(second.of(KnownSet)) == 1


async def test_a_session_that_broke_early_takes_nothing_from_the_next_ones_window(outbox: Outbox) -> None:
    stream = speaking(outbox)
    append(stream, outbox, 3000)
    first = Wire()
    async with session(stream, first):
        await idle(stream)
    window = Wire()
    async with session(stream, window):
        await idle(stream)
    for room in (0, 1, 2, 50):
        broken = Wire(room)
        async with session(stream, broken):
            await until(lambda: len(broken.sent) == room)  # noqa: B023 (called here and now)
    last = Wire()
    async with session(stream, last):
        await idle(stream)
    assert last.numbers == window.numbers


async def test_a_session_ended_in_the_middle_of_a_send_loses_nothing(outbox: Outbox) -> None:
    stream = speaking(outbox)
    append(stream, outbox, 500)
    seen: set[int] = set()
    for room in (1, 3, 100, 400):
        wire = Wire(room)
        stream.offer(STATISTICS)
        async with session(stream, wire):
            await until(lambda: len(wire.sent) == room)  # noqa: B023 (called here and now)
        seen.update(wire.numbers)
    wire = Wire()
    async with session(stream, wire):
        await idle(stream)
    assert seen.union(wire.numbers) == set(range(501))
    assert wire.numbers[-1] == 500


async def test_statistics_that_a_broken_session_did_not_send_are_sent_by_the_next(outbox: Outbox) -> None:
    stream, broken, wire = speaking(outbox), Wire(room=3), Wire()
    stream.offer(STATISTICS)
    async with session(stream, broken):  # hello, begin and heartbeat pass, the statistics wait
        await until(lambda: len(broken.sent) == 3)
        await asyncio.sleep(0)
    async with session(stream, wire):
        await idle(stream)
    assert not broken.of(Statistics)
    assert wire.of(Statistics) == [STATISTICS]


async def test_only_the_latest_statistics_are_sent_and_only_once(outbox: Outbox) -> None:
    stream, wire, again = speaking(outbox), Wire(), Wire()
    newer = replace(STATISTICS, time=TIME.replace(year=2027))
    stream.offer(STATISTICS)
    stream.offer(newer)
    async with session(stream, wire):
        await idle(stream)
    async with session(stream, again):
        await idle(stream)
    assert wire.of(Statistics) == [newer]
    assert not again.of(Statistics)


async def test_statistics_offered_while_older_ones_are_being_sent_follow_them(outbox: Outbox) -> None:
    stream, wire = speaking(outbox), Wire()
    newer = replace(STATISTICS, time=TIME.replace(year=2027))
    wire.before_each = lambda: stream.offer(newer) if len(wire.sent) == 3 else None
    stream.offer(STATISTICS)
    async with session(stream, wire):
        await idle(stream)
    assert wire.of(Statistics) == [STATISTICS, newer]


async def test_heartbeats_and_statistics_go_between_the_records_of_a_backlog(outbox: Outbox) -> None:
    stream, wire = speaking(outbox), Wire()
    append(stream, outbox, 1000)
    stream.offer(STATISTICS)
    wire.before_each = stream.beat  # as if one were due all the time, up to the end of the backlog
    async with session(stream, wire):
        await until(lambda: len(wire.numbers) == 1001)
        wire.before_each = lambda: None
        await idle(stream)
    places = [place for place, kind in enumerate(wire.kinds) if kind == Kind.HEARTBEAT]
    assert max(after - before for before, after in itertools.pairwise(places)) <= 66
    assert wire.kinds.index(Kind.STATISTICS) < 100
    counters = [
        envelope.seq for envelope, _ in wire.sent if envelope.kind in (Kind.HEARTBEAT, Kind.STATISTICS)
    ]
    assert counters == list(range(len(counters)))


async def test_a_long_backlog_lets_other_tasks_have_their_turn(outbox: Outbox) -> None:
    """Though `send` never waits."""
    stream, wire = speaking(outbox), Wire()
    append(stream, outbox, 3000)
    async with session(stream, wire):
        seen = set()
        while not stream.idle.is_set():
            seen.add(len(wire.numbers))
            await asyncio.sleep(0)
    assert len(seen) > 3000 / 64


async def test_no_heartbeat_before_it_is_known_how_the_node_stands_with_libvirt(outbox: Outbox) -> None:
    stream, wire = speaking(outbox, libvirt=None), Wire()
    async with session(stream, wire):
        await idle(stream)
        assert not wire.of(Heartbeat)
        stream.libvirt = LibvirtState.LOST
        stream.beat()
        await idle(stream)
    assert [one.libvirt for one in wire.of(Heartbeat)] == [LibvirtState.LOST]


@pytest.mark.parametrize("beat", range(1, 6))
@pytest.mark.parametrize("events", range(1, 6))
async def test_the_known_set_is_as_of_the_last_record_sent_whenever_events_come(
    outbox: Outbox, beat: int, events: int
) -> None:
    """Between any two messages: else the master, whose position is another, would not use it."""
    stream, wire = speaking(outbox), Wire()
    stream.offer(STATISTICS)

    def interrupt() -> None:
        if len(wire.sent) == beat:
            stream.beat()
        if len(wire.sent) == events:
            append(stream, outbox, 3)

    wire.before_each = interrupt
    async with session(stream, wire):
        await idle(stream)
    at = wire.kinds.index(Kind.KNOWN)
    before = [envelope.seq for envelope, _ in wire.sent[:at] if envelope.numbered]
    assert wire.sent[at][0].seq == before[-1]
    assert wire.kinds.count(Kind.KNOWN) == 1
    assert bool(wire.of(KnownSet)[0].domains) == (before[-1] > 0)


async def test_what_arrived_long_ago_is_forgotten(outbox: Outbox) -> None:
    stream, wire = speaking(outbox), Wire()
    async with session(stream, wire):
        for _ in range(5):
            append(stream, outbox, 1000)
            await idle(stream)
        kept = len(outbox.read(after=0, limit=9999))
        assert WINDOW_MESSAGES < kept < 3500
    assert wire.numbers == list(range(5001))


async def test_a_new_life_sends_all_that_is_kept(tmp_path: Path) -> None:
    for life in range(3):
        with closing(Outbox(tmp_path / "outbox.db", now=TIME, random=life, boot="boot")) as outbox:
            stream, wire = speaking(outbox), Wire()
            outbox.append([STARTED] * 2)
            async with session(stream, wire):
                await idle(stream)
            assert wire.numbers == [0, 1, 2] * (life + 1)
    last = wire.of(Begin)
    assert [begin.last for begin in last] == [None, 2, 2]


async def test_a_known_set_and_statistics_that_are_too_large_are_told_and_not_sent(
    outbox: Outbox, caplog: pytest.LogCaptureFixture
) -> None:
    stream, wire = speaking(outbox), Wire()
    name = "n" * (MAX_MESSAGE // 2)
    outbox.append([STARTED._replace(uuid=uuid, name=name) for uuid in ("1", "2")])
    (one,) = next(body for body in EXAMPLES if isinstance(body, Statistics)).domains
    stream.offer(Statistics(time=TIME, domains=(replace(one, name=name),) * 2))
    with caplog.at_level(logging.ERROR):
        async with session(stream, wire):
            await idle(stream)
            append(stream, outbox, 1)
            await idle(stream)
    assert [record.getMessage().partition(" bytes=")[0] for record in caplog.records] == [
        "not sent, too large: kind=statistics",
        "not sent, too large: kind=known",
    ]
    assert wire.kinds == [Kind.HELLO, Kind.BEGIN, Kind.EVENT, Kind.EVENT, Kind.HEARTBEAT, Kind.EVENT]


async def test_a_record_that_is_too_large_leaves_a_gap_and_holds_up_nothing(
    outbox: Outbox, caplog: pytest.LogCaptureFixture
) -> None:
    stream, wire = speaking(outbox), Wire()
    outbox.append([STARTED, STARTED._replace(name="n" * (MAX_MESSAGE - OVERHEAD)), STARTED])
    with caplog.at_level(logging.ERROR):
        async with session(stream, wire):
            await idle(stream)
    assert [envelope.kind for envelope, _ in wire.sent if envelope.numbered] == [
        Kind.BEGIN,
        Kind.EVENT,
        Kind.GAP,
        Kind.EVENT,
    ]
    assert wire.numbers == [0, 1, 2, 3]
    assert [gap.count for gap in wire.of(Gap)] == [1]
    assert "record not sent, too large: seq=2" in caplog.text


async def test_what_send_raises_ends_the_session(outbox: Outbox) -> None:
    async def broken(_frame: bytes) -> None:
        raise ConnectionError

    stream = speaking(outbox)
    with pytest.raises(ConnectionError):
        await stream.run(broken)
    assert not stream.idle.is_set()
