# SPDX-License-Identifier: Apache-2.0
"""The wire that can be cut, and the observer, each by itself."""

from __future__ import annotations

import socket
import sys
import time
from typing import TYPE_CHECKING

import libvirt
import pytest

from tests.faults.books import Observed
from tests.faults.observer import names
from tests.faults.proxy import Mode
from tests.faults.wire import Wire
from tests.faults.workload import raise_barrier
from tests.lab.processes import Service
from tests.lab.waiting import wait_for
from vmwatch import events

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.lab.host import Host

SHORT = 0.2


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(1)
        yield listener


@pytest.fixture
def wire(server: socket.socket, tmp_path: Path) -> Iterator[Wire]:
    with Wire(target=server.getsockname()[1], log=tmp_path / "wire.out") as wire:
        yield wire


def connect(wire: Wire) -> socket.socket:
    return socket.create_connection(("127.0.0.1", wire.port), timeout=5)


def passes(near: socket.socket, far: socket.socket) -> bool:
    near.sendall(b"b")
    try:
        return far.recv(1) == b"b"
    except TimeoutError:
        return False


def ends(end: socket.socket) -> bool:
    try:
        return end.recv(1) == b""
    except ConnectionError:
        return True


def flows(wire: Wire, server: socket.socket) -> bool:
    try:
        with connect(wire), server.accept()[0]:
            return True
    except OSError:  # refused, or taken in the moment of the cut, and reset
        return False


def test_what_is_sent_arrives_on_both_sides(wire: Wire, server: socket.socket) -> None:
    with connect(wire) as near, server.accept()[0] as far:
        near.sendall(b"there")
        assert far.recv(5) == b"there"
        far.sendall(b"back")
        assert near.recv(4) == b"back"
        near.close()
        assert far.recv(1) == b""


def test_a_stalled_wire_passes_nothing_until_it_flows(wire: Wire, server: socket.socket) -> None:
    with connect(wire) as near, server.accept()[0] as far:
        near.sendall(b"a")
        assert far.recv(1) == b"a"
        wire.be(Mode.STALL)
        far.settimeout(SHORT)
        wait_for(lambda: not passes(near, far), seconds=5, what="the wire to hear of it")
        wire.be(Mode.FLOW)
        far.settimeout(5)
        assert far.recv(1) == b"b"


def test_a_cut_wire_resets_and_refuses_until_it_flows(wire: Wire, server: socket.socket) -> None:
    with connect(wire) as near, server.accept()[0] as far:
        near.sendall(b"a")
        assert far.recv(1) == b"a"
        wire.be(Mode.CUT)
        assert ends(near)
        assert ends(far)
    wait_for(lambda: not flows(wire, server), seconds=10, what="the wire to refuse")
    wire.be(Mode.FLOW)
    wait_for(lambda: flows(wire, server), seconds=5, what="the wire to flow")


def test_the_observer_has_libvirts_names() -> None:
    """The same as vmwatch's, though they come from elsewhere."""
    for (event, detail), (type_, subtype) in names().items():
        assert (events.event_name(event), events.detail_name(event, detail)) == (type_, subtype)


@pytest.mark.needs("libvirtd", "unshare")
def test_the_observer_writes_what_it_hears_and_when_it_could_not(driver_host: Host, tmp_path: Path) -> None:
    file = tmp_path / "observed"
    observed = Observed(1, file)
    command = [sys.executable, "-m", "tests.faults.observer", driver_host.test_uri, str(file)]

    def connected() -> bool:
        observed.read()
        return observed.connected

    def barrier() -> None:
        before = observed.barriers
        raise_barrier(driver_host.test_uri, has_guests=False)
        wait_for(lambda: connected() and observed.barriers > before, seconds=5, what="a barrier")

    with Service(command, log=tmp_path / "observer.out", ready="observing"):
        wait_for(connected, seconds=5, what="the observer")
        connection = libvirt.open(driver_host.test_uri)
        xml = "<domain type='test'><name>web</name><memory>1</memory><os><type>hvm</type></os></domain>"
        connection.defineXML(xml).create()
        barrier()
        told = [(event.type, event.subtype) for event in observed.heard]
        assert told == [("defined", "added"), ("started", "booted")]
        before = time.time()
        driver_host.kill_libvirtd()
        wait_for(lambda: not connected(), seconds=5, what="the loss")
        driver_host.start_libvirtd()
        wait_for(connected, seconds=5, what="the observer")
        lost = observed.unheard[-1]
        assert before <= lost.start <= lost.end <= time.time()
        barrier()
        connection.close()
