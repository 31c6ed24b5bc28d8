# SPDX-License-Identifier: Apache-2.0
"""A private cluster node: its own libvirtd and QEMU guests in namespaces of its own, beside the machine's.

A client outside connects to `Host.uri`. The network is the machine's (loopback), so two hosts can migrate
guests to each other. The machine's own libvirt is not touched. Works as root, and as an ordinary user where
the kernel lets users make namespaces.
"""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import tempfile
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Final

import libvirt
import psutil

from tests.lab.errors import LabError, MissingTool, require
from tests.lab.guest import Console
from tests.lab.namespace import Namespace
from tests.lab.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    from tests.lab.image import Image

LIBVIRTD_CONF = """\
# Whoever can enter this host's folder may do everything: it is 0700.
host_uuid = "{uuid}"
auth_unix_ro = "none"
auth_unix_rw = "none"
unix_sock_group = "root"
unix_sock_rw_perms = "0700"
log_level = 3
log_outputs = "3:file:/var/log/libvirtd.log"
"""

QEMU_CONF = """\
# No other user, no cgroups, no sandbox, no helper daemon: none of them is in here.
user = "root"
group = "root"
dynamic_ownership = 0
remember_owner = 0
security_driver = "none"
cgroup_controllers = []
namespaces = []
stdio_handler = "file"
migration_port_min = {port}
migration_port_max = {last_port}
"""

LIBRARIES: Final = ("/usr/lib/x86_64-linux-gnu", "/usr/lib64", "/usr/lib")  # Debian's first
DRIVER: Final = "libvirt_driver_qemu.so"
SOCKET: Final = "run/libvirt/libvirt-sock"
SOCKET_PATH_MOST: Final = 107  # characters, unix(7)
START_SECONDS: Final = 30.0  # libvirtd's first answer takes 0.5 to 1.7 s on an idle machine


