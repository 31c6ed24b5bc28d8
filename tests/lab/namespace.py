# SPDX-License-Identifier: Apache-2.0
"""Namespaces of a private host's own, and the processes in them. See inside.py for what happens within."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

import psutil

from tests.lab.errors import LabError, require

if TYPE_CHECKING:
    from collections.abc import Iterator

END_SECONDS: Final = 20.0


class Namespace:
    """The mounts, processes and host name of one private host, until `close`."""

    def __init__(self, folder: Path) -> None:
        """`folder` holds what is laid over the machine's own folders (inside.COVERED); it is removed in the end.

        Raises LabError where there are no namespaces to be had.
        """
        require("unshare", "mount", "libvirtd")
        self._folder = folder
        as_user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
        self._first = subprocess.Popen(
            [
                *("unshare", *as_user, "--mount", "--mount-proc", "--pid", "--uts", "--fork", "--kill-child"),
                *(sys.executable, "-I", str(Path(__file__).with_name("inside.py")), str(folder)),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for us, who then close its input
            env={**os.environ, "PATH": f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"},
        )
        if _pipe(self._first.stdout).readline() != b"inside\n":
            error = _pipe(self._first.stderr).read().decode(errors="replace").strip()
            self.close()
            raise LabError(f"this machine gives no namespaces of our own (root gets them): {error[-500:]}")

    def start_libvirtd(self) -> None:
        """Start libvirtd; return when it is a process."""
        _pipe(self._first.stdin).write(b"libvirtd\n")
        _pipe(self._first.stdin).flush()
        _pipe(self._first.stdout).readline()

    def processes(self) -> Iterator[psutil.Process]:
        """All processes in it; they may end while they are looked at."""
        with contextlib.suppress(psutil.NoSuchProcess):
            yield from psutil.Process(self._first.pid).children(recursive=True)

    def close(self) -> None:
        """End everything in it, and remove the folder. Safe to call twice."""
        with contextlib.suppress(OSError):
            _pipe(self._first.stdin).close()
        try:
            self._first.wait(timeout=END_SECONDS)
        except subprocess.TimeoutExpired:
            self._first.kill()  # takes the namespace's first process along, and that everything else
            self._first.wait()
        _pipe(self._first.stdout).close()
        _pipe(self._first.stderr).close()
        shutil.rmtree(self._folder, ignore_errors=True)


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    assert stream is not None, "it was opened as a pipe"
    return stream
