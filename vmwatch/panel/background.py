# SPDX-License-Identifier: Apache-2.0
"""Work beside the answers: one coroutine a room, for as long as the panel runs.

A room tries again by itself what others fail at (a node, a service). What it raises is a bug: it is logged with
its traceback, and the panel ends, so that whoever supervises it starts it anew.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping

    Room = Callable[[], Coroutine[Any, Any, None]]

END_SECONDS: Final = 1.0  # for what a room must bring to its end once it is cancelled

log = logging.getLogger(__name__)


class Background:
    """The rooms' tasks, by name. An async context manager: inside of it they run, after it none is left."""

    def __init__(self, rooms: Mapping[str, Room], *, on_failure: Callable[[], None]) -> None:
        """`on_failure` is called, in the loop, for each room that raised."""
        self._rooms = rooms
        self._on_failure = on_failure
        self._tasks: set[asyncio.Task[None]] = set()
        self.failed = False
        """Whether a room raised."""

    async def __aenter__(self) -> Self:
        """Start them."""
        for name, room in self._rooms.items():
            task = asyncio.create_task(room(), name=name)
            task.add_done_callback(self._ended)
            self._tasks.add(task)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Cancel them, and wait until they have ended."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            late = (await asyncio.wait(self._tasks, timeout=END_SECONDS))[1]
            for task in late:
                log.error("does not end: room=%s", task.get_name())

    def _ended(self, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            return
        error = task.exception()
        if error is not None:
            log.critical("unexpected: room=%s", task.get_name(), exc_info=error)
            self.failed = True
            self._on_failure()
