# SPDX-License-Identifier: Apache-2.0
"""The laboratory does what the other tests trust it with."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import libvirt
import psutil
import pytest

from tests.lab.errors import LabError
from tests.lab.guest import domain_xml
from tests.lab.host import Host
from tests.lab.waiting import wait_for

if TYPE_CHECKING:
    from tests.lab.image import Image


def start_guest(host: Host, accelerator: str, *, on_reboot: str = "restart") -> libvirt.virDomain:
    """A guest `vm1` that answers on its console."""
    domain = host.connection.defineXML(domain_xml("vm1", accelerator=accelerator, on_reboot=on_reboot))
    domain.create()
    host.console("vm1").wait_ready()
    return domain


def reason_when_off(domain: libvirt.virDomain) -> int:
    """Libvirt's reason, once the guest is off."""
    wait_for(lambda: not domain.isActive(), seconds=30, what="the guest to be off")
    state, reason = domain.state()
    assert state == libvirt.VIR_DOMAIN_SHUTOFF
    return int(reason)


def test_a_guest_boots_reboots_and_powers_off_by_its_console(host: Host, accelerator: str) -> None:
    domain = start_guest(host, accelerator)
    qemu = host.qemu("vm1")
    host.console("vm1").tell("reboot")
    host.console("vm1").wait_ready()
    assert host.qemu("vm1") == qemu, "a reboot keeps the process"
    host.console("vm1").tell("poweroff")
    assert reason_when_off(domain) == libvirt.VIR_DOMAIN_SHUTOFF_SHUTDOWN
    assert not qemu.is_running()


def test_with_on_reboot_destroy_a_reboot_ends_the_guest(host: Host, accelerator: str) -> None:
    domain = start_guest(host, accelerator, on_reboot="destroy")
    host.console("vm1").tell("panic")
    assert reason_when_off(domain) == libvirt.VIR_DOMAIN_SHUTOFF_SHUTDOWN


def test_killed_qemu_is_a_crashed_guest(host: Host, accelerator: str) -> None:
    """Its state says crashed, though the event said failed."""
    domain = start_guest(host, accelerator)
    host.qemu("vm1").kill()
    assert reason_when_off(domain) == libvirt.VIR_DOMAIN_SHUTOFF_CRASHED


def test_a_guest_migrates_there_and_back(hosts: tuple[Host, Host], accelerator: str) -> None:
    one, other = hosts
    start_guest(one, accelerator)
    for source, target in ((one, other), (other, one)):
        source.migrate("vm1", target)
        assert target.connection.lookupByName("vm1").isActive()
        target.console("vm1").wait_ready()
        with pytest.raises(libvirt.libvirtError, match="Domain not found"):
            source.connection.lookupByName("vm1")


@pytest.mark.parametrize("end", [Host.kill_libvirtd, Host.stop_libvirtd])
def test_guests_outlive_libvirtd(host: Host, accelerator: str, end: object) -> None:
    start_guest(host, accelerator)
    qemu = host.qemu("vm1")
    assert callable(end)
    end(host)
    with pytest.raises(libvirt.libvirtError):
        libvirt.open(host.uri)
    with pytest.raises(LabError, match="libvirtd does not run"):
        _ = host.libvirtd
    host.start_libvirtd()
    assert host.connection.lookupByName("vm1").isActive()
    assert host.qemu("vm1") == qemu


def test_a_frozen_libvirtd_says_nothing_until_it_is_thawed(driver_host: Host) -> None:
    code = f"import libvirt; libvirt.open({driver_host.test_uri!r}).listAllDomains()"
    driver_host.freeze_libvirtd()
    with subprocess.Popen([sys.executable, "-c", code]) as client:
        with pytest.raises(subprocess.TimeoutExpired):
            client.wait(timeout=1)
        driver_host.thaw_libvirtd()
        assert client.wait(timeout=10) == 0


def test_the_test_driver_runs_domains_without_qemu(driver_host: Host) -> None:
    connection = libvirt.open(driver_host.test_uri)
    try:
        (domain,) = connection.listAllDomains()
        domain.suspend()
        assert domain.state()[0] == libvirt.VIR_DOMAIN_PAUSED
    finally:
        connection.close()


def test_the_machines_own_libvirt_is_not_touched(image: Image) -> None:
    parents = ("/run", "/var/lib", "/etc", "/var/log", "/var/cache")
    own = [Path(parent, "libvirt") for parent in parents]
    before = [(folder.exists() and folder.stat().st_mtime_ns) for folder in own]
    with Host("alpha", image=image) as host:
        host.connection.defineXML(domain_xml("vm1"))
    assert [(folder.exists() and folder.stat().st_mtime_ns) for folder in own] == before


def test_nothing_stays_after_an_error(image: Image, accelerator: str) -> None:
    with pytest.raises(RuntimeError, match="on purpose"), Host("alpha", image=image) as host:  # noqa: PT012
        start_guest(host, accelerator)
        folder, libvirtd, qemu = host.folder, host.libvirtd, host.qemu("vm1")
        raise RuntimeError("on purpose")
    assert not folder.exists()
    assert not libvirtd.is_running()
    assert not qemu.is_running()


USER_OF_THE_LAB = """
import pathlib
import signal
import sys
from tests.lab.guest import domain_xml
from tests.lab.host import Host
from tests.lab.image import Image

image = Image(kernel=pathlib.Path(sys.argv[1]), initramfs=pathlib.Path(sys.argv[2]))
with Host("alpha", image=image) as host:
    host.connection.createXML(domain_xml("vm1"))
    print(host.folder, host.libvirtd.pid, host.qemu("vm1").pid, flush=True)
"""
UNTIL_INTERRUPTED = """
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])  # pause() sleeps through one that has just come
    signal.sigwait([signal.SIGINT])
    raise KeyboardInterrupt
"""
UNTIL_READY = """
    host.console("vm1").wait_ready()
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_nothing_stays_when_the_laboratory_is_killed(image: Image, how: signal.Signals) -> None:
    code = USER_OF_THE_LAB + UNTIL_INTERRUPTED
    command = [sys.executable, "-c", code, str(image.kernel), str(image.initramfs)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as user:
        assert user.stdout is not None
        folder, libvirtd, qemu = user.stdout.readline().split()
        assert psutil.pid_exists(int(qemu))
        user.send_signal(how)
    wait_for(lambda: not Path(folder.decode()).exists(), seconds=10, what="the folder to be removed")
    assert not psutil.pid_exists(int(libvirtd))
    assert not psutil.pid_exists(int(qemu))


@pytest.mark.skipif(psutil.Process().uids().real != 0, reason="the other tests show it then")
def test_an_ordinary_user_has_a_laboratory_too(image: Image) -> None:
    code = USER_OF_THE_LAB + UNTIL_READY
    command = [
        *("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"),
        *(sys.executable, "-c", code, str(image.kernel), str(image.initramfs)),
    ]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not Path(done.stdout.split()[0]).exists()
