# SPDX-License-Identifier: Apache-2.0
"""Resident memory of both services at work, beside a Python that has only imported what they are built on."""

from __future__ import annotations

import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bench import domains as test_domains
from bench.figures import Figure, Group
from bench.rig import Rig
from tests.lab.host import Host
from tests.lab.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.lab.panel_client import PanelClient

NODE_BAR_MIB: Final = 50.0
MASTER_BAR_MIB: Final = 64.0
STATISTICS: Final = 5
"""So many heartbeats and statistics, counted together, before the memory is read; nearly all are statistics."""

_COMMON: Final = "argparse, asyncio, json, logging, sqlite3, zmq, zmq.asyncio, zmq.auth.asyncio"
_IMPORTS: Final = {
    "node": f"{_COMMON}, libvirt, libvirt_qemu, libvirtaio",
    "master": f"{_COMMON}, requests",
}


def measure(*, domains: int, say: Callable[[str], None]) -> Group:
    """Have so many domains started, paused and counted. Raises LabError."""
    with Host("memory") as host, Rig() as rig, test_domains.connection(host.test_uri) as driver:
        say(f"memory: {domains} domains")
        panel = rig.start_panel()
        master = rig.start_master()
        own = driver.numOfDomains()  # the test driver comes with one
        started = [test_domains.start(driver, f"vm-{number}") for number in range(domains - own)]
        node = rig.start_node(host.test_uri, statistics_interval=1)
        _wait_shown(panel, "running", domains)
        for domain in started:
            domain.suspend()
        _wait_shown(panel, "paused", len(started))
        say("memory: statistics")
        wait_for(lambda: _beats(rig.ledger) >= STATISTICS, seconds=60, what="statistics", pause=0.1)
        figures = (
            *_figures("node", node.pid, bar=NODE_BAR_MIB),
            *_figures("master", master.pid, bar=MASTER_BAR_MIB),
        )
    conditions = f"{domains} domains that were started and paused; the floor is what the imports take"
    return Group(title="memory", conditions=conditions, figures=figures)


def _wait_shown(panel: PanelClient, status: str, count: int) -> None:
    def shown() -> bool:
        return sum(vm.status == status for vm in panel.vms()) >= count

    wait_for(shown, seconds=60, what=f"{count} VMs {status}", pause=0.1)


def _beats(ledger: Path) -> int:
    with closing(sqlite3.connect(f"{ledger.as_uri()}?mode=ro", uri=True, timeout=5)) as reader:
        row = reader.execute("SELECT counter FROM beat").fetchone()
    return int(row[0]) if row else 0


def _figures(name: str, pid: int, *, bar: float) -> tuple[Figure, Figure]:
    now, peak = _resident(Path(f"/proc/{pid}/status").read_text())
    floor_now, floor_peak = _bare(_IMPORTS[name])
    return (
        Figure(name=f"{name}, resident", unit="MiB", value=now, floor=floor_now, bar=bar),
        Figure(name=f"{name}, its peak", unit="MiB", value=peak, floor=floor_peak),
    )


def _bare(imports: str) -> tuple[float, float]:
    code = f"import {imports}; print(open('/proc/self/status').read())"
    return _resident(
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    )


def _resident(status: str) -> tuple[float, float]:
    """Now and at most so far, in MiB, from /proc/PID/status (proc(5): VmRSS, VmHWM, in KiB)."""
    kibibytes = dict(re.findall(r"^(VmRSS|VmHWM):\s+(\d+) kB$", status, re.MULTILINE))
    return int(kibibytes["VmRSS"]) / 1024, int(kibibytes["VmHWM"]) / 1024
