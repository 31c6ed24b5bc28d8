# SPDX-License-Identifier: Apache-2.0
"""From a real libvirtd (test driver) into a real outbox: what it tells, and what it did not."""

from __future__ import annotations

import asyncio
import itertools
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from tests.integration.driver import definition, virsh
from tests.integration.polling import until
from vmwatch.errors import HypervisorLost
from vmwatch.events import CopyState
from vmwatch.hypervisor import DomainEvent, Hypervisor
from vmwatch.libvirt_loop import KEEPALIVE_COUNT, KEEPALIVE_SECONDS
from vmwatch.messages import Event, Source
from vmwatch.outbox import Outbox
from vmwatch.protocol import Kind
from vmwatch.recorder import HELD, Recorder
from vmwatch.strict import decode

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from tests.lab.host import Host

pytestmark = pytest.mark.needs("libvirtd", "unshare", "virsh")

NOTICED = timedelta(seconds=KEEPALIVE_SECONDS * (KEEPALIVE_COUNT + 1))


class Node:
    """An outbox and its recorder, with a clock that can be set."""

    def __init__(self, folder: Path) -> None:
        self.ahead = timedelta()
        self.outbox = Outbox(folder / "outbox.db", now=self.clock(), random=1, boot="boot")
        self.grown = 0
        self.recorder = Recorder(self.outbox, on_kept=self._on_kept, clock=self.clock)

    def clock(self) -> datetime:
        return datetime.now(UTC) + self.ahead

    def _on_kept(self) -> None:
        self.grown += 1

    def events(self) -> list[Event]:
        """All that was kept, of every run."""
        return [
            decode(Event, record.body)
            for record in self.outbox.read(after=0, limit=99_999)
            if record.kind is Kind.EVENT
        ]

    def told(self, source: Source | None = None) -> list[str]:
        return [
            f"{event.name} {event.type}({event.subtype})"
            for event in self.events()
            if source in (None, event.source)
        ]

    @asynccontextmanager
    async def listening(self, host: Host) -> AsyncIterator[Hypervisor]:
        lost: list[str] = []
        hypervisor = await Hypervisor.connect(host.test_uri, on_event=self.recorder.hear, on_lost=lost.append)
        keeping = asyncio.create_task(self.recorder.run())
        try:
            yield hypervisor
        finally:
            await hypervisor.close()
            keeping.cancel()
            with suppress(asyncio.CancelledError):
                await keeping


@asynccontextmanager
async def node(folder: Path) -> AsyncIterator[Node]:
    node = Node(folder)
    with closing(node.outbox):
        yield node


async def test_events_are_kept_as_they_come(driver: Host, tmp_path: Path) -> None:
    async with node(tmp_path) as own, own.listening(driver) as hypervisor:
        await own.recorder.compare(hypervisor)
        assert own.told() == ["test started(unknown)"]
        await virsh(driver, "suspend test", "resume test", "destroy test")
        await until(lambda: own.outbox.top == 4)
        assert own.told(Source.EVENT) == [
            "test suspended(paused)",
            "test resumed(unpaused)",
            "test stopped(destroyed)",
        ]
        assert own.grown >= 2


async def test_what_happened_while_nobody_listened_is_found_once(driver: Host, tmp_path: Path) -> None:
    async with node(tmp_path) as own, own.listening(driver) as hypervisor:
        await virsh(driver, definition(tmp_path, "gone"), "start gone", definition(tmp_path, "off"))
        await own.recorder.compare(hypervisor)
        confirmed = own.outbox.confirmed
    await virsh(driver, "suspend test", "destroy gone", "undefine gone", "start off")
    async with node(tmp_path) as own, own.listening(driver) as hypervisor:
        before = len(own.told())
        await own.recorder.compare(hypervisor)
        assert sorted(own.told()[before:]) == [
            "gone stopped(unknown)",
            "gone undefined(removed)",
            "off started(booted)",
            "test suspended(paused)",
        ]
        found = own.events()[before:]
        assert {(event.source, event.since) for event in found} == {(Source.SNAPSHOT, confirmed)}
        await own.recorder.compare(hypervisor)
        assert len(own.events()) == before + 4


