# SPDX-License-Identifier: Apache-2.0
"""An observer of one libvirtd, independent of vmwatch: writes down what it hears.

    python -m tests.faults.observer URI FILE

libvirt-python's own event loop, one connection, no keepalive: a libvirtd that is frozen and goes on is not lost.
Each line of FILE is a JSON object: `what` is `connected`, `lost` or `event`, `time` in seconds since 1970.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Final

import libvirt

RETRY_SECONDS: Final = 0.02
_TICK_MS: Final = 50
_PREFIX: Final = "VIR_DOMAIN_EVENT_"
_TYPES: Final = (
    "DEFINED",
    "UNDEFINED",
    "STARTED",
    "SUSPENDED",
    "RESUMED",
    "STOPPED",
    "SHUTDOWN",
    "PMSUSPENDED",
    "CRASHED",
)


def names() -> dict[tuple[int, int], tuple[str, str]]:
    """The numbers of an event and its detail -> their names, from the names of its constants."""
    constants = {
        name.removeprefix(_PREFIX): value
        for name, value in vars(libvirt).items()
        if name.startswith(_PREFIX) and isinstance(value, int)
    }
    return {
        (constants[kind], value): (kind.lower(), name.removeprefix(f"{kind}_").lower())
        for kind in _TYPES
        for name, value in constants.items()
        if name.startswith(f"{kind}_")
    }


class Observer:
    def __init__(self, uri: str, file: Path) -> None:
        self._uri = uri
        self._file = file.open("a", buffering=1)  # by line: who reads it reads whole ones
        self._names = names()
        self._lost = False

    def observe(self) -> None:
        """One connection after the other, without end."""
        while True:
            connection = self._connect()
            self._write("connected")
            while not self._lost and connection.isAlive():
                libvirt.virEventRunDefaultImpl()
            self._write("lost")
            self._disconnect(connection)

    def _connect(self) -> libvirt.virConnect:
        self._lost = False
        while True:
            try:
                connection = libvirt.open(self._uri)
                connection.registerCloseCallback(self._closed, None)
                connection.domainEventRegisterAny(
                    None, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, self._heard, None
                )
            except libvirt.libvirtError:
                time.sleep(RETRY_SECONDS)
            else:
                return connection

    def _disconnect(self, connection: libvirt.virConnect) -> None:
        try:
            connection.close()
        except libvirt.libvirtError:
            return

    def _closed(self, _connection: object, _reason: int, _opaque: object) -> None:
        self._lost = True

    def _heard(
        self, _connection: object, domain: libvirt.virDomain, event: int, detail: int, _opaque: object
    ) -> None:
        kind, subtype = self._names[event, detail]
        self._write("event", vm=domain.name(), type=kind, subtype=subtype)

    def _write(self, what: str, **more: str) -> None:
        self._file.write(json.dumps({"what": what, "time": time.time(), **more}) + "\n")


def tick(timer: int, _opaque: object) -> None:
    """Nothing, now and then: the loop returns, and sees that the connection is gone."""


def main() -> None:
    libvirt.registerErrorHandler(lambda *_: None, None)  # what fails is raised
    libvirt.virEventRegisterDefaultImpl()
    libvirt.virEventAddTimeout(_TICK_MS, tick, None)
    observer = Observer(sys.argv[1], Path(sys.argv[2]))
    print("observing", flush=True)
    observer.observe()


if __name__ == "__main__":
    main()
