# SPDX-License-Identifier: Apache-2.0
"""The wire between one node and the master: a process of its own, which proxy.py is."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from typing import TYPE_CHECKING

from tests.lab.errors import LabError
from tests.lab.processes import free_port

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Self

    from tests.faults.proxy import Mode


class Wire:
    """A proxy process between one node and the master."""

    def __init__(self, *, target: int, log: Path) -> None:
        self.port = free_port()
        self._target = target
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "tests.faults.proxy", str(self.port), str(self._target)]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, start_new_session=True
            )
        assert self._process.stdout is not None
        if self._process.stdout.readline() != b"ready\n":
            self.__exit__()
            raise LabError(f"the proxy did not start: {self._log.read_text()[-500:]}")
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.communicate(timeout=10)

    def be(self, mode: Mode) -> None:
        """Do this from now on with what would pass."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(f"{mode}\n".encode())
        self._process.stdin.flush()
