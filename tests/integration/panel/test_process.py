# SPDX-License-Identifier: Apache-2.0
"""The panel as a process: what it promises when it is killed, stopped, or wrongly configured."""

from __future__ import annotations

import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from tests.integration.panel.process import COMMAND, LEAST, PASSWORD, USER, PanelProcess
from vmwatch import __version__

if TYPE_CHECKING:
    from pathlib import Path


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([COMMAND, *arguments], capture_output=True, text=True, timeout=20, check=False)


def test_what_was_answered_is_kept_through_sigkill(panel: PanelProcess) -> None:
    for seq in range(1, 21):
        kind, detail = ("resumed", "unpaused") if seq % 2 else ("suspended", "paused")
        panel.event("web", kind, detail, seq)
        panel.kill()
        panel.start()
        assert panel.rows("vm.history", elid="web", p_cnt=1)[0]["event_id"] == f"1.r1.{seq}"
        panel.event("web", kind, detail, seq)  # the caller did not see the answer
        if seq == 5:
            break
    assert panel.call("vm.history", elid="web")["p_elems"] == {"$": "5"}


def test_it_stops_at_once_though_pages_are_open(panel: PanelProcess) -> None:
    session = panel.call("auth", username=USER, password=PASSWORD)["auth"]["$id"]
    streams = [
        panel.http.get(f"{panel.site}/live", cookies={"vmwatch_session": session}, stream=True, timeout=5)
        for _ in range(3)
    ]
    readers = [stream.iter_lines(chunk_size=1) for stream in streams]  # a forgotten reader would hang up
    for reader in readers:
        assert next(reader).startswith(b"data: ")
    begin = time.monotonic()
    assert panel.stop(seconds=2) == 0
    assert time.monotonic() - begin < 2
    assert "Cancel" not in panel.log.read_text()  # uvicorn had nothing to end by force
    for stream in streams:
        stream.close()


def test_a_restart_on_the_same_port_works_at_once(panel: PanelProcess) -> None:
    port = panel.site.rpartition(":")[2]
    panel.config.write_text(panel.config.read_text().replace("ListenPort 0", f"ListenPort {port}"))
    panel.call("vm")
    panel.stop()
    panel.start()
    assert panel.site.rpartition(":")[2] == port


def test_no_secret_is_in_the_log_or_the_database(panel: PanelProcess) -> None:
    panel.call("vm")
    panel.error("vm", authinfo=f"{USER}:wrong-secret")
    panel.http.get(panel.url, params={"func": "auth", "username": USER, "password": PASSWORD}, timeout=5)
    panel.stop()
    written = panel.log.read_bytes() + b"".join(
        file.read_bytes() for file in panel.config.parent.glob("panel.db*")
    )
    assert b"wrong-secret" not in written
    assert PASSWORD.encode() not in written


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (LEAST.replace("ListenPort 0", "ListenPort x"), "panel.conf:2: ListenPort: 'x': expected a port"),
        (LEAST, "panel.conf: AdminPassword: missing: expected a password"),
    ],
)
def test_a_wrong_configuration_is_one_line_and_78(tmp_path: Path, text: str, line: str) -> None:
    config = tmp_path / "panel.conf"
    config.write_text(text)
    ended = run("--config", str(config))
    assert (ended.returncode, ended.stdout) == (78, "")
    assert line in ended.stderr
    assert ended.stderr.count("\n") == 1


def test_what_is_in_the_way_is_one_line_and_1(panel: PanelProcess, tmp_path: Path) -> None:
    ended = run("--config", str(panel.config))
    assert (ended.returncode, ended.stderr) == (
        1,
        f"vmwatch-panel: {tmp_path}/panel.db: database is locked\n",
    )
    other = tmp_path / "other.conf"
    port = panel.site.rpartition(":")[2]
    other.write_text(f"ListenPort {port}\nDatabase other.db\nAdminPassword {PASSWORD}\n")
    ended = run("--config", str(other))
    assert ended.returncode == 1
    assert ended.stderr == f"vmwatch-panel: cannot listen on 127.0.0.1 port {port}: Address already in use\n"


def test_version_and_help() -> None:
    assert run("--version").stdout == f"vmwatch-panel {__version__}\n"
    assert "--config" in run("--help").stdout


@pytest.mark.needs("prlimit")
def test_a_full_disk_is_told_as_the_panels_own_failure(panel: PanelProcess) -> None:
    def limit(size: object) -> None:
        subprocess.run(["prlimit", f"--pid={panel.process.pid}", f"--fsize={size}:"], check=True)

    panel.event("web", "started", "booted", 1)
    limit((panel.config.parent / "panel.db-wal").stat().st_size)  # as if the disk ended there
    stop = {"hostnode": 1, "name": "web", "type": "stopped", "subtype": "destroyed", "event_id": "1.r1.2"}
    answer = panel.raw(func="vm.event", **stop)
    assert answer.status_code == 503
    assert answer.json()["doc"]["error"]["$type"] == "internal"
    limit("unlimited")
    panel.event("web", "stopped", "destroyed", 2)
    assert panel.rows("vm", name="web")[0]["status"] == "stopped"
