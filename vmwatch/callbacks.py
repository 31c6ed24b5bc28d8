# SPDX-License-Identifier: Apache-2.0
"""What one callback of libvirt's leaves for the next: why a guest stopped, which reboots are one (pure)."""

from __future__ import annotations

import json
from typing import Final

from vmwatch.events import EventType

ECHO_SECONDS: Final = 0.5
"""REBOOT events of one VM within this time are one reboot. Measured: a guest's reboot gives two within 35 ms,
a reset by the administrator three; no guest boots and reboots again in half a second."""

_NEW_RUN: Final = frozenset({EventType.STARTED, EventType.RESUMED})


class Causes:
    """QEMU's own reason for a stop, by VM, from its SHUTDOWN event until libvirt's `stopped`, which follows.

    The first one counts: libvirt then ends QEMU by a signal, which QEMU reports as a reason too (host-signal).
    libvirt alone cannot tell a guest's reboot from its poweroff where on_reboot is destroy.
    Source: https://www.qemu.org/docs/master/interop/qemu-qmp-ref.html, event SHUTDOWN.
    """

    def __init__(self) -> None:
        self._causes: dict[str, str] = {}  # at most one a domain: each one's next event of note takes it out

    def shutdown(self, uuid: str, details: str) -> None:
        """Take in QEMU's event; `details` is its JSON. What is not understood tells no cause."""
        try:
            reason = json.loads(details)["reason"]
        except (ValueError, TypeError, KeyError):
            return
        if isinstance(reason, str) and reason:
            self._causes.setdefault(uuid, reason)

    def of(self, uuid: str, event: str) -> str | None:
        """The cause of a lifecycle event: a `stopped` takes the VM's; a new run voids it."""
        if event == EventType.STOPPED:
            return self._causes.pop(uuid, None)
        if event in _NEW_RUN:
            self._causes.pop(uuid, None)  # libvirt made of that shutdown a restart: nothing stopped
        return None


class Reboots:
    """Tells the first of the REBOOT events that one reboot gives from its echoes."""

    def __init__(self) -> None:
        self._told: dict[str, float] = {}

    def is_echo(self, uuid: str, *, now: float) -> bool:
        """Whether a REBOOT event of this VM belongs to one that was told; `now` is monotonic, in seconds."""
        self._told = {vm: told for vm, told in self._told.items() if now - told < ECHO_SECONDS}
        if uuid in self._told:
            return True
        self._told[uuid] = now
        return False
