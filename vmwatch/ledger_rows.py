# SPDX-License-Identifier: Apache-2.0
"""What the rows of the ledger's tables say, as values. Pure.

A row of those that are read at the start raises ValueError or BadBody if it is not what was written.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from vmwatch.calls import Call, event_fields
from vmwatch.cluster import Copy
from vmwatch.errors import BadBody
from vmwatch.events import CopyState
from vmwatch.messages import Event
from vmwatch.protocol import Run
from vmwatch.sequence import Position
from vmwatch.strict import decode

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

CallRow = tuple[int, str, float, str, str, int | None, str | None, str | None]
"""id, key, time, func, fields; of a VM's event, whose body `fields` then is, also hostnode, event_id, status."""


class Vm(NamedTuple):
    """A VM's name, and its copies by node. A named tuple: one is made for each event."""

    name: str
    copies: Mapping[int, Copy]


@dataclass(slots=True)
class Kept:
    """What the file has, of what each message asks for: as of the last commit, so that nobody has to read it."""

    positions: dict[int, Position] = field(default_factory=dict)
    vms: dict[str, Vm] = field(default_factory=dict)
    """By uuid."""
    named: dict[str, set[str]] = field(default_factory=dict)
    """The uuids of the VMs that have a name."""

    def add(self, uuid: str, vm: Vm) -> None:
        """This is the VM now."""
        self.vms[uuid] = vm
        self.named.setdefault(vm.name, set()).add(uuid)

    def remove(self, uuid: str) -> None:
        """There is no such VM any more, if there was."""
        vm = self.vms.pop(uuid, None)
        if vm is not None:
            self.named[vm.name].discard(uuid)
            if not self.named[vm.name]:
                del self.named[vm.name]


def read_kept(
    nodes: Iterable[tuple[int, str, int, str]], vms: Iterable[tuple[str, int, str, str, int, int]]
) -> Kept:
    """What all rows of the tables `node` and `vm` say."""
    positions = {
        node: Position(run=Run(run), seq=seq, ended=json.loads(ended)) for node, run, seq, ended in nodes
    }
    copies: dict[str, dict[int, Copy]] = {}
    names: dict[str, str] = {}
    for uuid, node, name, state, place, balance in vms:
        copies.setdefault(uuid, {})[node] = Copy(state=CopyState(state), order=place, balance=balance)
        names[uuid] = name
    kept = Kept(positions)
    for uuid, theirs in copies.items():
        kept.add(uuid, Vm(name=names[uuid], copies=theirs))
    return kept


def read_call(row: CallRow) -> Call:
    """The call that a row says; one that is not what was written is a call all the same, which says so."""
    identifier, key, time, func, text, *_ = row
    reason = ""
    try:
        fields = _fields(row)
    except (ValueError, BadBody) as error:
        fields, reason = {"kept": text}, str(error)
    return Call(id=identifier, key=key, time=time, func=func, fields=fields, unreadable=reason)


def _fields(row: CallRow) -> dict[str, str]:
    _, _, _, _, text, hostnode, event_id, status = row
    if hostnode is not None and event_id is not None:
        return _event_fields(decode(Event, text.encode()), hostnode, event_id, status)
    fields = json.loads(text)
    if not isinstance(fields, dict) or not all(isinstance(value, str) for value in fields.values()):
        raise ValueError("no form fields")
    return fields


def _event_fields(event: Event, hostnode: int, event_id: str, status: str | None) -> dict[str, str]:
    return event_fields(
        hostnode=hostnode,
        name=event.name,
        type=event.type,
        subtype=event.subtype,
        uuid=event.uuid,
        time=event.time,
        event_id=event_id,
        status=status,
        source=event.source.value,
        cause=event.cause,
        since=event.since,
    )
