# SPDX-License-Identifier: Apache-2.0
"""The same VM on two nodes: told after the settling time, by nodes that are heard of, and never of a migration."""

from __future__ import annotations

from vmwatch.duplicates import SETTLING_SECONDS, Duplicates, Finding

NOTHING = Finding(raised={}, solved=())
TWICE: dict[str, tuple[int, ...]] = {"web": (1, 2)}


def always(_node: int, _time: float) -> bool:
    return True


def never(_node: int, _time: float) -> bool:
    return False


def test_a_vm_that_runs_twice_is_told_once_after_the_settling_time() -> None:
    duplicates = Duplicates()
    assert duplicates.look(TWICE, now=10.0, current_since=always) == NOTHING
    assert duplicates.look(TWICE, now=10.0 + SETTLING_SECONDS - 0.01, current_since=always) == NOTHING
    told = duplicates.look(TWICE, now=10.0 + SETTLING_SECONDS, current_since=always)
    assert told == Finding(raised=TWICE, solved=())
    assert duplicates.look(TWICE, now=60.0, current_since=always) == NOTHING


def test_both_nodes_must_have_been_heard_of_after_the_settling_time() -> None:
    duplicates = Duplicates()
    asked: list[tuple[int, float]] = []

    def only_node_1(node: int, time: float) -> bool:
        asked.append((node, time))
        return node == 1

    duplicates.look(TWICE, now=10.0, current_since=never)
    assert duplicates.look(TWICE, now=99.0, current_since=only_node_1) == NOTHING
    assert asked == [(1, 10.0 + SETTLING_SECONDS), (2, 10.0 + SETTLING_SECONDS)]
    assert duplicates.look(TWICE, now=99.5, current_since=always).raised == TWICE


def test_two_ends_of_a_migration_are_no_duplicate() -> None:
    duplicates = Duplicates()
    assert duplicates.look(TWICE, now=10.0, current_since=always) == NOTHING
    assert duplicates.look({}, now=10.5, current_since=always) == NOTHING
    assert not duplicates.watching


def test_to_and_fro_the_settling_time_begins_anew() -> None:
    duplicates = Duplicates()
    for second in range(20):
        pair = (1, 2) if second % 2 else (2, 3)
        shown = duplicates.look({"web": pair}, now=second * SETTLING_SECONDS / 2, current_since=always)
        assert shown == NOTHING


def test_it_is_solved_when_one_copy_is_gone() -> None:
    duplicates = Duplicates()
    duplicates.look(TWICE, now=0.0, current_since=always)
    duplicates.look(TWICE, now=9.0, current_since=always)
    assert duplicates.watching
    assert duplicates.look({}, now=10.0, current_since=always) == Finding(raised={}, solved=("web",))
    assert duplicates.look({}, now=11.0, current_since=always) == NOTHING
    assert not duplicates.watching


def test_a_third_copy_is_the_same_problem() -> None:
    duplicates = Duplicates()
    duplicates.look(TWICE, now=0.0, current_since=always)
    duplicates.look(TWICE, now=9.0, current_since=always)
    assert duplicates.look({"web": (1, 2, 3)}, now=19.0, current_since=always) == NOTHING
