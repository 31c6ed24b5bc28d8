# SPDX-License-Identifier: Apache-2.0
"""The checker, on graphs that can be drawn on a hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.model.checker import Report, Step, explore

if TYPE_CHECKING:
    from collections.abc import Iterator

Edges = dict[int, list[tuple[int, bool]]]  # from -> to, and whether it is progress


def explored(edges: Edges, *, bad: int | None = None, end: int = 9, depth: int = 1000) -> Report:
    def steps(state: int) -> Iterator[Step[int]]:
        for target, progress in edges.get(state, []):
            yield Step(f"to {target}", target, progress)

    return explore(
        0,
        steps=steps,
        wrong=lambda state: "bad" if state == bad else None,
        lacking=lambda state: None if state == end else f"{end} is not reached",
        depth=depth,
    )


def test_explores_all_and_counts() -> None:
    report = explored({0: [(1, True), (2, True)], 1: [(9, True)], 2: [(9, True)]})
    assert (report.wrong, report.states, report.transitions, report.depth) == (None, 4, 4, 2)
    assert report.complete


def test_shows_a_shortest_way_to_what_is_wrong() -> None:
    report = explored({0: [(1, True), (5, True)], 1: [(2, True)], 2: [(5, True)], 5: [(9, True)]}, bad=5)
    assert (report.wrong, report.trace) == ("bad", ("to 5",))


def test_finds_a_deadlock_and_shows_it() -> None:
    report = explored({0: [(9, True), (1, False)], 1: [(2, True)]})
    assert (report.wrong, report.trace) == ("the end: 9 is not reached", ("to 1", "to 2"))


def test_finds_a_livelock() -> None:
    report = explored({0: [(9, True), (1, False)], 1: [(2, True)], 2: [(1, True)]})
    assert (report.wrong, report.trace) == ("from here it goes round for ever", ("to 1",))


def test_a_fault_is_no_way_out() -> None:
    assert explored({0: [(1, True)], 1: [(9, False)]}).wrong == "the end: 9 is not reached"


def test_a_circle_with_a_way_out_is_none() -> None:
    assert explored({0: [(1, True)], 1: [(0, True), (9, True)]}).wrong is None


def test_says_that_it_stopped_and_judges_no_end() -> None:
    report = explored({0: [(1, True)], 1: [(2, True)], 2: [(3, True)]}, depth=2)
    assert (report.wrong, report.complete, report.states) == (None, False, 3)
