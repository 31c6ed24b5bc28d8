# SPDX-License-Identifier: Apache-2.0
"""What the nemesis does, and when: from a seed, the same every time. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from random import Random
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


class Kind(StrEnum):
    """A way to break things. `kill` is `kill -9`, `freeze` is STOP and later CONT."""

    KILL_NODE = "kill-node"
    KILL_MASTER = "kill-master"
    KILL_PANEL = "kill-panel"
    KILL_LIBVIRTD = "kill-libvirtd"
    KILL_NODE_AND_MASTER = "kill-node-and-master"
    KILL_MASTER_AND_PANEL = "kill-master-and-panel"
    FREEZE_NODE = "freeze-node"
    FREEZE_MASTER = "freeze-master"
    FREEZE_PANEL = "freeze-panel"
    FREEZE_LIBVIRTD = "freeze-libvirtd"
    CUT = "cut"  # the connection between node and master is reset, and refused for a while
    STALL = "stall"  # nothing passes, and nobody is told
    SLOW = "slow"  # 16 KiB/s
    RESTART_ALL = "restart-all"  # TERM to all services at once, then started again in any order
    # Longer than one of the ordinary rounds may last:
    FREEZE_PANEL_BEYOND_TIMEOUT = (
        "freeze-panel-beyond-timeout"  # so that a call is made again though it was taken
    )
    CORRUPT_OUTBOX = "corrupt-outbox"  # the tail of its file, while the node is down
    DISK_FULL_NODE = "disk-full-node"
    DISK_FULL_MASTER = "disk-full-master"


DISKS: Final = frozenset({Kind.DISK_FULL_NODE, Kind.DISK_FULL_MASTER})
"""Faults for root alone, who can mount small disks."""

LONG: Final = frozenset({Kind.FREEZE_PANEL_BEYOND_TIMEOUT})
"""Faults for the long form only, and there for every eighth deck: each holds up half a minute."""

STANDARD: Final = tuple(kind for kind in Kind if kind not in DISKS | LONG)
"""Faults for everybody and every form."""

_PANEL_TIMEOUT: Final = 20.0  # of vmmanager.Timeouts
_LASTING: Final = {
    Kind.FREEZE_LIBVIRTD: (0.3, 8.0),  # libvirt's keepalive gives it up after 6
    Kind.FREEZE_NODE: (0.3, 4.0),
    Kind.FREEZE_MASTER: (0.3, 4.0),  # a node is silent after 3 heartbeats of 1 s
    Kind.CUT: (0.0, 3.0),
    Kind.STALL: (0.3, 4.0),
    Kind.FREEZE_PANEL_BEYOND_TIMEOUT: (_PANEL_TIMEOUT + 0.5, _PANEL_TIMEOUT + 2),
}
_LASTING_ELSE: Final = (0.0, 2.0)
_AT_ONCE: Final = (1, 2, 2, 3, 4)  # faults in a round, as often as each stands there
_LONG_EVERY: Final = 8  # decks


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """`node` is the one it happens to, where it happens to one. Seconds `before` it comes, and `lasting`."""

    kind: Kind
    node: int
    before: float
    lasting: float
    seed: int
    """For what chance there is in how it is done."""

    def __str__(self) -> str:
        return f"{self.kind}({self.node}) {self.lasting:.1f} s"


Round = tuple[Fault, ...]
"""Faults one after the other, with no rest in between; after them all is looked at."""


def rounds(seed: int, *, nodes: int, kinds: Sequence[Kind]) -> Iterator[Round]:
    """The rounds, without end. Each kind comes as often as the others, but for `LONG`."""
    random = Random(seed)
    deck: list[Kind] = []
    decks = 0
    while True:
        count = random.choice(_AT_ONCE)
        while len(deck) < count:
            wanted = [kind for kind in kinds if kind not in LONG or decks % _LONG_EVERY == 0]
            deck += random.sample(wanted, len(wanted))
            decks += 1
        yield tuple(_fault(random, deck.pop(0), nodes) for _ in range(count))


def _fault(random: Random, kind: Kind, nodes: int) -> Fault:
    return Fault(
        kind=kind,
        node=random.randint(1, nodes),
        before=random.uniform(0.0, 0.6),
        lasting=random.uniform(*_LASTING.get(kind, _LASTING_ELSE)),
        seed=random.getrandbits(32),
    )
