# SPDX-License-Identifier: Apache-2.0
"""A service that is started on a full disk: it ends with its reason, and its unit starts it until there is room."""

from __future__ import annotations

import os
from configparser import RawConfigParser
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from tests.faults.disk import Disk
from tests.lab.processes import Service, find_command, free_port, write_config

if TYPE_CHECKING:
    from collections.abc import Iterator

UNITS: Final = Path(__file__).parents[2] / "systemd"
SECRET: Final = "ABCDEFGHIJ0123456789ABCDEFGHIJ01"

pytestmark = [
    pytest.mark.needs("unshare", "nsenter", "mount"),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can fill a disk here"),
]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    folder = tmp_path / "disk"
    folder.mkdir()
    with Disk(folder) as disk:
        yield disk


def service(name: str, disk: Disk, folder: Path) -> Service:
    """With all its files on the disk. The node's libvirt is not there: it is waited for once the outbox is open."""
    values = {
        "log_file": folder / "disk/log",
        "pid_file": folder / "disk/pid",
        "state_dir": folder / "disk",
        "secret": SECRET,
    }
    if name == "vmwatch-master":
        values |= {"listen": f"tcp://127.0.0.1:{free_port()}", "panel_url": "http://127.0.0.1:1/vmmgr"}
        values |= {"panel_user": "admin", "panel_password": "x"}
    else:
        values |= {"connect": f"tcp://127.0.0.1:{free_port()}", "node_id": 1}
        values |= {"libvirt_uri": f"qemu+unix:///system?socket={folder}/nobody"}
    command = [find_command(name), "--config", str(write_config(folder / "conf", values)), "--foreground"]
    wait, ready = (["--wait"], "waiting for libvirt") if name == "vmwatch-node" else ([], " ready\n")
    return Service([*disk.enter, *command, *wait], log=folder / "out", ready=ready)


@pytest.mark.parametrize("before", ["its first start", "another start"])
@pytest.mark.parametrize("name", ["vmwatch-master", "vmwatch-node"])
def test_a_start_on_a_full_disk_says_so_and_is_tried_again(
    name: str, before: str, disk: Disk, tmp_path: Path
) -> None:
    with service(name, disk, tmp_path) as started:
        started.stop()
        if before == "its first start":
            for file in disk.seen_from_outside.iterdir():
                file.unlink()
        disk.fill()
        started.start(wait=False)
        code = started.wait(seconds=20)
        reason = started.output()
        assert "disk is full" in reason or "No space left on device" in reason
        assert str(tmp_path / "disk") in reason, "which file it is"
        assert "Traceback" not in reason
        assert unit_starts_again(name, code)
        disk.free()
        started.start()


def unit_starts_again(name: str, code: int) -> bool:
    unit = RawConfigParser(strict=False)
    unit.optionxform = str  # type: ignore[assignment,method-assign] # names as they are
    unit.read(UNITS / f"{name}.service")
    never = unit["Service"]["RestartPreventExitStatus"].split()
    without_end = unit["Unit"]["StartLimitIntervalSec"] == "0"
    return unit["Service"]["Restart"] == "on-failure" and without_end and code != 0 and str(code) not in never
