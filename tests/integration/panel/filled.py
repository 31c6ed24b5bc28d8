# SPDX-License-Identifier: Apache-2.0
"""A panel's database with something for every page, written by the panel's own functions."""

from __future__ import annotations

import json
import math
import time
from typing import TYPE_CHECKING
from urllib.parse import quote

from vmwatch.panel import (
    policy,
    problems,
    register,
    register_installation,
    register_nodes,
    register_osmgr,
    register_services,
    register_statistics,
    shown_services,
    shown_vms,
)
from vmwatch.panel.fields import VmEvent
from vmwatch.panel.shown_installation import Template
from vmwatch.panel.shown_services import MASTER
from vmwatch.panel.status_check import COUNTERS
from vmwatch.panel.store import Store

if TYPE_CHECKING:
    import sqlite3
    from pathlib import Path

MINUTE, HOUR = 60_000, 3_600_000  # ms
PLAIN = "customer-4490"
"""On node 1: it moves data, sent no packet lately, and has one gap in its rates."""
INSTALLED = "customer-4491"
"""Its installation waits, at step 2 of 2, for somebody has destroyed it."""
STRANGE = "<b>\"&' \N{ROCKET} \N{HEBREW LETTER SHIN}\N{HEBREW LETTER LAMED}"
"""Markup, quotes, four bytes of UTF-8, and letters that run from right to left."""
PAGES = {
    "vms": "/",
    "vms-filtered": "/?warning=any&sort=-since",
    "vms-none": "/?q=nonesuch",
    "vm": f"/vm/{PLAIN}?span=day",
    "vm-installing": f"/vm/{INSTALLED}",
    "vm-strange": f"/vm/{quote(STRANGE)}",
    "reinstall": f"/vm/{INSTALLED}/reinstall",
    "nodes": "/nodes",
    "node-add": "/nodes/add",
    "node-edit": "/nodes/1",
    "node-remove": "/nodes/1/remove",
    "problems": "/problems?state=all&covered=on",
    "templates": "/templates",
    "template-add": "/templates/add",
    "template-edit": "/templates/1",
    "template-remove": "/templates/1/remove",
    "policy": "/policy",
    "settings": "/settings?done=saved",
    "history-days": "/settings/history",
    "password": "/settings/password",
}
_STATUSES = (("started", "booted"), ("suspended", "ioerror"), ("stopped", "shutdown"), ("stopped", "crashed"))


def fill(database: Path) -> None:
    """Make the database: three nodes, fifteen VMs, a day of rates, problems, warnings, an installation."""
    store = Store(database)
    now = time.time_ns() // 1_000_000
    try:
        _nodes(store, now)
        _events(store, now)
        _rates(store, now)
        _installation(store, now)
        with store.transaction() as connection:
            _problems(connection, now)
            _services(connection, now)
    finally:
        store.close()


def event(name: str, kind: str, subtype: str, *, node: int, time: int, cause: str | None = None) -> VmEvent:
    return VmEvent(
        hostnode=node,
        name=name,
        type=kind,
        subtype=subtype,
        uuid=None,
        status=None,
        cause=cause,
        source="event",
        earliest=None,
        time=time,
        event_id=None,
    )


def _tell(store: Store, told: VmEvent) -> None:
    register.record_event(store, told, clock=lambda: (told.time or 0) + 3, create=True)


def _nodes(store: Store, now: int) -> None:
    for number in (1, 2, 3):
        address = f"root@192.0.2.{number}"
        register_nodes.write_node(
            store, number, name=f"node-{number}", address=address, uri="test:///default"
        )
    register.record_event(
        store,
        event("seen-elsewhere", "started", "booted", node=9, time=now - HOUR),
        clock=lambda: now,
        create=True,
    )


def _events(store: Store, now: int) -> None:
    for number in range(12):
        name, begin = f"customer-{4490 + number}", now - (20 - number) * HOUR
        _tell(store, event(name, "started", "booted", node=1 + number % 3, time=begin))
        kind, subtype = _STATUSES[number % 4]
        if kind != "started":
            cause = "guest-shutdown" if subtype == "shutdown" else None
            told = event(name, kind, subtype, node=1 + number % 3, time=begin + 5 * HOUR, cause=cause)
            _tell(store, told)
    _tell(store, event(STRANGE, "started", "booted", node=1, time=now - 2 * HOUR))
    # Migrated from the second node to the first, half way through the day.
    moved = now - 9 * HOUR
    _tell(store, event(PLAIN, "suspended", "migrated", node=1, time=moved))
    _tell(store, event(PLAIN, "resumed", "migrated", node=2, time=moved + 900))
    _tell(store, event(PLAIN, "stopped", "migrated", node=1, time=moved + 1200))
    _tell(store, event(PLAIN, "suspended", "paused", node=2, time=now - 4 * HOUR))
    _tell(store, event(PLAIN, "resumed", "unpaused", node=2, time=now - 3 * HOUR))


