# SPDX-License-Identifier: Apache-2.0
"""What is done to a service on its host: its file read and written, the service looked at, started and stopped.

Each is one script of sh, which is the same here and over SSH.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from vmwatch import config
from vmwatch.panel import remote, service_report
from vmwatch.panel.remote import HostError
from vmwatch.panel.shown_services import MASTER, State

if TYPE_CHECKING:
    from pathlib import Path

    from vmwatch.panel.remote import Ssh

SECONDS: Final = 30.0  # of a look, or of writing a file
START_SECONDS: Final = 60.0  # the scripts stop a service that hangs after 20 s

_READ: Final = '[ ! -e "$1" ] || cat -- "$1"'

# mktemp makes it 0600; a connection that breaks must not leave half a file, hence the size.
_WRITE: Final = """
set -eu
folder=$(dirname -- "$1")
mkdir -p -- "$folder"
new=$(mktemp -- "$1.XXXXXX")
trap 'rm -f -- "$new"' EXIT
cat >"$new"
[ "$(wc -c <"$new")" -eq "$2" ] || { echo "the file did not arrive whole" >&2; exit 1; }
chown -- "root:$3" "$new"
chmod 0640 -- "$new"
sync -- "$new"
mv -f -- "$new" "$1"
sync -- "$folder"
"""

# `activating` is not running: is-active says so, `systemctl status` does not. Without systemd LSB's codes count.
_IS_RUNNING: Final = """
if [ -d /run/systemd/system ]; then systemctl is-active --quiet "$1"; else service "$1" status >/dev/null 2>&1; fi
"""
_LOOK: Final = f"""{_IS_RUNNING}
echo $?
vmwatch --version || echo
vmwatch status "$2" --json
exit 0
"""
_RESTART: Final = f"""
said=$(service "$1" restart 2>&1) || {{ code=$?; printf '%s\\n' "$said" >&2; exit "$code"; }}
{_IS_RUNNING.strip()} || {{ echo "it was started, and does not run" >&2; exit 1; }}
"""
_STOP: Final = 'service "$1" stop >/dev/null'
_FORGET: Final = 'vmwatch forget-node "$1"'
_INTERFACES: Final = "ip -json address"


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """How a service was found. `report` is JSON for the table `service`, None: nothing could be read."""

    state: State
    report: str | None

    @property
    def known_nodes(self) -> list[int]:
        """Of the master: the nodes that it has heard of."""
        service = json.loads(self.report)["service"] if self.report else {}
        return [taken["node"] for taken in (service.get("state") or {}).get("nodes", [])]


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """A host with the service of a node, or of the master. Its methods raise HostError, Unreachable among them."""

    number: int
    """The node's, or MASTER."""
    address: str | None
    """`[USER@]HOST`; None: the panel's own host."""
    ssh: Ssh

    @property
    def _kind(self) -> str:
        return "master" if self.number == MASTER else "node"

    @property
    def service(self) -> str:
        """The service's name."""
        return f"vmwatch-{self._kind}"

    @property
    def file(self) -> Path:
        """Its configuration."""
        return config.MASTER_CONFIG if self.number == MASTER else config.NODE_CONFIG

    async def read(self) -> str:
        """The text of its file, "" where there is none; what is not UTF-8 comes back as it is with `write`."""
        return (await self._run(_READ, str(self.file))).decode(errors="surrogateescape")

    async def write(self, text: str, *, group: str) -> None:
        """Put a new file in the place of the old one, at once and surely: 0640, root and this group."""
        data = text.encode(errors="surrogateescape")
        await self._run(_WRITE, str(self.file), str(len(data)), group, stdin=data)

    async def look(self) -> Look:
        """Whether it runs, and what it says of itself."""
        output = await self._run(_LOOK, self.service, self._kind)
        code, version, status = (output.decode(errors="replace") + "\n\n").split("\n", 2)
        if not code.isdecimal():  # a shell that greets, on standard output
            raise HostError("its answer cannot be read: does its shell print something of its own?")
        report = service_report.read(version, status)
        is_disabled = bool(report and report["service"]["disabled"])
        state = State.RUNNING if code == "0" else State.DISABLED if is_disabled else State.STOPPED
        return Look(state=state, report=json.dumps(report) if report else None)

    async def restart(self) -> None:
        """Start it, anew if it runs. It runs when this returns."""
        await self._run(_RESTART, self.service, seconds=START_SECONDS)

    async def stop(self) -> None:
        """Stop it, if it runs."""
        await self._run(_STOP, self.service, seconds=START_SECONDS)

    async def forget(self, node: int) -> None:
        """On the master's host: have it forget a node."""
        await self._run(_FORGET, str(node))

    async def interfaces(self) -> str:
        """All interfaces, as `addresses.of_interfaces` reads them."""
        return (await self._run(_INTERFACES)).decode()

    async def _run(self, script: str, *arguments: str, stdin: bytes = b"", seconds: float = SECONDS) -> bytes:
        done = await remote.run(self.ssh, self.address, script, *arguments, stdin=stdin, seconds=seconds)
        if done.code:
            raise HostError(done.error or f"exit code {done.code}")
        return done.output
