# SPDX-License-Identifier: Apache-2.0
"""A database of the first version: what it held is there, and it is the same database as a new one."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from vmwatch.panel import register, shown, shown_problems, shown_vms
from vmwatch.panel.access import Access
from vmwatch.panel.convention import Paging
from vmwatch.panel.fields import EventId, VmEvent
from vmwatch.panel.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator

ALL = Paging(number=1, size=1000)


@pytest.fixture
def upgraded(tmp_path: Path) -> Iterator[Store]:
    with closing(sqlite3.connect(tmp_path / "panel.db")) as old:
        old.executescript(Path(__file__).with_name("panel-1.sql").read_text())
    store = Store(tmp_path / "panel.db")
    yield store
    store.close()


def structure(store: Store) -> list[tuple[object, ...]]:
    """Tables with their columns, keys and references; indexes and views as they were written."""
    sql = store.connection
    entries = sql.execute(
        "SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY type, name"
    ).fetchall()
    tables = [entry["name"] for entry in entries if entry["type"] == "table"]
    columns = [
        (table, *map(tuple, sql.execute(f"PRAGMA {pragma}('{table}')")))
        for table in tables
        for pragma in ("table_xinfo", "foreign_key_list")
    ]
    return [*columns, *(tuple(entry) for entry in entries if entry["type"] in ("index", "view"))]


def test_an_upgraded_database_is_like_a_new_one(upgraded: Store, tmp_path: Path) -> None:
    new = Store(tmp_path / "new.db")
    assert structure(upgraded) == structure(new)
    new.close()


def test_what_it_held_is_there(upgraded: Store) -> None:
    sql = upgraded.connection
    found = [(vm.name, vm.status, vm.last_status) for vm in shown_vms.vms(sql, shown_vms.Filter(), ALL)]
    assert found == [("db", "unknown", "stopped"), ("web", "running", "running")]
    assert [entry.event_id for entry in shown.history(sql, 1, ALL)] == [
        "1.r1.5",
        "2.r1.1",
        "1.r1.4",
        "1.r1.1",
    ]
    assert Access(upgraded).has_account("admin")
    assert sql.execute("SELECT count(*) FROM statistics").fetchone()[0] == 1
    assert sql.execute("PRAGMA foreign_key_check").fetchall() == []


def test_its_problems_have_a_level_and_a_count(upgraded: Store) -> None:
    found = shown_problems.problems(upgraded.connection, shown_problems.ProblemFilter(covered=True), ALL)
    assert [(one.problem, one.hostnode, one.level, one.count, one.last, one.solved) for one in found] == [
        ("vm_unknown", None, "error", 1, 1764000011000, None),
        ("node_silent", 1, "error", 1, 1764000010000, None),
        ("events_lost", 1, "warning", 1, 1764000009000, None),
        ("node_silent", 2, "error", 1, 1764000007000, 1764000008000),
    ]


def test_an_event_from_before_is_still_known(upgraded: Store) -> None:
    told = VmEvent(
        hostnode=1,
        name="web",
        type="stopped",
        subtype="migrated",
        uuid=None,
        status=None,
        cause=None,
        source="event",
        earliest=None,
        time=None,
        event_id=EventId(node=1, run="r1", seq=5),
    )
    assert not register.record_event(upgraded, told, clock=lambda: 1, create=False)


def test_it_is_upgraded_once(upgraded: Store, tmp_path: Path) -> None:
    upgraded.close()
    again = Store(tmp_path / "panel.db")
    assert again.connection.execute("SELECT count(*) FROM problem").fetchone()[0] == 4
    again.close()
