# SPDX-License-Identifier: Apache-2.0
"""Two collections of a VM's counters: what was done between them, and who is idle."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmwatch.panel.status_check import COUNTERS, Idle, Interval, Reading, compare, judge, read

DOMAIN: dict[str, object] = {
    "name": "web",
    "run": "boot-7",
    "interfaces": 1,
    "disks": 2,
    **{name: 10 * number for number, name in enumerate(COUNTERS)},
}


def reading(time: int = 1000, **changes: int | str) -> Reading:
    found = read({**DOMAIN, **changes}, time)
    assert found is not None
    return found


def interval(*, sent: int, written: int, interfaces: int = 1, disks: int = 1) -> Interval:
    devices = {"interfaces": interfaces, "disks": disks}
    before = reading(**devices)
    grown = {**before.counters, "packets_sent": before.counters["packets_sent"] + sent}
    grown["write_requests"] += written
    found = compare(before, replace(before, time=601_000, counters=grown))
    assert found is not None
    return found


@pytest.mark.parametrize("wrong", [None, "10", -1, 1.0, 2**63, []], ids=str)
@pytest.mark.parametrize("name", ["interfaces", "disks", *COUNTERS])
def test_what_does_not_tell_all_is_not_judged(name: str, wrong: object) -> None:
    assert read({**DOMAIN, name: wrong}, 1) is None
    assert read({other: value for other, value in DOMAIN.items() if other != name}, 1) is None
    assert read({**DOMAIN, "run": 7}, 1) is None


def test_an_interval_is_what_grew() -> None:
    found = compare(reading(1000), reading(601_000, packets_sent=15, write_bytes=1070))
    assert found is not None
    assert (found.begin, found.end, found.seconds) == (1000, 601_000, 600.0)
    assert {name: count for name, count in found.grown.items() if count} == {
        "packets_sent": 5,
        "write_bytes": 1000,
    }


@pytest.mark.parametrize(
    "after",
    [
        reading(601_000, run="boot-8"),  # started, or come from elsewhere
        *(reading(601_000, **{name: 0}) for name in COUNTERS if name != COUNTERS[0]),  # reset
        reading(601_000, disks=0),  # not counted: QEMU was busy
        reading(601_000, disks=3),
        reading(601_000, interfaces=2),
        reading(1000),
        reading(999),
    ],
)
def test_a_new_interval_begins(after: Reading) -> None:
    assert compare(reading(1000), after) is None


@pytest.mark.parametrize(
    ("found", "idle"),
    [
        (interval(sent=1, written=1), None),
        (interval(sent=0, written=1), Idle(packets_sent=0, write_requests=1)),
        (interval(sent=9, written=0), Idle(packets_sent=9, write_requests=0)),
        (interval(sent=0, written=0), Idle(packets_sent=0, write_requests=0)),
        (interval(sent=0, written=0, interfaces=0), Idle(packets_sent=None, write_requests=0)),
        (interval(sent=0, written=0, disks=0), Idle(packets_sent=0, write_requests=None)),
        (interval(sent=1, written=0, disks=0), None),
        (interval(sent=0, written=1, interfaces=0), None),
        (interval(sent=0, written=0, interfaces=0, disks=0), None),
    ],
)
def test_who_is_idle(found: Interval, idle: Idle | None) -> None:
    assert judge(found) == idle


COUNTS = st.fixed_dictionaries({name: st.integers(0, 3) for name in COUNTERS})


@given(st.lists(st.tuples(COUNTS, st.sampled_from("ab")), min_size=2, max_size=6))
def test_a_plot_never_goes_below_zero(collections: list[tuple[dict[str, int], str]]) -> None:
    readings = [reading(time, run=run, **counts) for time, (counts, run) in enumerate(collections)]
    for before, after in pairwise(readings):
        found = compare(before, after)
        assert found is None or (min(found.grown.values()) >= 0 and before.run == after.run)
