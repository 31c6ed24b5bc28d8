# SPDX-License-Identifier: Apache-2.0
"""Which VMs run on two nodes at once: told after a settling time, never acted on. Pure: the time is passed in.

During a migration the master may for a moment have both ends as running, because the target was heard first. So
a VM is a duplicate only when it still runs twice after a settling time, and both nodes have said after it, by a
heartbeat, that the master has heard everything of theirs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

SETTLING_SECONDS: Final = 1.0

Nodes = tuple[int, ...]
"""Ids of nodes, ascending."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What has changed since the last look: VM names, with the nodes where there are any."""

    raised: dict[str, Nodes]
    solved: tuple[str, ...]


class Duplicates:
    """Follows, look by look, which VMs run twice."""

    def __init__(self) -> None:
        self._since: dict[str, tuple[Nodes, float]] = {}
        self._told: set[str] = set()

    def look(
        self, running_twice: Mapping[str, Nodes], *, now: float, current_since: Callable[[int, float], bool]
    ) -> Finding:
        """Compare with what the ledger has now: VM name -> the nodes it runs on, two at least.

        `current_since(node, time)`: whether the node said after that time that nothing of it is under way.
        """
        self._since = {
            name: self._since[name] if self._since.get(name, ((), 0.0))[0] == nodes else (nodes, now)
            for name, nodes in running_twice.items()
        }
        raised = {
            name: nodes
            for name, (nodes, since) in self._since.items()
            if name not in self._told
            and now - since >= SETTLING_SECONDS
            and all(current_since(node, since + SETTLING_SECONDS) for node in nodes)
        }
        solved = tuple(sorted(self._told - running_twice.keys()))
        self._told = (self._told | raised.keys()) - set(solved)
        return Finding(raised=raised, solved=solved)

    @property
    def watching(self) -> bool:
        """Whether a next look may find something though nothing new was heard."""
        return bool(self._since or self._told)
