# SPDX-License-Identifier: Apache-2.0
"""An OS installation: what an event of its VM, a person, or the time limit makes of it. Pure.

A template says how often the guest reboots until it is installed. While it is being installed, its domain has
`on_reboot=destroy`, so that each reboot is a stop, which is counted down, and after which the panel starts the
VM again; after the last one it lets it boot from its disk. One stop that is not counted stalls an installation,
one too many ends it early. So nothing is counted but a stop that QEMU names a guest's reboot, or of which
nobody knows why it happened (it is counted, and marked as guessed); any other waits for a person. And a stop
is one of this step only if the VM was heard to run since the panel was last to start it: what comes before that
is of an earlier life of the VM (an event of a VM comes in order, but it may come late).

Source: the product's documentation of `rebootcount`; QEMU's words for a shutdown's cause are those of
https://www.qemu.org/docs/master/interop/qemu-qmp-ref.html, ShutdownCause.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Final, NamedTuple

from vmwatch.events import CopyState, EventType, effect

if TYPE_CHECKING:
    from collections.abc import Mapping


class Action(StrEnum):
    """What is to be done at the node's libvirt."""

    INSTALL = "install"  # boot from the medium; a VM that runs is ended first
    START = "start"  # boot from the medium again; a VM that runs is left alone
    FINISH = "finish"  # boot from the disk: it is installed
    RELEASE = "release"  # let it boot from the disk from now on, and leave it as it is: it was cancelled


class Choice(StrEnum):
    """What a person says to an installation."""

    CONTINUE = "continue"  # the step is done: count it, and go on
    RETRY = "retry"  # the step is not done: start the VM again
    CANCEL = "cancel"  # no installation any more


class Installation(NamedTuple):
    """One that goes on. `steps` ≥ 1 reboots in all, `remaining` to come (0: its last intent is open).

    `heard`: the VM was heard to run since the panel was last to start it. `waits`: for a person, and why.
    `guessed`: how many reboots were counted though nobody knows the cause of the stop.
    """

    steps: int
    remaining: int
    heard: bool = False
    waits: str | None = None
    guessed: int = 0


class Outcome(NamedTuple):
    """The installation from now on, and what is to be done."""

    installation: Installation
    action: Action | None = None


TIMEOUT: Final = "timeout"
UNHEARD: Final = "unheard"
REBOOT: Final = "guest-reset"

REASONS: Final[Mapping[str, str]] = {
    "guest-shutdown": "the guest switched itself off",
    "guest-panic": "the guest's kernel failed",
    "host-qmp-quit": "its QEMU was told to quit",
    "host-qmp-system-reset": "it was reset by an administrator",
    "host-signal": "its QEMU was ended by a signal",
    "host-error": "the host had an error",
    "destroyed": "it was switched off by force",
    "crashed": "the guest crashed",
    "panicked": "the guest's kernel failed",
    "failed": "its QEMU failed, or was killed",
    "saved": "its memory was saved to a file",
    "from_snapshot": "it was reverted to a snapshot",
    UNHEARD: "it is off, and was not heard to run: why it stopped, and how often, is not known",
    TIMEOUT: "its time limit is over",
}
"""Why an installation waits -> the same in words. Words that are not here are libvirt's or QEMU's own."""

_ALIVE: Final = frozenset({CopyState.RUNNING, CopyState.PAUSED, CopyState.SLEEPING})
_OFF: Final = frozenset({CopyState.STOPPED, CopyState.SAVED, CopyState.CRASHED})
_MAY_BE_REBOOTS: Final = frozenset({(EventType.STOPPED, "shutdown"), (EventType.STOPPED, "unknown")})


def begin(rebootcount: int) -> Outcome:
    """A new one, of a template with so many reboots."""
    return Outcome(Installation(steps=rebootcount, remaining=rebootcount), Action.INSTALL)


def follow(
    old: Installation, kind: str, subtype: str, cause: str | None, *, intended: Action | None
) -> Outcome:
    """After an event of its VM, of the copy that is the VM. `intended`: what is being done at the node."""
    state = effect(kind, subtype)
    if state in _ALIVE:
        return Outcome(_heard(old))
    if state in _OFF and old.remaining:
        return _stopped(old, _reason(kind, subtype, cause), intended=intended)
    return Outcome(old)


def expire(old: Installation) -> Outcome:
    """After its time limit: it waits, unless it did."""
    return Outcome(old if old.waits else old._replace(waits=TIMEOUT))


def miss(old: Installation) -> Outcome:
    """After the VM, which the panel had started a while ago, was found off, and nobody has told of it."""
    return Outcome(old if old.heard or old.waits else old._replace(waits=UNHEARD))


def decide(old: Installation, choice: Choice) -> Outcome:
    """After a person's choice. A cancelled one ends: what is left of it is the action."""
    if choice is Choice.CANCEL:
        return Outcome(old, Action.RELEASE)
    if choice is Choice.RETRY or old.remaining == 0:
        return Outcome(old._replace(waits=None), _again(old))
    new, action = _count(old._replace(waits=None), guessed=False)
    return Outcome(new._replace(heard=old.heard), action)  # after its time limit it may run, and runs on


def describe(reason: str) -> str:
    """Why it waits, in words."""
    return REASONS.get(reason, f"it stopped: {reason}")


def _heard(old: Installation) -> Installation:
    # Who waits because the VM was off waits no longer: somebody has started it, or an old stop was taken for new.
    return old._replace(heard=True, waits=old.waits if old.waits == TIMEOUT else None)


def _stopped(old: Installation, reason: str | None, *, intended: Action | None) -> Outcome:
    if old.waits or (intended is Action.INSTALL and reason == "destroyed"):
        # Of two reasons to wait the first counts. And what we have ourselves ended was an earlier life.
        return Outcome(old._replace(heard=False))
    if not old.heard:
        return Outcome(old if intended else old._replace(waits=UNHEARD))
    if reason in (None, REBOOT):
        return _count(old, guessed=reason is None)
    return Outcome(old._replace(waits=reason, heard=False))


def _again(old: Installation) -> Action:
    if old.remaining == 0:
        return Action.FINISH
    # Of one that has not begun, what runs may still be what was there before.
    return Action.INSTALL if old.remaining == old.steps and not old.heard else Action.START


def _count(old: Installation, *, guessed: bool) -> Outcome:
    remaining = old.remaining - 1
    new = old._replace(remaining=remaining, heard=False, guessed=old.guessed + guessed)
    return Outcome(new, Action.START if remaining else Action.FINISH)


def _reason(kind: str, subtype: str, cause: str | None) -> str | None:
    """QEMU's word for why it stopped, else libvirt's; None: nobody knows, and it may have been a reboot."""
    if (kind, subtype) not in _MAY_BE_REBOOTS:
        return subtype
    return cause or None
