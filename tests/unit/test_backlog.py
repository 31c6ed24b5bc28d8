# SPDX-License-Identifier: Apache-2.0
"""What is read ahead comes in order, whatever is passed over, and is never much."""

from __future__ import annotations

from collections import defaultdict, deque

from hypothesis import given
from hypothesis import strategies as st

from vmwatch.backlog import FEW, MOST_OF_A_KEY, Backlog
from vmwatch.calls import Call


def call(number: int, key: str) -> Call:
    return Call(id=number, key=key, time=0.0, func="vm.event", fields={})


def offer(backlog: Backlog, call: Call) -> bool:
    """Whether it was kept."""
    keep, over = backlog.divide([call])
    backlog.add(keep, over)
    return not over


def test_a_key_has_only_so_many_calls_here() -> None:
    backlog = Backlog()
    kept = [offer(backlog, call(number, "a")) for number in range(MOST_OF_A_KEY + 2)]
    assert kept == [True] * MOST_OF_A_KEY + [False] * 2
    assert backlog.passed == {"a"}
    assert offer(backlog, call(99, "b"))


def with_b_passed_over() -> Backlog:
    backlog = Backlog()
    backlog.add([call(-1, "b")], [call(0, "b")])
    return backlog


def test_calls_that_are_read_together_are_divided_as_one_by_one() -> None:
    backlog, one_by_one = with_b_passed_over(), with_b_passed_over()
    size = backlog.size
    calls = [call(number, "aab"[number % 3]) for number in range(3 * MOST_OF_A_KEY)]
    keep, over = backlog.divide(calls)
    assert (backlog.size, backlog.passed) == (size, {"b"})
    assert [one for one in calls if offer(one_by_one, one)] == keep
    assert sorted(keep + over, key=lambda one: one.id) == calls
    backlog.add(keep, over)
    assert (backlog.size, backlog.passed) == (one_by_one.size, one_by_one.passed)


def test_when_there_are_many_each_key_has_one() -> None:
    backlog = Backlog()
    for number in range(FEW):
        assert offer(backlog, call(number, f"vm {number}"))
    assert offer(backlog, call(FEW, "new"))
    assert not offer(backlog, call(FEW + 1, "new"))
    assert backlog.size == FEW + 1


def test_who_was_passed_over_comes_in_order_again() -> None:
    backlog = Backlog()
    backlog.add([], [call(5, "a")])
    assert not offer(backlog, call(7, "a"))
    assert backlog.first("a") is None
    backlog.bring("a", [call(5, "a"), call(7, "a")], more=False)
    assert offer(backlog, call(8, "a"))
    first = backlog.first("a")
    assert first is not None
    assert first.id == 5


def test_when_there_are_many_one_is_brought() -> None:
    backlog = Backlog()
    assert backlog.most == MOST_OF_A_KEY
    backlog.add([call(number, f"vm {number}") for number in range(FEW)], [])
    assert backlog.most == 1


def test_a_call_that_is_not_here_takes_no_other_with_it() -> None:
    backlog = Backlog()
    assert offer(backlog, call(2, "a"))
    backlog.remove(call(1, "a"))
    backlog.remove(call(1, "b"))
    assert backlog.first("a") == call(2, "a")


@given(arrivals=st.lists(st.sampled_from("aaab"), max_size=200), data=st.data())
def test_each_key_is_made_in_order_and_whole(arrivals: list[str], data: st.DataObject) -> None:
    """As the ledger does: reads on, passes over, brings what was passed over when a key has nothing here."""
    backlog = Backlog()
    unread = deque(call(number, key) for number, key in enumerate(arrivals))
    passed: dict[str, list[Call]] = defaultdict(list)
    made: dict[str, list[int]] = defaultdict(list)
    while unread or backlog.size or backlog.passed:
        reads = data.draw(st.booleans())
        if unread and reads:
            one = unread.popleft()
            if not offer(backlog, one):
                passed[one.key].append(one)
            continue
        for key in "ab":
            if key in backlog.passed and backlog.first(key) is None:
                most = data.draw(st.integers(1, 3))
                brought, passed[key] = passed[key][:most], passed[key][most:]
                backlog.bring(key, brought, more=bool(passed[key]))
            if first := backlog.first(key):
                made[key].append(first.id)
                backlog.remove(first)
    for key in "ab":
        assert made[key] == [number for number, one in enumerate(arrivals) if one == key]
