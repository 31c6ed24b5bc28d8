# SPDX-License-Identifier: Apache-2.0
"""Where the services are, and who works on which: what configuring and looking at them share."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from vmwatch.panel import addresses
from vmwatch.panel import shown_services as shown
from vmwatch.panel.addresses import Place
from vmwatch.panel.hosts import Host
from vmwatch.panel.remote import HostError
from vmwatch.panel.shown_services import MASTER

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import AsyncIterator, Mapping, Sequence

    from vmwatch.panel.remote import Ssh

AT_ONCE: Final = 8
"""Hosts that are worked on at the same time."""

HERE: Final = Place(address=None, twin=None)


class Reach:
    """The hosts of all services."""

    def __init__(self, connection: sqlite3.Connection, ssh: Ssh) -> None:
        """`connection` is the panel's database, which is read."""
        self._connection, self._ssh = connection, ssh
        # A look in the middle of a restart would find the service stopped.
        self._locks: defaultdict[int, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._turns = asyncio.Semaphore(AT_ONCE)

    async def own_addresses(self) -> Sequence[str]:
        """Those of this host's interfaces, in order. Raises HostError."""
        listed = await self._host(MASTER, HERE).interfaces()
        try:
            return addresses.of_interfaces(listed)
        except ValueError as error:
            raise HostError(f"ip -json address: {error}") from None

    def places(self, own: Sequence[str]) -> Mapping[int, Place]:
        """Where each service is. Where a removed node was another one may be by now: that one has the place."""
        services = sorted(shown.services(self._connection), key=lambda service: service.removed)
        nodes = {service.hostnode: service.address for service in services if service.hostnode != MASTER}
        return {MASTER: HERE, **addresses.places(nodes, own)}

    @asynccontextmanager
    async def host(self, number: int, place: Place) -> AsyncIterator[Host]:
        """A service's host, for nobody else meanwhile. Raises HostError."""
        async with self._locks[number], self._turns:
            yield self._host(number, place)

    def _host(self, number: int, place: Place) -> Host:
        if place.twin is not None:
            raise HostError(f"node {place.twin} has the same address")
        return Host(number=number, address=place.address, ssh=self._ssh)
