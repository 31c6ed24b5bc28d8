# SPDX-License-Identifier: Apache-2.0
"""What is read from libvirt beside its events: each reading opens a connection of its own, read-only.

They block, a counters' reading perhaps without end: call them in a thread that may hang (`patience`).
"""

from __future__ import annotations

from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final
from xml.etree import ElementTree as ET

import libvirt

from vmwatch.errors import HypervisorLost
from vmwatch.libvirt_loop import KEEPALIVE_COUNT, KEEPALIVE_SECONDS
from vmwatch.snapshot import is_appliance

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_ACTIVE: Final = libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE
_COUNTER_GROUPS: Final = libvirt.VIR_DOMAIN_STATS_INTERFACE | libvirt.VIR_DOMAIN_STATS_BLOCK
_COUNTER_FLAGS: Final = (
    libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_ACTIVE | libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Counters:
    """A running domain, and libvirt's record of it: `net.0.rx.bytes`, `block.1.rd.reqs`, ...

    `writable_disks`: the targets (`vda`) of the disks that the guest can write; a record does not tell them.
    """

    uuid: str
    name: str
    domain_id: int
    writable_disks: frozenset[str]
    record: Mapping[str, int | str]


def read_counters(uri: str) -> list[Counters]:
    """The running domains' counters, in one bulk call, and one for the disks of each. Raises HypervisorLost."""
    with _connection(uri) as connection:
        return [
            Counters(
                uuid=domain.UUIDString(),
                name=domain.name(),
                domain_id=domain.ID(),
                writable_disks=_writable_disks(domain),
                record=record,
            )
            for domain, record in connection.getAllDomainStats(_COUNTER_GROUPS, _COUNTER_FLAGS)
            if not is_appliance(domain.name())
        ]


def read_unanswered(uri: str) -> dict[str, float]:
    """For how many seconds QEMU has not answered libvirt, by the names of the domains where it has not.

    Asks no QEMU, and so tells of a silent one only while somebody waits for its answer: the counters' reading,
    an administrator. 0.5 ms a domain. Raises HypervisorLost.
    Source: https://libvirt.org/html/libvirt-libvirt-domain.html#virDomainGetControlInfo
    """
    with _connection(uri) as connection:
        waits = {domain.name(): _wait(domain) for domain in connection.listAllDomains(_ACTIVE)}
    return {name: seconds for name, seconds in waits.items() if seconds > 0 and not is_appliance(name)}


def boot_id() -> str:
    """What the kernel calls this boot of the host: another one, and no domain has run on."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def _writable_disks(domain: libvirt.virDomain) -> frozenset[str]:
    try:
        definition = ET.fromstring(domain.XMLDesc())  # noqa: S314 (libvirt's own writing)
    except libvirt.libvirtError:  # it has just ended
        return frozenset()
    return frozenset(
        target.get("dev", "")
        for disk in definition.iterfind("devices/disk")
        if disk.get("device") != "cdrom" and disk.find("readonly") is None
        for target in disk.iterfind("target")
    )


def _wait(domain: libvirt.virDomain) -> float:
    try:
        state, _, milliseconds = domain.controlInfo()
    except libvirt.libvirtError:  # it has just ended, or its driver has no such thing
        return 0.0
    return milliseconds / 1000 if state == libvirt.VIR_DOMAIN_CONTROL_OCCUPIED else 0.0


@contextmanager
def _connection(uri: str) -> Iterator[libvirt.virConnect]:
    try:
        connection = libvirt.openReadOnly(uri)
        try:
            connection.setKeepAlive(KEEPALIVE_SECONDS, KEEPALIVE_COUNT)  # ends the wait for a frozen libvirtd
            yield connection
        finally:
            with suppress(libvirt.libvirtError):
                connection.close()
    except libvirt.libvirtError as error:
        raise HypervisorLost(f"cannot read from libvirt at {uri}: {error}") from error
