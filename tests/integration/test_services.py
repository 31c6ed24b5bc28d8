# SPDX-License-Identifier: Apache-2.0
"""Node, master and panel as processes: what arrives, whoever is killed, frozen or away; how each ends."""

from __future__ import annotations

import itertools
import signal
import socket
import sqlite3
import time
from contextlib import closing, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.integration.polling import until
from tests.integration.stack import Observer, Stack
from tests.lab.errors import LabError
from tests.lab.waiting import wait_for
from vmwatch.config import Endpoint
from vmwatch.link import Push, flush
from vmwatch.messages import Begin, Hello
from vmwatch.protocol import Envelope, Kind, Run, derive_keys, seal
from vmwatch.strict import encode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import libvirt

    from tests.lab.host import Host

pytestmark = pytest.mark.needs("libvirtd", "unshare", "virsh", "stdbuf")

GONE = 69
STOP_SECONDS = 5.0
QUICK = {"heartbeat_interval": "0.2"}


@pytest.fixture
def stack(driver_host: Host, tmp_path: Path) -> Iterator[Stack]:
    with Stack(driver_host, tmp_path, settings=QUICK) as stack:
        yield stack
        with suppress(LabError):
            driver_host.thaw_libvirtd()


@pytest.fixture
def patient(driver_host: Host, tmp_path: Path) -> Iterator[Stack]:
    """Its node waits for libvirt."""
    with Stack(driver_host, tmp_path, settings={**QUICK, "wait": True}) as stack:
        yield stack


@pytest.fixture
def observer(stack: Stack, tmp_path: Path) -> Iterator[Observer]:
    with Observer(stack.driver, tmp_path) as observer:
        domain = stack.define("probe")[0]
        wait_for(lambda: _nudge(domain, observer), seconds=20, what="virsh to listen")
        yield observer


def _nudge(domain: libvirt.virDomain, observer: Observer) -> bool:
    domain.create()
    domain.destroy()
    return bool(observer.seen("probe"))


def change(domains: list[libvirt.virDomain], rounds: int, *, pause: float = 0.0) -> None:
    """Two changes of each domain a round."""
    for _ in range(rounds):
        for domain in domains:
            domain.suspend()
        time.sleep(pause)  # the load's own pace
        for domain in domains:
            domain.resume()


def running(stack: Stack, count: int) -> list[libvirt.virDomain]:
    domains = stack.define(*(f"vm{number}" for number in range(count)))
    for domain in domains:
        domain.create()
    return domains


def seconds(action: Callable[[], object]) -> float:
    began = time.monotonic()
    action()
    return time.monotonic() - began


# --- every change arrives once, in order ---


def check_all_was_told_as_observed(stack: Stack, observer: Observer, names: list[str]) -> None:
    stack.wait_until_all_is_registered()
    for name in names:
        observed = observer.seen(name)
        assert stack.told(name)[-len(observed) :] == observed
        assert len(stack.told(name)) - len(observed) in (0, 1)  # what was there when the node came
    assert stack.shown() == stack.states()


def test_all_that_libvirt_tells_arrives_once_and_in_order(stack: Stack, observer: Observer) -> None:
    stack.start()
    domains = running(stack, 8)
    change(domains, 20)
    check_all_was_told_as_observed(stack, observer, [domain.name() for domain in domains])


@pytest.mark.parametrize("victims", [("master",), ("panel",), ("master", "panel")])
def test_nothing_is_lost_or_told_twice_when_they_are_killed_under_load(
    stack: Stack, observer: Observer, victims: tuple[str, ...]
) -> None:
    stack.start()
    domains = running(stack, 6)
    for _ in range(4):
        change(domains, 6, pause=0.02)
        for victim in victims:
            getattr(stack, victim).kill()
        change(domains, 2)
        for victim in victims:
            getattr(stack, victim).start(wait=False)
        change(domains, 4, pause=0.02)
        for victim in victims:
            getattr(stack, victim).wait_ready()
    check_all_was_told_as_observed(stack, observer, [domain.name() for domain in domains])


