# SPDX-License-Identifier: Apache-2.0
"""Blocking calls that may never return, made beside the event loop and given up on after a deadline.

Not asyncio's executor: that one is joined when the loop and the interpreter end, so that one call that hangs
(a frozen libvirtd, a wedged QEMU) would hang the service's end too. A thread cannot be ended from outside;
these are daemon threads, one a call, and no more than `limit` of them are ever out.
"""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class Patience:
    """Makes blocking calls in threads of their own. `name` is the threads'."""

    def __init__(self, *, name: str, limit: int) -> None:
        """`limit`: how many calls may be out at once, those that were given up on and still hang included."""
        self._name = name
        self._limit = limit
        self._out: set[Future[Any]] = set()

    async def call(
        self, call: Callable[[], T], *, seconds: float | None, discard: Callable[[T], object] = lambda _: None
    ) -> T:
        """What `call` returns or raises; TimeoutError after `seconds`, if any, or at once when too many are out.

        A result that comes too late, or that a cancelled caller no longer takes, goes to `discard`.
        """
        if len(self._out) >= self._limit:
            raise TimeoutError(f"{self._name}: an earlier call has not returned yet")
        outcome: Future[T] = Future()
        self._out.add(outcome)
        arguments = (call, outcome, discard)
        threading.Thread(target=self._make, args=arguments, name=self._name, daemon=True).start()
        return await _outcome(outcome, seconds, discard)

    def _make(self, call: Callable[[], T], outcome: Future[T], discard: Callable[[T], object]) -> None:
        try:
            value = call()
        except Exception as error:  # noqa: BLE001 (a thread's root: the error is the waiting task's)
            self._out.discard(outcome)  # before anybody hears of it, and makes the next call
            with suppress(InvalidStateError):
                outcome.set_exception(error)
            return
        self._out.discard(outcome)
        try:
            outcome.set_result(value)
        except InvalidStateError:  # given up on
            discard(value)


async def _outcome(outcome: Future[T], seconds: float | None, discard: Callable[[T], object]) -> T:
    loop = asyncio.get_running_loop()
    done = asyncio.Event()
    outcome.add_done_callback(lambda _: loop.call_soon_threadsafe(done.set))
    try:
        async with asyncio.timeout(seconds):
            await done.wait()
    except BaseException:
        # From cancel() on, the thread discards its result; if it was the faster one, we do.
        if not outcome.cancel() and outcome.exception() is None:
            discard(outcome.result())
        raise
    return outcome.result()
