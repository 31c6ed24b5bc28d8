# SPDX-License-Identifier: Apache-2.0
"""From libvirt's event to the panel's commit, beside a callback that posts straight to the same panel.

Two private libvirtd with the test driver behind them: vmwatch-node watches one, the bare callback the other. Their
changes alternate, so that what else the machine does meets both; in between, a bare commit is made as durable as
ours are: our way has two more of them than the floor has.
"""

from __future__ import annotations

import random
import sqlite3
import time
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from bench import domains
from bench.capture import Capture, Exchange
from bench.figures import Figure, Group, percentile
from bench.rig import Rig
from tests.lab.host import Host

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    import libvirt

BAR_MS: Final = 5.0
PAUSES: Final = (0.05, 0.15)  # s between two changes, at random: caches are cold, as they are in a cluster
WARM_UP: Final = 5  # changes of each side that do not count: connections are made by then

_OURS, _FLOOR = "ours", "floor"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One change. `called`: just before the call that had libvirt make it, in ns since 1970."""

    called: int
    exchange: Exchange


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """All that was measured. `commits`: how long the bare commits took, in ns."""

    ours: list[Sample]
    floor: list[Sample]
    commits: list[int]


def measure(*, changes: int, say: Callable[[str], None]) -> Group:
    """Make so many changes on each side. Raises LabError, TimeoutError."""
    with Host(_OURS) as ours, Host(_FLOOR) as floor, Rig() as rig:
        rig.start_panel()
        rig.start_master()
        rig.start_node(ours.test_uri)
        rig.start_module("bench.floor_callback", floor.test_uri, rig.panel_url, rig.password)
        with (
            Capture(rig.panel_port, rig.master_port) as capture,
            domains.connection(ours.test_uri) as one,
            domains.connection(floor.test_uri) as other,
        ):
            both = {_OURS: _start(capture, one, _OURS), _FLOOR: _start(capture, other, _FLOOR)}
            taken = _alternate(capture, both, changes, rig.folder, say)
    return _group(taken)


def _start(capture: Capture, driver: libvirt.virConnect, name: str) -> libvirt.virDomain:
    """A domain, started, and shown by the panel."""
    before = time.time_ns()
    domain = domains.start(driver, name)
    capture.wait_for(name, after=before)
    return domain


def _alternate(
    capture: Capture,
    both: dict[str, libvirt.virDomain],
    changes: int,
    folder: Path,
    say: Callable[[str], None],
) -> Taken:
    samples: dict[str, list[Sample]] = {side: [] for side in both}
    commits = []
    with _bare_database(folder) as database:
        for number in range(WARM_UP + changes):
            if number % 20 == 0:
                say(f"latency: change {number} of {WARM_UP + changes}")
            for side, domain in both.items():
                _pause()
                called = time.time_ns()
                domains.change(domain, number)
                samples[side].append(Sample(called=called, exchange=capture.wait_for(side, after=called)))
            _pause()
            commits.append(_commit(database))
    return Taken(ours=samples[_OURS][WARM_UP:], floor=samples[_FLOOR][WARM_UP:], commits=commits[WARM_UP:])


def _pause() -> None:
    time.sleep(random.uniform(*PAUSES))


@contextmanager
def _bare_database(folder: Path) -> Iterator[sqlite3.Connection]:
    """One table, as durable as outbox, ledger and panel are."""
    with closing(sqlite3.connect(folder / "bare.db", isolation_level=None)) as database:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA synchronous=FULL")
        database.execute("CREATE TABLE event (id INTEGER PRIMARY KEY, body BLOB)")
        yield database


def _commit(database: sqlite3.Connection) -> int:
    """Insert a row of an event's size, durably; how long it took, in ns."""
    began = time.perf_counter_ns()
    database.execute("INSERT INTO event (body) VALUES (zeroblob(300))")
    return time.perf_counter_ns() - began


def _group(taken: Taken) -> Group:
    ours, floor = taken.ours, taken.floor
    conditions = f"{len(ours)} changes of each side, one every {sum(PAUSES) / 2 * 1000:.0f} ms on average"
    figures = (
        *_spread("event to commit", ours, floor, lambda sample: sample.exchange.heard, bar=BAR_MS),
        *_stages([sample.exchange for sample in ours], [sample.exchange for sample in floor]),
        *_spread("change to commit", ours, floor, lambda sample: sample.called),
        Figure(name="a bare commit, median", unit="ms", value=percentile(taken.commits, 0.5) / 1e6),
    )
    return Group(title="latency", conditions=conditions, figures=figures)


def _spread(
    name: str,
    ours: Sequence[Sample],
    floor: Sequence[Sample],
    began: Callable[[Sample], int],
    *,
    bar: float | None = None,
) -> Iterator[Figure]:
    """Median, p95 and maximum of the time from `began` to the panel's answer."""
    mine, least = (
        [(sample.exchange.answered - began(sample)) / 1e6 for sample in side] for side in (ours, floor)
    )
    for label, share in (("median", 0.5), ("p95", 0.95), ("max", 1.0)):
        yield Figure(
            name=f"{name}, {label}",
            unit="ms",
            value=percentile(mine, share),
            floor=percentile(least, share),
            bar=bar if label == "median" else None,
        )


def _stages(ours: Sequence[Exchange], floor: Sequence[Exchange]) -> Iterator[Figure]:
    """Where the time goes: the medians of the parts of the way."""
    parts: dict[str, Callable[[Exchange], int]] = {
        "node": lambda exchange: (exchange.carried or exchange.sent) - exchange.heard,
        "master": lambda exchange: exchange.sent - (exchange.carried or exchange.sent),
        "panel": lambda exchange: exchange.answered - exchange.sent,
    }
    for name, took in parts.items():
        mine, least = ([took(exchange) / 1e6 for exchange in side] for side in (ours, floor))
        same = percentile(least, 0.5) if name == "panel" else None
        yield Figure(name=f"  of it {name}, median", unit="ms", value=percentile(mine, 0.5), floor=same)
