# SPDX-License-Identifier: Apache-2.0
"""Whose turn it is, among keys that have something to be done one after the other. Pure: the time is passed in."""

from __future__ import annotations


class Turns:
    """A row of keys. One whose turn is over goes to its end, so that who has much to do holds up nobody.

    A key stands in the row, is out (`take`), or is put off until a time. Each method may be called again
    with the same arguments, and then changes nothing.
    """

    def __init__(self) -> None:
        self._row: dict[str, None] = {}
        self._out: set[str] = set()
        self._put_off: dict[str, float] = {}

    def add(self, key: str) -> None:
        """There is something to be done: to the row's end, unless it is here already."""
        if key not in self._out and key not in self._put_off:
            self._row.setdefault(key)

    def first(self, *, now: float) -> str | None:
        """Whose turn it is; None when it is nobody's."""
        for key in [key for key, due in self._put_off.items() if due <= now]:
            self.again(key)
        return next(iter(self._row), None)

    def take(self, key: str) -> None:
        """It takes its turn."""
        self._forget(key)
        self._out.add(key)

    def again(self, key: str) -> None:
        """Its turn is over: to the row's end."""
        self._forget(key)
        self._row[key] = None

    def put_off(self, key: str, *, due: float) -> None:
        """Its turn is over, and the next one is not before `due`."""
        self._forget(key)
        self._put_off[key] = due

    def drop(self, key: str) -> None:
        """It has nothing to be done."""
        self._forget(key)

    def next_due(self) -> float | None:
        """When the first key that is put off is due."""
        return min(self._put_off.values(), default=None)

    def _forget(self, key: str) -> None:
        self._row.pop(key, None)
        self._out.discard(key)
        self._put_off.pop(key, None)
