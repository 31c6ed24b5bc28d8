# SPDX-License-Identifier: Apache-2.0
"""A real libvirtd, with libvirt's test driver: domains without QEMU, events by thousands."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.lab.errors import LabError
from tests.lab.guest import domain_xml
from tests.lab.waiting import wait_for
from vmwatch.errors import HypervisorLost
from vmwatch.events import CopyState
from vmwatch.hypervisor import DomainEvent, Hypervisor
from vmwatch.libvirt_loop import join_loop
from vmwatch.readings import read_unanswered
from vmwatch.snapshot import Known, after, differences
from vmwatch.statistics import Statistics

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    import libvirt

    from tests.lab.host import Host
    from vmwatch.snapshot import Event

pytestmark = pytest.mark.needs("libvirtd", "unshare", "virsh")

DEADLINE = 20.0
UUID = "b6a7c0de-0000-4000-8000-000000000001"
DOMAIN = "<domain type='test'><name>{name}</name><memory>1024</memory><os><type>hvm</type></os></domain>"


@pytest.fixture
def driver(driver_host: Host) -> Iterator[Host]:
    yield driver_host
    with suppress(LabError):
        driver_host.thaw_libvirtd()  # the laboratory says good-bye to it, and waits for its answer


def boot(host: Host, *, on_reboot: str = "restart") -> libvirt.virDomain:
    """Start a guest and return when its userspace answers."""
    domain = host.connection.defineXML(domain_xml("vm", on_reboot=on_reboot, uuid=UUID))
    domain.create()
    host.console("vm").wait_ready()
    return domain


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

    def stops(self) -> list[str]:
        return [f"{event.subtype} {event.cause}" for event in self.events if event.type == "stopped"]

    def told(self, name: str) -> list[str]:
        return [f"{event.type}({event.subtype})" for event in self.events if event.name == name]


@asynccontextmanager
async def listening(uri: str) -> AsyncIterator[tuple[Hypervisor, Listener]]:
    listener = Listener()
    hypervisor = await Hypervisor.connect(uri, on_event=listener.on_event, on_lost=listener.on_lost)
    try:
        yield hypervisor, listener
    finally:
        await hypervisor.close()


async def virsh(driver: Host, *commands: str) -> None:
    """What an administrator does, in a process of its own."""
    process = await asyncio.create_subprocess_exec(
        *("virsh", "--quiet", "--connect", driver.test_uri, "; ".join(commands)),
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


async def test_every_event_that_the_test_driver_makes_has_its_names(driver: Host, tmp_path: Path) -> None:
    commands = [command for command, _ in LIFE]
    async with listening(driver.test_uri) as (_, listener):
        await virsh(driver, definition(tmp_path, "guestfs-1"), definition(tmp_path, "vm"), *commands)
        await listener.until(lambda: "undefined(removed)" in listener.told("vm"))
        assert listener.told("vm") == ["defined(added)", *(event for _, told in LIFE for event in told)]
        assert listener.told("guestfs-1") == []
        assert not listener.lost
    assert not listener.lost


async def test_events_carry_the_run_and_the_time_of_hearing(driver: Host, tmp_path: Path) -> None:
    before = datetime.now(UTC)
    async with listening(driver.test_uri) as (hypervisor, listener):
        await virsh(driver, definition(tmp_path, "vm"), "start vm", "suspend vm", "resume vm")
        await listener.until(lambda: "resumed(unpaused)" in listener.told("vm"))
        (domain,) = (domain for domain in await hypervisor.list_domains() if domain.name == "vm")
    assert domain.domain_id is not None
    events = [event for event in listener.events if event.name == "vm"]
    assert [event.domain_id for event in events] == [None, *[domain.domain_id] * 3]
    assert {event.uuid for event in events} == {domain.uuid}
    times = [before, *(event.time for event in events), datetime.now(UTC)]
    assert times == sorted(times)


async def test_the_list_shows_every_domain_and_its_state(driver: Host, tmp_path: Path) -> None:
    names = ("guestfs-1", "off", "runs", "paused")
    define = [definition(tmp_path, name) for name in names]
    async with listening(driver.test_uri) as (
        hypervisor,
        _,
    ):  # the test driver forgets its domains with its last client
        await virsh(driver, *define, "start runs", "start paused", "suspend paused")
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
    driver: Host, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[str] = []
    resumed = asyncio.Event()

    def on_event(event: DomainEvent) -> None:
        told.append(event.type)
        if event.type == "resumed":
            resumed.set()
        if event.type == "suspended":
            raise ValueError("a mistake of ours")

    hypervisor = await Hypervisor.connect(driver.test_uri, on_event=on_event, on_lost=told.append)
    await virsh(driver, "suspend test", "resume test")
    async with asyncio.timeout(DEADLINE):
        await resumed.wait()
    await hypervisor.close()
    assert told == ["suspended", "resumed"]
    assert "a mistake of ours" in caplog.text


async def test_a_killed_libvirtd_is_lost_once_within_a_second(driver: Host) -> None:
    async with listening(driver.test_uri) as (hypervisor, listener):
        driver.libvirtd.kill()
        await listener.until(lambda: listener.lost, seconds=1.0)
        with pytest.raises(HypervisorLost):
            await hypervisor.list_domains()
    assert len(listener.lost) == 1


async def test_a_libvirtd_killed_under_a_call_is_lost_once(driver: Host) -> None:
    async with listening(driver.test_uri) as (hypervisor, listener):
        driver.freeze_libvirtd()
        listing = asyncio.create_task(hypervisor.list_domains())
        await asyncio.sleep(0)  # the call is made
        driver.libvirtd.kill()
        with pytest.raises(HypervisorLost):
            await listing
        await listener.until(lambda: listener.lost, seconds=1.0)
    assert len(listener.lost) == 1


async def until_thread(name: str) -> None:
    """Return as soon as a call is made in a thread of this name."""
    while all(thread.name != name for thread in threading.enumerate()):  # noqa: ASYNC110 (each step counts)
        await asyncio.sleep(0)


def unread(descriptor: int) -> int:
    """How many of libvirt's messages lie unread in a connection. Each begins with its length."""
    content = b""
    with socket.socket(fileno=os.dup(descriptor)) as connection, suppress(BlockingIOError):
        content = connection.recv(1 << 20, socket.MSG_PEEK)
    count = 0
    while content:
        content = content[int.from_bytes(content[:4], "big") :]
        count += 1
    return count


