# SPDX-License-Identifier: Apache-2.0
"""A VM's history as a picture: one lane a node, the VM's statuses along time. Pure: geometry only, no SVG.

Horizontal places are per cent of the picture's width, so that it fits any screen without scaling its text;
vertical ones are pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

LANE = 40  # pixels
_STEPS = (
    1,
    5,
    15,
    60,
    300,
    900,
    3600,
    4 * 3600,
    12 * 3600,
    86_400,
    7 * 86_400,
    28 * 86_400,
    365 * 86_400,
)  # s
_TICKS_MOST = 7
_FITTED_LEAST = 3  # entries
_NOWHERE = "no node"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One line of a VM's history. `reporter` told it; `hostnode`, named `node`, is where the VM is after it."""

    id: int
    reporter: int
    reporter_name: str
    type: str
    subtype: str
    cause: str | None
    source: str
    earliest: int | None
    time: int
    registered: int
    status: str
    hostnode: int | None
    node: str | None
    event_id: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """A time in which nothing was known of a node; `until` is None while that lasts."""

    hostnode: int
    since: int
    until: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A status that lasted: from `x`, `width` wide, in a lane."""

    x: float
    width: float
    lane: int
    status: str
    since: int
    until: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """An event. `came_from` is the lane that the VM was in before it, if another."""

    x: float
    lane: int
    came_from: int | None
    entry: Entry


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """A moment on the axis; every other one is `minor`, and has no room on a phone."""

    x: float
    time: int
    label: str
    minor: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """The picture, `height` pixels high without its axis."""

    lanes: tuple[str, ...]
    segments: tuple[Segment, ...]
    marks: tuple[Mark, ...]
    ticks: tuple[Tick, ...]
    height: int
    since: int
    until: int


def fit(entries: Sequence[Entry], now: int) -> int:
    """Since when a picture shows the latest goings-on: without a long quiet before them, where there was one.

    Entries the oldest first.
    """
    for index in range(len(entries) - _FITTED_LEAST, 0, -1):
        busy = max(1000, now - entries[index].time)
        if entries[index].time - entries[index - 1].time > 3 * busy:
            return entries[index].time - busy // 10
    first = entries[0].time if entries else now - 1000
    return first - max(1, (now - first) // 50)


def draw(entries: Sequence[Entry], gaps: Sequence[Gap], *, since: int, now: int) -> Timeline:
    """The picture of the time from `since` to `now`; entries the oldest first.

    An entry before `since` counts: its status lasts into the picture.
    """
    end = max([now, *(entry.time for entry in entries)])
    end += max(1, (end - since) // 100)
    span = end - since
    nodes = sorted({entry.hostnode for entry in entries}, key=lambda node: (node is None, node))
    lanes = {node: lane for lane, node in enumerate(nodes)}

    def x(time: int) -> float:
        return round(min(100.0, max(0.0, (time - since) * 100 / span)), 3)

    def segment(status: str, lane: int, begin: int, finish: int) -> Segment:
        width = round(max(0.15, x(finish) - x(begin)), 3)  # never too thin to be seen
        return Segment(x=x(begin), width=width, lane=lane, status=status, since=begin, until=finish)

    lasting = _lasting(entries, now)
    statuses = [
        segment(entry.status, lanes[entry.hostnode], begin, finish)
        for entry, begin, finish in lasting
        if finish >= since
    ]
    unknown = [
        segment("unknown", lanes[gap.hostnode], max(gap.since, begin), min(gap.until or now, finish))
        for gap in gaps
        for entry, begin, finish in lasting
        if entry.hostnode == gap.hostnode and gap.since < finish and (gap.until or now) > begin
    ]
    marks = [
        Mark(
            x=x(entry.time),
            lane=lanes[entry.hostnode],
            came_from=lanes[before.hostnode] if before and before.hostnode != entry.hostnode else None,
            entry=entry,
        )
        for before, entry in pairwise([None, *entries])
        if entry and entry.time >= since
    ]
    return Timeline(
        lanes=tuple(_lane_name(entries, node) for node in nodes),
        segments=(*statuses, *unknown),
        marks=tuple(marks),
        ticks=ticks(since, end),
        height=LANE * max(1, len(nodes)),
        since=since,
        until=end,
    )


def _lasting(entries: Sequence[Entry], now: int) -> list[tuple[Entry, int, int]]:
    """Each entry with the time in which it held. Nodes' clocks differ: none ends before it begins."""
    ends = [*(entry.time for entry in entries[1:]), now]
    return [(entry, entry.time, max(entry.time, end)) for entry, end in zip(entries, ends, strict=False)]


def _lane_name(entries: Sequence[Entry], node: int | None) -> str:
    if node is None:
        return _NOWHERE
    return next((entry.node for entry in entries if entry.hostnode == node and entry.node), f"node {node}")


def ticks(start: int, end: int) -> tuple[Tick, ...]:
    """Moments at round times, few enough to be told apart; places are per cent of the time between."""
    wide = (end - start) / 1000
    step = next((step for step in _STEPS if wide / step <= _TICKS_MOST), _STEPS[-1]) * 1000
    times = range(start - start % step + step, end, step)
    return tuple(
        Tick(
            x=round((time - start) * 100 / max(1, end - start), 3),
            time=time,
            label=_label(time, step),
            minor=index % 2 == 1,
        )
        for index, time in enumerate(times)
    )


def _label(time: int, step: int) -> str:
    moment = datetime.fromtimestamp(time / 1000, UTC)
    if step >= 86_400_000:
        return f"{moment:%d %b}"
    return f"{moment:%H:%M:%S}" if step < 60_000 else f"{moment:%H:%M}"
