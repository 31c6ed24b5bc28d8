# SPDX-License-Identifier: Apache-2.0
"""libvirt: its events, its list of domains, their statistics. The only importer of libvirt.

Who blocks: nothing in the event loop. libvirt's callbacks come in the loop's thread, turn the event into a
value and return. Whatever asks libvirtd (open, register, list, statistics) is made in a thread that may hang
without anybody waiting for it, neither the loop nor the end of the process.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import threading
import time
import traceback
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial, wraps
from typing import TYPE_CHECKING, Final, Self

import libvirt
import libvirt_qemu

from vmwatch import events
from vmwatch.callbacks import Causes, Reboots
from vmwatch.errors import HypervisorLost
from vmwatch.events import CopyState, EventType
from vmwatch.libvirt_loop import KEEPALIVE_COUNT, KEEPALIVE_SECONDS, join_loop
from vmwatch.patience import Patience
from vmwatch.snapshot import is_appliance

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

log = logging.getLogger(__name__)

OPEN_SECONDS: Final = 5.0  # libvirtd's first answer after its own start took up to 1.7 s
LIST_SECONDS: Final = 30.0  # 0.005 ms a domain is usual
CLOSE_SECONDS: Final = 2.0
_LAST_EVENTS_SECONDS: Final = 0.5  # a healthy connection may have new ones all the time

_CLOSE_REASONS: Final = ("an error", "closed by libvirtd", "no answer to keepalive", "closed by this process")
_FORBIDDEN: Final = frozenset(
    {
        libvirt.VIR_ERR_AUTH_FAILED,
        libvirt.VIR_ERR_AUTH_CANCELLED,
        libvirt.VIR_ERR_AUTH_UNAVAILABLE,
        libvirt.VIR_ERR_ACCESS_DENIED,
    }
)
_OPENINGS: Final = Patience(name="libvirt-open", limit=2)  # who waits for libvirt tries again and again


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainEvent:
    """One event, in the names of `vmwatch.events`.

    `time` is when this process heard of it (UTC). `cause`: of a `stopped`, QEMU's own reason; of an `ioerror`,
    the hypervisor's word for it (`enospc`); None when nobody told. `domain_id` is libvirt's id of the run.
    """

    uuid: str
    name: str
    type: str
    subtype: str
    time: datetime
    cause: str | None
    domain_id: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Domain:
    """A domain of libvirt's list; `type` and `subtype` are what a snapshot would tell of its state."""

    uuid: str
    name: str
    type: str
    subtype: str
    state: CopyState
    domain_id: int | None


