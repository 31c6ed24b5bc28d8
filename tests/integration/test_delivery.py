# SPDX-License-Identifier: Apache-2.0
"""Calls that wait in a real ledger are made, over HTTP, to a panel that answers what the test wants."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections import Counter
from contextlib import asynccontextmanager, closing, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

import pytest

from tests.integration.polling import DEADLINE, until
from vmwatch.delivery import STOP_SECONDS, WORKERS, Delivery
from vmwatch.ledger import Ledger
from vmwatch.vmmanager import Access, Panel, Timeouts
from vmwatch.workers import PATIENCE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    Form = dict[str, str]

OK = b'{"doc":{"ok":{}}}'
DOWN = b"<html>502 Bad Gateway</html>"
MISSED_SECONDS = 0.5


def error(kind: str, subject: str = "") -> bytes:
    return json.dumps({"doc": {"error": {"$type": kind, "$object": subject, "msg": {"$": "No"}}}}).encode()


class PanelServer(ThreadingHTTPServer):
    """Answers each form with what `answer` makes of it; `forms` are those it said ok to, `asked` all."""

    daemon_threads = False  # closing waits for its threads

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Request)
        self.answer: Callable[[Form], bytes] = lambda _: OK
        self.asked: list[Form] = []
        self.forms: list[Form] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/vmmgr"

    def hang_on_the_sick(self) -> threading.Event:
        """VMs whose name begins so are answered only when the event is set, or after a while."""
        release = threading.Event()

        def answer(form: Form) -> bytes:
            if form["name"].startswith("sick"):
                release.wait(DEADLINE)
            return OK

        self.answer = answer
        return release

    def taken(self, name: str) -> list[int]:
        return [int(form["n"]) for form in self.forms if form["name"] == name and "n" in form]

    def tries(self) -> Counter[str]:
        return Counter(form["name"] for form in self.asked)

    def problems(self) -> list[str]:
        return [f"{f['problem']} {f.get('name', '-')} {f['state']}" for f in self.forms if "problem" in f]


class _Request(BaseHTTPRequestHandler):
    server: PanelServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        form = dict(parse_qsl(body, keep_blank_values=True))
        self.server.asked.append(form)
        answer = self.server.answer(form)
        if answer is OK:
            self.server.forms.append(form)
        self.send_response(502 if answer is DOWN else 200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        with suppress(ConnectionError):
            self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def panel() -> Iterator[PanelServer]:
    server = PanelServer()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with closing(Ledger(tmp_path / "ledger.db", clock=time.monotonic)) as ledger:
        yield ledger


@asynccontextmanager
async def delivering(
    ledger: Ledger,
    panel: PanelServer,
    *,
    missed_seconds: float = MISSED_SECONDS,
    timeouts: Timeouts | None = None,
) -> AsyncIterator[Delivery]:
    access = Access(url=panel.url, user="admin", password="secret")
    delivery = Delivery(
        ledger,
        open_panel=lambda: Panel(access, timeouts=timeouts),
        clock=time.monotonic,
        missed_seconds=missed_seconds,
    )
    running = asyncio.create_task(delivery.run())
    try:
        yield delivery
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running


def enqueue(ledger: Ledger, name: str, *numbers: int) -> None:
    with ledger.transaction() as transaction:
        for number in numbers:
            fields = {"hostnode": "1", "name": name, "type": "started", "subtype": "booted", "n": str(number)}
            transaction.enqueue(f"vm {name}", "vm.event", fields)


def waiting(ledger: Ledger) -> int:
    with ledger._database.reading() as sql:
        (count,) = sql.execute("SELECT count(*) FROM call").fetchone()
    return int(count)


def parked(ledger: Ledger) -> list[str]:
    with ledger._database.reading() as sql:
        rows = sql.execute("SELECT key, fields, reason FROM parked ORDER BY id")
        return [f"{key} {json.loads(fields)['n']}: {reason}" for key, fields, reason in rows]


async def test_calls_are_made_in_order_for_each_vm(ledger: Ledger, panel: PanelServer) -> None:
    names = [f"vm{number}" for number in range(10)]
    for number in range(0, 20, 2):
        for name in names:
            enqueue(ledger, name, number, number + 1)
    async with delivering(ledger, panel):
        await until(lambda: not waiting(ledger))
    assert {name: panel.taken(name) for name in names} == {name: list(range(20)) for name in names}
    assert len(panel.asked) == 200


async def test_what_comes_while_it_runs_is_made_at_once(ledger: Ledger, panel: PanelServer) -> None:
    async with delivering(ledger, panel) as delivery:
        for number in range(50):
            enqueue(ledger, "web", number)
            delivery.wake()
            await until(lambda number=number: panel.taken("web") == list(range(number + 1)))  # type: ignore[misc]
        await until(lambda: not waiting(ledger))
    assert len(panel.asked) == 50


async def test_several_vms_side_by_side_and_never_one_vm_twice(ledger: Ledger, panel: PanelServer) -> None:
    lock = threading.Lock()
    now: Counter[str] = Counter()
    most = {"vms": 0, "calls of one": 0}

    def answer(form: Form) -> bytes:
        with lock:
            now[form["name"]] += 1
            most["vms"] = max(most["vms"], sum(now.values()))
            most["calls of one"] = max(most["calls of one"], *now.values())
        time.sleep(0.02)  # so long does the panel work on it
        with lock:
            now[form["name"]] -= 1
        return OK

    panel.answer = answer
    for name in "abcdefgh":
        enqueue(ledger, name, *range(5))
    async with delivering(ledger, panel):
        await until(lambda: not waiting(ledger))
    assert most == {"vms": WORKERS, "calls of one": 1}


async def test_a_vm_with_much_to_tell_does_not_hold_up_others(ledger: Ledger, panel: PanelServer) -> None:
    for name in ("busy1", "busy2", "busy3", "busy4"):
        enqueue(ledger, name, *range(100))
    enqueue(ledger, "quiet", 1)
    async with delivering(ledger, panel):
        await until(lambda: panel.taken("quiet"))
        assert len(panel.asked) < 50


async def test_a_long_backlog_is_read_no_faster_than_it_is_made(ledger: Ledger, panel: PanelServer) -> None:
    names = [f"vm{number}" for number in range(200)]
    for number in range(20):
        for name in names:
            enqueue(ledger, name, number)
    async with delivering(ledger, panel):
        await until(lambda: len(panel.asked) > 1000)
        assert ledger._backlog.size < 1000
        await until(lambda: not waiting(ledger))
        assert not ledger._backlog.passed
    assert {name: panel.taken(name) for name in names} == {name: list(range(20)) for name in names}


async def test_what_waits_for_the_sick_is_read_past(ledger: Ledger, panel: PanelServer) -> None:
    well: set[str] = {"quiet"}
    panel.answer = lambda form: OK if form["name"] in well or "problem" in form else DOWN
    enqueue(ledger, "sick1", *range(1000))
    enqueue(ledger, "sick2", *range(1000))
    enqueue(ledger, "quiet", 1)
    async with delivering(ledger, panel):
        await until(lambda: panel.taken("quiet"))
        well |= {"sick1", "sick2"}
        await until(lambda: not waiting(ledger))
    assert panel.taken("sick1") == panel.taken("sick2") == list(range(1000))


# --- unavailable ---


async def test_while_the_panel_is_away_calls_wait_and_keep_their_order(
    ledger: Ledger, panel: PanelServer, caplog: pytest.LogCaptureFixture
) -> None:
    panel.answer = lambda _: DOWN
    names = [f"vm{number}" for number in range(20)]
    for name in names:
        enqueue(ledger, name, 0, 1, 2)
    async with delivering(ledger, panel) as delivery:
        await until(lambda: len(panel.asked) > WORKERS)
        asked, began = len(panel.asked), time.monotonic()
        await until(lambda: len(panel.asked) > asked + 5)
        assert time.monotonic() - began > 0.3, (
            "a panel that is away is asked by one call at a time, with pauses"
        )
        for name in names:
            enqueue(ledger, name, 3)
        delivery.wake()
        panel.answer = lambda _: OK
        await until(lambda: not waiting(ledger))
    assert {name: panel.taken(name) for name in names} == {name: [0, 1, 2, 3] for name in names}
    assert panel.problems() == []
    assert caplog.text.count("the panel is unavailable") == 1


async def test_one_vm_that_always_fails_does_not_hold_up_others(ledger: Ledger, panel: PanelServer) -> None:
    panel.answer = lambda form: DOWN if form["name"] == "sick" else OK
    enqueue(ledger, "sick", 0)
    async with delivering(ledger, panel) as delivery:
        await until(lambda: panel.tries()["sick"] >= 4)
        began = time.monotonic()
        for number in range(100):
            enqueue(ledger, "well", number)
            delivery.wake()
            await until(lambda number=number: panel.taken("well") == list(range(number + 1)))  # type: ignore[misc]
        assert time.monotonic() - began < 5.0
        tries = panel.tries()["sick"]
        assert tries < 15, "it is tried again after a pause that grows to a second"
    assert waiting(ledger) == 1


async def longest_wait(ledger: Ledger, panel: PanelServer, delivery: Delivery, *numbers: int) -> float:
    """Seconds until the panel has an event of a VM that is well: of several, one after the other, the longest."""
    waits = []
    for number in numbers:
        began = time.monotonic()
        enqueue(ledger, "well", number)
        delivery.wake()
        await until(lambda number=number: number in panel.taken("well"))  # type: ignore[misc]
        waits.append(time.monotonic() - began)
    return max(waits)


async def test_many_vms_that_fail_do_not_hold_up_others(ledger: Ledger, panel: PanelServer) -> None:
    """Though nobody else is answered meanwhile: it may be these VMs, and not the panel."""
    panel.answer = lambda form: DOWN if form["name"].startswith("sick") else OK
    for number in range(20):
        enqueue(ledger, f"sick{number}", 0)
    async with delivering(ledger, panel) as delivery:
        await until(lambda: len(panel.tries()) == 20)
        for number in range(5):
            asked = len(panel.asked)
            await until(lambda asked=asked: len(panel.asked) > asked + 2 * WORKERS)  # type: ignore[misc]
            assert await longest_wait(ledger, panel, delivery, number) < 0.5
    assert panel.taken("well") == [0, 1, 2, 3, 4]


async def test_vms_that_hang_hold_up_others_for_a_moment_only(ledger: Ledger, panel: PanelServer) -> None:
    """And in the end, when they are answered, nothing was made twice."""
    release = panel.hang_on_the_sick()
    for number in range(WORKERS):
        enqueue(ledger, f"sick{number}", 0, 1)
    async with delivering(ledger, panel) as delivery:
        await until(lambda: len(panel.asked) == WORKERS)
        assert await longest_wait(ledger, panel, delivery, 0) < PATIENCE + 0.5
        assert await longest_wait(ledger, panel, delivery, *range(1, 50)) < 0.5
        release.set()
        await until(lambda: not waiting(ledger))
    assert [panel.taken(f"sick{number}") for number in range(WORKERS)] == [[0, 1]] * WORKERS
    assert len(panel.asked) == 50 + 2 * WORKERS


async def test_many_vms_that_hang_at_once_hold_up_others_for_moments_only(
    ledger: Ledger, panel: PanelServer
) -> None:
    """Far shorter than until the first of these calls is given up."""
    release = panel.hang_on_the_sick()
    for number in range(3 * WORKERS):
        enqueue(ledger, f"sick{number}", 0)
    async with delivering(ledger, panel) as delivery:
        await until(lambda: len(panel.asked) == WORKERS)
        assert await longest_wait(ledger, panel, delivery, 0) < 3 * PATIENCE + 1.0
        release.set()
        await until(lambda: not waiting(ledger))
    assert len(panel.asked) == 1 + 3 * WORKERS


async def test_vms_that_hang_again_and_again_hold_up_nobody(ledger: Ledger, panel: PanelServer) -> None:
    """Though they are more than all workers."""
    release = panel.hang_on_the_sick()
    sick = 4 * WORKERS
    for number in range(sick):
        enqueue(ledger, f"sick{number}", 0)
    async with delivering(ledger, panel, timeouts=Timeouts(connect=1.0, answer=2.5)) as delivery:
        await until(lambda: len(panel.asked) > sick + 2 * WORKERS)
        assert await longest_wait(ledger, panel, delivery, *range(200)) < 0.5
        release.set()
        await until(lambda: not waiting(ledger))


async def test_answers_that_come_fast_are_kept_together(ledger: Ledger, panel: PanelServer) -> None:
    for name in range(100):
        enqueue(ledger, f"vm{name}", *range(4))
    done: list[str] = []
    with ledger._database.reading() as sql:
        sql.set_trace_callback(done.append)
        async with delivering(ledger, panel):
            await until(lambda: not waiting(ledger))
        sql.set_trace_callback(None)
    assert len(panel.forms) == 400
    assert done.count("COMMIT") < 80


async def test_nothing_is_asked_of_the_disk_while_nothing_happens(ledger: Ledger, panel: PanelServer) -> None:
    release = threading.Event()

    def answer(_: Form) -> bytes:
        release.wait(DEADLINE)
        return OK

    panel.answer = answer
    enqueue(ledger, "web", 1)
    reads: list[str] = []
    async with delivering(ledger, panel):
        await until(lambda: panel.asked)
        with ledger._database.reading() as sql:
            sql.set_trace_callback(reads.append)
            await asyncio.sleep(0.3)
            sql.set_trace_callback(None)
        release.set()
        await until(lambda: panel.forms)
    assert reads == []


# --- missed ---


async def test_a_vm_that_the_panel_is_creating_is_waited_for(ledger: Ledger, panel: PanelServer) -> None:
    panel.answer = lambda form: error("missed", "vm") if panel.tries()[form["name"]] < 3 else OK
    enqueue(ledger, "new", 1, 2)
    async with delivering(ledger, panel):
        await until(lambda: not waiting(ledger))
    assert panel.taken("new") == [1, 2]
    assert parked(ledger) == []


async def test_calls_of_an_unknown_vm_are_put_aside_with_one_problem_that_ends_by_itself(
    ledger: Ledger, panel: PanelServer
) -> None:
    panel.answer = lambda form: error("missed", "vm") if form.get("type") and form["name"] == "alien" else OK
    enqueue(ledger, "alien", 1, 2, 3)
    began = time.monotonic()
    async with delivering(ledger, panel) as delivery:
        await until(lambda: len(parked(ledger)) == 3)
        assert MISSED_SECONDS <= time.monotonic() - began < 3 * MISSED_SECONDS
        await until(lambda: panel.problems() == ["vm_unknown alien raised"])
        enqueue(ledger, "alien", 4)
        delivery.wake()
        await until(lambda: len(parked(ledger)) == 4)
        assert parked(ledger) == [f"vm alien {n}: missed: No (vm)" for n in (1, 2, 3, 4)]
        panel.answer = lambda _: OK
        enqueue(ledger, "alien", 5)
        delivery.wake()
        await until(lambda: len(panel.problems()) == 2)
        await until(lambda: not waiting(ledger))
    assert panel.problems() == ["vm_unknown alien raised", "vm_unknown alien solved"]
    assert panel.taken("alien") == [5], "what was put aside is never sent later"


async def test_every_call_of_an_unknown_vm_has_its_time(ledger: Ledger, panel: PanelServer) -> None:
    panel.answer = lambda form: error("missed", "vm") if form.get("type") else OK
    enqueue(ledger, "alien", 1)
    async with delivering(ledger, panel) as delivery:
        await until(lambda: panel.tries()["alien"] >= 3)
        enqueued = time.monotonic()
        enqueue(ledger, "alien", 2)
        delivery.wake()
        await until(lambda: len(parked(ledger)) == 2)
        assert time.monotonic() - enqueued >= MISSED_SECONDS


async def test_calls_kept_before_the_host_was_started_anew_have_their_time(
    tmp_path: Path, panel: PanelServer
) -> None:
    """Its monotonic clock began again, so that they seem to come from days ahead."""
    panel.answer = lambda form: error("missed", "vm") if form["name"] == "alien" else OK
    with closing(Ledger(tmp_path / "ledger.db", clock=lambda: time.monotonic() + 1e6)) as before:
        enqueue(before, "alien", 1)
        enqueue(before, "web", 1, 2)
    began = time.monotonic()
    with closing(Ledger(tmp_path / "ledger.db", clock=time.monotonic)) as ledger:
        async with delivering(ledger, panel):
            await until(lambda: parked(ledger) == ["vm alien 1: missed: No (vm)"])
            assert MISSED_SECONDS <= time.monotonic() - began < 3 * MISSED_SECONDS
    assert panel.taken("web") == [1, 2]


async def test_an_unknown_vm_does_not_hold_up_others(ledger: Ledger, panel: PanelServer) -> None:
    panel.answer = lambda form: error("missed", "vm") if form["name"].startswith("alien") else OK
    for number in range(20):
        enqueue(ledger, f"alien{number}", 1)
    enqueue(ledger, "web", *range(20))
    async with delivering(ledger, panel, missed_seconds=60.0):
        await until(lambda: len(panel.taken("web")) == 20)
        assert parked(ledger) == []


async def test_a_function_that_the_panel_does_not_know_is_left_and_said_once(
    ledger: Ledger, panel: PanelServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    panel.answer = lambda _: error("missed", "func")
    with ledger.transaction() as transaction:
        for number in range(3):
            fields = {"hostnode": "1", "name": "", "n": str(number)}
            transaction.enqueue("statistics 1", "vmwatch.statistics", fields)
    async with delivering(ledger, panel):
        await until(lambda: not waiting(ledger))
    assert len(panel.asked) == 3
    assert caplog.text.count("does not know a function") == 1
    assert parked(ledger) == []


# --- refused ---


async def test_a_refused_call_is_put_aside_at_once_and_the_next_one_made(
    ledger: Ledger, panel: PanelServer
) -> None:
    panel.answer = lambda form: error("value", "type") if form.get("n") in ("1", "2") else OK
    enqueue(ledger, "web", 1, 2, 3)
    async with delivering(ledger, panel):
        await until(lambda: not waiting(ledger))
    assert parked(ledger) == ["vm web 1: value: No (type)", "vm web 2: value: No (type)"]
    assert panel.problems() == ["call_refused web raised", "call_refused web solved"]
    assert panel.tries()["web"] == 5


async def test_what_cannot_be_read_is_put_aside_and_holds_up_nobody(
    ledger: Ledger, panel: PanelServer
) -> None:
    enqueue(ledger, "web", 1, 2, 3)
    enqueue(ledger, "other", 1)
    with ledger._database.transaction() as sql:
        sql.execute("UPDATE call SET fields = '{' WHERE id = 2")
    async with delivering(ledger, panel):
        await until(lambda: len(panel.problems()) == 2)
        await until(lambda: not waiting(ledger))
    assert (panel.taken("web"), panel.taken("other")) == ([1, 3], [1])
    assert panel.problems() == ["call_refused web raised", "call_refused web solved"]
    with ledger._database.reading() as sql:
        ((key, kept, reason),) = sql.execute("SELECT key, fields, reason FROM parked").fetchall()
    assert (key, json.loads(kept)) == ("vm web", {"kept": "{"})
    assert reason.startswith("what waited cannot be read: ")


async def test_refused_statistics_are_a_problem_of_their_node_and_are_not_kept(
    ledger: Ledger, panel: PanelServer
) -> None:
    refusing = [True]
    panel.answer = lambda form: (
        error("value", "domains") if form["func"] == "vmwatch.statistics" and refusing[0] else OK
    )
    for _ in range(2):
        with ledger.transaction() as transaction:
            transaction.enqueue("statistics 7", "vmwatch.statistics", {"hostnode": "7"})
        async with delivering(ledger, panel):
            await until(lambda: not waiting(ledger))
        refusing[0] = False
    assert parked_functions(ledger) == []
    assert [problem.split()[0] for problem in panel.problems()] == ["call_refused", "call_refused"]
    assert [problem.split()[-1] for problem in panel.problems()] == ["raised", "solved"]


async def test_a_refused_problem_is_no_problem(ledger: Ledger, panel: PanelServer) -> None:
    panel.answer = lambda _: error("value", "problem")
    enqueue(ledger, "web", 1)
    async with delivering(ledger, panel):
        await until(lambda: len(parked_functions(ledger)) == 2)
        await until(lambda: not waiting(ledger))
    assert parked_functions(ledger) == ["vm.event", "vmwatch.problem"]


def parked_functions(ledger: Ledger) -> list[str]:
    with ledger._database.reading() as sql:
        return [func for (func,) in sql.execute("SELECT func FROM parked ORDER BY id")]


# --- the disk, and the end ---


async def test_an_answer_that_cannot_be_kept_is_kept_later_and_not_asked_for_again(
    ledger: Ledger, panel: PanelServer, caplog: pytest.LogCaptureFixture
) -> None:
    enqueue(ledger, "web", 1, 2)
    with ledger._database.reading() as sql:
        sql.execute("PRAGMA query_only=ON")  # every write fails, as on a disk that died
    async with delivering(ledger, panel):
        await until(lambda: "cannot be kept" in caplog.text)
        assert panel.taken("web") == [1]
        with ledger._database.reading() as sql:
            sql.execute("PRAGMA query_only=OFF")
        await until(lambda: not waiting(ledger))
    assert panel.taken("web") == [1, 2]


async def test_a_disk_that_died_does_not_make_the_end_a_failure(
    ledger: Ledger, panel: PanelServer, caplog: pytest.LogCaptureFixture
) -> None:
    enqueue(ledger, "web", 1)
    with ledger._database.reading() as sql:
        sql.execute("PRAGMA query_only=ON")
    async with delivering(ledger, panel):  # which lets nothing but the cancellation pass
        await until(lambda: "no call is made" in caplog.text)
    assert waiting(ledger) == 1


async def test_the_end_waits_a_moment_for_an_answer_and_keeps_it(ledger: Ledger, panel: PanelServer) -> None:
    began = threading.Event()

    def answer(_: Form) -> bytes:
        began.set()
        time.sleep(0.3)  # so long does the panel work on it
        return OK

    panel.answer = answer
    enqueue(ledger, "web", 1)
    async with delivering(ledger, panel):
        await until(began.is_set)
    assert waiting(ledger) == 0


async def test_a_panel_that_never_answers_holds_up_the_end_for_a_moment_only(
    ledger: Ledger, panel: PanelServer
) -> None:
    release = threading.Event()

    def answer(_: Form) -> bytes:
        release.wait(DEADLINE)
        return OK

    panel.answer = answer
    enqueue(ledger, "web", 1)
    async with delivering(ledger, panel):
        await until(lambda: panel.asked)
        began = time.monotonic()
    assert time.monotonic() - began < STOP_SECONDS + 0.5
    assert waiting(ledger) == 1, "what became of it is not known: it is made again"
    release.set()
