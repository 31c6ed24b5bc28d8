# SPDX-License-Identifier: Apache-2.0
"""A network namespace for the calling thread and what it starts, for as long as a `with` lasts. Root alone has it."""

from __future__ import annotations

import ctypes
import os
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.lab.errors import LabError, require

if TYPE_CHECKING:
    from collections.abc import Iterator

_NEW_NETWORK: Final = 0x40000000  # CLONE_NEWNET, unshare(2)


@contextmanager
def own_network() -> Iterator[None]:
    """Nothing is in it but loopback. Raises MissingTool, and LabError where there is none to be had."""
    require("ip")
    libc = ctypes.CDLL(None, use_errno=True)
    with Path("/proc/thread-self/ns/net").open("rb") as before:
        if libc.unshare(_NEW_NETWORK):
            raise LabError(f"no network namespace of our own: {os.strerror(ctypes.get_errno())}")
        try:
            ip("link set lo up")
            yield
        finally:
            libc.setns(before.fileno(), _NEW_NETWORK)


def ip(command: str, *before: str) -> None:
    """Run `ip`; `before` is what its command line begins with. Raises LabError."""
    done = subprocess.run((*before, "ip", *command.split()), check=False, capture_output=True, text=True)
    if done.returncode:
        raise LabError(f"ip {command}: {done.stderr.strip()}")
