# SPDX-License-Identifier: Apache-2.0
"""libvirt's event loop within asyncio, where another thread changes what is watched."""

from __future__ import annotations

import asyncio
import selectors
import socket
import threading
from contextlib import closing
from typing import TYPE_CHECKING

import libvirt
import pytest

from vmwatch.libvirt_loop import LibvirtLoop

if TYPE_CHECKING:
    from collections.abc import Callable

SECONDS = 5.0  # to hear what is there already


class Interrupted(selectors.DefaultSelector):
    """Has something happen when the loop returns from its wait, before it looks at what it found."""

    def __init__(self) -> None:
        super().__init__()
        self.interruption: Callable[[], None] | None = None

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        found = super().select(timeout)
        interruption = self.interruption
        if interruption is not None and any(mask & selectors.EVENT_READ for _, mask in found):
            self.interruption = None
            thread = threading.Thread(target=interruption)
            thread.start()
            thread.join()
        return found


@pytest.mark.parametrize("turns", [1, 2])
def test_a_connection_is_heard_though_another_thread_made_a_call_while_the_loop_woke_up(turns: int) -> None:
    """As a call does: it reads by itself, and gives the descriptor back, here before asyncio has seen either."""
    selector = Interrupted()

    async def hear() -> None:
        implementation = LibvirtLoop(asyncio.get_running_loop())
        heard = asyncio.Event()

        def read(_watch: int, _fd: int, _event: int, _opaque: object) -> None:
            here.recv(1)
            heard.set()

        def call() -> None:
            for _ in range(turns):
                implementation._update_handle(watch, 0)
                implementation._update_handle(watch, libvirt.VIR_EVENT_HANDLE_READABLE)

        here, there = socket.socketpair()
        with closing(here), closing(there):
            readable = libvirt.VIR_EVENT_HANDLE_READABLE
            watch = implementation._add_handle(here.fileno(), readable, read, None)
            selector.interruption = call
            there.send(b"x")
            async with asyncio.timeout(SECONDS):
                await heard.wait()
            assert selector.interruption is None
            asyncio.get_running_loop().remove_reader(here.fileno())

    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selector)) as runner:
        runner.run(hear())
