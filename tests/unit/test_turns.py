# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from vmwatch.turns import Turns


def row(turns: Turns, *, now: float = 0.0) -> list[str]:
    """Take all turns that there are now, the sick ones last."""
    turns.come_due(now=now)
    taken = []
    while key := turns.first() or turns.first(sick=True):
        turns.take(key)
        taken.append(key)
    return taken


def filled(*keys: str) -> Turns:
    turns = Turns()
    for key in keys:
        turns.add(key)
    return turns


def test_turns_come_in_the_order_of_their_coming() -> None:
    assert row(filled("a", "b", "c", "a")) == ["a", "b", "c"]


def test_who_has_much_to_do_holds_up_nobody() -> None:
    turns = filled("busy", "other")
    turns.take("busy")
    turns.again("busy")
    assert row(turns) == ["other", "busy"]


def test_who_is_out_has_no_second_turn_at_the_same_time() -> None:
    turns = filled("a")
    turns.take("a")
    turns.add("a")
    assert turns.first() is None
    turns.again("a")
    assert turns.first() == "a"


def test_who_is_put_off_waits_until_it_is_due_whatever_comes_in() -> None:
    turns = filled("a", "b")
    turns.take("a")
    turns.put_off("a", due=5.0)
    turns.add("a")
    assert turns.come_due(now=4.9) == 5.0
    assert row(turns, now=4.9) == ["b"]
    assert row(turns, now=5.0) == ["a"]
    assert turns.come_due(now=5.0) is None


def test_who_is_put_off_again_has_one_time_only() -> None:
    turns = filled("a")
    for due in (5.0, 3.0, 7.0):
        turns.take("a")
        turns.put_off("a", due=due)
    assert row(turns, now=6.9) == []
    assert turns.come_due(now=6.9) == 7.0
    assert row(turns, now=7.0) == ["a"]


def test_the_sick_stand_in_a_row_of_their_own_until_they_are_not() -> None:
    turns = filled("a", "b", "c")
    turns.again("a", sick=True)
    turns.put_off("b", due=1.0, sick=True)
    turns.add("a")
    assert (turns.first(), turns.first(sick=True)) == ("c", "a")
    turns.take("a")
    turns.come_due(now=1.0)
    assert turns.first(sick=True) == "b"
    turns.again("a")
    turns.take("b")
    turns.put_off("b", due=2.0)
    turns.come_due(now=2.0)
    assert turns.first(sick=True) is None
    assert row(turns) == ["c", "a", "b"]


def test_who_was_dropped_may_come_again() -> None:
    turns = filled("a")
    turns.take("a")
    turns.drop("a")
    assert turns.first() is None
    turns.add("a")
    assert turns.first() == "a"


def test_saying_it_twice_changes_nothing() -> None:
    turns = filled("a", "b")
    turns.take("a")
    for _ in range(2):
        turns.put_off("a", due=1.0)
    for _ in range(2):
        turns.again("b")
    assert row(turns, now=1.0) == ["b", "a"]


KEYS = st.sampled_from("abc")
STEPS = st.lists(st.tuples(st.sampled_from(["add", "take", "again", "put_off", "drop"]), KEYS, st.booleans()))


@given(STEPS)
def test_nobody_is_lost_and_nobody_is_in_twice(steps: list[tuple[str, str, bool]]) -> None:
    turns = Turns()
    here: set[str] = set()
    out: set[str] = set()
    for what, key, sick in steps:
        if what == "add":
            turns.add(key)
            here.add(key)
        elif what == "take" and key in here - out:
            turns.take(key)
            out.add(key)
        elif what == "drop":
            turns.drop(key)
            here.discard(key)
            out.discard(key)
        elif key in out:
            out.discard(key)
            if what == "again":
                turns.again(key, sick=sick)
            else:
                turns.put_off(key, due=9.0, sick=sick)
    assert sorted(row(turns, now=9.0)) == sorted(here - out)


def test_ready_are_those_that_wait_for_nothing_else() -> None:
    turns = Turns()
    for key in "abcd":
        turns.add(key)
    assert turns.ready == 4
    turns.take("a")
    turns.put_off("b", due=5.0)
    turns.again("c", sick=True)
    assert turns.ready == 1
    turns.again("a")
    assert turns.ready == 2
