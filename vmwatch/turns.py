# SPDX-License-Identifier: Apache-2.0
"""Whose turn it is, among keys that have something to be done one after the other. Pure: the time is passed in."""

from __future__ import annotations

import heapq


class Turns:
    """Two rows of keys. One whose turn is over goes to a row's end, so that who has much to do holds up nobody.

    A key stands in a row, is out (`take`), or is put off until a time. The sick ones have a row of their own, so that
    the others need not wait for them. Each method may be called again with the same arguments, and then changes
    nothing.
    """

    def __init__(self) -> None:
        self._row: dict[str, None] = {}
        self._sick_row: dict[str, None] = {}
        self._sick: set[str] = set()
        self._out: set[str] = set()
        self._put_off: dict[str, float] = {}
        self._dues: list[tuple[float, str]] = []  # a heap; an entry that `_put_off` does not confirm is void

    @property
    def ready(self) -> int:
        """How many wait for nothing but their turn, the sick ones aside."""
        return len(self._row)

    def add(self, key: str) -> None:
        """There is something to be done: to the row's end, unless it is here already."""
        if key not in self._out and key not in self._put_off:
            self._row_of(key).setdefault(key)

    def come_due(self, *, now: float) -> float | None:
        """Who was put off until now stands in a row again. When the next one does; None: nobody is put off."""
        while self._dues and self._dues[0][0] <= now:
            due, key = heapq.heappop(self._dues)
            if self._put_off.get(key) == due:
                del self._put_off[key]
                self._row_of(key)[key] = None
        return self._dues[0][0] if self._dues else None

    def first(self, *, sick: bool = False) -> str | None:
        """Whose turn it is, in the one row or in the other; None when it is nobody's."""
        return next(iter(self._sick_row if sick else self._row), None)

    def take(self, key: str) -> None:
        """It takes its turn."""
        self._leave(key)
        self._out.add(key)

    def again(self, key: str, *, sick: bool = False) -> None:
        """Its turn is over: to the end of the row, or of the row of the sick ones."""
        self._leave(key, sick=sick)
        self._row_of(key)[key] = None

    def put_off(self, key: str, *, due: float, sick: bool = False) -> None:
        """Its turn is over, and it stands in a row again only when it is due."""
        self._leave(key, sick=sick)
        self._put_off[key] = due
        heapq.heappush(self._dues, (due, key))

    def drop(self, key: str) -> None:
        """It has nothing to be done."""
        self._leave(key)

    def _row_of(self, key: str) -> dict[str, None]:
        return self._sick_row if key in self._sick else self._row

    def _leave(self, key: str, *, sick: bool = False) -> None:
        self._row_of(key).pop(key, None)
        self._out.discard(key)
        self._put_off.pop(key, None)
        (self._sick.add if sick else self._sick.discard)(key)