def test_a_panel_that_is_away_for_a_while_gets_all_afterwards(stack: Stack, observer: Observer) -> None:
    stack.start()
    domains = running(stack, 4)
    stack.panel.stop()
    began = time.monotonic()
    while time.monotonic() - began < 10:
        change(domains, 1, pause=0.5)
    stack.panel.start()
    check_all_was_told_as_observed(stack, observer, [domain.name() for domain in domains])
    assert stack.client.problems() == []


def test_a_panel_that_does_not_answer_for_a_while_gets_all_afterwards(
    stack: Stack, observer: Observer
) -> None:
    stack.start()
    domains = running(stack, 4)
    stack.panel.signal(signal.SIGSTOP)
    change(domains, 10, pause=0.1)
    stack.panel.signal(signal.SIGCONT)
    check_all_was_told_as_observed(stack, observer, [domain.name() for domain in domains])


def test_a_master_that_is_away_for_a_while_gets_all_afterwards(stack: Stack, observer: Observer) -> None:
    stack.start()
    domains = running(stack, 4)
    stack.master.stop()
    change(domains, 50, pause=0.02)
    stack.master.start()
    check_all_was_told_as_observed(stack, observer, [domain.name() for domain in domains])


def test_a_master_that_comes_last_gets_all(stack: Stack, observer: Observer) -> None:
    stack.panel.start()
    stack.node.start()
    domains = running(stack, 4)
    change(domains, 20)
    stack.master.start()
    check_all_was_told_as_observed(stack, observer, [domain.name() for domain in domains])


@pytest.mark.parametrize("victims", [("node",), ("node", "master", "panel")])
def test_what_a_killed_node_kept_arrives_and_what_it_missed_is_found(
    stack: Stack, victims: tuple[str, ...]
) -> None:
    stack.start()
    domains = running(stack, 5)
    for round_ in range(4):
        change(domains, 6, pause=0.01)
        for victim in victims:
            getattr(stack, victim).kill()
        change(domains, 2)
        domains[round_].suspend()
        for victim in reversed(victims):
            getattr(stack, victim).start(wait=False)
        change(domains[4:], 20)
        for victim in victims:
            getattr(stack, victim).wait_ready()
        domains[round_].resume()
    stack.wait_until_all_is_registered()
    assert stack.shown() == stack.states()
    histories = [stack.registered(domain.name()) for domain in domains]
    assert any(line["source"] == "snapshot" for history in histories for line in history)
    for history in histories:
        kinds = [line["type"] for line in history[2:]]
        assert set(kinds) == {"suspended", "resumed"}
        assert all(one != other for one, other in itertools.pairwise(kinds)), (
            "a change is told twice, or missing"
        )


def test_what_changed_while_the_node_was_away_is_shown_within_a_second(stack: Stack) -> None:
    stack.start()
    domains = running(stack, 20)
    stack.wait_until_all_is_registered()
    stack.node.stop()
    for domain in domains[::2]:
        domain.suspend()
    domains[1].destroy()
    domains[1].undefine()
    del domains[1]
    stack.node.start()
    wait_for(lambda: stack.shown() == {**stack.states(), "vm1": "stopped"}, seconds=1.0, what="the truth")


# --- libvirt ---


def test_without_libvirt_the_node_ends_at_once_and_says_why(stack: Stack) -> None:
    stack.driver.stop_libvirtd()
    stack.panel.start()
    stack.master.start()
    began = time.monotonic()
    stack.node.start(wait=False)
    assert stack.node.wait(seconds=10) == GONE
    assert time.monotonic() - began < 3.5
    errors = [line for line in stack.node.output().splitlines() if " ERROR " in line or "rror" in line]
    assert any("no connection to libvirt" in line and stack.driver.test_uri in line for line in errors)
    assert "Traceback" not in stack.node.output()
    wait_for(lambda: stack.client.problems() == ["libvirt_lost"], seconds=5, what="the panel to hear of it")


def test_a_node_that_waits_says_so_once_and_goes_on_as_soon_as_libvirt_is_there(patient: Stack) -> None:
    patient.driver.stop_libvirtd()
    patient.panel.start()
    patient.master.start()
    patient.node.start(wait=False)
    wait_for(lambda: patient.client.problems() == ["libvirt_lost"], seconds=10, what="the problem")
    time.sleep(1.0)  # several attempts
    assert patient.node.output().count("waiting for libvirt") == 1
    patient.driver.start_libvirtd()
    began = time.monotonic()
    patient.node.wait_ready()
    assert time.monotonic() - began < 2.0
    wait_for(lambda: patient.shown() == {"test": "running"}, seconds=1.0, what="what libvirt has")
    wait_for(lambda: patient.client.problems() == [], seconds=2.0, what="the problem to end")


