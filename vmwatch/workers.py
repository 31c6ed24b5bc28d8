# SPDX-License-Identifier: Apache-2.0
"""Threads that make calls to the panel, each over a session of its own.

Calls wait for them in a queue, so that a thread that has made one finds the next at once, without the event loop.

Daemon threads, unlike those of concurrent.futures: a panel that accepts a call and never answers must not hold up
the end of the service. What such a call came to is not known then, and it is made again after the next start.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from vmwatch.errors import PanelError, Refused

if TYPE_CHECKING:
    from collections.abc import Callable

    from vmwatch.calls import Call
    from vmwatch.vmmanager import Panel

PATIENCE: Final = 1.0
"""Seconds after which a call is slow: another thread takes its place, where there is one to spare."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a call came to: `error` is None, or what the panel answered with; it took so many `seconds`."""

    call: Call
    error: PanelError | None
    seconds: float


class _Worker:
    """One thread and its session."""

    def __init__(self, panel: Panel) -> None:
        self.panel = panel
        self.busy_since: float | None = None
        self.replaced = False


class Workers:
    """So many threads, made when they are needed. To be made where the event loop runs that it reports to.

    A thread whose call is slow is replaced by another one, and ends with that call; `most_slow` of them are at most.
    """

    def __init__(
        self,
        count: int,
        *,
        most_slow: int,
        open_panel: Callable[[], Panel],
        clock: Callable[[], float],
        tell: Callable[[], None],
    ) -> None:
        """`open_panel` opens one session with the panel, for one thread.

        `tell` is called, in the event loop, when there is an answer and fewer than `count` calls wait. While more
        do, there is time to take several answers together.
        """
        self.pending = 0
        """Calls whose answer has not been taken yet."""
        self._count, self._most_slow = count, most_slow
        self._open_panel, self._clock, self._tell = open_panel, clock, tell
        self._loop = asyncio.get_running_loop()
        self._calls: queue.SimpleQueue[Call | None] = queue.SimpleQueue()
        self._answers: deque[Answer] = deque()
        self._workers: list[_Worker] = []
        self._told = self._stopped = False

    @property
    def slow(self) -> int:
        """Calls that are slow, and whose thread has been replaced."""
        return sum(worker.replaced for worker in self._workers)

    @property
    def waiting(self) -> int:
        """Calls that no thread has taken yet."""
        return self._calls.qsize()

    def make(self, call: Call) -> None:
        """Have the next free thread make the call."""
        self.pending += 1
        self._calls.put(call)
        if len(self._workers) < min(self._count, self.pending):
            self._start_thread()

    def take_answers(self) -> list[Answer]:
        """What calls have come to, since this was last asked."""
        self._told = False  # first: an answer that comes from now on is told of, or taken here
        taken = []
        while self._answers:
            taken.append(self._answers.popleft())
        self.pending -= len(taken)
        return taken

    def relieve(self) -> None:
        """Replace the threads whose calls are slow."""
        now = self._clock()
        for worker in list(self._workers):
            since = worker.busy_since
            is_slow = since is not None and now - since > PATIENCE
            if is_slow and not worker.replaced and self.slow < self._most_slow:
                worker.replaced = True
                self._start_thread()

    def stop(self) -> None:
        """Begin no call any more; those under way may still be answered. Every thread ends after its own."""
        self._stopped = True
        with suppress(queue.Empty):
            while True:
                self._calls.get_nowait()
                self.pending -= 1
        for _ in self._workers:
            self._calls.put(None)

    def _start_thread(self) -> None:
        worker = _Worker(self._open_panel())
        self._workers.append(worker)
        threading.Thread(target=self._work, args=(worker,), name="panel", daemon=True).start()

    def _work(self, worker: _Worker) -> None:
        while not worker.replaced and (call := self._calls.get()) is not None:
            worker.busy_since = began = self._clock()
            error = _make(worker.panel, call)
            worker.busy_since = None
            self._answers.append(Answer(call=call, error=error, seconds=self._clock() - began))
            self._report()
        self._workers.remove(worker)
        worker.panel.close()

    def _report(self) -> None:
        if not self._told and (self._stopped or self._calls.qsize() < self._count):
            self._told = True
            with suppress(RuntimeError):  # the loop has ended: nobody waits for it any more
                self._loop.call_soon_threadsafe(self._tell)


def _make(panel: Panel, call: Call) -> PanelError | None:
    try:
        panel.call(call.func, call.fields)
    except PanelError as error:
        return error
    except Exception as error:  # a boundary: a bug in one call must not end the thread
        log.exception("unexpected in a call: func=%s", call.func)
        return Refused("bug", f"{type(error).__name__} in vmwatch-master: see its log")
    return None
