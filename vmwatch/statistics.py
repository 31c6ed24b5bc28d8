# SPDX-License-Identifier: Apache-2.0
"""The domains' counters, read beside everything else: whoever hangs in them holds up nobody."""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Final

from vmwatch.errors import HypervisorLost
from vmwatch.libvirt_loop import join_loop
from vmwatch.messages import DomainStatistics
from vmwatch.patience import Patience
from vmwatch.readings import boot_id, read_counters

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from vmwatch.readings import Counters

log = logging.getLogger(__name__)

# Where each stands in libvirt's record: `net.0.rx.pkts` for the first interface, `block.1.wr.reqs` for the
# second disk. Source: https://libvirt.org/html/libvirt-libvirt-domain.html#virConnectGetAllDomainStats
_COUNTERS: Final = {
    "packets_received": ("net", "rx.pkts"),
    "packets_sent": ("net", "tx.pkts"),
    "bytes_received": ("net", "rx.bytes"),
    "bytes_sent": ("net", "tx.bytes"),
    "read_requests": ("block", "rd.reqs"),
    "write_requests": ("block", "wr.reqs"),
    "read_bytes": ("block", "rd.bytes"),
    "write_bytes": ("block", "wr.bytes"),
}


class Statistics:
    """Reads the counters of all domains, each time on a connection of its own.

    A wedged QEMU holds the first call that asks it, without end; libvirt's NOWAIT carries later ones past it. A
    frozen libvirtd holds every call. So a reading is given up on after a deadline and its connection left to its
    thread, which closes it if it ever returns (nobody else may: the call still uses it). At most two threads
    hang: the one that a wedged guest holds, and the next that tried. Then no reading starts until one of them
    returns, for each holds a worker of libvirtd's, too.
    """

    def __init__(self, uri: str, *, seconds: float = 60.0) -> None:
        """`seconds`: the deadline of a reading; 10 ms a running domain is usual."""
        self._uri = uri
        self._seconds = seconds
        self._calls = Patience(name="libvirt-statistics", limit=2)
        self._fails = False

    async def read(self) -> list[DomainStatistics] | None:
        """The running domains' counters; None when libvirt did not tell them in time.

        The log says once that they cannot be read, and once that they can again.
        """
        join_loop()
        try:
            counters = await self._calls.call(partial(read_counters, self._uri), seconds=self._seconds)
        except (HypervisorLost, TimeoutError) as error:
            if not self._fails:
                reason = str(error) or f"no answer within {self._seconds:g} s"
                log.warning("statistics cannot be read, will be tried again: reason=%s", reason)
            self._fails = True
            return None
        if self._fails:
            log.info("statistics are read again")
        self._fails = False
        return [_statistics(domain, boot=boot_id()) for domain in counters]


def sum_counters(record: Mapping[str, int | str]) -> dict[str, int]:
    """A domain's counters from libvirt's record of it; what the record does not have counts 0."""
    return {
        name: sum(int(record.get(f"{group}.{device}.{counter}", 0)) for device in _devices(record, group))
        for name, (group, counter) in _COUNTERS.items()
    }


def count_devices(record: Mapping[str, int | str], writable: Collection[str]) -> dict[str, int]:
    """How many devices libvirt counted: interfaces, and of the disks those that are `writable`, by their targets.

    It does not count an interface that is no device of the host's, nor the disks of a QEMU that is busy.
    """
    interfaces = [f"net.{device}.tx.pkts" in record for device in _devices(record, "net")]
    disks = [
        f"block.{device}.wr.reqs" in record and record.get(f"block.{device}.name") in writable
        for device in _devices(record, "block")
    ]
    return {"interfaces": sum(interfaces), "disks": sum(disks)}


def _devices(record: Mapping[str, int | str], group: str) -> range:
    return range(int(record.get(f"{group}.count", 0)))


def _statistics(domain: Counters, *, boot: str) -> DomainStatistics:
    return DomainStatistics(
        uuid=domain.uuid,
        name=domain.name,
        run=f"{boot[:8]}-{domain.domain_id}",
        **count_devices(domain.record, domain.writable_disks),
        **sum_counters(domain.record),
    )
