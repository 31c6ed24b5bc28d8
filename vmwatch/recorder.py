# SPDX-License-Identifier: Apache-2.0
"""From libvirt into the outbox: what it tells, and what its list shows and it did not tell.

While the outbox cannot be written, for the disk is full, what is heard waits in memory. What is more than that
is forgotten, and found by comparing when there is room again.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import deque
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Final, Never

from vmwatch.database import Damaged
from vmwatch.errors import StorageError
from vmwatch.libvirt_loop import KEEPALIVE_COUNT, KEEPALIVE_SECONDS
from vmwatch.messages import Event, Source
from vmwatch.snapshot import Finding, completed, differences

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import datetime

    from vmwatch.hypervisor import DomainEvent, Hypervisor
    from vmwatch.outbox import Outbox

_READINGS: Final = 5
"""Of the list, at most: a VM that changes all the while tells its state itself, and must not hold up the others."""

_REREAD_SECONDS: Final = 0.2  # between two readings of the list, while events keep coming
_STRAGGLER_SECONDS: Final = 0.05
"""How long after the list an event may come that is older than it.

libvirtd sends the two from different threads, and at our end an event takes two more rounds of the loop. Taken for
a newer one, it would tell a change that the comparison has told already.
"""

_PATIENT_SECONDS: Final = 1.0
"""The same where nobody waits for the comparison: a busy libvirtd may be late by more."""

_AT_ONCE: Final = 512  # events in a commit: one that fails has not cost much

HELD: Final = 10_000
"""So many events are held in memory, 6 MiB or so; beyond it the oldest are forgotten, and the list is compared."""

RETRY_SECONDS: Final = 1.0
"""Between two attempts to write what is held."""

_NOTICED: Final = timedelta(seconds=KEEPALIVE_SECONDS * (KEEPALIVE_COUNT + 1))
"""How long libvirtd may have been gone until that is noticed."""

log = logging.getLogger(__name__)


class Recorder:
    """Keeps events, in libvirt's order. `on_kept` is called when the outbox has grown."""

    def __init__(self, outbox: Outbox, *, on_kept: Callable[[], None], clock: Callable[[], datetime]) -> None:
        self._outbox = outbox
        self._on_kept = on_kept
        self._clock = clock
        self._heard: deque[DomainEvent | Finding] = deque()
        self._touched: set[str] = set()  # had an event since the list's reading began
        self._news = asyncio.Event()
        self._failing = False
        self._forgotten = 0  # events, since the process began
        self._forgotten_compared = 0  # so many of them when the list was last compared
        self._in_doubt = asyncio.Event()

    def hear(self, event: DomainEvent | Finding) -> None:
        """Take an event from libvirt's callback, or what was found beside it.

        It is kept a moment later, when the loop comes to it.
        """
        if len(self._heard) == HELD:
            self._heard.popleft()
            self._forgotten += 1
        self._heard.append(event)
        self._touched.add(event.uuid)
        self._news.set()

    async def run(self) -> Never:
        """Keep what is heard, until cancelled. Raises Damaged."""
        while True:
            await self._news.wait()
            await self._keep_all()

    def keep(self) -> bool:
        """Keep all that was heard so far. False: it cannot be written now. Raises Damaged."""
        self._news.clear()
        while self._heard:
            heard = list(itertools.islice(self._heard, _AT_ONCE))
            events = completed(self._outbox.known, heard, now=self._clock(), since=self._since())
            if not self._append(events):
                self._news.set()
                return False
            for _ in heard:
                self._heard.popleft()
        return True

    async def compare(self, hypervisor: Hypervisor, *, straggler: float = _STRAGGLER_SECONDS) -> None:
        """Find what no event told, and keep it. VMs that change meanwhile are read again."""
        settled: set[str] = set()  # compared, or told of by events that came after the comparison
        since = self._since()
        for reading in itertools.count(1):
            self._touched.clear()
            forgotten = self._forgotten
            domains = await hypervisor.list_domains()
            await asyncio.sleep(straggler)
            await self._keep_all()
            now = self._clock()
            skip = self._touched | settled
            findings = differences(self._outbox.known, domains, skip=skip, now=now, since=since)
            kept = self._tell(findings)
            restless = not self._touched <= settled
            if kept and (not restless or (reading >= _READINGS and forgotten == self._forgotten)):
                break
            if forgotten != self._forgotten:
                settled.clear()  # what was told of them since is forgotten
            elif kept:
                settled |= self._outbox.known.keys() - self._touched
            await asyncio.sleep(_REREAD_SECONDS if kept else RETRY_SECONDS)
        self._forgotten_compared = forgotten
        self._in_doubt.clear()
        self._write(partial(self._outbox.confirm, now))

    def doubt(self) -> None:
        """Have the list compared once more: somebody has reason to think that a change was not told."""
        self._in_doubt.set()

    async def compare_when_in_doubt(self, hypervisor: Hypervisor) -> Never:
        """Compare when asked to, and when what was forgotten can be found. Raises HypervisorLost, Damaged."""
        while True:
            await self._in_doubt.wait()
            await self.compare(hypervisor, straggler=_PATIENT_SECONDS)

    def confirm(self) -> None:
        """Keep how long nothing was missed: libvirt is connected, as far as one can know.

        A libvirtd that died or froze is noticed late, and what its guests did meanwhile was not heard.
        """
        if not self.keep() or self._forgotten != self._forgotten_compared:
            return
        now = self._clock()
        heard = now - _NOTICED
        confirmed = self._outbox.confirmed
        if confirmed is None or not heard <= confirmed <= now:  # beyond now: the clock was set back
            self._write(partial(self._outbox.confirm, heard))

    def _since(self) -> datetime | None:
        """The earliest moment of what no event told; None: not known, for the clock was set back."""
        confirmed = self._outbox.confirmed
        return confirmed if confirmed and confirmed <= self._clock() else None

    async def _keep_all(self) -> None:
        """Return when all that was heard is kept."""
        while not self.keep():  # noqa: ASYNC110 (of a disk, nobody is told that it has room)
            await asyncio.sleep(RETRY_SECONDS)

    def _tell(self, findings: list[Finding]) -> bool:
        if not findings:
            return True
        kept = self._append(findings)
        if kept:
            log.info("found what no event told: changes=%d", len(findings))
        return kept

    def _append(self, events: Iterable[DomainEvent | Finding]) -> bool:
        if not self._write(partial(self._outbox.append, [_as_event(event) for event in events])):
            return False
        if self._forgotten != self._forgotten_compared:
            self._in_doubt.set()
        self._on_kept()
        return True

    def _write(self, write: Callable[[], None]) -> bool:
        """Whether it could be written; what changes is said. Raises Damaged."""
        try:
            write()
        except Damaged:
            raise
        except StorageError as error:
            if not self._failing:
                log.warning(
                    "the outbox cannot be written, what libvirt tells waits in memory: reason=%s", error
                )
            self._failing = True
            return False
        if self._failing:
            forgotten = self._forgotten - self._forgotten_compared
            log.info("the outbox can be written again: waited=%d forgotten=%d", len(self._heard), forgotten)
        self._failing = False
        return True


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
