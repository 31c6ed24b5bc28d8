# SPDX-License-Identifier: Apache-2.0
"""From libvirt's event to the panel's commit, beside a callback that posts straight to the same panel.

Two private libvirtd with the test driver behind them: vmwatch-node watches one, the bare callback the other. Their
changes alternate, so that what else the machine does meets both.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from bench import domains
from bench.capture import Capture, Exchange
from bench.figures import Figure, Group, percentile
from bench.rig import Rig
from tests.lab.host import Host

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

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


def measure(*, changes: int, say: Callable[[str], None]) -> Group:
    """Make so many changes on each side. Raises LabError, TimeoutError."""
    with Host(_OURS) as ours, Host(_FLOOR) as floor, Rig() as rig:
        rig.start_panel()
        rig.start_master()
        rig.start_node(ours.test_uri)
        rig.start_module("bench.floor_callback", floor.test_uri, rig.panel_url, rig.password)
        with (
            Capture(rig.panel_port) as capture,
            domains.connection(ours.test_uri) as one,
            domains.connection(floor.test_uri) as other,
        ):
            both = {_OURS: _start(capture, one, _OURS), _FLOOR: _start(capture, other, _FLOOR)}
            samples = _alternate(capture, both, changes, say)
    return _group(samples[_OURS], samples[_FLOOR])


def _start(capture: Capture, driver: libvirt.virConnect, name: str) -> libvirt.virDomain:
    """A domain, started, and shown by the panel."""
    before = time.time_ns()
    domain = domains.start(driver, name)
    capture.wait_for(name, after=before)
    return domain


def _alternate(
    capture: Capture, both: dict[str, libvirt.virDomain], changes: int, say: Callable[[str], None]
) -> dict[str, list[Sample]]:
    samples: dict[str, list[Sample]] = {side: [] for side in both}
    for number in range(WARM_UP + changes):
        if number % 20 == 0:
            say(f"latency: change {number} of {WARM_UP + changes}")
        for side, domain in both.items():
            time.sleep(random.uniform(*PAUSES))
            called = time.time_ns()
            domains.change(domain, number)
            samples[side].append(Sample(called=called, exchange=capture.wait_for(side, after=called)))
    return {side: taken[WARM_UP:] for side, taken in samples.items()}


def _group(ours: Sequence[Sample], floor: Sequence[Sample]) -> Group:
    stages: dict[str, Callable[[Sample], int]] = {
        "event to commit": lambda sample: sample.exchange.answered - sample.exchange.heard,
        "  event to call": lambda sample: sample.exchange.sent - sample.exchange.heard,
        "  call to answer": lambda sample: sample.exchange.answered - sample.exchange.sent,
        "change to commit": lambda sample: sample.exchange.answered - sample.called,
    }
    figures = []
    for stage, taken in stages.items():
        mine, least = ([taken(sample) / 1e6 for sample in side] for side in (ours, floor))
        shares = {"median": 0.5, "p95": 0.95, "max": 1.0}
        for label, share in shares.items() if not stage.startswith(" ") else [("median", 0.5)]:
            figures.append(
                Figure(
                    name=f"{stage}, {label}",
                    unit="ms",
                    value=percentile(mine, share),
                    floor=percentile(least, share),
                    bar=BAR_MS if (stage, label) == ("event to commit", "median") else None,
                )
            )
    conditions = f"{len(ours)} changes of each side, one every {sum(PAUSES) / 2 * 1000:.0f} ms on average"
    return Group(title="latency", conditions=conditions, figures=tuple(figures))
