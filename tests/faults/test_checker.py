# SPDX-License-Identifier: Apache-2.0
"""The checker sees what is wrong, and only that."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.faults.checker import LATE_SECONDS, compare, holes
from tests.faults.history import Heard, Span, Told, Wrong

if TYPE_CHECKING:
    from collections.abc import Sequence

LIFE = (
    ("defined", "added"),
    ("started", "booted"),
    ("suspended", "paused"),
    ("resumed", "unpaused"),
    ("suspended", "paused"),
    ("resumed", "unpaused"),
    ("stopped", "destroyed"),
)
NEVER_AWAY: dict[int, list[Span]] = {}


def heard_of(life: Sequence[tuple[str, str]], *, vm: str = "web") -> list[Heard]:
    """One event a second."""
    return [
        Heard(time=float(second), node=1, vm=vm, type=type_, subtype=subtype)
        for second, (type_, subtype) in enumerate(life)
    ]


def told_of(heard: Sequence[Heard], *, run: str = "a") -> list[Told]:
    """As a faultless panel has it."""
    return [
        Told(
            id=number,
            node=event.node,
            vm=event.vm,
            type=event.type,
            subtype=event.subtype,
            time=event.time + 0.001,
            run=run,
            seq=number,
            is_found=False,
        )
        for number, event in enumerate(heard, start=1)
    ]


def numbered(told: Sequence[Told]) -> list[Told]:
    """In this order by id and number: as if they had been kept so."""
    return [dataclasses.replace(line, id=number, seq=number) for number, line in enumerate(told, start=1)]


def found(type_: str, subtype: str, *, time: float, number: int, run: str = "b") -> Told:
    return Told(
        id=number,
        node=1,
        vm="web",
        type=type_,
        subtype=subtype,
        time=time,
        run=run,
        seq=number,
        is_found=True,
    )


def wrongs(
    heard: Sequence[Heard],
    told: Sequence[Told],
    *,
    away: dict[int, list[Span]] = NEVER_AWAY,
    unheard: dict[int, list[Span]] = NEVER_AWAY,
) -> list[Wrong]:
    return [violation.wrong for violation in compare(heard, told, away=away, unheard=unheard).violations]


def test_what_is_as_it_should_be_is_not_blamed() -> None:
    heard = heard_of(LIFE)
    verdict = compare(heard, told_of(heard), away={}, unheard={})
    assert verdict.violations == ()
    assert (verdict.matched, verdict.missed, verdict.found) == (len(LIFE), 0, 0)


@pytest.mark.parametrize("place", range(len(LIFE)))
def test_one_loss_is_one_loss(place: int) -> None:
    heard = heard_of(LIFE)
    told = told_of(heard)
    del told[place]
    assert wrongs(heard, told) == [Wrong.LOST]


@pytest.mark.parametrize("place", range(len(LIFE)))
def test_one_event_under_two_numbers_is_one_double(place: int) -> None:
    heard = heard_of(LIFE)
    told = told_of(heard)
    told.insert(place, told[place])
    assert wrongs(heard, numbered(told)) == [Wrong.DOUBLED]


@pytest.mark.parametrize("place", range(len(LIFE)))
def test_one_number_twice_is_one_double(place: int) -> None:
    heard = heard_of(LIFE)
    told = told_of(heard)
    told.append(dataclasses.replace(told[place], id=len(told) + 1))
    assert wrongs(heard, told) == [Wrong.DOUBLED]


@pytest.mark.parametrize("place", range(len(LIFE) - 1))
def test_two_events_kept_in_the_wrong_order_are_one_swap(place: int) -> None:
    heard = heard_of(LIFE)
    told = told_of(heard)
    told[place], told[place + 1] = told[place + 1], told[place]
    assert wrongs(heard, numbered(told)) == [Wrong.SWAPPED]


@pytest.mark.parametrize("place", range(len(LIFE) - 1))
def test_two_events_told_in_the_wrong_order_are_one_swap(place: int) -> None:
    heard = heard_of(LIFE)
    told = told_of(heard)
    told[place], told[place + 1] = (
        dataclasses.replace(told[place], id=told[place + 1].id),
        dataclasses.replace(told[place + 1], id=told[place].id),
    )
    assert wrongs(heard, told) == [Wrong.SWAPPED]


def test_what_never_happened_is_blamed() -> None:
    heard = heard_of(LIFE)
    told = [*told_of(heard), *told_of(heard_of([("crashed", "panicked")]))]
    assert wrongs(heard, numbered(told)) == [Wrong.DOUBLED]


def test_what_is_told_much_too_late_is_not_that_event() -> None:
    heard = heard_of([("started", "booted")])
    (told,) = told_of(heard)
    late = dataclasses.replace(told, time=told.time + LATE_SECONDS + 1)
    assert wrongs(heard, [late]) == [Wrong.SWAPPED]


def test_other_vms_and_nodes_are_looked_at_for_themselves() -> None:
    heard = [*heard_of(LIFE), *heard_of(LIFE, vm="mail")]
    told = [line for line in told_of(heard) if (line.vm, line.type) != ("mail", "started")]
    (violation,) = compare(heard, told, away={}, unheard={}).violations
    assert (violation.wrong, violation.node, violation.vm) == (Wrong.LOST, 1, "mail")


def test_what_the_node_could_not_hear_may_be_missing() -> None:
    heard = heard_of(LIFE)
    told = [line for line in told_of(heard) if not 1.5 < line.time < 3.5]
    verdict = compare(heard, told, away={1: [Span(start=1.5, end=3.5)]}, unheard={})
    assert (verdict.violations, verdict.missed) == ((), 2)


def test_the_events_around_an_absence_are_not_taken_for_those_in_it() -> None:
    """Two pairs of suspended and resumed, of which the first was missed: the panel has the second."""
    heard = heard_of(LIFE)
    told = [line for line in told_of(heard) if not 1.5 < line.time < 3.5]
    told[-1:] = []  # and the end is lost
    assert wrongs(heard, told, away={1: [Span(start=1.5, end=3.5)]}) == [Wrong.LOST]


def test_of_two_events_that_are_alike_the_nearer_one_is_meant() -> None:
    """The panel has the second `suspended`: the first was missed, and what a snapshot found lies between."""
    heard = heard_of(LIFE[:5])
    told = [*told_of(heard[:2]), found("resumed", "unpaused", time=3.6, number=3, run="b"), told_of(heard)[4]]
    told[-1] = dataclasses.replace(told[-1], id=4, run="b", seq=4)
    assert wrongs(heard, told, away={1: [Span(start=1.5, end=4.5)]}) == []


def test_another_nodes_absence_excuses_nothing() -> None:
    heard = heard_of(LIFE)
    told = told_of(heard)[1:]
    assert wrongs(heard, told, away={2: [Span(start=0, end=10)]}) == [Wrong.LOST]


def test_a_snapshot_stands_for_what_was_missed() -> None:
    heard = heard_of(LIFE[:3])
    told = [*told_of(heard[:2]), found("suspended", "paused", time=3.0, number=3)]
    verdict = compare(heard, told, away={1: [Span(start=1.5, end=3.0)]}, unheard={})
    assert (verdict.violations, verdict.found) == ((), 1)


def test_a_snapshot_that_tells_again_what_was_told_is_a_double() -> None:
    heard = heard_of(LIFE[:3])
    told = [*told_of(heard), found("suspended", "paused", time=3.0, number=4)]
    assert wrongs(heard, told, away={1: [Span(start=2.5, end=3.0)]}) == [Wrong.DOUBLED]


def test_who_comes_back_may_hear_of_an_undefined_vm_before_it_finds_that_it_had_stopped() -> None:
    heard = heard_of([LIFE[0], LIFE[1], ("stopped", "destroyed"), ("undefined", "removed"), LIFE[0]])
    away = {1: [Span(start=1.5, end=2.5)]}
    told = told_of(heard)
    ends = [found("stopped", "unknown", time=4, number=4), found("undefined", "removed", time=4, number=5)]
    told = [told[0], told[1], *[dataclasses.replace(line, run="b") for line in (told[3], *ends, told[4])]]
    assert wrongs(heard, numbered(told), away=away) == []
    again = found("stopped", "unknown", time=5, number=6)
    assert wrongs(heard, numbered([*told, again]), away=away) == [Wrong.DOUBLED]


def test_a_transient_domain_is_found_to_be_gone_with_its_stop_and_once() -> None:
    heard = heard_of([LIFE[0], ("stopped", "failed"), LIFE[0], LIFE[1]])
    gone = found("undefined", "removed", time=1.3, number=3)
    told = [*told_of(heard[:2]), gone, *told_of(heard[2:])]
    told = numbered([dataclasses.replace(line, run="a") for line in told])
    assert wrongs(heard, told) == []
    twice = numbered([*told[:3], *told[2:]])
    assert wrongs(heard, twice) == [Wrong.DOUBLED]
    alive = numbered([*told[:1], *told[2:3], *told[1:2], *told[3:]])
    assert wrongs(heard, alive) == [Wrong.DOUBLED]
    undefined = heard_of([LIFE[0], ("stopped", "failed"), ("undefined", "removed"), LIFE[0]])
    told = [*told_of(undefined[:2]), dataclasses.replace(gone, run="a"), *told_of(undefined[2:])]
    assert wrongs(undefined, numbered(told)) == [Wrong.DOUBLED]


def test_a_node_whose_outbox_was_replaced_may_find_what_it_had_told() -> None:
    heard = heard_of(LIFE[:3])
    told = [*told_of(heard), found("suspended", "paused", time=3.0, number=4)]
    lost = {1: [Span(start=2.5, end=3.5)]}
    assert compare(heard, told, away=lost, unheard={}, replaced=lost).violations == ()
    extra = dataclasses.replace(told[3], is_found=False)
    (violation,) = compare(heard, [*told[:3], extra], away=lost, unheard={}, replaced=lost).violations
    assert violation.wrong is Wrong.DOUBLED


def test_what_happened_while_nobody_observed_is_not_doubted() -> None:
    heard = heard_of(LIFE[:3])
    told = [*told_of(heard), found("stopped", "unknown", time=4.0, number=4)]
    assert wrongs(heard, told, unheard={1: [Span(start=2.5, end=3.9)]}) == []
    extra = dataclasses.replace(told_of(heard)[2], type="stopped", id=4, seq=4, time=3.0)
    assert wrongs(heard, [*told_of(heard), extra], unheard={1: [Span(start=2.5, end=3.9)]}) == []
    assert wrongs(heard, [*told_of(heard), extra]) == [Wrong.DOUBLED]


def test_a_record_that_was_kept_and_never_arrived_is_a_hole() -> None:
    told = told_of(heard_of(LIFE))
    assert holes(told, {}) == []
    assert holes(told, {(1, "a"): len(LIFE)}) == []
    (inside,) = holes([*told[:2], *told[4:]], {})
    assert (inside.wrong, inside.node) == (Wrong.HOLE, 1)
    assert inside.text == "records 3-4 of run a never arrived"
    (behind,) = holes(told, {(1, "a"): len(LIFE) + 1})
    assert behind.text == "records 8 of run a never arrived"
    (all_of_it,) = holes([], {(2, "b"): 3})
    assert (all_of_it.node, all_of_it.text) == (2, "records 1-3 of run b never arrived")


# --- any life, any absence ---

STEPS = st.sampled_from(sorted(set(LIFE)))
LIVES = st.lists(STEPS, min_size=1, max_size=30)


@given(LIVES, st.data())
def test_any_single_loss_is_seen(life: list[tuple[str, str]], data: st.DataObject) -> None:
    heard = heard_of(life)
    told = told_of(heard)
    del told[data.draw(st.integers(0, len(told) - 1))]
    assert wrongs(heard, told) == [Wrong.LOST]


@given(LIVES, st.data())
def test_any_single_double_is_seen(life: list[tuple[str, str]], data: st.DataObject) -> None:
    heard = heard_of(life)
    told = told_of(heard)
    place = data.draw(st.integers(0, len(told) - 1))
    told.insert(data.draw(st.integers(0, len(told))), told[place])
    assert Wrong.LOST not in wrongs(heard, numbered(told))
    assert len(wrongs(heard, numbered(told))) == 1


@given(LIVES, st.data())
def test_any_swap_of_unlike_neighbours_is_seen(life: list[tuple[str, str]], data: st.DataObject) -> None:
    heard = heard_of([*life, ("crashed", "panicked")])
    told = told_of(heard)
    unlike = [i for i in range(len(told) - 1) if told[i].type != told[i + 1].type]
    place = data.draw(st.sampled_from(unlike)) if unlike else 0
    told[place], told[place + 1] = told[place + 1], told[place]
    if unlike:
        assert wrongs(heard, numbered(told)) == [Wrong.SWAPPED]


@given(LIVES, st.integers(0, 30), st.integers(0, 30))
def test_no_absence_is_blamed(life: list[tuple[str, str]], start: int, length: int) -> None:
    """Whatever the node did not hear, and whatever of it it did: a kill cuts where it likes."""
    heard = heard_of(life)
    away = Span(start=start - 0.5, end=start + length - 0.5)
    told = [line for line in told_of(heard) if not away.start <= line.time <= away.end or line.seq % 3 == 0]
    assert wrongs(heard, numbered(told), away={1: [away]}) == []
