# SPDX-License-Identifier: Apache-2.0
"""A panel on a large database of the version before: there at once, and quick while it prunes."""

from __future__ import annotations

import sqlite3
import statistics
import time
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.integration.panel.process import PanelProcess
from tests.lab.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

OLD = Path(__file__).parents[2] / "unit/panel/panel-1.sql"
ROWS = 1_000_000

# A million events of a year, a thousand VMs'.
FILL = f"""
INSERT INTO vm (name, hostnode, status) WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n LIMIT 1000)
    SELECT 'vm-' || i, 1, 'running' FROM n;
WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n LIMIT {ROWS})
    INSERT INTO history (vm, reporter, type, subtype, source, time, registered, status, hostnode)
    SELECT 3 + i % 1000, 1, 'started', 'booted', 'event', :now - (:rows - i) * 31536, :now - (:rows - i) * 31536,
    'running', 1 FROM n;
UPDATE vm SET last = (SELECT max(id) FROM history WHERE vm = vm.id) WHERE id > 2;
"""


@pytest.fixture
def upgraded(tmp_path: Path) -> Iterator[PanelProcess]:
    """A panel on that file, not started."""
    with closing(sqlite3.connect(tmp_path / "panel.db", isolation_level=None)) as old:
        old.executescript(OLD.read_text())
        old.execute("BEGIN")
        for statement in FILL.split(";"):
            values = {"now": time.time_ns() // 1_000_000, "rows": ROWS}
            old.execute(statement, values)
        old.execute("COMMIT")
    with ExitStack() as stack:
        panel = PanelProcess(tmp_path)
        stack.push(panel)
        yield panel


def test_it_is_there_at_once_and_quick_while_it_prunes(upgraded: PanelProcess) -> None:
    upgraded.start()
    # The processor's time: other work on the machine does not lengthen it.
    cost = psutil.Process(upgraded.process.pid).cpu_times()
    assert cost.user + cost.system < 1
    assert upgraded.call("vm", p_cnt=1)["p_elems"] == {"$": "1002"}

    def kept() -> int:
        return int(upgraded.call("vm.history", elid="vm-500", p_cnt=1)["p_elems"]["$"])

    took = []
    for seq in range(1, 101):
        begin = time.monotonic()
        upgraded.event("vm-7", "resumed", "unpaused", seq)
        took.append(time.monotonic() - begin)
    assert statistics.median(took) < 0.1
    wait_for(lambda: kept() < 1000, seconds=30, what="the first old events to go")
    assert upgraded.stop() == 0
