# SPDX-License-Identifier: Apache-2.0
"""Rates along time as a picture: a line for each, stepped, for a sample is an average over its interval. Pure.

Places are per cent of the picture's width and height, lines are paths in a box of 1000 by 100. What was not measured
is a gap: no line is drawn across it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

WIDTH: Final = 1000  # of the box of the paths
HEIGHT: Final = 100
_APART: Final = 1500  # ms between two samples' intervals: less is a clock's unevenness, more is a gap
_NARROWEST: Final = 0.0001  # of the width: a narrower gap cannot be seen
_GRID_MOST: Final = 4
_NICE: Final = (1, 2, 5, 10)
_UNITS: Final = ("B/s", "kB/s", "MB/s", "GB/s", "TB/s")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A rate in bytes per second, from `begin` to `end` (ms since 1970)."""

    begin: int
    end: int
    rate: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A rate's line, and what it comes to in numbers (bytes per second)."""

    name: str
    path: str
    latest: float
    average: float
    highest: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """A line across the picture, `y` per cent from the top, and what it stands for."""

    y: float
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """A time that nothing was measured in, from `x`, `width` wide (per cent)."""

    x: float
    width: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """The picture of the time from `since` to `until`."""

    lines: tuple[Line, ...]
    levels: tuple[Level, ...]
    gaps: tuple[Gap, ...]
    since: int
    until: int


def draw(series: Sequence[tuple[str, Sequence[Sample]]], *, since: int, until: int) -> Plot | None:
    """The picture; None without any sample. Each series has a name and its samples, the oldest first.

    The series are of the same intervals: gaps are those of the first one.
    """
    if not series or not series[0][1]:
        return None
    highest = max(sample.rate for _, samples in series for sample in samples)
    top, step = _scale(highest)

    def x(time: int) -> float:
        return min(1.0, max(0.0, (time - since) / (until - since)))

    return Plot(
        lines=tuple(_line(name, samples, x=x, top=top) for name, samples in series),
        levels=tuple(
            Level(y=round(100 - number * step * 100 / top, 3), label=rate(number * step))
            for number in range(round(top / step) + 1)
        ),
        gaps=tuple(
            Gap(x=round(x(before) * 100, 3), width=round((x(after) - x(before)) * 100, 3))
            for before, after in _gaps(series[0][1], since, until)
            if x(after) - x(before) > _NARROWEST
        ),
        since=since,
        until=until,
    )


def rate(value: float) -> str:
    """Bytes per second for people, three digits at most: `0 B/s`, `1.25 MB/s`."""
    power = 0
    while value >= 999.5 and power < len(_UNITS) - 1:
        value /= 1000
        power += 1
    return f"{value:.3g} {_UNITS[power]}"


def _scale(highest: float) -> tuple[float, float]:
    """The top of the picture, and the step of the lines across it: 1, 2 or 5 and noughts."""
    least = max(highest, 1.0) / _GRID_MOST
    power = 10.0 ** math.floor(math.log10(least))
    step = next(nice * power for nice in _NICE if nice * power >= least)
    return step * math.ceil(max(highest, 1.0) / step), step


def _line(name: str, samples: Sequence[Sample], *, x: Callable[[int], float], top: float) -> Line:
    path, drawn = "", None  # until when
    for sample in samples:
        y = _place(HEIGHT * (1 - sample.rate / top))
        joined = drawn is not None and sample.begin - drawn <= _APART
        path += f"V{y}" if joined else f"M{_place(x(sample.begin) * WIDTH)} {y}"
        path += f"H{_place(x(sample.end) * WIDTH)}"
        drawn = sample.end
    seconds = sum(sample.end - sample.begin for sample in samples)
    amount = sum(sample.rate * (sample.end - sample.begin) for sample in samples)
    return Line(
        name=name,
        path=path,
        latest=samples[-1].rate,
        average=amount / max(1, seconds),
        highest=max(sample.rate for sample in samples),
    )


def _place(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")


def _gaps(samples: Sequence[Sample], since: int, until: int) -> Iterator[tuple[int, int]]:
    """What lies between the samples; the last interval is still being measured, and no gap yet."""
    yield since, samples[0].begin
    for before, after in pairwise(samples):
        if after.begin - before.end > _APART:
            yield before.end, after.begin
    last = samples[-1]
    if until - last.end > 2 * (last.end - last.begin):
        yield last.end, until
