# SPDX-License-Identifier: Apache-2.0
"""What the messages say: the bodies of a stream's records, and of what goes beside the stream. Pure.

How they travel stands in `protocol`; both in docs/protocol.md. No field is left out: what is not known is null.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from vmwatch.events import CopyState


class Source(StrEnum):
    """How the node came to know."""

    EVENT = "event"
    SNAPSHOT = "snapshot"


class LibvirtState(StrEnum):
    """How the node stands with libvirt."""

    CONNECTED = "connected"
    LOST = "lost"


@dataclass(frozen=True, slots=True, kw_only=True)
class Begin:
    """A run of the node service begins. Record 0 of its run.

    `previous` and `last`: the run before it in this outbox and that run's last number; null in a new outbox.
    """

    previous: str | None
    last: int | None
    time: datetime


class Event(NamedTuple):
    """A VM's event: `type` and `subtype` are libvirt's event and detail, in names.

    `cause`: QEMU's reason for a stop. `since`: of a snapshot's finding, the earliest moment it can have
    happened. `domain_id`: libvirt's number of the VM's present run; null while it is off.

    A named tuple: one is made for most messages, in a fraction of a dataclass's time.
    """

    uuid: str
    name: str
    type: str
    subtype: str
    time: datetime
    cause: str | None
    source: Source
    since: datetime | None
    domain_id: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """`count` events were dropped from the outbox here, because `reason`."""

    count: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """Opens a session. Its envelope's run and number are those of the first record that the session sends."""

    host: str
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownDomain:
    """A domain of the node's known set."""

    uuid: str
    name: str
    state: CopyState


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownSet:
    """All domains of the node, as of the record that the envelope's run and number name."""

    domains: tuple[KnownDomain, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat:
    """The node is there. `top` is the number of the last record of this run; the next comes in `interval_ms`.

    `not_responding`: the names of the VMs whose QEMU has not answered libvirt for a while.
    """

    top: int
    time: datetime
    interval_ms: int
    libvirt: LibvirtState
    not_responding: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainStatistics:
    """A running domain's counters since it started, summed over its interfaces and over its disks.

    `interfaces`, `disks`: how many were counted. A disk that the guest cannot write, a CD-ROM, is none here.

    `run` changes when the counters begin anew: it is the host's boot and libvirt's id of the domain. One case
    escapes it, for libvirtd counts on from the highest id that it finds: the domain with the highest id ended
    and was started while libvirtd was restarted. Counters that went down tell it then.
    """

    name: str
    uuid: str
    run: str
    interfaces: int
    disks: int
    packets_received: int
    packets_sent: int
    bytes_received: int
    bytes_sent: int
    read_requests: int
    read_bytes: int
    write_requests: int
    write_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """The counters of all running VMs of the node, read at `time`."""

    time: datetime
    domains: tuple[DomainStatistics, ...]


Body = Begin | Event | Gap | Hello | KnownSet | Heartbeat | Statistics
