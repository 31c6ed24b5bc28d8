# SPDX-License-Identifier: Apache-2.0
"""The calls that wait in the ledger are made: in order for each key (a VM), several keys side by side.

What an answer means is decided in `settling`. A key's next call is made only when what became of the last one is
kept, so that at most one call of each is made again after a kill. Answers are kept together, many in one commit, as
long as the workers have enough to do; none waits for another where they have not.

Nobody waits for the sick: keys whose last call was not answered, or slowly, have workers of their own.
"""

from __future__ import annotations

import asyncio
import logging
import math
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Never

from vmwatch.database import Damaged
from vmwatch.errors import StorageError, Unavailable
from vmwatch.ledger import READ_AT_ONCE
from vmwatch.settling import MISSED_SECONDS, Settling
from vmwatch.turns import Turns
from vmwatch.workers import PATIENCE, Answer, Workers

if TYPE_CHECKING:
    from collections.abc import Callable

    from vmwatch.ledger import Ledger, Transaction
    from vmwatch.vmmanager import Panel

WORKERS: Final = 4
"""Calls made side by side: so many of the keys that are well, and as many of the others."""

_MOST_SLOW: Final = 32
"""Slow calls of keys that were well until then, beside those: so many may fall sick at once and hold up the others
only until each is known to be slow, not until it is given up. A panel that answers nobody has to bear as many."""

STOP_SECONDS: Final = 3.0
"""How long calls that are under way may hold up the end of the service."""

_AHEAD: Final = 64
"""Calls that are read from the ledger before a worker is free for them."""

_TOGETHER_SECONDS: Final = 0.02
"""How long an answer waits for others to be kept with it, while the workers have enough to do: for some 40 calls."""

_PROBE_SECONDS: Final = 0.1
"""Between two calls, while the panel seems to be away."""

_STORAGE_RETRY_SECONDS: Final = 1.0

log = logging.getLogger(__name__)


