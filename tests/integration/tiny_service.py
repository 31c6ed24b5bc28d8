# SPDX-License-Identifier: Apache-2.0
"""A service that does nothing but what TINY says: test_service runs it as a process."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from vmwatch import config, service
from vmwatch.errors import HypervisorLost

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from vmwatch.config import NodeSettings
    from vmwatch.service import Life

log = logging.getLogger("vmwatch.tiny")


async def serve(settings: NodeSettings, life: Life) -> int:
    log.debug("serving node_id=%d flags=%s", settings.node_id, sorted(life.flags))
    life.status("serving")
    life.ready()
    life.ready()
    await life.stop.wait()
    return 0


async def be_slow(settings: NodeSettings, life: Life) -> int:
    while not settings.state_dir.exists():  # noqa: ASYNC110 (a file has no event)
        await asyncio.sleep(0.01)
    return await serve(settings, life)


async def be_deaf(_settings: NodeSettings, life: Life) -> int:
    life.ready()
    await life.stop.wait()
    log.info("blocked for ever")
    time.sleep(3600)  # noqa: ASYNC251 (what a service must not do)
    return 0


async def lose_libvirt(_settings: NodeSettings, _life: Life) -> int:
    raise HypervisorLost("no libvirt here")


async def lose_libvirt_in_a_group(settings: NodeSettings, life: Life) -> int:
    async with asyncio.TaskGroup() as group:
        group.create_task(lose_libvirt(settings, life))
        group.create_task(life.stop.wait())
    return 0


async def leave_a_thread_that_hangs(settings: NodeSettings, life: Life) -> int:
    asyncio.get_running_loop().run_in_executor(None, time.sleep, 3600)
    return await lose_libvirt(settings, life)


async def have_a_bug(_settings: NodeSettings, _life: Life) -> int:
    raise KeyError("a bug")


async def have_a_bug_in_a_callback(_settings: NodeSettings, life: Life) -> int:
    def callback() -> None:
        raise KeyError("a bug")

    life.ready()
    asyncio.get_running_loop().call_soon(callback)
    await life.stop.wait()
    return 0


async def be_cancelled(_settings: NodeSettings, _life: Life) -> int:
    raise asyncio.CancelledError


async def exit_without_a_word(_settings: NodeSettings, _life: Life) -> int:
    os._exit(7)


async def be_killed(_settings: NodeSettings, _life: Life) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return 0


async def leave(_settings: NodeSettings, _life: Life) -> int:
    return 0


MAINS: dict[str, Callable[[NodeSettings, Life], Awaitable[int]]] = {
    main.__name__: main
    for main in (
        serve,
        be_slow,
        be_deaf,
        lose_libvirt,
        lose_libvirt_in_a_group,
        leave_a_thread_that_hangs,
        have_a_bug,
        have_a_bug_in_a_callback,
        be_cancelled,
        exit_without_a_word,
        be_killed,
        leave,
    )
}

PROGRAM = service.Program(
    name="tiny",
    description="Does what a test wants.",
    default_config=Path("/nonexistent/tiny.conf"),
    read=config.read_node,
    main=MAINS[os.environ.get("TINY", "serve")],
    flags=(service.Flag(name="wait", help="Wait for something."),),
)

if __name__ == "__main__":
    sys.exit(service.run(PROGRAM))
