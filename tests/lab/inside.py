# SPDX-License-Identifier: Apache-2.0
"""The first process of a private host: in namespaces of its own it starts libvirtd, and takes all with it.

    unshare --mount --pid --uts --fork … python inside.py FOLDER

Lays FOLDER's folders over those where libvirt keeps its things, then obeys standard input: the line
`libvirtd` starts it. When standard input ends, because the laboratory closed it or was killed, this process
kills whatever runs in its namespace, removes FOLDER and ends; the kernel takes namespace and mounts away. So
nothing can stay.

Uses the standard library only and nothing of this repository: parts of the file system vanish under it.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
from pathlib import Path

# Whole parents, not libvirt's own folders below them: those may not exist, and are not ours to make.
COVERED = {
    "run": "/run",
    "lib": "/var/lib",
    "log": "/var/log",
    "cache": "/var/cache",
    "etc": "/etc/libvirt",
    "passwd": "/etc/passwd",
    "group": "/etc/group",
}


def main() -> None:
    folder = Path(sys.argv[1])
    os.chdir(folder.parent)  # stays reachable whatever is laid over it
    try:
        socket.sethostname(folder.name)
        for name, covered in COVERED.items():
            _bind(folder / name, Path(covered))
        if _lacks_setgroups():
            _pretend_setgroups()
        signal.signal(signal.SIGCHLD, _reap)
        print("inside", flush=True)
        for line in sys.stdin:
            if line == "libvirtd\n":
                _start_libvirtd()
                print("started", flush=True)
    finally:
        _end(Path(folder.name))


def _bind(source: Path, target: Path) -> None:
    # Recursive, for a user's namespace may not lay bare what was mounted below.
    subprocess.run(["mount", "--rbind", str(source), str(target)], check=True)


def _lacks_setgroups() -> bool:
    setting = Path("/proc/self/setgroups")
    return setting.exists() and setting.read_text() == "deny\n"


def _pretend_setgroups() -> None:
    """Have the system call setgroups answer success and do nothing.

    In a namespace that an ordinary user made, the kernel refuses it, and libvirtd calls it for each QEMU.
    """
    accept, pretend = 0x7FFF0000, 0x00050000  # SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO with error 0
    filters = b"".join(
        struct.pack("=HBBI", *instruction)
        for instruction in (
            (0x20, 0, 0, 4),  # load the architecture
            (0x15, 0, 3, 0xC000003E),  # not x86-64: accept
            (0x20, 0, 0, 0),  # load the call's number
            (0x15, 0, 1, 116),  # not setgroups: accept
            (0x06, 0, 0, pretend),
            (0x06, 0, 0, accept),
        )
    )
    code = ctypes.create_string_buffer(filters)
    program = ctypes.create_string_buffer(struct.pack("@HP", len(filters) // 8, ctypes.addressof(code)))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(22, 2, program, 0, 0) != 0:  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_SECCOMP)")


def _start_libvirtd() -> None:
    # Without more drivers than QEMU's: the network driver's start would touch the host's packet filter.
    environment = {**os.environ, "LIBVIRT_DRIVER_DIR": "/etc/libvirt/drivers", "HOME": "/run/vmwatch"}
    with Path("/run/vmwatch/libvirtd.log").open("ab") as log:
        subprocess.Popen(
            ["libvirtd", "--config", "/etc/libvirt/libvirtd.conf", "--pid-file", "/run/libvirtd.pid"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment,
            start_new_session=True,
        )


def _reap(_signal: int, _frame: object) -> None:
    """As the first process of its namespace: every orphan is ours (QEMU detaches itself from libvirtd)."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def _end(folder: Path) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        os.kill(-1, signal.SIGKILL)  # reaches this namespace only
        while True:
            os.wait()
    except (ProcessLookupError, ChildProcessError):
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
