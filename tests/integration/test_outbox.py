# SPDX-License-Identifier: Apache-2.0
"""The node's durable queue, on a real file."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import time
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from random import Random
from typing import TYPE_CHECKING

import pytest

from tests.lab.waiting import wait_for
from vmwatch.database import Damaged
from vmwatch.errors import StorageError
from vmwatch.events import CopyState
from vmwatch.messages import Begin, Event, Gap, Source
from vmwatch.outbox import LIMIT_BYTES, WINDOW_BYTES, WINDOW_MESSAGES, Outbox
from vmwatch.protocol import OVERHEAD, Envelope, Kind
from vmwatch.sequence import Position, receive
from vmwatch.snapshot import Known
from vmwatch.strict import decode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from vmwatch.outbox import Record
    from vmwatch.protocol import Run

NOW = datetime(2026, 11, 22, 10, tzinfo=UTC)
STARTED = Event(
    uuid="u1",
    name="web",
    type="started",
    subtype="booted",
    time=NOW,
    cause=None,
    source=Source.EVENT,
    since=None,
    domain_id=1,
)
STOPPED = STARTED._replace(type="stopped", subtype="shutdown", cause="guest-shutdown", domain_id=None)
UNDEFINED = STOPPED._replace(type="undefined", subtype="removed", cause=None)


@contextmanager
def opened(
    folder: Path,
    *,
    now: datetime = NOW,
    boot: str = "boot-1",
    random: int = 1,
    limit: int = LIMIT_BYTES,
) -> Iterator[Outbox]:
    outbox = Outbox(folder / "state/outbox.db", now=now, random=random, boot=boot, limit=limit)
    with closing(outbox):
        yield outbox


def told(outbox: Outbox) -> list[tuple[int, Kind]]:
    return [(record.seq, record.kind) for record in outbox.read(after=0, limit=9999)]


def begins(outbox: Outbox) -> list[Begin]:
    records = outbox.read(after=0, limit=9999)
    return [decode(Begin, record.body) for record in records if record.kind is Kind.BEGIN]


def test_events_are_kept_in_order_with_what_they_make_known(tmp_path: Path) -> None:
    with opened(tmp_path) as outbox:
        outbox.append([STARTED])
        assert outbox.known == {"u1": Known(name="web", state=CopyState.RUNNING, domain_id=1)}
        outbox.append([STOPPED, UNDEFINED, STARTED._replace(uuid="u2", name="db")])
        assert outbox.top == 4
        known = outbox.known
        assert known == {"u2": Known(name="db", state=CopyState.RUNNING, domain_id=1)}
    with opened(tmp_path) as outbox:
        assert outbox.known == known
        records = outbox.read(after=1, limit=4)
        assert [decode(Event, record.body).type for record in records] == [
            "started",
            "stopped",
            "undefined",
            "started",
        ]
        numbers = [(0, Kind.BEGIN), *((seq, Kind.EVENT) for seq in (1, 2, 3, 4)), (0, Kind.BEGIN)]
        assert told(outbox) == numbers


def test_one_batch_may_make_and_unmake_a_domain(tmp_path: Path) -> None:
    with opened(tmp_path) as outbox:
        outbox.append([STARTED, STOPPED, UNDEFINED])
        assert outbox.known == {}
    with opened(tmp_path) as outbox:
        assert outbox.known == {}


def test_each_run_says_which_one_it_follows_and_is_greater_though_the_clock_is_set_back(
    tmp_path: Path,
) -> None:
    with opened(tmp_path) as outbox:
        assert begins(outbox) == [Begin(previous=None, last=None, time=NOW)]
        outbox.append([STARTED, STOPPED])
        first = outbox.run
    yesterday = NOW - timedelta(days=1)
    with opened(tmp_path, now=yesterday) as outbox:
        assert outbox.run > first
        assert outbox.top == 0
        assert begins(outbox)[-1] == Begin(previous=first, last=2, time=yesterday)
        second = outbox.run
    with opened(tmp_path, now=yesterday) as outbox:
        assert begins(outbox)[-1] == Begin(previous=second, last=0, time=yesterday)


def test_the_last_record_of_a_run_is_known_though_all_was_sent_and_forgotten(tmp_path: Path) -> None:
    with opened(tmp_path) as outbox:
        outbox.append([STARTED] * 3000)
        last = outbox.read(after=0, limit=9999)[-1].id
        outbox.forget(up_to=outbox.window_before(last))
        assert len(told(outbox)) < 1500
    with opened(tmp_path) as outbox:
        assert begins(outbox)[-1].last == 3000


def test_a_boot_of_the_host_is_remembered_by_a_start_that_came_to_nothing(tmp_path: Path) -> None:
    with opened(tmp_path) as outbox:
        outbox.append([STARTED, STOPPED._replace(uuid="u2", name="off")])
        before = outbox.known["u1"].domain_id
    with opened(tmp_path, boot="boot-2"):
        pass  # libvirt was not there yet: it ended before it had compared anything
    with opened(tmp_path, boot="boot-2") as outbox:
        assert outbox.known["u1"].state is CopyState.RUNNING
        assert outbox.known["u1"].domain_id not in (None, before)
        assert outbox.known["u2"].domain_id is None
    with opened(tmp_path, boot="boot-2") as outbox:
        outbox.append([STARTED])
    with opened(tmp_path, boot="boot-2") as outbox:
        assert outbox.known["u1"].domain_id == before


def test_when_the_known_set_was_right_is_kept(tmp_path: Path) -> None:
    with opened(tmp_path) as outbox:
        assert outbox.confirmed is None
        outbox.confirm(NOW + timedelta(microseconds=7))
    with opened(tmp_path) as outbox:
        assert outbox.confirmed == NOW + timedelta(microseconds=7)


@pytest.mark.parametrize("name_size", [3, 200, 60_000])
def test_the_window_holds_all_that_may_be_under_way_and_little_more(tmp_path: Path, name_size: int) -> None:
    event = STARTED._replace(name="x" * name_size)
    with opened(tmp_path) as outbox:
        outbox.append([event] * 1500)
        records = outbox.read(after=0, limit=9999)
        before = outbox.window_before(records[-1].id)
        window = [len(record.body) + OVERHEAD for record in records if record.id > before]
        assert len(window) > WINDOW_MESSAGES
        assert sum(window[:-WINDOW_MESSAGES]) >= WINDOW_BYTES
        assert sum(window[1:-WINDOW_MESSAGES]) < WINDOW_BYTES
        assert outbox.window_before(records[9].id) == 0


def test_a_new_process_sends_again_all_that_is_kept(tmp_path: Path) -> None:
    with opened(tmp_path) as outbox:
        outbox.append([STARTED] * 2000)
    with opened(tmp_path) as outbox:
        assert outbox.window_before(0) == 0
        assert len(told(outbox)) == 2002


def test_what_is_read_is_what_follows(tmp_path: Path) -> None:
    with opened(tmp_path) as outbox:
        outbox.append([STARTED] * 10)
        first = outbox.read(after=0, limit=4)
        rest = outbox.read(after=first[-1].id, limit=100)
        assert [record.seq for record in first + rest] == list(range(11))
        assert outbox.read(after=rest[-1].id, limit=1) == []


MILLION = 1_000_000


def seconds_to_open(folder: Path) -> float:
    """To what a session sends first; the best of a few, for the machine has other things to do."""
    took = []
    for _ in range(5):
        began = time.monotonic()
        with opened(folder) as outbox:
            assert outbox.read(after=outbox.window_before(0), limit=1)
            took.append(time.monotonic() - began)
    return min(took)


def test_a_start_takes_no_longer_with_a_million_records(tmp_path: Path) -> None:
    (tmp_path / "few").mkdir()
    for folder in (tmp_path, tmp_path / "few"):
        with opened(folder) as outbox:
            outbox.append([STARTED])
    numbers = f"WITH RECURSIVE n (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < {MILLION})"
    copies = "SELECT 1000 + x, run, seq, span, kind, body, checksum FROM record, n WHERE seq = 1"
    with closing(sqlite3.connect(tmp_path / "state/outbox.db", isolation_level=None)) as sql:
        sql.execute(f"{numbers} INSERT INTO record {copies}")
        assert sql.execute("SELECT count(*) > ? FROM record", (MILLION,)).fetchone() == (1,)
        sql.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with opened(tmp_path) as outbox:
        outbox.append([STOPPED])
    few, many = seconds_to_open(tmp_path / "few"), seconds_to_open(tmp_path)
    print(f"start: {few * 1000:.1f} ms with a few records, {many * 1000:.1f} ms with a million")
    (tmp_path / "state/outbox.db").unlink()  # a quarter of a gigabyte
    assert many < 0.1
    assert many < 5 * few


# --- the limit ---


LIMIT = 200_000


def bodies(outbox: Outbox) -> int:
    return sum(len(record.body) for record in outbox.read(after=0, limit=99_999))


def stream(outbox: Outbox) -> list[tuple[Run, int]]:
    """Every number that the records stand for."""
    return [
        (record.run, number)
        for record in outbox.read(after=0, limit=99_999)
        for number in range(record.seq - record.span + 1, record.seq + 1)
    ]


def gaps(outbox: Outbox) -> list[Record]:
    return [record for record in outbox.read(after=0, limit=99_999) if record.kind is Kind.GAP]


def test_beyond_the_limit_the_oldest_events_go_and_leave_one_gap(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with opened(tmp_path, limit=LIMIT) as outbox:
        for _ in range(300):
            outbox.append([STARTED] * 7)
            assert bodies(outbox) <= LIMIT
        assert stream(outbox) == [(outbox.run, number) for number in range(2101)]
        begin, gap, *rest = outbox.read(after=0, limit=9999)
        assert (begin.kind, gap.kind, gap.span) == (Kind.BEGIN, Kind.GAP, gap.seq)
        assert decode(Gap, gap.body) == Gap(count=gap.span, reason="the outbox was full")
        assert {record.kind for record in rest} == {Kind.EVENT}
        assert bodies(outbox) > LIMIT * 0.9
    said = [record.getMessage() for record in caplog.records]
    assert said == [f"the outbox is full, its oldest events go: file={tmp_path}/state/outbox.db limit=200000"]


def test_below_the_limit_nothing_goes(tmp_path: Path) -> None:
    with opened(tmp_path) as outbox:
        outbox.append([STARTED])
        size = bodies(outbox)
    with opened(tmp_path, limit=size * 2) as outbox:
        while bodies(outbox) + size // 2 < size * 2:
            outbox.append([STARTED])
        assert gaps(outbox) == []


def test_each_run_keeps_its_begin_and_has_a_gap_of_its_own(tmp_path: Path) -> None:
    for life in range(3):
        with opened(tmp_path, random=life, limit=LIMIT) as outbox:
            outbox.append([STARTED] * 300)
    with opened(tmp_path, limit=LIMIT) as outbox:
        for _ in range(700):
            outbox.append([STARTED] * 2)
        kinds = [record.kind for record in outbox.read(after=0, limit=7)]
        assert kinds == [Kind.BEGIN, Kind.GAP] * 3 + [Kind.BEGIN]
        assert [gap.span for gap in gaps(outbox)[:3]] == [300] * 3
        assert [begin.last for begin in begins(outbox)] == [None, 300, 300, 300]
        numbers = [number for _, number in stream(outbox)]
        assert numbers == [*range(301)] * 3 + [*range(1401)]


def test_the_window_stays_though_it_is_beyond_the_limit(tmp_path: Path) -> None:
    with opened(tmp_path, limit=1000) as outbox:
        outbox.append([STARTED] * 3000)
        records = outbox.read(after=0, limit=9999)
        assert outbox.window_before(records[-1].id) == records[1].id
        assert [record.kind for record in records[:3]] == [Kind.BEGIN, Kind.GAP, Kind.EVENT]
        assert len(records) > WINDOW_MESSAGES


def test_what_arrived_makes_room(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with opened(tmp_path, limit=LIMIT) as outbox:
        for _ in range(2):
            outbox.append([STARTED._replace(name="x" * 1000)] * 500)
            last = outbox.read(after=0, limit=9999)[-1].id
            outbox.forget(up_to=last - 1)
            assert outbox._size == bodies(outbox) < LIMIT / 2
    assert len(caplog.records) == 2, "the second time is another one"
    with opened(tmp_path, limit=LIMIT) as outbox:
        assert outbox._size == bodies(outbox)


def test_what_a_master_has_not_taken_is_lost_aloud_and_the_rest_is_taken(tmp_path: Path) -> None:
    with opened(tmp_path, limit=LIMIT) as outbox:
        outbox.append([STARTED] * 500)
        position: Position | None = Position(run=outbox.run, seq=100)
        outbox.append([STARTED] * 1500)
        taken = []
        for record in outbox.read(after=0, limit=9999):
            envelope = Envelope(node=1, run=record.run, seq=record.seq, span=record.span, kind=record.kind)
            decision = receive(position, envelope, None)
            assert decision.anomaly is None
            position = decision.position
            taken += [record.kind] * decision.take
        assert position == Position(run=outbox.run, seq=2000)
        assert taken[0] is Kind.GAP
        assert set(taken[1:]) == {Kind.EVENT}


# --- files that are not as they should be ---


def refusal(make: Callable[[], object]) -> str:
    with pytest.raises(StorageError) as caught:
        make()
    return str(caught.value)


def test_its_files_are_nobody_elses_business(tmp_path: Path) -> None:
    mask = os.umask(0)
    try:
        with opened(tmp_path) as outbox:
            outbox.append([STARTED])
            files = {file.name: file.stat().st_mode & 0o777 for file in (tmp_path / "state").iterdir()}
    finally:
        os.umask(mask)
    assert files == {"outbox.db": 0o600, "outbox.db-wal": 0o600, "outbox.db-shm": 0o600}


def test_a_file_of_another_version_is_refused_by_name(tmp_path: Path) -> None:
    with opened(tmp_path):
        pass
    with closing(sqlite3.connect(tmp_path / "state/outbox.db")) as sql:
        sql.execute("PRAGMA user_version=99")
    text = refusal(lambda: opened(tmp_path).__enter__())
    assert text == f"{tmp_path}/state/outbox.db: written by another version of vmwatch (schema 99)"


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file where the folder should be")
    assert refusal(lambda: opened(tmp_path).__enter__()) == f"{tmp_path}/state/outbox.db: File exists"


def test_what_cannot_be_kept_changes_nothing_and_can_be_kept_later(tmp_path: Path) -> None:
    with opened(tmp_path) as outbox:
        outbox.append([STARTED])
        with closing(sqlite3.connect(tmp_path / "state/outbox.db", isolation_level=None)) as sql:
            (pages,) = sql.execute("PRAGMA page_count").fetchone()
        with outbox._database.reading() as own:
            own.execute(f"PRAGMA max_page_count={pages}")  # as a full disk: SQLITE_FULL
        text = refusal(lambda: outbox.append([STOPPED._replace(name="x" * 100_000)]))
        assert text == f"{tmp_path}/state/outbox.db: database or disk is full"
        assert (outbox.top, outbox.known["u1"].state) == (1, CopyState.RUNNING)
        assert (tmp_path / "state/outbox.db-wal").stat().st_size == 0, "the log gives back its room"
        with outbox._database.reading() as own:
            own.execute("PRAGMA max_page_count=100000")
        outbox.append([STOPPED])
        assert told(outbox) == [(0, Kind.BEGIN), (1, Kind.EVENT), (2, Kind.EVENT)]


def test_what_cannot_be_forgotten_now_is_forgotten_later(tmp_path: Path) -> None:
    with opened(tmp_path) as outbox:
        outbox.append([STARTED] * 9)
        with outbox._database.reading() as own:
            own.execute("PRAGMA query_only=1")
        outbox.forget(up_to=3)
        assert len(told(outbox)) == 10
        with outbox._database.reading() as own:
            own.execute("PRAGMA query_only=0")
        outbox.forget(up_to=4)
        assert len(told(outbox)) == 6
        assert outbox._size == bodies(outbox)


# --- damage ---


def aside(folder: Path) -> list[Path]:
    return sorted((folder / "state").glob("outbox.db.damaged-*"))


WRONG = "body = CAST(replace(body, 'started', 'stopped') AS BLOB)"


def spoil(folder: Path, statement: str) -> None:
    with closing(sqlite3.connect(folder / "state/outbox.db", isolation_level=None)) as sql:
        assert sql.execute(statement).rowcount == 1


def is_new(outbox: Outbox) -> bool:
    begin = Begin(previous=None, last=None, time=NOW)
    return begins(outbox) == [begin] and outbox.known == {} and outbox.confirmed is None


def test_a_file_that_is_no_database_is_set_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "state").mkdir()
    file = tmp_path / "state/outbox.db"
    noise = b"not a database " * 1000
    file.write_bytes(noise)
    with opened(tmp_path) as outbox:
        assert is_new(outbox)
        outbox.append([STARTED])
    (kept,) = aside(tmp_path)
    assert kept.read_bytes() == noise
    (said,) = caplog.records
    assert said.levelname == "ERROR"
    assert said.getMessage() == (
        f"file damaged, set aside, a new one begins: aside={kept} reason={file}: file is not a database"
    )
    with opened(tmp_path) as outbox:
        assert outbox.known.keys() == {"u1"}
    assert aside(tmp_path) == [kept]


@pytest.mark.parametrize(
    "statement",
    [
        f"UPDATE record SET {WRONG} WHERE seq = 2",
        "UPDATE record SET seq = 9 WHERE seq = 2",
        "UPDATE run SET id = '0' WHERE only = 1",
        "UPDATE run SET size = 9999 WHERE only = 1",
        "UPDATE known SET state = 'stopped' WHERE uuid = 'u1'",
        "UPDATE known SET name = CAST(x'ff' AS TEXT) WHERE uuid = 'u1'",
    ],
)
def test_what_is_needed_at_the_start_and_is_not_what_was_written_sets_the_file_aside(
    tmp_path: Path, statement: str, caplog: pytest.LogCaptureFixture
) -> None:
    with opened(tmp_path) as outbox:
        outbox.append([STARTED, STARTED])
    spoil(tmp_path, statement)
    with opened(tmp_path) as outbox:
        assert is_new(outbox)
    assert len(aside(tmp_path)) == 1
    assert len(caplog.records) == 1


def test_a_record_that_is_not_what_was_written_is_not_read_and_sets_the_file_aside(tmp_path: Path) -> None:
    with opened(tmp_path) as outbox:
        outbox.append([STARTED] * 9)
    spoil(tmp_path, f"UPDATE record SET {WRONG} WHERE seq = 5")
    with opened(tmp_path) as outbox:
        assert len(outbox.read(after=0, limit=5)) == 5
        with pytest.raises(Damaged, match=r"outbox\.db: a checksum is wrong"):
            outbox.read(after=0, limit=6)
        assert aside(tmp_path) == []
        outbox.append([STOPPED])
    assert len(aside(tmp_path)) == 1
    with opened(tmp_path) as outbox:
        assert is_new(outbox)


def test_of_damaged_files_the_last_three_are_kept(tmp_path: Path) -> None:
    for life in range(5):
        with opened(tmp_path) as outbox, suppress(Damaged):
            outbox.append([STARTED._replace(name=f"life-{life}")])
            spoil(tmp_path, f"UPDATE record SET {WRONG} WHERE seq = 1")
            outbox.read(after=0, limit=9)
        newest = aside(tmp_path)[-1]
        newest.with_name(f"{newest.name}-wal").touch()  # of a file that could not be closed in order
    kept = [file.read_bytes() for file in aside(tmp_path) if not file.name.endswith("-wal")]
    assert [f"life-{life}".encode() in content for life, content in enumerate(kept, 2)] == [True] * 3
    assert len(aside(tmp_path)) == 6


@pytest.mark.parametrize("seed", range(40))
def test_whatever_is_destroyed_a_node_starts_again(tmp_path: Path, seed: int) -> None:
    """Noise somewhere in the file or its log, as a disk makes it: no error but Damaged, and it ends."""
    random = Random(seed)
    with opened(tmp_path) as outbox:
        outbox.append([STARTED._replace(uuid=f"u{number}") for number in range(500)])
        left = {file.name: file.read_bytes() for file in (tmp_path / "state").iterdir()}
    for name, content in left.items():
        (tmp_path / "state" / name).write_bytes(content)
    with opened(tmp_path) as outbox:
        outbox.append([STOPPED] * 50)
    outbox_file = tmp_path / "state/outbox.db"
    size = random.choice((1, 20, 500, 20_000))
    with outbox_file.open("r+b") as file:
        # Its header's first bytes say that it is a database, of which version: that one is refused, not damage.
        file.seek(random.randrange(100, outbox_file.stat().st_size - size))
        file.write(random.randbytes(size))
    for _ in range(3):
        with opened(tmp_path) as outbox, suppress(Damaged):
            outbox.append([STARTED])
            assert stream(outbox)
            outbox.forget(up_to=300)
            assert outbox.known
            break
    else:
        pytest.fail("it does not end")


def test_a_log_whose_end_is_lost_is_an_older_outbox_and_no_damage(tmp_path: Path) -> None:
    """What a power loss may leave: SQLite takes the whole commits."""
    with opened(tmp_path) as outbox:
        outbox.append([STARTED])
        outbox.append([STOPPED])
        left = {file.name: file.read_bytes() for file in (tmp_path / "state").iterdir()}
    log = left["outbox.db-wal"]
    for cut in range(1, 9000, 700):
        left["outbox.db-wal"] = log[:-cut] + bytes(cut)
        for name, content in left.items():
            (tmp_path / "state" / name).write_bytes(content)
        with opened(tmp_path) as outbox:
            assert begins(outbox)[-1].last in (0, 1)
    assert aside(tmp_path) == []


WRITER = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from tests.integration.test_outbox import STARTED, STOPPED
from vmwatch.outbox import Outbox
outbox = Outbox(Path(sys.argv[1]), now=datetime.now(UTC), random=1, boot="b")
while True:
    outbox.append([STARTED])
    print(outbox.top, flush=True)
    outbox.append([STOPPED])
    print(outbox.top, flush=True)
"""


def kill_while_it_writes(process: subprocess.Popen[bytes], said: Path) -> None:
    wait_for(lambda: said.stat().st_size > 20, seconds=20, what="writing")
    process.kill()
    process.wait()


def test_what_was_kept_survives_kill_9_at_any_moment(tmp_path: Path) -> None:
    file = tmp_path / "state/outbox.db"
    for life in range(8):
        said = tmp_path / f"said-{life}"
        with said.open("wb") as output:
            process = subprocess.Popen([sys.executable, "-c", WRITER, str(file)], stdout=output)
        kill_while_it_writes(process, said)
        last = int(said.read_text().rstrip("\n").split("\n")[-1])
        with opened(tmp_path) as outbox:
            begin = begins(outbox)[-1]
            assert begin.last is not None
            assert begin.last - last in (0, 1)
            running = outbox.known["u1"].state is CopyState.RUNNING
            assert running == (begin.last % 2 == 1)
        assert aside(tmp_path) == []
