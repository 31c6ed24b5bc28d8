# SPDX-License-Identifier: Apache-2.0
"""Messages a second that the master accepts durably, beside a bare loop that receives, verifies and inserts.

The panel is away, so that nothing but the acceptance is measured: the calls stay in the ledger. Both sides take the
same frames from the same sender, in turn.
"""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from typing import TYPE_CHECKING, Final

from bench.figures import Group, rates
from bench.rig import Rig
from tests.lab.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

RATE_BAR: Final = 40_000
RATIO_BAR: Final = 0.6
VMS: Final = 500
LONGEST_SECONDS: Final = 120.0
_POLL_SECONDS: Final = 0.01  # the resolution: 1 % of a second


def measure(*, messages: int, rounds: int, say: Callable[[str], None]) -> Group:
    """So many rounds of so many messages on each side. Raises LabError."""
    ours, floor = [], []
    for number in range(rounds):
        say(f"throughput: round {number + 1} of {rounds}")
        ours.append(_master_rate(messages))
        floor.append(_floor_rate(messages))
    figures = rates("accepted durably", "messages/s", ours, floor, least=RATE_BAR, least_ratio=RATIO_BAR)
    conditions = f"{rounds} rounds of {messages} events of {VMS} VMs by one sender; the panel is away"
    return Group(title="throughput", conditions=conditions, figures=figures)


def send(rig: Rig, *, events: int, vms: int) -> int:
    """Push the events, and return when the first of them went, in ns since 1970. Raises LabError."""
    address = rig.listen.removeprefix("tcp://")
    command = [sys.executable, "-m", "bench.sender", address, rig.secret, str(events), str(vms)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=LONGEST_SECONDS)
    return int(done.stdout)


def _master_rate(messages: int) -> float:
    with Rig() as rig:
        rig.start_master()
        began = send(rig, events=messages, vms=VMS)
        return _rate(rig.ledger, "SELECT seq FROM node", messages, began)


def _floor_rate(messages: int) -> float:
    with Rig() as rig:
        file = rig.folder / "floor.db"
        rig.start_module("bench.floor_receiver", rig.listen.removeprefix("tcp://"), rig.secret, str(file))
        began = send(rig, events=messages, vms=VMS)
        return _rate(file, "SELECT max(id) - 2 FROM event", messages, began)


def _rate(file: Path, query: str, messages: int, began: int) -> float:
    """Messages a second from `began` until the query says that all of them are in the file."""
    with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True, timeout=5)) as reader:

        def is_done() -> bool:
            row = reader.execute(query).fetchone()
            return row is not None and (row[0] or 0) >= messages

        wait_for(is_done, seconds=LONGEST_SECONDS, what=f"{messages} messages", pause=_POLL_SECONDS)
    return messages / ((time.time_ns() - began) / 1e9)
