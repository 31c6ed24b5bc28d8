# SPDX-License-Identifier: Apache-2.0
"""A small disk of one service's own, that can be filled: a tmpfs in a mount namespace. Needs root."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.lab.errors import LabError, require

if TYPE_CHECKING:
    from typing import Self

SIZE: Final = "16m"  # a write-ahead log grows to 4 MiB before it is taken in
_FILLER: Final = "filler"


class Disk:
    """Mounted over `folder` for who is started with `enter` before its command. Gone with this process."""

    def __init__(self, folder: Path) -> None:
        require("unshare", "nsenter", "mount")
        if os.geteuid() != 0:
            raise LabError("only root can fill a disk here")
        self._folder = folder
        self._full_until = 0.0
        script = f"mount -t tmpfs -o size={SIZE},mode=0700 tmpfs {folder} && echo mounted && read -r _"
        self._holder = subprocess.Popen(
            ["unshare", "--mount", "--propagation", "private", "sh", "-c", script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )

    def __enter__(self) -> Self:
        assert self._holder.stdout is not None
        if self._holder.stdout.readline() != b"mounted\n":
            self.__exit__()
            raise LabError("a small disk could not be mounted")
        return self

    def __exit__(self, *_: object) -> None:
        self._holder.communicate()

    @property
    def enter(self) -> list[str]:
        """The beginning of a command that sees the disk."""
        nsenter = shutil.which("nsenter")
        assert nsenter is not None
        return [nsenter, f"--mount=/proc/{self._holder.pid}/ns/mnt", "--"]

    @property
    def seen_from_outside(self) -> Path:
        return Path(f"/proc/{self._holder.pid}/root{self._folder}")

    def was_full(self, since: float) -> bool:
        """Whether it had no room at any moment since then."""
        return self._full_until >= since

    def fill(self) -> None:
        """Leave no byte free."""
        self._full_until = float("inf")
        with (
            (self.seen_from_outside / _FILLER).open("ab", buffering=0) as filler,
            contextlib.suppress(OSError),
        ):
            while filler.write(bytes(4096)):
                pass

    def free(self) -> None:
        """Give back what `fill` took."""
        self._full_until = time.time()
        (self.seen_from_outside / _FILLER).unlink(missing_ok=True)
