# SPDX-License-Identifier: Apache-2.0
"""Which nodes are heard of: unreachable is not off. Pure: the time, in monotonic seconds, is passed in."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

MISSED_HEARTBEATS: Final = 3
"""A node that was not heard of for so many of its own intervals is silent."""

LONGEST_PAUSE: Final = 2.0
"""Seconds between two looks for silent nodes; the master looks twice a second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Heard:
    at: float
    interval: float


class Presence:
    """When each node was last heard of, and how often it said it would be."""

    def __init__(self) -> None:
        self._nodes: dict[int, _Heard] = {}
        self._current: dict[int, float] = {}
        self._looked: float | None = None

    def heard(self, node: int, *, interval: float, now: float) -> None:
        """A heartbeat came, or (at the master's start) may be expected from now on."""
        self._nodes[node] = _Heard(at=now, interval=interval)

    def current(self, node: int, *, now: float) -> None:
        """A heartbeat said that nothing of the node is under way: all that it told has been taken."""
        self._current[node] = now

    def current_since(self, node: int, time: float) -> bool:
        """Whether the node has said so after this time."""
        return self._current.get(node, float("-inf")) > time

    def forget(self, node: int) -> None:
        """The node was never heard of."""
        self._nodes.pop(node, None)
        self._current.pop(node, None)

    def pause(self, now: float) -> None:
        """Since the last look nobody could be heard: that time is no node's silence. A look by itself."""
        seconds = 0.0 if self._looked is None else now - self._looked
        self._nodes = {node: replace(heard, at=heard.at + seconds) for node, heard in self._nodes.items()}
        self._looked = now

    def silent(self, now: float) -> dict[int, float]:
        """The silent nodes, and for how many seconds they have been. To be asked every second or so.

        Who asks after a longer pause was asleep itself (frozen, or its host was), and heard nobody: that time
        is no node's silence.
        """
        if self._looked is not None and now - self._looked > LONGEST_PAUSE:
            self.pause(now)
        self._looked = now
        return {
            node: now - heard.at
            for node, heard in self._nodes.items()
            if now - heard.at > MISSED_HEARTBEATS * heard.interval
        }