async def test_a_comparison_finds_nothing_while_all_is_told(driver: Host, tmp_path: Path) -> None:
    names = [f"vm{number}" for number in range(15)]
    storm = [f"{what} {name}" for what in ("start", "suspend", "resume", "destroy") * 8 for name in names]
    async with node(tmp_path) as own, own.listening(driver) as hypervisor:
        await virsh(driver, *(definition(tmp_path, name) for name in names))
        await own.recorder.compare(hypervisor)
        before = len(own.told())
        storming = asyncio.create_task(virsh(driver, *storm))
        rounds = 0
        while not storming.done():
            compared = asyncio.create_task(own.recorder.compare(hypervisor))
            await asyncio.wait({compared, storming}, return_when=asyncio.FIRST_COMPLETED)
            await compared
            rounds += 1
        await storming
        await until(lambda: len(own.told()) >= before + len(storm))
        told = own.told()[before:]
    assert [event for event in told if "unknown" in event] == []
    assert len(told) == len(storm), "each change once: as an event, and not found as well"
    for name in names:
        mine = [event.removeprefix(f"{name} ") for event in told if event.startswith(f"{name} ")]
        assert (
            mine
            == [
                "started(booted)",
                "suspended(paused)",
                "resumed(unpaused)",
                "stopped(destroyed)",
            ]
            * 8
        )
    assert rounds > 0


async def test_a_vm_that_never_rests_does_not_hold_up_the_comparison(driver: Host, tmp_path: Path) -> None:
    async with node(tmp_path) as own, own.listening(driver) as hypervisor:
        await virsh(driver, definition(tmp_path, "other"), "start other")
        await own.recorder.compare(hypervisor)
    await virsh(driver, "destroy other")
    enough = asyncio.Event()

    async def never_rest() -> None:
        while not enough.is_set():
            await virsh(driver, *["suspend test", "resume test"] * 500)

    restless = asyncio.create_task(never_rest())
    async with node(tmp_path) as own, own.listening(driver) as hypervisor:
        await until(lambda: len(own.told(Source.EVENT)) > 3)
        await asyncio.wait_for(own.recorder.compare(hypervisor), 10)
        enough.set()
        assert own.told(Source.SNAPSHOT)[-1] == "other stopped(destroyed)"
        await restless


async def test_a_restart_in_a_storm_tells_every_state_that_lasts(driver: Host, tmp_path: Path) -> None:
    names = [f"vm{number}" for number in range(10)]
    await virsh(driver, *(definition(tmp_path, name) for name in names), *(f"start {name}" for name in names))
    storm = [f"{what} {name}" for what in ("suspend", "resume") * 40 for name in names]
    storming = asyncio.create_task(virsh(driver, *storm, "suspend vm3"))
    lives = 0
    while not storming.done():
        async with node(tmp_path) as own, own.listening(driver) as hypervisor:
            await own.recorder.compare(hypervisor)
        lives += 1
    await storming
    async with node(tmp_path) as own, own.listening(driver) as hypervisor:
        await own.recorder.compare(hypervisor)
        listed = {domain.uuid: domain.state for domain in await hypervisor.list_domains()}
        known = {uuid: known.state for uuid, known in own.outbox.known.items()}
        assert known == listed
        assert sorted(known.values()).count(CopyState.PAUSED) == 1
        for name in names:
            kinds = [event.type for event in own.events() if event.name == name]
            assert all(one != other for one, other in itertools.pairwise(kinds)), "told twice"
    assert lives > 0


# --- a full disk ---


@contextmanager
def full_disk(outbox: Outbox) -> Iterator[None]:
    """No page more: SQLITE_FULL, as of a full disk."""
    with outbox._database.reading() as sql:
        (pages,) = sql.execute("PRAGMA page_count").fetchone()
        sql.execute(f"PRAGMA max_page_count={pages}")
        yield
        sql.execute("PRAGMA max_page_count=1000000")


def heard(number: int) -> DomainEvent:
    return DomainEvent(
        uuid="u",
        name="flood",
        type="suspended" if number % 2 else "resumed",
        subtype="unknown",
        time=datetime.now(UTC),
        cause=None,
        domain_id=9,
    )


async def test_what_cannot_be_written_waits_in_memory_and_is_kept_in_order(
    driver: Host, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="vmwatch.recorder")
    async with node(tmp_path) as own, own.listening(driver) as hypervisor:
        await own.recorder.compare(hypervisor)
        with full_disk(own.outbox):
            for number in range(3000):
                own.recorder.hear(heard(number))
            await virsh(driver, "suspend test", "resume test")
            await until(lambda: "cannot be written" in caplog.text)
            confirmed = own.outbox.confirmed
            own.ahead = timedelta(minutes=1)
            own.recorder.confirm()
            assert own.outbox.confirmed == confirmed, "what is known is not right"
        await until(lambda: own.told()[-1] == "test resumed(unpaused)")
        assert [event.type for event in own.events() if event.name == "flood"] == [
            "resumed",
            "suspended",
        ] * 1500
        assert len(own.told(Source.EVENT)) == 3002
    said = [record.levelname for record in caplog.records if "written" in record.getMessage()]
    assert said == ["WARNING", "INFO"]


