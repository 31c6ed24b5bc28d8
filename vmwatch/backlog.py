# SPDX-License-Identifier: Apache-2.0
"""The calls that were read ahead, by key. Pure: what is read, and when, is the ledger's business.

The ledger is read in the order of its coming, with no index over keys: to keep one would cost more than all else
that a call costs. So what waits behind a key that is in trouble must be read past. It is passed over, marked in the
ledger, and comes from there again when its turn comes: nobody waits for the sick, and memory does not grow with them.
"""

from __future__ import annotations

from collections import Counter, deque
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
    """What was read ahead."""

    def __init__(self) -> None:
        """Nothing has been read yet."""
        self._passed: set[str] = set()
        self._ahead: dict[str, deque[Call]] = {}
        self.size = 0
        """Calls that are here."""

    @property
    def passed(self) -> AbstractSet[str]:
        """The keys that have calls which were passed over: all others have none that was read and is not here."""
        return self._passed

    @property
    def most(self) -> int:
        """How many calls of one key may be here, as much as there is of all keys now."""
        return self._most(self.size)

    def divide(self, calls: Iterable[Call]) -> tuple[list[Call], list[Call]]:
        """Of calls that were read: those to keep here, and those to pass over. Changes nothing."""
        keep: list[Call] = []
        over: list[Call] = []
        here: Counter[str] = Counter()
        full = set[str]()
        for call in calls:
            key = call.key
            most = self._most(self.size + len(keep))
            if key in self._passed or key in full or len(self._ahead.get(key, ())) + here[key] >= most:
                full.add(key)
                over.append(call)
            else:
                here[key] += 1
                keep.append(call)
        return keep, over

    def add(self, keep: Iterable[Call], over: Iterable[Call]) -> None:
        """Keep these here; those are passed over, and are marked so in the ledger."""
        self._passed |= {call.key for call in over}
        self._keep(keep)

    def bring(self, key: str, calls: Iterable[Call], *, more: bool) -> None:
        """The key's next calls that were passed over, `most` of them; `more`: there are others."""
        if not more:
            self._passed.discard(key)
        self._keep(calls)

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

    @staticmethod
    def _most(size: int) -> int:
        return MOST_OF_A_KEY if size < FEW else 1

    def _keep(self, calls: Iterable[Call]) -> None:
        for call in calls:
            self._ahead.setdefault(call.key, deque()).append(call)
            self.size += 1