class Host:
    """One private node. A context manager: whatever happens inside, nothing of it stays behind."""

    def __init__(self, name: str, *, image: Image | None = None) -> None:
        """`name` is the node's host name. Without `image` it has no kernel for guests: see `test_uri`.

        Raises MissingTool, and LabError where namespaces are not to be had.
        """
        libvirt.registerErrorHandler(lambda *_: None, None)  # what fails is raised: no need to print it too
        require("libvirtd", *(["qemu-system-x86_64"] if image else []))
        self.name = name
        self.uuid = str(uuid.uuid4())
        self.folder = _make_folder(name)
        self._connection: libvirt.virConnect | None = None
        try:
            self._furnish(image)
            self._namespace = Namespace(self.folder)
        except BaseException:
            shutil.rmtree(self.folder, ignore_errors=True)
            raise
        try:
            self.start_libvirtd()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- where it is ---

    @property
    def socket(self) -> Path:
        """The read-write socket of libvirtd, as this process sees it."""
        return self.folder / SOCKET

    @property
    def uri(self) -> str:
        """The address of its QEMU driver for any libvirt client of this machine."""
        return f"qemu+unix:///system?socket={self.socket}"

    @property
    def test_uri(self) -> str:
        """The address of libvirt's test driver behind this libvirtd: domains without QEMU, fast events."""
        return f"test+unix:///default?socket={self.socket}"

    # --- libvirtd's life ---

    def start_libvirtd(self) -> None:
        """Start libvirtd, and return when it answers. Raises LabError with the end of its log."""
        self._namespace.start_libvirtd()
        try:
            wait_for(self._answers, seconds=START_SECONDS, what=f"libvirtd of {self.name}")
        except LabError as error:
            raise LabError(f"{error}; its log ends: {self.log()[-1000:]}") from None

    def stop_libvirtd(self) -> None:
        """End libvirtd as its service would (TERM). The guests run on."""
        self._end_libvirtd(signal.SIGTERM)

    def kill_libvirtd(self) -> None:
        """`kill -9`. The guests run on."""
        self._end_libvirtd(signal.SIGKILL)

    def freeze_libvirtd(self) -> None:
        """Stop it without ending it (STOP): connections stay, nobody answers."""
        self.libvirtd.send_signal(signal.SIGSTOP)

    def thaw_libvirtd(self) -> None:
        """Let a frozen libvirtd run on (CONT)."""
        self.libvirtd.send_signal(signal.SIGCONT)

    @property
    def libvirtd(self) -> psutil.Process:
        """The process of libvirtd. Raises LabError when it does not run."""
        return self._process(lambda process: process.name() == "libvirtd", "libvirtd")

    def log(self) -> str:
        """All that libvirtd said, standard error included."""
        files = (self.folder / "run/vmwatch/libvirtd.log", self.folder / "log/libvirtd.log")
        return "".join(file.read_text(errors="replace") for file in files if file.exists())

    # --- guests ---

    @property
    def connection(self) -> libvirt.virConnect:
        """A blocking connection to the QEMU driver; a new one when libvirtd was started anew since."""
        if self._connection is None:
            self._connection = libvirt.open(self.uri)
        return self._connection

    def console(self, guest: str) -> Console:
        """The serial console of a guest that runs here."""
        return Console(self.folder / f"run/vmwatch/{guest}.console")

    def qemu(self, guest: str) -> psutil.Process:
        """The QEMU process of a guest that runs here. Raises LabError when there is none."""
        return self._process(lambda process: f"guest={guest}," in " ".join(process.cmdline()), guest)

    def migrate(self, guest: str, target: Host) -> None:
        """Move a running guest to the other host, live, and its definition too. Raises libvirt's error.

        Driven by this process over both hosts' sockets (libvirt's "managed direct"); QEMU talks on loopback.
        """
        flags = (
            libvirt.VIR_MIGRATE_LIVE | libvirt.VIR_MIGRATE_PERSIST_DEST | libvirt.VIR_MIGRATE_UNDEFINE_SOURCE
        )
        loopback = {
            libvirt.VIR_MIGRATE_PARAM_URI: "tcp://127.0.0.1",
            libvirt.VIR_MIGRATE_PARAM_LISTEN_ADDRESS: "127.0.0.1",
        }
        self.connection.lookupByName(guest).migrate3(target.connection, loopback, flags)

    # --- the end ---

    def close(self) -> None:
        """End everything that runs in it, and remove its folder. Safe to call twice."""
        self._disconnect()
        self._namespace.close()

    # --- how ---

    def _furnish(self, image: Image | None) -> None:
        for name in ("run/vmwatch", "lib", "log", "cache", "etc/drivers"):
            (self.folder / name).mkdir(parents=True)
        port = _free_ports()
        (self.folder / "etc/libvirtd.conf").write_text(LIBVIRTD_CONF.format(uuid=self.uuid))
        (self.folder / "etc/qemu.conf").write_text(QEMU_CONF.format(port=port, last_port=port + 15))
        # libvirt's QEMU driver does not start without the user that only Debian's service package makes.
        for file, entry in (("passwd", "64055::/:/bin/false"), ("group", "")):
            (self.folder / file).write_text(
                Path("/etc", file).read_text() + f"libvirt-qemu:x:64055:{entry}\n"
            )
        (self.folder / "etc/drivers" / DRIVER).symlink_to(_find_driver())
        if image is not None:
            shutil.copyfile(image.kernel, self.folder / "run/vmwatch/vmlinuz")
            shutil.copyfile(image.initramfs, self.folder / "run/vmwatch/initramfs")

    def _answers(self) -> bool:
        assert self.libvirtd.is_running()
        try:
            self.connection.getLibVersion()
        except libvirt.libvirtError:
            self._disconnect()
            return False
        return True

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(libvirt.libvirtError):
                connection.close()

    def _end_libvirtd(self, how: signal.Signals) -> None:
        process = self.libvirtd
        process.send_signal(how)
        process.wait(timeout=10)
        self._disconnect()

    def _process(self, wanted: Callable[[psutil.Process], bool], what: str) -> psutil.Process:
        for process in self._namespace.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                if wanted(process):
                    return process
        raise LabError(f"{what} does not run on {self.name}")


def _make_folder(name: str) -> Path:
    folder = Path(tempfile.mkdtemp(prefix=f"vmwatch-{name}-"))
    if len(str(folder / SOCKET)) > SOCKET_PATH_MOST:
        folder.rmdir()
        raise LabError(f"{folder}: too long for the path of a socket in it; set TMPDIR to a shorter one")
    return folder


def _find_driver() -> Path:
    for library in LIBRARIES:
        driver = Path(library, "libvirt/connection-driver", DRIVER)
        if driver.exists():
            return driver
    raise MissingTool(f"not installed: libvirt's QEMU driver, {DRIVER}")


def _free_ports() -> int:
    """The first of 16 ports for incoming migrations: libvirt takes one that is free then."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return min(int(probe.getsockname()[1]), 65_000)
