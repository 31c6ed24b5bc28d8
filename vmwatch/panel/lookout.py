# SPDX-License-Identifier: Apache-2.0
"""The room that looks after VMs that are being installed and of which nothing is heard.

Where vmwatch-node is away while a guest starts and reboots, nobody tells of either: for the node the VM was off,
and is off. The panel, which had started it, then looks at the node's libvirt itself. What it finds it does not
count, for the events may only be late; but a person is told now, and not when the time limit is over.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from typing import TYPE_CHECKING, Final

from vmwatch.panel import register_installation, shown_installation
from vmwatch.panel.domains import NotDone, NotReached

if TYPE_CHECKING:
    from collections.abc import Callable

    from vmwatch.panel.domains import Domains
    from vmwatch.panel.shown_installation import Unheard
    from vmwatch.panel.store import Store

QUIET_SECONDS: Final = 60.0  # events come within a second, and within 15 s where the node must find them
PAUSE: Final = 15.0  # between two looks

log = logging.getLogger(__name__)


class Lookout:
    """`run` is the room."""

    def __init__(self, store: Store, domains: Domains, *, clock: Callable[[], int]) -> None:
        """`clock` gives milliseconds since 1970."""
        self._store = store
        self._domains = domains
        self._clock = clock

    async def run(self) -> None:
        """Look now and then, until it is cancelled."""
        while True:
            await asyncio.sleep(PAUSE)
            await self.look()

    async def look(self) -> None:
        """Look at each of them once."""
        before = self._clock() - round(QUIET_SECONDS * 1000)
        unheard = shown_installation.unheard(self._store.connection, before=before)
        await asyncio.gather(*(self._look_at(vm) for vm in unheard))

    async def _look_at(self, vm: Unheard) -> None:
        try:
            if await self._domains.is_off(vm):
                register_installation.miss(self._store, vm.vm, now=self._clock())
        except (NotReached, NotDone, sqlite3.Error) as error:  # the next look will tell
            log.warning("not looked at: vm=%s reason=%s", vm.name, error)
