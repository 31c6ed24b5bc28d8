# SPDX-License-Identifier: Apache-2.0
"""The geometry of a history's picture."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmwatch.panel.timeline import Entry, Gap, draw, fit

NOW = 1_795_338_000_000


def entry(time: int, status: str, hostnode: int | None = 1) -> Entry:
    return Entry(
        id=time,
        reporter=hostnode or 1,
        reporter_name=f"host-{hostnode or 1}",
        type="started",
        subtype="booted",
        cause=None,
        source="event",
        earliest=None,
        time=time,
        registered=time,
        status=status,
        hostnode=hostnode,
        node=f"host-{hostnode}" if hostnode else None,
        event_id=None,
    )


def test_a_status_lasts_until_the_next_and_the_last_until_now() -> None:
    picture = draw([entry(NOW - 100, "running"), entry(NOW - 50, "stopped")], [], since=NOW - 100, now=NOW)
    assert [(bar.status, bar.since - NOW, bar.until - NOW) for bar in picture.segments] == [
        ("running", -100, -50),
        ("stopped", -50, 0),
    ]
    running, stopped = picture.segments
    assert running.x == 0
    assert running.width == pytest.approx(stopped.width, abs=0.01)


def test_a_migration_moves_to_another_lane() -> None:
    picture = draw(
        [entry(NOW - 90, "running", 7), entry(NOW - 50, "running", 2), entry(NOW - 10, "stopped", None)],
        [],
        since=NOW - 100,
        now=NOW,
    )
    assert picture.lanes == ("host-2", "host-7", "no node")
    assert [(mark.came_from, mark.lane) for mark in picture.marks] == [(None, 1), (1, 0), (0, 2)]


def test_what_began_before_lasts_into_the_picture() -> None:
    picture = draw([entry(NOW - 9000, "saved"), entry(NOW - 8000, "paused")], [], since=NOW - 1000, now=NOW)
    assert [(bar.status, bar.x) for bar in picture.segments] == [("paused", 0)]
    assert picture.marks == ()


@pytest.mark.parametrize(("until", "end"), [(NOW - 20, NOW - 20), (None, NOW)])
def test_a_nodes_silence_lies_over_its_lane(until: int | None, end: int) -> None:
    entries = [entry(NOW - 100, "running", 1), entry(NOW - 60, "running", 2)]
    silences = [Gap(hostnode=2, since=NOW - 80, until=until), Gap(hostnode=3, since=NOW - 80, until=None)]
    picture = draw(entries, silences, since=NOW - 100, now=NOW)
    assert [(bar.lane, bar.since, bar.until) for bar in picture.segments if bar.status == "unknown"] == [
        (1, NOW - 60, end)
    ]


def test_a_long_quiet_before_is_left_out() -> None:
    busy = [entry(NOW - 60_000 + 1000 * step, "running") for step in range(5)]
    assert fit(busy, NOW) == NOW - 61_200
    assert fit([entry(NOW - 86_400_000, "stopped"), *busy], NOW) == NOW - 66_000


@given(
    st.lists(st.tuples(st.integers(0, 10**11), st.sampled_from([None, 1, 2])), max_size=20),
    st.integers(1, 10**11),
)
def test_everything_is_inside_whatever_the_clocks_said(told: list[tuple[int, int | None]], span: int) -> None:
    entries = [entry(NOW - 5 * 10**10 + time, "running", node) for time, node in told]
    for since in (NOW - span, fit(entries, NOW)):
        picture = draw(entries, [Gap(hostnode=1, since=NOW - span, until=None)], since=since, now=NOW)
        assert all(0 <= bar.x <= 100 and 0 < bar.width <= 100 for bar in picture.segments)
        assert all(0 <= mark.x <= 100 for mark in picture.marks)
        assert len(picture.ticks) <= 8
        assert all(0 <= tick.x <= 100 for tick in picture.ticks)
