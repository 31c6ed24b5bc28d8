# SPDX-License-Identifier: Apache-2.0
"""The list of the VMs: every filter, every order, by the page."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from vmwatch.panel import shown_vms
from vmwatch.panel.convention import Paging
from vmwatch.panel.shown_vms import Column, Filter, Order, Vm, Warned
from vmwatch.panel.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

ALL = Paging(number=1, size=1000)
MANY = 60


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    folder: Path = tmp_path_factory.mktemp("vms")
    store = Store(folder / "panel.db")
    with store.transaction() as connection:
        connection.execute("INSERT INTO hostnode (id, name) VALUES (1, 'one'), (2, 'two')")
        for number in range(MANY):
            name, node = f"Vm-{number * 37 % MANY:02}", (1, 2, None)[number % 3]
            status = ("running", "stopped", "crashed")[number % 3]
            vm = connection.execute(
                "INSERT INTO vm (name, hostnode, status, since) VALUES (?, ?, ?, ?)",
                (name, node, status, number % 4 or None),
            ).lastrowid
            if number % 5:
                kind = ("started", "stopped")[number % 2]
                last = connection.execute(
                    "INSERT INTO history (vm, reporter, type, subtype, source, time, registered, status)"
                    " VALUES (?, 1, ?, 'booted', 'event', ?, 1, ?)",
                    (vm, kind, number % 7, status),
                ).lastrowid
                connection.execute("UPDATE vm SET last = ? WHERE id = ?", (last, vm))
        connection.execute(
            "INSERT INTO idle VALUES (1, 0, 5, 600, 1), (2, NULL, 0, 600, 1), (3, 0, 0, 600, 1)"
        )
        connection.execute(
            "INSERT INTO problem (problem, hostnode, name, text, raised, last)"
            " VALUES ('node_silent', 2, '', '', 1, 1)"
        )
    yield store
    store.close()


def listed(store: Store, wanted: Filter, order: Order | None = None) -> list[Vm]:
    found = shown_vms.vms(store.connection, wanted, ALL, order)
    assert shown_vms.count_vms(store.connection, wanted) == len(found)
    return found


@pytest.mark.parametrize(
    ("wanted", "fits"),
    [
        (Filter(name="vm-1"), lambda vm: "m-1" in vm.name),
        (Filter(status="running"), lambda vm: vm.status == "running"),
        (Filter(status="unknown"), lambda vm: vm.hostnode == 2),
        (Filter(hostnode=1), lambda vm: vm.hostnode == 1),
        (Filter(warning=Warned.ANY), lambda vm: vm.id in (1, 2, 3)),
        (Filter(warning=Warned.NETWORK), lambda vm: vm.id in (1, 3)),
        (Filter(warning=Warned.DISK), lambda vm: vm.id in (2, 3)),
        (Filter(name="2", status="crashed"), lambda vm: vm.status == "crashed" and "2" in vm.name),
    ],
)
def test_a_filter(store: Store, wanted: Filter, fits: Callable[[Vm], bool]) -> None:
    found = listed(store, wanted)
    assert found == [vm for vm in listed(store, Filter()) if fits(vm)]
    assert 0 < len(found) < MANY


def test_counts_are_those_of_the_rest_of_the_filter(store: Store) -> None:
    found = shown_vms.count_by_status(store.connection, Filter(hostnode=1, status="crashed"))
    assert found == {"running": MANY / 3}


def test_the_warning_in_words(store: Store) -> None:
    words = {vm.id: vm.warning for vm in listed(store, Filter(warning=Warned.ANY))}
    assert words == {1: "network", 2: "disk", 3: "network,disk"}
    assert {vm.warning for vm in listed(store, Filter()) if vm.id > 3} == {""}


def key(vm: Vm, column: Column) -> tuple[object, ...]:
    return {
        Column.NAME: (vm.name,),
        Column.STATUS: (vm.status,),
        Column.NODE: (vm.node,),
        Column.SINCE: (vm.since,),
        Column.EVENT: (vm.type, vm.subtype),
        Column.TIME: (vm.time,),
    }[column]


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("column", Column)
def test_an_order_is_complete_and_stable(store: Store, column: Column, *, descending: bool) -> None:
    found = listed(store, Filter(), Order(column=column, descending=descending))
    assert len(found) == MANY
    for before, after in pairwise(found):
        one, other = key(before, column), key(after, column)
        if one == other:
            assert before.name < after.name
        elif None in one or None in other:
            assert None in other  # what has no such value comes last, whichever way round
        else:
            assert (one > other) == descending


def test_pages_are_pieces_of_the_whole(store: Store) -> None:
    order = Order(column=Column.STATUS, descending=True)
    pieces = [
        shown_vms.vms(store.connection, Filter(), Paging(number=number, size=7), order)
        for number in range(1, 11)
    ]
    assert [vm for piece in pieces for vm in piece] == listed(store, Filter(), order)
