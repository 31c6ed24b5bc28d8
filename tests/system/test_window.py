# SPDX-License-Identifier: Apache-2.0
"""The window (docs/protocol.md) under attack: whoever receives is killed with all buffers full, again and again.

Real outbox, session and sockets here; Pull, Intake and Ledger in processes that are frozen, slow, and killed.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from tests.integration.polling import until
from tests.lab.processes import free_port
from vmwatch import node
from vmwatch.config import Endpoint
from vmwatch.link import flush
from vmwatch.messages import Event, Hello, LibvirtState, Source
from vmwatch.outbox import Outbox
from vmwatch.protocol import derive_keys
from vmwatch.session import Stream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

SECRET = "VMWATCH4DOCUMENTATION7ONLY"
AHEAD = 2000  # events that wait to be sent: more than a connection holds
STILL_SECONDS = 0.05
LIFE = 60 * 20  # messages: twenty a second, a break each minute
EVENT = Event(
    uuid="u",
    name="web",
    type="resumed",
    subtype="unpaused",
    time=datetime(2026, 11, 22, 10, tzinfo=UTC),
    cause=None,
    source=Source.EVENT,
    since=None,
    domain_id=1,
)


class ShortWindow(Outbox):
    """Repeats as many records as ZeroMQ's queues hold. The kernel's buffers and a batch hold more."""

    def window_before(self, sent: int) -> int:
        return max(0, sent - 20)


class WideWindow(Outbox):
    """Repeats more than arrives before the next break."""

    def window_before(self, sent: int) -> int:
        return max(0, sent - 2 * LIFE)


class Receiver:
    """The processes of quick_master, one after the other, and what they have kept."""

    def __init__(self, folder: Path, *, pause_us: int, life: int) -> None:
        self.port = free_port()
        self.ledger = folder / "ledger.db"
        command = [sys.executable, "-m", "tests.system.quick_master"]
        arguments = [str(self.port), str(self.ledger), SECRET, str(pause_us), str(life)]
        self._process = subprocess.Popen(
            [*command, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.pid = 0

    def start(self) -> None:
        """The next one; returns when it listens."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        self.pid = int(self._process.stdout.readline())

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def close(self) -> None:
        with suppress(ProcessLookupError):
            self.signal(signal.SIGKILL)
        self._process.communicate()

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self.ledger, timeout=5)) as sql:
            return sql.execute(query).fetchall()

    def is_dead(self) -> bool:
        """Whether the last one has ended by itself."""
        return psutil.Process(self._process.pid).children() == []

    def position(self) -> int:
        """The last record that was kept; -1: none."""
        return int((self.rows("SELECT seq FROM node") or [(-1,)])[0][0])

    def told(self) -> list[str]:
        """What the panel would be told, in order: the ids of events, and problems."""
        rows = self.rows("SELECT event_id, fields FROM call ORDER BY id")
        return [event_id or json.loads(fields)["problem"] for event_id, fields in rows]


@contextmanager
def receiving(folder: Path, *, pause_us: int = 0, life: int = 0) -> Iterator[Receiver]:
    receiver = Receiver(folder, pause_us=pause_us, life=life)
    receiver.start()
    try:
        yield receiver
    finally:
        receiver.close()


class Sender:
    """A node's sending half, with events of these sizes to tell without end."""

    def __init__(self, outbox: Outbox, sizes: tuple[int, ...]) -> None:
        self.outbox = outbox
        self.stream = Stream(
            outbox,
            node=1,
            signature=derive_keys(SECRET).signature,
            hello=Hello(host="kvm1", version="1"),
            heartbeat_seconds=1.0,
            clock=lambda: datetime.now(UTC),
        )
        self.stream.libvirt = LibvirtState.CONNECTED
        self._sizes = sizes
        self._chance = random.Random(1)

    @property
    def sent(self) -> int:
        """The id of the last record that a socket took. One run in a new file: the record's number, and 1."""
        return self.stream._sent

    async def tell(self) -> None:
        """Have AHEAD events wait, always."""
        while True:
            if self.outbox.top - self.sent < AHEAD:
                sizes = self._chance.choices(self._sizes, k=64)
                self.outbox.append([EVENT._replace(cause="x" * size) for size in sizes])
                self.stream.wake()
            await asyncio.sleep(0.001)

    async def until_blocked(self) -> None:
        """Return when no socket takes any more."""
        sent, since = self.sent, time.monotonic()
        while time.monotonic() - since < STILL_SECONDS:
            await asyncio.sleep(0.005)
            if sent != self.sent:
                sent, since = self.sent, time.monotonic()


