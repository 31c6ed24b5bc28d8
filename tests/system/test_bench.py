# SPDX-License-Identifier: Apache-2.0
"""`script/bench` measures what it says, and leaves nothing behind. The figures are not judged, but for memory."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.lab.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.timeout(180), pytest.mark.needs("libvirtd", "unshare", "setpriv", "ip")]

BENCH = Path(__file__).resolve().parents[2] / "script/bench"
FEW = ("--changes=3", "--domains=5", "--messages=300", "--calls=40", "--rounds=1", "--away=2")


@pytest.fixture
def folder() -> Iterator[Path]:
    """For all that a run makes. Not pytest's own: a socket's path may have 107 characters."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        yield Path(name)


def start(folder: Path, *options: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "TMPDIR": str(folder)}
    return subprocess.Popen([BENCH, *options], stdout=subprocess.PIPE, text=True, env=environment)


def measured(folder: Path, *options: str) -> tuple[str, dict[str, dict[str, Any]]]:
    """The table, and the figures by group and name."""
    file = folder / "figures.json"
    with start(folder, f"--json={file}", *options) as bench:
        said, _ = bench.communicate()
    assert bench.returncode == 0
    content = json.loads(file.read_text())
    file.unlink()
    assert list(folder.iterdir()) == []
    figures = {
        group["title"]: {figure["name"]: figure for figure in group["figures"]} for group in content["groups"]
    }
    return said, figures


def test_everything_is_measured_beside_its_floor(folder: Path) -> None:
    said, groups = measured(folder, *FEW)
    assert list(groups) == ["latency", "memory", "throughput", "away", "drain"]
    for title, figures in groups.items():
        assert f"\n{title}: " in said
        for name, figure in figures.items():
            assert name in said
            assert figure["value"] > 0
            if figure["floor"]:
                assert figure["ratio"] == pytest.approx(figure["value"] / figure["floor"])
    latency = groups["latency"]
    median, p95, highest = (
        latency[f"event to commit, {share}"]["value"] for share in ("median", "p95", "max")
    )
    assert median <= p95 <= highest
    assert median <= latency["change to commit, median"]["value"]
    told = groups["away"]["told in the end"]
    assert (told["value"], told["floor"]) == (10, 0)


def test_memory_is_under_its_bars(folder: Path) -> None:
    _, groups = measured(folder, "memory")
    bars = {name: figure["is_met"] for name, figure in groups["memory"].items() if figure["bar"]}
    assert bars == {"node, resident": True, "master, resident": True}


def test_a_run_that_is_ended_leaves_nothing(folder: Path) -> None:
    with start(folder, "latency") as bench:
        wait_for(lambda: list(folder.glob("*/node.pid")), seconds=60, what="the node service")
        bench.send_signal(signal.SIGTERM)
        bench.communicate()
    assert bench.returncode == 143
    assert list(folder.iterdir()) == []
