# SPDX-License-Identifier: Apache-2.0
"""Which domains are gone with their stop: of a transient one libvirt tells no `undefined`.

An event does not say whether its domain is persistent, and one that was may have been undefined while it ran. So
libvirt is asked, after each stop, whether it still has the domain; what it has not is told as undefined, found like
what a comparison finds. docs/decisions/0004
"""

from __future__ import annotations

import asyncio
from itertools import islice
from typing import TYPE_CHECKING, Final, Never

from vmwatch.events import EventType
from vmwatch.snapshot import Finding

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from vmwatch.hypervisor import DomainEvent, Hypervisor
    from vmwatch.outbox import Outbox

_AT_ONCE: Final = 64  # domains in one call: who wants the connection next waits for it

_STRAGGLER_SECONDS: Final = 0.25
"""How long libvirt's own `undefined` may be on its way when it no longer has the domain; measured: 1 ms."""

_RETRY_SECONDS: Final = 1.0


class Transients:
    """Hears every event, and tells by `tell` of domains that went without one."""

    def __init__(
        self, outbox: Outbox, *, tell: Callable[[Finding], None], clock: Callable[[], datetime]
    ) -> None:
        self._outbox = outbox
        self._tell = tell
        self._clock = clock
        self._stopped: dict[str, DomainEvent] = {}  # by uuid: the stop that was its last event
        self._news = asyncio.Event()

    def hear(self, event: DomainEvent) -> None:
        """Take an event from libvirt's callback: a stop is followed, all else says that the domain is not gone."""
        self._stopped.pop(event.uuid, None)
        if event.type == EventType.STOPPED:
            self._stopped[event.uuid] = event
            self._news.set()

    async def follow(self, hypervisor: Hypervisor) -> Never:
        """Ask after each stop, until cancelled. While libvirt does not answer, nobody waits but this."""
        while True:
            await self._news.wait()
            stops = dict(islice(self._stopped.items(), _AT_ONCE))
            try:
                gone = await hypervisor.gone(stops)
            except TimeoutError:
                await asyncio.sleep(_RETRY_SECONDS)
                continue
            if gone:
                await asyncio.sleep(_STRAGGLER_SECONDS)
            for uuid, stop in stops.items():
                if self._stopped.get(uuid) is stop:  # no event since
                    del self._stopped[uuid]
                    # One that is not known any more was found by a comparison meanwhile.
                    if uuid in gone and uuid in self._outbox.known:
                        self._tell(_undefined(stop, self._clock()))
            if not self._stopped:
                self._news.clear()


def _undefined(stop: DomainEvent, now: datetime) -> Finding:
    return Finding(
        uuid=stop.uuid,
        name=stop.name,
        type=EventType.UNDEFINED,
        subtype="removed",
        time=now,
        since=stop.time,
        domain_id=None,
    )
