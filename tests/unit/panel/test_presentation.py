# SPDX-License-Identifier: Apache-2.0
"""How values read."""

from __future__ import annotations

import pytest

from vmwatch.events import Status
from vmwatch.panel.presentation import FOLDER, STATUSES, ago, clock, delay, environment, number, problem_word

NOW = 1_795_338_000_000  # 2026-11-22 09:00 UTC


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(-5, "0 s"), (0, "0 s"), (59, "59 s"), (60, "1 min"), (3599, "59 min"), (3600, "1 h"), (86_400, "1 d")],
)
def test_ago(seconds: int, words: str) -> None:
    assert ago(NOW - seconds * 1000, NOW) == words


def test_a_moment_of_another_day_has_its_date() -> None:
    assert clock(NOW - 1000, NOW) == "08:59:59"
    assert clock(NOW - 86_400_000, NOW) == "2026-11-21 09:00"


@pytest.mark.parametrize(
    ("milliseconds", "words"), [(3, "3 ms"), (-7, "-7 ms"), (1240, "1.2 s"), (300_000, "5 min")]
)
def test_delay(milliseconds: int, words: str) -> None:
    assert delay(milliseconds) == words


def test_words() -> None:
    assert number(10000) == "10 000"
    assert problem_word("node_silent") == "node silent"
    assert problem_word("disk_full") == "disk full"


def test_every_status_has_a_word_a_shape_and_a_colour() -> None:
    assert set(STATUSES) == set(Status)
    style = (FOLDER / "static" / "style.css").read_text()
    glyph = environment().from_string('{% from "macros.html" import glyph %}{{ glyph(status) }}')
    shapes = {glyph.render(status=status).split(">", 1)[1] for status in Status}
    assert len(shapes) == len(Status)
    for status in Status:
        assert f".s-{status} {{ --mark: var(--{status}); }}" in style
        assert f".b-{status} {{" in style
