# SPDX-License-Identifier: Apache-2.0
"""The services as real processes on loopback, each with its files in one folder, which goes with the rig."""

from __future__ import annotations

import contextlib
import secrets
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.lab.panel_client import PanelClient
from tests.lab.processes import Service, free_port, write_config

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self

USER: Final = "admin"
NODE: Final = 1
STATISTICS_NEVER: Final = 86400


class Rig:
    """A panel's address, a master's, and what starts them. A context manager: in the end all is gone."""

    def __init__(self) -> None:
        """Nothing runs yet."""
        self.password = secrets.token_hex(8)
        self.secret = secrets.token_hex(16).upper()
        self.panel_port = free_port()
        self.panel_url = f"http://127.0.0.1:{self.panel_port}/vmmgr"
        self.master_port = free_port()
        self.listen = f"tcp://127.0.0.1:{self.master_port}"
        self.folder = Path(tempfile.mkdtemp(prefix="vmwatch-bench-"))
        self.ledger = self.folder / "master/ledger.db"
        self._open = contextlib.ExitStack()
        self._open.callback(shutil.rmtree, self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, Exception):
            error.add_note(self._findings())
        self._open.close()

    def _findings(self) -> str:
        """How the services stand, and the last that each has said: for whoever asks why it failed."""
        found = []
        for service in ("node", "master"):
            config = self.folder / f"{service}.conf"
            if config.exists():
                command = [sys.executable, "-m", "vmwatch.cli", "status", service, str(config)]
                found.append(subprocess.run(command, capture_output=True, text=True, check=False).stdout)
        found += [
            f"--- {file.name}\n{file.read_text(errors='replace')[-1000:]}"
            for file in sorted(self.folder.glob("*.out"))
        ]
        return "\n".join(found)

    def start_panel(self) -> PanelClient:
        """Start the panel, which takes every VM, as `panel`; return a user of it."""
        values = {
            "Listen": "127.0.0.1",
            "ListenPort": self.panel_port,
            "Database": self.folder / "panel.db",
            "AdminUser": USER,
            "AdminPassword": self.password,
            "Option": "RegisterUnknownVm",
        }
        config = write_config(self.folder / "vmmgr.conf", values, separator=" ")
        self.panel = self._start("panel", ["vmwatch-panel", "--config", str(config)], ready="listening on")
        return self._open.enter_context(PanelClient(self.panel_url, user=USER, password=self.password))

    def start_master(self) -> Service:
        """Start the master; the panel may come later."""
        panel = {"panel_url": self.panel_url, "panel_user": USER, "panel_password": self.password}
        return self._start_daemon("master", {"listen": self.listen, **panel})

    def start_node(self, uri: str, *, statistics_interval: int = STATISTICS_NEVER) -> Service:
        """Start the node service for a hypervisor, as NODE."""
        own = {"node_id": NODE, "libvirt_uri": uri, "statistics_interval": statistics_interval}
        return self._start_daemon("node", {"connect": self.listen, **own})

    def start_module(self, module: str, *arguments: str) -> Service:
        """Start a module of these benchmarks as a process that prints `ready`."""
        return self._start(module, [sys.executable, "-m", module, *arguments], ready="ready")

    def _start_daemon(self, name: str, values: Mapping[str, object]) -> Service:
        state = {
            "log_file": self.folder / f"{name}.log",
            "pid_file": self.folder / f"{name}.pid",
            "state_dir": self.folder / name,
        }
        config = write_config(self.folder / f"{name}.conf", {"secret": self.secret, **state, **values})
        return self._start(
            name, [f"vmwatch-{name}", "--config", str(config), "--foreground"], ready=" ready\n"
        )

    def _start(self, name: str, command: list[str], *, ready: str) -> Service:
        return self._open.enter_context(Service(command, log=self.folder / f"{name}.out", ready=ready))
