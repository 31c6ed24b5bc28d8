# SPDX-License-Identifier: Apache-2.0
"""The same VM on two nodes: told after the settling time, by nodes that are heard of, and never of a migration."""

from __future__ import annotations

from functools import partial

from vmwatch.duplicates import SETTLING_SECONDS, Duplicates

TWICE = {"web": ((1, 1), (2, 2))}


def always(_node: int, _time: float) -> bool:
    return True


def heard_at(now: float, _node: int, time: float) -> bool:
    return now > time


def test_both_nodes_must_be_heard_of_after_the_settling_time() -> None:
    duplicates = Duplicates()
    heard = {1: 10.0, 2: 10.0}

    def current_since(node: int, time: float) -> bool:
        return heard[node] > time

    assert duplicates.look(TWICE, now=10.0, current_since=current_since) == {}
    heard[1] = 10.1 + SETTLING_SECONDS
    assert duplicates.look(TWICE, now=11.5, current_since=current_since) == {}
    heard[2] = 9.9 + SETTLING_SECONDS
    assert duplicates.look(TWICE, now=99.0, current_since=current_since) == {}
    heard[2] = 10.1 + SETTLING_SECONDS
    assert duplicates.look(TWICE, now=99.5, current_since=current_since) == {"web": [1, 2]}
    assert duplicates.look(TWICE, now=99.9, current_since=current_since) == {"web": [1, 2]}


def test_two_ends_of_a_migration_are_no_duplicate() -> None:
    duplicates = Duplicates()
    assert duplicates.look(TWICE, now=10.0, current_since=lambda _node, time: time < 10.5) == {}
    assert duplicates.watching
    assert duplicates.look({}, now=10.5, current_since=always) == {}
    assert not duplicates.watching


def test_to_and_fro_the_settling_time_begins_anew() -> None:
    duplicates = Duplicates()
    for step in range(20):
        now = step * SETTLING_SECONDS / 2
        running = {"web": ((1, step), (2, 1))}
        assert duplicates.look(running, now=now, current_since=partial(heard_at, now)) == {}
