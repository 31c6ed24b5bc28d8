# SPDX-License-Identifier: Apache-2.0
"""A seed is a plan."""

from __future__ import annotations

from collections import Counter
from itertools import islice

from tests.faults.plan import DISKS, LONG, STANDARD, Kind, rounds


def test_a_seed_gives_the_same_faults_and_another_gives_others() -> None:
    one, again, other = (list(islice(rounds(seed, nodes=2, kinds=STANDARD), 100)) for seed in (7, 7, 8))
    assert one == again
    assert one != other


def test_each_kind_comes_as_often_as_the_others_and_to_every_node() -> None:
    faults = [fault for faults in islice(rounds(1, nodes=3, kinds=STANDARD), 1000) for fault in faults]
    counts = Counter(fault.kind for fault in faults)
    assert counts.keys() == set(STANDARD)
    assert max(counts.values()) - min(counts.values()) <= 1
    assert {fault.node for fault in faults} == {1, 2, 3}


def test_what_takes_long_comes_seldom() -> None:
    kinds = [*STANDARD, *LONG]
    faults = [fault for faults in islice(rounds(1, nodes=2, kinds=kinds), 1000) for fault in faults]
    counts = Counter(fault.kind for fault in faults)
    assert all(0 < counts[kind] < counts[Kind.CUT] / 4 for kind in LONG)


def test_every_kind_is_of_one_form() -> None:
    assert sorted([*STANDARD, *DISKS, *LONG]) == sorted(Kind)
