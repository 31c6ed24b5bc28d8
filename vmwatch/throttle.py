# SPDX-License-Identifier: Apache-2.0
"""How often something is said. Pure: the time is passed in."""

from __future__ import annotations


class Throttle:
    """Lets one line of a kind through in each interval, and counts what it held back.

    Kinds are few and ours (reasons, node ids): they are kept for ever.
    """

    def __init__(self, *, seconds: float) -> None:
        """`seconds`: the interval, by the clock that `now` comes from."""
        self._seconds = seconds
        self._last: dict[str, float] = {}
        self._held: dict[str, int] = {}

    def admit(self, kind: str, *, now: float) -> int | None:
        """None: not now. Else how many of the kind were held back since the last one that was let through."""
        last = self._last.get(kind)
        if last is not None and now - last < self._seconds:
            self._held[kind] = self._held.get(kind, 0) + 1
            return None
        self._last[kind] = now
        return self._held.pop(kind, 0)