@pytest.mark.parametrize("by_a_call", [False, True], ids=["in the loop", "by a call's thread"])
async def test_what_came_from_libvirt_before_it_was_lost_is_told(driver: Host, by_a_call: bool) -> None:
    async with listening(driver.test_uri) as (hypervisor, listener):
        (descriptor,) = join_loop().descriptors
        command = ("virsh", "--connect", driver.test_uri, "; ".join(["suspend test", "resume test"] * 50))
        # It holds the loop, so that all comes at once.
        subprocess.run(command, check=True, capture_output=True)  # noqa: ASYNC221
        driver.freeze_libvirtd()
        came = unread(descriptor)
        if by_a_call:
            listing = asyncio.create_task(hypervisor.list_domains())
            await until_thread("libvirt-list")
            wait_for(lambda: unread(descriptor) == 0, seconds=DEADLINE, what="the call's thread to read")
            waiting = getattr(asyncio.get_running_loop(), "_ready")  # noqa: B009 (asyncio's own)
            assert len(waiting) < 10, "not one for each message"
        driver.kill_libvirtd()
        if by_a_call:
            with pytest.raises(HypervisorLost):
                await listing
        await listener.until(lambda: listener.lost)
    assert len(listener.told("test")) == came > 10


async def test_a_connection_that_is_given_up_while_it_registers_leaves_nothing(driver: Host) -> None:
    async with listening(driver.test_uri):
        pass
    before, pid, listener = belongings(), driver.libvirtd.pid, Listener()
    connect = Hypervisor.connect(driver.test_uri, on_event=listener.on_event, on_lost=listener.on_lost)
    connecting = asyncio.create_task(connect)
    await until_thread("libvirt")
    os.kill(pid, signal.SIGSTOP)  # it registers, and there are five answers to wait for
    connecting.cancel()
    await asyncio.wait({connecting}, timeout=0.1)
    driver.thaw_libvirtd()
    with pytest.raises(asyncio.CancelledError):
        await connecting
    assert belongings() == before


