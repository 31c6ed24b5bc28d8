# SPDX-License-Identifier: Apache-2.0
"""A panel that manages services on two hosts: its own, and one that it reaches over a real sshd."""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING, Final

import libvirt

from tests.integration.driver import DOMAIN
from tests.integration.panel.process import PanelProcess
from tests.lab.host import Host
from tests.lab.own_network import ip, own_network
from tests.lab.processes import free_port
from tests.lab.service_host import ServiceHost, make_key
from tests.lab.waiting import wait_for
from vmwatch.panel.settings import OWN_CERTIFICATE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Self

HERE, ALSO_HERE, THERE, NOBODY = (
    "192.0.2.1",
    "192.0.2.11",
    "192.0.2.2",
    "192.0.2.9",
)  # of the block reserved for documentation
MASTER, NODE = "vmwatch-master", "vmwatch-node"
OURS: Final = ("service_stopped", "node_unreachable", "not_configured")


class Site:
    """`here` and `there` are the hosts, each with a libvirt; no node is added. A context manager."""

    def __init__(self, folder: Path, *, more: str = "Option ManageServices\n") -> None:
        self.here = ServiceHost(folder / "here", own_network=False)
        self.there = ServiceHost(folder / "there", own_network=True)
        self._folder = folder / "panel"
        self._more = more
        self._open = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as opened:
            opened.enter_context(own_network())
            for command in (
                "link add bridge type bridge",
                f"addr add {HERE}/24 dev bridge",
                f"addr add {ALSO_HERE}/24 dev bridge",
                "link set bridge up",
            ):
                ip(command)
            for host in (self.here, self.there):
                opened.enter_context(host)
                libvirtd = opened.enter_context(Host("gamma"))
                # What an administrator has in the file; the panel leaves it there.
                host.config(NODE).write_text(f"libvirt_uri={libvirtd.test_uri}\nheartbeat_interval=0.2\n")
                self.uri = libvirtd.test_uri
            self.there.plug("there", THERE)
            self.panel = opened.enter_context(self._make_panel())
            self._open = opened.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def add(self, node: int, address: str) -> None:
        """Add a node; its configuration follows by itself."""
        answer = self.panel.call("vmhostnode.edit", elid=node, name=f"node-{node}", address=address, sok="ok")
        assert "ok" in answer, answer

    def add_both(self) -> None:
        """Add node 1, here, and node 2, there; return when all is configured."""
        self.add(1, HERE)
        self.add(2, THERE)
        for host, service in ((self.here, MASTER), (self.here, NODE), (self.there, NODE)):
            wait_for(lambda: host.service(service, "status") == 0, seconds=30, what=f"{service} to run")  # noqa: B023
        self.settle()

    def settle(self) -> None:
        """Return when all that was asked for is done, and every service runs."""
        found = self.outcomes("vmwatch.configure")
        assert {(state, error) for state, _, error in found.values()} == {("running", "")}, found

    def outcomes(self, func: str, **fields: object) -> dict[str, tuple[str, str, str]]:
        """By node ("": the master), its state, what was done to it, and its error."""
        rows = self.panel.rows(func, **fields)
        return {row["hostnode"]: (row["state"], row["change"], row["error"]) for row in rows}

    def problems(self) -> dict[tuple[str, str], str]:
        """The text of the services' open problems, by problem and node."""
        rows = self.panel.rows("vmwatch.problem")
        return {
            (row["problem"], row["hostnode"]): row["text"]
            for row in rows
            if row["state"] == "raised" and row["problem"] in OURS
        }

    def pids(self) -> list[int | None]:
        """The processes of the master, and of both nodes' services; None while one is being restarted."""
        return [self.here.pid(MASTER), self.here.pid(NODE), self.there.pid(NODE)]

    @contextlib.contextmanager
    def domain(self, name: str) -> Iterator[libvirt.virDomain]:
        """A running domain on the host that is there."""
        with contextlib.closing(libvirt.open(self.uri)) as connection:
            domain = connection.defineXML(DOMAIN.format(name=name))
            domain.create()
            yield domain
            domain.destroy()
            domain.undefine()

    def reconfigure(self, pattern: str, text: str) -> None:
        """Change the panel's own file, and start it anew."""
        assert self.panel.stop() == 0
        self.panel.config.write_text(re.sub(pattern, text, self.panel.config.read_text()))
        self.panel.start()

    def _make_panel(self) -> PanelProcess:
        (self._folder / "ssh").mkdir(parents=True)
        key = make_key(self._folder / "ssh/id_ed25519")
        (self._folder / "ssh/known_hosts").write_text(f"{THERE} {self.there.start_sshd(key)}")
        more = f"Option RegisterUnknownVm\n{self._more}"
        panel = PanelProcess(self._folder, more=more, enter=self.here.enter)
        panel.config.write_text(panel.config.read_text().replace("ListenPort 0", f"ListenPort {free_port()}"))
        panel.http.verify = str(self._folder / OWN_CERTIFICATE)  # looked at with https alone
        panel.timeout = 60.0
        return panel
