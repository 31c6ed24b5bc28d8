# SPDX-License-Identifier: Apache-2.0
"""Problems: one for a cause, counted when told again, solved by itself or by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from vmwatch.panel import problems, register_nodes, shown_problems
from vmwatch.panel.convention import Paging
from vmwatch.panel.shown_problems import Count, Problem, ProblemFilter
from vmwatch.panel.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ALL = Paging(number=1, size=1000)


class Book:
    """A store, and short ways to speak of its problems."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.now = 1000

    def begin(self, problem: str, hostnode: int | None = None, name: str = "", text: str = "") -> bool:
        self.now += 1
        with self.store.transaction() as connection:
            return problems.begin(connection, problem, hostnode=hostnode, name=name, text=text, now=self.now)

    def end(self, problem: str, hostnode: int | None = None, name: str = "") -> bool:
        self.now += 1
        with self.store.transaction() as connection:
            return problems.end(connection, problem, hostnode=hostnode, name=name, now=self.now)

    def solve(self, *ids: int) -> list[int]:
        with self.store.transaction() as connection:
            return problems.solve(connection, ids, solver="admin", now=self.now)

    def listed(self, **wanted: str | int) -> list[str]:
        """The names of the problems of a filter, the newest first."""
        return [found.problem for found in self.problems(ProblemFilter(**wanted))]  # type: ignore[arg-type]

    def problems(self, wanted: ProblemFilter) -> list[Problem]:
        found = shown_problems.problems(self.store.connection, wanted, ALL)
        assert shown_problems.count_problems(self.store.connection, wanted) == len(found)
        return found

    @property
    def count(self) -> Count:
        return shown_problems.count_by_level(self.store.connection)


@pytest.fixture
def book(tmp_path: Path) -> Iterator[Book]:
    store = Store(tmp_path / "panel.db")
    with store.transaction() as connection:
        for node in (1, 2):
            connection.execute("INSERT INTO hostnode (id, name) VALUES (?, ?)", (node, f"node-{node}"))
            connection.execute(
                "INSERT INTO vm (name, hostnode, status) VALUES (?, ?, 'running')", (f"vm-{node}", node)
            )
    yield Book(store)
    store.close()


def test_what_is_told_again_is_counted(book: Book) -> None:
    assert book.begin("call_refused", 1, "web", "first")
    assert not book.begin("call_refused", 1, "web", "again")
    (found,) = book.problems(ProblemFilter())
    assert (found.text, found.count, found.raised, found.last) == ("again", 2, 1001, 1002)
    assert (found.solved, found.solver, found.level) == (None, None, "error")


def test_each_node_and_vm_has_its_own(book: Book) -> None:
    for hostnode, name in ((1, ""), (2, ""), (1, "web"), (None, "web"), (None, "")):
        assert book.begin("events_lost", hostnode, name)
    assert book.end("events_lost", 1, "web")
    assert len(book.listed(state="raised")) == 4


def test_no_node_and_node_0_are_the_same(book: Book) -> None:
    assert book.begin("service_stopped", None)
    assert not book.begin("service_stopped", 0)
    assert book.problems(ProblemFilter())[0].hostnode is None
    assert book.end("service_stopped", 0)


def test_it_ends_by_itself_once(book: Book) -> None:
    assert not book.end("node_silent", 1)
    book.begin("node_silent", 1)
    assert book.end("node_silent", 1)
    assert not book.end("node_silent", 1)
    (found,) = book.problems(ProblemFilter())
    assert (found.solved, found.solver) == (1003, None)


def test_a_person_solves_it_and_what_is_told_then_is_raised_anew(book: Book) -> None:
    book.begin("events_lost", 1)
    book.begin("duplicate", name="web")
    assert book.solve(1, 2, 99) == [99]
    assert [found.solver for found in book.problems(ProblemFilter(state="solved"))] == ["admin", "admin"]
    assert book.begin("events_lost", 1)
    assert book.listed(state="raised") == ["events_lost"]
    assert len(book.listed()) == 3


def test_what_ended_by_itself_stays_so(book: Book) -> None:
    book.begin("node_silent", 1)
    book.end("node_silent", 1)
    assert book.solve(1) == []
    assert book.problems(ProblemFilter())[0].solver is None


def test_levels_and_filters(book: Book) -> None:
    book.begin("events_lost", 1)
    book.begin("vm_unknown", name="Web-7")
    book.begin("something_new", 2)
    book.end("something_new", 2)
    assert book.listed(level="warning") == ["events_lost"]
    assert book.listed(level="error") == ["something_new", "vm_unknown"]
    assert book.listed(state="solved") == ["something_new"]
    assert book.listed(hostnode=1) == ["events_lost"]
    assert book.listed(name="eb-") == ["vm_unknown"]
    assert book.count == Count(error=1, warning=1, covered=0)


@pytest.mark.parametrize("cause", ["node_silent", "libvirt_lost", "service_stopped"])
def test_one_cause_is_one_problem_however_many_vms_the_node_has(book: Book, cause: str) -> None:
    for number in range(200):
        book.begin("vm_not_responding", 1, f"web-{number}")
    book.begin("installation_waiting", name="vm-1")  # told of no node: it is on node 1
    book.begin("vm_not_responding", 2, "vm-2")
    assert len(book.listed(state="raised")) == 202
    book.begin(cause, 1)
    assert book.listed(state="raised") == [cause, "vm_not_responding"]
    assert book.count == Count(error=2, warning=0, covered=201)
    assert shown_problems.count_open(book.store.connection) == 2
    covered = book.problems(ProblemFilter(covered=True, name="web-0"))
    assert [found.covered_by for found in covered] == [203]
    book.end(cause, 1)  # what is left is seen again
    assert len(book.listed(state="raised")) == 202


def test_of_an_ailing_node_the_problem_is_shown_that_tells_most(book: Book) -> None:
    told = ["node_unreachable", "node_silent", "service_stopped", "libvirt_lost"]
    for number, problem in enumerate(told, start=1):
        book.begin(problem, 1)
        assert book.listed(state="raised") == [problem]
        assert book.count == Count(error=1, warning=0, covered=number - 1)
    for problem in reversed(told):
        assert book.listed(state="raised") == [problem]
        book.end(problem, 1)


def test_a_node_that_only_ssh_does_not_reach_still_tells_of_its_vms(book: Book) -> None:
    book.begin("vm_not_responding", 1, "vm-1")
    book.begin("node_unreachable", 1)
    assert book.listed(state="raised") == ["node_unreachable", "vm_not_responding"]


def test_what_is_another_cause_is_not_covered(book: Book) -> None:
    book.begin("two_nodes_one_id", 1)
    book.begin("duplicate", name="vm-1")
    book.begin("service_stopped")  # the master
    book.begin("node_silent", 1)
    assert book.listed(state="raised") == ["node_silent", "service_stopped", "duplicate", "two_nodes_one_id"]


def test_solved_problems_are_covered_by_nothing(book: Book) -> None:
    book.begin("vm_not_responding", 1, "vm-1")
    book.end("vm_not_responding", 1, "vm-1")
    book.begin("node_silent", 1)
    assert book.listed() == ["node_silent", "vm_not_responding"]


def test_a_node_is_named_in_its_problem(book: Book) -> None:
    register_nodes.write_node(book.store, 1, name="kvm1")
    book.begin("node_silent", 1)
    assert book.problems(ProblemFilter())[0].node == "kvm1"
