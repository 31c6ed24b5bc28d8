# SPDX-License-Identifier: Apache-2.0
"""Unreachable is not off: who has been silent, and for how long."""

from __future__ import annotations

from vmwatch.presence import MISSED_HEARTBEATS, Presence


def test_nobody_is_silent_who_was_never_expected() -> None:
    assert Presence().silent(1e9) == {}


def test_a_node_is_silent_after_three_of_its_own_intervals() -> None:
    presence = Presence()
    presence.heard(1, interval=10, now=100)
    presence.heard(2, interval=1, now=100)
    assert presence.silent(100 + MISSED_HEARTBEATS * 1) == {}
    assert presence.silent(104) == {2: 4}
    for second in range(105, 131):
        assert presence.silent(second) == {2: second - 100}
    assert presence.silent(131) == {1: 31, 2: 31}


def test_nobody_is_silent_because_the_master_was_frozen() -> None:
    presence = Presence()
    presence.heard(1, interval=1, now=100)
    assert presence.silent(101) == {}
    assert presence.silent(901) == {}
    assert presence.silent(903) == {}
    assert presence.silent(904) == {1: 4}


def test_a_node_that_is_heard_again_is_there() -> None:
    presence = Presence()
    presence.heard(1, interval=1, now=0)
    assert presence.silent(5) == {1: 5}
    presence.heard(1, interval=1, now=6)
    assert presence.silent(7) == {}


def test_the_last_interval_counts() -> None:
    presence = Presence()
    presence.heard(1, interval=1, now=0)
    presence.heard(1, interval=100, now=1)
    assert presence.silent(200) == {}
