# SPDX-License-Identifier: Apache-2.0
"""A network of the laboratory's own, with a cable that can be pulled: what is sent then is lost, and nobody is told.

For a process that is in a network namespace of its own (`unshare --net`): nothing of the machine's is touched.
"""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Final

from tests.lab.errors import LabError, require

if TYPE_CHECKING:
    from typing import Self

HERE: Final = "192.0.2.1"  # of the block that is reserved for documentation
THERE: Final = "192.0.2.2"

# Not the port's own address, which the bridge would take: the port would then go on receiving for it.
_BRIDGE_ADDRESS: Final = "02:00:00:00:00:01"
_HOLD: Final = "print('there', flush=True); input()"


class Network:
    """Another namespace, and a cable from it to a bridge here. A context manager."""

    def __init__(self) -> None:
        """Raises MissingTool."""
        require("ip", "unshare", "nsenter")

    def __enter__(self) -> Self:
        self._holder = subprocess.Popen(
            ("unshare", "--net", sys.executable, "-I", "-c", _HOLD),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert self._holder.stdout is not None
        if self._holder.stdout.readline() != b"there\n":
            raise LabError("there is no network namespace to be had")
        _ip("link set lo up")
        _ip(f"link add bridge address {_BRIDGE_ADDRESS} type bridge")
        _ip(f"addr add {HERE}/24 dev bridge")
        _ip(f"link add port type veth peer name there netns {self._holder.pid}")
        for command in ("link set bridge up", "link set port up"):
            _ip(command)
        for command in ("link set lo up", f"addr add {THERE}/24 dev there", "link set there up"):
            _ip(command, *self.enter)
        self.plug()
        return self

    def __exit__(self, *_: object) -> None:
        self._holder.communicate()

    @property
    def enter(self) -> tuple[str, ...]:
        """What a command begins with that is to run there."""
        return ("/usr/bin/nsenter", "--net", f"--target={self._holder.pid}", "--")

    def pull(self) -> None:
        """From now on nothing gets through."""
        _ip("link set port nomaster")

    def plug(self) -> None:
        """From now on all gets through."""
        _ip("link set port master bridge")


def _ip(command: str, *before: str) -> None:
    done = subprocess.run((*before, "ip", *command.split()), check=False, capture_output=True, text=True)
    if done.returncode:
        raise LabError(f"ip {command}: {done.stderr.strip()}")