class Hypervisor:
    """A connection to libvirt that tells of events. Made by `connect`, ended by `close`."""

    def __init__(
        self,
        connection: libvirt.virConnect,
        *,
        on_event: Callable[[DomainEvent], None],
        on_lost: Callable[[str], None],
    ) -> None:
        """For `connect` alone."""
        self._connection = connection
        self._on_event = on_event
        self._on_lost = on_lost
        self._is_lost = False
        self._is_closed = False
        self._loop = asyncio.get_running_loop()
        self._calls = Patience(name="libvirt", limit=2)  # register, which may hang, and close
        self._lists = Patience(name="libvirt-list", limit=1)
        self._lookups = Patience(name="libvirt-lookup", limit=1)
        # libvirt frees a connection that is closed under the feet of a thread that still uses it.
        self._turn = threading.Lock()
        self._causes = Causes()
        self._reboots = Reboots()
        self._deregister: list[Callable[[], object]] = []

    @classmethod
    async def connect(
        cls, uri: str, *, on_event: Callable[[DomainEvent], None], on_lost: Callable[[str], None]
    ) -> Self:
        """Open, and register for every event: what happens from now on is told.

        `on_event` is called in the loop's thread, in libvirt's order; it must not block. `on_lost` once, with the
        reason, when the connection is gone, unless it was closed. What libvirt had handed over by then is still
        told, until `close` returns. Raises HypervisorLost.
        """
        join_loop()
        connection = await _open(uri)
        self = cls(connection, on_event=on_event, on_lost=on_lost)
        try:
            await self._calls.call(self._register, seconds=OPEN_SECONDS)
        except BaseException as error:
            await self.close()
            if not isinstance(error, (libvirt.libvirtError, TimeoutError)):
                raise
            raise HypervisorLost(f"libvirt at {uri} does not register for events: {error}") from error
        return self

    async def list_domains(self) -> list[Domain]:
        """All domains and their states, as they are now, over the connection that the events come by.

        One bulk call that asks no QEMU, so that a wedged one holds up nobody: 2 ms for 500 domains, where a call
        for each took 35 ms. A domain that libvirtd is at work on, starting it from a slow disk, holds it up for so
        long; a libvirtd that is frozen is lost. Raises HypervisorLost, after `on_lost`.
        """
        listing = asyncio.create_task(self._lists.call(self._list, seconds=None))
        try:
            if not (await asyncio.wait({listing}, timeout=LIST_SECONDS))[0]:
                log.warning("no list of domains for so long, still waiting: seconds=%g", LIST_SECONDS)
            return await listing
        except (TimeoutError, libvirt.libvirtError) as error:
            self._lose(str(error))
            raise HypervisorLost(f"libvirt gave no list of domains: {error}") from error
        finally:
            listing.cancel()

    async def gone(self, uuids: Iterable[str]) -> set[str]:
        """Those of the domains that libvirt no longer has, over the connection that the events come by: 0.1 ms each.

        Raises TimeoutError: a domain that libvirtd is at work on may hold up the answer. What could not be asked,
        for the connection is lost, is not gone.
        """
        return await self._lookups.call(partial(self._gone, tuple(uuids)), seconds=LIST_SECONDS)

    async def close(self) -> None:
        """Let go of the connection: no `on_lost`, and after the events that have come here no more. Nothing is left.

        A libvirtd that does not answer is left behind after 2 s, with a thread that ends when it answers.
        """
        self._is_lost = True
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(_LAST_EVENTS_SECONDS):
                    await join_loop().fire()
        finally:
            self._is_closed = True
            with suppress(TimeoutError):
                await self._calls.call(self._close, seconds=CLOSE_SECONDS)
        await join_loop().settle()

    def _list(self) -> list[Domain]:
        with self._turn:
            return _list(self._connection)

    def _gone(self, uuids: tuple[str, ...]) -> set[str]:
        with self._turn:
            return {uuid for uuid in uuids if not _has(self._connection, uuid)}

    def _register(self) -> None:
        with self._turn:
            self._register_all()

    def _register_all(self) -> None:
        connection = self._connection
        connection.registerCloseCallback(_guarded(self._closed), None)
        connection.setKeepAlive(KEEPALIVE_SECONDS, KEEPALIVE_COUNT)
        for event_id, callback in (
            (libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, self._lifecycle),
            (libvirt.VIR_DOMAIN_EVENT_ID_REBOOT, self._rebooted),
            (libvirt.VIR_DOMAIN_EVENT_ID_IO_ERROR_REASON, self._ioerror),
            (libvirt.VIR_DOMAIN_EVENT_ID_WATCHDOG, self._watchdog),
        ):
            number = connection.domainEventRegisterAny(None, event_id, _guarded(callback), None)
            self._deregister.append(partial(connection.domainEventDeregisterAny, number))
        self._register_causes()

    def _register_causes(self) -> None:
        try:
            number = libvirt_qemu.qemuMonitorEventRegister(
                self._connection, None, "SHUTDOWN", _guarded(self._qemu_shutdown), None
            )
        except libvirt.libvirtError as error:
            log.info("why guests stop is not told here, their cause stays unknown: reason=%s", error)
            return
        self._deregister.append(partial(libvirt_qemu.qemuMonitorEventDeregister, self._connection, number))

    def _close(self) -> None:
        with self._turn:  # and only then: before it, `_register` may not have come to its end
            ends = (self._connection.unregisterCloseCallback, *self._deregister, self._connection.close)
            for end in ends:
                with suppress(libvirt.libvirtError):  # the connection may be dead: each step is tried
                    end()

    def _lifecycle(
        self, _connection: object, domain: libvirt.virDomain, event: int, detail: int, _opaque: object
    ) -> None:
        kind = events.event_name(event)
        cause = self._causes.of(domain.UUIDString(), kind)
        self._tell(domain, kind, events.detail_name(event, detail), cause=cause)

    def _rebooted(self, _connection: object, domain: libvirt.virDomain, _opaque: object) -> None:
        if not self._reboots.is_echo(domain.UUIDString(), now=time.monotonic()):
            self._tell(domain, EventType.REBOOTED, events.REBOOTED_SUBTYPE)

    def _ioerror(
        self,
        _connection: object,
        domain: libvirt.virDomain,
        _path: str,
        _alias: str,
        action: int,
        reason: str,
        _opaque: object,
    ) -> None:
        self._tell(domain, EventType.IOERROR, events.ioerror_name(action), cause=reason or None)

    def _watchdog(self, _connection: object, domain: libvirt.virDomain, action: int, _opaque: object) -> None:
        self._tell(domain, EventType.WATCHDOG, events.watchdog_name(action))

    def _qemu_shutdown(
        self,
        _connection: object,
        domain: libvirt.virDomain,
        _event: str,
        _seconds: int,
        _micros: int,
        details: str,
        _opaque: object,
    ) -> None:
        self._causes.shutdown(domain.UUIDString(), details)

    def _tell(self, domain: libvirt.virDomain, kind: str, subtype: str, *, cause: str | None = None) -> None:
        name = domain.name()
        if self._is_closed or is_appliance(name):
            return
        self._on_event(
            DomainEvent(
                uuid=domain.UUIDString(),
                name=name,
                type=kind,
                subtype=subtype,
                time=datetime.now(UTC),
                cause=cause,
                domain_id=_id(domain),
            )
        )

    def _closed(self, _connection: object, reason: int, _opaque: object) -> None:
        # In whichever thread noticed it.
        known = 0 <= reason < len(_CLOSE_REASONS)
        self._loop.call_soon_threadsafe(self._lose, _CLOSE_REASONS[reason] if known else f"reason {reason}")

    def _lose(self, reason: str) -> None:
        if not self._is_lost:
            self._is_lost = True
            self._on_lost(reason)


