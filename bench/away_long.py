# SPDX-License-Identifier: Apache-2.0
"""A panel that is away for long while much happens: what it comes to know, how fast, what memory that takes."""

from __future__ import annotations

import re
import resource
import sqlite3
import time
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bench import domains, floor_load
from bench.figures import Figure, Group
from bench.rig import NODE, Rig
from tests.lab.host import Host
from tests.lab.waiting import wait_for
from vmwatch.delivery import WORKERS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import libvirt

    from tests.lab.panel_client import PanelClient

DOMAINS: Final = 50
_WARM: Final = 0.1
"""The share of the time after which memory is measured first: by then, all that is kept ready has been made."""

_SLOWEST: Final = 50.0  # calls a second: a drain that is slower is given up on
_FLOOR_MOST: Final = 20_000  # calls of the generator: more tell no more
_HISTORY: Final = """
    SELECT vm, event_id, registered FROM history
    WHERE type IN ('suspended', 'resumed') AND reporter = ? ORDER BY vm, id"""


def measure(*, seconds: int, rate: int, say: Callable[[str], None]) -> Group:
    """Stop the panel for so long, and have so many changes a second meanwhile. Raises LabError."""
    changes = seconds * rate
    with Host("away-long") as host, Rig() as rig, domains.connection(host.test_uri) as driver:
        panel = rig.start_panel()
        pids = {"master": rig.start_master().pid, "node": rig.start_node(host.test_uri).pid}
        changed = [domains.start(driver, f"vm-{number}") for number in range(DOMAINS)]
        _wait_running(panel)
        rig.panel.stop()
        say("away-long: the panel is away")
        began = time.monotonic()
        warm = int(changes * _WARM)
        _change(changed, range(warm), rate)
        before = _resident(pids)
        _change(changed, range(warm, changes), rate)
        took = time.monotonic() - began
        _wait_waiting(rig.ledger, changes, seconds=60)
        memory = {"the panel is back": _resident(pids)}
        say("away-long: the panel is back")
        rig.panel.start()
        _wait_waiting(rig.ledger, 0, seconds=60 + changes / _SLOWEST)
        memory["all is told"] = _resident(pids)
        floor = floor_load.generate(
            rig.panel_url, rig.password, calls=min(changes, _FLOOR_MOST), vms=DOMAINS, threads=WORKERS
        )
        rig.panel.stop()
        told, swapped, ours = _register(rig.folder / "panel.db")
    figures = (
        Figure(name="told in the end", unit=f"of {changes}", value=told),
        Figure(name="out of order", unit=f"of {changes}", value=swapped),
        Figure(name="calls made", unit="calls/s", value=ours, floor=floor),
        *(
            Figure(name=f"{name}, when {when}", unit="MiB", value=resident[name], floor=before[name])
            for name in pids
            for when, resident in memory.items()
        ),
    )
    conditions = (
        f"{changes} changes of {DOMAINS} domains in {took:.0f} s; the floor of memory is after {_WARM:.0%}"
    )
    return Group(title="away-long", conditions=conditions, figures=figures)


def _wait_running(panel: PanelClient) -> None:
    def is_so() -> bool:
        return sum(vm.status == "running" for vm in panel.vms()) >= DOMAINS

    wait_for(is_so, seconds=60, what=f"{DOMAINS} VMs running", pause=0.1)


def _change(changed: Sequence[libvirt.virDomain], numbers: range, rate: int) -> None:
    """Change the domains in turn, at this rate or as fast as it goes."""
    began = time.monotonic()
    for count, number in enumerate(numbers):
        time.sleep(max(0.0, began + count / rate - time.monotonic()))
        domains.change(changed[number % DOMAINS], number // DOMAINS)


def _resident(pids: Mapping[str, int]) -> dict[str, float]:
    """MiB, from /proc/PID/statm (proc(5): the second number, in pages)."""
    return {
        name: int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize() / 2**20
        for name, pid in pids.items()
    }


def _wait_waiting(ledger: Path, calls: int, *, seconds: float) -> None:
    with closing(sqlite3.connect(f"{ledger.as_uri()}?mode=ro", uri=True, timeout=5)) as reader:

        def is_so() -> bool:
            return bool(reader.execute("SELECT count(*) = ? FROM call", (calls,)).fetchone()[0])

        wait_for(is_so, seconds=seconds, what=f"{calls} calls waiting", pause=0.2)


def _register(file: Path) -> tuple[int, int, float]:
    """Of a stopped panel's register: how many changes it has, how many of them before an earlier one, a second."""
    with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as reader:
        rows = reader.execute(_HISTORY, (NODE,)).fetchall()
    told = [(vm, int(re.sub(r".*\.", "", event_id))) for vm, event_id, _ in rows]
    swapped = sum(vm == other and seq > later for (vm, seq), (other, later) in pairwise(told))
    registered = [milliseconds for *_, milliseconds in rows]
    return len(set(told)), swapped, (len(rows) - 1) / (max(registered) - min(registered)) * 1000
