# SPDX-License-Identifier: Apache-2.0
"""The status from all copies: right in the end of every interleaving of what the nodes tell."""

from __future__ import annotations

import itertools
import os
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vmwatch.cluster import Copies, Copy, Placement, apply, place
from vmwatch.events import DETAILS, CopyState, EventType, Status

A, B = 1, 2
Told = tuple[int, str, str]

LIVE = [
    (A, "suspended", "migrated"),
    (A, "stopped", "migrated"),
    (B, "started", "migrated"),
    (B, "resumed", "migrated"),
]
POSTCOPY = [
    (A, "suspended", "postcopy"),
    (A, "stopped", "migrated"),
    (B, "started", "migrated"),
    (B, "resumed", "postcopy"),
    (B, "resumed", "migrated"),
]
RUNNING_ON_A = [(A, "defined", "added"), (A, "resumed", "unpaused"), (A, "started", "booted")]


def after(told: list[Told]) -> Placement:
    return place(copies_after(told))


def copies_after(told: list[Told]) -> Copies:
    copies: Copies = {}
    for node, event, detail in told:
        copies = apply(copies, node, event, detail)
    return copies


def interleavings(told: list[Told]) -> list[list[Told]]:
    """Every order in which the master can hear this, each node's own order kept."""
    if not told:
        return [[]]
    found = []
    for node in {told[0] for told in told}:
        first = next(one for one in told if one[0] == node)
        rest = told.copy()
        rest.remove(first)
        found += [[first, *more] for more in interleavings(rest)]
    return found


@pytest.mark.parametrize("migration", [LIVE, POSTCOPY], ids=["pre-copy", "post-copy"])
def test_a_migration_ends_on_its_target_and_is_never_shown_stopped(migration: list[Told]) -> None:
    orders = interleavings(migration)
    assert len(orders) >= 6
    for order in orders:
        for heard in range(len(order) + 1):
            shown = after([*RUNNING_ON_A, *order[:heard]])
            assert shown.status in (Status.RUNNING, Status.MIGRATING), order[:heard]
        assert after([*RUNNING_ON_A, *order]) == Placement(status=Status.RUNNING, node=B)


def test_a_poweroff_on_the_target_heard_before_the_source_left_ends_as_stopped() -> None:
    for order in interleavings([*LIVE, (B, "stopped", "shutdown")]):
        assert after([*RUNNING_ON_A, *order]) == Placement(status=Status.STOPPED, node=B), order


def test_a_cancelled_migration_runs_on_at_its_source() -> None:
    told = [
        (A, "suspended", "migrated"),
        (A, "resumed", "migrated"),
        (B, "started", "migrated"),
        (B, "stopped", "failed"),
    ]
    for order in interleavings(told):
        for heard in range(len(order) + 1):
            assert after([*RUNNING_ON_A, *order[:heard]]).status in (Status.RUNNING, Status.MIGRATING)
        assert after([*RUNNING_ON_A, *order]) == Placement(status=Status.RUNNING, node=A)


def test_a_migration_whose_source_dies_is_a_stopped_vm() -> None:
    told = [(A, "stopped", "failed"), (B, "started", "migrated"), (B, "stopped", "failed")]
    for order in interleavings(told):
        assert after([*RUNNING_ON_A, *order]).status is Status.STOPPED


def test_a_source_that_only_a_snapshot_found_off_has_been_left() -> None:
    told = [(A, "stopped", "unknown"), (B, "started", "migrated"), (B, "resumed", "migrated")]
    came_first = [*RUNNING_ON_A, *told[1:], told[0]]
    assert after(came_first) == Placement(status=Status.RUNNING, node=B)
    back = [(B, "suspended", "migrated"), (B, "stopped", "migrated")]
    assert after([*came_first, *back]).status is Status.MIGRATING
    assert after([*came_first, (B, "stopped", "unknown")]).status is Status.STOPPED


def test_a_paused_vm_migrates_paused() -> None:
    told = [(A, "stopped", "migrated"), (B, "started", "migrated"), (B, "suspended", "paused")]
    for order in interleavings(told):
        shown = after([*RUNNING_ON_A, (A, "suspended", "paused"), *order])
        assert shown == Placement(status=Status.PAUSED, node=B)


OWN = [
    Copy(state=state, order=3, balance=balance)
    for state in set(CopyState) - {CopyState.GONE}
    for balance in (-1, 0, 1)
]
BESIDE = Copy(state=CopyState.STOPPED)  # says nothing, but that there are two copies


@pytest.mark.parametrize("event", [*EventType, "of a newer libvirt"])
def test_an_only_copy_changes_as_it_would_beside_another(event: str) -> None:
    details = {detail for details in DETAILS.values() for detail in details}
    for own, detail in itertools.product(OWN, details | {"unknown", "unknown-99"}):
        alone = apply({A: own}, A, event, detail)
        beside = apply({A: own, B: BESIDE}, A, event, detail)
        if A in beside:  # where it came and ended, and the VM has no other copy, it is kept
            assert alone[A] == beside[A], (own, detail)


@pytest.mark.parametrize("own", OWN, ids=str)
def test_an_only_copy_speaks_as_it_would_beside_one_that_left(own: Copy) -> None:
    if own.state is not CopyState.DEPARTED:
        assert place({A: own}) == place({A: own, B: Copy(state=CopyState.DEPARTED)})


