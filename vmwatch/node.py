# SPDX-License-Identifier: Apache-2.0
"""vmwatch-node: libvirt's events into the outbox, and from there to the master."""

from __future__ import annotations

import asyncio
import logging
import secrets
import socket
import sys
import time
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Never

from vmwatch import __version__, config, link, messages
from vmwatch.errors import HypervisorLost
from vmwatch.hypervisor import Hypervisor, boot_id
from vmwatch.link import LinkLost, Push
from vmwatch.messages import Hello, LibvirtState
from vmwatch.outbox import Outbox
from vmwatch.protocol import Keys, derive_keys
from vmwatch.recorder import Recorder
from vmwatch.service import Flag, Life, Program, run
from vmwatch.session import Stream
from vmwatch.statistics import Statistics
from vmwatch.throttle import Throttle

if TYPE_CHECKING:
    from vmwatch.config import Endpoint, NodeSettings

_WAIT: Final = Flag(name="wait", help="wait for libvirt at the start instead of exiting with 69")
_LIBVIRT_RETRY_SECONDS: Final = 0.25
_MASTER_RETRY_SECONDS: Final = (0.1, 0.2, 0.4, 0.5)  # after the first, second, ... attempt in a row
_WARNING_SECONDS: Final = 60.0
_FAREWELL_SECONDS: Final = 1.0

log = logging.getLogger(__name__)


async def watch(settings: NodeSettings, life: Life) -> int:
    """The node service, from its first connection to its end. Raises HypervisorLost, StorageError."""
    keys = derive_keys(settings.secret)
    settings.state_dir.mkdir(parents=True, exist_ok=True)
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
    try:
        async with asyncio.TaskGroup() as tasks:
            background = [
                tasks.create_task(_speak(stream, settings.connect, keys)),
                tasks.create_task(_beat(stream, recorder, settings.heartbeat_interval)),
                tasks.create_task(recorder.run()),
            ]
            try:
                await _follow_libvirt(settings, life, stream, recorder)
            finally:
                await _say_farewell(stream)
                for task in background:
                    task.cancel()
    finally:
        link.flush()
        outbox.close()
    return 0


async def _follow_libvirt(settings: NodeSettings, life: Life, stream: Stream, recorder: Recorder) -> None:
    """Connect, find what was missed, listen. Returns when asked to stop; HypervisorLost when libvirt is gone."""
    lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    hypervisor = await _connect(settings.libvirt_uri, life, stream, recorder, lost)
    if hypervisor is None:
        return
    try:
        stream.libvirt = LibvirtState.CONNECTED
        await recorder.compare(hypervisor)
        stream.beat()
        life.ready()
        async with asyncio.TaskGroup() as tasks:
            collecting = tasks.create_task(_collect(stream, settings))
            reason = await _first(life, lost)
            collecting.cancel()
        recorder.keep()
        recorder.confirm()
    finally:
        await hypervisor.close()
    if reason is not None:
        raise HypervisorLost(f"libvirt at {settings.libvirt_uri} is gone: {reason}")


async def _connect(
    uri: str, life: Life, stream: Stream, recorder: Recorder, lost: asyncio.Future[str]
) -> Hypervisor | None:
    """The connection; with --wait, as soon as it can be had, or None when asked to stop before."""
    waiting = False
    while not life.stop.is_set():
        try:
            return await Hypervisor.connect(uri, on_event=recorder.hear, on_lost=lost.set_result)
        except HypervisorLost as error:
            stream.libvirt = LibvirtState.LOST
            stream.beat()
            if _WAIT.name not in life.flags:
                raise
            if not waiting:
                log.warning("waiting for libvirt: %s", error)
            waiting = True
        with suppress(TimeoutError):
            await asyncio.wait_for(life.stop.wait(), _LIBVIRT_RETRY_SECONDS)
    return None


async def _first(life: Life, lost: asyncio.Future[str]) -> str | None:
    """Wait for the stop (None), or for the loss of libvirt (its reason)."""
    stop = asyncio.create_task(life.stop.wait())
    stop_or_loss: set[asyncio.Future[Any]] = {stop, lost}
    await asyncio.wait(stop_or_loss, return_when=asyncio.FIRST_COMPLETED)
    stop.cancel()
    return lost.result() if lost.done() else None


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
            await _hold(stream, push)
            log.info("session ended: endpoint=%s", endpoint)
        attempts += 1
        await asyncio.sleep(_MASTER_RETRY_SECONDS[min(attempts, len(_MASTER_RETRY_SECONDS)) - 1])


async def _hold(stream: Stream, push: Push) -> None:
    """One session: speak until the connection is gone. The speaker ends before its socket does."""
    speaking = asyncio.create_task(stream.run(push.send))
    lost = asyncio.create_task(push.lost())
    try:
        await asyncio.wait({speaking, lost}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (speaking, lost):
            task.cancel()
        ended = await asyncio.gather(speaking, lost, return_exceptions=True)
        push.close(linger=_FAREWELL_SECONDS)
    for outcome in ended:
        if isinstance(outcome, Exception):
            raise outcome


async def _beat(stream: Stream, recorder: Recorder, seconds: float) -> Never:
    while True:
        if stream.libvirt is LibvirtState.CONNECTED:
            recorder.confirm()
        stream.beat()
        await asyncio.sleep(seconds)


async def _collect(stream: Stream, settings: NodeSettings) -> Never:
    """Offer the statistics of all VMs, now and every interval."""
    statistics = Statistics(settings.libvirt_uri)
    while True:
        domains = await statistics.read()
        if domains is not None:
            stream.offer(messages.Statistics(time=_now(), domains=tuple(domains)))
        await asyncio.sleep(settings.statistics_interval)


async def _say_farewell(stream: Stream) -> None:
    """Before the end: what the master does not know yet, within a moment. The outbox keeps the rest."""
    if stream.libvirt is LibvirtState.CONNECTED and not sys.exc_info()[0]:
        return
    stream.libvirt = LibvirtState.LOST
    stream.beat()
    with suppress(TimeoutError):
        await asyncio.wait_for(stream.idle.wait(), _FAREWELL_SECONDS)


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
