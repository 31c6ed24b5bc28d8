# SPDX-License-Identifier: Apache-2.0
"""The room that carries out intents, and ends installations whose time limit is over.

What is to be done stands in the database alone: a panel that was killed takes it up at its start. What fails is
tried again, with a growing pause; one node does one thing at a time, so that a node that hangs holds up no other.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from vmwatch.panel import register_installation, shown_installation
from vmwatch.panel.domains import Doubt, NotDone, NotReached

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from vmwatch.panel.domains import Domains
    from vmwatch.panel.shown_installation import Intent
    from vmwatch.panel.store import Store

FIRST_PAUSE: Final = 1.0  # seconds to the second try; each pause is twice the one before
LONGEST_PAUSE: Final = 60.0
DOUBT_SECONDS: Final = 10.0  # for the events of a domain that may have been started to arrive
PATIENCE_SECONDS: Final = 30.0  # a node may be away for so long before a person is told
SHORTEST_WAIT: Final = 0.2  # to a time limit
LONGEST_WAIT: Final = 30.0  # the wall clock, which time limits go by, may be set

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Try:
    """How far one intent is. `due` on the loop's clock. `is_repeated`: it may have been done before."""

    due: float = 0.0
    pause: float = FIRST_PAUSE
    is_repeated: bool = False

    def postpone(self, *, now: float) -> None:
        """Try again later, and later each time."""
        self.due = now + self.pause
        self.pause = min(2 * self.pause, LONGEST_PAUSE)


class Intents:
    """All open intents. `run` is the room."""

    def __init__(self, store: Store, domains: Domains, *, clock: Callable[[], int]) -> None:
        """`clock` gives milliseconds since 1970."""
        self._store = store
        self._domains = domains
        self._clock = clock
        self._tries: dict[int, _Try] = {}
        self._under_way: dict[int, int | None] = {}  # intent -> node
        self._changed = asyncio.Event()

    def wake(self) -> None:
        """Something may have changed: to be called after each commit, of which most are none of this room's."""
        if shown_installation.has_intents(self._store.connection):
            self._changed.set()

    async def run(self) -> None:
        """Carry out what there is, until it is cancelled."""
        for intent in shown_installation.open_intents(self._store.connection):
            self._tries[intent.id] = _Try(is_repeated=True)  # nobody knows how far it was
        async with asyncio.TaskGroup() as group:  # a bug in one of them ends the room
            while True:
                self._changed.clear()
                self._expire()
                for intent in self._due():
                    self._under_way[intent.id] = intent.hostnode
                    group.create_task(self._try(intent, self._tries[intent.id]))
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._changed.wait(), self._seconds_to_wait())

    def _expire(self) -> None:
        try:
            register_installation.expire(self._store, now=self._clock())
        except sqlite3.Error as error:  # a full disk: the next round finds it again
            log.warning("cannot end what is over its time: reason=%s", error)

    def _due(self) -> Iterator[Intent]:
        """What is to be tried now; ask for the next one when this one is under way."""
        intents = shown_installation.open_intents(self._store.connection)
        self._tries = {intent.id: self._tries.get(intent.id) or _Try() for intent in intents}
        now = asyncio.get_running_loop().time()
        for intent in intents:
            is_free = intent.id not in self._under_way and intent.hostnode not in self._under_way.values()
            if is_free and self._tries[intent.id].due <= now:
                yield intent

    def _seconds_to_wait(self) -> float:
        now = asyncio.get_running_loop().time()
        waits = [tried.due - now for number, tried in self._tries.items() if number not in self._under_way]
        deadline = shown_installation.next_deadline(self._store.connection)
        if deadline is not None:
            waits.append(max(SHORTEST_WAIT, (deadline - self._clock()) / 1000))
        # One that is due, but waits for its node, is woken by the end of what that node does.
        return min([LONGEST_WAIT, *(seconds for seconds in waits if seconds > 0)])

    async def _try(self, intent: Intent, tried: _Try) -> None:
        now = asyncio.get_running_loop().time
        try:
            await self._domains.carry_out(intent, is_repeated=tried.is_repeated)
            register_installation.close(self._store, intent.id, now=self._clock())
            log.info("done: vm=%s action=%s", intent.name, intent.action)
        except Doubt:
            tried.is_repeated, tried.due = False, now() + DOUBT_SECONDS
        except (NotReached, NotDone, sqlite3.Error) as error:
            log.warning("not done, tried again: vm=%s action=%s reason=%s", intent.name, intent.action, error)
            tried.is_repeated = not isinstance(error, NotDone)
            tried.postpone(now=now())
            self._tell(intent, error)
        finally:
            del self._under_way[intent.id]
            self._changed.set()

    def _tell(self, intent: Intent, error: Exception) -> None:
        now = self._clock()
        has_waited = now - intent.created >= PATIENCE_SECONDS * 1000
        # That a node is unreachable is a problem already, and its own.
        is_problem = isinstance(error, NotDone) or (has_waited and not intent.unreachable)
        with suppress(sqlite3.Error):  # a full disk, which others tell of
            register_installation.fail(self._store, intent.id, str(error), tell=is_problem, now=now)
