# SPDX-License-Identifier: Apache-2.0
"""Brings one service to its configuration: its file as it is to be, the service running with it, or stopped."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from vmwatch.panel import register_services
from vmwatch.panel.remote import HostError
from vmwatch.panel.shown_services import State

if TYPE_CHECKING:
    from collections.abc import Callable

    from vmwatch.panel.hosts import Host, Look
    from vmwatch.panel.store import Store


class Change(StrEnum):
    """What was done to a service."""

    NONE = "unchanged"
    RESTARTED = "restarted"
    STOPPED = "stopped"
    FORGOTTEN = "forgotten"  # its node was removed
    FAILED = "failed"


async def bring(
    store: Store, host: Host, wanted: Callable[[str], str], *, group: str, blocked: bool
) -> tuple[Change, Look]:
    """`wanted` makes the new text of the service's file of the old one; `blocked`: the service is not to run.

    It is restarted only if its file has changed since its start, or it does not run. Raises HostError; what `wanted`
    raises.
    """
    old = await host.read()
    new = wanted(old)
    if new != old:
        # Before: whoever is killed between the two finds the file as it is to be, and must restart all the same.
        with store.transaction() as connection:
            register_services.set_stale(connection, host.number)
        await host.write(new, group=group)
    look = await host.look()
    runs = look.state is State.RUNNING
    if blocked:
        return (Change.STOPPED, await _stop(host)) if runs else (Change.NONE, look)
    if runs and not register_services.is_stale(store.connection, host.number):
        return Change.NONE, look
    return Change.RESTARTED, await _restart(host)


async def _restart(host: Host) -> Look:
    await host.restart()
    look = await host.look()
    if look.state is not State.RUNNING:
        raise HostError(f"{host.service} was started, and has ended")
    return look


async def _stop(host: Host) -> Look:
    await host.stop()
    look = await host.look()
    if look.state is State.RUNNING:
        raise HostError(f"{host.service} was stopped, and runs")
    return look
