# SPDX-License-Identifier: Apache-2.0
"""From libvirt into the outbox: what it tells, and what its list shows and it did not tell."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from vmwatch.libvirt_loop import KEEPALIVE_COUNT, KEEPALIVE_SECONDS
from vmwatch.messages import Event, Source
from vmwatch.snapshot import Finding, completed, differences

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from vmwatch.hypervisor import DomainEvent, Hypervisor
    from vmwatch.outbox import Outbox

_REREAD_SECONDS: Final = 0.2  # between two readings of the list, while events keep coming
_STRAGGLER_SECONDS: Final = 0.05
"""How long after the list an event may come that is older than it.

libvirtd sends the two from different threads, and at our end an event takes two more rounds of the loop. Taken for
a newer one, it would tell a change that the comparison has told already.
"""

_NOTICED: Final = timedelta(seconds=KEEPALIVE_SECONDS * (KEEPALIVE_COUNT + 1))
"""How long libvirtd may have been gone until that is noticed."""

log = logging.getLogger(__name__)


class Recorder:
    """Keeps events, in libvirt's order. `on_kept` is called when the outbox has grown."""

    def __init__(self, outbox: Outbox, *, on_kept: Callable[[], None], clock: Callable[[], datetime]) -> None:
        self._outbox = outbox
        self._on_kept = on_kept
        self._clock = clock
        self._heard: list[DomainEvent] = []
        self._touched: set[str] = set()  # had an event since the list's reading began
        self._news = asyncio.Event()

    def hear(self, event: DomainEvent) -> None:
        """Take an event from libvirt's callback; it is kept a moment later, when the loop comes to it."""
        self._heard.append(event)
        self._touched.add(event.uuid)
        self._news.set()

    async def run(self) -> None:
        """Keep what is heard, until cancelled. Raises StorageError."""
        while True:
            await self._news.wait()
            self.keep()

    def keep(self) -> None:
        """Keep all that was heard so far, in one commit."""
        self._news.clear()
        heard, self._heard = self._heard, []
        if heard:
            events = completed(self._outbox.known, heard, now=self._clock(), since=self._since())
            self._append([_as_event(event) for event in events])

    async def compare(self, hypervisor: Hypervisor) -> None:
        """Find what no event told, and keep it. VMs that change meanwhile are read again."""
        settled: set[str] = set()  # compared, or told of by events that came after the comparison
        since = self._since()
        while True:
            self._touched.clear()
            domains = await hypervisor.list_domains()
            await asyncio.sleep(_STRAGGLER_SECONDS)
            self.keep()
            now = self._clock()
            findings = differences(
                self._outbox.known, domains, skip=self._touched | settled, now=now, since=since
            )
            if findings:
                log.info("found what no event told: changes=%d", len(findings))
                self._append([_as_event(finding) for finding in findings])
            if not self._touched:
                break
            settled |= self._outbox.known.keys() - self._touched
            await asyncio.sleep(_REREAD_SECONDS)
        self._outbox.confirm(now)

    def confirm(self) -> None:
        """Keep how long nothing was missed: libvirt is connected, as far as one can know.

        A libvirtd that died or froze is noticed late, and what its guests did meanwhile was not heard.
        """
        now = self._clock()
        heard = now - _NOTICED
        confirmed = self._outbox.confirmed
        if confirmed is None or not heard <= confirmed <= now:  # beyond now: the clock was set back
            self._outbox.confirm(heard)

    def _since(self) -> datetime | None:
        """The earliest moment of what no event told; None: not known, for the clock was set back."""
        confirmed = self._outbox.confirmed
        return confirmed if confirmed and confirmed <= self._clock() else None

    def _append(self, events: list[Event]) -> None:
        self._outbox.append(events)
        self._on_kept()


def _as_event(event: DomainEvent | Finding) -> Event:
    return _as_found(event) if isinstance(event, Finding) else _as_told(event)


def _as_told(event: DomainEvent) -> Event:
    return Event(
        uuid=event.uuid,
        name=event.name,
        type=event.type,
        subtype=event.subtype,
        time=event.time,
        cause=event.cause,
        source=Source.EVENT,
        since=None,
        domain_id=event.domain_id,
    )


def _as_found(finding: Finding) -> Event:
    return Event(
        uuid=finding.uuid,
        name=finding.name,
        type=finding.type,
        subtype=finding.subtype,
        time=finding.time,
        cause=None,
        source=Source.SNAPSHOT,
        since=finding.since,
        domain_id=finding.domain_id,
    )
