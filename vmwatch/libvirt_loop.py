# SPDX-License-Identifier: Apache-2.0
"""libvirt's event loop within asyncio: one a process, safe for threads."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, Final

import libvirt
import libvirtaio

if TYPE_CHECKING:
    from collections.abc import Callable

# A frozen libvirtd is noticed by keepalive alone, after interval x (count + 1) = 6 s. No setting: shorter ones
# would cut healthy connections of a busy host, longer ones would only lengthen the time of false statuses.
KEEPALIVE_SECONDS: Final = 2
KEEPALIVE_COUNT: Final = 2


class LibvirtLoop(libvirtaio.virEventAsyncIOImpl):  # type: ignore[misc] # libvirtaio has no types
    """libvirt's own asyncio implementation, made safe for the threads that libvirt calls it from.

    A thread that waits for libvirtd's answer handles what else comes meanwhile, and so arms and disarms timers,
    in asyncio: tasks. These go to the loop's thread. Descriptors are watched and let go at once: one that libvirt
    removes must be gone before its number is used again, and the kernel's epoll takes changes from any thread.
    """

    loop: asyncio.AbstractEventLoop

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """`loop` is the running one."""
        super().__init__(loop)
        self._freeing: set[asyncio.Task[None]] = set()
        self._wanted: dict[int, int] = {}  # timer -> timeout, as other threads want it
        self._lock = threading.Lock()
        self._watching = threading.RLock()  # who changes what is watched
        self.join(loop)

    def join(self, loop: asyncio.AbstractEventLoop) -> None:
        """Serve this loop, which runs in the caller's thread, from now on."""
        if loop is not self.loop:
            self._wanted = {}  # which a loop that was closed did not come to
        self.loop = loop
        self._thread = threading.get_ident()

    async def fire(self) -> None:
        """Return when no timer is due: by such a one libvirt hands over the events that it has read.

        One that is armed again and again has no end: wait with a deadline.
        """
        await asyncio.sleep(0)  # what other threads have armed is armed
        while self._has_due():  # noqa: ASYNC110 (of a timer, nobody is told that it fired)
            await asyncio.sleep(0)

    def _has_due(self) -> bool:
        callbacks = list(self.callbacks.values())  # at once: other threads add to them
        return any(getattr(callback, "timeout", None) == 0 for callback in callbacks)

    async def settle(self) -> None:
        """Return when all that closed connections left is freed.

        Not libvirtaio's `drain`: that one waits for what open connections hold, too.
        """
        await asyncio.gather(*self._freeing)

    def schedule_ff_callback(self, iden: int, opaque: object) -> None:
        """Free `opaque` in a moment: libvirt still holds its locks now."""
        self._in_loop(self._free, iden, opaque)

    def _free(self, iden: int, opaque: object) -> None:
        task = self.loop.create_task(self._ff_callback(iden, opaque))
        self._freeing.add(task)
        task.add_done_callback(self._freeing.discard)

    def _add_handle(self, fd: int, event: int, cb: Callable[..., object], opaque: object) -> int:
        if self.loop.is_closed():
            return -1  # libvirt then does without events and keepalive on this connection
        with self._watching:
            watch: int = super()._add_handle(fd, event, cb, opaque)
        return watch

    def _update_handle(self, watch: int, event: int) -> None:
        """A thread that waits for an answer reads by itself, and gives the descriptor back when it has it."""
        with self._watching:
            super()._update_handle(watch, event)
        if event and threading.get_ident() != self._thread:
            self._in_loop(self._watch_again, watch)

    def _watch_again(self, watch: int) -> None:
        """A loop that had just returned from its wait takes the descriptor for one that nobody watches any more.

        asyncio then takes away what has been added since: `_process_events` looks at the callback that it found, and
        cancelled means to it that there is none. Nothing of this connection would be heard until its next call.
        """
        with self._watching:
            callback = self.callbacks.get(watch)
            if callback is not None:  # not removed meanwhile
                callback.descriptor.update()

    def _remove_handle(self, watch: int) -> int:
        with self._watching:
            outcome: int = super()._remove_handle(watch)
        return outcome

    def _add_timeout(self, timeout: int, cb: Callable[..., object], opaque: object) -> int:
        timer: int = super()._add_timeout(-1, cb, opaque)
        self._update_timeout(timer, timeout)
        return timer

    def _update_timeout(self, timer: int, timeout: int) -> None:
        if threading.get_ident() == self._thread:
            self._in_loop(self._arm, timer, timeout)
            return
        with self._lock:
            is_first = not self._wanted
            self._wanted[timer] = timeout
        if is_first:  # libvirt does this with each message that it reads: one wake-up does for all of them
            self._in_loop(self._arm_wanted)

    def _remove_timeout(self, timer: int) -> int:
        callback = self.callbacks.pop(timer, None)
        if callback is None:
            return -1
        callback.cb = _ignore  # from now on it must not fire, though its task ends a moment later
        self._in_loop(callback.close)
        return 0

    def _arm_wanted(self) -> None:
        with self._lock:
            wanted, self._wanted = self._wanted, {}
        for timer, timeout in wanted.items():
            self._arm(timer, timeout)

    def _arm(self, timer: int, timeout: int) -> None:
        callback = self.callbacks.get(timer)
        if callback is not None:  # not removed meanwhile
            callback.update(timeout=timeout)

    def _in_loop(self, call: Callable[..., object], *arguments: object) -> None:
        if self.loop.is_closed():
            return  # the process ends: nobody waits for a timer, and the kernel frees the rest
        if threading.get_ident() == self._thread:
            call(*arguments)
            return
        with suppress(RuntimeError):  # closed in this very moment
            self.loop.call_soon_threadsafe(call, *arguments)


def join_loop() -> LibvirtLoop:
    """Have libvirt served by the running loop. Before every connection: one that is opened earlier is deaf."""
    implementation = _implementation()
    implementation.join(asyncio.get_running_loop())
    return implementation


@cache
def _implementation() -> LibvirtLoop:
    # libvirt takes one implementation a process, and only before the first connection.
    implementation = LibvirtLoop(asyncio.get_running_loop())
    implementation.register()
    libvirt.registerErrorHandler(_ignore, None)  # else libvirt writes every error to standard error
    return implementation


def _ignore(*_: object) -> None:
    pass