def test_a_definition_left_behind_does_not_speak_for_the_vm() -> None:
    told = [*RUNNING_ON_A, (B, "defined", "added")]
    assert after(told) == Placement(status=Status.RUNNING, node=A)
    assert after([*told, (A, "stopped", "saved")]) == Placement(status=Status.SAVED, node=A)


def test_an_undefined_vm_that_runs_became_transient() -> None:
    assert after([*RUNNING_ON_A, (A, "undefined", "removed")]) == Placement(status=Status.RUNNING, node=A)


def test_an_undefined_vm_is_nowhere() -> None:
    told = [*RUNNING_ON_A, (A, "stopped", "destroyed"), (A, "undefined", "removed")]
    assert after(told) == Placement(status=Status.STOPPED, node=None)


def test_an_undefined_vm_is_nowhere_though_its_source_was_not_heard_to_leave() -> None:
    """The source's service was away: a snapshot found the VM gone from there, and cannot know that it left."""
    gone = [(A, "stopped", "unknown"), (A, "undefined", "removed")]
    came = [(B, "started", "migrated"), (B, "defined", "added"), (B, "resumed", "migrated")]
    end = [(B, "stopped", "saved"), (B, "undefined", "removed")]
    for order in interleavings([*gone, *came, *end]):
        assert after([*RUNNING_ON_A, *order]) == Placement(status=Status.STOPPED, node=None)


def test_a_rename_keeps_the_copy() -> None:
    told = [(A, "defined", "added"), (A, "undefined", "renamed"), (A, "defined", "renamed")]
    assert after(told) == Placement(status=Status.STOPPED, node=A)


@pytest.mark.parametrize(
    ("told", "status"),
    [
        (("stopped", "shutdown"), Status.STOPPED),
        (("stopped", "failed"), Status.STOPPED),
        (("stopped", "crashed"), Status.CRASHED),
        (("stopped", "saved"), Status.SAVED),
        (("suspended", "ioerror"), Status.PAUSED),
        (("pmsuspended", "memory"), Status.SLEEPING),
        (("crashed", "panicked"), Status.CRASHED),
        (("shutdown", "guest"), Status.RUNNING),
        (("rebooted", "reset"), Status.RUNNING),
        (("watchdog", "none"), Status.RUNNING),
        (("unknown-17", "unknown-3"), Status.RUNNING),
    ],
)
def test_what_one_event_makes_of_a_running_vm(told: tuple[str, str], status: Status) -> None:
    assert after([*RUNNING_ON_A, (A, *told)]).status is status


@dataclass
class World:
    """What really happens to one VM on three nodes, and what each node's libvirt tells of it."""

    told: dict[int, list[Told]] = field(default_factory=lambda: {1: [], 2: [], 3: []})
    node: int = 1
    status: Status = Status.STOPPED

    def tell(self, node: int, event: str, detail: str) -> None:
        self.told[node].append((node, event, detail))

    def step(self, action: str, target: int) -> None:
        alive = self.status in (Status.RUNNING, Status.PAUSED)
        if action in ("migrate", "postcopy", "fail") and alive and target != self.node:
            getattr(self, action)(target)
        elif action == "start" and not alive:
            self.node, self.status = (target, Status.RUNNING)
            self.tell(target, "started", "booted")
        elif action == "stop" and alive:
            self.status = Status.STOPPED
            self.tell(self.node, "stopped", "shutdown")
        elif action == "pause" and self.status is Status.RUNNING:
            self.status = Status.PAUSED
            self.tell(self.node, "suspended", "paused")

    def migrate(self, target: int) -> None:
        running = self.status is Status.RUNNING
        self.tell(target, "started", "migrated")
        if running:
            self.tell(self.node, "suspended", "migrated")
        self.tell(target, *(("resumed", "migrated") if running else ("suspended", "paused")))
        self.tell(self.node, "stopped", "migrated")
        self.node = target

    def postcopy(self, target: int) -> None:
        if self.status is not Status.RUNNING:
            return
        self.tell(target, "started", "migrated")
        self.tell(self.node, "suspended", "postcopy")
        self.tell(target, "resumed", "postcopy")
        self.tell(target, "resumed", "migrated")
        self.tell(self.node, "stopped", "migrated")
        self.node = target

    def fail(self, target: int) -> None:
        if self.status is not Status.RUNNING:
            return
        self.tell(target, "started", "migrated")
        self.tell(self.node, "suspended", "migrated")
        self.tell(target, "stopped", "failed")
        self.tell(self.node, "resumed", "migrated")


ACTIONS = st.sampled_from(["migrate", "migrate", "postcopy", "fail", "stop", "start", "pause"])


@settings(max_examples=int(os.environ.get("VMWATCH_EXAMPLES", "500")))
@given(steps=st.lists(st.tuples(ACTIONS, st.integers(1, 3)), max_size=14), data=st.data())
def test_whatever_happened_and_however_it_is_heard_a_live_vm_ends_as_it_is(
    steps: list[tuple[str, int]], data: st.DataObject
) -> None:
    world = World()
    world.tell(1, "started", "booted")
    world.status = Status.RUNNING
    for action, target in steps:
        world.step(action, target)
    waiting = {node: told.copy() for node, told in world.told.items()}
    heard: list[Told] = []
    while any(waiting.values()):
        node = data.draw(st.sampled_from([node for node, told in waiting.items() if told]))
        heard.append(waiting[node].pop(0))
    shown = after(heard)
    if world.status is Status.STOPPED:
        assert shown.status is Status.STOPPED, heard
    else:
        assert shown == Placement(status=world.status, node=world.node), heard