def test_a_node_that_loses_libvirt_tells_it_and_ends_and_the_next_one_finds_the_truth(patient: Stack) -> None:
    patient.start()
    wait_for(lambda: patient.shown() == {"test": "running"}, seconds=10, what="the start")
    patient.driver.kill_libvirtd()
    assert patient.node.wait(seconds=5) == GONE
    wait_for(lambda: patient.shown() == {"test": "unknown"}, seconds=2, what="unreachable, which is not off")
    assert patient.client.problems() == ["libvirt_lost"]
    assert f"libvirt at {patient.driver.test_uri} is gone" in patient.node.output()
    patient.node.start(wait=False)
    patient.driver.start_libvirtd()
    patient.node.wait_ready()
    wait_for(lambda: patient.shown() == {"test": "running"}, seconds=2, what="the truth")
    wait_for(lambda: patient.client.problems() == [], seconds=2, what="the problem to end")


def test_a_frozen_libvirtd_is_lost(stack: Stack) -> None:
    stack.start()
    wait_for(lambda: stack.shown() == {"test": "running"}, seconds=10, what="the start")
    stack.driver.freeze_libvirtd()
    assert stack.node.wait(seconds=12) == GONE
    assert stack.shown() == {"test": "unknown"}


def test_a_libvirtd_that_comes_back_in_the_last_moment_does_not_change_the_end(stack: Stack) -> None:
    """A thread waits in the list of domains, which is compared half a second after the node is ready."""
    stack.start()
    stack.driver.freeze_libvirtd()
    wait_for(lambda: "stopped exit_code=69" in stack.node.output(), seconds=12, what="the end", pause=0.001)
    stack.driver.thaw_libvirtd()
    assert stack.node.wait(seconds=5) == GONE


# --- a node that is not heard of ---


def test_a_frozen_node_is_silent_until_it_is_thawed(stack: Stack) -> None:
    stack.start()
    wait_for(lambda: stack.shown() == {"test": "running"}, seconds=10, what="the start")
    stack.node.signal(signal.SIGSTOP)
    wait_for(lambda: stack.client.problems() == ["node_silent"], seconds=5, what="the silence")
    assert stack.shown() == {"test": "unknown"}
    stack.node.signal(signal.SIGCONT)
    wait_for(lambda: stack.client.problems() == [], seconds=5, what="the problem to end")
    assert stack.shown() == {"test": "running"}


# --- the end ---


def ends(stack: Stack, *names: str) -> None:
    for name in names:
        service = getattr(stack, name)
        service.signal(signal.SIGTERM)
        assert service.wait(seconds=STOP_SECONDS) == 0
        assert "Traceback" not in service.output()


def test_asked_to_stop_they_stop(stack: Stack) -> None:
    stack.start()
    ends(stack, "node", "master")


def test_a_node_stops_though_libvirtd_is_frozen(stack: Stack) -> None:
    stack.start()
    stack.driver.freeze_libvirtd()
    ends(stack, "node", "master")


def test_a_node_stops_while_it_waits_for_the_first_answer_of_libvirtd(stack: Stack) -> None:
    stack.driver.freeze_libvirtd()
    stack.node.start(wait=False)
    wait_for(lambda: "no session with the master" in stack.node.output(), seconds=10, what="the node")
    ends(stack, "node")


def test_a_node_stops_while_it_waits_for_libvirtd(patient: Stack) -> None:
    patient.driver.stop_libvirtd()
    patient.node.start(wait=False)
    wait_for(lambda: "waiting for libvirt" in patient.node.output(), seconds=10, what="the node")
    ends(patient, "node")


def test_a_node_stops_though_there_is_no_master(stack: Stack) -> None:
    stack.node.start()
    ends(stack, "node")


def test_a_node_stops_though_the_master_is_frozen(stack: Stack) -> None:
    stack.start()
    stack.master.signal(signal.SIGSTOP)
    change(running(stack, 5), 100)
    ends(stack, "node")
    stack.master.signal(signal.SIGCONT)
    ends(stack, "master")


