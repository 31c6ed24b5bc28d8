# SPDX-License-Identifier: Apache-2.0
"""How the services of a host stand: what is known, what of it wants a hand, and how it reads. Pure.

What is told here was read from their files by `inspection`; `vmwatch status` shows it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from vmwatch.strict import instant

if TYPE_CHECKING:
    from collections.abc import Iterable

BEHIND: Final = timedelta(minutes=2)
"""A call that waits longer waits for the panel: an unknown VM's is put aside after a minute."""

_SHOWN: Final = 20  # of a list, as text; JSON has all


@dataclass(frozen=True, slots=True, kw_only=True)
class Outbox:
    """What a node's outbox holds. `run` is its last run's id, `last` that run's last record."""

    run: str
    last: int
    kept: int
    """Records in the file. What was sent is kept until it must have arrived, for nobody answers."""
    unsent: int
    """So many of them have not been sent, at least."""
    vms: dict[str, int]
    """Known VMs by state."""

    def wants(self) -> list[str]:
        """What wants a hand."""
        return [f"the master does not take what waits: {self.unsent} records or more"] if self.unsent else []

    def lines(self) -> list[str]:
        """As text."""
        states = ", ".join(f"{count} {state}" for state, count in sorted(self.vms.items()))
        return [
            f"run {_run(self.run)}, last record {self.last}",
            f"records: {self.kept} kept; which of them the master has, its own status says",
            f"known VMs: {sum(self.vms.values())}{f' ({states})' if states else ''}",
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """How far a node's stream has been taken."""

    node: int
    run: str
    last: int
    heard: datetime | None
    """When its last heartbeat, or statistics, came, by the master's clock; None: none has since that is kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Aside:
    """A call that the panel did not take, and that is never made again."""

    id: int
    func: str
    about: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """What the master's ledger holds."""

    nodes: tuple[Taken, ...]
    calls: int
    """Calls that wait for the panel."""
    oldest: datetime | None
    """Since when the call waits that has waited longest, so far as this start of the host knows; None: none waits."""
    aside: tuple[Aside, ...]
    problems: tuple[str, ...]
    """Open ones, which end by themselves."""
    told: tuple[str, ...]
    """What happened once and was told: it is open at the panel until a person solves it there."""
    unread: int
    """Records that this version could not read, kept as they came."""

    def wants(self, now: datetime) -> list[str]:
        """What wants a hand at this time."""
        found = [f"open problem: {problem}" for problem in self.problems]
        if self.oldest is not None and now - self.oldest > BEHIND:
            found.append(f"the panel does not take calls: {self.calls} wait, since {_second(self.oldest)}")
        if self.aside:
            found.append(f"calls put aside: {len(self.aside)} (vmwatch parked)")
        if self.unread:
            found.append(f"records that a newer version can read: {self.unread}")
        return found

    def lines(self) -> list[str]:
        """As text."""
        aside = Counter(f"{call.func} {call.about}: {call.reason}" for call in self.aside)
        return [
            *(
                f"node {taken.node}: taken to record {taken.last} of run {_run(taken.run)}"
                + (f", last heard {_second(taken.heard)}" if taken.heard else "")
                for taken in self.nodes
            ),
            f"calls waiting: {self.calls}"
            + (f", the oldest of {_second(self.oldest)}" if self.oldest is not None else ""),
            *_some("put aside", (f"{count} x {text}" for text, count in aside.items())),
            *_some("problem", self.problems),
            *_some("told", self.told),
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """How a service stands. `pid`: None when it does not run; `state`: None when it never ran here."""

    name: str
    disabled: bool
    pid: int | None
    state: Outbox | Ledger | None
    unfinished: str | None = None
    """What is wrong with its configuration, where it is disabled all the same."""

    def wants(self, now: datetime) -> list[str]:
        """What wants a hand at this time; a blocked service wants none."""
        if self.disabled:
            return []
        found = [] if self.pid else ["the service does not run"]
        if isinstance(self.state, Outbox):
            found += self.state.wants()
        elif self.state is not None:
            found += self.state.wants(now)
        return found

    def lines(self, now: datetime) -> list[str]:
        """As text: a head, what is known, what wants a hand."""
        life = f"running, pid {self.pid}" if self.pid else "not running"
        head = f"{self.name}: {life}{', blocked by disabled=yes' if self.disabled else ''}"
        known = self.state.lines() if self.state else [self.unfinished or "it never ran here"]
        wants = [f"wants a hand: {want}" for want in self.wants(now)]
        return [head, *(f"  {one_line(line)}" for line in [*known, *wants])]


def _run(run: str) -> str:
    """A run as people tell it from others: when it began, and the end of its id."""
    began = datetime.fromtimestamp(int(run[:16], 16) / 1_000_000, UTC)
    return f"{run[-8:]} of {_second(began)}"


def _second(time: datetime) -> str:
    return instant(time.replace(microsecond=0)).replace(".000000", "")


def one_line(text: str) -> str:
    """Text for a terminal. What names and reasons hold must not move a terminal's cursor."""
    return text if text.isprintable() else ascii(text)[1:-1]


def _some(label: str, items: Iterable[str]) -> list[str]:
    """A line for each of the last ones, and one that counts the others."""
    lines = [f"{label}: {item}" for item in items]
    more = len(lines) - _SHOWN
    return [f"{label}: {more} more"] * (more > 0) + lines[-_SHOWN:]
