# SPDX-License-Identifier: Apache-2.0
"""One line of a kind in each interval, what was held back is counted, and no flood fills the memory."""

from __future__ import annotations

from vmwatch.throttle import KINDS, Throttle


def test_one_line_an_interval_and_the_count_of_the_others() -> None:
    throttle = Throttle(seconds=10)
    said = [throttle.admit("size", now=now) for now in (0, 1, 9.9, 10, 10.1, 25, 35)]
    assert said == [0, None, None, 2, None, 1, 0]


def test_the_first_line_is_said_whatever_the_clock_says() -> None:
    assert Throttle(seconds=10).admit("size", now=0) == 0
    assert Throttle(seconds=10).admit("size", now=-5) == 0


def test_kinds_do_not_hold_each_other_back() -> None:
    throttle = Throttle(seconds=10)
    assert [throttle.admit(kind, now=0) for kind in ("a", "b", "a", "b")] == [0, 0, None, None]
    assert [throttle.admit(kind, now=10) for kind in ("a", "b")] == [1, 1]


def test_a_flood_of_kinds_is_one_kind() -> None:
    throttle = Throttle(seconds=10)
    said = [throttle.admit(f"peer {number}", now=1) for number in range(10_000)]
    assert [held for held in said if held is not None] == [0] * (KINDS + 1)
    assert throttle.admit("another peer", now=2) is None
    assert len(throttle._last) <= KINDS + 1
    assert len(throttle._held) <= KINDS + 1


def test_a_flood_that_is_over_makes_room() -> None:
    throttle = Throttle(seconds=10)
    for number in range(10_000):
        throttle.admit(f"peer {number}", now=number / 1000)
    assert [throttle.admit(kind, now=100) for kind in ("a", "b", "a")] == [0, 0, None]
