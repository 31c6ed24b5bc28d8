# SPDX-License-Identifier: Apache-2.0
"""The systemd units and the SysV scripts, as far as they work without a booted system."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
UNITS = sorted((ROOT / "systemd").glob("*.service"))
SCRIPTS = sorted((ROOT / "initd").iterdir())
DEADLINE = 30.0  # seconds


@pytest.mark.needs("systemd-analyze")
@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_systemd_understands_the_unit(unit: Path, tmp_path: Path) -> None:
    installed = tmp_path / unit.name
    # The commands are installed by the package only.
    installed.write_text(unit.read_text().replace(f"/usr/bin/{unit.stem}", "/bin/true"))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", installed], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_scripts_differ_in_their_header_alone() -> None:
    bodies = {script.read_text().partition(f"\nNAME={script.name}\n")[2] for script in SCRIPTS}
    assert len(bodies) == 1
    assert bodies != {""}
    assert all(f"# Provides:          {script.name}\n" in script.read_text() for script in SCRIPTS)


class Host:
    """A host where vmwatch-node is installed: its script, and the service of tiny_service.py in its place."""

    def __init__(self, folder: Path) -> None:
        self.pid_file = folder / "node.pid"
        self.log = folder / "node.log"
        self.config = folder / "node.conf"
        self.command = folder / "vmwatch-node"
        service = Path(__file__).with_name("tiny_service.py")
        self.command.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{service}" "$@"\n')
        self.command.chmod(0o755)
        self.configure()

    def configure(self, node_id: str = "7", newline: str = "\n") -> None:
        lines = [
            "connect=tcp://127.0.0.1:1515",
            "secret=ABCDEFGHIJ0123456789",
            f"node_id={node_id}",
            f"log_file={self.log}",
            f" pid_file = {self.pid_file} ",
        ]
        self.config.write_bytes("".join(line + newline for line in lines).encode())
        self.config.chmod(0o640)

    def call(self, action: str, main: str = "serve") -> tuple[int, str, str]:
        """Exit code, standard output, standard error of `vmwatch-node ACTION`."""
        done = subprocess.run(
            [ROOT / "initd/vmwatch-node", action],
            env=os.environ
            | {"DAEMON": str(self.command), "CONFIG": str(self.config), "STOP_SECONDS": "2", "TINY": main},
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
        )
        return done.returncode, done.stdout, done.stderr

    def pid(self) -> int:
        return int(self.pid_file.read_text())


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    host = Host(tmp_path)
    yield host
    host.call("stop")


def test_from_start_to_stop(host: Host) -> None:
    assert host.call("status") == (3, "vmwatch-node: not running\n", "")
    assert host.call("start") == (0, "", "")
    pid = host.pid()
    assert host.call("status") == (0, f"vmwatch-node: running: pid {pid}\n", "")
    assert host.call("start") == (0, f"vmwatch-node: already running: pid {pid}\n", "")
    assert host.call("stop") == (0, "", "")
    assert host.call("status")[0] == 3
    assert host.call("stop") == (0, "", "")


@pytest.mark.parametrize("action", ["restart", "try-restart"])
def test_a_restart_is_another_process(host: Host, action: str) -> None:
    assert host.call("start")[0] == 0
    first = host.pid()
    assert host.call(action) == (0, "", "")
    assert host.pid() != first


def test_what_does_not_run_is_started_by_restart_alone(host: Host) -> None:
    assert host.call("try-restart") == (0, "", "")
    assert host.call("status")[0] == 3
    assert host.call("restart") == (0, "", "")
    assert host.call("status")[0] == 0


@pytest.mark.parametrize("action", ["reload", "force-reload"])
def test_reload(host: Host, action: str) -> None:
    assert host.call(action) == (7, "", "")
    assert host.call("start")[0] == 0
    pid = host.pid()
    assert host.call(action) == (0, "", "")
    deadline = time.monotonic() + DEADLINE
    while "log opened again" not in host.log.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert host.pid() == pid


def test_a_dead_service_with_its_pid_file(host: Host) -> None:
    assert host.call("start")[0] == 0
    os.kill(host.pid(), signal.SIGKILL)
    deadline = time.monotonic() + DEADLINE
    while host.call("status")[0] == 0:
        assert time.monotonic() < deadline
    assert host.call("status") == (1, f"vmwatch-node: dead, and its pid file exists: {host.pid_file}\n", "")
    assert host.call("start") == (0, "", "")


def test_the_pid_of_another_process_is_not_the_service(host: Host) -> None:
    host.pid_file.write_text(f"{os.getpid()}\n")
    assert host.call("status")[0] == 1
    assert host.call("stop") == (0, "", "")  # were it taken for the service, this test would end here


def test_a_windows_editor_does_not_hide_the_pid_file(host: Host) -> None:
    host.configure(newline="\r\n")
    assert host.call("start")[0] == 0
    assert host.call("status")[0] == 0


def test_a_failed_start_tells_why(host: Host) -> None:
    assert host.call("start", main="lose_libvirt") == (1, "", "tiny: no libvirt here\n")
    host.configure(node_id="none")
    code, _, error = host.call("start")
    assert (code, error) == (6, f"tiny: {host.config}:3: node_id=none: expected a positive integer\n")


def test_a_service_that_hangs_is_stopped_all_the_same(host: Host) -> None:
    assert host.call("start", main="be_deaf")[0] == 0
    pid = host.pid()
    assert host.call("stop") == (0, "", f"vmwatch-node: does not stop, ended at once: pid {pid}\n")


def test_what_is_not_installed(host: Host) -> None:
    host.command.unlink()
    assert host.call("start") == (5, "", f"vmwatch-node: not installed: {host.command}\n")
    assert host.call("status")[0] == 4
    assert host.call("stop") == (0, "", "")


def test_an_unknown_action(host: Host) -> None:
    assert host.call("explode")[0] == 2
