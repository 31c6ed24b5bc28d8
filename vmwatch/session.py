# SPDX-License-Identifier: Apache-2.0
"""What a node says to the master, session after session. Knows the outbox, and no socket.

A session opens with a hello, sends again from the window back, then what is new as it comes, then, once, the known
set. In between go heartbeats and statistics, of which only the latest is ever kept.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from typing import TYPE_CHECKING, Final, Never

from vmwatch.messages import Body, Gap, Heartbeat, Hello, KnownDomain, KnownSet, LibvirtState, Statistics
from vmwatch.protocol import Envelope, Kind, Run, fits, seal
from vmwatch.strict import encode

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from datetime import datetime

    from vmwatch.outbox import Outbox, Record

    _Send = Callable[[bytes], Awaitable[None]]

_READ: Final = 64  # records; a session looks for heartbeats and statistics between two readings
_FORGET_EVERY: Final = 1024  # records sent between two cleanings of the outbox

log = logging.getLogger(__name__)


class Stream:
    """The node's voice. `run` it over one connection after the other; `wake` it when the outbox has grown."""

    def __init__(
        self,
        outbox: Outbox,
        *,
        node: int,
        signature: bytes,
        hello: Hello,
        heartbeat_seconds: float,
        clock: Callable[[], datetime],
    ) -> None:
        self.libvirt: LibvirtState | None = None
        """How the node stands with libvirt; None: not known yet, and no heartbeat says anything."""
        self.not_responding: tuple[str, ...] = ()
        """The names of the VMs whose QEMU does not answer libvirt."""
        self._outbox = outbox
        self._node = node
        self._signature = signature
        self._hello = hello
        self._interval_ms = round(heartbeat_seconds * 1000)
        self._clock = clock
        self._counter = itertools.count()
        self._sent = 0  # the id of the last record that any session sent
        self._forgotten = 0
        self._news = asyncio.Event()
        self.idle = asyncio.Event()
        """Set while a session has nothing left to say."""
        self._heartbeat_due = False
        self._known_due = False
        self._statistics: Statistics | None = None

    def wake(self) -> None:
        """The outbox has new records."""
        self.idle.clear()
        self._news.set()

    def beat(self) -> None:
        """A heartbeat is due, or what it says has changed."""
        self._heartbeat_due = True
        self.wake()

    def offer(self, statistics: Statistics) -> None:
        """Send these statistics, which replace any that were not sent yet, and the known set again.

        The known set corrects what a record that could not be read, or was dropped, has left wrong.
        """
        self._statistics = statistics
        self._known_due = True
        self.wake()

    async def run(self, send: _Send) -> Never:
        """One session over a fresh connection. Ends by cancellation, or by what `send` raises."""
        try:
            await self._speak(send)
        finally:
            self.idle.clear()

    async def _speak(self, send: _Send) -> Never:
        sent = self._outbox.window_before(self._sent)
        # So that no later session, of another process, begins before this one: it may be a master's baseline.
        self._forget(up_to=sent)
        await self._send(send, Kind.HELLO, self._hello, *self._first_after(sent))
        self.beat()
        self._known_due = True
        while True:
            self._news.clear()
            records = self._outbox.read(after=sent, limit=_READ)
            for record in records:
                await send(self._sealed(record))
                sent = record.id
                self._sent = max(self._sent, sent)
            await self._send_latest(send)
            if self._sent - self._forgotten >= _FORGET_EVERY:
                self._forget(up_to=self._outbox.window_before(self._sent))
            await asyncio.sleep(0)  # others have their turn, though `send` never waits
            if records or self._news.is_set():
                continue
            if self._known_due and self.libvirt is LibvirtState.CONNECTED:
                self._known_due = False
                await self._send_known(send)
            if not self._news.is_set():
                self.idle.set()
            await self._news.wait()

    def _first_after(self, sent: int) -> tuple[Run, int]:
        """Run and number of the first record that this session sends."""
        for record in self._outbox.read(after=sent, limit=1):
            return record.run, record.seq - record.span + 1
        return self._outbox.run, self._outbox.top + 1

    def _sealed(self, record: Record) -> bytes:
        kind, body = record.kind, record.body
        if not fits(body):
            log.error("record not sent, too large: seq=%d bytes=%d", record.seq, len(body))
            kind, body = Kind.GAP, encode(Gap(count=record.span, reason=f"a body of {len(body)} bytes"))
        envelope = Envelope(node=self._node, run=record.run, seq=record.seq, span=record.span, kind=kind)
        return seal(envelope, body, self._signature)

    async def _send_known(self, send: _Send) -> None:
        """What the node knows, once it has compared it with libvirt's list.

        Nothing may be appended between reading the top and the known set: no await in between.
        """
        domains = tuple(
            KnownDomain(uuid=uuid, name=known.name, state=known.state)
            for uuid, known in sorted(self._outbox.known.items())
        )
        await self._send(send, Kind.KNOWN, KnownSet(domains=domains), self._outbox.run, self._outbox.top)

    async def _send_latest(self, send: _Send) -> None:
        if self._heartbeat_due and self.libvirt is not None:
            self._heartbeat_due = False
            heartbeat = Heartbeat(
                top=self._outbox.top,
                time=self._clock(),
                interval_ms=self._interval_ms,
                libvirt=self.libvirt,
                not_responding=self.not_responding,
            )
            await self._send(send, Kind.HEARTBEAT, heartbeat, self._outbox.run, next(self._counter))
        statistics = self._statistics
        if statistics is not None:
            await self._send(send, Kind.STATISTICS, statistics, self._outbox.run, next(self._counter))
            if self._statistics is statistics:  # else newer ones came meanwhile
                self._statistics = None

    async def _send(self, send: _Send, kind: Kind, body: Body, run: Run, seq: int) -> None:
        """Send what is no record of the stream."""
        encoded = encode(body)
        if not fits(encoded):
            log.error("not sent, too large: kind=%s bytes=%d", kind.name.lower(), len(encoded))
            return
        await send(seal(Envelope(node=self._node, run=run, seq=seq, kind=kind), encoded, self._signature))

    def _forget(self, *, up_to: int) -> None:
        self._forgotten = self._sent
        self._outbox.forget(up_to=up_to)
