# SPDX-License-Identifier: Apache-2.0
"""Plots: steps, gaps, scales; every place inside of the picture."""

from __future__ import annotations

import re
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmwatch.panel.plot import Sample, draw, rate


def sample(begin: int, end: int, value: float) -> Sample:
    return Sample(begin=begin, end=end, rate=value)


def test_without_a_sample_there_is_no_picture() -> None:
    assert draw([("sent", [])], since=0, until=1000) is None
    assert draw([], since=0, until=1000) is None


def test_neighbours_are_one_line_of_steps() -> None:
    found = draw([("sent", [sample(0, 500, 10), sample(500, 1000, 20)])], since=0, until=1000)
    assert found is not None
    assert found.lines[0].path == "M0 50H500V0H1000"
    assert found.gaps == ()
    assert [(level.y, level.label) for level in found.levels] == [
        (100, "0 B/s"),
        (75, "5 B/s"),
        (50, "10 B/s"),
        (25, "15 B/s"),
        (0, "20 B/s"),
    ]


def test_what_was_not_measured_is_a_gap() -> None:
    samples = [sample(10_000, 20_000, 4), sample(60_000, 70_000, 4)]
    found = draw([("sent", samples)], since=0, until=100_000)
    assert found is not None
    assert found.lines[0].path.count("M") == 2
    assert [(gap.x, gap.width) for gap in found.gaps] == [(0, 10), (20, 40), (70, 30)]


def test_an_interval_that_still_lasts_is_no_gap() -> None:
    found = draw([("sent", [sample(0, 60_000, 4)])], since=0, until=100_000)
    assert found is not None
    assert found.gaps == ()


def test_numbers_are_weighed_by_time() -> None:
    found = draw([("sent", [sample(0, 1000, 30), sample(1000, 4000, 10)])], since=0, until=4000)
    assert found is not None
    line = found.lines[0]
    assert (line.latest, line.average, line.highest) == (10, 15, 30)


def test_all_series_share_a_scale() -> None:
    low, high = [sample(0, 1000, 1)], [sample(0, 1000, 1e6)]
    found = draw([("read", low), ("written", high)], since=0, until=1000)
    assert found is not None
    assert found.lines[1].path == "M0 0H1000"
    assert found.levels[-1].label == "1 MB/s"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0 B/s"),
        (0.25, "0.25 B/s"),
        (999.4, "999 B/s"),
        (999.6, "1 kB/s"),
        (1_250_000, "1.25 MB/s"),
        (5e17, "5e+05 TB/s"),
    ],
)
def test_a_rate_reads(value: float, text: str) -> None:
    assert rate(value) == text


INTERVALS = st.lists(st.tuples(st.integers(0, 10**7), st.integers(1, 10**7), st.floats(0, 1e15)), min_size=1)


@given(INTERVALS, st.integers(0, 10**8), st.integers(1, 10**8))
def test_everything_is_inside(steps: list[tuple[int, int, float]], since: int, length: int) -> None:
    begins = accumulate((pause + lasting for pause, lasting, _ in steps), initial=0)
    samples = [
        sample(begin + pause, begin + pause + lasting, value)
        for begin, (pause, lasting, value) in zip(begins, steps, strict=False)
    ]
    found = draw([("sent", samples)], since=since, until=since + length)
    assert found is not None
    assert re.fullmatch(r"(M[\d.]+ [\d.]+H[\d.]+(V[\d.]+H[\d.]+)*)+", found.lines[0].path)
    assert all(0 <= float(x) <= 1000 for x in re.findall(r"[MH]([\d.]+)", found.lines[0].path))
    assert all(0 <= float(y) <= 100 for y in re.findall(r"(?:V|M[\d.]+ )([\d.]+)", found.lines[0].path))
    assert all(gap.x >= 0 and gap.width > 0 and gap.x + gap.width <= 100.01 for gap in found.gaps)
    assert 2 <= len(found.levels) <= 6
    assert (found.levels[0].y, found.levels[-1].y) == (100, 0)
