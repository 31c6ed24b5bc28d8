# SPDX-License-Identifier: Apache-2.0
"""Threads that make calls to the panel, each over a session of its own.

Daemon threads, unlike those of concurrent.futures: a panel that accepts a call and never answers must not hold up
the end of the service. What such a call came to is not known then, and it is made again after the next start.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING

from vmwatch.errors import PanelError, Refused

if TYPE_CHECKING:
    from collections.abc import Callable

    from vmwatch.ledger import Call
    from vmwatch.vmmanager import Panel

log = logging.getLogger(__name__)

Outcome = Future["PanelError | None"]


class Workers:
    """A fixed number of threads. What a call came to: None, or the error that the panel answered with."""

    def __init__(self, count: int, *, open_panel: Callable[[], Panel]) -> None:
        """`open_panel` opens one session with the panel, for one thread."""
        self._calls: queue.SimpleQueue[tuple[Call, Outcome] | None] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=self._work, args=(open_panel(),), name=f"panel-{number}", daemon=True)
            for number in range(count)
        ]
        for thread in self._threads:
            thread.start()

    def make(self, call: Call) -> asyncio.Future[PanelError | None]:
        """Have the next free thread make the call."""
        outcome: Outcome = Future()
        self._calls.put((call, outcome))
        return asyncio.wrap_future(outcome)

    def close(self) -> None:
        """Let every thread end after the call that it is making."""
        for _ in self._threads:
            self._calls.put(None)

    def _work(self, panel: Panel) -> None:
        while (task := self._calls.get()) is not None:
            call, outcome = task
            if outcome.set_running_or_notify_cancel():
                outcome.set_result(_make(panel, call))
        panel.close()


def _make(panel: Panel, call: Call) -> PanelError | None:
    try:
        panel.call(call.func, call.fields)
    except PanelError as error:
        return error
    except Exception as error:  # a boundary: a bug in one call must not end the thread
        log.exception("unexpected in a call: func=%s", call.func)
        return Refused("bug", f"{type(error).__name__} in vmwatch-master: see its log")
    return None