class Delivery:
    """Makes the calls. `wake` it when the ledger has new ones."""

    def __init__(
        self,
        ledger: Ledger,
        *,
        open_panel: Callable[[], Panel],
        clock: Callable[[], float],
        missed_seconds: float = MISSED_SECONDS,
    ) -> None:
        """`open_panel` opens one session with the panel, for one thread. `clock`: monotonic seconds, the ledger's."""
        self._ledger = ledger
        self._clock = clock
        self._news = asyncio.Event()
        self._turns = Turns()
        self._settling = Settling(clock=clock, missed_seconds=missed_seconds)
        self._given = 0  # calls since the ledger was last read
        self._answers: list[Answer] = []  # that are not kept yet
        self._failing: set[str] = set()  # keys that were not answered since the panel last did
        self._is_answering = False  # whether the panel has answered the last call
        self._probe_at = 0.0  # not before, by the clock, while the panel seems to be away

        def workers(most_slow: int) -> Workers:
            return Workers(WORKERS, most_slow=most_slow, open_panel=open_panel, clock=clock, tell=self.wake)

        self._workers, self._sick_workers = workers(_MOST_SLOW), workers(WORKERS)

    def wake(self) -> None:
        """The ledger has new calls."""
        self._news.set()

    async def run(self) -> Never:
        """Make calls, until cancelled. Those under way have a moment then; what is not known is made again.

        Raises Damaged.
        """
        try:
            while True:
                try:
                    await self._make_calls()
                except Damaged:
                    raise
                except StorageError as error:
                    text = "what the panel answered cannot be kept, no call is made: %s"
                    self._settling.warn("storage", text, error)
                    await asyncio.sleep(_STORAGE_RETRY_SECONDS)
        finally:
            await self._stop()

    async def _make_calls(self) -> Never:
        """Raises StorageError: what was answered is still in `_answers` then."""
        while True:
            self._news.clear()
            self._settle()
            self._workers.relieve()
            self._sick_workers.relieve()
            seconds = self._give_out(now=self._clock())
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._news.wait()

    def _give_out(self, *, now: float) -> float | None:
        """Give the workers calls. Returns in how many seconds to look again, unless there are news before."""
        new = self._read_on(now)
        due = self._turns.come_due(now=now)
        self._give(self._workers, now, most=_AHEAD if self._is_answering else WORKERS)
        self._give(self._sick_workers, now, most=WORKERS, sick=True)
        pauses = [_PROBE_SECONDS if self._is_away() else 0.0] if new else []  # there may be more to be read
        if self._workers.pending or self._sick_workers.pending:
            pauses.append(PATIENCE)
        if self._workers.waiting >= WORKERS:
            pauses.append(_TOGETHER_SECONDS)
        pauses += [time - now for time in (due, self._probe_at) if time is not None and time > now]
        return min(pauses, default=None)

    def _read_on(self, now: float) -> bool:
        """Read further in the ledger, no faster than calls are made. Whether there was more to read.

        Faster while few keys have their turn: what waits for the sick is read past.
        """
        enough = self._turns.ready >= _AHEAD and self._given < READ_AT_ONCE
        if enough or (self._is_away() and now < self._probe_at):
            return False
        self._given = 0
        new = self._ledger.take_new()
        for key in new:
            self._turns.add(key)
        return bool(new)

    def _give(self, workers: Workers, now: float, *, most: int, sick: bool = False) -> None:
        while (
            workers.pending - workers.slow < most
            and now >= self._probe_at
            and (key := self._turns.first(sick=sick))
        ):
            call = self._ledger.first(key)
            if call is None:
                self._turns.drop(key)
                self._settling.forget(key)
                continue
            if call.unreadable:
                with self._ledger.transaction() as transaction:
                    self._settling.put_aside(transaction, call)
                continue
            self._turns.take(key)
            self._given += 1
            workers.make(call)
            if self._is_away():
                self._probe_at = now + _PROBE_SECONDS

    def _is_away(self) -> bool:
        """Whether it seems to be the panel that fails, and not its dealing with one VM."""
        return len(self._failing) >= WORKERS

    def _settle(self) -> None:
        """Keep what became of the calls that were answered, in one commit."""
        self._take_answers()
        if not self._answers:
            return
        with self._ledger.transaction() as transaction:
            for answer in self._answers:
                self._keep(transaction, answer)
        self._answers.clear()

    def _take_answers(self) -> None:
        self._answers += self._workers.take_answers() + self._sick_workers.take_answers()

    def _keep(self, transaction: Transaction, answer: Answer) -> None:
        key = answer.call.key
        self._is_answering = not isinstance(answer.error, Unavailable)
        if self._is_answering:
            self._be_back()
        else:
            self._failing.add(key)
        pause = self._settling.settle(transaction, answer.call, answer.error)
        is_sick = not self._is_answering or answer.seconds > PATIENCE
        if pause is None:
            self._turns.again(key, sick=is_sick)
        else:
            self._turns.put_off(key, due=self._clock() + pause, sick=is_sick)

    def _be_back(self) -> None:
        """The panel has answered. If it seemed to be away, who failed meanwhile may try again at once."""
        if self._is_away():
            self._probe_at = 0.0
            self._turns.come_due(now=math.inf)
        self._failing.clear()

    async def _stop(self) -> None:
        """Let the calls under way come to an end, and keep what they came to."""
        both = (self._workers, self._sick_workers)
        for workers in both:
            workers.stop()
        with suppress(TimeoutError):
            async with asyncio.timeout(STOP_SECONDS):
                self._take_answers()
                while any(workers.pending for workers in both):
                    await self._news.wait()
                    self._news.clear()
                    self._take_answers()
        try:
            self._settle()
        except StorageError as error:  # no reason not to stop as asked: those calls are made again
            log.error("what the panel answered cannot be kept: %s", error)  # noqa: TRY400 (expected)
