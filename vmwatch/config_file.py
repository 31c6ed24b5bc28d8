# SPDX-License-Identifier: Apache-2.0
"""The grammar of a configuration file: NAME=VALUE lines in UTF-8. What names mean, vmwatch.config says."""

from __future__ import annotations

import errno
import os
import re
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from vmwatch.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

MAX_SIZE: Final = 1 << 20
"""Bytes. A larger file is not a configuration."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One assignment: `value` as it was written, blanks around it trimmed."""

    file: Path
    number: int
    name: str
    value: str

    def text(self, *, secret: bool) -> str:
        """The assignment as an error shows it: in one line, and without what is secret."""
        # The password in a URL is none of the declared secrets, but one all the same.
        value = "***" if secret and self.value else re.sub(r"//[^/]*@", "//***@", self.value)
        return f"{self.file}:{self.number}: {printable(self.name)}={printable(value)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigFile:
    """A file's assignments by name, in its order; `mode` is its permission bits."""

    path: Path
    mode: int
    lines: dict[str, Line]


def printable(text: str) -> str:
    """The text in one line of a reasonable length."""
    short = text if len(text) <= 100 else text[:100] + "…"
    return short if short.isprintable() else ascii(short)[1:-1]


def read(path: Path) -> ConfigFile:
    """Read a file; ConfigError when it cannot be read, or is not NAME=VALUE lines with each name once."""
    try:
        data, mode = _content(path)
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigError(f"{path}: cannot be read: {reason}: expected a configuration file") from None
    if len(data) > MAX_SIZE:
        raise ConfigError(f"{path}: too large: expected at most {MAX_SIZE} bytes")
    return ConfigFile(path=path, mode=mode, lines=_split(path, _decode(path, data)))


def _content(path: Path) -> tuple[bytes, int]:
    status = path.stat()
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "Not a regular file")  # a pipe could keep us waiting for ever
    with path.open("rb") as file:
        return file.read(MAX_SIZE + 1), stat.S_IMODE(status.st_mode)


def _decode(path: Path, data: bytes) -> str:
    """UTF-8, with or without the byte order mark that some editors put first."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        number = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}:{number}: not UTF-8: expected NAME=VALUE in UTF-8") from None


def _split(path: Path, text: str) -> dict[str, Line]:
    r"""The assignments by name. A line ends with \n or \r\n."""
    found: dict[str, Line] = {}
    for number, untrimmed in enumerate(text.split("\n"), start=1):
        content = untrimmed.strip(" \t\r")
        if not content or content.startswith("#"):
            continue
        line = _assignment(path, number, content)
        if first := found.get(line.name):
            # No value is shown: whether the name is a secret's is not known here.
            shown = line.text(secret=True)
            raise ConfigError(f"{shown}: given twice: expected once, line {first.number} has it")
        found[line.name] = line
    return found


def _assignment(path: Path, number: int, content: str) -> Line:
    name, equals, value = (part.strip(" \t") for part in content.partition("="))
    # The content is not shown: a secret may stand in what has no name.
    if not equals:
        raise ConfigError(f'{path}:{number}: no "=" in the line: expected NAME=VALUE')
    if not name:
        raise ConfigError(f'{path}:{number}: no name before "=": expected NAME=VALUE')
    return Line(file=path, number=number, name=name, value=value)
