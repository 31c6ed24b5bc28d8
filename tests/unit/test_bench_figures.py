# SPDX-License-Identifier: Apache-2.0
"""What is demanded of a figure is said beside it, and whether it is so."""

from __future__ import annotations

import pytest

from bench.figures import Figure, Group, rates, table


@pytest.mark.parametrize(
    ("figure", "bars", "is_met"),
    [
        (Figure(name="", unit="ms", value=5, floor=2), [], None),
        (Figure(name="", unit="ms", value=4.9, bar=5), [("< 5", True)], True),
        (Figure(name="", unit="ms", value=5, bar=5), [("< 5", False)], False),
        (Figure(name="", unit="a second", value=40_000, least=40_000), [(">= 40,000", True)], True),
        (Figure(name="", unit="a second", value=39_999, least=40_000), [(">= 40,000", False)], False),
        (
            Figure(name="", unit="a second", value=6, floor=10, least_ratio=0.6),
            [("ratio >= 0.60", True)],
            True,
        ),
        (Figure(name="", unit="a second", value=6, least_ratio=0.6), [("ratio >= 0.60", False)], False),
        (
            Figure(name="", unit="a second", value=5, floor=10, least=4, least_ratio=0.6),
            [(">= 4", True), ("ratio >= 0.60", False)],
            False,
        ),
    ],
)
def test_bars(figure: Figure, bars: list[tuple[str, bool]], is_met: bool | None) -> None:
    assert figure.bars == bars
    assert figure.is_met is is_met
    assert figure.plain()["is_met"] is is_met


def test_of_several_rounds_the_median_is_judged() -> None:
    median, best = rates("told", "a second", [3.0, 9.0, 5.0], [10.0, 10.0, 20.0], least=6, least_ratio=0.5)
    assert (median.value, median.floor, median.is_met) == (5.0, 10.0, False)
    assert (best.value, best.floor, best.is_met) == (9.0, 20.0, None)
    lines = table(Group(title="drain", conditions="here", figures=(median, best))).splitlines()
    assert lines[2].endswith("0.50  >= 6 MISSED, ratio >= 0.50 met")
    assert lines[3].endswith("0.45")
