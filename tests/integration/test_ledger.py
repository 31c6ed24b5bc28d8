# SPDX-License-Identifier: Apache-2.0
"""The master's durable state, on a real file."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections import Counter, defaultdict
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.lab.waiting import wait_for
from vmwatch.backlog import FEW, MOST_OF_A_KEY
from vmwatch.cluster import Copy
from vmwatch.database import Damaged
from vmwatch.errors import StorageError
from vmwatch.events import CopyState
from vmwatch.ledger import READ_AT_ONCE, Ledger
from vmwatch.protocol import Envelope, Message, Run
from vmwatch.sequence import Position

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vmwatch.calls import Call

KEYS = st.sampled_from("abc")
RUN = Run("0" * 31 + "1")
NEXT = Run("0" * 31 + "2")


@contextmanager
def opened(folder: Path, *, now: float = 0.0) -> Iterator[Ledger]:
    with closing(Ledger(folder / "ledger.db", clock=lambda: now)) as ledger:
        yield ledger


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with opened(tmp_path) as ledger:
        yield ledger


def enqueue(ledger: Ledger, key: str, *values: str) -> None:
    with ledger.transaction() as transaction:
        for value in values:
            transaction.enqueue(key, "vm.event", {"value": value})


def first(ledger: Ledger, key: str) -> Call:
    ledger.take_new()
    call = ledger.first(key)
    assert call is not None
    return call


def make(ledger: Ledger, key: str, most: int) -> list[str]:
    """Make so many of the key's calls, of those that were read."""
    values: list[str] = []
    while len(values) < most and (call := ledger.first(key)):
        values.append(call.fields["value"])
        with ledger.transaction() as transaction:
            transaction.done(call)
    return values


def drain(ledger: Ledger, key: str) -> list[str]:
    while ledger.take_new():
        pass
    return make(ledger, key, 10_000)


def test_calls_of_one_key_come_in_the_order_of_their_coming(ledger: Ledger) -> None:
    enqueue(ledger, "vm a", "1", "2")
    enqueue(ledger, "vm b", "10")
    enqueue(ledger, "vm a", "3")
    assert drain(ledger, "vm a") == ["1", "2", "3"]
    assert drain(ledger, "vm b") == ["10"]


def test_who_has_new_calls_is_told_once(ledger: Ledger, tmp_path: Path) -> None:
    enqueue(ledger, "vm a", "1")
    enqueue(ledger, "vm b", "1")
    assert ledger.take_new() == {"vm a", "vm b"}
    assert ledger.take_new() == set()
    enqueue(ledger, "vm b", "2")
    assert ledger.take_new() == {"vm b"}
    drain(ledger, "vm a")
    with opened(tmp_path) as again:
        assert again.take_new() == {"vm b"}


