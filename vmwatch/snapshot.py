# SPDX-License-Identifier: Apache-2.0
"""The known set and libvirt's list -> the events that nobody told (pure).

What happened while libvirtd or this node's service was away left no event. The node keeps what it last knew
of each domain (the known set), compares it with libvirt's list after every connection, and tells the
difference as ordinary events. The set moves on by `after`, event by event, and by nothing else: so a change
that was told, by libvirt or by a snapshot, is not told again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from vmwatch.events import CopyState, EventType, effect

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping
    from datetime import datetime

_Told = TypeVar("_Told", bound="Told")

APPLIANCE_PREFIX: Final = "guestfs-"
"""libguestfs starts short-lived domains of this name to look into disks: no VM of anybody's."""

_ALIVE: Final = frozenset(
    {CopyState.RUNNING, CopyState.PAUSED, CopyState.SLEEPING, CopyState.INCOMING, CopyState.LEAVING}
)

_STARTING: Final = (EventType.SUSPENDED, "starting_up")
_WAITS: Final = frozenset({(EventType.SUSPENDED, "migrated"), (EventType.SUSPENDED, "unknown")})


class Event(Protocol):
    """What the known set learns from: an event of libvirt's, or a `Finding`."""

    @property
    def name(self) -> str:
        """The domain's name after it."""
        ...

    @property
    def type(self) -> str:
        """An `EventType`, or `unknown-N`."""
        ...

    @property
    def subtype(self) -> str:
        """One of the type's details, `unknown`, or `unknown-N`."""
        ...

    @property
    def domain_id(self) -> int | None:
        """The domain's id in libvirt, of its present run; None while it is off."""
        ...


class Told(Event, Protocol):
    """An event, and the domain that it tells of."""

    @property
    def uuid(self) -> str:
        """As libvirt writes it: 36 characters, lower case."""
        ...


class Seen(Told, Protocol):
    """A domain of libvirt's list: type and subtype are what `events.state_event` tells of it."""

    @property
    def state(self) -> CopyState:
        """What `events.copy_state` makes of libvirt's state."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What this node last knew of a domain. `domain_id` is libvirt's, of its present run; None while off."""

    name: str
    state: CopyState
    domain_id: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """An event that nobody told. It happened after `since` (None: nobody knows) and before `time`."""

    uuid: str
    name: str
    type: str
    subtype: str
    time: datetime
    since: datetime | None
    domain_id: int | None


def is_appliance(name: str) -> bool:
    """Whether a domain is none of the hosting's VMs, and is not told of."""
    return name.startswith(APPLIANCE_PREFIX)


def after(known: Known | None, event: Event) -> Known | None:
    """What is known of a domain after an event of it; None: no such domain.

    Undefining a domain that is alive makes it transient: it stays. A domain that was not known and of which
    the event says no more than that it is there (defined) does not run.
    """
    if event.type == EventType.UNDEFINED:
        return known if known and (_alive(known) or event.subtype == "renamed") else None
    state = effect(event.type, event.subtype) or (known.state if known else CopyState.STOPPED)
    return Known(name=event.name, state=state, domain_id=_id_after(known, event, state))


def differences(
    known: Mapping[str, Known],
    found: Iterable[Seen],
    *,
    skip: Collection[str],
    now: datetime,
    since: datetime | None,
) -> list[Finding]:
    """The events that lead from the known set (by uuid) to libvirt's list, in the order to tell them.

    `skip`: uuids that had an event since the list's reading began: it may be older than that; read again.
    What leaves a name (vanished, renamed) comes before what may have taken it.
    """
    listed = {seen.uuid: seen for seen in found if seen.uuid not in skip and not is_appliance(seen.name)}
    leaving = [
        (uuid, event)
        for uuid, old in known.items()
        if uuid not in skip
        for event in _leaving(old, listed.get(uuid))
    ]
    arriving = [(uuid, event) for uuid, seen in listed.items() for event in _arriving(known.get(uuid), seen)]
    return [_finding(uuid, event, now, since) for uuid, event in leaving + arriving]


