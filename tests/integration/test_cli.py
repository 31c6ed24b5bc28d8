# SPDX-License-Identifier: Apache-2.0
"""The operator's command, as a process."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from tests.lab.waiting import wait_for
from vmwatch import calls, cli, orders, problems
from vmwatch.ledger import Ledger
from vmwatch.messages import Event, Source
from vmwatch.outbox import Outbox
from vmwatch.presence import Presence
from vmwatch.protocol import new_run
from vmwatch.sequence import Position
from vmwatch.service import Lock

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NOW = datetime.now(UTC)
RUN = new_run(1_700_000_000_000_000, 0xABCDEF01)
ENDPOINT = {"node": "connect", "master": "listen"}


def vmwatch(*arguments: str | Path) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "vmwatch.cli", *arguments], capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout, done.stderr


def test_a_secret_is_new_and_one_that_both_services_take(tmp_path: Path) -> None:
    made = [vmwatch("secret") for _ in range(2)]
    assert all(code == 0 and error == "" for code, _, error in made)
    assert all(re.fullmatch(r"[A-Z0-9]{32}\n", secret) for _, secret, _ in made)
    assert made[0] != made[1]
    file = tmp_path / "master.conf"
    file.write_text(f"listen=tcp://[::1]:1515\nsecret={made[0][1]}")
    file.chmod(0o640)
    assert vmwatch("check", "master", file) == (0, f"{file}: correct\n", "")


def test_check(tmp_path: Path) -> None:
    file = tmp_path / "node.conf"
    file.write_text("connect=tcp://[::1]:1515\nsecret=ABC\nnode_id=1\n")
    file.chmod(0o640)
    warning = f"vmwatch: {file}:2: secret: can be guessed: expected 16 characters or more\n"
    assert vmwatch("check", "node", file) == (0, f"{file}: correct\n", warning)
    code, out, error = vmwatch("check", "master", file)
    assert (code, out) == (78, "")
    assert error.startswith(f"vmwatch: {file}: listen: missing: expected tcp://")


def test_wrong_arguments() -> None:
    assert vmwatch()[0] == 2
    assert vmwatch("check", "panel")[0] == 2


# --- vmwatch status ---


def configure(folder: Path, service: str, *, more: str = "") -> Path:
    file = folder / f"{service}.conf"
    node = "node_id=1\n" if service == "node" else ""
    file.write_text(
        f"{ENDPOINT[service]}=tcp://127.0.0.1:1515\nsecret=ABCDEFGHIJKLMNOP\n{node}{more}"
        f"pid_file={folder / service}.pid\nstate_dir={folder / service}\nlog_file={folder / service}.log\n"
    )
    file.chmod(0o640)
    (folder / service).mkdir(exist_ok=True)
    return file


def happened(name: str = "web", *, time: datetime = NOW) -> Event:
    return Event(
        uuid=f"uuid-{name}",
        name=name,
        type="started",
        subtype="booted",
        time=time,
        cause=None,
        source=Source.EVENT,
        since=None,
        domain_id=7,
    )


def enqueue(ledger: Ledger, name: str, *, time: datetime = NOW) -> None:
    fields = calls.event_fields(
        hostnode=1, name=name, type="started", subtype="booted", uuid="u", time=time, event_id=f"1.{RUN}.1"
    )
    with ledger.transaction() as transaction:
        transaction.enqueue(f"vm {name}", "vm.event", fields)


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    configure(tmp_path, "node")
    with closing(Outbox(tmp_path / "node/outbox.db", now=NOW, random=1, boot="b")) as opened:
        yield opened


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    configure(tmp_path, "master")
    with closing(Ledger(tmp_path / "master/ledger.db", clock=time.monotonic)) as opened:
        yield opened


@pytest.fixture
def running(tmp_path: Path) -> Iterator[None]:
    """Both services run, so far as their locks say."""
    locks = [Lock.take(tmp_path / f"{service}.pid") for service in ("node", "master")]
    yield
    for lock in locks:
        lock.release()


def status(folder: Path, service: str) -> tuple[int, dict[str, Any]]:
    code, out, error = vmwatch("status", service, folder / f"{service}.conf", "--json")
    assert error == ""
    (shown,) = json.loads(out)
    return code, shown


@pytest.mark.parametrize("service", ["node", "master"])
def test_status_of_a_service_that_never_ran(tmp_path: Path, service: str) -> None:
    file = configure(tmp_path, service)
    said = f"vmwatch-{service}: not running\n  it never ran here\n  wants a hand: the service does not run\n"
    assert vmwatch("status", service, file) == (1, said, "")
    assert list((tmp_path / service).iterdir()) == []


@pytest.mark.parametrize("service", ["node", "master"])
def test_status_of_a_blocked_service_whose_file_is_not_finished(tmp_path: Path, service: str) -> None:
    file = tmp_path / f"{service}.conf"
    file.write_text("disabled=yes\n")
    file.chmod(0o640)
    code, out, error = vmwatch("status", service, file)
    assert (code, error) == (0, "")
    assert out.startswith(f"vmwatch-{service}: not running, blocked by disabled=yes\n  {file}: ")
    file.write_text("disabled=no\n")
    assert vmwatch("status", service, file)[0] == 78


def test_status_of_a_blocked_service_wants_nothing(tmp_path: Path) -> None:
    file = configure(tmp_path, "node", more="disabled=yes\n")
    said = "vmwatch-node: not running, blocked by disabled=yes\n  it never ran here\n"
    assert vmwatch("status", "node", file) == (0, said, "")


@pytest.mark.usefixtures("running")
def test_status_of_a_node(tmp_path: Path, outbox: Outbox) -> None:
    outbox.append([happened("web"), happened("mail")])
    code, shown = status(tmp_path, "node")
    assert (code, shown["wants"], shown["name"]) == (0, [], "vmwatch-node")
    assert shown["state"] == {
        "run": outbox.run, "last": 2, "kept": 3, "unsent": 0, "vms": {"running": 2},
    }  # fmt: skip
    _, out, _ = vmwatch("status", "node", tmp_path / "node.conf")
    assert re.match(r"vmwatch-node: running, pid \d+\n  run \w{8} of 20.*, last record 2\n", out)
    assert "known VMs: 2 (2 running)\n" in out


@pytest.mark.usefixtures("running")
def test_a_backlog_wants_a_hand(tmp_path: Path, outbox: Outbox) -> None:
    outbox.append([happened()] * 3000)
    code, shown = status(tmp_path, "node")
    assert code == 1
    assert 500 < shown["state"]["unsent"] < 3000
    outbox.forget(up_to=outbox.window_before(outbox.read(after=0, limit=3001)[-1].id))
    assert status(tmp_path, "node")[0] == 0


@pytest.mark.usefixtures("running")
def test_status_of_a_master(tmp_path: Path, ledger: Ledger) -> None:
    with ledger.transaction() as transaction:
        transaction.keep_position(3, Position(run=RUN, seq=812))
        transaction.goes_forward(3, RUN, 1, heard=datetime(2026, 11, 22, 10, tzinfo=UTC))
    enqueue(ledger, "web")
    code, shown = status(tmp_path, "master")
    assert (code, shown["wants"]) == (0, [])
    assert shown["state"]["nodes"] == [
        {"node": 3, "run": RUN, "last": 812, "heard": "2026-11-22T10:00:00.000000Z"}
    ]
    assert (shown["state"]["calls"], shown["state"]["aside"], shown["state"]["problems"]) == (1, [], [])
    _, out, _ = vmwatch("status", "master", tmp_path / "master.conf")
    assert (
        "node 3: taken to record 812 of run abcdef01 of 2023-11-14T22:13:20Z, last heard 2026-11-22T10:00:00Z\n"
        in out
    )


@pytest.mark.usefixtures("running")
@pytest.mark.parametrize("func", ["vm.event", "vmwatch.problem", "vmwatch.statistics"])
def test_calls_that_the_panel_does_not_take_want_a_hand(tmp_path: Path, func: str) -> None:
    configure(tmp_path, "master")

    def an_hour_ago() -> float:
        return time.monotonic() - 3600

    with closing(Ledger(tmp_path / "master/ledger.db", clock=an_hour_ago)) as ledger:
        with ledger.transaction() as transaction:
            add = transaction.enqueue_latest if func == "vmwatch.statistics" else transaction.enqueue
            add("key", func, {"name": "web"})
        code, shown = status(tmp_path, "master")
    assert code == 1
    assert shown["wants"][0].startswith("the panel does not take calls: 1 wait, since ")


@pytest.mark.usefixtures("running")
def test_a_call_of_an_event_that_came_late_has_not_waited(tmp_path: Path, ledger: Ledger) -> None:
    enqueue(ledger, "web", time=NOW - timedelta(hours=1))
    assert status(tmp_path, "master")[0] == 0


@pytest.mark.usefixtures("running")
def test_a_call_put_aside_is_shown_with_its_reason(tmp_path: Path, ledger: Ledger) -> None:
    enqueue(ledger, "web\x1b[2J")
    assert ledger.take_new() == {"vm web\x1b[2J"}
    call = ledger.first("vm web\x1b[2J")
    assert call is not None
    with ledger.transaction() as transaction:
        transaction.park(call, "value: no such type (type)")
    code, shown = status(tmp_path, "master")
    assert (code, shown["wants"]) == (1, ["calls put aside: 1 (vmwatch parked)"])
    _, out, _ = vmwatch("status", "master", tmp_path / "master.conf")
    assert "put aside: 1 x vm.event vm web\\x1b[2J: value: no such type (type)\n" in out


@pytest.mark.usefixtures("running")
def test_open_problems_are_shown_until_they_end(tmp_path: Path, ledger: Ledger) -> None:
    with ledger.transaction() as transaction:
        problems.begin(transaction, "node_silent", 3, text="no heartbeat")
        problems.begin(transaction, "vm_unknown", 3, name="my vm", text="not shown")
    code, shown = status(tmp_path, "master")
    assert (code, shown["state"]["problems"]) == (
        1,
        ["node_silent, node 3", "vm_unknown, node 3, name my vm"],
    )
    with ledger.transaction() as transaction:
        problems.end(transaction, "node_silent", 3)
        problems.end(transaction, "vm_unknown", 3, name="my vm")
    assert status(tmp_path, "master")[0] == 0


def test_status_leaves_a_stopped_service_as_it_is(tmp_path: Path, outbox: Outbox) -> None:
    outbox.append([happened()])
    outbox.close()
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "node").iterdir()}
    assert len(before) == 1  # no write-ahead log
    assert status(tmp_path, "node")[1]["state"]["kept"] == 2
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "node").iterdir()} == before


def test_status_reads_what_a_killed_service_left(tmp_path: Path, outbox: Outbox) -> None:
    outbox.append([happened()])
    left = [file.read_bytes() for file in sorted((tmp_path / "node").iterdir())]
    outbox.close()
    for name, content in zip(("outbox.db", "outbox.db-shm", "outbox.db-wal"), left, strict=True):
        (tmp_path / "node" / name).write_bytes(content)
    (tmp_path / "node.pid").write_text(f"{os.getpid()}\n")  # another process has its id by now
    code, shown = status(tmp_path, "node")
    assert (code, shown["state"]["kept"]) == (1, 2)
    assert shown["wants"] == ["the service does not run"]


@pytest.mark.usefixtures("running")
def test_status_does_not_wait_for_a_commit(tmp_path: Path, outbox: Outbox) -> None:
    outbox.append([happened()])
    with closing(sqlite3.connect(tmp_path / "node/outbox.db", isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("DELETE FROM record")
        assert status(tmp_path, "node")[1]["state"]["kept"] == 2
        writer.execute("ROLLBACK")


def test_a_file_that_is_not_ours_is_said_to_be_unreadable(tmp_path: Path) -> None:
    file = configure(tmp_path, "master")
    (tmp_path / "master/ledger.db").write_bytes(b"no database" * 100)
    code, out, error = vmwatch("status", "master", file)
    assert (code, out) == (1, "")
    assert error == f"vmwatch: {tmp_path}/master/ledger.db: file is not a database\n"


def test_status_of_a_wrong_configuration(tmp_path: Path) -> None:
    code, out, error = vmwatch("status", "node", tmp_path / "absent.conf")
    assert (code, out) == (78, "")
    assert error.startswith(f"vmwatch: {tmp_path}/absent.conf: ")


def test_a_wrong_configuration_of_one_service_does_not_hide_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {service: configure(tmp_path, service) for service in ("node", "master")}
    files["node"].write_text("node_id=none\n")
    for service, file in files.items():
        monkeypatch.setitem(cli._FILES, service, (cli._FILES[service][0], file))
    assert cli.main(["status"]) == 78
    out, error = capsys.readouterr()
    assert out.startswith("vmwatch-master: not running\n")
    assert error.startswith(f"vmwatch: {files['node']}:1: node_id=none: expected ")


# --- vmwatch parked, vmwatch forget-node ---


def put_aside(ledger: Ledger, name: str) -> None:
    enqueue(ledger, name)
    ledger.take_new()
    call = ledger.first(f"vm {name}")
    assert call is not None
    with ledger.transaction() as transaction:
        transaction.park(call, "value: no such type (type)")
        problems.begin(transaction, "call_refused", None, name=name, text="refused")


def while_the_master_runs(ledger: Ledger, folder: Path, *arguments: str | Path) -> tuple[int, str, str]:
    """What the command says and returns while this process does a master's part."""
    command = [sys.executable, "-m", "vmwatch.cli", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        wait_for(
            lambda: (
                orders.carry_out(folder / "master", ledger, Presence(), now=NOW) or running.poll() is not None
            ),
            seconds=30,
            what="an order",
        )
        out, error = running.communicate()
    return running.returncode, out, error


@pytest.mark.usefixtures("running")
def test_calls_put_aside_are_shown_and_forgotten(tmp_path: Path, ledger: Ledger) -> None:
    file = tmp_path / "master.conf"
    assert vmwatch("parked", file, "--forget") == (0, "", "")
    for name in ("web", "mail\x1b[2J"):
        put_aside(ledger, name)
    reason = "value: no such type (type)"
    shown = f"vm.event vm web: {reason}\nvm.event vm mail\\x1b[2J: {reason}\n"
    assert vmwatch("parked", file) == (0, shown, "")
    assert [call["about"] for call in json.loads(vmwatch("parked", file, "--json")[1])] == [
        "vm web",
        "vm mail\x1b[2J",
    ]
    assert status(tmp_path, "master")[0] == 1
    assert while_the_master_runs(ledger, tmp_path, "parked", file, "--forget") == (0, shown, "")
    assert vmwatch("parked", file) == (0, "", "")
    assert status(tmp_path, "master")[0] == 0


def test_what_is_ordered_of_a_master_that_does_not_run_waits_for_it(tmp_path: Path, ledger: Ledger) -> None:
    put_aside(ledger, "web")
    code, out, error = vmwatch("parked", tmp_path / "master.conf", "--forget")
    assert (code, error) == (0, "")
    assert out.endswith("vmwatch-master does not run: it will do so when it starts\n")
    assert orders.carry_out(tmp_path / "master", ledger, Presence(), now=NOW)
    assert vmwatch("parked", tmp_path / "master.conf") == (0, "", "")


@pytest.mark.usefixtures("running")
def test_a_node_that_is_gone_for_good_is_forgotten(tmp_path: Path, ledger: Ledger) -> None:
    file = tmp_path / "master.conf"
    with ledger.transaction() as transaction:
        for node in (3, 4):
            transaction.keep_position(node, Position(run=RUN, seq=812))
        problems.begin(transaction, "node_silent", 3, text="no heartbeat")
    unknown = "vmwatch: node 5: the master has never heard of it\n"
    assert vmwatch("forget-node", "5", file) == (1, "", unknown)
    speaks = "vmwatch: node 4: it is not silent: stop vmwatch-node there first\n"
    assert vmwatch("forget-node", "4", file) == (1, "", speaks)
    assert while_the_master_runs(ledger, tmp_path, "forget-node", "3", file) == (0, "", "")
    assert [node["node"] for node in status(tmp_path, "master")[1]["state"]["nodes"]] == [4]


def test_where_no_master_ran_nothing_is_forgotten(tmp_path: Path) -> None:
    file = configure(tmp_path, "master")
    said = f"vmwatch: {tmp_path}/master: vmwatch-master never ran here\n"
    for arguments in (("parked", file), ("forget-node", "3", file)):
        assert vmwatch(*arguments) == (1, "", said)