def test_order_survives_a_restart(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        enqueue(ledger, "vm a", "1", "2")
    with opened(tmp_path) as ledger:
        enqueue(ledger, "vm a", "3")
        assert drain(ledger, "vm a") == ["1", "2", "3"]


def test_a_call_that_is_replaced_while_it_is_made_takes_nobody_with_it(ledger: Ledger) -> None:
    def enqueue_latest(value: str) -> None:
        with ledger.transaction() as transaction:
            transaction.enqueue_latest("statistics 1", "vmwatch.statistics", {"value": value})

    enqueue_latest("old")
    assert ledger.take_new() == {"statistics 1"}
    under_way = first(ledger, "statistics 1")
    enqueue_latest("newer")
    enqueue_latest("new")
    with ledger.transaction() as transaction:
        transaction.done(under_way)
    assert drain(ledger, "statistics 1") == ["new"]


def test_what_is_put_aside_no_longer_waits(ledger: Ledger) -> None:
    enqueue(ledger, "vm a", "1", "2")
    with ledger.transaction() as transaction:
        transaction.park(first(ledger, "vm a"), "the panel said no")
    assert drain(ledger, "vm a") == ["2"]


def test_a_position_is_what_the_last_record_made_it(ledger: Ledger, tmp_path: Path) -> None:
    with ledger.transaction() as transaction:
        assert transaction.position(3) is None
        for seq in range(5):
            transaction.keep_position(3, Position(run=RUN, seq=seq))
            assert transaction.position(3) == Position(run=RUN, seq=seq)
        transaction.keep_position(4, Position(run=NEXT, seq=0, ended={RUN: 7}))
    ledger.close()
    with opened(tmp_path) as again:
        assert again.nodes() == [3, 4]
        with again.transaction() as transaction:
            assert transaction.position(3) == Position(run=RUN, seq=4)
            assert transaction.position(4) == Position(run=NEXT, seq=0, ended={RUN: 7})


def test_what_is_not_numbered_goes_forward_only(ledger: Ledger) -> None:
    with ledger.transaction() as transaction:
        steps = [(RUN, 5), (RUN, 5), (RUN, 4), (RUN, 6), (NEXT, 0), (RUN, 7), (NEXT, 1)]
        forward = [
            transaction.goes_forward(1, run, counter, heard=datetime(2026, 11, 22, tzinfo=UTC))
            for run, counter in steps
        ]
        assert forward == [True, False, False, True, True, False, True]
        assert transaction.goes_forward(2, RUN, 0, heard=datetime(2026, 11, 22, tzinfo=UTC))


def test_copies_are_those_that_were_kept_last(ledger: Ledger) -> None:
    running, stopped = Copy(state=CopyState.RUNNING, order=2), Copy(state=CopyState.STOPPED, order=1)
    with ledger.transaction() as transaction:
        transaction.keep_copies("u", "web", {1: running, 2: stopped})
        assert transaction.copies("u") == {1: running, 2: stopped}
        transaction.keep_copies("u", "www", {2: running})
        assert transaction.copies("u") == {2: running}
        assert transaction.vms_on(1) == {}
        assert transaction.vms_on(2) == {"u": ("www", CopyState.RUNNING)}
        transaction.keep_copies("u", "www", {})
        assert transaction.vms_on(2) == {}


def test_a_problem_is_raised_once_and_solved_once(ledger: Ledger) -> None:
    with ledger.transaction() as transaction:
        assert [transaction.raise_problem("p") for _ in range(3)] == [True, False, False]
        assert [transaction.solve_problem("p") for _ in range(3)] == [True, False, False]
        assert transaction.raise_problem("p")


def test_problems_are_found_by_what_their_keys_begin_with(ledger: Ledger) -> None:
    keys = [
        "p 1 a",
        "p 1 ",
        "p 1 \U0010ffff\U0010ffff",
        "p 1",
        "p 1!",
        "p 10 a",
        "p 2 a",
        "q 1 a",
        "P 1 a",
        "p_1 a",
    ]
    with ledger.transaction() as transaction:
        for key in keys:
            transaction.raise_problem(key)
    assert sorted(ledger.problems("p 1 ")) == ["", "a", "\U0010ffff\U0010ffff"]
    with ledger.transaction() as transaction:
        for number in range(2000):
            transaction.raise_problem(f"z {number}")
    with ledger._database.reading() as sql:
        sql.set_progress_handler(lambda: 1, 1000)  # after so many of SQLite's steps, interrupt
        assert len(ledger.problems("p 1 ")) == 3, (
            "each heartbeat asks: it must not read what is raised of others"
        )
        sql.set_progress_handler(None, 0)


def test_a_batch_that_cannot_be_kept_leaves_nothing(ledger: Ledger) -> None:
    enqueue(ledger, "vm a", "1")
    ledger.take_new()
    with ledger._database.reading() as sql:
        (pages,) = sql.execute("PRAGMA page_count").fetchone()
        sql.execute(f"PRAGMA max_page_count={pages}")  # as a full disk: SQLITE_FULL

    def take() -> None:
        with ledger.transaction() as transaction:
            transaction.keep_position(1, Position(run=RUN, seq=9))
            transaction.enqueue("vm b", "vm.event", {"value": "x" * 100_000})

    with pytest.raises(StorageError, match=r"ledger\.db: database or disk is full"):
        take()
    with ledger.transaction() as transaction:
        assert transaction.position(1) is None
    assert ledger.take_new() == set()
    with ledger._database.reading() as sql:
        sql.execute("PRAGMA max_page_count=100000")
    take()
    assert ledger.take_new() == {"vm b"}


def test_who_has_much_to_tell_is_passed_over_and_nothing_of_it_is_lost(tmp_path: Path) -> None:
    many = [str(number) for number in range(5 * MOST_OF_A_KEY)]
    with opened(tmp_path) as ledger:
        enqueue(ledger, "vm a", *many)
        enqueue(ledger, "vm b", "1")
        read = set()
        while keys := ledger.take_new():
            read |= keys
        assert read == {"vm a", "vm b"}
        enqueue(ledger, "vm a", "last")
        ledger.take_new()
        assert first(ledger, "vm b").fields == {"value": "1"}
        assert first(ledger, "vm a").fields == {"value": "0"}
    with opened(tmp_path) as ledger:  # killed: what was passed over is known from the file alone
        assert "vm a" in ledger.take_new()
        assert drain(ledger, "vm a") == [*many, "last"]
        enqueue(ledger, "vm a", "again")
        assert drain(ledger, "vm a") == ["again"]


def test_order_survives_a_restart_though_its_first_calls_come_after_many_others(tmp_path: Path) -> None:
    """What was passed over is marked in the file; what stood before it, and between, must be read first."""
    others, many = 2 * READ_AT_ONCE - MOST_OF_A_KEY - 4, [str(number) for number in range(2 * MOST_OF_A_KEY)]
    with opened(tmp_path) as ledger:
        for number in range(others):
            enqueue(ledger, f"vm {number}", "1")
        enqueue(ledger, "vm a", *many)
        while ledger.take_new():
            pass
    with opened(tmp_path) as ledger:
        made = []
        while keys := ledger.take_new():
            if "vm a" in keys:
                made += make(ledger, "vm a", MOST_OF_A_KEY + 1)
        assert made + drain(ledger, "vm a") == many


class Making:
    """As the delivery does: a key that was told to have calls is asked for them, until there are none."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.enqueued: Counter[str] = Counter()
        self.made: defaultdict[str, list[str]] = defaultdict(list)
        self.told: set[str] = set()
        self.ledger = Ledger(folder / "ledger.db", clock=lambda: 0.0)

    def enqueue(self, key: str, count: int) -> None:
        had = self.enqueued[key]
        enqueue(self.ledger, key, *map(str, range(had, had + count)))
        self.enqueued[key] += count

    def read(self, _: str, count: int) -> None:
        for _number in range(count):
            self.told |= self.ledger.take_new()

    def make(self, key: str, count: int) -> None:
        made = make(self.ledger, key, count if key in self.told else 0)
        self.made[key] += made
        if len(made) < count:
            self.told.discard(key)

    def restart(self, _: str, __: int) -> None:
        self.ledger.close()
        self.told.clear()
        self.ledger = Ledger(self.folder / "ledger.db", clock=lambda: 0.0)


STEPS = st.tuples(st.sampled_from(["enqueue", "read", "make", "restart"]), KEYS, st.integers(1, 80))


@settings(max_examples=25, deadline=None)
@given(steps=st.lists(STEPS, max_size=40))
def test_each_key_is_made_in_order_and_whole_whatever_is_read_when(steps: list[tuple[str, str, int]]) -> None:
    with TemporaryDirectory() as folder:
        making = Making(Path(folder))
        for what, key, count in steps:
            getattr(making, what)(key, count)
        making.read("", 100)
        for key in making.enqueued:
            making.make(key, 10_000)
        making.ledger.close()
    for key, count in making.enqueued.items():
        assert making.made[key] == [str(number) for number in range(count)]


def test_what_is_brought_back_is_not_much_either(ledger: Ledger) -> None:
    """A panel that comes back finds each of many VMs with much to tell: memory holds a part of it."""
    keys = [f"vm {number}" for number in range(FEW // 2)]
    with ledger.transaction() as transaction:
        for number in range(7):
            for key in keys:
                transaction.enqueue(key, "vm.event", {"value": str(number)})
    while ledger.take_new():
        pass
    for number in range(3):
        for key in keys:
            call = ledger.first(key)
            assert call is not None
            assert call.fields == {"value": str(number)}
            assert ledger._backlog.size <= FEW + MOST_OF_A_KEY
            with ledger.transaction() as transaction:
                transaction.done(call)


def test_a_start_is_as_short_with_much_that_was_passed_over(tmp_path: Path) -> None:
    """Each reading takes a moment, whatever is marked: the event loop waits for it."""
    with opened(tmp_path) as ledger:
        enqueue(ledger, "vm a", *map(str, range(10 * READ_AT_ONCE)))
        while ledger.take_new():
            pass
        enqueue(ledger, "vm b", "1")
    with opened(tmp_path) as ledger:
        assert "vm b" not in ledger.take_new()
        while "vm b" not in (keys := ledger.take_new()):
            assert keys == {"vm a"}


def test_what_cannot_be_marked_is_read_again_and_once_only(ledger: Ledger) -> None:
    many = [str(number) for number in range(2 * MOST_OF_A_KEY)]
    enqueue(ledger, "vm a", *many)
    with ledger._database.reading() as sql:
        sql.execute("PRAGMA query_only = 1")  # as a disk that fails
        with pytest.raises(StorageError):
            ledger.take_new()
        sql.execute("PRAGMA query_only = 0")
    assert ledger.take_new() == {"vm a"}
    assert drain(ledger, "vm a") == many


def test_what_one_message_asks_for_is_kept_as_it_was_if_the_batch_is_not(ledger: Ledger) -> None:
    running, stopped = Copy(state=CopyState.RUNNING), Copy(state=CopyState.STOPPED)
    with ledger.transaction() as transaction:
        transaction.keep_copies("u", "web", {1: running})

    def take() -> None:
        with ledger.transaction() as transaction:
            transaction.keep_copies("u", "web", {1: stopped})
            transaction.keep_copies("v", "db", {1: stopped})
            raise StorageError("a full disk")

    with pytest.raises(StorageError):
        take()
    with ledger.transaction() as transaction:
        assert transaction.vms_on(1) == {"u": ("web", CopyState.RUNNING)}


def has_room(ledger: Ledger, *, again: bool = False) -> bool:
    try:
        ledger.check_room(again=again)
    except StorageError:
        return False
    return True


def test_at_its_limit_there_is_no_room_until_some_calls_were_made(tmp_path: Path) -> None:
    with closing(Ledger(tmp_path / "ledger.db", clock=lambda: 0.0, limit=1 << 20)) as ledger:
        enqueued, made = 0, 0
        while has_room(ledger):
            enqueue(ledger, "vm a", "x" * 10_000)
            enqueued += 1
        assert 90 < enqueued < 105
        with pytest.raises(StorageError, match=r"ledger\.db: its limit is reached, 1048576 bytes"):
            ledger.check_room()
        while not has_room(ledger, again=True):
            call = first(ledger, "vm a")
            with ledger.transaction() as transaction:
                transaction.done(call)
            made += 1
        assert 5 < made < 10


def test_what_is_only_looked_at_is_kept_as_long_as_it_is_new(ledger: Ledger) -> None:
    message = Message(Envelope(node=1, run=RUN, seq=1, kind=2), b"{}")
    with ledger.transaction() as transaction:
        for number in range(1500):
            assert transaction.tell_anomaly(f"events_lost 1 {number}")
            transaction.keep_unread(message)
        assert not transaction.tell_anomaly("events_lost 1 1499")
        assert not transaction.tell_anomaly("events_lost 1 500")
        assert transaction.tell_anomaly("events_lost 1 499")
    with ledger._database.reading() as sql:
        assert sql.execute("SELECT count(*) FROM unread").fetchone() == (256,)


def schema(file: Path) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(file)) as sql:
        tables = [name for (name,) in sql.execute("SELECT name FROM sqlite_schema ORDER BY name")]
        return [(table, *sql.execute(f"PRAGMA table_xinfo('{table}')").fetchall()) for table in tables]


def test_a_file_of_the_first_version_goes_on(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as old:
        old.executescript(Path(__file__).with_name("ledger-1.sql").read_text())
    with opened(tmp_path) as ledger:
        assert ledger.nodes() == [3]
        assert ledger.take_new() == {"vm web", "statistics 3"}
        assert drain(ledger, "vm web") == ["1", "2"]
        assert drain(ledger, "statistics 3") == ["latest"]
        with ledger.transaction() as transaction:
            assert transaction.position(3) == Position(run=NEXT, seq=9, ended={RUN: 4})
            assert transaction.vms_on(3) == {"u": ("web", CopyState.PAUSED)}
            assert not transaction.tell_anomaly(f"events_lost 3 {NEXT}")
            assert not transaction.raise_problem("problem node_silent 3 None")
    with opened(tmp_path / "new"):
        assert schema(tmp_path / "ledger.db") == schema(tmp_path / "new/ledger.db")


def test_a_file_of_a_version_to_come_is_left_alone(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as newer:
        newer.execute("PRAGMA user_version = 99")
    with pytest.raises(StorageError, match=r"written by another version of vmwatch \(schema 99\)"):
        opened(tmp_path).__enter__()


WRITER = """
import sys
from pathlib import Path
from vmwatch.ledger import READ_AT_ONCE, Ledger
from vmwatch.protocol import Run
from vmwatch.sequence import Position
ledger = Ledger(Path(sys.argv[1]), clock=lambda: 0.0)
seq = 0
while True:
    seq += 1
    with ledger.transaction() as transaction:
        transaction.keep_position(1, Position(run=Run(sys.argv[2]), seq=seq))
        transaction.enqueue("vm a", "vm.event", {"value": str(seq)})
    print(seq, flush=True)
"""


def kill_while_it_writes(process: subprocess.Popen[bytes], said: Path) -> None:
    wait_for(lambda: said.stat().st_size > 20, seconds=20, what="writing")
    process.kill()
    process.wait()


def test_position_and_calls_are_kept_together_though_the_process_is_killed(tmp_path: Path) -> None:
    for life in range(6):
        run = Run(f"{life + 1:032x}")
        said = tmp_path / f"said-{life}"
        with said.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-c", WRITER, str(tmp_path / "ledger.db"), run], stdout=output
            )
        kill_while_it_writes(process, said)
        last = int(said.read_text().rstrip("\n").split("\n")[-1])
        with opened(tmp_path) as ledger:
            with ledger.transaction() as transaction:
                position = transaction.position(1)
            assert position is not None
            assert position.run == run
            assert position.seq - last in (0, 1)
            assert drain(ledger, "vm a") == [str(seq) for seq in range(1, position.seq + 1)]


# --- damage ---


def spoil(folder: Path, statement: str) -> None:
    with closing(sqlite3.connect(folder / "ledger.db", isolation_level=None)) as sql:
        assert sql.execute(statement).rowcount == 1


def aside(folder: Path) -> list[Path]:
    return sorted(folder.glob("ledger.db.damaged-*Z"))


def fill(folder: Path) -> None:
    with opened(folder) as ledger:
        enqueue(ledger, "vm a", "1")
        with ledger.transaction() as transaction:
            transaction.keep_position(3, Position(run=RUN, seq=4))
            transaction.keep_copies("u", "web", {3: Copy(state=CopyState.RUNNING)})


@pytest.mark.parametrize(
    "statement",
    ["UPDATE node SET ended = '{'", "UPDATE vm SET state = '?'", "UPDATE vm SET name = CAST(x'ff' AS TEXT)"],
)
def test_what_is_needed_at_the_start_and_cannot_be_read_sets_the_file_aside(
    tmp_path: Path, statement: str
) -> None:
    fill(tmp_path)
    spoil(tmp_path, statement)
    with opened(tmp_path) as ledger:
        assert ledger.nodes() == []
        assert ledger.take_new() == set()
        enqueue(ledger, "vm a", "2")
        assert drain(ledger, "vm a") == ["2"]
    assert len(aside(tmp_path)) == 1


def test_a_file_that_is_no_database_is_set_aside(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").write_bytes(b"not a database " * 1000)
    with opened(tmp_path) as ledger:
        assert ledger.nodes() == []
    assert len(aside(tmp_path)) == 1


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE call SET fields = '{' WHERE id = 1",
        "UPDATE call SET fields = '[1]' WHERE id = 1",
        "UPDATE call SET hostnode = 3, event_id = '3.1' WHERE id = 1",
    ],
)
def test_a_call_that_cannot_be_read_says_so_and_the_others_are_read(tmp_path: Path, statement: str) -> None:
    fill(tmp_path)
    with opened(tmp_path) as ledger:
        enqueue(ledger, "vm a", "2")
    spoil(tmp_path, statement)
    with opened(tmp_path) as ledger:
        assert ledger.take_new() == {"vm a"}
        first = ledger.first("vm a")
        assert first is not None
        assert first.unreadable
        assert first.fields.keys() == {"kept"}
        with ledger.transaction() as transaction:
            transaction.done(first)
        second = ledger.first("vm a")
        assert second is not None
        assert not second.unreadable
        assert ledger.nodes() == [3]
    assert aside(tmp_path) == []


def test_a_call_that_sqlite_cannot_read_sets_the_file_aside_when_it_is_closed(tmp_path: Path) -> None:
    fill(tmp_path)
    spoil(tmp_path, "UPDATE call SET fields = CAST(x'ff' AS TEXT)")
    with opened(tmp_path) as ledger:
        with pytest.raises(Damaged, match=r"ledger\.db: Could not decode"):
            ledger.take_new()
        assert aside(tmp_path) == []
    assert len(aside(tmp_path)) == 1
    with opened(tmp_path) as ledger:
        assert ledger.nodes() == []
