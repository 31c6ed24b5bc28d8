# SPDX-License-Identifier: Apache-2.0
"""The calls that were read ahead, by key. Pure: what is read, and when, is the ledger's business.

The ledger is read in the order of its coming, with no index over keys: to keep one would cost more than all else
that a call costs. So what waits behind a key that is in trouble must be read past. It is passed over, marked in the
ledger, and comes from there again when its turn comes: nobody waits for the sick, and memory does not grow with them.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable
    from collections.abc import Set as AbstractSet

    from vmwatch.calls import Call

FEW: Final = 4_096
"""Calls. Beyond so many of all keys, one of each key is read ahead and no more."""

MOST_OF_A_KEY: Final = 32
"""Calls of one key that are read ahead."""


class Backlog:
    """What was read ahead. `passed`: the keys that have calls which were passed over."""

    def __init__(self, passed: Iterable[str]) -> None:
        """Nothing has been read yet."""
        self._passed = set(passed)
        self._ahead: dict[str, deque[Call]] = {}
        self.size = 0
        """Calls that are here."""

    @property
    def passed(self) -> AbstractSet[str]:
        """The keys that have calls which were passed over: all others have none that was read and is not here."""
        return self._passed

    def offer(self, call: Call) -> bool:
        """Keep a call that was read, unless it is to be passed over: then False."""
        ahead = self._ahead.get(call.key, ())
        most = MOST_OF_A_KEY if self.size < FEW else 1
        if call.key in self._passed or len(ahead) >= most:
            self._passed.add(call.key)
            return False
        self._keep(call)
        return True

    def bring(self, key: str, calls: Iterable[Call], *, more: bool) -> None:
        """The key's next calls that were passed over; `more`: there are others."""
        if not more:
            self._passed.discard(key)
        for call in calls:
            self._keep(call)

    def first(self, key: str) -> Call | None:
        """The key's next call that is here."""
        ahead = self._ahead.get(key)
        return ahead[0] if ahead else None

    def remove(self, call: Call) -> None:
        """It has been made, or put aside."""
        ahead = self._ahead.get(call.key)
        if not ahead or ahead[0].id != call.id:
            return
        ahead.popleft()
        self.size -= 1
        if not ahead:
            del self._ahead[call.key]

    def _keep(self, call: Call) -> None:
        self._ahead.setdefault(call.key, deque()).append(call)
        self.size += 1
