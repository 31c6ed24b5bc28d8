# SPDX-License-Identifier: Apache-2.0
"""A flood of strangers, who do not have the secret, on a master's port: a process of its own.

    python -m tests.integration.strangers PORT CONNECTIONS SECONDS IDLE

Opens so many connections in about so many seconds. Nine of ten say nothing, or stop in the middle of the handshake:
IDLE of them come at once, the next ones when the master has cut all of these. The tenth is noise, spread evenly.
Prints, as JSON, what became of them.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import sys
import time
from contextlib import suppress
from typing import Final

NOISE_SHARE: Final = 0.1
GREETING: Final = b"\xff" + bytes(8) + b"\x7f\x03\x01" + b"CURVE".ljust(20, b"\0") + bytes(32)
"""Of a client: signature, version 3.1, mechanism, filler (ZMTP 3.1, rfc.zeromq.org/spec/37)."""

_LARGE_FRAME: Final = b"\x06" + (1 << 20).to_bytes(8) + bytes(1000)  # a command of 1 MiB that does not go on
_LATE_SECONDS: Final = 20.0

IDLE_KINDS: Final = (b"", GREETING[:10], GREETING, GREETING + _LARGE_FRAME)
_HELLO_SIZE: Final = 200


class Flood:
    """Many strangers of one master."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._now_idle = 0
        self.opened = 0
        self.failed = 0
        """Connections that could not be opened."""
        self.most_idle = 0
        self.longest = 0.0
        """Seconds until the master had cut an idle one."""

    async def run(self, *, connections: int, seconds: float, idle: int) -> None:
        noise = int(connections * NOISE_SHARE)
        rounds = max(1, round((connections - noise) / idle))
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._make_noise(noise, seconds))
            for number in range(rounds):
                began = time.monotonic()
                async with asyncio.TaskGroup() as idlers:
                    for kind in itertools.islice(itertools.cycle(IDLE_KINDS), idle):
                        idlers.create_task(self._be_idle(kind))
                if number < rounds - 1:
                    await asyncio.sleep(max(0.0, began + seconds / rounds - time.monotonic()))

    async def _be_idle(self, begins: bytes) -> None:
        began = time.monotonic()
        self._now_idle += 1
        self.most_idle = max(self.most_idle, self._now_idle)
        await self._visit(begins)
        self._now_idle -= 1
        self.longest = max(self.longest, time.monotonic() - began)

    async def _make_noise(self, count: int, seconds: float) -> None:
        async with asyncio.TaskGroup() as tasks:
            for number in range(count):
                tasks.create_task(self._visit(_noise(number)))
                await asyncio.sleep(seconds / count)

    async def _visit(self, begins: bytes) -> None:
        """Connect, say this, and wait for the master to close."""
        self.opened += 1
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        except OSError:
            self.failed += 1
            return
        writer.write(begins)
        with suppress(ConnectionError):
            async with asyncio.timeout(_LATE_SECONDS):
                while await reader.read(1 << 16):
                    pass
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


def _noise(number: int) -> bytes:
    """Each kind in turn: no ZeroMQ at all, ZeroMQ until some place, a handshake with another secret."""
    return (
        os.urandom(16 << 10),
        b"GET / HTTP/1.1\r\nHost: master\r\n\r\n",
        GREETING[:-32] + os.urandom(4 << 10),
        GREETING
        + b"\x04"
        + bytes([_HELLO_SIZE])
        + b"\x05HELLO\1\0"
        + bytes(72)
        + os.urandom(_HELLO_SIZE - 80),
    )[number % 4]


async def main() -> None:
    os.nice(19)  # strangers have processors of their own
    port, connections, seconds, idle = (int(argument) for argument in sys.argv[1:])
    flood = Flood(port)
    await flood.run(connections=connections, seconds=seconds, idle=idle)
    keys = ("opened", "failed", "most_idle", "longest")
    print(json.dumps({key: getattr(flood, key) for key in keys}))


if __name__ == "__main__":
    asyncio.run(main())
