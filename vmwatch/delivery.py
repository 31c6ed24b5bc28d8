# SPDX-License-Identifier: Apache-2.0
"""The calls that wait in the ledger are made: in order for each key (a VM), several keys side by side.

What an answer means (the contract's *How errors are taken*): unavailable, try again for as long as it takes; missed,
try again for a minute, for the panel may be creating that VM; refused, put aside with a problem. What is put aside is
never made later: newer calls have told more by then.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final, Never

from vmwatch import problems
from vmwatch.errors import Missed, PanelError, Unavailable
from vmwatch.throttle import Throttle
from vmwatch.workers import Workers

if TYPE_CHECKING:
    from collections.abc import Callable

    from vmwatch.ledger import Call, Ledger, Transaction
    from vmwatch.vmmanager import Panel

WORKERS: Final = 4
"""Calls made side by side."""

MISSED_SECONDS: Final = 60.0
"""How long a VM that the panel does not know may still be on its way into it."""

STOP_SECONDS: Final = 3.0
"""How long calls that are under way may hold up the end of the service."""

_MISSED_PAUSE: Final = 1.0
_PAUSES: Final = (
    0.1,
    0.2,
    0.4,
    0.8,
    1.0,
)  # s, after the first, second, ... call in a row that was not answered
_WARNING_SECONDS: Final = 60.0

_UnderWay = dict[asyncio.Future[PanelError | None], "Call"]

log = logging.getLogger(__name__)


class Delivery:
    """Makes the calls. `wake` it when the ledger has new ones."""

    def __init__(
        self, ledger: Ledger, *, open_panel: Callable[[], Panel], clock: Callable[[], float]
    ) -> None:
        """`open_panel` opens one session with the panel, for one thread. `clock`: monotonic seconds."""
        self.made = 0
        self._ledger = ledger
        self._clock = clock
        self._news = asyncio.Event()
        self._failures = 0  # in a row, of calls that were not answered
        self._resume = 0.0  # not before, by the clock
        self._warnings = Throttle(seconds=_WARNING_SECONDS)
        self._unknown_functions: set[str] = set()
        self._workers = Workers(WORKERS, open_panel=open_panel)

    def wake(self) -> None:
        """The ledger has new calls."""
        self._news.set()

    async def run(self) -> Never:
        """Make calls, until cancelled. Those under way have a moment then; what is not known is made again."""
        under_way: _UnderWay = {}
        try:
            while True:
                self._news.clear()
                self._start(under_way)
                await self._something(under_way)
                self._settle(under_way)
        finally:
            if under_way:
                await asyncio.wait(under_way, timeout=STOP_SECONDS)
                self._settle(under_way)
            self._workers.close()

    def _start(self, under_way: _UnderWay) -> None:
        """Give the free workers the calls that are due. While the panel does not answer, one call tries it."""
        free = (WORKERS if self._failures == 0 else 1) - len(under_way)
        if free <= 0 or self._clock() < self._resume:
            return
        busy = {call.key for call in under_way.values()}
        waiting = [call for call in self._ledger.due(limit=WORKERS + len(busy)) if call.key not in busy]
        for call in waiting[:free]:
            under_way[self._workers.make(call)] = call

    async def _something(self, under_way: _UnderWay) -> None:
        """Wait for an answer, a new call, or the time of one that is to be made again."""
        news = asyncio.create_task(self._news.wait())
        anything: list[asyncio.Future[Any]] = [news, *under_way]
        try:
            await asyncio.wait(anything, timeout=self._pause(), return_when=asyncio.FIRST_COMPLETED)
        finally:
            news.cancel()

    def _pause(self) -> float | None:
        due = self._ledger.next_due()
        return None if due is None else max(0.01, due - self._clock(), self._resume - self._clock())

    def _settle(self, under_way: _UnderWay) -> None:
        """Keep what became of the calls that were answered, in one commit."""
        answered = [future for future in under_way if future.done()]
        if not answered:
            return
        with self._ledger.transaction() as transaction:
            for future in answered:
                self._keep(transaction, under_way[future], future.result())
        for future in answered:
            del under_way[future]

    def _keep(self, transaction: Transaction, call: Call, error: PanelError | None) -> None:
        if isinstance(error, Unavailable):
            self._failures += 1
            pause = _PAUSES[min(self._failures, len(_PAUSES)) - 1]
            self._resume = self._clock() + pause
            transaction.postpone(call, due=self._resume, missed_since=call.missed_since)
            self._warn("the panel is unavailable, calls wait", call, error)
            return
        self._failures, self._resume = 0, 0.0
        if error is None:
            self.made += 1
            transaction.done(call)
        elif isinstance(error, Missed):
            self._missed(transaction, call, error)
        else:
            self._refused(transaction, call, error)

    def _missed(self, transaction: Transaction, call: Call, error: PanelError) -> None:
        if call.func != "vm.event":
            if call.func not in self._unknown_functions:
                self._unknown_functions.add(call.func)
                log.info("the panel does not know a function, it is not called: func=%s", call.func)
            transaction.done(call)
            return
        since = call.missed_since if call.missed_since is not None else self._clock()
        if self._clock() - since < MISSED_SECONDS:
            transaction.postpone(call, due=self._clock() + _MISSED_PAUSE, missed_since=since)
            return
        transaction.park(call, str(error))
        name = call.fields["name"]
        text = "the panel does not know this VM: what happens to it is not shown"
        problems.begin(transaction, "vm_unknown", int(call.fields["hostnode"]), name=name, text=text)

    def _refused(self, transaction: Transaction, call: Call, error: PanelError) -> None:
        transaction.park(call, str(error))
        self._warn("the panel refused a call, it is put aside", call, error)
        if call.func == "vm.event":  # a problem about a refused problem would be refused, without end
            name = call.fields["name"]
            node = int(call.fields["hostnode"])
            problems.begin(transaction, "call_refused", node, name=name, text=f"{call.func}: {error}")

    def _warn(self, phrase: str, call: Call, error: PanelError) -> None:
        held = self._warnings.admit(phrase, now=self._clock())
        if held is not None:
            log.warning("%s: func=%s error=%s held_back=%d", phrase, call.func, error, held)
