# SPDX-License-Identifier: Apache-2.0
"""What an operator has the master forget, on a real ledger."""

from __future__ import annotations

import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from vmwatch import orders, problems
from vmwatch.cluster import Copy
from vmwatch.events import CopyState
from vmwatch.ledger import Ledger
from vmwatch.orders import Order, What
from vmwatch.presence import Presence
from vmwatch.protocol import new_run
from vmwatch.sequence import Position

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NOW = datetime.now(UTC)
RUN = new_run(int(NOW.timestamp() * 1e6) - 1, 7)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with closing(Ledger(tmp_path / "ledger.db", clock=time.monotonic)) as opened:
        yield opened


@pytest.fixture
def presence() -> Presence:
    return Presence()


def told(ledger: Ledger) -> dict[str, list[str]]:
    """What waits for the panel: by VM, or problem, its type or state."""
    found: dict[str, list[str]] = {}
    while keys := ledger.take_new():
        for key in sorted(keys):
            while call := ledger.first(key):
                what = " ".join(call.fields.get(name, "") for name in ("type", "status", "state")).split()
                found.setdefault(key, []).append(" ".join(what))
                with ledger.transaction() as transaction:
                    transaction.done(call)
    return found


def hear(ledger: Ledger, node: int, **states: CopyState) -> None:
    """A node was heard of, and has these VMs."""
    with ledger.transaction() as transaction:
        transaction.keep_position(node, Position(run=RUN, seq=5))
        for name, state in states.items():
            copies = {**transaction.copies(f"uuid-{name}"), node: Copy(state=state)}
            transaction.keep_copies(f"uuid-{name}", name, copies)


def silence(ledger: Ledger, node: int) -> None:
    with ledger.transaction() as transaction:
        problems.begin(transaction, "node_silent", node, text="no heartbeat")


def park(ledger: Ledger, name: str) -> None:
    with ledger.transaction() as transaction:
        transaction.enqueue(f"vm {name}", "vm.event", {"name": name})
    ledger.take_new()
    call = ledger.first(f"vm {name}")
    assert call is not None
    with ledger.transaction() as transaction:
        transaction.park(call, "missed: no")
        problems.begin(transaction, "vm_unknown", None, name=name, text="not shown")


def order(folder: Path, ledger: Ledger, presence: Presence, what: What, number: int) -> None:
    file = orders.give(folder, Order(what=what, number=number))
    assert orders.carry_out(folder, ledger, presence, now=NOW)
    assert not file.exists()
    assert not orders.carry_out(folder, ledger, presence, now=NOW)


def test_calls_put_aside_are_forgotten_with_their_problems(
    tmp_path: Path, ledger: Ledger, presence: Presence
) -> None:
    for name in ("a", "a", "b", "c"):
        park(ledger, name)
    order(tmp_path, ledger, presence, What.ASIDE, 3)
    assert problems.raised_of_vms(ledger, "vm_unknown", None) == {"c"}
    assert told(ledger) == {
        "problem vm_unknown None a": ["raised", "solved"],
        "problem vm_unknown None b": ["raised", "solved"],
        "problem vm_unknown None c": ["raised"],
    }
    with ledger._database.reading() as sql:
        assert sql.execute("SELECT key FROM parked").fetchall() == [("vm c",)]


def test_a_node_that_is_gone_is_forgotten_with_what_it_ran(
    tmp_path: Path, ledger: Ledger, presence: Presence
) -> None:
    hear(ledger, 3, lost=CopyState.RUNNING, off=CopyState.STOPPED, moved=CopyState.RUNNING)
    hear(ledger, 4, moved=CopyState.RUNNING)
    presence.heard(3, interval=1.0, now=0.0)
    silence(ledger, 3)
    told(ledger)
    order(tmp_path, ledger, presence, What.NODE, 3)
    assert told(ledger) == {"vm lost": ["stopped stopped"], "problem node_silent 3 None": ["solved"]}
    assert presence.silent(now=100.0) == {}
    ledger.close()
    with closing(Ledger(tmp_path / "ledger.db", clock=time.monotonic)) as again:
        assert again.nodes() == [4]
        with again.transaction() as transaction:
            assert transaction.vms_on(3) == {}
            assert list(transaction.vms_on(4)) == ["uuid-moved"]


def test_a_forgotten_node_may_come_again(tmp_path: Path, ledger: Ledger, presence: Presence) -> None:
    hear(ledger, 3)
    silence(ledger, 3)
    order(tmp_path, ledger, presence, What.NODE, 3)
    with ledger.transaction() as transaction:
        assert transaction.position(3) is None
    hear(ledger, 3)
    assert ledger.nodes() == [3]


def test_a_node_that_speaks_is_not_forgotten(
    tmp_path: Path, ledger: Ledger, presence: Presence, caplog: pytest.LogCaptureFixture
) -> None:
    hear(ledger, 3, web=CopyState.RUNNING)
    silence(ledger, 31)
    told(ledger)
    order(tmp_path, ledger, presence, What.NODE, 3)
    assert "a node that is not silent is not forgotten" in caplog.text
    assert (ledger.nodes(), told(ledger)) == ([3], {})


def test_many_orders_at_once_are_carried_out_some_at_a_time(
    tmp_path: Path, ledger: Ledger, presence: Presence
) -> None:
    nodes = range(1, 101)
    for node in nodes:
        hear(ledger, node, **{f"vm{node}": CopyState.RUNNING, "everywhere": CopyState.RUNNING})
        silence(ledger, node)
        orders.give(tmp_path, Order(what=What.NODE, number=node))
    for number in range(1, 101):
        park(ledger, f"refused{number}")
        orders.give(tmp_path, Order(what=What.ASIDE, number=number))
    told(ledger)
    looks = 0
    while orders.carry_out(tmp_path, ledger, presence, now=NOW):
        looks += 1
    assert looks > 1, "all of them hold up everything else"
    assert not list(tmp_path.glob("order-*"))
    assert ledger.nodes() == []
    assert {key: states[-1] for key, states in told(ledger).items()} == {
        "vm everywhere": "stopped stopped",
        **{f"vm vm{node}": "stopped stopped" for node in nodes},
        **{f"problem node_silent {node} None": "solved" for node in nodes},
        **{f"problem vm_unknown None refused{number}": "solved" for number in range(1, 101)},
    }


def test_what_is_told_of_a_forgotten_node_is_newer_though_the_clock_was_set_back(
    tmp_path: Path, ledger: Ledger, presence: Presence
) -> None:
    hear(ledger, 3, web=CopyState.RUNNING)
    silence(ledger, 3)
    orders.give(tmp_path, Order(what=What.NODE, number=3))
    assert orders.carry_out(tmp_path, ledger, presence, now=NOW - timedelta(days=1))
    ledger.take_new()
    call = ledger.first("vm web")
    assert call is not None
    _, run, _ = call.fields["event_id"].split(".")
    assert run > RUN


def test_other_files_are_left(tmp_path: Path, ledger: Ledger, presence: Presence) -> None:
    files = [tmp_path / name for name in ("order-forget-node-0", "order-forget-node-3.bak", "order-3")]
    for file in files:
        file.touch()
    files.append(tmp_path / "order-forget-node-4")
    files[-1].mkdir()
    assert not orders.carry_out(tmp_path, ledger, presence, now=NOW)
    assert all(file.exists() for file in files)
