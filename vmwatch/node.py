# SPDX-License-Identifier: Apache-2.0
"""vmwatch-node: libvirt's events into the outbox, and from there to the master."""

from __future__ import annotations

import asyncio
import itertools
import logging
import secrets
import socket
import sys
import time
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Never

from vmwatch import __version__, config, link, messages
from vmwatch.database import Damaged
from vmwatch.errors import HypervisorLost
from vmwatch.hypervisor import Hypervisor
from vmwatch.link import LinkLost, Push
from vmwatch.messages import Hello, LibvirtState
from vmwatch.outbox import Outbox
from vmwatch.patience import Patience
from vmwatch.protocol import Keys, derive_keys
from vmwatch.readings import boot_id, read_unanswered
from vmwatch.recorder import Recorder
from vmwatch.service import Flag, Life, Program, run
from vmwatch.session import Stream
from vmwatch.statistics import Statistics
from vmwatch.throttle import Throttle
from vmwatch.transients import Transients

if TYPE_CHECKING:
    from collections.abc import Callable

    from vmwatch.config import Endpoint, NodeSettings
    from vmwatch.hypervisor import DomainEvent

_WAIT: Final = Flag(name="wait", help="wait for libvirt at the start instead of exiting with 69")
_LIBVIRT_RETRY_SECONDS: Final = 0.1
_DOUBT_SECONDS: Final = (0.5, 2.0, 5.0, 10.0)  # after the connection, then after each other, and so on
_MASTER_RETRY_SECONDS: Final = (0.1, 0.2, 0.25)  # after the first, second, ... attempt in a row
_WARNING_SECONDS: Final = 60.0
_FAREWELL_SECONDS: Final = 1.0
_PULSE_SECONDS: Final = 1.0
_LOOK_SECONDS: Final = 5.0
_DAMAGE_SECONDS: Final = 60.0
_DAMAGE_PAUSE_SECONDS: Final = 2.0
_READING_SECONDS: Final = 60.0  # of statistics, at most: one wedged guest holds up the first that meets it
_LEAST_READING_SECONDS: Final = 10.0  # 10 ms a running domain
_ANSWER_SECONDS: Final = 10.0
"""A QEMU that has not answered for so long does not respond; libvirt itself waits without end."""

log = logging.getLogger(__name__)


async def watch(settings: NodeSettings, life: Life) -> int:
    """The node service, from its first connection to its end. Raises HypervisorLost, StorageError.

    When the outbox is found to be damaged, all begins anew with another one, as at a start; at once the first time,
    after a pause where a disk spoils one after the other.
    """
    damaged = float("-inf")
    while not life.stop.is_set():
        try:
            await _watch(settings, life)
        except* Damaged:  # the outbox has said so, and set the file aside
            if time.monotonic() - damaged < _DAMAGE_SECONDS:
                await _stop_or(life, seconds=_DAMAGE_PAUSE_SECONDS)
            damaged = time.monotonic()
    return 0


