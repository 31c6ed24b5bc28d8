# SPDX-License-Identifier: Apache-2.0
"""Runs a small script of sh here, or on another host by the `ssh` program. What it is for, others say.

A value never becomes part of a script: it is an argument, quoted for the other host's shell. A secret never is an
argument, which every user of a host can see: it goes over standard input.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from vmwatch.errors import VmwatchError

if TYPE_CHECKING:
    from asyncio import StreamReader, StreamWriter
    from asyncio.subprocess import Process
    from pathlib import Path

MAX_OUTPUT: Final = 1 << 20
"""Bytes that a script may print."""

CONNECT_SECONDS: Final = 10
_SSH_FAILED: Final = 255  # ssh(1): its own failure; no script of ours ends with it
_TEXT_MOST: Final = 500  # characters of what a program says of its failure

# Where `service`, `systemctl` and `vmwatch` are, whatever path the other host's sshd gives.
_PREAMBLE: Final = 'PATH="$PATH:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"\n'


class HostError(VmwatchError):
    """A script did not do what it was to do: one sentence for an administrator."""


class Unreachable(HostError):
    """The host cannot be reached, or does not let us in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What a script came to."""

    code: int
    output: bytes
    error: str
    """What it said on standard error, in one line of a reasonable length."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ssh:
    """How the panel signs in on other hosts: its private key, and the file of the host keys that it accepts."""

    identity: Path
    known_hosts: Path

    def command(self, address: str) -> list[str]:
        """What runs the next argument on the host."""
        return [*self.program(), "--", address]

    def program(self) -> list[str]:
        """`ssh`, and how it is to be used. No file of a user's or the system's says otherwise."""
        options = {
            "BatchMode": "yes",
            "StrictHostKeyChecking": "yes",
            "UserKnownHostsFile": _option(self.known_hosts),
            "GlobalKnownHostsFile": "/dev/null",
            "IdentityFile": _option(self.identity),
            "IdentitiesOnly": "yes",
            "ConnectTimeout": str(CONNECT_SECONDS),
            "ServerAliveInterval": "5",
            "ServerAliveCountMax": "2",
        }
        given = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
        return ["ssh", "-F", "none", "-T", *given]

    def failure(self, address: str, said: str) -> Unreachable:
        """A failure of ssh itself, in the words of whoever can mend it. The marks are OpenSSH's messages."""
        reasons = {
            "IDENTIFICATION HAS CHANGED": f"its host key is not the one in {self.known_hosts}: another host answers,"
            " or it was installed anew",
            "Host key verification failed": "its host key is not known: compare it, then add it to"
            f" {self.known_hosts} (ssh-keyscan)",
            "no such identity": f"there is no key {self.identity}: make one (ssh-keygen -t ed25519 -N '' -f FILE)",
            "Permission denied": "it does not accept the panel's key: add the text of"
            f" {self.identity}.pub to its authorized_keys",
        }
        reason = next((reason for mark, reason in reasons.items() if mark in said), said or "no connection")
        return Unreachable(f"SSH to {address}: {reason}")


async def run(
    ssh: Ssh, address: str | None, script: str, *arguments: str, stdin: bytes = b"", seconds: float
) -> Done:
    """Run a script with these arguments ($1 …) at an address (`[USER@]HOST`; None: here) within `seconds`.

    Raises Unreachable; HostError: it did not end in time, printed too much, or there is no such program here.
    """
    command = ["sh", "-c", _PREAMBLE + script, "sh", *arguments]
    if address is not None:
        command = [*ssh.command(address), shlex.join(command)]
    where = "here" if address is None else f"at {address}"
    try:
        async with asyncio.timeout(seconds):
            done = await _run(command, stdin)
    except TimeoutError:
        raise HostError(f"not done {where} within {seconds:g} s") from None
    except OSError as error:
        raise HostError(f"{command[0]}: {error.strerror}") from None
    if len(done.output) > MAX_OUTPUT:
        raise HostError(f"more than {MAX_OUTPUT} bytes were printed {where}")
    if address is not None and done.code == _SSH_FAILED:
        raise ssh.failure(address, done.error)
    return done


async def _run(command: list[str], stdin: bytes) -> Done:
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "LC_ALL": "C"},  # ssh's messages are looked at
        start_new_session=True,  # ended with all that it started
    )
    assert process.stdin and process.stdout and process.stderr  # noqa: S101, PT018 (they are pipes)
    try:
        output, error, _ = await asyncio.gather(
            _read(process.stdout), _read(process.stderr), _feed(process.stdin, stdin)
        )
        code = await process.wait()
    finally:
        await _end(process)
    said = " ".join(error.decode(errors="replace").split())
    return Done(code=code, output=output, error=said[:_TEXT_MOST])


async def _end(process: Process) -> None:
    if process.returncode is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


async def _read(stream: StreamReader) -> bytes:
    """All, of which a little more than the limit is kept."""
    kept = bytearray()
    while chunk := await stream.read(1 << 16):
        kept += chunk[: max(0, MAX_OUTPUT + 1 - len(kept))]
    return bytes(kept)


async def _feed(stream: StreamWriter, data: bytes) -> None:
    with suppress(ConnectionError):  # it ended without reading all: its exit code tells
        stream.write(data)
        await stream.drain()
    stream.close()


def _option(path: Path) -> str:
    """A path as ssh_config(5) reads it: quoted, for a blank divides, and without tokens."""
    return '"{}"'.format(str(path).replace("%", "%%").replace('"', '\\"'))
