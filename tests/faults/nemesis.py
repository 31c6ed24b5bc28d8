# SPDX-License-Identifier: Apache-2.0
"""Does to a stand what a plan says, and undoes it."""

from __future__ import annotations

import signal
import time
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Final

from tests.faults.plan import Fault, Kind
from tests.faults.proxy import Mode

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.faults.stand import Part, Stand

TICK: Final = 0.02
"""Seconds between two looks after the services, while a fault lasts."""

NOTICE_SECONDS: Final = 15.0
"""A node may end so late after libvirt was gone: its keepalive takes 6 s, and what hangs is given up after 2."""

_MODES: Final = {Kind.CUT: Mode.CUT, Kind.STALL: Mode.STALL, Kind.SLOW: Mode.SLOW}
_CORRUPT_BYTES: Final = 64 << 10


class Nemesis:
    def __init__(self, stand: Stand) -> None:
        self._stand = stand

    def strike(self, fault: Fault) -> None:
        """Wait for its moment, break, let it last, mend. Services are tended all the while."""
        self._pass(fault.before)
        self._stand.diary.write(f"break: {fault}")
        mend = self._break(fault)
        try:
            self._pass(fault.lasting)
        finally:
            mend()
            self._stand.diary.write(f"mended: {fault}")

    def _pass(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self._stand.tend()
            time.sleep(TICK)

    def _break(self, fault: Fault) -> Callable[[], None]:
        """Break; return what mends it."""
        if fault.kind in _MODES:
            return self._wire(fault)
        if fault.kind in (Kind.KILL_LIBVIRTD, Kind.FREEZE_LIBVIRTD):
            return self._libvirtd(fault)
        if fault.kind in (Kind.DISK_FULL_NODE, Kind.DISK_FULL_MASTER):
            return self._disk(fault)
        if fault.kind is Kind.CORRUPT_OUTBOX:
            return self._corrupt(fault)
        if fault.kind is Kind.RESTART_ALL:
            return self._restart_all(fault)
        return self._processes(fault)

    def _processes(self, fault: Fault) -> Callable[[], None]:
        parts = self._victims(fault)
        if fault.kind.startswith("kill"):
            self._stand.kill(*parts)
            return lambda: self._stand.release(*parts)
        self._stand.freeze(*parts)
        return lambda: self._stand.thaw(*parts)

    def _victims(self, fault: Fault) -> list[Part]:
        stand = self._stand
        node = stand.nodes[fault.node - 1]
        return {
            Kind.KILL_NODE: [node],
            Kind.KILL_MASTER: [stand.master],
            Kind.KILL_PANEL: [stand.panel],
            Kind.KILL_NODE_AND_MASTER: [node, stand.master],
            Kind.KILL_MASTER_AND_PANEL: [stand.master, stand.panel],
            Kind.FREEZE_NODE: [node],
            Kind.FREEZE_MASTER: [stand.master],
            Kind.FREEZE_PANEL: [stand.panel],
            Kind.FREEZE_PANEL_BEYOND_TIMEOUT: [stand.panel],
        }[fault.kind]

    def _restart_all(self, fault: Fault) -> Callable[[], None]:
        parts = self._stand.parts
        self._stand.kill(*parts, number=signal.SIGTERM)
        Random(fault.seed).shuffle(parts)
        return lambda: self._stand.release(*parts)

    def _wire(self, fault: Fault) -> Callable[[], None]:
        wire = self._stand.wires[fault.node - 1]
        wire.be(_MODES[fault.kind])
        return lambda: wire.be(Mode.FLOW)

    def _libvirtd(self, fault: Fault) -> Callable[[], None]:
        host = self._stand.hosts[fault.node - 1]
        killed = fault.kind is Kind.KILL_LIBVIRTD
        self._stand.tend()
        self._stand.break_libvirt(fault.node, seconds=fault.lasting + NOTICE_SECONDS, killed=killed)
        if killed:
            host.kill_libvirtd()
            return host.start_libvirtd
        host.freeze_libvirtd()
        return host.thaw_libvirtd

    def _disk(self, fault: Fault) -> Callable[[], None]:
        stand = self._stand
        part = stand.master if fault.kind is Kind.DISK_FULL_MASTER else stand.nodes[fault.node - 1]
        stand.fill_disk(part)
        return lambda: stand.free_disk(part)

    def _corrupt(self, fault: Fault) -> Callable[[], None]:
        node = self._stand.nodes[fault.node - 1]
        self._stand.kill(node)
        self._stand.spoil(node, partial(_spoil_tail, random=Random(fault.seed)))
        return lambda: self._stand.release(node)


def _spoil_tail(folder: Path, random: Random) -> None:
    """Write noise over the end of the outbox: of its write-ahead log, which holds the newest, where it has one."""
    log = folder / "outbox.db-wal"
    file = log if log.exists() and log.stat().st_size else folder / "outbox.db"
    size = min(random.randint(1, _CORRUPT_BYTES), file.stat().st_size)
    with file.open("r+b") as outbox:
        outbox.seek(-size, 2)
        outbox.write(random.randbytes(size))
