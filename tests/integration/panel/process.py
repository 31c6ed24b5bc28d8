# SPDX-License-Identifier: Apache-2.0
"""The panel as a real process, and a caller of its API."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import requests

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self

COMMAND = str(Path(sys.executable).with_name("vmwatch-panel"))
USER, PASSWORD = "admin", "correct horse & battery=50%"
LEAST = "Listen 127.0.0.1\nListenPort 0\nDatabase panel.db\n"


class PanelProcess:
    """One vmwatch-panel on a port of the kernel's choice; started again on the same folder it keeps its data."""

    timeout = 5.0
    """Seconds for an answer."""

    def __init__(
        self, folder: Path, *, more: str = "Option RegisterUnknownVm\n", enter: Sequence[str] = ()
    ) -> None:
        """`enter`: what its command line begins with, on a host of its own."""
        self._enter = enter
        self.config = folder / "panel.conf"
        self.config.write_text(f"{LEAST}AdminUser {USER}\nAdminPassword {PASSWORD}\n{more}")
        self.log = folder / "panel.log"
        self.url = ""
        self.http = requests.Session()
        self.http.trust_env = False
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()
        if self._process:
            self.kill()

    @property
    def process(self) -> subprocess.Popen[str]:
        assert self._process, "not started"
        return self._process

    @property
    def site(self) -> str:
        return self.url.removesuffix("/vmmgr")

    def start(self) -> None:
        with self.log.open("a") as log:
            self._process = subprocess.Popen(
                [*self._enter, COMMAND, "--config", str(self.config)],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line.startswith("vmwatch-panel: listening on "):
            self.kill()
            raise AssertionError(f"{line}{self.log.read_text()}")
        self.url = line.split()[-1]

    def kill(self) -> None:
        self.process.kill()
        self._forget()

    def stop(self, seconds: float = 2.0) -> int:
        """SIGTERM; the exit code, which must come within `seconds`."""
        self.process.send_signal(signal.SIGTERM)
        return self._forget(seconds)

    def _forget(self, seconds: float = 5.0) -> int:
        process, self._process = self.process, None
        assert process.stdout
        try:
            return process.wait(seconds)
        finally:
            process.kill()
            process.wait()
            process.stdout.close()

    def raw(self, **fields: object) -> requests.Response:
        """POST a form; `authinfo` is added unless the call brings its own way of signing in."""
        form = {name: str(value) for name, value in fields.items()}
        if not {"auth", "authinfo"} & form.keys() and form.get("func") != "auth":
            form["authinfo"] = f"{USER}:{PASSWORD}"
        return self.http.post(self.url, data=form, timeout=self.timeout)

    def call(self, func: str, **fields: object) -> dict[str, Any]:
        """The `doc` of the JSON answer."""
        document: dict[str, Any] = json.loads(self.raw(func=func, out="json", **fields).text)
        return document["doc"]  # type: ignore[no-any-return]

    def error(self, func: str, **fields: object) -> tuple[str, str]:
        """The error's type and object."""
        error = self.call(func, **fields)["error"]
        return error["$type"], error["$object"]

    def event(self, name: str, kind: str, detail: str, seq: int, *, node: int = 1, **more: object) -> None:
        answer = self.call(
            "vm.event",
            hostnode=node,
            name=name,
            type=kind,
            subtype=detail,
            event_id=f"{node}.r1.{seq}",
            **more,
        )
        assert answer == {"ok": {}}, answer

    def rows(self, func: str, **fields: object) -> list[dict[str, str]]:
        """A list's elements as plain values."""
        elements = self.call(func, **fields)["elem"]
        return [{name: value.get("$", "") for name, value in element.items()} for element in elements]
