# SPDX-License-Identifier: Apache-2.0
"""The calls that wait in the ledger are made: in order for each key (a VM), several keys side by side.

What an answer means (the contract's *How errors are taken*): unavailable, try again for as long as it takes; missed,
try again for a minute, for the panel may be creating that VM; refused, put aside with a problem. What is put aside is
never made later: newer calls have told more by then.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Never

from vmwatch import problems
from vmwatch.errors import Missed, PanelError, StorageError, Unavailable
from vmwatch.throttle import Throttle
from vmwatch.turns import Turns
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

_PAUSES: Final = (0.1, 0.2, 0.4, 0.8, 1.0)
"""Seconds until a call is tried again, after it failed once, twice, …"""

_STORAGE_RETRY_SECONDS: Final = 1.0
_WARNING_SECONDS: Final = 60.0

_UnderWay = dict[asyncio.Future[PanelError | None], "Call"]

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Trouble:
    """A key whose first call was not taken: how often it was tried, and since when the panel says `missed`."""

    tries: int = 0
    missed_since: float | None = None

    def pause(self) -> float:
        return _PAUSES[min(self.tries, len(_PAUSES)) - 1]


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
        self._missed_seconds = missed_seconds
        self._news = asyncio.Event()
        self._turns = Turns()
        self._troubles: dict[str, _Trouble] = {}
        self._failing: set[str] = set()  # keys that were not answered since the panel last did
        self._resume = 0.0  # not before, by the clock, while the panel seems to be away
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
                try:
                    await self._make_calls(under_way)
                except StorageError as error:
                    self._warn(
                        "storage", "what the panel answered cannot be kept, no call is made: %s", error
                    )
                    await asyncio.sleep(_STORAGE_RETRY_SECONDS)
        finally:
            if under_way:
                await asyncio.wait(under_way, timeout=STOP_SECONDS)
                self._settle_at_last(under_way)
            self._workers.close()

    async def _make_calls(self, under_way: _UnderWay) -> Never:
        """Raises StorageError: what was answered is still in `under_way` then."""
        while True:
            self._settle(under_way)
            self._news.clear()
            again = self._start(under_way, now=self._clock())
            with suppress(TimeoutError):
                async with asyncio.timeout(None if again is None else again - self._clock()):
                    await self._news.wait()

    def _start(self, under_way: _UnderWay, *, now: float) -> float | None:
        """Make calls whose turn it is. Returns when to look again, unless there are news before; None: then only."""
        for key in self._ledger.take_new():
            self._turns.add(key)
        free = self._most_calls() - len(under_way)
        if free > 0 and now < self._resume:
            return self._resume
        while free > 0 and (turn := self._turns.first(now=now)):
            call = self._ledger.first(turn)
            if call is None:
                self._turns.drop(turn)
                self._troubles.pop(turn, None)
                continue
            self._turns.take(turn)
            answer = self._workers.make(call)
            answer.add_done_callback(lambda _: self._news.set())
            under_way[answer] = call
            free -= 1
        return self._turns.next_due() if free > 0 else None

    def _most_calls(self) -> int:
        """While nobody is answered, one call finds out whether the panel is back."""
        return 1 if self._is_away() else WORKERS

    def _is_away(self) -> bool:
        """Whether it seems to be the panel that fails, and not its dealing with one VM."""
        return len(self._failing) >= WORKERS

    def _settle(self, under_way: _UnderWay) -> None:
        """Keep what became of the calls that were answered, in one commit."""
        answered = [answer for answer in under_way if answer.done()]
        if not answered:
            return
        with self._ledger.transaction() as transaction:
            for answer in answered:
                self._keep(transaction, under_way[answer], answer.result())
        for answer in answered:
            del under_way[answer]

    def _settle_at_last(self, under_way: _UnderWay) -> None:
        """What cannot be kept is no reason not to stop as asked: those calls are made again."""
        try:
            self._settle(under_way)
        except StorageError as error:
            log.error("what the panel answered cannot be kept: %s", error)  # noqa: TRY400 (expected)

    def _keep(self, transaction: Transaction, call: Call, error: PanelError | None) -> None:
        if isinstance(error, Unavailable):
            self._unavailable(call, error)
            return
        self._failing.clear()
        self._resume = 0.0
        if isinstance(error, Missed):
            self._missed(transaction, call, error)
            return
        if error is None:
            transaction.done(call)
            _solve(transaction, call)
        else:
            self._refused(transaction, call, error)
        self._troubles.pop(call.key, None)
        self._turns.again(call.key)

    def _unavailable(self, call: Call, error: Unavailable) -> None:
        now, pause = self._clock(), self._fail(call).pause()
        self._turns.put_off(call.key, due=now + pause)
        self._failing.add(call.key)
        if self._is_away():
            self._resume = now + pause
        self._warn("unavailable", "the panel is unavailable, calls wait: func=%s error=%s", call.func, error)

    def _missed(self, transaction: Transaction, call: Call, error: Missed) -> None:
        if call.func != "vm.event":
            if call.func not in self._unknown_functions:
                self._unknown_functions.add(call.func)
                log.info(
                    "the panel does not know a function, or its object: func=%s error=%s", call.func, error
                )
            transaction.done(call)
            self._turns.again(call.key)
            return
        now, trouble = self._clock(), self._fail(call)
        if trouble.missed_since is None:
            trouble.missed_since = now
        # A call that waited behind another one has its own minute: from when it could have been taken.
        since = call.time if trouble.missed_since < call.time <= now else trouble.missed_since
        if now - since < self._missed_seconds:
            self._turns.put_off(call.key, due=now + trouble.pause())
            return
        transaction.park(call, str(error))
        text = f"what happens to it is not shown: {error}"
        problems.begin(transaction, "vm_unknown", None, name=call.fields["name"], text=text)
        self._turns.again(call.key)

    def _refused(self, transaction: Transaction, call: Call, error: PanelError) -> None:
        self._warn("refused", "the panel refused a call, it is put aside: func=%s error=%s", call.func, error)
        if call.func == "vmwatch.statistics":  # the next ones say more
            transaction.done(call)
        else:
            transaction.park(call, str(error))
        if call.func != "vmwatch.problem":  # a problem about a refused problem would be refused, without end
            text = f"{call.func}: {error}"
            problems.begin(transaction, "call_refused", _node(call), name=call.fields.get("name"), text=text)

    def _fail(self, call: Call) -> _Trouble:
        trouble = self._troubles.setdefault(call.key, _Trouble())
        trouble.tries += 1
        return trouble

    def _warn(self, kind: str, text: str, *values: object) -> None:
        held = self._warnings.admit(kind, now=self._clock())
        if held is not None:
            log.warning(f"{text} held_back=%d", *values, held)  # noqa: G004 (`text` is a format of ours)


def _solve(transaction: Transaction, call: Call) -> None:
    """The panel took a VM's event, or a node's statistics, and so shows it."""
    name = call.fields.get("name")
    if call.func == "vm.event":
        problems.end(transaction, "vm_unknown", None, name=name)
    if call.func != "vmwatch.problem":
        problems.end(transaction, "call_refused", _node(call), name=name)


def _node(call: Call) -> int | None:
    """The node that a problem of this call is told of: of a VM's events none, for the VM may move."""
    return int(call.fields["hostnode"]) if call.func == "vmwatch.statistics" else None
