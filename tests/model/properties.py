# SPDX-License-Identifier: Apache-2.0
"""What must hold: in every state (`wrong`), and in the end that every state must be able to reach (`lacking`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.model.setup import Fault
from vmwatch.sequence import Anomaly

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.model.world import Host, Label, States, World

_ANY = frozenset(map(str, Anomaly))
_JUSTIFIES: Mapping[str, frozenset[str]] = {
    Fault.UNREADABLE: frozenset({"unreadable", Anomaly.EVENTS_LOST}),
    Fault.DROPPED: frozenset({"dropped"}),
    Fault.OUTBOX_LOST: _ANY,
    Fault.OUTBOX_ROLLED_BACK: _ANY,
    Fault.LEDGER_LOST: _ANY - {Anomaly.TWO_NODES_ONE_ID, Anomaly.OUTBOX_REPLACED},
    Fault.LEDGER_ROLLED_BACK: _ANY - {Anomaly.TWO_NODES_ONE_ID, Anomaly.OUTBOX_REPLACED},
    Fault.CLOCK_BACK: _ANY,
    Fault.CLONED: _ANY,
    Fault.TWIN: _ANY,
}
"""Which problems a fault is a reason for."""


def wrong(world: World) -> str | None:
    """What is wrong in this state, if anything is."""
    return _untrue_problem(world) or _wrong_history(world)


def lacking(world: World) -> str | None:
    """What is still to be done; None in a good end: all has arrived or was told, and the panel shows what is."""
    master = world.master
    if world.late or master.batch != () or master.ledger.calls or not all(map(_said_all, world.hosts)):
        return "something is under way"
    if lost := _silently_lost(world):
        return f"lost and nobody was told: {', '.join(f'{label.run}.{label.seq}' for label in lost)}"
    two_speak = world.hosts[-1].here and len(world.hosts) > 1
    if not two_speak and not world.outside.strange_runs and world.panel.shown != world.hosts[0].truth:
        return f"the panel shows {_words(world.panel.shown)}, the truth is {_words(world.hosts[0].truth)}"
    return None


def _untrue_problem(world: World) -> str | None:
    justified = frozenset[str]().union(*(_JUSTIFIES[fault] for fault in world.outside.harm))
    untrue = world.outside.problems - justified
    return f"problem told without a reason: {', '.join(sorted(untrue))}" if untrue else None


def _wrong_history(world: World) -> str | None:
    """Each event once, in order per VM; and where no fault is a reason, none left out and nothing corrected."""
    order = {label: n for host in world.hosts for n, (_, label) in enumerate(host.committed)}
    one_order = len(world.hosts) == 1 and Fault.CLOCK_BACK not in world.outside.harm
    vms = {vm for vm, _, _ in world.panel.history}
    for vm in sorted(vms):
        told = [label for other, label, found in world.panel.history if other == vm and not found]
        if len(set(told)) < len(told):
            return f"an event of {vm} reached the panel twice"
        if one_order and [order[label] for label in told] != sorted(order[label] for label in told):
            return f"events of {vm} reached the panel out of order"
        if not world.outside.harm:
            all_of_it = [label for other, label in world.hosts[0].committed if other == vm]
            if told != all_of_it[: len(told)]:
                return f"an event of {vm} was left out"
            if any(found for other, _, found in world.panel.history if other == vm):
                return f"a change of {vm} was told twice: as an event and as found"
    return None


def _said_all(host: Host) -> bool:
    if not host.here:
        return True
    if host.process is None or host.process.session is None:
        return False
    session = host.process.session
    return session.known_told > 0 and not session.wire and session.cursor == host.outbox.records[-1].id


def _silently_lost(world: World) -> list[Label]:
    """Events that the panel never heard, and of which nobody was told that they are lost."""
    here = {label for _, label, _ in world.panel.history}
    outside = world.outside
    return [
        label
        for host in world.hosts
        for _, label in host.committed
        if label not in here and label not in outside.excused and label.run not in outside.strange_runs
    ]


def _words(states: States) -> str:
    return ", ".join(f"{vm} {state}" for vm, state in states) or "nothing"
