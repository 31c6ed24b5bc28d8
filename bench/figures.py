# SPDX-License-Identifier: Apache-2.0
"""What was measured, beside its floor and its bar: as a table for people, as JSON for programs."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

_HEADER = ("", "measured", "floor", "ratio", "bar")


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One measured number. `floor` is the least that the same work takes here, from the same run."""

    name: str
    unit: str
    value: float
    floor: float | None = None
    bar: float | None = None
    """What it must stay under; None: nothing is demanded."""
    least: float | None = None
    """What it must reach."""
    least_ratio: float | None = None
    """What its ratio must reach."""

    @property
    def ratio(self) -> float | None:
        """Measured to floor."""
        return self.value / self.floor if self.floor else None

    @property
    def bars(self) -> list[tuple[str, bool]]:
        """What is demanded of it, each as text, and whether it is so."""
        found = []
        if self.bar is not None:
            found.append((f"< {self.bar:g}", self.value < self.bar))
        if self.least is not None:
            found.append((f">= {self.least:,g}", self.value >= self.least))
        if self.least_ratio is not None:
            found.append((f"ratio >= {self.least_ratio:.2f}", (self.ratio or 0.0) >= self.least_ratio))
        return found

    @property
    def is_met(self) -> bool | None:
        """Whether all is so that is demanded; None when nothing is."""
        return all(met for _, met in self.bars) if self.bars else None

    def plain(self) -> dict[str, Any]:
        """As JSON has it."""
        return {**asdict(self), "ratio": self.ratio, "is_met": self.is_met}


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """The figures of one measurement. `conditions` says in a line how they came about."""

    title: str
    conditions: str
    figures: tuple[Figure, ...]

    def plain(self) -> dict[str, Any]:
        """As JSON has it."""
        figures = [figure.plain() for figure in self.figures]
        return {"title": self.title, "conditions": self.conditions, "figures": figures}


def percentile(values: Sequence[float], share: float) -> float:
    """The least of the values that at least this share of them does not exceed (the nearest rank)."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def rates(
    name: str,
    unit: str,
    ours: Sequence[float],
    floor: Sequence[float],
    *,
    least: float | None = None,
    least_ratio: float | None = None,
) -> tuple[Figure, Figure]:
    """Of several rounds the median, of which something may be demanded, and the best, which was disturbed least."""
    return (
        Figure(
            name=f"{name}, median",
            unit=unit,
            value=median(ours),
            floor=median(floor),
            least=least,
            least_ratio=least_ratio,
        ),
        Figure(name=f"{name}, best", unit=unit, value=max(ours), floor=max(floor)),
    )


def table(group: Group) -> str:
    """The group as text, in columns."""
    rows = [_HEADER, *(_row(figure) for figure in group.figures)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADER))]
    lines = [
        "  ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return "\n".join((f"{group.title}: {group.conditions}", *lines))


def _row(figure: Figure) -> tuple[str, ...]:
    bar = ", ".join(f"{text} {'met' if met else 'MISSED'}" for text, met in figure.bars)
    ratio = "" if figure.ratio is None else f"{figure.ratio:.2f}"
    floor = "" if figure.floor is None else _shown(figure.floor, figure.unit)
    return (figure.name, _shown(figure.value, figure.unit), floor, ratio, bar)


def _shown(value: float, unit: str) -> str:
    if unit.startswith("of "):
        return f"{value:.0f} {unit}"
    return f"{value:,.0f} {unit}" if value >= 1000 else f"{value:.2f} {unit}"
