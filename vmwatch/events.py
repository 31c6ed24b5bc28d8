# SPDX-License-Identifier: Apache-2.0
"""libvirt's event and state numbers, their names, and what each means for a VM's status.

Pure tables: they know no libvirt, so that the master and the panel can read what a node tells. The names are
those of libvirt's constants in lower case: VIR_DOMAIN_EVENT_STOPPED_FROM_SNAPSHOT is `stopped`,
`from_snapshot`. The place of a name in its tuple is libvirt's number. A number that these tables do not know
(of a newer libvirt) becomes `unknown-N`; tests/unit/test_events.py says which names of the installed libvirt
they lack.

Source: https://libvirt.org/html/libvirt-libvirt-domain.html, up to libvirt 11.10.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class EventType(StrEnum):
    """What happened: libvirt's lifecycle events, then three of its other events."""

    DEFINED = "defined"
    UNDEFINED = "undefined"
    STARTED = "started"
    SUSPENDED = "suspended"
    RESUMED = "resumed"
    STOPPED = "stopped"
    SHUTDOWN = "shutdown"
    PMSUSPENDED = "pmsuspended"
    CRASHED = "crashed"
    REBOOTED = "rebooted"  # VIR_DOMAIN_EVENT_ID_REBOOT
    IOERROR = "ioerror"  # VIR_DOMAIN_EVENT_ID_IO_ERROR_REASON
    WATCHDOG = "watchdog"  # VIR_DOMAIN_EVENT_ID_WATCHDOG


class Status(StrEnum):
    """What the panel shows of a VM, seen over the whole cluster."""

    RUNNING = "running"
    PAUSED = "paused"
    SLEEPING = "sleeping"
    SAVED = "saved"
    STOPPED = "stopped"
    CRASHED = "crashed"
    MIGRATING = "migrating"
    UNKNOWN = "unknown"


class CopyState(StrEnum):
    """What one node knows of its own copy of a VM."""

    RUNNING = "running"
    PAUSED = "paused"
    SLEEPING = "sleeping"
    SAVED = "saved"
    STOPPED = "stopped"
    CRASHED = "crashed"
    INCOMING = "incoming"  # being migrated to this node, does not run here yet
    LEAVING = "leaving"  # being migrated away, paused for the last of it
    DEPARTED = "departed"  # migrated away
    GONE = "gone"  # undefined; of a copy that is alive it says no more than that it became transient


DETAILS: Final[Mapping[EventType, Sequence[str]]] = {
    EventType.DEFINED: ("added", "updated", "renamed", "from_snapshot"),
    EventType.UNDEFINED: ("removed", "renamed"),
    EventType.STARTED: ("booted", "migrated", "restored", "from_snapshot", "wakeup", "recreated"),
    EventType.SUSPENDED: (
        "paused",
        "migrated",
        "ioerror",
        "watchdog",
        "restored",
        "from_snapshot",
        "api_error",
        "postcopy",
        "postcopy_failed",
        "guest_shutdown",
    ),
    EventType.RESUMED: ("unpaused", "migrated", "from_snapshot", "postcopy", "postcopy_failed"),
    EventType.STOPPED: (
        "shutdown",
        "destroyed",
        "crashed",
        "migrated",
        "saved",
        "failed",
        "from_snapshot",
        "recreated",
    ),
    EventType.SHUTDOWN: ("finished", "guest", "host"),
    EventType.PMSUSPENDED: ("memory", "disk"),
    EventType.CRASHED: ("panicked", "crashloaded"),
}
"""libvirt's lifecycle events and their details, both in the order of libvirt's numbers."""

IOERROR_ACTIONS: Final = ("none", "pause", "report")
WATCHDOG_ACTIONS: Final = ("none", "pause", "reset", "poweroff", "shutdown", "debug", "injectnmi")
REBOOTED_SUBTYPE: Final = "reset"
"""libvirt gives its REBOOT event no detail; it stands for QEMU's RESET."""

_LIFECYCLE: Final = tuple(DETAILS)

# What an event says of the copy it speaks of: first for the type, then for the details that differ. A detail
# that the table does not know counts as its type does; what has no type here says nothing of the state.
_EFFECTS: Final[Mapping[str, CopyState]] = {
    EventType.UNDEFINED: CopyState.GONE,
    EventType.STARTED: CopyState.RUNNING,
    EventType.SUSPENDED: CopyState.PAUSED,
    EventType.RESUMED: CopyState.RUNNING,
    EventType.STOPPED: CopyState.STOPPED,
    EventType.PMSUSPENDED: CopyState.SLEEPING,
    EventType.CRASHED: CopyState.CRASHED,
}
_EXCEPTIONS: Final[Mapping[tuple[str, str], CopyState | None]] = {
    (EventType.UNDEFINED, "renamed"): None,  # defined(renamed) follows, of the same uuid
    (EventType.STARTED, "migrated"): CopyState.INCOMING,
    (EventType.SUSPENDED, "migrated"): CopyState.LEAVING,
    (EventType.SUSPENDED, "postcopy"): CopyState.LEAVING,  # its memory runs on the target
    (EventType.STOPPED, "migrated"): CopyState.DEPARTED,
    (EventType.STOPPED, "saved"): CopyState.SAVED,
    (EventType.STOPPED, "crashed"): CopyState.CRASHED,
    (EventType.CRASHED, "crashloaded"): None,  # the guest's crash kernel has taken over, and runs
}

