# SPDX-License-Identifier: Apache-2.0
"""Random, real changes of VMs' states, made through libvirt by threads of this process."""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
from random import Random
from typing import TYPE_CHECKING, Final

import libvirt
import psutil

from tests.faults.observer import RETRY_SECONDS
from tests.lab.errors import LabError
from tests.lab.guest import domain_xml
from tests.lab.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Self

    from tests.lab.host import Host

BARRIER: Final = "barrier"
"""A domain that is defined and undefined: who has heard that has heard all before."""

EXAMPLE: Final = "test"
"""The domain that libvirt's test driver begins with."""

_BURST_SHARE: Final = 0.03
_BURST: Final = (30, 120)
_TEST_XML: Final = (
    "<domain type='test'><name>{name}</name><uuid>{uuid}</uuid>"
    "<memory>1024</memory><os><type>hvm</type></os></domain>"
)
_FOUND_SECONDS: Final = 30.0  # as libvirtd may be frozen, or the machine busy
_UNDEFINE: Final = libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE


class Workload:
    """Changes until told to rest. A thread of its own; a context manager."""

    def __init__(self, *, name: str, seed: int, vms: Sequence[str], mean_seconds: float) -> None:
        """`mean_seconds` lie between two changes, on average; in a burst none."""
        self.changes = 0
        self._vms = vms
        self._mean = mean_seconds
        self._random = Random(seed)
        self._may_run = threading.Event()
        self._rests = threading.Event()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"workload {name}")

    def __enter__(self) -> Self:
        self._thread.start()
        self._rests.wait()  # else its first rest might be noted after `go`, and last
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._may_run.set()
        self._thread.join()

    def go(self) -> None:
        self._rests.clear()
        self._may_run.set()

    def rest(self) -> None:
        """Change nothing more; what is under way ends. `rests` is true then."""
        self._may_run.clear()

    @property
    def rests(self) -> bool:
        return self._rests.is_set()

    def change(self, vm: str, random: Random) -> None:
        """Change one VM in some way that it can change now. Raises libvirt's error."""
        raise NotImplementedError

    def disconnect(self) -> None:
        """Let go of connections that no longer work."""
        raise NotImplementedError

    def _run(self) -> None:
        while not self._ended.is_set():
            if not self._may_run.is_set():
                self._rests.set()
                self._may_run.wait()
            elif self._random.random() < _BURST_SHARE:
                vms = self._random.sample(self._vms, min(2, len(self._vms)))
                for _ in range(self._random.randint(*_BURST)):
                    if self._may_run.is_set():  # of guests on a busy machine, a burst takes minutes
                        self._try(self._random.choice(vms))
            else:
                self._try(self._random.choice(self._vms))
                self._ended.wait(self._random.expovariate(1 / self._mean))
        self.disconnect()

    def _try(self, vm: str) -> None:
        try:
            self.change(vm, self._random)
        except (libvirt.libvirtError, LabError, psutil.NoSuchProcess):
            # libvirtd is away, or the VM was changed under our feet: that is what is tested.
            self.disconnect()
            time.sleep(RETRY_SECONDS)
        else:
            self.changes += 1


class DriverWorkload(Workload):
    """VMs of libvirt's test driver, on one node: no QEMU, hundreds of changes a second."""

    def __init__(self, host: Host, *, name: str, seed: int, vms: Sequence[str], mean_seconds: float) -> None:
        super().__init__(name=name, seed=seed, vms=vms, mean_seconds=mean_seconds)
        self._uri = host.test_uri
        self._connection: libvirt.virConnect | None = None

    def change(self, vm: str, random: Random) -> None:
        if self._connection is None:
            self._connection = libvirt.open(self._uri)
            _remove_example(self._connection)
        domain = _find(self._connection, vm)
        if domain is None:
            identity = uuid.UUID(int=random.getrandbits(128), version=4)
            self._connection.defineXML(_TEST_XML.format(name=vm, uuid=identity))
        else:
            random.choice(_choices(domain))()

    def disconnect(self) -> None:
        connection, self._connection = self._connection, None
        _close(connection)


