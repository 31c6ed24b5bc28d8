# SPDX-License-Identifier: Apache-2.0
"""What a state of the model is made of. The names are the code's: outbox, session, ledger, position, known set.

Named tuples instead of dataclasses: their hash and comparison, which take most of the time, are in C.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from vmwatch.events import CopyState

if TYPE_CHECKING:
    from vmwatch.protocol import Kind

NODE = 1  # the one node id; a second host with it is a fault

States = tuple[tuple[str, CopyState], ...]
"""VM -> state, sorted: hashable."""


class Label(NamedTuple):
    """An event, wherever it is. Greater ones of a host are later ones."""

    run: str
    seq: int


class Link(NamedTuple):
    """Body of a begin."""

    previous: str | None
    last: int | None


class Change(NamedTuple):
    """Body of an event."""

    vm: str
    type: str
    subtype: str


class Message(NamedTuple):
    """On the wire: an envelope and its body; None is a body that cannot be read. A gap's body is how many it is."""

    kind: Kind
    run: str
    seq: int
    body: Link | Change | States | int | None
    span: int = 1


class Record(NamedTuple):
    """In the outbox: a message and its place there."""

    id: int
    message: Message


class Outbox(NamedTuple):
    """A node's file. `run`: the last one that opened it."""

    records: tuple[Record, ...] = ()
    run: str | None = None
    known: States = ()


class Session(NamedTuple):
    """One connection: the last record's id that it sent, and what is under way, the oldest first.

    `known_told`: the id of the record as of which the known set was sent.
    """

    cursor: int
    wire: tuple[Message, ...]
    known_told: int = 0


class Process(NamedTuple):
    """A node service that runs. `sent`: the last id that any of its sessions sent."""

    sent: int = 0
    session: Session | None = None


class Host(NamedTuple):
    """`truth`: what its libvirt has; `committed`: all events that its outbox ever had; `here`: it exists."""

    here: bool = True
    outbox: Outbox = Outbox()
    process: Process | None = None
    truth: States = ()
    committed: tuple[tuple[str, Label], ...] = ()


class Place(NamedTuple):
    """`sequence.Position`, hashable."""

    run: str
    seq: int
    ended: tuple[tuple[str, int], ...]


class Call(NamedTuple):
    """A call of `vm.event` that waits. `found`: it corrects what the ledger had; no event told it."""

    vm: str
    label: Label
    state: CopyState | None
    found: bool = False


class Ledger(NamedTuple):
    """The master's file. `told`: the keys of the problems that it has told, so that they are told once."""

    position: Place | None = None
    kept: States = ()
    calls: tuple[Call, ...] = ()
    told: frozenset[tuple[str, str]] = frozenset()


class Master(NamedTuple):
    """The master: None in place of its batch is a master that does not run."""

    ledger: Ledger = Ledger()
    batch: tuple[Message, ...] | None = ()


class Panel(NamedTuple):
    """The panel: the last number applied by (run, VM), what it shows, and each VM's history."""

    applied: tuple[tuple[tuple[str, str], int], ...] = ()
    shown: States = ()
    history: tuple[tuple[str, Label, bool], ...] = ()


class Outside(NamedTuple):
    """What the world may still do, and what it did.

    `clock`: runs begun; `harm`: the faults that befell a file, a body or a host; `problems`: all that a person was
    told, ever; `excused`: the events of which a person was told that they are lost.
    """

    events: int
    faults: int
    clock: int = 0
    harm: frozenset[str] = frozenset()
    problems: frozenset[str] = frozenset()
    excused: frozenset[Label] = frozenset()
    strange_runs: frozenset[str] = frozenset()
    outbox_copy: Outbox | None = None
    ledger_copy: Ledger | None = None


class World(NamedTuple):
    """A state. `late`: what dead sessions left under way, sorted: which of them it was does not matter."""

    hosts: tuple[Host, ...]
    outside: Outside
    late: tuple[tuple[Message, ...], ...] = ()
    master: Master = Master()
    panel: Panel = Panel()


def put(states: States, vm: str, state: CopyState | None) -> States:
    """The states with this VM's changed; None: no such VM."""
    changed = {**dict(states), vm: state}
    return tuple(sorted((vm, state) for vm, state in changed.items() if state is not None))
