# SPDX-License-Identifier: Apache-2.0
"""What is forgotten, and what never is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from vmwatch.panel import policy, pruning
from vmwatch.panel.pruning import ROWS, prune
from vmwatch.panel.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

DAY = 86_400_000
NOW = 20_000 * DAY


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "panel.db")
    with store.transaction() as sql:
        sql.execute("INSERT INTO hostnode (id, name) VALUES (1, 'one')")
        sql.executemany(
            "INSERT INTO vm (id, name, hostnode, status) VALUES (?, ?, 1, 'running')",
            [(1, "web"), (2, "db")],
        )
    yield store
    store.close()


def remember(store: Store, vm: int, days_ago: Sequence[float]) -> None:
    """The VM's events, in the order in which they were registered; the last one is its last."""
    with store.transaction() as sql:
        for days in days_ago:
            time = NOW - round(days * DAY)
            sql.execute(
                "INSERT INTO history (vm, reporter, type, subtype, source, time, registered, status)"
                " VALUES (?, 1, 'started', 'booted', 'event', ?, ?, 'running')",
                (vm, time, time),
            )
            sql.execute("UPDATE vm SET last = last_insert_rowid() WHERE id = ?", (vm,))


def ages(store: Store, table: str, column: str) -> list[float]:
    """How many days old what is left is, the oldest first."""
    rows = store.connection.execute(f"SELECT {column} FROM {table} ORDER BY {column}")
    return [(NOW - time) / DAY for (time,) in rows]


def run(store: Store) -> int:
    """One round; the number of its steps. None of them may take more than ROWS rows."""
    steps, before = 0, store.connection.total_changes
    for _ in prune(store, NOW):
        assert store.connection.total_changes - before <= ROWS
        steps, before = steps + 1, store.connection.total_changes
    return steps


def test_history_goes_after_its_days_but_a_vms_last_event_never(store: Store) -> None:
    remember(store, 2, [300, 200])
    remember(store, 1, [150, 91, 89, 0])
    run(store)
    assert ages(store, "history", "registered") == [200, 89, 0]
    policy.set_history_days(store, 1)
    run(store)
    assert ages(store, "history", "registered") == [200, 0]
    assert store.connection.execute("PRAGMA foreign_key_check").fetchall() == []


def test_much_goes_in_small_steps(store: Store) -> None:
    remember(store, 1, [100] * (3 * ROWS) + [99] * ROWS + [1])
    assert run(store) >= 4
    assert ages(store, "history", "registered") == [1]


def test_open_pages_do_not_look_at_each_step(store: Store) -> None:
    remember(store, 1, [100] * (3 * ROWS) + [1])
    before = store.changes
    run(store)
    assert store.changes == before


def test_last_events_of_many_vms_do_not_hide_what_is_old_behind_them(store: Store) -> None:
    with store.transaction() as sql:
        for vm in range(10, 10 + 2 * ROWS):
            sql.execute("INSERT INTO vm (id, name, status) VALUES (?, ?, 'stopped')", (vm, f"vm-{vm}"))
    for vm in range(10, 10 + 2 * ROWS):
        remember(store, vm, [300])
    remember(store, 1, [200, 1])
    run(store)
    assert len(ages(store, "history", "registered")) == 2 * ROWS + 1
    assert 200 not in ages(store, "history", "registered")


def test_solved_problems_go_and_open_ones_stay(store: Store) -> None:
    with store.transaction() as sql:
        sql.executemany(
            "INSERT INTO problem (problem, hostnode, name, text, raised, last, solved)"
            " VALUES ('p', ?, '', '', ?, 0, ?)",
            [
                (1, NOW - 300 * DAY, NOW - 91 * DAY),
                (2, NOW - 300 * DAY, NOW - 89 * DAY),
                (3, NOW - 300 * DAY, None),
                *((4, 0, 0) for _ in range(2 * ROWS)),
            ],
        )
    run(store)
    assert [row[0] for row in store.connection.execute("SELECT hostnode FROM problem ORDER BY id")] == [2, 3]


def test_samples_go_after_eight_days(store: Store) -> None:
    with store.transaction() as sql:
        sql.executemany(
            "INSERT INTO sample VALUES (?, ?, 600, 0, 0, 0, 0, 0, 0)",
            [(vm, NOW - days * DAY - step) for vm in (1, 2) for days in (9, 7) for step in range(ROWS + 1)],
        )
        sql.executemany(
            "INSERT INTO statistics VALUES (1, ?, ?, '{}')", [("old", NOW - 9 * DAY), ("new", NOW - DAY)]
        )
    run(store)
    assert set(map(round, ages(store, "sample", "time"))) == {7}
    assert len(ages(store, "sample", "time")) == 2 * (ROWS + 1)
    assert ages(store, "statistics", "time") == [1]


def test_a_round_with_nothing_to_do_is_short(store: Store) -> None:
    remember(store, 1, [1] * 5 * ROWS)
    assert run(store) <= 3
    assert len(ages(store, "history", "registered")) == 5 * ROWS


def test_a_steps_search_reads_no_table_from_end_to_end(store: Store) -> None:
    """Else a round would stop the panel for as long as a million rows take to read."""
    for statement in (pruning._PROBLEMS, pruning._SAMPLES):
        plan = store.connection.execute(f"EXPLAIN QUERY PLAN {statement}", (1, 1)).fetchall()
        assert not [row["detail"] for row in plan if row["detail"] in ("SCAN problem", "SCAN sample")]
