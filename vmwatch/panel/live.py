# SPDX-License-Identifier: Apache-2.0
"""Pages that change by themselves: a stream of server-sent events for each open page.

A stream is woken by every commit, looks at what its page shows, and sends what differs from what it sent before.
So nothing is queued for it: many commits in a row, or a slow connection, cost one look and one message. The
first message is the whole page, which closes the gap since it was loaded.

Looks take time from the panel's callers. However many pages are open, and however dear their looks are, all of
them together take no more than a share of it: the dearer, the longer a stream pauses.
"""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import Receive, Scope, Send

STREAMS_MOST = 200
PAUSE = 0.1  # seconds between two messages of one stream, at least: as fast as a change can be seen
SHARE = 0.25  # of the panel's time, for all streams together
HEARTBEAT = 15.0  # seconds; a comment, so that a dead connection is found, and the session is kept

_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
]


class View(Protocol):
    """What one open page shows."""

    def changes(self) -> dict[str, Any]:
        """What differs from what the last call gave, for static/live.js; empty when nothing does."""


class Hub:
    """All open streams."""

    def __init__(self) -> None:
        """Nobody looks yet."""
        self._streams: set[asyncio.Event] = set()
        self.closing = False

    def notify(self) -> None:
        """Something may have changed."""
        for wake in self._streams:
            wake.set()

    def close(self) -> None:
        """End all streams, for the panel stops."""
        self.closing = True
        self.notify()

    def is_full(self) -> bool:
        """Whether no more streams are taken."""
        return self.closing or len(self._streams) >= STREAMS_MOST

    def pause(self, spent: float) -> float:
        """For how many seconds a stream rests whose last look took `spent`."""
        return max(PAUSE, spent * len(self._streams) / SHARE)

    def stream(self, view: View, is_allowed: Callable[[], bool]) -> Stream:
        """The answer that streams `view` for as long as `is_allowed` says so."""
        return Stream(self, view, is_allowed)

    def join(self, wake: asyncio.Event) -> None:
        """Set `wake` at every change from now on."""
        self._streams.add(wake)

    def leave(self, wake: asyncio.Event) -> None:
        """The opposite of `join`."""
        self._streams.discard(wake)


class Stream:
    """An ASGI application: one answer that ends when the reader goes, the session ends, or the panel stops."""

    def __init__(self, hub: Hub, view: View, is_allowed: Callable[[], bool]) -> None:
        """Use `Hub.stream`."""
        self._hub = hub
        self._view = view
        self._is_allowed = is_allowed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 (ASGI's signature)
        """Stream until it ends."""
        wake = asyncio.Event()
        gone = asyncio.create_task(_disconnected(receive))
        gone.add_done_callback(lambda _: wake.set())
        self._hub.join(wake)
        try:
            await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
            while not (gone.done() or self._hub.closing) and self._is_allowed():
                await self._send_changes(send)
                with suppress(TimeoutError):
                    await asyncio.wait_for(wake.wait(), HEARTBEAT)
                wake.clear()
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            self._hub.leave(wake)
            gone.cancel()

    async def _send_changes(self, send: Send) -> None:
        begin = time.perf_counter()
        changes = self._view.changes()
        spent = time.perf_counter() - begin
        text = f"data: {json.dumps(changes, ensure_ascii=False)}\n\n" if changes else ": still here\n\n"
        await send({"type": "http.response.body", "body": text.encode("utf-8", "replace"), "more_body": True})
        await asyncio.sleep(self._hub.pause(spent))


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
