# SPDX-License-Identifier: Apache-2.0
"""What becomes of a call by the panel's answer (the contract's *How errors are taken*).

Unavailable: try again for as long as it takes. Missed: try again for a minute, for the panel may be creating that VM.
Refused: put aside with a problem. What is put aside is never made later: newer calls have told more by then.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from vmwatch import problems
from vmwatch.errors import Missed, PanelError, Unavailable
from vmwatch.throttle import Throttle

if TYPE_CHECKING:
    from collections.abc import Callable

    from vmwatch.calls import Call
    from vmwatch.ledger import Transaction

MISSED_SECONDS: Final = 60.0
"""How long a VM that the panel does not know may still be on its way into it."""

_PAUSES: Final = (0.1, 0.2, 0.4, 0.8, 1.0)
"""Seconds until a call is tried again, after it failed once, twice, …"""

_WARNING_SECONDS: Final = 60.0

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Trouble:
    """A key whose first call was not taken: how often it was tried, and since when the panel says `missed`."""

    tries: int = 0
    missed_since: float | None = None

    def pause(self) -> float:
        return _PAUSES[min(self.tries, len(_PAUSES)) - 1]


class Settling:
    """Decides on answers, and remembers which keys are in trouble."""

    def __init__(self, *, clock: Callable[[], float], missed_seconds: float = MISSED_SECONDS) -> None:
        """`clock`: monotonic seconds, the ledger's."""
        self._clock = clock
        self._missed_seconds = missed_seconds
        self._troubles: dict[str, _Trouble] = {}
        self._warnings = Throttle(seconds=_WARNING_SECONDS)
        self._unknown_functions: set[str] = set()

    def settle(self, transaction: Transaction, call: Call, error: PanelError | None) -> float | None:
        """Keep what became of a call. In how many seconds it is to be tried again; None: it is settled."""
        if isinstance(error, Unavailable):
            text = "the panel is unavailable, calls wait: func=%s error=%s"
            self.warn("unavailable", text, call.func, error)
            return self._fail(call).pause()
        if isinstance(error, Missed):
            return self._missed(transaction, call, error)
        if error is None:
            transaction.done(call)
            _solve(transaction, call)
        else:
            self._refused(transaction, call, error)
        self.forget(call.key)
        return None

    def put_aside(self, transaction: Transaction, call: Call) -> None:
        """What was kept of a call cannot be read: those behind it are made, and one that is made ends the problem."""
        text = f"what waited cannot be read: {call.unreadable}"
        self.warn("unreadable", "a call cannot be made, it is put aside: key=%s reason=%s", call.key, text)
        transaction.park(call, text)
        if call.func == "vm.event":
            problems.begin(transaction, "call_refused", None, name=call.key.removeprefix("vm "), text=text)

    def forget(self, key: str) -> None:
        """The key is in no trouble, or has no call any more."""
        self._troubles.pop(key, None)

    def warn(self, kind: str, text: str, *values: object) -> None:
        """One warning of a kind a minute."""
        held = self._warnings.admit(kind, now=self._clock())
        if held is not None:
            log.warning(f"{text} held_back=%d", *values, held)  # noqa: G004 (`text` is a format of ours)

    def _missed(self, transaction: Transaction, call: Call, error: Missed) -> float | None:
        if call.func != "vm.event":
            self._tell_unknown(call.func, error)
            transaction.done(call)
            return None
        now, trouble = self._clock(), self._fail(call)
        if trouble.missed_since is None:
            trouble.missed_since = now
        # A call that waited behind another one has its own minute: from when it could have been taken.
        since = call.time if trouble.missed_since < call.time <= now else trouble.missed_since
        if now - since < self._missed_seconds:
            return trouble.pause()
        transaction.park(call, str(error))
        text = f"what happens to it is not shown: {error}"
        problems.begin(transaction, "vm_unknown", None, name=call.fields["name"], text=text)
        return None

    def _tell_unknown(self, func: str, error: Missed) -> None:
        if func not in self._unknown_functions:
            self._unknown_functions.add(func)
            log.info("the panel does not know a function, or its object: func=%s error=%s", func, error)

    def _refused(self, transaction: Transaction, call: Call, error: PanelError) -> None:
        self.warn("refused", "the panel refused a call, it is put aside: func=%s error=%s", call.func, error)
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
