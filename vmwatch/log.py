# SPDX-License-Identifier: Apache-2.0
"""The log of a service, in the product's form: `Mon D HH:MM:SS [PID] module LEVEL text`, local time.

A log that cannot be written never stops the service: lost lines are counted, and told of when writing works
again. Third parties are heard from WARNING on, vmwatch itself from the level of the configuration.
"""

from __future__ import annotations

import logging
import os
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

# English whatever the locale, which strftime is not.
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

# The priorities that the journal knows, from sd-daemon(3).
_PRIORITIES: Final = {
    logging.DEBUG: 7,
    logging.INFO: 6,
    logging.WARNING: 4,
    logging.ERROR: 3,
    logging.CRITICAL: 2,
}

# A line is a line: what a peer or a guest named itself cannot begin another.
_ESCAPES: Final = {number: f"\\x{number:02x}" for number in (*range(32), 127)}


class ProductFormatter(logging.Formatter):
    """The product's form. A traceback follows its line, each of its own lines indented."""

    def format(self, record: logging.LogRecord) -> str:
        """The record's line without the final newline."""
        time = datetime.fromtimestamp(record.created, tz=UTC).astimezone()
        stamp = f"{_MONTHS[time.month - 1]} {time.day} {time:%H:%M:%S}"
        return f"{stamp} [{os.getpid()}] {_text(self, record)}"


class JournalFormatter(logging.Formatter):
    """What the journal does not know by itself: priority, module, text. It keeps time and process id."""

    def format(self, record: logging.LogRecord) -> str:
        """The record's lines, each with its priority."""
        priority = f"<{_PRIORITIES.get(record.levelno, 6)}>"
        return "\n".join(priority + line for line in _text(self, record).split("\n"))


def _text(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    module = record.name.rpartition(".")[2]
    text = f"{module} {record.levelname} {record.getMessage().translate(_ESCAPES)}"
    if record.exc_info:
        traceback = formatter.formatException(record.exc_info)
        text += "".join(f"\n    {line}" for line in traceback.split("\n"))
    return text


class LogFile(logging.Handler):
    """Appends to a file, opened when the first line is written, and again after each failure."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.setFormatter(ProductFormatter())
        self._path = path
        self._descriptor: int | None = None
        self._lost = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record, or count it as lost."""
        try:
            text = self.format(record)
            if self._lost:
                text = f"{text} lost_lines_before={self._lost}"
            os.write(self._open(), f"{text}\n".encode(errors="backslashreplace"))
            self._lost = 0
        except OSError:
            self._lost += 1
            self.reopen()

    def trouble(self) -> str | None:
        """Why the file cannot be opened for writing, None when it can."""
        try:
            self._open()
        except OSError as error:
            return f"log_file {self._path} cannot be written: {error.strerror}"
        return None

    def reopen(self) -> None:
        """Close the file; the next line opens it by its name, which may be another file since."""
        self.acquire()
        try:
            if self._descriptor is not None:
                os.close(self._descriptor)
                self._descriptor = None
        finally:
            self.release()

    def close(self) -> None:
        """Close the file for good."""
        self.reopen()
        super().close()

    def _open(self) -> int:
        if self._descriptor is None:
            # Not blocking: a pipe without a reader, or a stopped terminal, holds up nothing.
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
            self._descriptor = os.open(self._path, flags, 0o640)
        return self._descriptor


class Log:
    """The whole log of a process: its file, and with `stderr` standard error too."""

    def __init__(self, path: Path, level: str, *, stderr: bool) -> None:
        """`level` is a name of Python's logging in any case. Nothing is opened yet."""
        logging.raiseExceptions = (
            False  # standard error may be a closed pipe: that is no reason to say so on it
        )
        self.file = LogFile(path)
        root = logging.getLogger()
        root.setLevel(logging.WARNING)
        root.addHandler(self.file)
        if stderr:
            root.addHandler(_stderr_handler())
        self.set_level(level)

    def set_level(self, level: str) -> None:
        """From which level on vmwatch's own lines are written."""
        logging.getLogger("vmwatch").setLevel(level.upper())


def _stderr_handler() -> logging.Handler:
    handler = logging.StreamHandler(sys.stderr)
    # systemd sets it where standard error goes to the journal.
    handler.setFormatter(JournalFormatter() if "JOURNAL_STREAM" in os.environ else ProductFormatter())
    return handler
