# SPDX-License-Identifier: Apache-2.0
"""Services as the laboratory runs them, shown with the panel, and the panel's client."""

from __future__ import annotations

import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.lab.errors import LabError
from tests.lab.panel_client import PanelClient
from tests.lab.processes import Service, write_config
from tests.lab.waiting import DeadlinePassed, wait_for

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.needs("setpriv")


def panel_service(folder: Path, **changed: str) -> Service:
    values = {
        "ListenPort": "0",
        "Database": "panel.db",
        "AdminPassword": "correct horse",
        "Option": "RegisterUnknownVm",
        **changed,
    }
    config = write_config(folder / "vmmgr.conf", values, separator=" ")
    command = ["vmwatch-panel", "--config", str(config)]
    return Service(command, log=folder / "panel.out", ready="listening on")


def address(panel: Service) -> str:
    return panel.output().split("listening on ")[1].split()[0]


def test_a_service_starts_stops_and_starts_again(tmp_path: Path) -> None:
    service = panel_service(tmp_path)
    with service:
        assert psutil.pid_exists(service.pid)
        assert service.stop() == 0
        assert "listening" in service.start().output()
        service.kill()
        with pytest.raises(LabError, match="ended with -9"):
            service.wait_ready()


def test_a_service_that_ends_at_once_says_why(tmp_path: Path) -> None:
    service = panel_service(tmp_path, ListenPort="many")
    with pytest.raises(LabError, match=r"vmwatch-panel ended with 78; it said:\n.*ListenPort"), service:
        pytest.fail("it is not ready")


def test_a_frozen_service_is_stopped_nevertheless(tmp_path: Path) -> None:
    with panel_service(tmp_path) as service:
        service.signal(signal.SIGSTOP)
        with pytest.raises(DeadlinePassed):
            service.wait(seconds=0.1)
        assert service.stop() == 0


def test_a_service_dies_with_the_laboratory(tmp_path: Path) -> None:
    code = f"""
import pathlib, signal
from tests.system.test_lab_processes import panel_service
print(panel_service(pathlib.Path({str(tmp_path)!r})).start().pid, flush=True)
signal.pause()
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as laboratory:
        assert laboratory.stdout is not None
        pid = int(laboratory.stdout.readline())
        assert psutil.pid_exists(pid)
        laboratory.kill()
    wait_for(lambda: not psutil.pid_exists(pid), seconds=5, what="the service to be gone")


def test_the_client_reads_what_the_panel_shows(tmp_path: Path) -> None:
    with (
        panel_service(tmp_path) as panel,
        PanelClient(address(panel), user="admin", password="correct horse") as client,
    ):
        assert client.vm("web") is None
        event = {"hostnode": "7", "name": "web", "type": "started", "time": "2026-01-01T00:00:00.250Z"}
        client.call("vm.event", subtype="booted", sok="ok", **event)
        shown = client.vm("web")
        assert shown is not None
        assert (shown.status, shown.node) == ("running", 7)
        (change,) = client.history("web")
        assert (change.type, change.subtype, change.reporter) == ("started", "booted", 7)
        assert change.milliseconds == round((change.registered.timestamp() - 1767225600.25) * 1000)
        assert client.history("web", since=change.id) == []
        report = {"problem": "duplicate", "hostnode": "7", "name": "web", "text": "on two nodes"}
        client.call("vmwatch.problem", state="raised", sok="ok", **report)
        assert client.problems() == ["duplicate web"]


def test_the_client_says_what_the_panel_refused(tmp_path: Path) -> None:
    with (
        panel_service(tmp_path) as panel,
        PanelClient(address(panel), user="admin", password="wrong") as client,
        pytest.raises(LabError, match="auth"),
    ):
        client.vms()