def _rates(store: Store, now: int) -> None:
    policy.set_status_check(store, on=True)
    counters = dict.fromkeys(COUNTERS, 0)
    for step in range(140, -1, -1):
        wave = abs(math.sin(step / 9)) + 0.1
        grown = {"bytes_received": 9e8 * wave, "bytes_sent": 2e8 * wave**2, "read_bytes": 4e7 * wave}
        grown |= {"write_bytes": 3e8 * (1.2 - wave), "write_requests": 523}
        if step > 3:
            grown |= {"packets_sent": 4e5 * wave}
        counters = {name: int(value + grown.get(name, 0)) for name, value in counters.items()}
        domain = {"name": PLAIN, "run": "a" if step > 60 else "b", "interfaces": 1, "disks": 1, **counters}
        if not 40 < step < 52:
            when = now - step * 10 * MINUTE
            register_statistics.record_statistics(store, 2, [domain], time=when)


def _installation(store: Store, now: int) -> None:
    template = Template(
        id=0,
        name="Debian 12",
        rebootcount=2,
        timelimit=7200,
        medium="/var/lib/libvirt/images/debian-12.iso",
        kernel="",
        initrd="",
        cmdline="",
    )
    osmgr = register_osmgr.write(store, template)
    vm = shown_vms.vm_by_name(store.connection, INSTALLED)
    assert vm
    register_installation.begin(store, vm.id, osmgr=osmgr, replace=False, now=now - 30 * MINUTE)
    begin = now - 29 * MINUTE
    _tell(store, event(INSTALLED, "started", "booted", node=2, time=begin))
    stopped = event(INSTALLED, "stopped", "shutdown", node=2, time=begin + 9 * MINUTE)
    _close_intents(store, now)
    _tell(store, stopped)  # of unknown cause: it is counted, and said to be guessed
    _close_intents(store, now)
    _tell(store, event(INSTALLED, "started", "booted", node=2, time=begin + 10 * MINUTE))
    _tell(store, event(INSTALLED, "stopped", "destroyed", node=2, time=begin + 14 * MINUTE))


def _close_intents(store: Store, now: int) -> None:
    for (intent,) in store.connection.execute("SELECT id FROM intent").fetchall():
        register_installation.close(store, intent, now=now)


def _problems(connection: sqlite3.Connection, now: int) -> None:
    silent = {"hostnode": 3, "text": "no heartbeat for 30 s", "now": now - 12 * MINUTE}
    problems.begin(connection, "node_silent", **silent)  # type: ignore[arg-type]
    text = "3 records are missing: 12 to 14 of run 8ab1"
    problems.begin(connection, "events_lost", hostnode=2, text=text, now=now - 3 * HOUR)
    text = f"its QEMU has not answered for 10 s: <script>alert('{STRANGE}')</script>"
    problems.begin(
        connection, "vm_not_responding", hostnode=1, name="customer-4493", text=text, now=now - HOUR
    )
    problems.begin(connection, "vm_not_responding", hostnode=1, name="customer-4493", text=text, now=now)
    problems.begin(connection, "libvirt_lost", hostnode=1, text="libvirtd is gone", now=now - 5 * HOUR)
    problems.end(connection, "libvirt_lost", hostnode=1, now=now - 5 * HOUR + 4 * MINUTE)


def _services(connection: sqlite3.Connection, now: int) -> None:
    asked = register_services.asked(connection)
    node = {"state": {"run": "0006", "last": 120, "kept": 40, "unsent": 0, "vms": {}}, "wants": []}
    master = {
        "state": {
            "calls": 2,
            "nodes": [{"node": 1, "run": "0006", "last": 117, "heard": now - 2_000}],
            "problems": [],
            "aside": [],
        },
        "wants": ["calls put aside: 1 (vmwatch parked)"],
    }
    for hostnode, state, service in (
        (MASTER, shown_services.State.RUNNING, master),
        (1, shown_services.State.RUNNING, node),
        (2, shown_services.State.STOPPED, node),
    ):
        report = json.dumps({"version": "0.1.0", "service": service})
        register_services.found(connection, hostnode, state, report, now=now - MINUTE)
        register_services.configured(connection, hostnode, asked.get(hostnode, 1), now=now - 2 * HOUR)
    register_services.found(connection, 3, shown_services.State.UNREACHABLE, None, now=now - MINUTE)
    register_services.failed(connection, 3, "ssh: connect to host 192.0.2.3 port 22: No route to host")
