# SPDX-License-Identifier: Apache-2.0
"""vmwatch-master: what the nodes send into the ledger, and from there to the panel."""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
import time
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Final, Never

from vmwatch import config, orders
from vmwatch.database import Damaged
from vmwatch.delivery import Delivery
from vmwatch.errors import StorageError, Unavailable
from vmwatch.intake import WARNING_SECONDS, Intake
from vmwatch.ledger import Ledger
from vmwatch.link import CannotListen, Pull
from vmwatch.presence import Presence
from vmwatch.protocol import derive_keys
from vmwatch.service import Program, run
from vmwatch.sessions import Sessions
from vmwatch.throttle import Throttle
from vmwatch.vmmanager import Access, Panel, read_dialect

if TYPE_CHECKING:
    from collections.abc import Callable

    from vmwatch.config import MasterSettings
    from vmwatch.service import Life

_LOOK_SECONDS: Final = 0.5
_STORAGE_RETRY_SECONDS: Final = 1.0
_DAMAGE_PAUSE_SECONDS: Final = 2.0  # a disk may spoil one ledger after the other

log = logging.getLogger(__name__)


async def watch(settings: MasterSettings, life: Life) -> int:
    """The master service, until it is asked to stop. Raises StorageError, ConfigError.

    When the ledger is found to be damaged, all begins anew with another one, as at a start.
    """
    while not life.stop.is_set():
        try:
            await _watch(settings, life)
        except* Damaged:  # the ledger has said so, and set the file aside
            with suppress(TimeoutError):
                async with asyncio.timeout(_DAMAGE_PAUSE_SECONDS):
                    await life.stop.wait()
    return 0


async def _watch(settings: MasterSettings, life: Life) -> None:
    keys = derive_keys(settings.secret)
    ledger = Ledger(settings.state_dir / "ledger.db", clock=time.monotonic)
    presence = Presence()
    intake = Intake(ledger, presence, signature=keys.signature, monotonic=time.monotonic, clock=_now)
    delivery = Delivery(ledger, open_panel=_panels(settings), clock=time.monotonic)

    def take_orders() -> bool:
        return orders.carry_out(settings.state_dir, ledger, presence, now=_now())

    listen = partial(Pull, settings.listen, keys, on_refused=_Strangers().tell)
    pull = listen()
    try:
        async with asyncio.TaskGroup() as tasks:
            background = [
                tasks.create_task(_receive(pull, listen, ledger, intake, delivery)),
                tasks.create_task(_look_around(intake.look_around, "what is wrong in the cluster", delivery)),
                tasks.create_task(_look_around(take_orders, "what was ordered", delivery)),
                tasks.create_task(delivery.run()),
            ]
            gc.freeze()  # what was made until now stays: to look through it took 12 ms each time
            life.ready()
            await life.stop.wait()
            for task in background:
                task.cancel()
    finally:
        ledger.close()


async def _receive(
    pull: Pull, listen: Callable[[], Pull], ledger: Ledger, intake: Intake, delivery: Delivery
) -> Never:
    """Take what arrives. While it cannot be kept the socket is closed, so that the nodes keep it."""
    warnings = Throttle(seconds=WARNING_SECONDS)
    while True:
        try:
            await _accept(pull, intake, delivery)
        except Damaged:
            raise
        except StorageError as error:
            if warnings.admit("storage", now=time.monotonic()) is not None:
                log.error("cannot keep what arrives, the nodes keep it: %s", error)  # noqa: TRY400 (expected)
        intake.listening = False
        pull = await _listen_again(listen, ledger)
        intake.listening = True


async def _accept(pull: Pull, intake: Intake, delivery: Delivery) -> Never:
    watching = asyncio.create_task(pull.watch())
    try:
        while True:
            intake.accept(await pull.receive())
            delivery.wake()
    finally:
        watching.cancel()
        pull.close()


async def _listen_again(listen: Callable[[], Pull], ledger: Ledger) -> Pull:
    while True:
        await asyncio.sleep(_STORAGE_RETRY_SECONDS)
        with suppress(StorageError):
            ledger.check_room(again=True)
            try:
                return listen()
            except CannotListen as error:
                log.error("%s", error)  # noqa: TRY400 (expected)


async def _look_around(look: Callable[[], bool], what: str, delivery: Delivery) -> Never:
    """Look now and then; what was found is told. `what` it is, for the log."""
    warnings = Throttle(seconds=WARNING_SECONDS)
    while True:
        await asyncio.sleep(_LOOK_SECONDS)
        try:
            if look():
                delivery.wake()
        except Damaged:
            raise
        except StorageError as error:
            if warnings.admit("storage", now=time.monotonic()) is not None:
                log.error("cannot keep %s: %s", what, error)  # noqa: TRY400 (expected)


def _panels(settings: MasterSettings) -> Callable[[], Panel]:
    """What opens a session with the panel, for one thread each."""
    access = Access(
        url=settings.panel_url,
        user=settings.panel_user,
        password=settings.panel_password,
        verify=settings.panel_verify,
    )
    sessions = None
    if settings.panel_user is None:
        sessions = Sessions()
        try:
            sessions.prepare()
        except Unavailable as error:
            log.warning("no access to the panel yet: %s", error)
    return partial(Panel, access, sessions=sessions, dialect=read_dialect())


class _Strangers:
    """Says who did not get in: a node with another secret, or nobody of ours."""

    def __init__(self) -> None:
        self._warnings = Throttle(seconds=WARNING_SECONDS)

    def tell(self, peer: str) -> None:
        held = self._warnings.admit(peer, now=time.monotonic())
        if held is not None:
            log.warning("handshake failed, wrong secret or not a node: peer=%s held_back=%d", peer, held)


def _now() -> datetime:
    return datetime.now(UTC)


PROGRAM: Final = Program(
    name="vmwatch-master",
    description="Takes what the nodes of the cluster tell, and tells the control panel.",
    default_config=config.MASTER_CONFIG,
    read=config.read_master,
    main=watch,
)


def main() -> int:
    """The command `vmwatch-master`."""
    return run(PROGRAM)


if __name__ == "__main__":
    sys.exit(main())
