# SPDX-License-Identifier: Apache-2.0
"""What arrives, and what the ledger makes of it: real frames, a real file."""

from __future__ import annotations

import json
import logging
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from vmwatch.errors import StorageError
from vmwatch.events import CopyState
from vmwatch.intake import WARNING_SECONDS, Intake
from vmwatch.ledger import LIMIT_BYTES, Ledger
from vmwatch.ledger_rows import read_call
from vmwatch.messages import (
    Begin,
    Event,
    Gap,
    Heartbeat,
    Hello,
    KnownDomain,
    KnownSet,
    LibvirtState,
    Source,
    Statistics,
)
from vmwatch.presence import Presence
from vmwatch.protocol import Envelope, Kind, Run, seal
from vmwatch.strict import encode

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from vmwatch.messages import Body

KEY = b"k" * 32
RUN = Run("0" * 31 + "1")
NEXT = Run("0" * 31 + "2")
TIME = datetime(2026, 11, 22, 10, tzinfo=UTC)
HELLO = Hello(host="kvm1", version="0.1.0")
BEGIN = Begin(previous=None, last=None, time=TIME)
EVENT = Event(
    uuid="u1",
    name="web",
    type="started",
    subtype="booted",
    time=TIME,
    cause=None,
    source=Source.EVENT,
    since=None,
    domain_id=1,
)
ALIVE = Heartbeat(top=0, time=TIME, interval_ms=1000, libvirt=LibvirtState.CONNECTED, not_responding=())


def frame(
    kind: int, body: Body | bytes, seq: int, *, run: Run = RUN, node: int = 1, key: bytes = KEY
) -> bytes:
    data = body if isinstance(body, bytes) else encode(body)
    return seal(Envelope(node=node, run=run, seq=seq, kind=kind), data, key)


def hello(seq: int = 0, **where: object) -> bytes:
    return frame(Kind.HELLO, HELLO, seq, **where)  # type: ignore[arg-type]


def event(seq: int, name: str = "web", **what: object) -> bytes:
    body = EVENT._replace(uuid=f"u-{name}", name=name, **what)  # type: ignore[arg-type]
    return frame(Kind.EVENT, body, seq)


def beat(counter: int, *, node: int = 1, run: Run = RUN, **what: object) -> bytes:
    return frame(Kind.HEARTBEAT, replace(ALIVE, **what), counter, node=node, run=run)  # type: ignore[arg-type]


@dataclass
class Master:
    """An intake on a ledger of its own, with a clock that stands until it is moved."""

    path: Path
    now: float = 100.0
    limit: int = LIMIT_BYTES
    ledger: Ledger = field(init=False)
    intake: Intake = field(init=False)

    def __post_init__(self) -> None:
        self.ledger = Ledger(self.path, clock=lambda: self.now, limit=self.limit)
        self.start()

    def start(self) -> None:
        self.intake = Intake(
            self.ledger, Presence(), signature=KEY, monotonic=lambda: self.now, clock=lambda: TIME
        )

    def accept(self, *frames: bytes) -> None:
        self.intake.accept(frames)

    def rows(self, table: str) -> list[tuple[object, ...]]:
        with self.ledger._database.reading() as sql:
            return list(sql.execute(f"SELECT * FROM {table}"))

    def state(self) -> list[list[tuple[object, ...]]]:
        return [
            self.rows(table)
            for table in ("node", "beat", "vm", "problem", "anomaly", "unread", "call", "latest")
        ]

    def calls(self) -> list[dict[str, str]]:
        """All that wait, in the order of their making."""
        with self.ledger._database.reading() as sql:
            rows = sql.execute(
                "SELECT id, key, time, func, fields, hostnode, event_id, status FROM call"
            ).fetchall()
            rows += [(*row, None, None, None) for row in sql.execute("SELECT * FROM latest")]
        return [{"func": call.func, **call.fields} for call in map(read_call, sorted(rows))]

    def events(self) -> list[str]:
        return [
            f"{call['name']} {call['type']}({call['subtype']}) {call['status']}"
            for call in self.calls()
            if call["func"] == "vm.event"
        ]

    def problems(self) -> list[str]:
        return [
            f"{call['problem']} {call['state']} {call.get('hostnode')}"
            for call in self.calls()
            if call["func"] == "vmwatch.problem"
        ]


@pytest.fixture
def master(tmp_path: Path) -> Iterator[Master]:
    master = Master(tmp_path / "ledger.db")
    with closing(master.ledger):
        yield master


