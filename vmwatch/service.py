# SPDX-License-Identifier: Apache-2.0
"""A Unix service around an asyncio program: commands, lock, detaching, log, signals, readiness.

The order is always the same: configuration → lock → detach → log → loop → connections → ready. Nothing that
a fork would break exists before detaching. What the program itself does is none of this module's business: it
is told by `Life` when to stop, and says when it is ready.
"""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import logging
import os
import signal
import socket
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, Self, TypeVar

from vmwatch import __version__, config
from vmwatch.config import ServiceSettings
from vmwatch.detach import Starter, detach
from vmwatch.errors import AlreadyRunning, ConfigError, StorageError, VmwatchError
from vmwatch.log import Log

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

EXIT_BUG: Final = 1
"""Anything unexpected; the traceback is in the log."""

END_SECONDS: Final = 2.0
"""How long tasks and threads that the program left may take to end."""

EXIT_DISABLED: Final = 1
"""Of --check-enabled: for systemd a condition that is not met (systemd.service(5), ExecCondition)."""

_HELP_EPILOG: Final = """\
exit codes:
  0   stopped as asked, or blocked by disabled=yes; without --foreground: started and ready
  1   unexpected: the log has more
  2   wrong arguments
  69  libvirt is gone (vmwatch-node)
  75  already running
  78  the configuration is wrong
  --check-enabled: 1 with disabled=yes, else 0: a wrong configuration is for the start to tell

files:
  {config}
  the log, the pid file and the state stand where the configuration says

signals:
  TERM, INT  stop; once more: at once
  HUP        open the log file again, take over log_level
"""

_log = logging.getLogger(__name__)

S = TypeVar("S", bound=ServiceSettings)
_S_co = TypeVar("_S_co", bound=ServiceSettings, covariant=True)


class Reader(Protocol[_S_co]):
    """Reads a configuration file: the settings and warnings; ConfigError. See vmwatch.config."""

    def __call__(self, path: Path, *, strict: bool = False) -> tuple[_S_co, list[str]]: ...  # noqa: D102


@dataclass(frozen=True, slots=True, kw_only=True)
class Flag:
    """An option of one program alone: `--NAME`."""

    name: str
    help: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Program(Generic[S]):
    """What makes a service of its own out of this module."""

    name: str
    description: str
    default_config: Path
    read: Reader[S]
    main: Callable[[S, Life], Awaitable[int]]
    """Runs until `Life.stop` is set, returns the exit code; a VmwatchError ends it with that error's."""
    flags: tuple[Flag, ...] = ()
    """Those that were given stand in `Life.flags`."""


