# SPDX-License-Identifier: Apache-2.0
"""A wire between node and master that can be cut, stalled and slowed: a TCP proxy.

    python -m tests.faults.proxy PORT TARGET_PORT

Prints `ready`, then obeys standard input, a word a line: `cut`, `stall`, `slow`, `flow`; ends with it.

It holds little: what it has read and not yet passed on is lost when the other side dies, and the window that a node
repeats (docs/protocol.md) is reckoned for a wire without proxies. Small buffers keep both within that window.

Its segments are as small as a network's: with loopback's, which are larger than such buffers, a burst that follows
a stall may take half a minute (vmwatch/tcp.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import sys
from enum import StrEnum
from typing import Final

BUFFER: Final = 4096  # bytes asked of the kernel, which doubles it, and read at once
SEGMENT: Final = 1448  # bytes: an Ethernet's
SLOW_SECONDS: Final = 0.25  # after each piece of BUFFER bytes
_RESET: Final = struct.pack("ii", 1, 0)  # SO_LINGER: on, 0 s: close sends RST


class Mode(StrEnum):
    FLOW = "flow"
    SLOW = "slow"
    STALL = "stall"
    CUT = "cut"


class Proxy:
    """Listens on `port` of loopback, and connects each who comes to `target` there."""

    def __init__(self, port: int, target: int) -> None:
        self._port, self._target = port, target
        self._mode = Mode.FLOW
        self._changed = asyncio.Event()
        self._open: set[socket.socket] = set()
        self._listener: socket.socket | None = None
        self._tasks = asyncio.TaskGroup()

    async def run(self, commands: asyncio.StreamReader) -> None:
        """Obey until there are no more commands."""
        async with self._tasks:
            self._listen()
            print("ready", flush=True)
            while line := await commands.readline():
                self.obey(Mode(line.decode().strip()))
            self.obey(Mode.CUT)

    def obey(self, mode: Mode) -> None:
        self._mode = mode
        if mode is Mode.CUT:
            self._cut()
        elif self._listener is None:
            self._listen()
        self._changed.set()

    def _listen(self) -> None:
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.setblocking(False)
        _shrink(self._listener)  # before it is known to anybody: who connects takes it over
        self._listener.bind(("127.0.0.1", self._port))
        self._listener.listen()
        self._tasks.create_task(self._accept(self._listener))

    def _cut(self) -> None:
        for end in self._open:
            with contextlib.suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                end.shutdown(socket.SHUT_RDWR)  # wakes whoever reads or writes it
        if self._listener is not None:
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the accepting task, which closes it
            self._listener = None

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        with listener, contextlib.suppress(OSError):
            while True:
                near, _ = await loop.sock_accept(listener)
                self._tasks.create_task(self._connect(near))

    async def _connect(self, near: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        far = socket.socket()
        for end in (near, far):
            end.setblocking(False)
        _shrink(far)
        self._open |= {near, far}
        with near, far:
            try:
                await loop.sock_connect(far, ("127.0.0.1", self._target))
                ways = [asyncio.create_task(self._pass(*ends)) for ends in ((near, far), (far, near))]
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
                for way in ways:
                    way.cancel()
                await asyncio.wait(ways)
            except OSError:
                pass  # nobody listens there
            finally:
                self._open -= {near, far}

    async def _pass(self, source: socket.socket, target: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError):
            while True:
                await self._may_pass()
                data = await loop.sock_recv(source, BUFFER)
                if not data:
                    return
                await self._may_pass()
                await loop.sock_sendall(target, data)
                if self._mode is Mode.SLOW:
                    await asyncio.sleep(SLOW_SECONDS)

    async def _may_pass(self) -> None:
        while self._mode is Mode.STALL:
            self._changed.clear()
            await self._changed.wait()


def _shrink(end: socket.socket) -> None:
    for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        end.setsockopt(socket.SOL_SOCKET, option, BUFFER)
    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, SEGMENT)


async def main() -> None:
    commands = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    proxy = Proxy(int(sys.argv[1]), int(sys.argv[2]))
    await proxy.run(commands)


if __name__ == "__main__":
    asyncio.run(main())