async def _open(uri: str) -> libvirt.virConnect:
    try:
        return await _OPENINGS.call(partial(_open_now, uri), seconds=OPEN_SECONDS, discard=_discard)
    except TimeoutError as error:
        raise HypervisorLost(f"libvirt at {uri} does not answer within {OPEN_SECONDS:g} s") from error
    except libvirt.libvirtError as error:
        raise HypervisorLost(f"no connection to libvirt at {uri}: {error}") from error


def _open_now(uri: str) -> libvirt.virConnect:
    try:
        return libvirt.open(uri)
    except libvirt.libvirtError as error:
        if not _is_forbidden(error):
            raise
        log.info("libvirt lets us only read: uri=%s reason=%s", uri, error)
        return libvirt.openReadOnly(uri)


def _is_forbidden(error: libvirt.libvirtError) -> bool:
    code = error.get_error_code()
    return code in _FORBIDDEN or (code == libvirt.VIR_ERR_SYSTEM_ERROR and error.get_int1() == errno.EACCES)


def _discard(connection: libvirt.virConnect) -> None:
    with suppress(libvirt.libvirtError):
        connection.close()


def _list(connection: libvirt.virConnect) -> list[Domain]:
    saved = {
        domain.UUIDString()
        for domain in connection.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_MANAGEDSAVE)
    }
    records = connection.getAllDomainStats(libvirt.VIR_DOMAIN_STATS_STATE)
    return [
        _domain(domain, record, is_saved=domain.UUIDString() in saved)
        for domain, record in records
        if not is_appliance(domain.name())
    ]


def _has(connection: libvirt.virConnect, uuid: str) -> bool:
    try:
        connection.lookupByUUIDString(uuid)
    except libvirt.libvirtError as error:
        return bool(error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN)
    return True


def _domain(domain: libvirt.virDomain, record: Mapping[str, int], *, is_saved: bool) -> Domain:
    state, reason = record["state.state"], record["state.reason"]
    if is_saved and (state, reason) == (libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_UNKNOWN):
        reason = libvirt.VIR_DOMAIN_SHUTOFF_SAVED  # which a libvirtd that was restarted no longer says
    kind, subtype = events.state_event(state, reason)
    return Domain(
        uuid=domain.UUIDString(),
        name=domain.name(),
        type=kind,
        subtype=subtype,
        state=events.copy_state(state, reason),
        domain_id=_id(domain),
    )


def _id(domain: libvirt.virDomain) -> int | None:
    number: int = domain.ID()
    return None if number < 0 else number


def _guarded(callback: Callable[..., None]) -> Callable[..., None]:
    """A callback that never raises into libvirt, which would print it to nobody and go on."""

    @wraps(callback)
    def guarded(*arguments: object) -> None:
        try:
            callback(*arguments)
        except Exception as error:
            log.exception("a callback failed, what it told is lost")
            traceback.clear_frames(error.__traceback__)  # who keeps the record does not keep the connection
            del arguments

    return guarded