# What a snapshot tells of libvirt's state and reason: (libvirt's reason, type, subtype). Where a reason has
# no event of its own, it is the one that libvirt itself sends on the way into it; else the subtype `unknown`.
STATES: Final = ("nostate", "running", "blocked", "paused", "shutdown", "shutoff", "crashed", "pmsuspended")
_STARTED_UNKNOWN: Final = ("unknown", EventType.STARTED, "unknown")
REASONS: Final[Mapping[str, Sequence[tuple[str, EventType, str]]]] = {
    "nostate": (_STARTED_UNKNOWN,),  # of drivers that cannot tell; the domain is there and active
    "running": (
        _STARTED_UNKNOWN,
        ("booted", EventType.STARTED, "booted"),
        ("migrated", EventType.RESUMED, "migrated"),  # started(migrated) does not run yet
        ("restored", EventType.STARTED, "restored"),
        ("from_snapshot", EventType.STARTED, "from_snapshot"),
        ("unpaused", EventType.RESUMED, "unpaused"),
        ("migration_canceled", EventType.RESUMED, "migrated"),
        ("save_canceled", EventType.RESUMED, "unpaused"),
        ("wakeup", EventType.STARTED, "wakeup"),
        ("crashed", EventType.RESUMED, "unpaused"),  # resumed after a crash
        ("postcopy", EventType.RESUMED, "postcopy"),
        ("postcopy_failed", EventType.RESUMED, "postcopy_failed"),
    ),
    "blocked": (_STARTED_UNKNOWN,),  # waits for a resource: runs
    "paused": (
        ("unknown", EventType.SUSPENDED, "unknown"),
        ("user", EventType.SUSPENDED, "paused"),
        # Both ends of a migration have this reason: see snapshot.py, which knows what the copy was before.
        ("migration", EventType.SUSPENDED, "migrated"),
        ("save", EventType.SUSPENDED, "paused"),
        ("dump", EventType.SUSPENDED, "paused"),
        ("ioerror", EventType.SUSPENDED, "ioerror"),
        ("watchdog", EventType.SUSPENDED, "watchdog"),
        ("from_snapshot", EventType.SUSPENDED, "from_snapshot"),
        ("shutting_down", EventType.SUSPENDED, "unknown"),
        ("snapshot", EventType.SUSPENDED, "paused"),
        ("crashed", EventType.CRASHED, "panicked"),
        ("starting_up", EventType.SUSPENDED, "starting_up"),  # never told: see snapshot.py
        ("postcopy", EventType.SUSPENDED, "postcopy"),
        ("postcopy_failed", EventType.SUSPENDED, "postcopy_failed"),
        ("api_error", EventType.SUSPENDED, "api_error"),
    ),
    # Being shut down: it still runs.
    "shutdown": (_STARTED_UNKNOWN, ("user", EventType.STARTED, "unknown")),
    "shutoff": (
        ("unknown", EventType.STOPPED, "unknown"),
        ("shutdown", EventType.STOPPED, "shutdown"),
        ("destroyed", EventType.STOPPED, "destroyed"),
        ("crashed", EventType.STOPPED, "crashed"),
        ("migrated", EventType.STOPPED, "migrated"),
        ("saved", EventType.STOPPED, "saved"),
        ("failed", EventType.STOPPED, "failed"),
        ("from_snapshot", EventType.STOPPED, "from_snapshot"),
        ("daemon", EventType.STOPPED, "failed"),  # libvirtd gave it up when it came back
    ),
    "crashed": (("unknown", EventType.CRASHED, "unknown"), ("panicked", EventType.CRASHED, "panicked")),
    "pmsuspended": (("unknown", EventType.PMSUSPENDED, "unknown"),),
}


def event_name(number: int) -> str:
    """The name of a lifecycle event (virDomainEventType)."""
    return _name(_LIFECYCLE, number)


def detail_name(event: int, detail: int) -> str:
    """The name of a lifecycle event's detail (virDomainEvent…DetailType)."""
    return _name(DETAILS[_LIFECYCLE[event]] if 0 <= event < len(_LIFECYCLE) else (), detail)


def ioerror_name(action: int) -> str:
    """The name of what the hypervisor did about an I/O error (virDomainEventIOErrorAction)."""
    return _name(IOERROR_ACTIONS, action)


def watchdog_name(action: int) -> str:
    """The name of what the hypervisor did when the guest's watchdog fired (virDomainEventWatchdogAction)."""
    return _name(WATCHDOG_ACTIONS, action)


def effect(kind: str, subtype: str) -> CopyState | None:
    """The state of a copy after an event of this type and subtype; None if the event says nothing of it."""
    if (kind, subtype) in _EXCEPTIONS:
        return _EXCEPTIONS[kind, subtype]
    return _EFFECTS.get(kind)


def state_event(state: int, reason: int) -> tuple[str, str]:
    """The (type, subtype) that a snapshot tells of a domain in this virDomainState with this reason.

    A state that the tables do not know counts as running: that a VM stopped is never told on a guess.
    """
    reasons = REASONS[STATES[state]] if 0 <= state < len(STATES) else (_STARTED_UNKNOWN,)
    if 0 <= reason < len(reasons):
        return reasons[reason][1:]
    return reasons[0][1], f"unknown-{reason}"


def copy_state(state: int, reason: int) -> CopyState:
    """The state of a copy that libvirt shows in this virDomainState with this reason."""
    told = state_event(state, reason)
    return _EXCEPTIONS.get(told) or _EFFECTS[told[0]]


def _name(names: Sequence[str], number: int) -> str:
    return names[number] if 0 <= number < len(names) else f"unknown-{number}"
