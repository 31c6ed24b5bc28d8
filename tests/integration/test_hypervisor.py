# SPDX-License-Identifier: Apache-2.0
"""A real libvirtd, with libvirt's test driver: domains without QEMU, events by thousands."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.lab.errors import LabError
from tests.lab.host import Host
from vmwatch.errors import HypervisorLost
from vmwatch.events import CopyState
from vmwatch.hypervisor import DomainEvent, Hypervisor
from vmwatch.snapshot import Known, after, differences
from vmwatch.statistics import Statistics

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from vmwatch.snapshot import Event

pytestmark = pytest.mark.needs("libvirtd", "unshare", "virsh")

DEADLINE = 20.0
DOMAIN = "<domain type='test'><name>{name}</name><memory>1024</memory><os><type>hvm</type></os></domain>"


@pytest.fixture
def host() -> Iterator[Host]:
    with Host("hv") as host:
        yield host
        with suppress(LabError):
            host.thaw_libvirtd()  # its laboratory says good-bye to it


class Listener:
    """A hypervisor's two callbacks, and the waiting for what they say."""

    def __init__(self) -> None:
        self.events: list[DomainEvent] = []
        self.lost: list[str] = []
        self._changed = asyncio.Event()

    def on_event(self, event: DomainEvent) -> None:
        self.events.append(event)
        self._changed.set()

    def on_lost(self, reason: str) -> None:
        self.lost.append(reason)
        self._changed.set()

    async def until(self, condition: Callable[[], object], *, seconds: float = DEADLINE) -> None:
        async with asyncio.timeout(seconds):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    def told(self, name: str) -> list[str]:
        return [f"{event.type}({event.subtype})" for event in self.events if event.name == name]


@asynccontextmanager
async def listening(host: Host) -> AsyncIterator[tuple[Hypervisor, Listener]]:
    listener = Listener()
    hypervisor = await Hypervisor.connect(host.test_uri, on_event=listener.on_event, on_lost=listener.on_lost)
    try:
        yield hypervisor, listener
    finally:
        await hypervisor.close()


