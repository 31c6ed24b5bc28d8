# SPDX-License-Identifier: Apache-2.0
"""The one guest definition of tests, demo and benchmarks, and the guest's serial console."""

from __future__ import annotations

import contextlib
import secrets
import socket
import time
from typing import TYPE_CHECKING, Final
from xml.sax.saxutils import escape

from tests.lab.errors import LabError
from tests.lab.image import KERNEL_ARGUMENTS

if TYPE_CHECKING:
    from pathlib import Path

GUEST_FOLDER: Final = "/run/vmwatch"  # as QEMU sees it, the same path on every private host
MEMORY_MIB: Final = 128  # the kernel unpacks itself in no less than 96


def domain_xml(
    name: str,
    *,
    accelerator: str = "qemu",
    on_reboot: str = "restart",
    uuid: str | None = None,
    disk: str | None = None,
) -> str:
    """Libvirt's definition of a guest without network, so that any host can run it and take it over.

    `accelerator`: `qemu` or `kvm`. `on_reboot`: `restart` or `destroy`, libvirt's answer to a guest's reboot. `disk`:
    the raw image of a disk, without which it has none.
    """
    identity = f"<uuid>{escape(uuid)}</uuid>" if uuid else ""
    return f"""
<domain type='{accelerator}' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>{escape(name)}</name>{identity}
  <memory unit='MiB'>{MEMORY_MIB}</memory>
  <vcpu>1</vcpu>
  <os>
    <type arch='x86_64' machine='pc'>hvm</type>
    <kernel>{GUEST_FOLDER}/vmlinuz</kernel>
    <initrd>{GUEST_FOLDER}/initramfs</initrd>
    <cmdline>{KERNEL_ARGUMENTS}</cmdline>
  </os>
  <features><acpi/></features>
  <on_poweroff>destroy</on_poweroff>
  <on_reboot>{on_reboot}</on_reboot>
  <on_crash>destroy</on_crash>
  <devices>
    <controller type='usb' model='none'/>
    <memballoon model='none'/>
    <serial type='unix'>
      <source mode='bind' path='{GUEST_FOLDER}/{escape(name)}.console'/>
      <target port='0'/>
    </serial>{_disk(disk) if disk else ""}
  </devices>{_nvme(disk) if disk else ""}
</domain>
"""


def _disk(image: str) -> str:
    return f"""
    <disk type='file' device='disk'>
      <driver name='qemu' type='raw'/>
      <source file='{escape(image)}'/>
      <target dev='hda' bus='ide'/>
    </disk>"""


def _nvme(image: str) -> str:
    """The same disk once more, of the one kind that the kernel has a driver for, and libvirt (9) no word."""
    return f"""
  <qemu:commandline>
    <qemu:arg value='-drive'/>
    <qemu:arg value='file={escape(image)},if=none,id=nvme,format=raw,file.locking=off'/>
    <qemu:arg value='-device'/>
    <qemu:arg value='nvme,drive=nvme,serial=1,addr=0x10'/>
  </qemu:commandline>"""


_ECHO_SECONDS: Final = 10.0  # a busy machine's guest reads late


class Console:
    """A guest's serial console.

    Each use is a connection of its own: QEMU serves one at a time, and a guest blocks when nobody reads.
    """

    def __init__(self, path: Path) -> None:
        """`path` is the socket as this process sees it; it exists while the guest runs."""
        self._path = path

    def wait_ready(self, *, seconds: float = 60) -> None:
        """Return as soon as the guest's userspace answers. Raises LabError."""
        deadline = time.monotonic() + seconds
        question = secrets.token_hex(4).encode()  # or the answer to an earlier one would be taken for its own
        heard = b""
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), self._connect() as connection:
                heard = _converse(connection, question, deadline)
                if b"OK " + question in heard:
                    return
            time.sleep(0.05)
        raise LabError(f"{self._path.name}: no answer in {seconds:g} s; the console said {heard[-300:]!r}")

    def wait_for(self, text: bytes, *, seconds: float = 60) -> None:
        """Return when the guest answers a line with this text. Raises LabError."""
        deadline = time.monotonic() + seconds
        heard = b""
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), self._connect() as connection:
                connection.sendall(b"\n")
                while text not in heard:
                    received = connection.recv(4096)
                    if not received:
                        break
                    heard += received
            if text in heard:
                return
            time.sleep(0.05)
        raise LabError(f"{self._path.name}: no {text!r} in {seconds:g} s; the console said {heard[-300:]!r}")

    def tell(self, command: str) -> None:
        """Give the guest a command: `reboot`, `poweroff`, `panic`. Does not wait for what comes of it."""
        with self._connect() as connection:
            connection.sendall(f"{command}\n".encode())
            connection.settimeout(_ECHO_SECONDS)
            with contextlib.suppress(OSError):
                heard = b""
                # Until its echo: QEMU drops what it has not handed over when the peer leaves.
                while command.encode() not in heard and (received := connection.recv(4096)):
                    heard += received

    def _connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.settimeout(0.25)
            connection.connect(str(self._path))
        except OSError:
            connection.close()
            raise
        return connection


def _converse(connection: socket.socket, question: bytes, deadline: float) -> bytes:
    """Ask until there is an answer: what is asked before the guest's driver listens is lost."""
    heard = b""
    while time.monotonic() < deadline and b"OK " + question not in heard:
        connection.sendall(question + b"\n")
        with contextlib.suppress(TimeoutError):
            while b"OK " + question not in heard:
                received = connection.recv(4096)
                if not received:
                    return heard  # QEMU has ended, or somebody else was first
                heard += received
    return heard
