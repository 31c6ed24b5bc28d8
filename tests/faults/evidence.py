# SPDX-License-Identifier: Apache-2.0
"""What is left of a run in which something was wrong, or slow: all that every part wrote, as it was at that moment.

A fault test that fails once in a hundred times is worth what it leaves: where an event was last seen says whose fault
it was. `diary.txt` has what the trial did and saw; `observed-N` what libvirt told; the databases and logs what each
part had of it; `sockets.txt` what the kernel held.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

MOST: Final = 3
"""Rounds of one run whose evidence is kept, of the wrong and of the slow ones: the first tell most; 20 MB each."""

DIARY: Final = "diary.txt"


class Diary:
    """What the trial does and sees, each with its time (UTC). Any thread may write."""

    def __init__(self, folder: Path) -> None:
        self._file = (folder / DIARY).open("a", buffering=1)
        self._lock = threading.Lock()
        self._last: dict[str, str] = {}

    def write(self, text: str) -> None:
        with self._lock:
            self._file.write(f"{datetime.now(UTC):%H:%M:%S.%f} {text}\n")

    def write_change(self, subject: str, text: str) -> None:
        """Write it, if it is not what was written of this subject last."""
        if self._last.get(subject) != text:
            self._last[subject] = text
            self.write(f"{subject}: {text}")

    def close(self) -> None:
        self._file.close()


def new_folder(name: str) -> Path:
    """A folder that nobody removes: below $VMWATCH_EVIDENCE, or in the machine's folder for what is temporary."""
    parent = Path(os.environ.get("VMWATCH_EVIDENCE") or tempfile.gettempdir())
    parent.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix=f"vmwatch-evidence-{name}-", dir=parent))


def keep(name: str, sources: Mapping[str, Path], text: str) -> Path:
    """Copy the sources, files or folders, by the names that they shall have; `text` says why. Returns the folder."""
    folder = new_folder(name)
    (folder / "why.txt").write_text(text)
    (folder / "sockets.txt").write_text(_sockets())
    for known_as, source in sources.items():
        _copy(source, folder / known_as)
    return folder


def _copy(source: Path, target: Path) -> None:
    """As far as it can be read: what is copied is at work."""
    with contextlib.suppress(OSError, shutil.Error):
        if source.is_dir():
            shutil.copytree(source, target, dirs_exist_ok=True)
        else:
            shutil.copy(source, target)


def _sockets() -> str:
    """Every TCP connection with its queues and timers."""
    ss = shutil.which("ss")
    if ss is None:
        return "no ss(8) here\n"
    return subprocess.run([ss, "-tinpmo"], capture_output=True, text=True, check=False).stdout