async def virsh(host: Host, *commands: str) -> None:
    """What an administrator does, in a process of its own."""
    process = await asyncio.create_subprocess_exec(
        *("virsh", "--quiet", "--connect", host.test_uri, "; ".join(commands)),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    _, errors = await process.communicate()
    assert errors == b""


def definition(folder: Path, name: str) -> str:
    """The command that defines a domain."""
    file = folder / f"{name}.xml"
    file.write_text(DOMAIN.format(name=name))
    return f"define {file}"


LIFE: tuple[tuple[str, list[str]], ...] = (
    ("start vm", ["started(booted)"]),
    ("suspend vm", ["suspended(paused)"]),
    ("resume vm", ["resumed(unpaused)"]),
    ("shutdown vm", ["stopped(shutdown)"]),
    ("start vm", ["started(booted)"]),
    ("snapshot-create-as vm one", []),
    ("destroy vm", ["stopped(destroyed)"]),
    ("snapshot-revert vm one", ["started(from_snapshot)"]),
    ("managedsave vm", ["stopped(saved)"]),
    ("managedsave-remove vm", []),
    ("snapshot-delete vm one", []),
    ("undefine vm", ["undefined(removed)"]),
)


async def test_every_event_that_the_test_driver_makes_has_its_names(host: Host, tmp_path: Path) -> None:
    commands = [command for command, _ in LIFE]
    async with listening(host) as (_, listener):
        await virsh(host, definition(tmp_path, "guestfs-1"), definition(tmp_path, "vm"), *commands)
        await listener.until(lambda: "undefined(removed)" in listener.told("vm"))
        assert listener.told("vm") == ["defined(added)", *(event for _, told in LIFE for event in told)]
        assert listener.told("guestfs-1") == []
        assert not listener.lost
    assert not listener.lost


async def test_events_carry_the_run_and_the_time_of_hearing(host: Host, tmp_path: Path) -> None:
    before = datetime.now(UTC)
    async with listening(host) as (hypervisor, listener):
        await virsh(host, definition(tmp_path, "vm"), "start vm", "suspend vm", "resume vm")
        await listener.until(lambda: "resumed(unpaused)" in listener.told("vm"))
        (domain,) = (domain for domain in await hypervisor.list_domains() if domain.name == "vm")
    assert domain.domain_id is not None
    events = [event for event in listener.events if event.name == "vm"]
    assert [event.domain_id for event in events] == [None, *[domain.domain_id] * 3]
    assert {event.uuid for event in events} == {domain.uuid}
    times = [before, *(event.time for event in events), datetime.now(UTC)]
    assert times == sorted(times)


async def test_the_list_shows_every_domain_and_its_state(host: Host, tmp_path: Path) -> None:
    names = ("guestfs-1", "off", "runs", "paused")
    define = [definition(tmp_path, name) for name in names]
    async with listening(host) as (hypervisor, _):  # the test driver forgets its domains with its last client
        await virsh(host, *define, "start runs", "start paused", "suspend paused")
        found = {domain.name: domain for domain in await hypervisor.list_domains()}
    assert {name: domain.state for name, domain in found.items()} == {
        "test": CopyState.RUNNING,  # which the test driver brings along
        "off": CopyState.STOPPED,
        "runs": CopyState.RUNNING,
        "paused": CopyState.PAUSED,
    }
    assert found["off"].domain_id is None
    assert found["runs"].domain_id != found["paused"].domain_id


async def test_a_callback_that_fails_is_logged_and_the_next_event_comes(
    host: Host, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[str] = []
    resumed = asyncio.Event()

    def on_event(event: DomainEvent) -> None:
        told.append(event.type)
        if event.type == "resumed":
            resumed.set()
        if event.type == "suspended":
            raise ValueError("a mistake of ours")

    hypervisor = await Hypervisor.connect(host.test_uri, on_event=on_event, on_lost=told.append)
    await virsh(host, "suspend test", "resume test")
    async with asyncio.timeout(DEADLINE):
        await resumed.wait()
    await hypervisor.close()
    assert told == ["suspended", "resumed"]
    assert "a mistake of ours" in caplog.text


async def test_a_killed_libvirtd_is_lost_once_within_a_second(host: Host) -> None:
    async with listening(host) as (hypervisor, listener):
        host.libvirtd.kill()
        await listener.until(lambda: listener.lost, seconds=1.0)
        with pytest.raises(HypervisorLost):
            await hypervisor.list_domains()
    assert len(listener.lost) == 1


async def test_a_libvirtd_killed_under_a_call_is_lost_once(host: Host) -> None:
    async with listening(host) as (hypervisor, listener):
        host.freeze_libvirtd()
        listing = asyncio.create_task(hypervisor.list_domains())
        await asyncio.sleep(0)  # the call is made
        host.libvirtd.kill()
        with pytest.raises(HypervisorLost):
            await listing
        await listener.until(lambda: listener.lost, seconds=1.0)
    assert len(listener.lost) == 1


async def test_a_frozen_libvirtd_is_lost_by_keepalive(host: Host) -> None:
    async with listening(host) as (_, listener):
        host.freeze_libvirtd()
        await listener.until(lambda: listener.lost, seconds=10.0)
    assert listener.lost == ["no answer to keepalive"]


async def test_no_libvirtd_is_said_quickly_and_clearly(host: Host) -> None:
    host.kill_libvirtd()
    start = time.monotonic()
    with pytest.raises(HypervisorLost) as lost:
        async with listening(host):
            pytest.fail("there is nobody to connect to")
    assert time.monotonic() - start < 1.0
    assert host.test_uri in str(lost.value)
    assert "\n" not in str(lost.value)


async def test_connecting_to_a_frozen_libvirtd_is_given_up_on(host: Host) -> None:
    host.freeze_libvirtd()
    with pytest.raises(HypervisorLost, match="does not answer within 5 s"):
        async with listening(host):
            pytest.fail("nobody answers")
    host.thaw_libvirtd()
    async with listening(host) as (hypervisor, _):
        assert await hypervisor.list_domains()


async def test_closing_does_not_wait_for_a_frozen_libvirtd(host: Host) -> None:
    async with listening(host) as (hypervisor, listener):
        host.freeze_libvirtd()
        start = time.monotonic()
        await hypervisor.close()
        assert time.monotonic() - start < 3.0
        host.thaw_libvirtd()
    assert not listener.lost


async def test_register_list_compare_loses_nothing_in_a_storm(host: Host, tmp_path: Path) -> None:
    names = [f"vm{number}" for number in range(20)]
    define = [definition(tmp_path, name) for name in names]
    storm = [f"{what} {name}" for what in ("start", "suspend", "resume", "destroy") * 5 for name in names]
    known: dict[str, Known] = {}
    touched: set[str] = set()

    def take(uuid: str, event: Event) -> None:
        state = after(known.get(uuid), event)
        assert state is not None
        known[uuid] = state

    def on_event(event: DomainEvent) -> None:
        touched.add(event.uuid)
        take(event.uuid, event)

    async def compare() -> int:
        touched.clear()
        found = await hypervisor.list_domains()
        findings = differences(known, found, skip=touched, now=datetime.now(UTC), since=None)
        for finding in findings:
            take(finding.uuid, finding)
        return len(findings)

    lost: list[str] = []
    hypervisor = await Hypervisor.connect(host.test_uri, on_event=on_event, on_lost=lost.append)
    storming = asyncio.create_task(virsh(host, *define, *storm, "suspend test"))
    rounds = 0
    while not storming.done():
        await compare()
        rounds += 1
    await storming
    while await compare():
        pass
    found = {domain.uuid: domain.state for domain in await hypervisor.list_domains()}
    await hypervisor.close()
    assert len(found) == 1 + len(names)
    assert {uuid: one.state for uuid, one in known.items()} == found
    assert rounds > 10
    assert not lost


async def test_statistics_survive_a_frozen_libvirtd(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    statistics = Statistics(host.test_uri, seconds=0.5)
    assert [domain.name for domain in await statistics.read() or []] == ["test"]
    host.freeze_libvirtd()
    for _ in range(3):
        assert await statistics.read() is None
    stuck = [thread for thread in threading.enumerate() if thread.name == "libvirt-statistics"]
    assert len(stuck) == 2
    assert caplog.text.count("statistics cannot be read") == 1
    host.thaw_libvirtd()
    for thread in stuck:
        await asyncio.to_thread(thread.join, DEADLINE)
    assert await statistics.read()


async def test_statistics_without_libvirtd_are_none(host: Host) -> None:
    host.kill_libvirtd()
    assert await Statistics(host.test_uri).read() is None


def belongings() -> tuple[int, int, int]:
    gc.collect()
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    return descriptors, len(asyncio.all_tasks()), threading.active_count()


async def test_many_rounds_leave_nothing_behind(host: Host) -> None:
    async def one_round() -> tuple[int, int, int]:
        async with listening(host) as (hypervisor, _):
            assert await hypervisor.list_domains()
            assert await Statistics(host.test_uri).read()
        return belongings()

    await one_round()
    first = await one_round()
    for _ in range(50):
        last = await one_round()
    assert last == first