def test_an_event_becomes_a_call(master: Master) -> None:
    stopped = event(2, type="stopped", subtype="shutdown", cause="guest-reset")
    master.accept(hello(), frame(Kind.BEGIN, BEGIN, 0), event(1), stopped)
    assert master.calls()[1] == {
        "func": "vm.event",
        "hostnode": "1",
        "name": "web",
        "type": "stopped",
        "subtype": "shutdown",
        "uuid": "u-web",
        "status": "stopped",
        "cause": "guest-reset",
        "source": "event",
        "time": "2026-11-22T10:00:00.000000Z",
        "event_id": f"1.{RUN}.2",
    }
    assert master.problems() == []


def test_repeated_records_late_data_and_other_orders_change_nothing(master: Master) -> None:
    stream = [frame(Kind.BEGIN, BEGIN, 0), event(1), event(2, type="stopped", subtype="destroyed"), event(3)]
    master.accept(hello(), *stream)
    before = master.state()
    master.accept(hello(), *stream)
    master.accept(stream[2])
    master.accept(hello(2), *reversed(stream))
    assert master.state() == before
    assert len(master.events()) == 3


@pytest.mark.parametrize("batches", [1, 5])
def test_a_forerunners_end_says_nothing_of_who_has_its_name_now(master: Master, batches: int) -> None:
    """A panel knows VMs by name, and what is found on another node comes late."""
    forerunner = EVENT._replace(uuid="u-old")
    ends = [
        forerunner._replace(type="stopped", subtype="unknown", source=Source.SNAPSHOT, domain_id=None),
        forerunner._replace(type="undefined", subtype="removed", source=Source.SNAPSHOT, domain_id=None),
    ]
    new = EVENT._replace(uuid="u-new")
    stream = [
        hello(),
        frame(Kind.BEGIN, BEGIN, 0),
        frame(Kind.EVENT, forerunner, 1),
        hello(node=2),
        frame(Kind.BEGIN, BEGIN, 0, node=2),
        frame(Kind.EVENT, new, 1, node=2),
        frame(Kind.EVENT, ends[0], 2),
        frame(Kind.EVENT, ends[1], 3),
        frame(Kind.EVENT, new._replace(type="stopped", subtype="destroyed"), 2, node=2),
        frame(Kind.EVENT, new._replace(type="undefined", subtype="removed"), 3, node=2),
    ]
    size = -(-len(stream) // batches)
    for first in range(0, len(stream), size):
        master.accept(*stream[first : first + size])
        master.ledger.close()
        master.__post_init__()  # the service was started anew
    statuses = [call["status"] for call in master.calls() if call["func"] == "vm.event"]
    master.ledger.close()
    assert statuses == [
        "running",
        "running",
        "running",
        "running",
        "stopped",
        "stopped",
    ]


def test_each_jump_is_told_once_and_the_stream_goes_on(master: Master) -> None:
    master.accept(hello(), frame(Kind.BEGIN, BEGIN, 0), event(1), event(5), event(6), event(9))
    master.accept(event(5), event(9))
    assert len(master.events()) == 4
    assert master.problems() == ["events_lost raised 1"] * 2


def test_a_gap_of_the_outbox_is_told(master: Master) -> None:
    gap = seal(
        Envelope(node=1, run=RUN, seq=5, kind=Kind.GAP, span=5), encode(Gap(count=5, reason="full")), KEY
    )
    master.accept(hello(), frame(Kind.BEGIN, BEGIN, 0), gap, event(6))
    assert master.problems() == ["events_lost raised 1"]
    assert "5 events were dropped from the outbox: full" in master.calls()[0]["text"]
    assert len(master.events()) == 1


def test_a_record_that_cannot_be_read_does_not_stop_the_stream(master: Master) -> None:
    master.accept(hello(), frame(Kind.BEGIN, BEGIN, 0), frame(Kind.EVENT, b'{"new":1}', 1), event(2))
    assert master.events() == ["web started(booted) running"]
    assert master.problems() == ["unreadable_record raised 1"]
    assert master.rows("unread") == [(1, 1, RUN, 1, Kind.EVENT, b'{"new":1}')]
    assert master.intake.refused == {"missing_field": 1}


def changed(**fields: object) -> bytes:
    return json.dumps({**json.loads(encode(ALIVE)), **fields}).encode()


BAD = {
    "signature": frame(Kind.HEARTBEAT, ALIVE, 9, key=b"x" * 32),
    "version": b"VMW\x02" + beat(9)[4:],
    "size": b"VMW\x01",
    "kind": frame(77, ALIVE, 9),
    "missing_field": frame(Kind.HEARTBEAT, b'{"top":0}', 9),
    "extra_field": frame(Kind.HEARTBEAT, changed(more=1), 9),
    "wrong_type": frame(Kind.HEARTBEAT, changed(top="0"), 9),
    "not_json": frame(Kind.HEARTBEAT, b"\xff", 9),
}


@pytest.mark.parametrize("reason", BAD)
def test_what_is_not_accepted_changes_nothing_but_a_count(
    master: Master, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    master.accept(hello(), frame(Kind.BEGIN, BEGIN, 0), event(1), beat(1))
    before = master.state()
    master.accept(*[BAD[reason]] * 3)
    assert master.state() == before
    assert master.intake.refused == {reason: 3}
    assert caplog.text.count("message refused") == 1
    master.now += WARNING_SECONDS
    master.accept(BAD[reason])
    assert caplog.text.count("message refused") == 2
    assert f"reason={reason} count=4" in caplog.text


def test_a_bad_message_takes_nothing_of_its_batch_with_it(master: Master) -> None:
    master.accept(hello(), frame(Kind.BEGIN, BEGIN, 0), event(1), *BAD.values(), event(2))
    assert len(master.events()) == 2


def test_statistics_that_still_wait_are_superseded(master: Master) -> None:
    statistics = [
        frame(Kind.STATISTICS, Statistics(time=TIME.replace(hour=hour), domains=()), hour)
        for hour in (1, 3, 2)
    ]
    master.accept(hello(), *statistics)
    (call,) = master.calls()
    assert call["time"].startswith("2026-11-22T03")


# --- heartbeats ---


def test_a_silent_node_is_told_once_after_three_heartbeats_and_once_when_it_is_back(master: Master) -> None:
    master.accept(hello(), beat(0))
    master.now += 3.0
    assert not master.intake.find_silent()
    master.now += 0.1
    assert master.intake.find_silent()
    master.now += 100
    master.intake.find_silent()
    assert master.problems() == ["node_silent raised 1"]
    master.accept(beat(1))
    master.accept(beat(2))
    assert master.problems() == ["node_silent raised 1", "node_silent solved 1"]


def test_a_late_heartbeat_of_a_dead_session_is_no_sign_of_life(master: Master) -> None:
    master.accept(hello(), beat(5, run=NEXT))
    master.now += 3.1
    master.accept(beat(5, run=NEXT), beat(4, run=NEXT), beat(99))
    assert master.intake.find_silent()
    assert master.problems() == ["node_silent raised 1"]


def test_nobody_is_silent_while_nobody_listens(master: Master) -> None:
    master.accept(hello(), beat(0))
    master.intake.find_silent()
    master.intake.listening = False
    for _ in range(10):
        master.now += 1.0
        assert not master.intake.find_silent()
    master.intake.listening = True
    assert not master.intake.find_silent()
    for _ in range(4):
        master.now += 1.0
        master.intake.find_silent()
    assert master.problems() == ["node_silent raised 1"]


def test_a_moment_in_which_nobody_listens_is_no_nodes_silence(master: Master) -> None:
    """As when the disk had no room for a second."""
    master.accept(hello(), beat(0))
    found = []
    for listening in (True, True, False, False, True, True, True, True, True):
        master.intake.listening = listening
        found.append(master.intake.find_silent())
        master.now += 0.5
    assert found == [False] * 9, "silent for three heartbeats, less what was not listened"
    assert master.intake.find_silent()


def test_at_the_limit_of_the_ledger_nothing_is_taken_and_then_all(tmp_path: Path) -> None:
    master = Master(tmp_path / "ledger.db", limit=1)
    with pytest.raises(StorageError, match="its limit is reached, 1 bytes"):
        master.accept(hello(), frame(Kind.BEGIN, BEGIN, 0), event(1))
    assert master.events() == []
    master.ledger.close()
    master = Master(tmp_path / "ledger.db")
    master.accept(hello(), frame(Kind.BEGIN, BEGIN, 0), event(1))
    assert master.events() == ["web started(booted) running"]


def test_a_node_that_died_with_the_master_is_found_silent(master: Master) -> None:
    master.accept(hello(), frame(Kind.BEGIN, BEGIN, 0), beat(0))
    master.start()
    master.now += 30.1
    assert master.intake.find_silent()


def test_a_lost_libvirt_is_told_until_it_is_back(master: Master) -> None:
    lost = LibvirtState.LOST
    master.accept(hello(), beat(0), beat(1, libvirt=lost), beat(2, libvirt=lost), beat(3))
    assert master.problems() == ["libvirt_lost raised 1", "libvirt_lost solved 1"]


# --- known sets ---


def known(seq: int, **states: CopyState) -> bytes:
    domains = [KnownDomain(uuid=f"u-{name}", name=name, state=state) for name, state in states.items()]
    return frame(Kind.KNOWN, KnownSet(domains=tuple(domains)), seq)


def test_a_known_set_corrects_a_ledger_that_was_lost(master: Master) -> None:
    master.accept(hello(7), known(6, web=CopyState.RUNNING, db=CopyState.STOPPED))
    assert sorted(master.events()) == ["db stopped(unknown) stopped", "web started(unknown) running"]
    assert {call["source"] for call in master.calls() if call["func"] == "vm.event"} == {"snapshot"}
    assert master.problems() == ["events_lost raised 1"]


def test_a_known_set_of_another_moment_is_not_used(master: Master) -> None:
    master.accept(hello(), frame(Kind.BEGIN, BEGIN, 0), event(1))
    before = master.state()
    master.accept(known(0), known(2), known(3, web=CopyState.STOPPED))
    assert master.state() == before


def test_a_known_set_without_a_vm_says_that_it_is_off(master: Master) -> None:
    master.accept(hello(), frame(Kind.BEGIN, BEGIN, 0), event(1), known(1))
    assert master.events() == ["web started(booted) running", "web stopped(unknown) stopped"]
    before = master.state()
    master.accept(known(1))
    assert master.state() == before


def test_a_known_set_says_nothing_of_a_vm_whose_name_another_one_has(master: Master) -> None:
    anew = frame(Kind.EVENT, EVENT._replace(uuid="u-new"), 2)
    master.accept(hello(), frame(Kind.BEGIN, BEGIN, 0), event(1), anew)
    domains = (KnownDomain(uuid="u-new", name="web", state=CopyState.RUNNING),)
    master.accept(frame(Kind.KNOWN, KnownSet(domains=domains), 2))
    assert master.events() == ["web started(booted) running"] * 2
    assert [(uuid, state) for uuid, _, _, state, *_ in master.rows("vm")] == [
        ("u-new", "running"),
        ("u-web", "stopped"),
    ]


def test_the_target_of_a_failed_migration_is_not_told_stopped_later(master: Master) -> None:
    began = frame(Kind.BEGIN, BEGIN, 0, node=2)
    incoming = EVENT._replace(subtype="migrated")
    failed = EVENT._replace(type="stopped", subtype="failed")
    master.accept(hello(), frame(Kind.BEGIN, BEGIN, 0), frame(Kind.EVENT, EVENT, 1))
    master.accept(hello(node=2), began, frame(Kind.EVENT, incoming, 1, node=2))
    master.accept(frame(Kind.EVENT, failed, 2, node=2))
    told = len(master.events())
    domains = (KnownDomain(uuid=EVENT.uuid, name="web", state=CopyState.STOPPED),)
    master.accept(frame(Kind.KNOWN, KnownSet(domains=domains), 2, node=2))
    assert len(master.events()) == told


def test_a_heartbeat_that_promises_nonsense_makes_nobody_silent_at_once(master: Master) -> None:
    master.accept(hello(), beat(0, interval_ms=-5))
    master.now += 0.2
    assert not master.intake.find_silent()


def test_a_known_set_that_agrees_changes_nothing(master: Master) -> None:
    master.accept(hello(), frame(Kind.BEGIN, BEGIN, 0), event(1))
    before = master.state()
    master.accept(known(1, web=CopyState.RUNNING))
    assert master.state() == before


# --- one VM, several names and lives ---


def test_a_vm_that_was_made_anew_under_its_name_is_told_in_order(master: Master) -> None:
    def life(uuid: str, seq: int) -> list[bytes]:
        kinds = (
            ("defined", "added"),
            ("started", "booted"),
            ("stopped", "destroyed"),
            ("undefined", "removed"),
        )
        return [event(seq + n, type=kind, subtype=why, uuid=uuid) for n, (kind, why) in enumerate(kinds)]

    def event(seq: int, **what: object) -> bytes:
        return frame(Kind.EVENT, EVENT._replace(**what), seq)  # type: ignore[arg-type]

    master.accept(hello(), frame(Kind.BEGIN, BEGIN, 0), *life("u1", 1), *life("u2", 5))
    with master.ledger._database.reading() as sql:
        assert sql.execute("SELECT DISTINCT key FROM call").fetchall() == [("vm web",)]
    assert [call["event_id"].split(".")[2] for call in master.calls()] == [str(seq) for seq in range(1, 9)]
    assert [call["status"] for call in master.calls()[4:]] == ["stopped", "running", "stopped", "stopped"]


def test_a_renamed_vm_is_told_under_both_names(master: Master) -> None:
    master.accept(
        hello(),
        frame(Kind.BEGIN, BEGIN, 0),
        event(1, type="defined", subtype="added"),
        frame(Kind.EVENT, EVENT._replace(uuid="u-web", type="undefined", subtype="renamed"), 2),
        frame(Kind.EVENT, EVENT._replace(uuid="u-web", name="www", type="defined", subtype="renamed"), 3),
    )
    assert master.events() == [
        "web defined(added) stopped",
        "web undefined(renamed) stopped",
        "www defined(renamed) stopped",
    ]
    with master.ledger.transaction() as transaction:
        assert transaction.vms_on(1) == {"u-web": ("www", CopyState.STOPPED)}


# --- the disk ---


def test_a_batch_that_cannot_be_kept_is_not_taken_and_is_taken_when_it_comes_again(master: Master) -> None:
    first = [hello(), frame(Kind.BEGIN, BEGIN, 0), event(1)]
    master.accept(*first)
    before = master.state()
    with master.ledger._database.reading() as sql:
        (pages,) = sql.execute("PRAGMA page_count").fetchone()
        sql.execute(f"PRAGMA max_page_count={pages}")
    large = event(2, name="n" * 200_000)
    with pytest.raises(StorageError):
        master.accept(large, event(3))
    assert master.state() == before
    with master.ledger._database.reading() as sql:
        sql.execute("PRAGMA max_page_count=100000")
    master.accept(hello(), *first[1:], large, event(3))
    assert len(master.events()) == 3
    assert master.problems() == []


def test_two_hosts_with_one_id_are_told_once(master: Master, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    follows = encode(Begin(previous=RUN, last=0, time=TIME))
    third = Run("0" * 31 + "3")
    master.accept(
        hello(),
        frame(Kind.BEGIN, BEGIN, 0),
        frame(Kind.BEGIN, follows, 0, run=NEXT),
        frame(Kind.BEGIN, follows, 0, run=third),
        *[event(1)] * 3,
    )
    assert "two_nodes_one_id raised 1" in master.problems()
    assert len(master.problems()) == len(set(caplog.messages))


def test_a_vm_whose_qemu_does_not_answer_is_told_until_it_does(master: Master) -> None:
    master.accept(hello(), beat(0), beat(1, not_responding=("web",)))
    master.accept(beat(2, not_responding=("db", "web")), beat(3, node=2, not_responding=("web",)))
    master.accept(beat(3, not_responding=("db",)))
    assert master.problems() == [
        "vm_not_responding raised 1",
        "vm_not_responding raised 1",
        "vm_not_responding raised 2",
        "vm_not_responding solved 1",
    ]


def duplicate(master: Master) -> None:
    """`web` is heard to run on node 1 and on node 2, and both are heard of a while after it."""
    for node in (1, 2):
        began = frame(Kind.BEGIN, BEGIN, 0, node=node)
        master.accept(hello(node=node), began, frame(Kind.EVENT, EVENT, 1, node=node))
    master.intake.find_duplicates()
    master.now += 1.1
    master.accept(beat(0, node=1, top=1), beat(0, node=2, top=1))


def test_a_newer_nodes_hello_and_records_do_not_stop_its_stream(master: Master) -> None:
    master.accept(frame(Kind.HELLO, b'{"of":"a later version"}', 0))
    master.accept(frame(Kind.BEGIN, BEGIN, 0), frame(9, b"{}", 1), event(2))
    assert master.events() == ["web started(booted) running"]
    assert master.problems() == ["unreadable_record raised 1"]


def test_a_vm_that_runs_twice_is_told_once_and_once_when_it_does_not(master: Master) -> None:
    duplicate(master)
    assert master.intake.find_duplicates()
    assert not master.intake.find_duplicates()
    assert master.problems() == ["duplicate raised None"]
    stopped = EVENT._replace(type="stopped", subtype="destroyed")
    master.accept(frame(Kind.EVENT, stopped, 2, node=2))
    assert master.intake.find_duplicates()
    assert not master.intake.find_duplicates()
    assert master.problems() == ["duplicate raised None", "duplicate solved None"]


def test_a_duplicate_outlives_the_master(master: Master) -> None:
    duplicate(master)
    assert master.intake.find_duplicates()
    master.start()
    assert not master.intake.find_duplicates()
    master.accept(frame(Kind.EVENT, EVENT._replace(type="stopped", subtype="destroyed"), 2))
    assert master.intake.find_duplicates()
    assert master.problems() == ["duplicate raised None", "duplicate solved None"]


def test_two_vms_of_one_name_on_two_nodes_are_a_duplicate(master: Master) -> None:
    duplicate(master)
    master.accept(frame(Kind.EVENT, EVENT._replace(type="stopped", subtype="destroyed"), 2, node=2))
    master.accept(frame(Kind.EVENT, EVENT._replace(uuid="another"), 3, node=2))
    assert not master.intake.find_duplicates()
    master.now += 1.1
    master.accept(beat(1, node=1, top=1), beat(1, node=2, top=3))
    assert master.intake.find_duplicates()


def test_nodes_whose_records_are_still_under_way_make_no_duplicate(master: Master) -> None:
    for node in (1, 2):
        master.accept(
            hello(node=node), frame(Kind.BEGIN, BEGIN, 0, node=node), frame(Kind.EVENT, EVENT, 1, node=node)
        )
    master.intake.find_duplicates()
    master.now += 1.1
    master.accept(beat(0, node=1, top=2), beat(0, node=2, top=1))
    assert not master.intake.find_duplicates()


def test_who_is_silent_does_not_hide_what_runs_twice(master: Master) -> None:
    master.accept(hello(node=3), beat(0, node=3))
    master.now += 3.1
    assert master.intake.look_around()
    duplicate(master)
    assert master.intake.look_around()
    assert master.problems() == ["node_silent raised 3", "duplicate raised None"]


def failing(master: Master, *, fails: bool) -> None:
    """Every write fails, as on a disk that died."""
    with master.ledger._database.reading() as sql:
        sql.execute(f"PRAGMA query_only = {int(fails)}")


def take_on_a_full_disk(master: Master, *frames: bytes) -> None:
    """The batch is read to its end, and then there is no room to keep it."""
    with master.ledger._database.reading() as sql:
        (pages,) = sql.execute("PRAGMA page_count").fetchone()
        sql.execute(f"PRAGMA max_page_count={pages}")
        try:
            master.accept(*frames, event(3, name="n" * 200_000))
        finally:
            sql.execute("PRAGMA max_page_count=100000")


def test_a_node_whose_batch_was_not_kept_has_not_told_all(master: Master) -> None:
    """A migration's two ends run for the ledger, which could not keep that one stopped: no duplicate."""
    for node in (1, 2):
        began = frame(Kind.BEGIN, BEGIN, 0, node=node)
        master.accept(hello(node=node), began, frame(Kind.EVENT, EVENT, 1, node=node))
    master.intake.find_duplicates()
    master.now += 1.1
    master.accept(beat(0, node=2, top=1))
    stopped = frame(Kind.EVENT, EVENT._replace(type="stopped", subtype="migrated"), 2)
    with pytest.raises(StorageError):
        take_on_a_full_disk(master, stopped, beat(0, top=2))
    assert not master.intake.find_duplicates()
    master.accept(stopped, beat(0, top=2))
    assert not master.intake.find_duplicates()
    assert master.problems() == []


def test_a_solved_duplicate_that_cannot_be_kept_is_told_later(master: Master) -> None:
    duplicate(master)
    assert master.intake.find_duplicates()
    master.accept(frame(Kind.EVENT, EVENT._replace(type="stopped", subtype="destroyed"), 2))
    failing(master, fails=True)
    with pytest.raises(StorageError):
        master.intake.find_duplicates()
    failing(master, fails=False)
    assert master.intake.find_duplicates()
    assert master.problems() == ["duplicate raised None", "duplicate solved None"]
