# SPDX-License-Identifier: Apache-2.0
"""What the demo plays: the steps of a round, each with what the panel has to come to show."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from tests.lab.errors import LabError
from tests.lab.guest import domain_xml
from tests.lab.waiting import DeadlinePassed, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Self

    import libvirt

    from tests.lab.cluster import Cluster
    from tests.lab.panel_client import Change, PanelClient, ShownVm

SHOWN_SECONDS: Final = 15.0  # far beyond what it takes: a machine under load is no failure
WHILE_MIGRATING: Final = frozenset({"running", "migrating"})  # a VM that moves is never off
LOOK_SECONDS: Final = 0.05  # what asks often is what slows the panel down
WATCH_SECONDS: Final = 0.005

HOMES: Final = {"web": 1, "mail": 1, "db": 2}
"""The demo's VMs, and the node that each is defined on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One thing that is done to a VM, and what the panel has to show of it."""

    vm: str
    done: str
    act: Callable[[], object]
    events: tuple[str, ...]
    """What libvirt has to tell, `started(booted)`. The way of the first to the panel is measured."""
    status: str
    node: int
    cause: str = ""
    migrates: bool = False
    boots: bool = False
    """The guest boots then, which the next step has to wait for: an emulated boot takes all of a processor."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What the panel came to show of a step: the measured event, and the VM after all of them."""

    change: Change
    shown: ShownVm


class Play:
    """The steps of a round, on a cluster with two hosts."""

    def __init__(self, cluster: Cluster, *, accelerator: str) -> None:
        """`accelerator` is the guests' domain type."""
        self._cluster = cluster
        self._accelerator = accelerator

    def opening(self) -> Iterator[Step]:
        """The VMs are made. Once."""
        for vm, node in HOMES.items():
            connection = self._cluster.host(node).connection
            xml = domain_xml(vm, accelerator=self._accelerator)
            act = partial(connection.defineXML, xml)
            yield Step(vm=vm, done="define", act=act, events=("defined(added)",), status="stopped", node=node)

    def round(self) -> Iterator[Step]:
        """All that can happen to a VM; in the end each is as it was in the beginning."""
        for vm, node in HOMES.items():
            act = partial(self._do, "create", vm, node)
            yield Step(
                vm=vm,
                done="start",
                act=act,
                events=("started(booted)",),
                status="running",
                node=node,
                boots=True,
            )
        yield Step(
            vm="web",
            done="pause",
            act=partial(self._do, "suspend", "web", 1),
            events=("suspended(paused)",),
            status="paused",
            node=1,
        )
        yield Step(
            vm="web",
            done="resume",
            act=partial(self._do, "resume", "web", 1),
            events=("resumed(unpaused)",),
            status="running",
            node=1,
        )
        yield Step(
            vm="web",
            done="guest reboots",
            act=partial(self._tell, "web", 1, "reboot"),
            events=("rebooted(reset)",),
            status="running",
            node=1,
            boots=True,
        )
        yield self._migration("web", 1, 2)
        yield self._migration("web", 2, 1)
        yield Step(
            vm="web",
            done="guest powers off",
            act=partial(self._tell, "web", 1, "poweroff"),
            events=("stopped(shutdown)",),
            status="stopped",
            node=1,
            cause="guest-shutdown",
        )
        yield Step(
            vm="mail",
            done="destroy",
            act=partial(self._do, "destroy", "mail", 1),
            events=("stopped(destroyed)",),
            status="stopped",
            node=1,
        )
        yield Step(
            vm="db",
            done="kill -9 of its QEMU",
            act=lambda: self._cluster.host(2).qemu("db").kill(),
            events=("stopped(failed)",),
            status="stopped",
            node=2,
        )

    def wait_booted(self, step: Step) -> None:
        """Return when the guest that boots since the step is up. Raises LabError."""
        self._cluster.host(step.node).console(step.vm).wait_ready()

    def take(self, step: Step) -> Outcome:
        """Do a step; return what the panel came to show. Raises LabError, or libvirt's error."""
        mark = max((change.id for change in self._changes(step.vm)), default=0)
        if not step.migrates:
            step.act()
            return self._await(step, mark)
        with Watch(self._cluster.client, step.vm):
            step.act()
            outcome = self._await(step, mark)
        _check_history(self._changes(step.vm, since=mark))
        return outcome

    def _migration(self, vm: str, source: int, target: int) -> Step:
        hosts = self._cluster.host(source), self._cluster.host(target)
        return Step(
            vm=vm,
            done=f"migrate live, {hosts[0].name} to {hosts[1].name}",
            act=partial(hosts[0].migrate, vm, hosts[1]),
            events=("resumed(migrated)", "stopped(migrated)"),
            status="running",
            node=target,
            migrates=True,
        )

    def _do(self, method: str, vm: str, node: int) -> None:
        domain: libvirt.virDomain = self._cluster.host(node).connection.lookupByName(vm)
        getattr(domain, method)()

    def _tell(self, vm: str, node: int, command: str) -> None:
        self._cluster.host(node).console(vm).tell(command)

    def _await(self, step: Step, mark: int) -> Outcome:
        try:
            outcome = partial(self._outcome, step, mark)
            return wait_for(outcome, seconds=SHOWN_SECONDS, what="the panel", pause=LOOK_SECONDS)
        except DeadlinePassed:
            changes = self._changes(step.vm, since=mark)
            told = ", ".join(f"{event_of(change)}: {change.status}" for change in changes) or "nothing"
            cause = f" by {step.cause}" if step.cause else ""
            raise DeadlinePassed(
                f"{step.vm}: {step.done}: expected {', '.join(step.events)}{cause}, then {step.status} on node"
                f" {step.node}; after {SHOWN_SECONDS:g} s the panel shows"
                f" {self._cluster.client.vm(step.vm)}, and was told {told}"
            ) from None

    def _changes(self, vm: str, *, since: int = 0) -> list[Change]:
        return self._cluster.client.history(vm, since=since) if self._cluster.client.vm(vm) else []

    def _outcome(self, step: Step, mark: int) -> Outcome | None:
        self._cluster.check()
        shown = self._cluster.client.vm(step.vm)
        if shown is None or (shown.status, shown.node) != (step.status, step.node):
            return None
        changes = {event_of(change): change for change in self._cluster.client.history(step.vm, since=mark)}
        if not changes.keys() >= set(step.events):
            return None
        change = changes[step.events[0]]
        return Outcome(change=change, shown=shown) if change.cause == step.cause or not step.cause else None