@asynccontextmanager
async def speaking(outbox: Outbox, receiver: Receiver, sizes: tuple[int, ...]) -> AsyncIterator[Sender]:
    sender = Sender(outbox, sizes)
    endpoint = Endpoint("127.0.0.1", receiver.port)
    tasks = [
        asyncio.create_task(node._speak(sender.stream, endpoint, derive_keys(SECRET))),
        asyncio.create_task(sender.tell()),
    ]
    try:
        yield sender
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        flush()


async def kill_again_and_again(receiver: Receiver, sender: Sender, kills: int) -> int:
    """At any moment, or frozen with all buffers full. Returns the most records sent that were not kept, of a kill."""
    chance = random.Random(2)
    most = 0
    for number in range(kills):
        reached = receiver.position()
        await until(lambda: receiver.position() > reached + chance.randrange(400))  # noqa: B023 (called here)
        if number % 2:
            receiver.signal(signal.SIGSTOP)
            await sender.until_blocked()
        receiver.signal(signal.SIGKILL)
        kept = receiver.position() + 1
        most = max(most, sender.sent - kept)
        assert sender.outbox.window_before(sender.sent) <= kept or isinstance(sender.outbox, ShortWindow)
        receiver.start()
    return most


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("name", "sizes", "pause_us", "kills"),
    [("small", (0,), 0, 100), ("slow", (0,), 200, 60), ("large", (0, 4000, 60_000), 0, 40)],
)
async def test_nothing_is_lost_however_often_the_receiver_is_killed_with_full_buffers(
    tmp_path: Path, name: str, sizes: tuple[int, ...], pause_us: int, kills: int
) -> None:
    outbox = Outbox(tmp_path / "outbox.db", now=datetime.now(UTC), random=1, boot="boot")
    with closing(outbox), receiving(tmp_path, pause_us=pause_us) as receiver:
        async with speaking(outbox, receiver, sizes) as sender:
            most = await kill_again_and_again(receiver, sender, kills)
            reached = sender.outbox.top
            await until(lambda: receiver.position() >= reached)
        told = receiver.told()
    print(f"{name}: {kills} kills, {len(told)} events, at most {most} sent and not kept")
    assert told == [f"1.{outbox.run}.{number}" for number in range(1, len(told) + 1)]


async def test_a_window_that_is_too_small_loses(tmp_path: Path) -> None:
    """What the test above would see."""
    outbox = ShortWindow(tmp_path / "outbox.db", now=datetime.now(UTC), random=1, boot="boot")
    with closing(outbox), receiving(tmp_path) as receiver:
        async with speaking(outbox, receiver, (0,)) as sender:
            await kill_again_and_again(receiver, sender, 4)
            reached = sender.outbox.top
            await until(lambda: receiver.position() >= reached)
        assert "events_lost" in receiver.told()


async def positions(tmp_path: Path, outbox: Outbox, lives: int) -> list[int]:
    """What was kept when each of so many receivers had taken LIFE messages, and had died of it."""
    with closing(outbox), receiving(tmp_path, life=LIFE) as receiver:
        async with speaking(outbox, receiver, (0,)):
            reached = []
            for _ in range(lives):
                await until(receiver.is_dead)
                reached.append(receiver.position())
                receiver.start()
    return reached


async def test_a_master_that_gives_a_node_twenty_messages_a_second_gets_on_though_connections_break(
    tmp_path: Path,
) -> None:
    """Each connection begins with the window: it must be less than what arrives until the next break."""
    outbox = Outbox(tmp_path / "outbox.db", now=datetime.now(UTC), random=1, boot="boot")
    reached = await positions(tmp_path, outbox, 10)
    steps = [later - earlier for earlier, later in itertools.pairwise(reached)]
    print(f"a connection of {LIFE} messages brought at least {min(steps)} new ones")
    assert min(steps) > 0


async def test_a_window_that_is_too_large_does_not_get_on(tmp_path: Path) -> None:
    """What the test above would see."""
    outbox = WideWindow(tmp_path / "outbox.db", now=datetime.now(UTC), random=1, boot="boot")
    reached = await positions(tmp_path, outbox, 6)
    assert reached[-1] == reached[-2] < outbox.top
