# SPDX-License-Identifier: Apache-2.0
"""One configuration of all services that it was asked for, and what became of each.

The master is first: nodes that have their new configuration find it there. Others keep what happens in their
outboxes, so nothing is lost in whatever order they come, nor while one of them cannot be reached.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Self

from vmwatch.errors import ConfigError
from vmwatch.panel import configuration, problems, register_services, sharing, supervision
from vmwatch.panel import shown_services as shown
from vmwatch.panel.bringing import Change, bring
from vmwatch.panel.reach import HERE
from vmwatch.panel.remote import HostError, Unreachable
from vmwatch.panel.shown_services import MASTER, State

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vmwatch.errors import VmwatchError
    from vmwatch.panel.addresses import Place
    from vmwatch.panel.configuration import Cluster, MasterAccess
    from vmwatch.panel.reach import Reach
    from vmwatch.panel.settings import ServiceSettings
    from vmwatch.panel.shown_services import Service
    from vmwatch.panel.store import Store

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a service's configuration came to, or a look at it. `error`: why it failed, or what its problem is."""

    hostnode: int
    state: State
    change: Change
    error: str | None = None

    @classmethod
    def unknown(cls, number: int, error: VmwatchError) -> Self:
        """Nobody could look."""
        return cls(hostnode=number, state=State.UNKNOWN, change=Change.NONE, error=str(error))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Task:
    """One service to be configured. `wanted` makes its file's new text of the old; `asked` is thereby fulfilled."""

    service: Service
    place: Place
    asked: int
    wanted: Callable[[str], str]
    blocked: bool

    @property
    def number(self) -> int:
        return self.service.hostnode


class Configuring:
    """Configures the services of which the table `service` says that they are to be."""

    def __init__(
        self,
        store: Store,
        reach: Reach,
        settings: ServiceSettings,
        *,
        access: Callable[[], MasterAccess],
        clock: Callable[[], int],
    ) -> None:
        """`access` gives the master's, which is made where it is not there; `clock` milliseconds since 1970."""
        self._store, self._reach, self._settings = store, reach, settings
        self._access, self._clock = access, clock

    async def run(self) -> list[Outcome]:
        """Configure what is asked for by now. Each failure is a problem of its own, and holds up no other."""
        if not register_services.asked(self._store.connection):
            return []
        try:
            own = await self._reach.own_addresses()
            cluster = await self._share(own)
        except (HostError, ConfigError) as error:
            return self._all_failed(error)
        tasks = self._tasks(cluster, own)
        outcomes = [await self._configure(task) for task in tasks if task.number == MASTER]
        async with asyncio.TaskGroup() as group:
            nodes = [group.create_task(self._configure(task)) for task in tasks if task.number != MASTER]
        return [*outcomes, *(node.result() for node in nodes)]

    async def _share(self, own: Sequence[str]) -> Cluster:
        services = shown.services(self._store.connection)
        nodes = [service.address for service in services if service.address and not service.removed]
        async with self._reach.host(MASTER, HERE) as host:
            file = await host.read()
        return sharing.share(self._store, self._settings, nodes=nodes, own=own, master_file=file)

    def _tasks(self, cluster: Cluster, own: Sequence[str]) -> list[_Task]:
        services = {service.hostnode: service for service in shown.services(self._store.connection)}
        places = self._reach.places(own)
        tasks = []
        for number, asked in register_services.asked(self._store.connection).items():
            service = services[number]
            blocked = len(services) == 1 if number == MASTER else service.removed
            text = (
                partial(configuration.master, access=self._access())
                if number == MASTER
                else partial(configuration.node, node_id=number)
            )
            wanted = partial(text, cluster=cluster, disabled=blocked)
            tasks.append(
                _Task(service=service, place=places[number], asked=asked, wanted=wanted, blocked=blocked)
            )
        return tasks

    async def _configure(self, task: _Task) -> Outcome:
        try:
            async with self._reach.host(task.number, task.place) as host:
                change, look = await bring(
                    self._store, host, task.wanted, group=self._settings.group, blocked=task.blocked
                )
        except (HostError, ConfigError) as error:
            return await self._forget(task) if task.service.removed else self._failed(task.number, error)
        if task.service.removed:
            return await self._forget(task)
        state = State.DISABLED if task.blocked else State.RUNNING
        with self._store.transaction() as connection:
            now = self._clock()
            register_services.found(connection, task.number, state, look.report, now=now)
            register_services.configured(connection, task.number, task.asked, now=now)
            for problem in supervision.PROBLEMS:
                problems.end(connection, problem, hostnode=task.number, now=now)
        log.info("configured: hostnode=%d change=%s", task.number, change)
        return Outcome(hostnode=task.number, state=state, change=change)

    async def _forget(self, task: _Task) -> Outcome:
        """The end of a removed node: whether its host could be reached or not, the master has to forget it."""
        number = task.number
        try:
            async with self._reach.host(MASTER, HERE) as master:
                look = await master.look()
                if number in look.known_nodes:
                    await master.forget(number)
        except HostError as error:
            with self._store.transaction() as connection:
                register_services.failed(connection, number, f"the master knows it still: {error}")
            return Outcome(hostnode=number, state=State.UNKNOWN, change=Change.FAILED, error=str(error))
        with self._store.transaction() as connection:
            if not register_services.forget(connection, number):
                return Outcome(hostnode=number, state=State.UNKNOWN, change=Change.NONE)  # asked for anew
            register_services.ask(connection, MASTER)  # it may have been the last one
            for problem in supervision.PROBLEMS:
                problems.end(connection, problem, hostnode=number, now=self._clock())
        log.info("forgotten: hostnode=%d", number)
        return Outcome(hostnode=number, state=State.DISABLED, change=Change.FORGOTTEN)

    def _failed(self, number: int, error: VmwatchError) -> Outcome:
        is_unreachable = isinstance(error, Unreachable)
        problem = supervision.UNREACHABLE if is_unreachable else supervision.NOT_CONFIGURED
        with self._store.transaction() as connection:
            now = self._clock()
            register_services.failed(connection, number, str(error))
            if is_unreachable:
                register_services.found(connection, number, State.UNREACHABLE, None, now=now)
            problems.begin(connection, problem, hostnode=number, text=str(error), now=now)
        log.warning("not configured: hostnode=%d reason=%s", number, error)
        state = State.UNREACHABLE if is_unreachable else State.UNKNOWN
        return Outcome(hostnode=number, state=state, change=Change.FAILED, error=str(error))

    def _all_failed(self, error: VmwatchError) -> list[Outcome]:
        """What they share could not be found out, which is one problem, the master's."""
        with self._store.transaction() as connection:
            asked = register_services.asked(connection)
            for number in asked:
                register_services.failed(connection, number, str(error))
            problems.begin(
                connection, supervision.NOT_CONFIGURED, hostnode=MASTER, text=str(error), now=self._clock()
            )
        log.warning("not configured: reason=%s", error)
        return [
            Outcome(hostnode=number, state=State.UNKNOWN, change=Change.FAILED, error=str(error))
            for number in asked
        ]
