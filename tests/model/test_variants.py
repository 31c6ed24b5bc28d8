# SPDX-License-Identifier: Apache-2.0
"""The model finds what goes wrong without each of the rules: a model that finds nothing shows nothing."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from tests.model import variants
from tests.model.scenarios import check
from tests.model.setup import KILLS, Bounds, Fault, Rules, Setup


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """Rules, where they fail, and how. `steps`: a trace is a shortest one, and no longer than this."""

    rules: Rules
    bounds: Bounds
    says: str
    steps: int


def small(*faults: Fault, events: int = 3, number: int = 1) -> Bounds:
    return Bounds(may=frozenset(faults), events=events, faults=number)


VARIANTS = {
    "the window is one record too short": Variant(
        rules=Rules(window=-1), bounds=small(*KILLS), says="without a reason: events_lost", steps=15
    ),
    "one too short for larger buffers": Variant(
        rules=Rules(window=-1),
        bounds=replace(small(Fault.MASTER_KILLED, events=4), in_flight=2, batch=2),
        says="without a reason: events_lost",
        steps=25,
    ),
    "a hello that cannot be read is none": Variant(
        rules=Rules(hello_by_envelope=False),
        bounds=small(Fault.UNREADABLE, events=1),
        says="lost and nobody was told",
        steps=15,
    ),
    "no begin": Variant(
        rules=Rules(receive=variants.receive_unlinked),
        bounds=small(Fault.OUTBOX_LOST),
        says="lost and nobody was told",
        steps=30,
    ),
    "every hello says where the stream stands": Variant(
        rules=Rules(greet=variants.greet_anew), bounds=small(*KILLS, events=2), says="events_lost", steps=15
    ),
    "the known set counts wherever it arrives": Variant(
        rules=Rules(known_at_its_place=False), bounds=small(*KILLS), says="told twice", steps=30
    ),
    "arrival orders": Variant(
        rules=Rules(receive=variants.receive_as_it_comes),
        bounds=small(*KILLS, events=2),
        says="twice",
        steps=36,
    ),
    "the position is committed apart from the calls": Variant(
        rules=Rules(one_commit=False), bounds=small(Fault.MASTER_KILLED), says="left out", steps=30
    ),
    "the panel remembers nothing": Variant(
        rules=Rules(remembers=False), bounds=small(Fault.ANSWER_LOST), says="twice", steps=13
    ),
    "statistics are numbered": Variant(
        rules=Rules(statistics_numbered=True), bounds=small(), says="without a reason: events_lost", steps=15
    ),
    "a master that cannot commit listens on": Variant(
        rules=Rules(closes=False),
        bounds=small(Fault.COMMIT_FAILED),
        says="without a reason: events_lost",
        steps=15,
    ),
    "an older run that nobody knows is ignored": Variant(
        rules=Rules(receive=variants.receive_unsuspecting),
        bounds=replace(small(Fault.TWIN, events=1), twins=True),
        says="lost and nobody was told",
        steps=25,
    ),
    "a session may begin before any that was heard": Variant(
        rules=Rules(forgets_first=False),
        bounds=small(Fault.LEDGER_LOST, Fault.NODE_KILLED, events=2, number=3),
        says="without a reason: two_nodes_one_id",
        steps=26,
    ),
    "the known set is told once a session": Variant(
        rules=Rules(known_again=False),
        bounds=small(Fault.DROPPED, events=1),
        says="the panel shows nothing",
        steps=15,
    ),
    "a loss is told once a run": Variant(
        rules=Rules(losses_once=True),
        bounds=small(Fault.LEDGER_ROLLED_BACK, events=3, number=2),
        says="lost and nobody was told",
        steps=42,
    ),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_without_the_rule_it_goes_wrong(name: str) -> None:
    variant = VARIANTS[name]
    report = check(Setup(bounds=variant.bounds, rules=variant.rules))
    print(f"{name}: {report}")
    assert report.wrong
    assert variant.says in report.wrong, str(report)
    assert len(report.trace) <= variant.steps, str(report)