async def _stop_or(life: Life, *, seconds: float) -> None:
    """Return when the service is to stop, or after so many seconds."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await life.stop.wait()


async def _watch(settings: NodeSettings, life: Life) -> None:
    keys = derive_keys(settings.secret)
    outbox = Outbox(settings.state_dir / "outbox.db", now=_now(), random=secrets.randbits(64), boot=boot_id())
    stream = Stream(
        outbox,
        node=settings.node_id,
        signature=keys.signature,
        hello=Hello(host=socket.gethostname(), version=__version__),
        heartbeat_seconds=settings.heartbeat_interval,
        clock=_now,
    )
    recorder = Recorder(outbox, on_kept=stream.wake, clock=_now)
    transients = Transients(outbox, tell=recorder.hear, clock=_now)
    listening = asyncio.Event()
    try:
        async with asyncio.TaskGroup() as tasks:
            work = [
                tasks.create_task(_speak(stream, settings.connect, keys)),
                tasks.create_task(_beat(stream, settings.heartbeat_interval)),
                tasks.create_task(_confirm(recorder, settings.heartbeat_interval, listening)),
                tasks.create_task(_collect(stream, settings, listening)),
                tasks.create_task(_look_for_silence(stream, settings, listening)),
                tasks.create_task(recorder.run()),
                tasks.create_task(_follow_libvirt(settings, life, stream, recorder, transients, listening)),
            ]
            await life.stop.wait()
            for task in work:
                task.cancel()
    finally:
        link.flush()
        outbox.close()


async def _follow_libvirt(
    settings: NodeSettings,
    life: Life,
    stream: Stream,
    recorder: Recorder,
    transients: Transients,
    listening: asyncio.Event,
) -> Never:
    """Connect, find what was missed, listen until libvirt is gone. Raises HypervisorLost, the master being told."""

    def hear(event: DomainEvent) -> None:
        recorder.hear(event)
        transients.hear(event)

    try:
        hypervisor, lost = await _connect(settings.libvirt_uri, life, stream, hear)
        try:
            await recorder.compare(hypervisor)
            stream.libvirt = LibvirtState.CONNECTED
            stream.beat()
            listening.set()
            life.ready()
            reason = await _until_lost(hypervisor, recorder, transients, lost)
            raise HypervisorLost(f"libvirt at {settings.libvirt_uri} is gone: {reason}")
        finally:
            await hypervisor.close()
            recorder.keep()
    except HypervisorLost:
        await _say_farewell(stream)
        raise


async def _connect(
    uri: str, life: Life, stream: Stream, hear: Callable[[DomainEvent], None]
) -> tuple[Hypervisor, asyncio.Future[str]]:
    """The connection, with --wait as soon as it can be had, and the reason of its loss to come."""
    waiting = False
    while True:
        lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        try:
            return await Hypervisor.connect(uri, on_event=hear, on_lost=lost.set_result), lost
        except HypervisorLost as error:
            if _WAIT.name not in life.flags:
                raise
            if not waiting:
                log.warning("waiting for libvirt: %s", error)
                stream.libvirt = LibvirtState.LOST
                stream.beat()
            waiting = True
        await asyncio.sleep(_LIBVIRT_RETRY_SECONDS)


async def _until_lost(
    hypervisor: Hypervisor, recorder: Recorder, transients: Transients, lost: asyncio.Future[str]
) -> str:
    """The reason of the loss. Until then, what no event tells is looked for where there is reason to."""
    looking = [
        asyncio.create_task(recorder.compare_when_in_doubt(hypervisor)),
        asyncio.create_task(transients.follow(hypervisor)),
        asyncio.create_task(_doubt(recorder)),
    ]
    try:
        either: set[asyncio.Future[Any]] = {*looking, lost}
        done, _ = await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        return await lost if lost.done() else await done.pop()
    finally:
        for task in looking:
            task.cancel()
        await asyncio.gather(*looking, return_exceptions=True)


async def _doubt(recorder: Recorder) -> None:
    """Have the list compared now and then: libvirtd tells nobody of a guest that it finds gone when it starts.

    Finding out may take it a moment, or, where a QEMU was wedged by then and is killed later, days.
    Source: qemuProcessReconnect of libvirt's src/qemu/qemu_process.c makes no event where it fails. Seen with 9.0.
    """
    for seconds in itertools.chain(_DOUBT_SECONDS, itertools.repeat(_DOUBT_SECONDS[-1])):
        await asyncio.sleep(seconds)
        recorder.doubt()


async def _speak(stream: Stream, endpoint: Endpoint, keys: Keys) -> Never:
    """Keep a session with the master, one connection after the other."""
    warnings = Throttle(seconds=_WARNING_SECONDS)
    attempts = 0
    while True:
        try:
            push = await Push.open(endpoint, keys)
        except LinkLost as error:
            if warnings.admit(str(error), now=time.monotonic()) is not None:
                log.warning("no session with the master, events wait: endpoint=%s reason=%s", endpoint, error)
        else:
            attempts = 0
            log.info("session with the master: endpoint=%s", endpoint)
            reason = await _hold(stream, push)
            log.info("session ended: endpoint=%s reason=%s", endpoint, reason)
        attempts += 1
        await asyncio.sleep(_MASTER_RETRY_SECONDS[min(attempts, len(_MASTER_RETRY_SECONDS)) - 1])


async def _hold(stream: Stream, push: Push) -> str:
    """One session: speak until the connection is gone, and why. The speaker ends before its socket does."""
    speaking = asyncio.create_task(stream.run(push.send))
    ends = [asyncio.create_task(push.lost()), asyncio.create_task(push.cut())]
    try:
        await asyncio.wait({speaking, *ends}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (speaking, *ends):
            task.cancel()
        ended = await asyncio.gather(speaking, *ends, return_exceptions=True)
        push.close(linger=_FAREWELL_SECONDS)
    for outcome in ended:
        if isinstance(outcome, Exception):
            raise outcome
    return next(outcome for outcome in ended if isinstance(outcome, str))


async def _beat(stream: Stream, seconds: float) -> Never:
    """More often than it must be to be there: the master asks for freshness before it calls a VM a duplicate."""
    while True:
        stream.beat()
        await asyncio.sleep(min(seconds, _PULSE_SECONDS))


async def _confirm(recorder: Recorder, seconds: float, listening: asyncio.Event) -> Never:
    """Keep how long the known set has been right: what is found later has happened since."""
    await listening.wait()
    while True:
        recorder.confirm()
        await asyncio.sleep(seconds)


async def _collect(stream: Stream, settings: NodeSettings, listening: asyncio.Event) -> Never:
    """Offer the statistics of all VMs, as soon as libvirt is there and every interval."""
    seconds = min(max(settings.statistics_interval, _LEAST_READING_SECONDS), _READING_SECONDS)
    statistics = Statistics(settings.libvirt_uri, seconds=seconds)
    await listening.wait()
    while True:
        domains = await statistics.read()
        if domains is not None:
            stream.offer(messages.Statistics(time=_now(), domains=tuple(domains)))
        await asyncio.sleep(settings.statistics_interval)


async def _look_for_silence(stream: Stream, settings: NodeSettings, listening: asyncio.Event) -> Never:
    """Tell of VMs whose QEMU does not answer: their statuses are the last that libvirt had of them."""
    calls = Patience(name="libvirt-control", limit=1)
    read = partial(read_unanswered, settings.libvirt_uri)
    await listening.wait()
    while True:
        with suppress(HypervisorLost, TimeoutError):  # who follows libvirt tells of that
            waits = await calls.call(read, seconds=_LOOK_SECONDS)
            stream.not_responding = tuple(
                sorted(name for name, wait in waits.items() if wait > _ANSWER_SECONDS)
            )
        await asyncio.sleep(_LOOK_SECONDS)


async def _say_farewell(stream: Stream) -> None:
    """Tell the master that libvirt is gone, if that can be done within a moment. The outbox keeps the rest."""
    stream.libvirt = LibvirtState.LOST
    stream.beat()
    with suppress(TimeoutError):
        async with asyncio.timeout(_FAREWELL_SECONDS):
            await stream.idle.wait()


def _now() -> datetime:
    return datetime.now(UTC)


PROGRAM: Final = Program(
    name="vmwatch-node",
    description="Tells vmwatch-master what happens to the virtual machines of this host.",
    default_config=config.NODE_CONFIG,
    read=config.read_node,
    main=watch,
    flags=(_WAIT,),
)


def main() -> int:
    """The command `vmwatch-node`."""
    return run(PROGRAM)


if __name__ == "__main__":
    sys.exit(main())
