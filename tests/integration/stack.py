# SPDX-License-Identifier: Apache-2.0
"""The whole way with libvirt's test driver: processes that can be killed and started again."""

from __future__ import annotations

import contextlib
import re
import secrets
import shutil
import sqlite3
import subprocess
from contextlib import closing, suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final

import libvirt

from tests.integration.driver import DOMAIN
from tests.lab.panel_client import PanelClient
from tests.lab.processes import Service, find_command, free_port, write_config
from tests.lab.waiting import wait_for
from vmwatch.messages import Event
from vmwatch.protocol import Kind, Run
from vmwatch.strict import decode

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Self

    from tests.lab.host import Host

USER: Final = "admin"
ARRIVAL_SECONDS: Final = 30.0
_OBSERVED: Final = re.compile(r"event 'lifecycle' for domain '(\S+)': (\w+) (.+)")
_STATES: Final = {
    libvirt.VIR_DOMAIN_RUNNING: "running",
    libvirt.VIR_DOMAIN_PAUSED: "paused",
    libvirt.VIR_DOMAIN_SHUTOFF: "stopped",
}


class Stack:
    """A private libvirtd, and the services on top of it. A context manager: in the end all is gone."""

    def __init__(self, driver: Host, folder: Path, *, settings: Mapping[str, object] | None = None) -> None:
        """Nothing is started.

        `settings`: `heartbeat_interval`, `statistics_interval`; `wait`, the node waits for libvirt; `small_disk`,
        the service, `node` or `master`, that keeps its state on a disk of 16 MiB.
        """
        self.driver = driver
        self.folder = folder
        self._settings = settings or {}
        self._password = secrets.token_hex(8)
        self.secret = secrets.token_hex(16).upper()
        self._panel_port = free_port()
        self.listen = f"tcp://127.0.0.1:{free_port()}"
        self._open = contextlib.ExitStack()
        self.panel = self._panel_service()
        self.master = self._daemon("master", self._master_values(), ready="ready")
        self.node = self._daemon("node", self._node_values(), ready="ready")

    def __enter__(self) -> Self:
        for service in (self.panel, self.master, self.node):
            self._open.callback(service.stop)
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def start(self) -> Self:
        """Start panel, master and node."""
        for service in (self.panel, self.master, self.node):
            service.start()
        return self

    @cached_property
    def client(self) -> PanelClient:
        """A user of the panel."""
        return self._open.enter_context(PanelClient(self.panel_url, user=USER, password=self._password))

    @property
    def panel_url(self) -> str:
        """Where the panel is, each time that it is started."""
        return f"http://127.0.0.1:{self._panel_port}/vmmgr"

    # --- what is done to libvirt, and what it says of itself ---

    @cached_property
    def connection(self) -> libvirt.virConnect:
        """The administrator's connection, which also keeps the test driver's domains alive."""
        return self._open.enter_context(closing(libvirt.open(self.driver.test_uri)))

    def define(self, *names: str) -> list[libvirt.virDomain]:
        """Domains that do not run."""
        return [self.connection.defineXML(DOMAIN.format(name=name)) for name in names]

    def states(self) -> dict[str, str]:
        """What libvirt itself says, in the panel's words."""
        return {domain.name(): _STATES[domain.state()[0]] for domain in self.connection.listAllDomains()}

    # --- what has become of it ---

    def kept(self) -> dict[str, list[str]]:
        """The ids of the events in the node's outbox, by VM, in order: all, up to a thousand records."""
        ids: dict[str, list[str]] = {}
        with closing(sqlite3.connect(self.folder / "node/outbox.db")) as sql:
            query = "SELECT run, seq, body FROM record WHERE kind = ? ORDER BY id"
            for run, seq, body in sql.execute(query, (Kind.EVENT,)):
                ids.setdefault(decode(Event, body).name, []).append(f"1.{Run(run)}.{seq}")
        return ids

    def registered(self, name: str) -> list[dict[str, str]]:
        """All lines of a VM's history at the panel, the oldest first."""
        lines: list[dict[str, str]] = []
        page = 1
        while True:
            document = self.client.call("vm.history", elid=name, p_cnt="100", p_num=str(page))
            elements = document.get("elem", [])
            lines += [{key: value.get("$", "") for key, value in line.items()} for line in elements]
            if len(elements) < 100:
                return lines[::-1]
            page += 1

    def told(self, name: str) -> list[str]:
        """A VM's events as the panel has them: `suspended(paused)`."""
        return [f"{line['type']}({line['subtype']})" for line in self.registered(name)]

    def wait_until_all_is_registered(self, *, seconds: float = ARRIVAL_SECONDS) -> None:
        """Return when the panel has exactly what the outbox has, once and in order. Raises DeadlinePassed."""
        wait_for(self._all_is_registered, seconds=seconds, what="everything to be registered", pause=0.1)

    def _all_is_registered(self) -> bool:
        kept = self.kept()
        if {vm.name for vm in self.client.vms()} != kept.keys():
            return False
        return all(ids == [line["event_id"] for line in self.registered(name)] for name, ids in kept.items())

    def shown(self) -> dict[str, str]:
        """The panel's statuses."""
        return {vm.name: vm.status for vm in self.client.vms()}

    # --- how ---

    def _panel_service(self) -> Service:
        values = {
            "Listen": "127.0.0.1",
            "ListenPort": self._panel_port,
            "Database": self.folder / "panel.db",
            "AdminUser": USER,
            "AdminPassword": self._password,
            "Option": "RegisterUnknownVm",
        }
        config = write_config(self.folder / "vmmgr.conf", values, separator=" ")
        command = ["vmwatch-panel", "--config", str(config)]
        return Service(command, log=self.folder / "panel.out", ready="listening on")

    def _master_values(self) -> dict[str, object]:
        access = {"panel_url": self.panel_url, "panel_user": USER, "panel_password": self._password}
        return {"listen": self.listen, **access}

    def _node_values(self) -> dict[str, object]:
        names = ("heartbeat_interval", "statistics_interval")
        own = {name: self._settings[name] for name in names if name in self._settings}
        return {"connect": self.listen, "node_id": 1, "libvirt_uri": self.driver.test_uri, **own}

    def _daemon(self, name: str, values: Mapping[str, object], *, ready: str) -> Service:
        state = {
            "log_file": self.folder / f"{name}.log",
            "pid_file": self.folder / f"{name}.pid",
            "state_dir": self.folder / name,
        }
        config = write_config(self.folder / f"{name}.conf", {"secret": self.secret, **state, **values})
        command = [f"vmwatch-{name}", "--config", str(config), "--foreground"]
        command += ["--wait"] if name == "node" and self._settings.get("wait") else []
        if self._settings.get("small_disk") == name:
            command = self._on_small_disk(self.folder / name, command)
        return Service(command, log=self.folder / f"{name}.out", ready=f" {ready}\n")

    def _on_small_disk(self, state: Path, command: list[str]) -> list[str]:
        """The command with a disk of its own mounted where its state is, which nobody else sees."""
        state.mkdir()
        mount = 'mount -t tmpfs -o size=16m none "$0" && exec "$@"'
        unshare = shutil.which("unshare") or "unshare"
        return [
            unshare,
            "--mount",
            "--",
            "sh",
            "-c",
            mount,
            str(state),
            find_command(command[0]),
            *command[1:],
        ]

    @contextlib.contextmanager
    def full_disk(self) -> Iterator[None]:
        """While this lasts, the small disk is full."""
        name = str(self._settings["small_disk"])
        balloon = Path(f"/proc/{getattr(self, name).pid}/root", *(self.folder / name / "balloon").parts[1:])
        with suppress(OSError), balloon.open("wb", buffering=0) as file:  # until there is no room
            while file.write(bytes(4096)):
                pass
        try:
            yield
        finally:
            with suppress(OSError):  # the disk goes with its service
                balloon.unlink()


class Observer:
    """Somebody else who listens to libvirt: `virsh event`."""

    def __init__(self, driver: Host, folder: Path) -> None:
        self._output = folder / "observed"
        self._command = ("virsh", "--connect", driver.test_uri, "event", "--loop", "--event", "lifecycle")

    def __enter__(self) -> Self:
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(
                ("stdbuf", "-oL", *self._command), stdout=output, stderr=subprocess.DEVNULL
            )
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(ProcessLookupError):
            self._process.kill()
        self._process.wait()

    def seen(self, name: str) -> list[str]:
        """A VM's events in our words."""
        lines = _OBSERVED.findall(self._output.read_text())
        return [f"{kind}({detail})".lower() for domain, kind, detail in lines if domain == name]
