# SPDX-License-Identifier: Apache-2.0
"""The whole way on one machine: private hosts, a node service on each, the master, the reference panel."""

from __future__ import annotations

import contextlib
import re
import secrets
from typing import TYPE_CHECKING, Final

from tests.lab.errors import LabError
from tests.lab.host import Host
from tests.lab.panel_client import PanelClient
from tests.lab.processes import Service, free_port, write_config

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Self

    from tests.lab.image import Image

USER: Final = "admin"
_ADDRESS = re.compile(r"listening on (http://\S+)")


class Cluster:
    """Hosts, node services, master and panel; nodes have the ids 1, 2, …. A context manager, as all parts are."""

    def __init__(
        self,
        *,
        image: Image,
        names: Sequence[str] = ("alpha", "beta"),
        node_settings: Mapping[str, str] | None = None,
        master_settings: Mapping[str, str] | None = None,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`names` are the hosts'; `…_settings` go into the services' files, beside what they need."""
        self.password = secrets.token_urlsafe(9)
        self.hosts: list[Host] = []
        self.nodes: list[Service] = []
        self._image = image
        self._names = names
        self._node_settings = node_settings or {}
        self._master_settings = master_settings or {}
        self._say = say
        self._secret = secrets.token_hex(16).upper()
        self._listen = f"tcp://127.0.0.1:{free_port()}"
        self._open = contextlib.ExitStack()

    def __enter__(self) -> Self:
        """Start everything. Raises LabError, and leaves nothing then."""
        try:
            self._start()
        except BaseException:
            self._open.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def host(self, node: int) -> Host:
        """The host with this node id."""
        return self.hosts[node - 1]

    def check(self) -> None:
        """Raise LabError if a service ended by itself."""
        for service in (self.panel, self.master, *self.nodes):
            service.check()

    def logs(self) -> str:
        """The end of what each service printed, for a failure's report."""
        return "\n".join(
            f"--- {file.name}\n{file.read_text(errors='replace')[-3000:]}"
            for file in sorted(self.folder.glob("*.out"))
        )

    def _start(self) -> None:
        for name in self._names:
            self._say(f"host {name}: a libvirtd of its own")
            self.hosts.append(self._open.enter_context(Host(name, image=self._image)))
        self.folder = self.host(1).folder / "vmwatch"  # goes with the host, even if we are killed
        self.folder.mkdir()
        self._say("panel")
        self.panel = self._open.enter_context(self._panel_service())
        self.client = self._open.enter_context(
            PanelClient(self._panel_address(), user=USER, password=self.password)
        )
        self._say("master")
        self.master = self._open.enter_context(self._master_service())
        for number, name in enumerate(self._names, start=1):
            self._say(f"node service of {name}")
            self.client.call(
                "vmhostnode.edit", elid=str(number), name=name, uri=self.host(number).uri, sok="ok"
            )
            self.nodes.append(self._open.enter_context(self._node_service(number)))

    def _panel_service(self) -> Service:
        values = {
            "Listen": "127.0.0.1",
            "ListenPort": free_port(),  # where it is found again after its end
            "Database": self.folder / "panel.db",
            "AdminUser": USER,
            "AdminPassword": self.password,
            "Option": "RegisterUnknownVm",
        }
        config = write_config(self.folder / "vmmgr.conf", values, separator=" ")
        return self._service(["vmwatch-panel", "--config", str(config)], "panel", ready="listening on")

    def _panel_address(self) -> str:
        match = _ADDRESS.search(self.panel.output())
        if match is None:
            raise LabError(f"the panel did not say where it listens: {self.panel.output()}")
        return match[1]

    def _master_service(self) -> Service:
        values = {
            "listen": self._listen,
            "secret": self._secret,
            "panel_url": self.client.url,
            "panel_user": USER,
            "panel_password": self.password,
            **self._master_settings,
        }
        return self._daemon("vmwatch-master", "master", values)

    def _node_service(self, number: int) -> Service:
        values = {
            "connect": self._listen,
            "secret": self._secret,
            "node_id": number,
            "libvirt_uri": self.host(number).uri,
            **self._node_settings,
        }
        return self._daemon("vmwatch-node", f"node-{number}", values)

    def _daemon(self, command: str, name: str, values: Mapping[str, object]) -> Service:
        state = {
            "log_file": self.folder / f"{name}.log",
            "pid_file": self.folder / f"{name}.pid",
            "state_dir": self.folder / name,
        }
        config = write_config(self.folder / f"{name}.conf", {**state, **values})
        return self._service([command, "--config", str(config), "--foreground"], name, ready="ready")

    def _service(self, command: Sequence[str], name: str, *, ready: str) -> Service:
        return Service(command, log=self.folder / f"{name}.out", ready=ready)
