# SPDX-License-Identifier: Apache-2.0
"""What was heard, what was told, and what was wrong with it: the values of the fault test. Pure.

Times are seconds since 1970 by this machine's clock, which observers, nodes and panel share here.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """An event as the observer of a node heard it from libvirt itself, in the words of libvirt's constants."""

    time: float
    node: int
    vm: str
    type: str
    subtype: str

    def __str__(self) -> str:
        return f"{self.type}({self.subtype}) at {self.time:.3f}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """A line of the panel's history. `id` is its place there; `time` when the node heard of the event."""

    id: int
    node: int
    vm: str
    type: str
    subtype: str
    time: float
    run: str
    seq: int
    is_found: bool
    """A snapshot found it: no event told."""
    registered: float = 0.0
    """When the panel committed it."""

    def __str__(self) -> str:
        return f"{self.type}({self.subtype}) at {self.time:.3f}, {self.node}.{self.run}.{self.seq}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """From one moment to another."""

    start: float
    end: float


def within(time: float, spans: Iterable[Span]) -> bool:
    return any(span.start <= time <= span.end for span in spans)


class Wrong(StrEnum):
    """What must not be."""

    LOST = "lost"  # libvirt told it, the node was listening, and the panel has nothing of it
    DOUBLED = "doubled"  # the panel has it once more than it happened
    SWAPPED = "swapped"  # the panel has it before what came before it
    HOLE = "hole"  # a record that a node had kept never came to the panel
    UNTRUE = "untrue"  # the panel shows another status than libvirt, though all had time to settle
    ALARM = "alarm"  # the panel shows a problem, though there is none any more
    DIED = "died"  # a service ended though nobody ended it
    STUCK = "stuck"  # not everything was back in time


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    wrong: Wrong
    node: int
    vm: str
    text: str

    def __str__(self) -> str:
        return f"{self.wrong}: node {self.node} {self.vm}: {self.text}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a comparison found. `missed`: not told, for the node was away; `found`: told by snapshots instead."""

    violations: tuple[Violation, ...]
    matched: int
    missed: int
    found: int

    def count(self, wrong: Wrong) -> int:
        return sum(violation.wrong is wrong for violation in self.violations)