def test_a_master_stops_though_the_panel_never_answers(stack: Stack) -> None:
    stack.start()
    stack.panel.signal(signal.SIGSTOP)
    change(running(stack, 5), 5)
    wait_for(lambda: busy(stack), seconds=10, what="the master to call")
    ends(stack, "master")


def busy(stack: Stack) -> bool:
    """Whether the master waits for the panel's answers on all of its connections."""
    connections = psutil.Process(stack.master.pid).net_connections()
    port = int(stack.panel_url.rpartition(":")[2].partition("/")[0])
    return [one.raddr[1:] for one in connections].count((port,)) == 4


# --- who is not let in, and what is not accepted ---


def position(stack: Stack) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(stack.folder / "master/ledger.db")) as sql:
        return [*sql.execute("SELECT * FROM node"), *sql.execute("SELECT * FROM vm")]


async def test_frames_that_are_not_accepted_change_nothing_but_a_count(stack: Stack) -> None:
    stack.panel.start()
    stack.master.start()
    keys = derive_keys(stack.secret)
    run = Run("0" * 31 + "1")
    hello = seal(
        Envelope(node=7, run=run, seq=0, kind=Kind.HELLO),
        encode(Hello(host="h", version="1")),
        keys.signature,
    )
    begin = encode(Begin(previous=None, last=None, time=datetime.now(UTC)))
    record = Envelope(node=7, run=run, seq=0, kind=Kind.BEGIN)
    bad = {
        "signature": seal(record, begin, bytes(32)),
        "version": b"VMW\x09" + seal(record, begin, keys.signature)[4:],
        "kind": seal(record._replace(kind=99), begin, keys.signature),
        "size": b"short",
        "missing_field": seal(record._replace(kind=Kind.HEARTBEAT), b"{}", keys.signature),
    }
    push = await Push.open(Endpoint.parse(stack.listen), keys)
    for frame in (hello, *[frame for frame in bad.values() for _ in range(50)]):
        await push.send(frame)
    await until(lambda: all(f"reason={reason} count=1 " in stack.master.output() for reason in bad))
    assert stack.master.output().count("message refused") == len(bad)
    before = position(stack)
    assert [row[0] for row in before] == [7]
    await push.send(seal(record, begin, keys.signature))
    await until(lambda: position(stack) != before)
    push.close()
    flush()
    assert "Traceback" not in stack.master.output()


def test_a_second_master_does_not_start_and_says_why(stack: Stack) -> None:
    stack.panel.start()
    host, port = stack.listen.removeprefix("tcp://").split(":")
    with socket.socket() as other:
        other.bind((host, int(port)))
        other.listen()
        stack.master.start(wait=False)
        assert stack.master.wait(seconds=10) == 1
    assert f"cannot listen on {stack.listen}" in stack.master.output()
    assert "Traceback" not in stack.master.output()


# --- a full disk ---


def test_a_master_on_a_full_disk_leaves_it_to_the_nodes_and_goes_on_when_there_is_room(
    driver_host: Host, tmp_path: Path
) -> None:
    with Stack(driver_host, tmp_path, settings={**QUICK, "small_disk": "master"}) as stack:
        stack.start()
        domains = running(stack, 4)
        stack.wait_until_all_is_registered()
        with stack.full_disk():
            change(domains, 10, pause=0.05)
            wait_for(lambda: "disk is full" in stack.master.output(), seconds=10, what="the error")
            assert "cannot keep what arrives, the nodes keep it" in stack.master.output()
        stack.wait_until_all_is_registered()
        assert stack.shown() == stack.states()
        wait_for(lambda: stack.client.problems() == [], seconds=5, what="no problem")
        assert "Traceback" not in stack.master.output()


