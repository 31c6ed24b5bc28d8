# SPDX-License-Identifier: Apache-2.0
"""Going into the background, while the command that was typed waits for the truth about how that went.

The detached service tells the command one word over a pipe: the exit code, and what to print with it. If it
dies without a word, the command tells how it ended.
"""

from __future__ import annotations

import ctypes
import os
import resource
import select
import signal
import sys
from contextlib import suppress
from typing import Final

EXIT_DIED: Final = 1
"""Of the command, when the service died before it said anything."""


MAX_DESCRIPTORS: Final = 65536
"""What a detached service may open: far more than it ever needs."""


class Starter:
    """The waiting command, as the service sees it."""

    def __init__(self, descriptor: int | None) -> None:
        """`descriptor` is the pipe's writing end; None where nobody waits."""
        self._descriptor = descriptor

    def tell(self, code: int, text: str = "") -> None:
        """Say the exit code and what to print with it. After the first word without effect."""
        if self._descriptor is None:
            return
        with suppress(OSError):  # the command may be gone: the service goes on
            os.write(self._descriptor, bytes([code]) + text.encode()[: select.PIPE_BUF - 1])
        os.close(self._descriptor)
        self._descriptor = None


def detach(name: str, *, keep: list[int]) -> Starter | int:
    """Return twice: in the background the command to tell, in the command the exit code it was told.

    In the background no descriptor is open but `keep`, and the working directory is `/`. `name` begins what
    the command prints.
    """
    reader, writer = os.pipe()
    _adopt_orphans()
    sys.stdout.flush()
    sys.stderr.flush()
    if os.fork():
        os.close(writer)
        return _hear(name, reader)
    try:
        _leave_terminal([*keep, writer])
    except Exception as error:  # noqa: BLE001 (nobody else is there to tell)
        Starter(writer).tell(EXIT_DIED, f"cannot detach: {error}")
        os._exit(EXIT_DIED)
    return Starter(writer)


def _adopt_orphans() -> None:
    """Keep the service, though it forks twice, as a child: only so its exit status can be known."""
    pr_set_child_subreaper = 36  # prctl(2)
    ctypes.CDLL(None).prctl(pr_set_child_subreaper, 1, 0, 0, 0)


def _leave_terminal(keep: list[int]) -> None:
    """Fork twice, into a session of its own; close all but `keep`; standard streams to /dev/null."""
    # python-daemon remembers every descriptor that the hard limit allows: 32 MB at systemd's 524,288.
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard > MAX_DESCRIPTORS:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, MAX_DESCRIPTORS), MAX_DESCRIPTORS))
    import daemon.daemon  # noqa: PLC0415 (3 MB that only a detached service needs)

    # Its default signal_map makes SIGTERM raise wherever the program is; its pid file would outlive a kill.
    daemon.daemon.DaemonContext(
        files_preserve=keep, signal_map={}, detach_process=True, working_directory="/", umask=0o027
    ).open()


def _hear(name: str, reader: int) -> int:
    """Wait for the service's word, print and return it."""
    try:
        word = os.read(reader, select.PIPE_BUF)
    except KeyboardInterrupt:
        sys.stderr.write(f"{name}: interrupted, the service goes on starting\n")
        return 128 + signal.SIGINT
    if not word:
        sys.stderr.write(f"{name}: died before it was ready: {_obituary()}\n")
        return EXIT_DIED
    if text := word[1:].decode(errors="replace"):
        sys.stderr.write(f"{name}: {text}\n")
    return word[0]


def _obituary() -> str:
    """How the service ended. It and the processes between are our children; those end well."""
    codes = []
    with suppress(ChildProcessError):
        while True:
            codes.append(os.waitstatus_to_exitcode(os.wait()[1]))
    code = next((code for code in codes if code), 0)
    return f"exit status {code}" if code >= 0 else f"killed by {signal.Signals(-code).name}"