class GuestWorkload(Workload):
    """Real QEMU guests on several hosts, between which they migrate."""

    def __init__(self, hosts: Sequence[Host], *, seed: int, vms: Sequence[str], mean_seconds: float) -> None:
        super().__init__(name="guests", seed=seed, vms=vms, mean_seconds=mean_seconds)
        self._hosts = hosts
        self._connections: dict[str, libvirt.virConnect] = {}

    def change(self, vm: str, random: Random) -> None:
        found = [(host, domain) for host in self._hosts if (domain := _find(self._connect(host), vm))]
        if not found:
            identity = uuid.UUID(int=random.getrandbits(128), version=4)
            xml = domain_xml(vm, uuid=str(identity))
            self._connect(random.choice(self._hosts)).defineXML(xml)
            return
        # A migration that was cut short may have left the definition on both.
        host, domain = max(found, key=lambda pair: bool(pair[1].isActive()))
        choices = _choices(domain)
        if domain.state()[0] == libvirt.VIR_DOMAIN_RUNNING:
            target = random.choice([other for other in self._hosts if other is not host])
            choices += [lambda: self._migrate(domain, target)] * 2
            choices.append(lambda: _kill(host, domain))
        random.choice(choices)()

    def disconnect(self) -> None:
        connections, self._connections = self._connections, {}
        for connection in connections.values():
            _close(connection)

    def _connect(self, host: Host) -> libvirt.virConnect:
        if host.name not in self._connections:
            self._connections[host.name] = libvirt.open(host.uri)
        return self._connections[host.name]

    def _migrate(self, domain: libvirt.virDomain, target: Host) -> None:
        flags = libvirt.VIR_MIGRATE_LIVE | libvirt.VIR_MIGRATE_PERSIST_DEST
        loopback = {
            libvirt.VIR_MIGRATE_PARAM_URI: "tcp://127.0.0.1",
            libvirt.VIR_MIGRATE_PARAM_LISTEN_ADDRESS: "127.0.0.1",
        }
        domain.migrate3(self._connect(target), loopback, flags)
        domain.undefine()  # libvirt's own VIR_MIGRATE_UNDEFINE_SOURCE tells nobody, so nobody could be blamed


def raise_barrier(uri: str, *, has_guests: bool) -> None:
    """Define and undefine the barrier. Raises libvirt's error."""
    connection = libvirt.open(uri)
    try:
        xml = domain_xml(BARRIER) if has_guests else _TEST_XML.format(name=BARRIER, uuid=uuid.uuid4())
        connection.defineXML(xml).undefine()
    finally:
        _close(connection)


def _remove_example(connection: libvirt.virConnect) -> None:
    """The test driver brings a domain of its own, the same on each node: no cluster has that."""
    domain = _find(connection, EXAMPLE)
    if domain is not None:
        domain.destroy()
        domain.undefine()


def _choices(domain: libvirt.virDomain) -> list[Callable[[], object]]:
    """What can be done to it as it is."""
    state, _ = domain.state()
    if state == libvirt.VIR_DOMAIN_RUNNING:
        return [domain.suspend, domain.suspend, domain.destroy, domain.managedSave]
    if state == libvirt.VIR_DOMAIN_PAUSED:
        return [domain.resume, domain.resume, domain.destroy]
    if domain.isActive():
        return [domain.destroy]
    return [domain.create] * 4 + [lambda: domain.undefineFlags(_UNDEFINE)]


def _kill(host: Host, domain: libvirt.virDomain) -> None:
    """Kill a guest's QEMU; when this returns, libvirt has found that, and its event comes before any later one."""
    host.qemu(domain.name()).kill()
    wait_for(lambda: not domain.isActive(), seconds=_FOUND_SECONDS, what=f"the end of {domain.name()}")


def _find(connection: libvirt.virConnect, name: str) -> libvirt.virDomain | None:
    try:
        return connection.lookupByName(name)
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
            raise
        return None


def _close(connection: libvirt.virConnect | None) -> None:
    if connection is not None:
        with contextlib.suppress(libvirt.libvirtError):
            connection.close()