async def test_a_frozen_libvirtd_is_lost_by_keepalive(driver: Host) -> None:
    async with listening(driver.test_uri) as (_, listener):
        driver.freeze_libvirtd()
        await listener.until(lambda: listener.lost, seconds=10.0)
    assert listener.lost == ["no answer to keepalive"]


async def test_no_libvirtd_is_said_quickly_and_clearly(driver: Host) -> None:
    driver.kill_libvirtd()
    start = time.monotonic()
    with pytest.raises(HypervisorLost) as lost:
        async with listening(driver.test_uri):
            pytest.fail("there is nobody to connect to")
    assert time.monotonic() - start < 1.0
    assert driver.test_uri in str(lost.value)
    assert "\n" not in str(lost.value)


async def test_connecting_to_a_frozen_libvirtd_is_given_up_on(driver: Host) -> None:
    driver.freeze_libvirtd()
    with pytest.raises(HypervisorLost, match="does not answer within 5 s"):
        async with listening(driver.test_uri):
            pytest.fail("nobody answers")
    driver.thaw_libvirtd()
    async with listening(driver.test_uri) as (hypervisor, _):
        assert await hypervisor.list_domains()


async def test_closing_does_not_wait_for_a_frozen_libvirtd(driver: Host) -> None:
    async with listening(driver.test_uri) as (hypervisor, listener):
        driver.freeze_libvirtd()
        start = time.monotonic()
        await hypervisor.close()
        assert time.monotonic() - start < 3.0
        driver.thaw_libvirtd()
    assert not listener.lost


async def test_register_list_compare_loses_nothing_in_a_storm(driver: Host, tmp_path: Path) -> None:
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
    hypervisor = await Hypervisor.connect(driver.test_uri, on_event=on_event, on_lost=lost.append)
    storming = asyncio.create_task(virsh(driver, *define, *storm, "suspend test"))
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


async def test_statistics_survive_a_frozen_libvirtd(driver: Host, caplog: pytest.LogCaptureFixture) -> None:
    statistics = Statistics(driver.test_uri, seconds=0.5)
    assert [domain.name for domain in await statistics.read() or []] == ["test"]
    driver.freeze_libvirtd()
    for _ in range(3):
        assert await statistics.read() is None
    stuck = [thread for thread in threading.enumerate() if thread.name == "libvirt-statistics"]
    assert len(stuck) == 2
    assert caplog.text.count("statistics cannot be read") == 1
    driver.thaw_libvirtd()
    for thread in stuck:
        await asyncio.to_thread(thread.join, DEADLINE)
    assert await statistics.read()


async def test_statistics_without_libvirtd_are_none(driver: Host) -> None:
    driver.kill_libvirtd()
    assert await Statistics(driver.test_uri).read() is None


def belongings() -> tuple[int, int, int]:
    gc.collect()
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    return descriptors, len(asyncio.all_tasks()), threading.active_count()


async def test_many_rounds_leave_nothing_behind(driver: Host) -> None:
    async def one_round() -> tuple[int, int, int]:
        async with listening(driver.test_uri) as (hypervisor, _):
            assert await hypervisor.list_domains()
            assert await Statistics(driver.test_uri).read()
        return belongings()

    await one_round()
    first = await one_round()
    for _ in range(50):
        last = await one_round()
    assert last == first