class Life:
    """One life of a service, as its program sees it."""

    def __init__(self, *, flags: frozenset[str], started: Callable[[], None]) -> None:
        """`started` releases the starting command; it is called by the first `ready`."""
        self.flags = flags
        """The names of the program's flags that were given."""
        self.stop = asyncio.Event()
        """Set when the service is to stop."""
        self.failed = False
        """Whether something unexpected was raised where nobody awaits it: a bug, which ends the service."""
        self._started: Callable[[], None] | None = started

    def ready(self) -> None:
        """Say that the service does its work; after the first time without effect."""
        if self._started is None:
            return
        _log.info("ready")
        _notify("READY=1")
        self._started()
        self._started = None

    def status(self, text: str) -> None:
        """Tell systemd in one line what the service is about (`systemctl status` shows it)."""
        _notify(f"STATUS={text}")

    def terminate(self, number: signal.Signals) -> None:
        """Ask for the stop."""
        _log.info("stopping signal=%s", number.name)
        _notify("STOPPING=1")
        self.stop.set()

    def unexpected(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Take what was raised in a callback or a lost task (the loop's exception handler)."""
        error = context.get("exception")
        _log.critical("unexpected: %s", context["message"], exc_info=error)
        if error is not None:
            self.failed = True
            self.stop.set()


class Lock:
    """The pid file, locked: the kernel unlocks it however the process ends, so it is never stale."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self.descriptor = descriptor
        self._is_released = False

    @classmethod
    def take(cls, path: Path) -> Self:
        """Lock the file, made with its folder where it is missing; AlreadyRunning, StorageError."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            while True:
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
                if cls._is_locked(path, descriptor):
                    lock = cls(path, descriptor)
                    lock.write_pid()
                    return lock
                os.close(descriptor)
        except OSError as error:
            raise StorageError(f"pid_file {path} cannot be locked: {error.strerror}") from None

    @staticmethod
    def _is_locked(path: Path, descriptor: int) -> bool:
        """Lock; False when a service that stopped has removed the file since it was opened."""
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.pread(descriptor, 32, 0).partition(b"\n")[0]
            os.close(descriptor)
            raise AlreadyRunning(lock=path, pid=int(pid) if pid.isdigit() else None) from None
        try:
            return os.path.samestat(path.stat(), os.fstat(descriptor))
        except FileNotFoundError:
            return False

    def write_pid(self) -> None:
        """Write the id of this process: again after each fork."""
        text = f"{os.getpid()}\n".encode()
        os.pwrite(self.descriptor, text, 0)
        os.ftruncate(self.descriptor, len(text))  # in this order the first line is whole at any moment

    def release(self) -> None:
        """Remove the file, then unlock: in this order nobody locks a file that is about to go."""
        if self._is_released:
            return
        self._is_released = True
        with suppress(OSError):
            self.path.unlink()
        os.close(self.descriptor)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Service(Generic[S]):
    """A program with all that is needed to run it. The lock is held."""

    program: Program[S]
    path: Path
    settings: S
    warnings: list[str]
    flags: frozenset[str]
    lock: Lock

    def detach(self) -> int:
        """Run in the background. Returns twice: here when it is ready or dead, there when it ended."""
        starter = detach(self.program.name, keep=[self.lock.descriptor])
        if isinstance(starter, int):
            return starter
        self.lock.write_pid()
        return self.serve(starter, stderr=False)

    def serve(self, starter: Starter, *, stderr: bool) -> int:
        """Run until the program ends, and return the exit code."""
        log = Log(self.settings.log_file, self.settings.log_level, stderr=stderr)
        _log.info("starting program=%s version=%s", self.program.name, __version__)
        trouble = log.file.trouble() or ""
        for warning in (*self.warnings, trouble):
            if warning:
                _log.warning("%s", warning)
        code, reason = asyncio.run(self._live(log, starter, trouble))
        self._end(starter, code, reason)
        if threading.active_count() > 1:
            # In a call that hangs, of libvirt's or the panel's. Should it return while Python takes itself apart, the
            # process would die of it (SIGSEGV); all is written.
            os._exit(code)
        return code

    def _end(self, starter: Starter, code: int, reason: str) -> None:
        self.lock.release()
        starter.tell(code or EXIT_BUG, reason)  # after the lock: whoever hears it may start the next one

    async def _live(self, log: Log, starter: Starter, trouble: str) -> tuple[int, str]:
        loop = asyncio.get_running_loop()
        life = Life(flags=self.flags, started=lambda: starter.tell(0, trouble))
        loop.set_exception_handler(life.unexpected)
        loop.add_signal_handler(signal.SIGHUP, self._reload, log)
        _on_stop_signals(lambda number: loop.call_soon_threadsafe(life.terminate, number))
        try:
            code, reason = await self.program.main(self.settings, life), "stopped before it was ready"
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 (the root of all tasks)
            code, reason = _ending(error)
        if life.failed:
            code = EXIT_BUG
        _log.info("stopped exit_code=%d", code)
        _end_whatever_hangs(code, lambda: self._end(starter, code, reason))
        return code, reason

    def _reload(self, log: Log) -> None:
        log.file.reopen()
        if trouble := log.file.trouble():
            _log.warning("%s", trouble)
        try:
            settings, _ = self.program.read(self.path)
        except ConfigError as error:
            _log.error("configuration is wrong, log_level stays: %s", error)
            return
        log.set_level(settings.log_level)
        _log.info("log opened again log_level=%s", settings.log_level)


def _on_stop_signals(ask: Callable[[signal.Signals], object]) -> None:
    """Ask for the stop at the first signal. The next one meets the kernel's own action: the end."""

    def handle(number: int, _frame: object) -> None:
        for each in (signal.SIGTERM, signal.SIGINT):
            signal.signal(each, signal.SIG_DFL)
        with suppress(RuntimeError):  # the loop has just ended: so be it
            ask(signal.Signals(number))

    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, handle)


def _end_whatever_hangs(code: int, last: Callable[[], None]) -> None:
    """See to it that the process ends soon: Python itself waits without end for a thread in a stuck call."""

    def end(_number: int, _frame: object) -> None:
        _log.error("ended while a task or a thread hangs")
        last()
        os._exit(code)

    signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, END_SECONDS)


