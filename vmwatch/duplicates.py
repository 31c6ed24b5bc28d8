# SPDX-License-Identifier: Apache-2.0
"""Which VMs run on two nodes at once: told after a settling time, never acted on. Pure: the time is passed in.

During a migration the master may for a moment have both ends as running, because the target was heard first. So
a VM is a duplicate only when it still runs twice after a settling time, and both nodes have said after it, by a
heartbeat, that the master has heard everything of theirs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

SETTLING_SECONDS: Final = 1.0

Running = tuple[tuple[int, int], ...]
"""(node, order) of each copy that runs; an order that changed is a copy that did something else meanwhile."""


class Duplicates:
    """Remembers, look by look, since when which VMs run twice."""

    def __init__(self) -> None:
        self._since: dict[str, tuple[Running, float]] = {}

    @property
    def watching(self) -> bool:
        """Whether the next look may find something though nothing new was heard."""
        return bool(self._since)

    def look(
        self, running_twice: Mapping[str, Running], *, now: float, current_since: Callable[[int, float], bool]
    ) -> dict[str, list[int]]:
        """The duplicates, of what the ledger has now: VM name -> the nodes it runs on.

        `current_since(node, time)`: whether the node said after that time that nothing of it is under way.
        """
        self._since = {name: self._first_seen(name, running, now) for name, running in running_twice.items()}
        return {
            name: [node for node, _ in running]
            for name, (running, since) in self._since.items()
            if all(current_since(node, since + SETTLING_SECONDS) for node, _ in running)
        }

    def _first_seen(self, name: str, running: Running, now: float) -> tuple[Running, float]:
        seen = self._since.get(name)
        return seen if seen is not None and seen[0] == running else (running, now)
