# SPDX-License-Identifier: Apache-2.0
"""Who does not have the secret, against a master that is a process: floods, replays; and what else is refused.

The flood that is promised to be harmless takes a minute: `VMWATCH_FLOOD=yes` runs it all, and judges each event's
delay; it wants a machine that does nothing else. Otherwise two ninths run, and one event in a hundred may be late.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import resource
import socket
import sys
import time
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.master_process import MasterProcess, Panel, begin, event, event_id, hello, session
from tests.integration.polling import DEADLINE, until
from vmwatch.config import Endpoint
from vmwatch.link import HANDSHAKE_SECONDS, LinkLost, Push, flush

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

pytestmark = pytest.mark.needs("setpriv")

IDLE = 1000
ROUNDS, JUDGED = (9, 1.0) if os.environ.get("VMWATCH_FLOOD") else (2, 0.99)
CONNECTIONS = ROUNDS * IDLE * 10 // 9
FLOOD_SECONDS = ROUNDS * 60 // 9
DELAY_SECONDS = 0.1
GROWTH_MIB = 32.0
KEPT_MIB = 8.0
PACE_SECONDS = 0.02


@pytest.fixture(autouse=True)
def nothing_of_zeromq_left() -> Iterator[None]:
    yield
    flush()


class Node:
    """A sender that is a node to the master, and never stops: an event every 20 ms."""

    def __init__(self, push: Push, key: bytes) -> None:
        self.sent: dict[str, float] = {}
        self._push, self._key = push, key

    async def speak(self) -> None:
        await self._push.send(hello(self._key))
        await self._push.send(begin(self._key))
        while True:
            seq = len(self.sent) + 1
            self.sent[event_id(seq)] = time.monotonic()
            await self._push.send(event(self._key, seq))
            await asyncio.sleep(PACE_SECONDS)

    async def delays(self, panel: Panel, *, start: int) -> list[float]:
        """Seconds to the panel, of each event from the one with this number to the last that was sent."""
        due = list(self.sent)[start:]
        await until(lambda: all(one in panel.told for one in due))
        return sorted(panel.told[one] - self.sent[one] for one in due)


@asynccontextmanager
async def speaking(master: MasterProcess) -> AsyncIterator[Node]:
    async with session(master.endpoint, master.keys) as push:
        node = Node(push, master.keys.signature)
        task = asyncio.create_task(node.speak())
        try:
            yield node
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def send(push: Push, *frames: bytes) -> None:
    for frame in frames:
        await push.send(frame)


def memory(pid: int, what: str) -> float:
    """`VmRSS`, `VmHWM` (the most since the last `forget_peak`) of a process, in MiB."""
    found = re.search(rf"^{what}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found
    return int(found[1]) / 1024


def forget_peak(pid: int) -> None:
    Path(f"/proc/{pid}/clear_refs").write_text("5")  # proc(5): resets the peak


async def flood(port: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.integration.strangers"]
    numbers = [str(number) for number in (port, CONNECTIONS, FLOOD_SECONDS, IDLE)]
    process = await asyncio.create_subprocess_exec(*command, *numbers, stdout=asyncio.subprocess.PIPE)
    said, _ = await process.communicate()
    assert process.returncode == 0
    result: dict[str, Any] = json.loads(said)
    return result


@pytest.mark.timeout(180)
async def test_a_flood_of_strangers_delays_no_event_and_takes_no_memory(tmp_path: Path) -> None:
    panel = Panel()
    async with panel.serving():
        with MasterProcess(tmp_path, panel_url=panel.url) as master:
            async with speaking(master) as node:
                await until(lambda: len(panel.told) >= 50)  # every VM's first call was made
                start = len(node.sent)
                await asyncio.sleep(3)  # how it is without them
                quiet = await node.delays(panel, start=start)
                before = memory(master.pid, "VmRSS")
                forget_peak(master.pid)
                start = len(node.sent)
                strangers = await flood(master.endpoint.port)
                flooded = await node.delays(panel, start=start)
                grown, kept = (memory(master.pid, what) - before for what in ("VmHWM", "VmRSS"))
    print(f"{strangers} in {FLOOD_SECONDS} s")
    print(f"memory: {before:.1f} MiB before, {grown:.1f} more at most, {kept:.1f} more after it")
    for name, delays in (("without", quiet), ("with", flooded)):
        median, most = (round(1000 * delays[place], 1) for place in (len(delays) // 2, -1))
        print(f"{name} them: {len(delays)} events, median {median} ms, at most {most} ms")
    assert strangers["opened"] == CONNECTIONS
    assert (strangers["failed"], strangers["most_idle"]) == (0, IDLE)
    assert strangers["longest"] < HANDSHAKE_SECONDS + 1
    assert flooded[int(JUDGED * (len(flooded) - 1))] < quiet[-1] + DELAY_SECONDS
    assert grown < GROWTH_MIB
    assert kept < KEPT_MIB
    assert master.output().count("handshake failed") < 10 + FLOOD_SECONDS


async def test_strangers_who_take_all_descriptors_stop_no_node_and_only_delay_the_next(
    tmp_path: Path,
) -> None:
    """At the limit libzmq accepts nobody, until the idle ones are cut; who has a session does not notice."""
    limit = 100
    panel = Panel()
    async with panel.serving():
        with MasterProcess(tmp_path, panel_url=panel.url) as master, ExitStack() as strangers:
            async with speaking(master) as node:
                await until(lambda: len(panel.told) >= 50)
                resource.prlimit(master.pid, resource.RLIMIT_NOFILE, (limit, limit))
                for _ in range(limit):
                    where = (master.endpoint.host, master.endpoint.port)
                    strangers.enter_context(socket.create_connection(where))
                await until(lambda: len(list(Path(f"/proc/{master.pid}/fd").iterdir())) == limit)
                start = len(node.sent)
                began = time.monotonic()
                async with _session_at_last(master):
                    print(f"a node that came meanwhile waited {time.monotonic() - began:.1f} s")
                print(f"events of another took {(await node.delays(panel, start=start))[-1]:.3f} s at most")
            master.check()


@asynccontextmanager
async def _session_at_last(master: MasterProcess) -> AsyncIterator[None]:
    """As a node does: again and again."""
    async with asyncio.timeout(4 * HANDSHAKE_SECONDS):
        while True:
            with suppress(LinkLost):
                push = await Push.open(master.endpoint, master.keys)
                break
    try:
        yield
    finally:
        push.close()


class Tap:
    """Somebody between a node and its master, who keeps what the node says, and may say it again."""

    def __init__(self, master: MasterProcess) -> None:
        self.heard = b""
        self.last = b""
        self.ended = False
        self.to_master: asyncio.StreamWriter | None = None
        self._master = master

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[Endpoint]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        async with server:
            yield Endpoint("127.0.0.1", server.sockets[0].getsockname()[1])

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        endpoint = self._master.endpoint
        answers, self.to_master = await asyncio.open_connection(endpoint.host, endpoint.port)
        answering = asyncio.create_task(_pass_on(answers, writer))
        while data := await reader.read(1 << 16):
            self.last = data
            self.heard += data
            self.to_master.write(data)
        self.to_master.close()
        self.ended = True
        await answering

    def repeat(self) -> None:
        """Say again what the node said last."""
        assert self.to_master is not None
        self.to_master.write(self.last)


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1 << 16):
        writer.write(data)
    writer.close()


def state(master: MasterProcess) -> list[tuple[object, ...]]:
    tables = ("node", "beat", "vm", "problem", "unread")
    return [row for table in tables for row in master.rows(f"SELECT * FROM {table}")]


@pytest.mark.parametrize("piece", [1 << 20, 64, 1])
async def test_a_session_that_was_recorded_and_is_said_again_has_no_effect(
    tmp_path: Path, piece: int
) -> None:
    """All at once, in pieces as the master answers them, byte by byte."""
    panel = Panel()
    async with panel.serving():
        with MasterProcess(tmp_path, panel_url=panel.url) as master:
            key = master.keys.signature
            tap = Tap(master)
            async with tap.listening() as endpoint:
                async with session(endpoint, master.keys) as push:
                    await send(push, hello(key), begin(key), event(key, 1), event(key, 2))
                    await until(lambda: len(panel.told) == 2)
                await until(lambda: tap.ended)
            before, calls = state(master), panel.calls
            reader, writer = await asyncio.open_connection(master.endpoint.host, master.endpoint.port)
            for start in range(0, len(tap.heard), piece):
                writer.write(tap.heard[start : start + piece])
                await asyncio.sleep(0)
            with suppress(ConnectionError):
                while await asyncio.wait_for(reader.read(1 << 16), DEADLINE):
                    pass  # the greeting, a welcome, and the end
            writer.close()
            await until(lambda: "handshake failed" in master.output())
            assert (state(master), panel.calls) == (before, calls)
            assert "message refused" not in master.output()


async def test_what_is_said_again_within_its_own_session_has_no_effect(tmp_path: Path) -> None:
    """CURVE's nonces only grow. The connection is of no more use, which the node's pings find out at the latest."""
    panel = Panel()
    async with panel.serving():
        with MasterProcess(tmp_path, panel_url=panel.url) as master:
            key = master.keys.signature
            tap = Tap(master)
            async with tap.listening() as endpoint, session(endpoint, master.keys) as push:
                await send(push, hello(key), begin(key), event(key, 1))
                await until(lambda: len(panel.told) == 1)
                await send(push, event(key, 2))
                await until(lambda: len(panel.told) == 2)
                before, calls = state(master), panel.calls
                tap.repeat()
                await send(push, event(key, 3))
                async with session(master.endpoint, master.keys) as other:
                    await send(other, hello(key, node=2), begin(key, node=2))
                    await until(lambda: master.taken(2) == 0)
            assert [row for row in state(master) if row[0] != 2] == before
            assert panel.calls == calls
            async with session(master.endpoint, master.keys) as push:
                await send(push, hello(key, 2), event(key, 2), event(key, 3))
                await until(lambda: len(panel.told) == 3)
            assert panel.calls == calls + 1
            assert "message refused" not in master.output()


async def test_a_frame_of_two_mebibytes_is_counted_and_costs_nothing_else(tmp_path: Path) -> None:
    panel = Panel()
    async with panel.serving():
        with MasterProcess(tmp_path, panel_url=panel.url) as master:
            key = master.keys.signature
            async with session(master.endpoint, master.keys) as push:
                await send(push, hello(key), begin(key), os.urandom(2 << 20), event(key, 1))
                await until(lambda: list(panel.told) == [event_id(1)])
            assert "message refused: reason=size count=1 " in master.output()
            assert master.taken() == 1
