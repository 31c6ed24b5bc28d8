# SPDX-License-Identifier: Apache-2.0
"""The commands of vmwatch as real processes: started, waited for, read, stopped, killed.

A process dies with the thread that started it here, even if that is killed: start them from the main thread.
"""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.lab.errors import LabError, require
from tests.lab.waiting import DeadlinePassed, wait_for

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Self

READY_SECONDS: Final = 20.0  # a start takes 0.5 s; a machine under load takes longer
STOP_SECONDS: Final = 10.0


class Service:
    """One command that runs until it is stopped. A context manager: at its end the process is gone."""

    def __init__(self, command: Sequence[str], *, log: Path, ready: str) -> None:
        """`command[0]` is a command of ours or a path. What it prints goes to `log`; `ready` in it means ready."""
        require("setpriv")
        self.name = Path(command[0]).name
        self._command = [*("setpriv", "--pdeathsig", "KILL"), find_command(command[0]), *command[1:]]
        self._log = log
        self._ready = ready
        self._start_of_log = 0
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """Its process id. Raises LabError when it was not started."""
        return self._running().pid

    def start(self, *, wait: bool = True) -> Self:
        """Start it; with `wait`, return when it is ready. Raises LabError with its output when it ends first."""
        with self._log.open("ab") as log:
            self._start_of_log = log.tell()
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for us, who then stop it in order
            )
        if wait:
            self.wait_ready()
        return self

    def wait_ready(self, *, seconds: float = READY_SECONDS) -> None:
        """Return when it is ready. Raises LabError with its output."""
        try:
            wait_for(self._is_ready, seconds=seconds, what=f"{self.name} to be ready")
        except DeadlinePassed as error:
            raise DeadlinePassed(f"{error}; it said:\n{self._last_words()}") from None

    def output(self) -> str:
        """What it printed since its last start, both streams."""
        with self._log.open("rb") as log:
            log.seek(self._start_of_log)
            return log.read().decode(errors="replace")

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal; STOP and CONT freeze and thaw it."""
        self._running().send_signal(number)

    def kill(self) -> None:
        """`kill -9`, and wait until it is gone."""
        self._running().kill()
        self._running().wait()

    def stop(self) -> int | None:
        """Ask it to stop, and return its exit code; kill it when it does not. None: it was not started."""
        if self._process is None:
            return None
        for number in (signal.SIGTERM, signal.SIGCONT):
            self._process.send_signal(number)
        try:
            self._process.wait(timeout=STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
        return self._process.wait()

    def wait(self, *, seconds: float) -> int:
        """Return its exit code once it ends by itself. Raises DeadlinePassed."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._running().wait(timeout=seconds)
        raise DeadlinePassed(f"{self.name} runs on after {seconds:g} s; it said:\n{self._last_words()}")

    def check(self) -> None:
        """Raise LabError with its output if it ended by itself."""
        code = self._running().poll()
        if code is not None:
            raise LabError(f"{self.name} ended with {code}; it said:\n{self._last_words()}")

    def _is_ready(self) -> bool:
        self.check()
        return self._ready in self.output()

    def _last_words(self) -> str:
        return "\n".join(self.output().splitlines()[-20:])

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise LabError(f"{self.name} was not started")
        return self._process


def find_command(name: str) -> str:
    """The path of a command of this environment; a path stays one. Raises LabError."""
    path = Path(name) if "/" in name else Path(sys.executable).with_name(name)
    if not path.exists():
        raise LabError(f"{path} is not there: script/env makes the environment")
    return str(path)


def write_config(path: Path, values: Mapping[str, object], *, separator: str = "=") -> Path:
    """Write `NAME=VALUE` lines, or `Name value` with a blank as separator, for the owner alone."""
    path.write_text("".join(f"{name}{separator}{value}\n" for name, value in values.items()))
    path.chmod(0o600)
    return path


def free_port() -> int:
    """A TCP port that nobody listens on at the moment, of the kernel's choice."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