def completed(
    known: Mapping[str, Known], heard: Iterable[_Told], *, now: datetime, since: datetime | None
) -> list[_Told | Finding]:
    """The events heard, in their order, each after what must have come before it though nobody told it.

    A name is one domain's at a time: who is told of under the name of another tells that the other has left it. That
    was missed, and found only now; told by the comparison that follows, it would come after what has taken the name,
    and the panel, which knows VMs by name, would take the new one for gone.
    """
    learned = dict(known)
    told: list[_Told | Finding] = []
    for event in heard:
        for uuid in _displaced(learned, event):
            old = learned.pop(uuid)
            told += [_finding(uuid, untold, now, since) for untold in _leaving(old, None)]
        told.append(event)
        state = after(learned.pop(event.uuid, None), event)
        if state is not None:
            learned[event.uuid] = state
    return told


def _displaced(known: Mapping[str, Known], event: Told) -> list[str]:
    """The domains that bore the event's name until another one took it unheard."""
    own = known.get(event.uuid)
    if own is not None and own.name == event.name:
        return []
    return [uuid for uuid, other in known.items() if other.name == event.name and uuid != event.uuid]


def _finding(uuid: str, event: Event, now: datetime, since: datetime | None) -> Finding:
    return Finding(
        uuid=uuid,
        name=event.name,
        type=event.type,
        subtype=event.subtype,
        time=now,
        since=since,
        domain_id=event.domain_id,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Untold:
    name: str
    type: str
    subtype: str
    domain_id: int | None = None


def _id_after(known: Known | None, event: Event, state: CopyState) -> int | None:
    if event.type == EventType.STOPPED:
        return None  # libvirt may still name the run that ended
    if event.domain_id is None and known and state in _ALIVE:
        return known.domain_id
    return event.domain_id


def _leaving(known: Known, seen: Seen | None) -> Iterator[_Untold]:
    if seen is None:
        if _alive(known):
            yield _stopped(known)
        yield _Untold(name=known.name, type=EventType.UNDEFINED, subtype="removed")
        return
    if _restarted(known, seen):
        yield _stopped(known)
    if seen.name != known.name:
        yield _Untold(name=known.name, type=EventType.UNDEFINED, subtype="renamed")


def _arriving(known: Known | None, seen: Seen) -> Iterator[Event]:
    # libvirt lists it as paused, and is about to tell that it started, or failed to.
    is_starting = (seen.type, seen.subtype) == _STARTING
    if known is None:
        yield from () if is_starting else _new(seen)
        return
    if seen.name != known.name:
        yield _Untold(name=seen.name, type=EventType.DEFINED, subtype="renamed", domain_id=seen.domain_id)
    changed = _restarted(known, seen) or not _same(known, seen)
    if changed and not is_starting:
        yield seen


def _new(seen: Seen) -> Iterator[Event]:
    if seen.domain_id is None:
        yield _Untold(name=seen.name, type=EventType.DEFINED, subtype="added")
    if (seen.type, seen.subtype) == (EventType.SUSPENDED, "migrated"):
        # libvirt shows both ends of a migration so; a VM that was not here before is not about to leave.
        yield _Untold(name=seen.name, type=EventType.STARTED, subtype="migrated", domain_id=seen.domain_id)
    else:
        yield seen


def _restarted(known: Known, seen: Seen) -> bool:
    """Whether it is alive, as it was, but in another run: it was off in between."""
    if known.domain_id is None or seen.domain_id is None:
        return False
    return known.domain_id != seen.domain_id


def _alive(known: Known) -> bool:
    return known.state in _ALIVE or known.domain_id is not None


def _stopped(known: Known) -> _Untold:
    subtype = "migrated" if known.state == CopyState.LEAVING else "unknown"
    return _Untold(name=known.name, type=EventType.STOPPED, subtype=subtype)


def _same(known: Known, seen: Seen) -> bool:
    told = (seen.type, seen.subtype)
    if not _alive(known):
        return seen.domain_id is None and (known.state == seen.state or _says_less(known, told))
    # libvirt gives both ends of a migration one reason, and the list shows it as the source's.
    waits = known.state == CopyState.INCOMING and told in _WAITS
    # Events of a driver that gives them no domain id told of the run all the same.
    same_run = known.domain_id is None or known.domain_id == seen.domain_id
    return same_run and (known.state == seen.state or waits)


def _says_less(known: Known, told: tuple[str, str]) -> bool:
    """Whether the list knows less of why a domain is off than an event has told.

    A libvirtd that was restarted has forgotten that a domain was saved, or migrated. A QEMU that was killed is
    stopped(failed) to libvirt's event, and to its list it is crashed.
    """
    killed = known.state == CopyState.STOPPED and told == (EventType.STOPPED, "crashed")
    return killed or told == (EventType.STOPPED, "unknown")
