# SPDX-License-Identifier: Apache-2.0
"""Delivery and the panel: calls in order per VM, each applied once (delivery.py, panel/register.py)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.model.checker import Step
from tests.model.setup import Fault, Setup
from tests.model.world import Call, Panel, World, put

if TYPE_CHECKING:
    from collections.abc import Iterator


def steps(setup: Setup, world: World) -> Iterator[Step[World]]:
    """The first call of each VM is made; its answer arrives, or does not.

    A master or a panel that is killed while a call is made leaves one of the same two: applied and not noted, or
    neither.
    """
    if world.master.batch is None:
        return
    ledger, vms = world.master.ledger, set[str]()
    for number, call in enumerate(ledger.calls):
        if call.vm in vms:
            continue
        vms.add(call.vm)
        said = f"panel hears {call.vm} {call.label.run}.{call.label.seq}{' as found' if call.found else ''}"
        heard = world._replace(panel=_heard(setup, world.panel, call))
        rest = ledger._replace(calls=(*ledger.calls[:number], *ledger.calls[number + 1 :]))
        yield Step(said, heard._replace(master=heard.master._replace(ledger=rest)), progress=True)
        if Fault.ANSWER_LOST in setup.bounds.may and world.outside.faults:
            outside = world.outside._replace(faults=world.outside.faults - 1)
            yield Step(f"{said}, its answer is lost", heard._replace(outside=outside), progress=False)


def _heard(setup: Setup, panel: Panel, call: Call) -> Panel:
    """`register._is_new`: what is not newer than the last of its run for this VM changes nothing."""
    applied = dict(panel.applied)
    key = (call.label.run, call.vm)
    if setup.rules.remembers and key in applied and call.label.seq <= applied[key]:
        return panel
    applied[key] = call.label.seq
    return Panel(
        applied=tuple(sorted(applied.items())),
        shown=put(panel.shown, call.vm, call.state),
        history=(*panel.history, (call.vm, call.label, call.found)),
    )