async def test_what_is_more_than_memory_holds_is_found_when_there_is_room(
    driver: Host, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with node(tmp_path) as own, own.listening(driver) as hypervisor:
        await own.recorder.compare(hypervisor)
        confirmed = own.outbox.confirmed
        comparing = asyncio.create_task(own.recorder.compare_when_in_doubt(hypervisor))
        with full_disk(own.outbox):
            for number in range(600):
                own.recorder.hear(heard(number))
            await until(lambda: "cannot be written" in caplog.text)
            await virsh(driver, "suspend test")
            await until(lambda: own.recorder._heard[-1].name == "test")
            for number in range(HELD):
                own.recorder.hear(heard(number))
            assert len(own.recorder._heard) == HELD
        own.ahead = timedelta(hours=1)
        own.recorder.confirm()
        assert own.outbox.confirmed == confirmed, "there is room, but it was not compared yet"
        await until(lambda: own.outbox.confirmed != confirmed)
        found = [event for event in own.events() if event.name == "test"]
        assert [(event.type, event.source) for event in found[1:]] == [("suspended", Source.SNAPSHOT)]
        assert found[1].since == confirmed
        assert own.told().count("flood undefined(removed)") == 1
        comparing.cancel()


async def test_a_comparison_waits_until_there_is_room(driver: Host, tmp_path: Path) -> None:
    async with node(tmp_path) as own, own.listening(driver) as hypervisor:
        await own.recorder.compare(hypervisor)
        names = [f"vm{number}" for number in range(60)]
    await virsh(driver, *(definition(tmp_path, name) for name in names))
    async with node(tmp_path) as own, own.listening(driver) as hypervisor:
        with full_disk(own.outbox):
            comparing = asyncio.create_task(own.recorder.compare(hypervisor))
            await until(lambda: own.recorder._failing)
            assert not comparing.done()
        await comparing
        assert sorted(own.told()[1:]) == sorted(
            f"{name} {told}" for name in names for told in ("defined(added)", "stopped(unknown)")
        )


# --- since when ---


async def test_a_frozen_libvirtd_may_have_been_so_for_as_long_as_it_takes_to_notice(
    driver: Host, tmp_path: Path
) -> None:
    async with node(tmp_path) as own, own.listening(driver) as hypervisor:
        await own.recorder.compare(hypervisor)
        compared = own.outbox.confirmed
        assert compared is not None
        own.recorder.confirm()
        assert own.outbox.confirmed == compared, "it never goes back"
        own.ahead = timedelta(hours=1)
        own.recorder.confirm()
        assert own.outbox.confirmed is not None
        late = own.clock() - own.outbox.confirmed
        assert NOTICED <= late < NOTICED + timedelta(seconds=5)


async def test_since_is_not_told_when_the_clock_was_set_back(driver: Host, tmp_path: Path) -> None:
    async with node(tmp_path) as own, own.listening(driver) as hypervisor:
        own.ahead = timedelta(hours=2)
        await own.recorder.compare(hypervisor)
    await virsh(driver, "suspend test")
    async with node(tmp_path) as own, own.listening(driver) as hypervisor:
        await own.recorder.compare(hypervisor)
        assert own.events()[-1].type == "suspended"
        assert own.events()[-1].since is None
        confirmed = own.outbox.confirmed
        assert confirmed is not None
        assert confirmed <= own.clock()


async def test_a_beat_after_the_clock_was_set_back_goes_with_it(driver: Host, tmp_path: Path) -> None:
    async with node(tmp_path) as own, own.listening(driver) as hypervisor:
        await own.recorder.compare(hypervisor)
        own.ahead = -timedelta(hours=1)
        own.recorder.confirm()
        confirmed = own.outbox.confirmed
        assert confirmed is not None
        assert confirmed <= own.clock()


# --- libvirtd goes away ---


async def test_a_list_that_never_comes_is_not_a_comparison(driver: Host, tmp_path: Path) -> None:
    async with node(tmp_path) as own, own.listening(driver) as hypervisor:
        await own.recorder.compare(hypervisor)
        confirmed = own.outbox.confirmed
        driver.kill_libvirtd()
        with pytest.raises(HypervisorLost, match="no list of domains"):
            await own.recorder.compare(hypervisor)
        assert own.outbox.confirmed == confirmed


def test_a_libvirtd_that_was_killed_comes_back_with_other_vms(driver: Host, tmp_path: Path) -> None:
    async def before() -> None:
        async with node(tmp_path) as own, own.listening(driver) as hypervisor:
            await virsh(driver, definition(tmp_path, "web"), "start web")
            await own.recorder.compare(hypervisor)
            driver.kill_libvirtd()  # the test driver's domains die with it, and "test" is made anew

    async def afterwards() -> list[str]:
        async with node(tmp_path) as own, own.listening(driver) as hypervisor:
            known = len(own.told())
            await own.recorder.compare(hypervisor)
            return own.told()[known:]

    asyncio.run(before())
    driver.start_libvirtd()
    assert asyncio.run(afterwards()) == ["web stopped(unknown)", "web undefined(removed)"]