def test_a_node_on_a_full_disk_goes_on_and_tells_all_when_there_is_room(
    driver_host: Host, tmp_path: Path
) -> None:
    with Stack(driver_host, tmp_path, settings={**QUICK, "small_disk": "node"}) as stack:
        stack.start()
        domains = running(stack, 4)
        wait_for(lambda: stack.shown() == stack.states(), seconds=10, what="the start")
        told = len(stack.told("vm0"))
        with stack.full_disk():
            change(domains, 60, pause=0.01)
            domains[0].suspend()
            wait_for(lambda: "outbox cannot be written" in stack.node.output(), seconds=10, what="the error")
        changes = [*["suspended(paused)", "resumed(unpaused)"] * 60, "suspended(paused)"]
        wait_for(lambda: len(stack.told("vm0")) >= told + len(changes), seconds=20, what="all of it")
        assert stack.told("vm0")[told:] == changes
        wait_for(lambda: stack.shown() == stack.states(), seconds=5, what="the truth")
        assert "disk is full" in stack.node.output()
        assert "the outbox can be written again" in stack.node.output()
        assert "Traceback" not in stack.node.output()
        assert stack.client.problems() == []


# --- a damaged outbox ---


def test_a_damaged_outbox_is_set_aside_and_the_truth_told_anew(stack: Stack) -> None:
    stack.start()
    domains = running(stack, 4)
    stack.wait_until_all_is_registered()
    stack.node.stop()
    domains[0].suspend()
    with closing(sqlite3.connect(stack.folder / "node/outbox.db", isolation_level=None)) as sql:
        sql.execute("UPDATE record SET body = x'00' WHERE seq = 3")  # found when it is sent
    stack.node.start(wait=False)
    wait_for(lambda: "file damaged, set aside" in stack.node.output(), seconds=10, what="the damage")
    wait_for(lambda: stack.shown() == stack.states(), seconds=10, what="the truth")
    assert stack.shown()["vm0"] == "paused"
    assert stack.client.problems() == ["outbox_replaced"]
    assert len(aside(stack)) == 1
    assert "Traceback" not in stack.node.output()


def test_a_damaged_ledger_is_set_aside_and_the_truth_told_anew(stack: Stack) -> None:
    stack.start()
    domains = running(stack, 4)
    stack.wait_until_all_is_registered()
    stack.master.stop()
    domains[0].suspend()
    with closing(sqlite3.connect(stack.folder / "master/ledger.db", isolation_level=None)) as sql:
        sql.execute(
            "INSERT INTO call (key, time, func, fields) VALUES ('vm vm0', 0, 'vm.event', CAST(x'ff' AS TEXT))"
        )
    stack.master.start()
    wait_for(lambda: "file damaged, set aside" in stack.master.output(), seconds=10, what="the damage")
    wait_for(lambda: stack.shown() == stack.states(), seconds=10, what="the truth")
    assert stack.shown()["vm0"] == "paused"
    assert stack.client.problems() == [], "the session's window had all that ever was"
    assert "Traceback" not in stack.master.output()


def test_a_disk_that_spoils_each_outbox_costs_no_start_after_the_other(stack: Stack) -> None:
    stack.start()
    starts = []
    for count in (1, 2):
        sessions = 2 * count - 1
        wait_for(lambda: count_of_sessions(stack) == sessions, seconds=10, what="a session")  # noqa: B023
        stack.master.stop()
        with closing(sqlite3.connect(stack.folder / "node/outbox.db", isolation_level=None)) as sql:
            sql.execute("UPDATE record SET body = x'00' WHERE seq = 0")
        stack.master.start()  # the next session begins with that record
        wait_for(lambda: len(aside(stack)) == count, seconds=10, what="the damage")  # noqa: B023 (here and now)
        began = time.monotonic()
        wait_for((stack.folder / "node/outbox.db").exists, seconds=10, what="the next outbox")
        starts.append(time.monotonic() - began)
    assert starts[0] < 1.0 < starts[1]


def count_of_sessions(stack: Stack) -> int:
    return stack.node.output().count("session with the master: ")


def aside(stack: Stack) -> list[Path]:
    return list((stack.folder / "node").glob("outbox.db.damaged-*"))


# --- memory ---


def test_a_hundred_vms_take_little_memory(stack: Stack) -> None:
    stack.start()
    change(running(stack, 99), 3)
    stack.wait_until_all_is_registered()
    assert len(stack.shown()) == 100
    assert psutil.Process(stack.node.pid).memory_info().rss < 50 << 20
    assert psutil.Process(stack.master.pid).memory_info().rss < 64 << 20
