# SPDX-License-Identifier: Apache-2.0
"""What follows from each event of a VM that is being installed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmwatch.events import DETAILS, EventType
from vmwatch.panel.installation import (
    REASONS,
    TIMEOUT,
    UNHEARD,
    Action,
    Choice,
    Installation,
    Outcome,
    begin,
    decide,
    describe,
    expire,
    follow,
    miss,
)

RUNS = Installation(steps=3, remaining=2, heard=True)
STARTS = Installation(steps=3, remaining=2)
LAST = Installation(steps=3, remaining=1, heard=True)
ENDS = Installation(steps=3, remaining=0)


def told(
    installation: Installation, what: str, cause: str | None = None, *, intent: Action | None = None
) -> Outcome:
    kind, _, detail = what.partition(" ")
    return follow(installation, kind, detail, cause, intended=intent)


def test_it_begins_with_the_medium() -> None:
    assert begin(2) == (Installation(steps=2, remaining=2), Action.INSTALL)


def test_a_guests_reboot_is_counted_and_the_vm_started_again() -> None:
    assert told(RUNS, "stopped shutdown", "guest-reset") == (
        Installation(steps=3, remaining=1),
        Action.START,
    )


def test_the_last_one_ends_it() -> None:
    assert told(LAST, "stopped shutdown", "guest-reset") == (ENDS, Action.FINISH)


@pytest.mark.parametrize("what", ["stopped shutdown", "stopped unknown"])
@pytest.mark.parametrize("cause", [None, ""])
def test_a_stop_of_unknown_cause_is_counted_and_marked(what: str, cause: str | None) -> None:
    assert told(RUNS, what, cause) == (Installation(steps=3, remaining=1, guessed=1), Action.START)


@pytest.mark.parametrize(
    ("what", "cause", "reason"),
    [
        ("stopped shutdown", "guest-shutdown", "guest-shutdown"),
        ("stopped shutdown", "guest-panic", "guest-panic"),
        ("stopped shutdown", "host-qmp-system-reset", "host-qmp-system-reset"),
        ("stopped shutdown", "host-qmp-quit", "host-qmp-quit"),
        ("stopped shutdown", "host-signal", "host-signal"),
        ("stopped shutdown", "host-error", "host-error"),
        ("stopped shutdown", "of-a-newer-qemu", "of-a-newer-qemu"),
        ("stopped destroyed", None, "destroyed"),
        ("stopped destroyed", "guest-reset", "destroyed"),
        ("stopped crashed", None, "crashed"),
        ("stopped failed", None, "failed"),
        ("stopped saved", None, "saved"),
        ("stopped from_snapshot", None, "from_snapshot"),
        ("stopped unknown-12", None, "unknown-12"),
        ("crashed panicked", None, "panicked"),
    ],
)
def test_any_other_stop_waits_for_a_person(what: str, cause: str | None, reason: str) -> None:
    waiting = RUNS._replace(waits=reason, heard=False)
    assert told(RUNS, what, cause) == (waiting, None)
    assert told(waiting, "stopped shutdown", "guest-reset") == (waiting, None)  # one reason, the first
    assert decide(waiting, Choice.CONTINUE) == (Installation(steps=3, remaining=1), Action.START)
    assert decide(waiting, Choice.RETRY) == (STARTS, Action.START)
    assert decide(waiting, Choice.CANCEL).action is Action.RELEASE
    assert told(waiting, "started booted") == (RUNS, None)  # by somebody else
    assert describe(reason)


@pytest.mark.parametrize(
    "what",
    [
        "started booted", "resumed unpaused", "suspended paused", "pmsuspended memory", "started unknown",
    ],
)  # fmt: skip
def test_what_tells_that_it_runs_makes_its_next_stop_one_of_this_step(what: str) -> None:
    assert told(STARTS, what) == (RUNS, None)
    assert told(RUNS, what) == (RUNS, None)


@pytest.mark.parametrize(
    "what",
    [
        "defined updated", "undefined removed", "shutdown guest", "shutdown finished", "rebooted reset",
        "ioerror pause", "watchdog reset", "stopped migrated", "started migrated", "crashed crashloaded",
        "unknown-77 unknown-1",
    ],
)  # fmt: skip
def test_other_events_change_nothing(what: str) -> None:
    for installation in (RUNS, STARTS, LAST, ENDS):
        assert told(installation, what) == (installation, None)


@pytest.mark.parametrize(
    "what", ["stopped shutdown", "stopped destroyed", "stopped failed", "crashed panicked"]
)
def test_a_stop_before_the_vm_was_heard_to_run_is_of_an_earlier_life(what: str) -> None:
    assert told(STARTS, what, "guest-reset", intent=Action.START) == (STARTS, None)
    # It was started, and is off, and nobody heard why: a person must look. If the stop was an old one, it is
    # heard to run next.
    waiting = STARTS._replace(waits=UNHEARD)
    assert told(STARTS, what, "guest-reset") == (waiting, None)
    assert told(waiting, "started booted") == (RUNS, None)


def test_a_vm_that_was_started_and_reboots_before_the_intent_is_closed_is_counted() -> None:
    runs, _ = told(STARTS, "started booted", intent=Action.START)
    assert told(runs, "stopped shutdown", "guest-reset", intent=Action.START).action is Action.START


def test_what_the_panel_itself_ended_for_the_installation_is_nothing_to_wait_for() -> None:
    # An event of the life before has come late, and made it heard.
    assert told(RUNS, "stopped destroyed", intent=Action.INSTALL) == (STARTS, None)
    assert told(RUNS, "stopped destroyed", intent=Action.START).installation.waits == "destroyed"
    # What the panel was killed before it could close is counted all the same.
    assert told(RUNS, "stopped shutdown", "guest-reset", intent=Action.INSTALL).action is Action.START


def test_stops_do_not_count_below_nothing() -> None:
    for installation in (ENDS, ENDS._replace(heard=True)):
        assert told(installation, "stopped shutdown", "guest-reset") == (installation, None)
    assert decide(ENDS, Choice.CONTINUE).action is decide(ENDS, Choice.RETRY).action is Action.FINISH


def test_a_time_limit_waits_whether_the_vm_runs_or_not() -> None:
    expired = expire(RUNS).installation
    assert expired.waits == TIMEOUT
    assert told(expired, "resumed unpaused").installation.waits == TIMEOUT
    off, action = told(expired, "stopped shutdown", "guest-reset")
    assert (off.remaining, off.waits, action) == (RUNS.remaining, TIMEOUT, None)
    assert decide(off, Choice.CONTINUE) == (Installation(steps=3, remaining=1), Action.START)
    assert decide(off, Choice.RETRY) == (STARTS, Action.START)
    assert decide(expired, Choice.CONTINUE) == (
        LAST,
        Action.START,
    )  # it runs: the next stop is of the next step
    assert decide(expired, Choice.RETRY) == (RUNS, Action.START)
    waiting = RUNS._replace(waits="destroyed", heard=False)
    assert expire(waiting).installation == waiting  # its reason stands


def test_one_that_has_not_begun_is_begun_again() -> None:
    """Its node was not reached within its time limit, say: what runs there is what was to be replaced."""
    expired = expire(begin(2).installation).installation
    assert decide(expired, Choice.RETRY) == begin(2)
    runs = expire(told(begin(2).installation, "started booted").installation).installation
    assert decide(runs, Choice.RETRY).action is Action.START


def test_one_that_is_found_off_and_was_not_heard_waits() -> None:
    assert miss(STARTS).installation.waits == UNHEARD
    for installation in (RUNS, STARTS._replace(waits="timeout")):
        assert miss(installation) == (installation, None)


def test_every_stop_that_libvirt_has_can_be_described() -> None:
    for detail in DETAILS[EventType.STOPPED]:
        waits = told(RUNS, f"stopped {detail}", "guest-shutdown").installation.waits
        assert waits is None or describe(waits)
    assert describe("of-a-newer-qemu") == "it stopped: of-a-newer-qemu"
    assert all(text[0].islower() for text in REASONS.values())


EVENTS = [(kind, detail) for kind, details in DETAILS.items() for detail in (*details, "unknown")]
CAUSES = [None, "guest-reset", "guest-shutdown", "host-signal"]


@given(
    st.integers(1, 5),
    st.lists(
        st.tuples(st.sampled_from(EVENTS), st.sampled_from(CAUSES), st.sampled_from([None, *Action])),
        max_size=60,
    ),
)
def test_in_any_order_it_counts_one_a_life_and_never_ends_early(
    steps: int, story: list[tuple[tuple[str, str], str | None, Action | None]]
) -> None:
    installation = begin(steps).installation
    lives = counted = 0
    for (kind, detail), cause, intent in story:
        before = installation
        installation, action = follow(before, kind, detail, cause, intended=intent)
        lives += installation.heard and not before.heard
        counted += before.remaining - installation.remaining
        assert 0 <= before.remaining - installation.remaining <= 1
        assert (action is not None) == (installation.remaining < before.remaining)
        if action is not None:
            assert (kind, cause) in [("stopped", "guest-reset"), ("stopped", None)]
            assert action is (Action.START if installation.remaining else Action.FINISH)
    assert installation.remaining == steps - counted >= 0
    assert counted <= lives
    assert installation.guessed <= counted