async def tell(host: Host, command: str, listener: Listener, until: Callable[[], object]) -> None:
    """Tell the guest, again where its console lost the first word of it."""
    async with asyncio.timeout(DEADLINE):
        while not until():
            await asyncio.to_thread(host.console("vm").tell, command)
            with suppress(TimeoutError):
                await listener.until(until, seconds=2.0)


async def test_qemu_tells_why_a_guest_stopped(host: Host) -> None:
    """Under on_reboot=destroy a reboot and a poweroff look the same to libvirt."""
    async with listening(host.uri) as (_, listener):
        await asyncio.to_thread(boot, host, on_reboot="destroy")
        await tell(host, "reboot", listener, lambda: len(listener.stops()) == 1)
        await asyncio.to_thread(boot, host, on_reboot="destroy")
        await tell(host, "poweroff", listener, lambda: len(listener.stops()) == 2)
        domain = await asyncio.to_thread(boot, host, on_reboot="destroy")
        await asyncio.to_thread(domain.reset, 0)
        await listener.until(lambda: len(listener.stops()) == 3)
        await asyncio.to_thread(boot, host, on_reboot="destroy")
        host.qemu("vm").kill()
        await listener.until(lambda: len(listener.stops()) == 4)
    assert listener.stops() == [
        "shutdown guest-reset",
        "shutdown guest-shutdown",
        "shutdown host-qmp-system-reset",
        "failed None",
    ]


async def test_a_reboot_is_told_once(host: Host) -> None:
    await asyncio.to_thread(boot, host)
    async with listening(host.uri) as (_, listener):
        await tell(host, "reboot", listener, lambda: listener.events)
        await asyncio.to_thread(host.console("vm").wait_ready)
        assert listener.told("vm") == ["rebooted(reset)"]


async def test_a_wedged_guest_holds_up_neither_the_list_nor_the_later_statistics(host: Host) -> None:
    await asyncio.to_thread(boot, host)
    async with listening(host.uri) as (hypervisor, _):
        statistics = Statistics(host.uri, seconds=1.0)
        (before,) = await statistics.read() or []
        assert await asyncio.to_thread(read_unanswered, host.uri) == {}
        host.qemu("vm").suspend()
        assert await statistics.read() is None
        unanswered = await asyncio.to_thread(read_unanswered, host.uri)
        assert unanswered.keys() == {"vm"}
        assert unanswered["vm"] >= 1.0
        assert [domain.uuid for domain in await hypervisor.list_domains()] == [before.uuid]
        (later,) = await statistics.read() or []
        host.qemu("vm").resume()
        await asyncio.to_thread(
            wait_for, lambda: not read_unanswered(host.uri), seconds=10, what="QEMU to answer again"
        )
    assert later.run == before.run


READER = """
import asyncio, os, sys
os.setgroups([])
os.setuid(65534)
from vmwatch.hypervisor import Hypervisor

async def main():
    events = asyncio.Queue()
    hypervisor = await Hypervisor.connect("qemu:///system", on_event=events.put_nowait, on_lost=print)
    print(len(await hypervisor.list_domains()), flush=True)
    event = await asyncio.wait_for(events.get(), 10)
    print(event.name, event.type, event.subtype)
    await hypervisor.close()

asyncio.run(main())
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user, who may not write")
async def test_who_may_only_read_is_told_all_the_same(driver: Host) -> None:
    driver.folder.chmod(0o755)
    reader = await asyncio.create_subprocess_exec(
        *("unshare", "--mount", "sh", "-c", 'mount --bind "$0" /run && exec "$@"'),
        *(str(driver.folder / "run"), sys.executable, "-c", READER),
        stdout=asyncio.subprocess.PIPE,
    )
    assert reader.stdout
    assert await reader.stdout.readline() == b"0\n"
    await asyncio.to_thread(driver.connection.defineXML, domain_xml("vm"))
    assert await reader.stdout.read() == b"vm defined added\n"
    assert await reader.wait() == 0