class Watch:
    """Polls the panel while a VM migrates: it has to be listed once, and as running or migrating, all the time."""

    def __init__(self, client: PanelClient, vm: str) -> None:
        """It reads as `client`'s user, over a connection of its own."""
        self._client = client.clone()
        self._vm = vm
        self._done = threading.Event()
        self._error: LabError | None = None
        self._thread = threading.Thread(target=self._run, name=f"watch {vm}")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._done.set()
        self._thread.join()
        if self._error is not None and kind is None:
            raise self._error

    def _run(self) -> None:
        with self._client:
            while self._error is None:
                self._look()
                if self._done.wait(WATCH_SECONDS):
                    break

    def _look(self) -> None:
        try:
            shown = self._client.vm(self._vm)
        except LabError as error:
            self._error = error
            return
        status = shown.status if shown else "not listed"
        if status not in WHILE_MIGRATING:
            self._error = LabError(f"{self._vm} was shown {status} while it migrated")


def event_of(change: Change) -> str:
    """An event as people write it: `started(booted)`."""
    return f"{change.type}({change.subtype})"


def _check_history(changes: list[Change]) -> None:
    """What was shown too shortly for a poll to see it."""
    wrong = [change for change in changes if change.status not in WHILE_MIGRATING]
    if wrong:
        told = ", ".join(f"{event_of(change)} made it {change.status}" for change in wrong)
        raise LabError(f"while it migrated: {told}")
