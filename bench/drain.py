# SPDX-License-Identifier: Apache-2.0
"""Calls that waited for the panel, made as it comes back, beside a load generator on the same endpoint."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Final

from bench import floor_load
from bench.figures import Group, rates
from bench.rig import Rig
from bench.throughput import LONGEST_SECONDS, send
from tests.lab.waiting import wait_for
from vmwatch.delivery import WORKERS

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.lab.panel_client import PanelClient

RATIO_BAR: Final = 0.9
CALLS_A_VM: Final = 20


def measure(*, calls: int, rounds: int, say: Callable[[str], None]) -> Group:
    """So many rounds, each a master's drain and then the generator, on one panel. Raises LabError."""
    vms = max(1, calls // CALLS_A_VM)
    ours, floor = [], []
    for number in range(rounds):
        say(f"drain: round {number + 1} of {rounds}")
        with Rig() as rig:
            rig.start_master()
            send(rig, events=calls, vms=vms)
            _wait_waiting(rig, calls)
            panel = rig.start_panel()
            _wait_waiting(rig, 0)
            ours.append(_registered_rate(panel, calls, vms))
            floor.append(
                floor_load.generate(rig.panel_url, rig.password, calls=calls, vms=vms, threads=WORKERS)
            )
    figures = rates("calls made", "calls/s", ours, floor, least_ratio=RATIO_BAR)
    conditions = f"{rounds} rounds of {calls} calls that waited, for {vms} VMs; {WORKERS} connections"
    return Group(title="drain", conditions=conditions, figures=figures)


def _wait_waiting(rig: Rig, calls: int) -> None:
    with closing(sqlite3.connect(f"{rig.ledger.as_uri()}?mode=ro", uri=True, timeout=5)) as reader:

        def is_so() -> bool:
            return bool(reader.execute("SELECT count(*) = ? FROM call", (calls,)).fetchone()[0])

        wait_for(is_so, seconds=LONGEST_SECONDS, what=f"{calls} calls waiting", pause=0.05)


def _registered_rate(panel: PanelClient, calls: int, vms: int) -> float:
    """Calls a second, from the panel's first commit to its last, as its register has them."""
    registered = [change.registered for number in range(vms) for change in panel.history(f"vm-{number}")]
    if len(registered) != calls:
        raise RuntimeError(f"the panel registered {len(registered)} of {calls} calls")
    return (calls - 1) / (max(registered) - min(registered)).total_seconds()
