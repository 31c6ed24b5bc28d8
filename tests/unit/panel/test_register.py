# SPDX-License-Identifier: Apache-2.0
"""What events do to the database: once, in one piece, and never a VM twice."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vmwatch.errors import StorageError
from vmwatch.events import Status
from vmwatch.panel import register, register_nodes, shown, shown_nodes, shown_problems, shown_vms
from vmwatch.panel.convention import ApiError, ErrorType, Paging
from vmwatch.panel.fields import EventId, ProblemReport, VmEvent
from vmwatch.panel.store import Store
from vmwatch.panel.timeline import Entry

if TYPE_CHECKING:
    from collections.abc import Iterator

ALL = Paging(number=1, size=1000)


@dataclass
class Ledger:
    """A store with a clock that counts, and short ways to speak to it."""

    store: Store
    time: int = 1000

    def clock(self) -> int:
        self.time += 1
        return self.time

    def tell(self, event: VmEvent, *, create: bool = True) -> bool:
        return register.record_event(self.store, event, clock=self.clock, create=create)

    def vm(self, name: str = "web") -> shown_vms.Vm:
        vm = shown_vms.vm_by_name(self.store.connection, name)
        assert vm is not None
        return vm

    def history(self) -> list[Entry]:
        return shown.history(self.store.connection, self.vm().id, ALL)[::-1]


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    store = Store(tmp_path / "panel.db")
    yield Ledger(store)
    store.close()


def event(
    node: int,
    kind: str,
    detail: str,
    seq: int | None = None,
    *,
    run: str = "r1",
    time: int | None = None,
    status: Status | None = None,
) -> VmEvent:
    return VmEvent(
        hostnode=node,
        name="web",
        type=kind,
        subtype=detail,
        uuid=None,
        status=status,
        cause=None,
        source="event",
        earliest=None,
        time=time,
        event_id=EventId(node=node, run=run, seq=seq) if seq is not None else None,
    )


def test_whose_end_is_heard_late_does_not_take_the_name_back(ledger: Ledger) -> None:
    """A VM was defined anew, on another node, before its forerunner of the same name was found gone."""
    ledger.tell(replace(event(1, "started", "booted", 1), uuid="u-old"))
    ledger.tell(replace(event(2, "started", "booted", 1), uuid="u-new"))
    for seq, (kind, detail) in enumerate([("stopped", "unknown"), ("undefined", "removed")], start=2):
        ledger.tell(replace(event(1, kind, detail, seq, status=Status.RUNNING), uuid="u-old"))
        vm = ledger.vm()
        assert (vm.uuid, vm.status, vm.hostnode) == ("u-new", "running", 2)


def test_an_event_is_registered_with_all_that_is_known_of_it(ledger: Ledger) -> None:
    told = event(3, "stopped", "shutdown", 7, time=500)
    ledger.tell(replace(told, cause="guest-reset", source="snapshot", earliest=400))
    assert ledger.history() == [
        Entry(
            id=1,
            reporter=3,
            reporter_name="node-3",
            type="stopped",
            subtype="shutdown",
            cause="guest-reset",
            source="snapshot",
            earliest=400,
            time=500,
            registered=1001,
            status="stopped",
            hostnode=3,
            node="node-3",
            event_id="3.r1.7",
        )
    ]
    vm = ledger.vm()
    assert (vm.status, vm.since, vm.node, vm.type, vm.cause) == (
        "stopped",
        500,
        "node-3",
        "stopped",
        "guest-reset",
    )


def test_since_is_of_the_status_not_of_the_last_event(ledger: Ledger) -> None:
    ledger.tell(event(1, "started", "booted", 1, time=100))
    ledger.tell(event(1, "resumed", "unpaused", 2, time=200))
    ledger.tell(event(1, "rebooted", "reset", 3, time=300))
    assert (ledger.vm().since, ledger.vm().time) == (100, 300)
    ledger.tell(event(1, "suspended", "paused", 4, time=400))
    assert ledger.vm().since == 400


def test_what_is_not_newer_has_no_effect(ledger: Ledger) -> None:
    assert ledger.tell(event(1, "started", "booted", 5))
    assert not ledger.tell(event(1, "started", "booted", 5))
    assert not ledger.tell(event(1, "stopped", "destroyed", 4))
    assert ledger.tell(event(1, "suspended", "paused", 9))  # holes are other VMs' events
    assert ledger.tell(event(2, "defined", "added", 1))  # another node counts by itself
    assert ledger.tell(event(1, "resumed", "unpaused", 1, run="r2"))  # and another life of a node
    assert not ledger.tell(event(1, "stopped", "destroyed", 9))  # of the life before
    assert [entry.event_id for entry in ledger.history()] == ["1.r1.5", "1.r1.9", "2.r1.1", "1.r2.1"]
    assert ledger.vm().status == "running"


def test_the_memory_of_runs_is_bounded(ledger: Ledger) -> None:
    for life in range(3 * register.RUNS_KEPT):
        ledger.tell(event(1, "started", "booted", 1, run=f"r{life:02}"))
    kept = ledger.store.connection.execute("SELECT run FROM applied ORDER BY id").fetchall()
    assert [row["run"] for row in kept] == [f"r{life:02}" for life in range(16, 24)]


def test_without_an_id_an_event_counts_each_time(ledger: Ledger) -> None:
    assert ledger.tell(event(1, "started", "booted"))
    assert ledger.tell(event(1, "started", "booted"))
    assert len(ledger.history()) == 2


def test_the_callers_status_is_shown(ledger: Ledger) -> None:
    ledger.tell(event(1, "started", "booted", 1, status=Status.MIGRATING))
    assert ledger.vm().status == "migrating"


def test_an_event_that_says_nothing_of_the_status_changes_none(ledger: Ledger) -> None:
    ledger.tell(event(1, "shutdown", "guest", 1))
    assert (ledger.vm().status, len(ledger.history())) == ("unknown", 1)


@pytest.mark.parametrize(("known_node", "missing"), [(True, "vm"), (False, "hostnode")])
def test_unknown_things_are_missed_and_leave_no_trace(ledger: Ledger, known_node: bool, missing: str) -> None:
    if known_node:
        register_nodes.write_node(ledger.store, 1, name="one")
    with pytest.raises(ApiError) as caught:
        ledger.tell(event(1, "started", "booted", 1), create=False)
    assert (caught.value.kind, caught.value.subject) == (ErrorType.MISSED, missing)
    assert ledger.store.connection.execute("SELECT count(*) FROM applied").fetchone()[0] == 0
    register_nodes.write_node(ledger.store, 1, name="one")
    register.create_vm(ledger.store, name="web", uuid=None, hostnode=1)
    assert ledger.tell(event(1, "started", "booted", 1), create=False)


def test_a_failure_inside_leaves_no_trace(ledger: Ledger) -> None:
    ledger.tell(event(1, "started", "booted", 1))
    before = ledger.vm()
    broken = replace(
        event(1, "stopped", "destroyed", 2), cause="\ud800"
    )  # SQLite cannot store half a character
    with pytest.raises(UnicodeEncodeError):
        ledger.tell(broken)
    assert (ledger.vm(), len(ledger.history())) == (before, 1)
    assert ledger.tell(event(1, "stopped", "destroyed", 2))


SOURCE = [("suspended", "migrated"), ("stopped", "migrated")]
TARGET = [("defined", "added"), ("started", "migrated"), ("resumed", "migrated")]


@settings(max_examples=60, deadline=None)
@given(st.permutations([1, 1, 2, 2, 2]), st.lists(st.integers(0, 4), max_size=6))
def test_a_migration_is_never_shown_stopped_or_twice(order: list[int], repeated: list[int]) -> None:
    """Two nodes have no common order, and any event may be told again at any later time."""
    with TemporaryDirectory() as folder:
        store = Store(Path(folder) / "panel.db")
        ledger = Ledger(store)
        ledger.tell(event(1, "started", "booted", 1))
        streams = {1: iter(zip(count(2), SOURCE)), 2: iter(zip(count(1), TARGET))}
        told = []
        for step, node in enumerate(order):
            seq, (kind, detail) = next(streams[node])
            told.append(event(node, kind, detail, seq))
            assert ledger.tell(told[-1])
            for again in repeated:
                if again <= step:
                    assert not ledger.tell(told[again])
            assert ledger.vm().status in ("running", "migrating")
        assert (ledger.vm().status, ledger.vm().hostnode) == ("running", 2)
        assert shown_vms.count_vms(store.connection, shown_vms.Filter()) == 1
        assert len(ledger.history()) == 6
        store.close()


STEPS = [("started", "booted"), ("suspended", "paused"), ("resumed", "unpaused"), ("stopped", "destroyed")]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(STEPS), min_size=1, max_size=12), st.data())
def test_a_stream_sent_again_from_anywhere_ends_the_same(
    steps: list[tuple[str, str]], data: st.DataObject
) -> None:
    """A caller that lost answers sends again from an earlier event, as often as it likes, across restarts."""
    stream = [event(1, kind, detail, seq) for seq, (kind, detail) in enumerate(steps, start=1)]
    with TemporaryDirectory() as folder:
        done = 0
        while done < len(stream):
            store = Store(Path(folder) / "panel.db")
            start = data.draw(st.integers(0, done))
            end = data.draw(st.integers(done + 1, len(stream)))
            for told in stream[start:end]:
                Ledger(store).tell(told)
            done = end
            history = Ledger(store).history()
            store.close()
        assert [entry.event_id for entry in history] == [f"1.r1.{seq}" for seq in range(1, len(stream) + 1)]
        assert [(entry.type, entry.subtype) for entry in history] == steps


def report(
    problem: str, hostnode: int | None, name: str = "", *, raised: bool = True, text: str = ""
) -> ProblemReport:
    return ProblemReport(problem=problem, hostnode=hostnode, name=name, raised=raised, text=text)


@pytest.mark.parametrize("problem", ["node_silent", "libvirt_lost"])
def test_unreachable_is_not_off(ledger: Ledger, problem: str) -> None:
    ledger.tell(event(1, "started", "booted", 1, time=100))
    register.record_problem(ledger.store, report(problem, 1), now=500)
    vm = ledger.vm()
    assert (vm.status, vm.last_status, vm.since) == ("unknown", "running", 500)
    assert shown_vms.count_by_status(ledger.store.connection, shown_vms.Filter()) == {"unknown": 1}
    assert shown_nodes.nodes(ledger.store.connection, ALL)[0].unreachable == 500
    register.record_problem(ledger.store, report(problem, 1, raised=False), now=600)
    vm = ledger.vm()
    assert (vm.status, vm.since) == ("running", 100)
    assert shown.gaps(ledger.store.connection, 0)[0].until == 600


def test_another_nodes_silence_is_not_this_vms(ledger: Ledger) -> None:
    ledger.tell(event(1, "started", "booted", 1))
    register.record_problem(ledger.store, report("node_silent", 2), now=500)
    register.record_problem(ledger.store, report("vm_not_responding", 1, "web"), now=500)
    assert (ledger.vm().status, ledger.vm().problems) == ("running", 1)


def test_a_problem_is_raised_once_and_solved_once(ledger: Ledger) -> None:
    for time, text in ((1, "first"), (2, "again")):
        register.record_problem(ledger.store, report("duplicate", None, "web", text=text), now=time)
    connection = ledger.store.connection
    assert [(found.text, found.raised) for found in shown_problems.open_problems(connection, 9)] == [
        ("again", 1)
    ]
    for time in (3, 4):
        register.record_problem(ledger.store, report("duplicate", None, "web", raised=False), now=time)
    assert [
        found.solved for found in shown_problems.problems(connection, shown_problems.ProblemFilter(), ALL)
    ] == [3]
    assert shown_problems.count_open(connection) == 0
    register.record_problem(ledger.store, report("duplicate", None, "web"), now=5)
    assert shown_problems.count_problems(connection, shown_problems.ProblemFilter()) == 2


def test_names_are_taken_once(ledger: Ledger) -> None:
    register_nodes.write_node(ledger.store, 1, name="one")
    register.create_vm(ledger.store, name="web", uuid=None, hostnode=1)
    other = register.create_vm(ledger.store, name="db", uuid=None, hostnode=1)
    for change in (
        lambda: register.create_vm(ledger.store, name="web", uuid=None, hostnode=1),
        lambda: register.change_vm(ledger.store, other, name="web", uuid=None, hostnode=1),
        lambda: register_nodes.write_node(ledger.store, 2, name="one"),
    ):
        with pytest.raises(ApiError) as caught:
            change()
        assert (caught.value.kind, caught.value.subject) == (ErrorType.EXISTS, "name")
    register.change_vm(ledger.store, other, name="db", uuid=None, hostnode=1)  # its own name is free for it


def test_a_commit_is_on_the_disk_not_only_in_the_systems_memory(ledger: Ledger) -> None:
    full = 2  # which a killed process cannot show, but a power cut would
    assert ledger.store.connection.execute("PRAGMA synchronous").fetchone()[0] == full


def test_one_panel_at_a_time(ledger: Ledger, tmp_path: Path) -> None:
    assert ledger.store.changes == 1  # the schema
    with pytest.raises(StorageError, match="locked"):
        Store(tmp_path / "panel.db")


def test_a_newer_database_is_left_alone(tmp_path: Path) -> None:
    store = Store(tmp_path / "panel.db")
    store.connection.execute("PRAGMA user_version = 99")
    store.close()
    with pytest.raises(StorageError, match="version 99"):
        Store(tmp_path / "panel.db")


def test_the_file_is_its_owners_alone(tmp_path: Path) -> None:
    store = Store(tmp_path / "panel.db")
    modes = {file.name: file.stat().st_mode & 0o777 for file in tmp_path.iterdir()}
    store.close()
    assert modes == {"panel.db": 0o600, "panel.db-wal": 0o600}
