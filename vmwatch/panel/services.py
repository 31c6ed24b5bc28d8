# SPDX-License-Identifier: Apache-2.0
"""The services of the cluster: configured when that is asked for, looked at when `periodic` is called.

What is to be configured stands in the table `service`, so that it goes on after whatever ends this process. One
configuration runs at a time; what is asked for meanwhile makes the next one.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from vmwatch import __version__
from vmwatch.panel import kept, problems, register_services, sharing, supervision
from vmwatch.panel import shown_services as shown
from vmwatch.panel.bringing import Change
from vmwatch.panel.configuration import MasterAccess
from vmwatch.panel.configuring import Configuring, Outcome
from vmwatch.panel.hosts import Look
from vmwatch.panel.reach import Reach
from vmwatch.panel.remote import HostError, Ssh
from vmwatch.panel.shown_services import MASTER, State

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vmwatch.panel.access import Access
    from vmwatch.panel.addresses import Place
    from vmwatch.panel.settings import ServiceSettings
    from vmwatch.panel.store import Store

RETRY_SECONDS: Final = 5.0
"""Between two tries to have the master forget a removed node, which must have been silent for a while."""

VERSION: Final = "services_version"

log = logging.getLogger(__name__)


class Services:
    """The services that one panel manages; with `managed` False it does nothing."""

    def __init__(
        self,
        store: Store,
        access: Access,
        settings: ServiceSettings,
        *,
        url: str,
        verify: str | None,
        clock: Callable[[], int],
    ) -> None:
        """`url`, `verify`: the panel's API as the master on this host reaches it, and its certificate if need be."""
        self.managed = settings.managed
        self._store, self._clock = store, clock
        ssh = Ssh(identity=settings.ssh_identity, known_hosts=settings.ssh_known_hosts)
        self._reach = Reach(store.connection, ssh)

        def master_access() -> MasterAccess:
            return MasterAccess(url=url, password=sharing.master_password(store, access), verify=verify)

        self._configuring = Configuring(store, self._reach, settings, access=master_access, clock=clock)
        self._asked = asyncio.Event()
        self._waiters: list[asyncio.Future[list[Outcome]]] = []

    def wake(self) -> None:
        """Something was asked for, in a transaction that is committed."""
        self._asked.set()

    async def configure(
        self, numbers: Sequence[int] | None = None, *, new_secret: bool = False
    ) -> list[Outcome]:
        """Configure the services of these nodes (None: all, the master's too); what was done to each."""
        with self._store.transaction() as connection:
            if new_secret:
                sharing.renew_secret(connection)
            elif numbers is None:
                register_services.ask_all(connection)
            for number in numbers or ():
                register_services.ask(connection, number)
        waiter: asyncio.Future[list[Outcome]] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        self.wake()
        return await waiter

    async def check(self, numbers: Sequence[int]) -> list[Outcome]:
        """Look at the services of these nodes, or of MASTER: problems begin and end, what is due is configured."""
        try:
            places = self._reach.places(await self._reach.own_addresses())
        except HostError as error:
            log.warning("not checked: reason=%s", error)
            return [Outcome.unknown(number, error) for number in numbers]
        async with asyncio.TaskGroup() as group:
            looks = [
                group.create_task(self._check(number, places[number]))
                for number in numbers
                if number in places
            ]
        if register_services.asked(self._store.connection):
            self.wake()
        return [look.result() for look in looks]

    async def run(self) -> None:
        """Configure what was asked for, for as long as the panel runs."""
        if not self.managed:
            return
        self._ask_for_version()
        while True:
            self._asked.clear()
            try:
                outcomes = await self._configure()
            except* sqlite3.Error:
                log.exception("what was configured cannot be noted, it is tried again")
                await asyncio.sleep(RETRY_SECONDS)
                self.wake()
            else:
                if any(outcome.change is Change.FORGOTTEN for outcome in outcomes):
                    self.wake()  # it may have been the last node
            await self._wait()

    def _ask_for_version(self) -> None:
        """Another version may write other files."""
        with self._store.transaction() as connection:
            if kept.read(connection, VERSION) != __version__:
                kept.write(connection, VERSION, __version__)
                register_services.ask_all(connection)

    async def _configure(self) -> list[Outcome]:
        """One configuration, for all who wait for the next one by now."""
        waiters, self._waiters = self._waiters, []
        try:
            outcomes = await self._configuring.run()
        except Exception as error:
            for waiter in waiters:
                if not waiter.done():  # whoever asked may have gone
                    waiter.set_exception(error)
            raise
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(outcomes)
        return outcomes

    async def _wait(self) -> None:
        """Until something is asked for, or it is time to try again."""
        is_removing = any(service.removed for service in shown.services(self._store.connection))
        with suppress(TimeoutError):
            async with asyncio.timeout(RETRY_SECONDS if is_removing else None):
                await self._asked.wait()

    async def _check(self, number: int, place: Place) -> Outcome:
        try:
            async with self._reach.host(number, place) as host:
                try:
                    look = await host.look()
                except HostError as error:
                    return self._found(number, Look(state=State.UNREACHABLE, report=None), str(error))
                return self._found(number, look, supervision.text(host.service, look.state))
        except HostError as error:  # there is no such host: it is told where it is to be configured
            return Outcome.unknown(number, error)

    def _found(self, number: int, look: Look, text: str) -> Outcome:
        """Note how a service was found, and what follows. `text` is its problem's, if it has one."""
        with self._store.transaction() as connection:
            now = self._clock()
            services = shown.services(connection)
            is_blocked = number == MASTER and len(services) == 1
            before = register_services.found(connection, number, look.state, look.report, now=now)
            if before is None:  # its node was removed meanwhile
                return Outcome(hostnode=number, state=look.state, change=Change.NONE)
            verdict = supervision.judge(before, look.state, blocked=is_blocked)
            for problem in (supervision.STOPPED, supervision.UNREACHABLE):
                if problem == verdict.problem:
                    problems.begin(connection, problem, hostnode=number, text=text, now=now)
                else:
                    problems.end(connection, problem, hostnode=number, now=now)
            if verdict.again and number == MASTER:
                register_services.ask_all(connection)
            elif verdict.again:
                register_services.ask(connection, number)
        if verdict.problem:
            log.warning("problem: hostnode=%d problem=%s text=%s", number, verdict.problem, text)
        error = text if verdict.problem else None
        return Outcome(hostnode=number, state=look.state, change=Change.NONE, error=error)
