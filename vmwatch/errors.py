# SPDX-License-Identifier: Apache-2.0
"""What can go wrong, as one tree.

    VmwatchError
    ├── ConfigError            the configuration is wrong                        exit 78 (EX_CONFIG)
    ├── AlreadyRunning         another instance holds the lock                   exit 75 (EX_TEMPFAIL)
    ├── HypervisorLost         libvirt is gone, or was not there at start        exit 69 (EX_UNAVAILABLE)
    ├── ProtocolError          what a peer sent is dropped, counted, warned of
    │   ├── BadEnvelope        not ours: size, magic, version, signature
    │   └── BadBody            authentic, but not what this version can read
    ├── StorageError           a file of ours cannot be read or written
    └── PanelError             a call to the panel's API failed
        ├── Unavailable        nothing wrong with the call: try again later
        ├── Missed             the panel does not know the object, or the function
        └── Refused            the panel understood and said no: do not try again

Anything else that is raised is a bug: a traceback, exit 1, and the supervisor starts the service again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


class VmwatchError(Exception):
    """The root: an expected failure, whose text is one line for an administrator."""

    exit_code = 1


class ConfigError(VmwatchError):
    """The configuration is wrong. The text names file, line, name, value (never a secret's) and expectation."""

    exit_code = 78


class AlreadyRunning(VmwatchError):
    """Another instance runs with the same lock."""

    exit_code = 75

    def __init__(self, *, lock: Path, pid: int | None) -> None:
        """`pid` is the holder's as it wrote it, None when the file did not say."""
        holder = f"pid {pid}" if pid else "pid unknown"
        super().__init__(f"already running: {holder} holds {lock}")
        self.pid = pid


class HypervisorLost(VmwatchError):
    """There is no connection to libvirt."""

    exit_code = 69


class ProtocolError(VmwatchError):
    """A message is not accepted. `reason` is a stable word for counters and logs."""

    def __init__(self, reason: str, text: str) -> None:
        """`text` never holds the payload."""
        super().__init__(text)
        self.reason = reason


class BadEnvelope(ProtocolError):
    """The message cannot be trusted: size, magic, version or signature."""


class BadBody(ProtocolError):
    """The message is authentic, but its body is not what this version can read."""


class StorageError(VmwatchError):
    """A file of ours cannot be read or written."""


class PanelError(VmwatchError):
    """A call to the panel failed. `kind` is the panel's error `$type` or ours, `object` the panel's `$object`."""

    def __init__(self, kind: str, text: str, *, subject: str = "") -> None:
        """`subject` is the panel's `$object`: what the error is about."""
        super().__init__(f"{kind}: {text}" + (f" ({subject})" if subject else ""))
        self.kind = kind
        self.subject = subject


class Unavailable(PanelError):
    """The panel cannot answer now: no connection, timeout, 5xx, not JSON, access, licence. Try again."""


class Missed(PanelError):
    """The panel does not know the object (`missed`): it may be creating it, or not know the function."""


class Refused(PanelError):
    """The panel said no, and will say so again."""
