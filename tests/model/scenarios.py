# SPDX-License-Identifier: Apache-2.0
"""What is explored: one kind of harm at a time, each in bounds that take seconds, and in larger ones.

Two files lost at once (outbox and ledger) are not among them: nobody is left who could know.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tests.model import faults, master, node, panel, properties
from tests.model.checker import Progress, Report, Step, explore, silent
from tests.model.setup import KILLS, Bounds, Fault, Setup
from tests.model.world import Host, Outside, World

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """`standard` bounds are for every run of the tests, `large` ones for now and then."""

    standard: Bounds
    large: Bounds


def _scenario(
    *faults: Fault, standard: tuple[int, int], large: tuple[int, int], twins: bool = False
) -> Scenario:
    """Bounds from (events, faults): the smaller ones with one message in flight, the larger ones with more."""
    may = frozenset(faults)
    return Scenario(
        standard=Bounds(may=may, events=standard[0], faults=standard[1], twins=twins),
        large=Bounds(may=may, events=large[0], faults=large[1], twins=twins, in_flight=2),
    )


SCENARIOS: Final[Mapping[str, Scenario]] = {
    "kills": Scenario(
        standard=Bounds(may=KILLS, events=2, faults=2),
        large=Bounds(may=KILLS, events=4, faults=2, late=2),
    ),
    "kills, a longer stream": Scenario(
        standard=Bounds(may=KILLS, events=4, faults=1),
        large=Bounds(may=KILLS, events=5, faults=2, in_flight=2),
    ),
    "kills, two VMs": Scenario(
        standard=Bounds(may=KILLS, events=2, faults=1, vms=("a", "b"), in_flight=2, batch=2),
        large=Bounds(may=KILLS, events=3, faults=2, vms=("a", "b"), in_flight=2, batch=2),
    ),
    "outbox lost": _scenario(Fault.OUTBOX_LOST, Fault.BREAK, standard=(2, 2), large=(3, 2)),
    "outbox rolled back": _scenario(Fault.OUTBOX_ROLLED_BACK, Fault.BREAK, standard=(3, 1), large=(3, 2)),
    "ledger lost": _scenario(Fault.LEDGER_LOST, Fault.NODE_KILLED, standard=(2, 2), large=(3, 3)),
    "ledger rolled back": _scenario(Fault.LEDGER_ROLLED_BACK, standard=(4, 1), large=(5, 2)),
    "unreadable": _scenario(Fault.UNREADABLE, Fault.BREAK, standard=(2, 2), large=(3, 3)),
    "dropped": _scenario(Fault.DROPPED, Fault.BREAK, standard=(2, 2), large=(3, 3)),
    "clock goes back": _scenario(Fault.CLOCK_BACK, Fault.BREAK, standard=(2, 2), large=(3, 2)),
    "two hosts": _scenario(Fault.TWIN, Fault.BREAK, standard=(2, 1), large=(2, 2), twins=True),
    "cloned": _scenario(Fault.CLONED, Fault.BREAK, standard=(2, 1), large=(2, 2), twins=True),
}


def initial(setup: Setup) -> World:
    """Nothing has happened yet. A second host is there in the end, if at all."""
    hosts = (Host(), Host(here=False)) if setup.bounds.twins else (Host(),)
    clock = 5 if Fault.CLOCK_BACK in setup.bounds.may else 0  # so that it can go back
    outside = Outside(events=setup.bounds.events, faults=setup.bounds.faults, clock=clock)
    return World(hosts=hosts, outside=outside)


def check(setup: Setup, *, depth: int = 1000, tell: Progress = silent) -> Report:
    """Explore all of it, or `depth` steps."""

    def steps(world: World) -> Iterator[Step[World]]:
        for part in (node, master, panel, faults):
            yield from part.steps(setup, world)

    return explore(
        initial(setup),
        steps=steps,
        wrong=properties.wrong,
        lacking=properties.lacking,
        depth=depth,
        tell=tell,
    )
