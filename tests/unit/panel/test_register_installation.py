# SPDX-License-Identifier: Apache-2.0
"""Counter, intent and problem are one commit; what is told twice, or late, changes nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING

import pytest

from vmwatch.panel import register, register_installation, register_osmgr, shown_installation
from vmwatch.panel.convention import ApiError, ErrorType
from vmwatch.panel.fields import EventId, ProblemReport, VmEvent
from vmwatch.panel.installation import Action, Choice
from vmwatch.panel.register_installation import begin, choose, close, expire, fail
from vmwatch.panel.shown_installation import Intent, ShownInstallation, Template
from vmwatch.panel.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TIMELIMIT = 600
LINUX = Template(
    id=0,
    name="linux",
    rebootcount=2,
    timelimit=TIMELIMIT,
    medium="",
    kernel="/k",
    initrd="/i",
    cmdline="quiet",
)


@dataclass
class Desk:
    """A store with one template, one node, and one VM on it: `web`."""

    store: Store
    vm: int = 0
    osmgr: int = 0
    sequence: Iterator[int] = field(default_factory=lambda: count(1))

    def __post_init__(self) -> None:
        self.osmgr = register_osmgr.write(self.store, LINUX)
        self.event("defined", "added")
        (self.vm,) = self.store.connection.execute("SELECT id FROM vm").fetchone()

    def event(
        self, kind: str, detail: str, cause: str | None = None, *, seq: int | None = None, node: int = 1
    ) -> bool:
        event = VmEvent(
            hostnode=node, name="web", type=kind, subtype=detail, uuid=None, status=None, cause=cause,
            source="event", earliest=None, time=None,
            event_id=EventId(node=node, run="r", seq=seq or next(self.sequence)),
        )  # fmt: skip
        return register.record_event(self.store, event, clock=lambda: 5000, create=True)

    def begin(self, *, replace: bool = False, now: int = 1000) -> None:
        begin(self.store, self.vm, osmgr=self.osmgr, replace=replace, now=now)

    def shown(self) -> ShownInstallation:
        found = shown_installation.of_vm(self.store.connection, self.vm)
        assert found is not None
        return found

    def intents(self) -> list[Intent]:
        return shown_installation.open_intents(self.store.connection)

    def close(self) -> Action:
        (intent,) = self.intents()
        close(self.store, intent.id, now=9000)
        return intent.action

    def problems(self) -> list[str]:
        rows = self.store.connection.execute("SELECT problem, name FROM problem WHERE solved IS NULL")
        return [f"{row['problem']} {row['name']}" for row in rows]


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    store = Store(tmp_path / "panel.db")
    yield Desk(store)
    store.close()


def test_two_reboots_and_it_is_installed(desk: Desk) -> None:
    desk.begin()
    assert (desk.shown().step, desk.shown().steps, desk.shown().template) == (1, 2, "linux")
    (intent,) = desk.intents()
    assert (intent.name, intent.hostnode, intent.kernel) == ("web", 1, "/k")
    assert desk.close() is Action.INSTALL
    for step in (2, 3):
        desk.event("started", "booted")
        desk.event("stopped", "shutdown", "guest-reset")
        assert desk.shown().step == step
        assert desk.shown().since == 5000
        assert desk.close() is (Action.START if step == 2 else Action.FINISH)
    assert shown_installation.all_by_vm(desk.store.connection) == {}
    assert desk.problems() == []
    desk.event("started", "booted")
    desk.event("stopped", "shutdown", "guest-reset")
    assert desk.intents() == []


def test_what_is_told_twice_or_of_another_copy_changes_nothing(desk: Desk) -> None:
    desk.begin()
    desk.close()
    desk.event("started", "booted", seq=20)
    desk.event("stopped", "shutdown", "guest-reset", seq=21)
    desk.close()
    before = desk.shown()
    for _ in range(3):
        assert not desk.event("started", "booted", seq=20)
        assert not desk.event("stopped", "shutdown", "guest-reset", seq=21)
    assert desk.shown() == before
    desk.event("started", "booted", seq=22)
    desk.event("started", "migrated", node=2)
    desk.event("stopped", "failed", node=2)
    assert (desk.shown().waits, desk.shown().remaining, desk.intents()) == (None, 1, [])


def test_a_stop_that_is_no_reboot_waits_with_a_problem(desk: Desk) -> None:
    desk.begin()
    desk.close()
    desk.event("started", "booted")
    desk.event("stopped", "destroyed")
    assert desk.shown().waits == "destroyed"
    assert desk.intents() == []
    assert desk.problems() == ["installation_waiting web"]
    choose(desk.store, desk.vm, Choice.RETRY, now=7000)
    assert (desk.shown().waits, desk.shown().remaining, desk.problems()) == (None, 2, [])
    assert desk.shown().deadline == 7000 + TIMELIMIT * 1000
    assert desk.close() is Action.INSTALL
    with pytest.raises(ApiError) as refused:
        choose(desk.store, desk.vm, Choice.CONTINUE, now=7000)
    assert refused.value.kind is ErrorType.VALUE
    desk.event("started", "booted")
    desk.event("stopped", "shutdown", "guest-shutdown")
    choose(desk.store, desk.vm, Choice.CONTINUE, now=8000)
    assert (desk.shown().remaining, desk.shown().since) == (1, 8000)


def test_a_cancelled_one_leaves_no_more_than_the_release_of_its_domain(desk: Desk) -> None:
    desk.begin()
    desk.close()
    desk.event("started", "booted")
    desk.event("stopped", "saved")
    choose(desk.store, desk.vm, Choice.CANCEL, now=7000)
    assert shown_installation.of_vm(desk.store.connection, desk.vm) is None
    assert desk.problems() == []
    assert desk.close() is Action.RELEASE
    with pytest.raises(ApiError) as refused:
        choose(desk.store, desk.vm, Choice.CANCEL, now=7000)
    assert refused.value.kind is ErrorType.MISSED


def test_after_the_time_limit_nothing_is_done_by_itself_but_the_end(desk: Desk) -> None:
    desk.begin(now=1000)
    expire(desk.store, now=1000 + TIMELIMIT * 1000 - 1)
    assert desk.shown().waits is None
    changes = desk.store.changes
    expire(desk.store, now=999)
    assert desk.store.changes == changes  # no commit for nothing
    expire(desk.store, now=1000 + TIMELIMIT * 1000)
    assert (desk.shown().waits, desk.intents()) == ("timeout", [])
    assert desk.problems() == ["installation_timeout web"]
    assert shown_installation.next_deadline(desk.store.connection) is None

    choose(desk.store, desk.vm, Choice.RETRY, now=2_000_000)
    assert desk.problems() == []
    for _ in range(2):
        desk.event("started", "booted")
        desk.event("stopped", "shutdown", "guest-reset")
    expire(desk.store, now=3_000_000)
    assert desk.shown().waits == "timeout"
    assert desk.close() is Action.FINISH  # it is installed, though late
    assert desk.problems() == []


def test_an_intent_that_cannot_be_done_is_kept_and_told(desk: Desk) -> None:
    desk.begin()
    (intent,) = desk.intents()
    fail(desk.store, intent.id, "no connection", tell=False, now=2000)
    assert (desk.shown().error, desk.problems()) == ("no connection", [])
    fail(desk.store, intent.id, "no connection", tell=True, now=3000)
    assert desk.problems() == ["installation_stuck web"]
    desk.close()
    assert desk.problems() == []


def test_who_waits_is_not_started_by_an_intent_that_was_carried_out_and_not_closed(desk: Desk) -> None:
    """The panel was killed after the start; then an administrator switched the VM off."""
    desk.begin()
    desk.close()
    desk.event("started", "booted")
    desk.event("stopped", "shutdown", "guest-reset")
    (intent,) = desk.intents()
    fail(desk.store, intent.id, "no answer", tell=True, now=2000)
    desk.event("started", "booted")
    desk.event("stopped", "destroyed")
    assert (desk.shown().waits, desk.intents()) == ("destroyed", [])
    assert desk.problems() == ["installation_waiting web"]


def test_an_intent_that_was_replaced_meanwhile_changes_nothing_any_more(desk: Desk) -> None:
    desk.begin()
    (old,) = desk.intents()
    desk.begin(replace=True, now=2000)
    (new,) = desk.intents()
    assert new.id > old.id
    fail(desk.store, old.id, "late", tell=True, now=3000)
    close(desk.store, old.id, now=3000)
    assert desk.intents() == [new]
    assert (desk.problems(), desk.shown().error) == ([], None)


def test_what_is_refused(desk: Desk) -> None:
    with pytest.raises(ApiError) as refused:
        begin(desk.store, desk.vm, osmgr=77, replace=False, now=1)
    assert (refused.value.kind, refused.value.subject) == (ErrorType.MISSED, "osmgr")
    desk.begin()
    with pytest.raises(ApiError) as refused:
        desk.begin()
    assert refused.value.kind is ErrorType.EXISTS
    with pytest.raises(ApiError) as refused:
        register_osmgr.delete(desk.store, [desk.osmgr])
    assert refused.value.kind is ErrorType.VALUE
    silent = ProblemReport(problem="node_silent", hostnode=1, name="", raised=True, text="")
    register.record_problem(desk.store, silent, now=1)
    with pytest.raises(ApiError) as refused:
        desk.begin(replace=True)
    assert (refused.value.kind, refused.value.subject) == (ErrorType.VALUE, "hostnode")
    assert desk.intents()[0].unreachable
    register_installation.choose(desk.store, desk.vm, Choice.CANCEL, now=1)
    register_osmgr.delete(desk.store, [desk.osmgr])
    with pytest.raises(ApiError):
        register_osmgr.delete(desk.store, [desk.osmgr])
