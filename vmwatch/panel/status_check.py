# SPDX-License-Identifier: Apache-2.0
"""The status check: from two successive collections of a VM's counters, whether it moves at all. Pure.

Source: VMmanager's documentation of the "VM status check": a running VM that sent no packet, or wrote nothing to
its disk, between two collections gets a warning.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

COUNTERS: Final = (
    "packets_received",
    "packets_sent",
    "bytes_received",
    "bytes_sent",
    "read_requests",
    "read_bytes",
    "write_requests",
    "write_bytes",
)
DEVICES: Final = ("interfaces", "disks")
_MOST: Final = 2**63 - 1  # what SQLite holds


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """A VM's counters at `time` (ms since 1970). They count on within one `run` and over the same devices."""

    time: int
    run: str
    devices: Mapping[str, int]
    counters: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """What a VM did from `begin` to `end` (ms since 1970): its counters' growth, and the devices it has."""

    begin: int
    end: int
    devices: Mapping[str, int]
    grown: Mapping[str, int]

    @property
    def seconds(self) -> float:
        """How long it was."""
        return (self.end - self.begin) / 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Idle:
    """A VM that does not move: one of the two is 0. None: it has no such device, and is not judged for it."""

    packets_sent: int | None
    write_requests: int | None


def read(domain: Mapping[str, object], time: int) -> Reading | None:
    """A domain of `vmwatch.statistics`, collected at `time`; None: it does not tell all, and is not judged."""
    run = domain.get("run")
    devices, counters = _numbers(domain, DEVICES), _numbers(domain, COUNTERS)
    if not isinstance(run, str) or devices is None or counters is None:
        return None
    return Reading(time=time, run=run, devices=devices, counters=counters)


def compare(before: Reading, after: Reading) -> Interval | None:
    """What happened between two readings; None: a new interval begins with the later one.

    So it is after a start, a migration or a reset, which show in the run or in a counter that fell; and when
    devices came, went, or were not counted, for the sums are not of the same things then.
    """
    grown = {name: after.counters[name] - before.counters[name] for name in COUNTERS}
    same = before.run == after.run and before.devices == after.devices
    if not same or after.time <= before.time or min(grown.values()) < 0:
        return None
    return Interval(begin=before.time, end=after.time, devices=after.devices, grown=grown)


def judge(interval: Interval) -> Idle | None:
    """Whether a VM that ran through all of the interval is idle; None: it moved, as far as it can."""
    sent = interval.grown["packets_sent"] if interval.devices["interfaces"] else None
    written = interval.grown["write_requests"] if interval.devices["disks"] else None
    return Idle(packets_sent=sent, write_requests=written) if 0 in (sent, written) else None


def _numbers(domain: Mapping[str, object], names: Sequence[str]) -> dict[str, int] | None:
    # By the exact type: true is an int in Python, and no number in JSON.
    found = {name: number for name in names if type(number := domain.get(name)) is int}
    usable = len(found) == len(names) and all(0 <= number <= _MOST for number in found.values())
    return found if usable else None
