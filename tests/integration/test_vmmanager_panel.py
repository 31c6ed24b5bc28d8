# SPDX-License-Identifier: Apache-2.0
"""The client and the reference panel agree: every call that the master makes, at the real process."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from vmwatch.calls import event_fields, problem_fields, statistics_fields
from vmwatch.errors import Missed, Refused, Unavailable
from vmwatch.sessions import Sessions
from vmwatch.vmmanager import Access, Panel

if TYPE_CHECKING:
    from collections.abc import Iterator

USER, PASSWORD = "admin", "correct+horse & battery=50%"
MGRCTL = """#!{python}
import os, sys, urllib.parse, urllib.request
assert sys.argv[1:] == "-m vmmgr -o json session.newkey username=admin -e key=$VMWATCH_KEY".split(), sys.argv
form = dict(func="session.newkey", out="json", username="admin", key=os.environ["VMWATCH_KEY"], authinfo={authinfo!r})
with urllib.request.urlopen("{url}", urllib.parse.urlencode(form).encode()) as answer:
    sys.stdout.buffer.write(answer.read())
"""


@pytest.fixture
def process(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    config = tmp_path / "vmmgr.conf"
    config.write_text(
        f"Listen 127.0.0.1\nListenPort 0\nDatabase {tmp_path}/panel.db\n"
        f"AdminUser {USER}\nAdminPassword {PASSWORD}\n"
    )
    command = [str(Path(sys.executable).with_name("vmwatch-panel")), "--config", str(config)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.terminate()


@pytest.fixture
def url(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert "listening on" in line
    return line.rpartition(" ")[2].strip()


@pytest.fixture
def panel(url: str) -> Iterator[Panel]:
    panel = Panel(Access(url=url, user=USER, password=PASSWORD))
    yield panel
    panel.close()


def event(**changes: object) -> dict[str, str]:
    moment = datetime(2026, 1, 31, 12, 0, 0, 1500, tzinfo=UTC)
    values: dict[str, object] = {
        "hostnode": 3,
        "name": "web-1",
        "type": "stopped",
        "subtype": "shutdown",
        "uuid": "6f1b0d6a-6f0e-4f4e-9d5c-0a4d4a7f2b11",
        "time": moment,
        "since": moment,
        "status": "stopped",
        "source": "snapshot",
        "cause": "guest-shutdown",
        "event_id": "3.0000000000000001.7",
    }
    return event_fields(**{**values, **changes})  # type: ignore[arg-type]


def listed(panel: Panel, func: str) -> list[dict[str, str]]:
    authinfo = f"{USER}:{PASSWORD}"
    rows = panel.ask({"func": func, "authinfo": authinfo}).get("elem", [])
    return [{name: value.get("$", "") for name, value in row.items()} for row in rows]


def make_vm(panel: Panel) -> None:
    panel.call("vmhostnode.edit", {"elid": "3", "name": "node-3"})
    panel.call("vm.edit", {"name": "web-1", "hostnode": "3"})


def test_an_event_becomes_the_status_and_once(panel: Panel) -> None:
    make_vm(panel)
    panel.call("vm.event", event())
    panel.call("vm.event", event())
    (vm,) = listed(panel, "vm")
    assert (vm["name"], vm["status"], vm["hostnode"]) == ("web-1", "stopped", "3")
    assert (vm["type"], vm["subtype"], vm["cause"]) == ("stopped", "shutdown", "guest-shutdown")


def test_the_other_calls_are_understood(panel: Panel) -> None:
    make_vm(panel)
    panel.call("vm.event", event(type="started", subtype="booted", status="running", cause=None))
    panel.call("vmwatch.statistics", statistics_fields(hostnode=3, time=datetime.now(UTC), domains=[]))
    panel.call(
        "vmwatch.problem", problem_fields(problem="node_silent", state="raised", text="30 s", hostnode=3)
    )
    shown = listed(panel, "vm")[0]
    assert (shown["status"], shown["last_status"]) == ("unknown", "running")
    panel.call("vmwatch.problem", problem_fields(problem="node_silent", state="solved", text="", hostnode=3))
    assert listed(panel, "vm")[0]["status"] == "running"


def test_errors_are_told_apart(panel: Panel, url: str) -> None:
    make_vm(panel)
    with pytest.raises(Missed):
        panel.call("vm.event", event(name="nobody", uuid="6f1b0d6a-6f0e-4f4e-9d5c-0a4d4a7f2b12"))
    with pytest.raises(Missed, match="func"):
        panel.call("vmwatch.later", {})
    with pytest.raises(Refused, match=r"value: .*\(type\)"):
        panel.call("vm.event", event(type="exploded"))
    stranger = Panel(Access(url=url, user=USER, password="wrong"))
    with pytest.raises(Unavailable, match="auth: "):
        stranger.call("vm.event", event())
    stranger.close()


def test_a_session_opened_by_a_key(panel: Panel, url: str, tmp_path: Path) -> None:
    make_vm(panel)
    mgrctl = tmp_path / "mgrctl"
    authinfo = f"{USER}:{PASSWORD}"
    mgrctl.write_text(MGRCTL.format(python=sys.executable, url=url, authinfo=authinfo))
    mgrctl.chmod(0o755)
    local = Panel(Access(url=url), sessions=Sessions(user=USER, command=[str(mgrctl), "-m", "vmmgr"]))
    local.call("vm.event", event())
    mgrctl.unlink()
    local.call("vm.event", event(event_id="3.0000000000000001.8", type="started", subtype="booted"))
    local.close()
    assert listed(panel, "vm")[0]["type"] == "started"


def test_a_panel_that_was_stopped_is_unavailable(panel: Panel, process: subprocess.Popen[str]) -> None:
    make_vm(panel)
    process.terminate()
    assert process.wait(10) == 0
    with pytest.raises(Unavailable, match="no-connection"):
        panel.call("vm.event", event())
