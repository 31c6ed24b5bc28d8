# SPDX-License-Identifier: Apache-2.0
"""Domains that are gone with their stop, of which libvirt (a real one, its test driver) tells no `undefined`."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, closing, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import libvirt
import pytest

from tests.integration.driver import DOMAIN, definition, virsh
from tests.integration.polling import until
from vmwatch.hypervisor import DomainEvent, Hypervisor
from vmwatch.messages import Event
from vmwatch.outbox import Outbox
from vmwatch.protocol import Kind
from vmwatch.recorder import Recorder
from vmwatch.strict import decode
from vmwatch.transients import Transients

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.lab.host import Host

pytestmark = pytest.mark.needs("libvirtd", "unshare", "virsh")


class Node:
    """Outbox, recorder and transients, as the service wires them."""

    def __init__(self, folder: Path) -> None:
        self.outbox = Outbox(folder / "outbox.db", now=_now(), random=1, boot="boot")
        self.recorder = Recorder(self.outbox, on_kept=lambda: None, clock=_now)
        self.transients = Transients(self.outbox, tell=self.recorder.hear, clock=_now)

    def hear(self, event: DomainEvent) -> None:
        self.recorder.hear(event)
        self.transients.hear(event)

    def events(self, name: str) -> list[Event]:
        records = self.outbox.read(after=0, limit=99_999)
        events = [decode(Event, record.body) for record in records if record.kind is Kind.EVENT]
        return [event for event in events if event.name == name]

    def told(self, name: str) -> list[str]:
        return [f"{event.type}({event.subtype}) {event.source}" for event in self.events(name)]

    def knows(self, name: str) -> bool:
        return name in {known.name for known in self.outbox.known.values()}


def _now() -> datetime:
    return datetime.now(UTC)


@asynccontextmanager
async def listening(driver: Host, folder: Path) -> AsyncIterator[tuple[Node, Hypervisor]]:
    node = Node(folder)
    lost: list[str] = []
    hypervisor = await Hypervisor.connect(driver.test_uri, on_event=node.hear, on_lost=lost.append)
    await node.recorder.compare(hypervisor)
    tasks = [
        asyncio.create_task(node.recorder.run()),
        asyncio.create_task(node.transients.follow(hypervisor)),
    ]
    with closing(node.outbox):
        try:
            yield node, hypervisor
        finally:
            for task in tasks:
                task.cancel()
            with suppress(asyncio.CancelledError):
                await asyncio.gather(*tasks)
            await hypervisor.close()


def creation(folder: Path, name: str) -> str:
    """The command that makes a transient domain."""
    file = folder / f"{name}.xml"
    file.write_text(DOMAIN.format(name=name))
    return f"create {file}"


ENDED = ["started(booted) event", "stopped(destroyed) event", "undefined(removed) snapshot"]


async def test_a_transient_domain_leaves_the_known_set_with_its_stop(driver: Host, tmp_path: Path) -> None:
    async with listening(driver, tmp_path) as (node, _):
        await virsh(driver, creation(tmp_path, "vm"), "destroy vm")
        await until(lambda: len(node.events("vm")) == 3)
        assert node.told("vm") == ENDED
        assert not node.knows("vm")
        _, stopped, gone = node.events("vm")
        assert gone.since == stopped.time < gone.time
        assert (gone.time - stopped.time).total_seconds() < 1.0


async def test_one_that_was_undefined_while_it_ran_leaves_it_too(driver: Host, tmp_path: Path) -> None:
    async with listening(driver, tmp_path) as (node, _):
        await virsh(driver, definition(tmp_path, "vm"), "start vm", "undefine vm")
        await until(lambda: len(node.events("vm")) == 3)
        assert node.knows("vm")
        await virsh(driver, "destroy vm")
        await until(lambda: not node.knows("vm"))
        assert node.told("vm")[2:] == ["undefined(removed) event", *ENDED[1:]]


async def test_what_libvirt_tells_itself_is_told_once(driver: Host, tmp_path: Path) -> None:
    rounds = 20
    life = [definition(tmp_path, "vm"), "start vm", "destroy vm", "undefine vm"] * rounds
    async with listening(driver, tmp_path) as (node, _):
        await virsh(driver, definition(tmp_path, "stays"), "start stays", "destroy stays", *life)
        await virsh(driver, creation(tmp_path, "last"), "destroy last")
        await until(lambda: not node.knows("last") and node.told("last"))
        assert (
            node.told("vm")
            == [
                "defined(added) event",
                "started(booted) event",
                "stopped(destroyed) event",
                "undefined(removed) event",
            ]
            * rounds
        )
        assert node.knows("stays")
        assert len(node.told("stays")) == 3


async def test_a_domain_that_is_made_again_at_once_is_not_told_as_gone_afterwards(
    driver: Host, tmp_path: Path
) -> None:
    identity = "<uuid>5f3c2a1e-0000-4000-8000-000000000001</uuid></domain>"
    xml = DOMAIN.format(name="vm").replace("</domain>", identity)
    with closing(libvirt.open(driver.test_uri)) as administrator:
        async with listening(driver, tmp_path) as (node, _):
            for _round in range(5):
                domain = await asyncio.to_thread(administrator.createXML, xml)
                await until(lambda: node.told("vm")[-1:] == ["started(booted) event"])
                await asyncio.to_thread(domain.destroy)
                await until(lambda: node.told("vm")[-1] != "started(booted) event")
            await asyncio.to_thread(administrator.createXML, xml)
            await virsh(driver, creation(tmp_path, "last"), "destroy last")
            await until(lambda: not node.knows("last") and node.told("last"))
            assert node.told("vm")[-1] == "started(booted) event"
            assert node.told("vm").count("started(booted) event") == 6
            assert node.knows("vm")


async def test_a_libvirt_that_does_not_answer_holds_up_no_event(driver: Host, tmp_path: Path) -> None:
    async with listening(driver, tmp_path) as (node, hypervisor):
        with hypervisor._turn:  # as a call that hangs
            await virsh(driver, creation(tmp_path, "vm"), "destroy vm", "suspend test", "resume test")
            await until(lambda: node.told("test")[-1:] == ["resumed(unpaused) event"])
            assert node.knows("vm")
        await until(lambda: not node.knows("vm"))
        assert node.told("vm") == ENDED