def _ending(error: BaseException) -> tuple[int, str]:
    """The exit code and the reason of a service that was ended by an error, which is logged."""
    expected = _expected(error)
    if expected is None:
        _log.critical("unexpected: %s", error, exc_info=error)
        return EXIT_BUG, f"unexpected {type(error).__name__}: {error} (the log has more)"
    _log.error("%s", expected)
    return expected.exit_code, str(expected)


def _expected(error: BaseException) -> VmwatchError | None:
    """The expected failure that an error is, or that all errors of a task group are."""
    if isinstance(error, BaseExceptionGroup):
        inner = [_expected(each) for each in error.exceptions]
        return inner[0] if all(inner) else None
    return error if isinstance(error, VmwatchError) else None


def _notify(text: str) -> None:
    """Tell systemd, if it listens (sd_notify(3))."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notices:
        notices.settimeout(1)
        notices.connect(f"\0{address[1:]}" if address.startswith("@") else address)
        notices.sendall(text.encode())


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def _parser(program: Program[S]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=program.name,
        description=program.description,
        epilog=_HELP_EPILOG.format(config=program.default_config),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--config", type=Path, default=program.default_config, metavar="FILE", help="default: %(default)s"
    )
    parser.add_argument("--foreground", action="store_true", help="do not detach; log to standard error too")
    parser.set_defaults(flags=None)
    command = parser.add_mutually_exclusive_group()
    command.add_argument(
        "--check-config", action="store_true", help="only check the configuration, unknown names too"
    )
    command.add_argument(
        "--check-enabled", action="store_true", help="only say whether disabled=yes is absent"
    )
    command.add_argument("--version", action="version", version=f"{program.name} {__version__}")
    for flag in program.flags:
        parser.add_argument(
            f"--{flag.name}", action="append_const", const=flag.name, dest="flags", help=flag.help
        )
    return parser


def _check_config(program: Program[S], path: Path) -> int:
    _, warnings = program.read(path, strict=True)
    for warning in warnings:
        _say(f"{program.name}: {warning}")
    sys.stdout.write(f"{path}: correct\n")
    return 0


def _check_enabled(path: Path) -> int:
    """Whether the service may start. A wrong file does not forbid it: the start fails, and says why.

    (systemd takes 1 to 254 of an ExecCondition for "skip, and all is well", which would hide a wrong file.)
    """
    try:
        return EXIT_DISABLED if config.is_disabled(path) else 0
    except ConfigError:
        return 0


def _start(program: Program[S], path: Path, flags: frozenset[str], *, foreground: bool) -> int:
    if config.is_disabled(path):
        sys.stdout.write(f"{program.name}: not started: disabled=yes in {path}\n")
        return 0
    settings, warnings = program.read(path)
    lock = Lock.take(settings.pid_file)
    service = _Service(
        program=program, path=path, settings=settings, warnings=warnings, flags=flags, lock=lock
    )
    if foreground:
        return service.serve(Starter(None), stderr=True)
    for warning in warnings:
        _say(f"{program.name}: {warning}")
    return service.detach()


def run(program: Program[S], argv: Sequence[str] | None = None) -> int:
    """Do what the command line says, and return the exit code for the process to end with."""
    options = _parser(program).parse_args(argv)
    path = options.config.absolute()  # a detached service has another working directory
    try:
        if options.check_config:
            return _check_config(program, path)
        if options.check_enabled:
            return _check_enabled(path)
        return _start(program, path, frozenset(options.flags or ()), foreground=options.foreground)
    except VmwatchError as error:
        _say(f"{program.name}: {error}")
        return error.exit_code
