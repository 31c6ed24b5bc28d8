# SPDX-License-Identifier: Apache-2.0
"""A host on which vmwatch is installed: its commands, its SysV scripts, its files, reached over SSH like any other.

It has its own mounts, so that all paths are the real ones, and a network of its own, or the caller's. Nothing of the
machine's is touched. For root.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.lab.errors import LabError, require
from tests.lab.own_network import ip
from tests.lab.waiting import wait_for

if TYPE_CHECKING:
    from typing import Self

ROOT: Final = Path(__file__).parents[2]
COMMANDS: Final = Path(sys.executable).parent

# What a package installs, in its places; /run shows no systemd, so `service` runs the scripts. When standard input
# ends, because the laboratory closed it or was killed, all is killed that runs in these mounts.
_FURNISH: Final = """
set -eu
mount -t tmpfs none /usr/local
mkdir -p /usr/local/bin /usr/local/mgr5
ln -s "$1/vmwatch" /usr/local/bin/vmwatch
mount --bind "$2/mgr5" /usr/local/mgr5
mount --bind "$2/init.d" /etc/init.d
mount --bind "$2/default" /etc/default
mount --bind "$2/shadow" /etc/shadow
mount -t tmpfs none /run
mkdir -p /run/sshd
echo furnished
cat
own=$(readlink /proc/$$/ns/mnt)
for process in /proc/[0-9]*; do
    pid=${process#/proc/}
    [ "$pid" = $$ ] || [ "$(readlink "$process/ns/mnt")" != "$own" ] || kill -9 "$pid"
done 2>/dev/null
exit 0
"""
_SSHD: Final = """
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/authorized_keys
PidFile none
PermitRootLogin prohibit-password
StrictModes no
UsePAM no
"""


class ServiceHost:
    """One such host. A context manager: in the end all that runs there is gone."""

    def __init__(self, folder: Path, *, own_network: bool) -> None:
        """`folder` is made; `mgr5` in it is the host's /usr/local/mgr5. Raises MissingTool."""
        require("unshare", "nsenter", "mount", "ip", "service")
        self.folder = folder
        for name in ("mgr5/etc", "mgr5/var/run", "init.d", "default"):
            (folder / name).mkdir(parents=True)
        for script in (ROOT / "initd").iterdir():
            shutil.copy(script, folder / "init.d")
            (folder / "default" / script.name).write_text(f"DAEMON={COMMANDS / script.name}\n")
        # A locked account, as the machine's own may be, is not let in by any key.
        (folder / "shadow").write_text("root:*:1::::::\nsshd:!:1::::::\n")
        self._network = ["--net"] if own_network else []

    def __enter__(self) -> Self:
        self._holder = subprocess.Popen(
            (
                *("unshare", "--mount", *self._network),
                *("sh", "-c", _FURNISH, "sh", str(COMMANDS), str(self.folder)),
            ),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._holder.stdout is not None
        if self._holder.stdout.readline() != b"furnished\n":
            self.__exit__()
            raise LabError("there are no namespaces to be had")
        return self

    def __exit__(self, *_: object) -> None:
        self._holder.communicate()

    @property
    def enter(self) -> tuple[str, ...]:
        """What a command begins with that is to run there."""
        pid = str(self._holder.pid)
        return (shutil.which("nsenter") or "nsenter", "-t", pid, "--mount", *self._network, "--")

    def config(self, service: str) -> Path:
        """The configuration of `vmwatch-node` or `vmwatch-master`."""
        return self.folder / f"mgr5/etc/{service}.conf"

    def log(self, service: str) -> str:
        """What a service has written."""
        return (self.folder / f"mgr5/var/{service}.log").read_text()

    def pid(self, service: str) -> int | None:
        """The process of a service; None where it does not run, or was killed."""
        file = self.folder / f"mgr5/var/run/{service}.pid"
        return int(file.read_text()) if self.service(service, "status") == 0 else None

    def service(self, service: str, action: str) -> int:
        """The exit code of `service SERVICE ACTION`."""
        return self.run("service", service, action).returncode

    def kill(self, service: str) -> None:
        """`kill -9`, and wait until it is gone."""
        pid = self.pid(service)
        assert pid is not None, f"{service} does not run"
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: not _lives(pid), seconds=10, what=f"the end of {service}")

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command there."""
        return subprocess.run(
            (*self.enter, *command), capture_output=True, text=True, timeout=60, check=False
        )

    def plug(self, port: str, address: str) -> None:
        """Give a host with a network of its own an address, over a cable to the bridge that the caller's has."""
        ip(f"link add {port} type veth peer name eth0 netns {self._holder.pid}")
        ip(f"link set {port} master bridge up")
        for command in ("link set lo up", f"addr add {address}/24 dev eth0", "link set eth0 up"):
            ip(command, *self.enter)

    def start_sshd(self, authorized_key: str) -> str:
        """Let the owner of this public key in as root; the host's own public key."""
        require("sshd", "ssh-keygen")
        make_key(self.folder / "host_key")
        (self.folder / "authorized_keys").write_text(authorized_key)
        (self.folder / "sshd_config").write_text(_SSHD.format(folder=self.folder))
        done = self.run("/usr/sbin/sshd", "-f", str(self.folder / "sshd_config"))
        if done.returncode:
            raise LabError(f"sshd: {done.stderr}")
        return (self.folder / "host_key.pub").read_text()


def make_key(file: Path) -> str:
    """Make a key of SSH; the public one."""
    command = ("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f", str(file))
    subprocess.run(command, check=True)
    return file.with_suffix(".pub").read_text() if file.suffix else Path(f"{file}.pub").read_text()


def _lives(pid: int) -> bool:
    try:
        return "zombie" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False
