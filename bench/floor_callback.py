# SPDX-License-Identifier: Apache-2.0
"""The floor of the latency: a bare libvirt callback that posts straight to the panel. Nothing is kept, or safe.

`python -m bench.floor_callback URI PANEL_URL PASSWORD`: as node 2, until it is ended. The call has the fields that
the master's has, over a kept connection.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime

import libvirt
import requests

from bench.rig import USER
from vmwatch.calls import event_fields
from vmwatch.events import detail_name, event_name
from vmwatch.protocol import new_run


class Poster:
    def __init__(self, url: str, password: str) -> None:
        self._url = url
        self._form = {"func": "vm.event", "out": "json", "sok": "ok", "authinfo": f"{USER}:{password}"}
        self._session = requests.Session()
        self._session.trust_env = False
        self._run = new_run(int(datetime.now(UTC).timestamp() * 1e6), 2)
        self._count = 0

    def tell(
        self, _connection: object, domain: libvirt.virDomain, event: int, detail: int, _opaque: object
    ) -> None:
        now = datetime.now(UTC)
        self._count += 1
        fields = event_fields(
            hostnode=2,
            name=domain.name(),
            type=event_name(event),
            subtype=detail_name(event, detail),
            uuid=domain.UUIDString(),
            time=now,
            event_id=f"2.{self._run}.{self._count}",
            status="paused" if event_name(event) == "suspended" else "running",
        )
        self._session.post(self._url, data={**self._form, **fields}, timeout=5).raise_for_status()


def main(uri: str, url: str, password: str) -> None:
    libvirt.virEventRegisterDefaultImpl()
    connection = libvirt.open(uri)
    poster = Poster(url, password)
    lifecycle = libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE
    connection.domainEventRegisterAny(None, lifecycle, poster.tell, None)
    print("ready", flush=True)
    while True:
        libvirt.virEventRunDefaultImpl()


if __name__ == "__main__":
    main(*sys.argv[1:])
