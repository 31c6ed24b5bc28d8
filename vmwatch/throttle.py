# SPDX-License-Identifier: Apache-2.0
"""How often something is said. Pure: the time is passed in."""

from __future__ import annotations

from typing import Final

KINDS: Final = 64
"""So many kinds are told apart at a time, those beyond are taken for one: a kind may be a stranger's address."""

_OTHERS: Final = ""


class Throttle:
    """Lets one line of a kind through in each interval, and counts what it held back."""

    def __init__(self, *, seconds: float) -> None:
        """`seconds`: the interval, by the clock that `now` comes from."""
        self._seconds = seconds
        self._last: dict[str, float] = {}
        self._held: dict[str, int] = {}

    def admit(self, kind: str, *, now: float) -> int | None:
        """None: not now. Else how many of the kind were held back since the last one that was let through."""
        if kind not in self._last and len(self._last) >= KINDS:
            self._forget_old(now)
            if len(self._last) >= KINDS:
                kind = _OTHERS
        last = self._last.get(kind)
        if last is not None and now - last < self._seconds:
            self._held[kind] = self._held.get(kind, 0) + 1
            return None
        self._last[kind] = now
        return self._held.pop(kind, 0)

    def _forget_old(self, now: float) -> None:
        """Make room: whose interval is over may speak at once, so only a count of it is lost."""
        self._last = {kind: last for kind, last in self._last.items() if now - last < self._seconds}
        self._held = {kind: held for kind, held in self._held.items() if kind in self._last}
