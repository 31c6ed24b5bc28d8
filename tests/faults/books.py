# SPDX-License-Identifier: Apache-2.0
"""The two books that are compared: what an observer writes, and what the panel has registered."""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from tests.faults.history import Heard, Span, Told
from tests.faults.workload import BARRIER, EXAMPLE

if TYPE_CHECKING:
    from pathlib import Path

    from tests.lab.panel_client import PanelClient

BESIDE: Final = frozenset({EXAMPLE, BARRIER})
"""Domains that are nobody's VM: the test driver's own, and the mark that all was heard."""

_PAGE: Final = (
    100  # lines: a round has fewer of most VMs, and the panel should do other things than to answer us
)
_NEVER: Final = float("inf")


class Observed:
    """What the observer of one node has written so far."""

    def __init__(self, node: int, path: Path) -> None:
        self.heard: list[Heard] = []
        """Since `forget`."""
        self.barriers = 0
        self.connected = False
        self.unheard: list[Span] = []
        """When it was not connected; the last span ends never while that lasts."""
        self._node = node
        self._path = path
        self._place = 0
        self._rest = b""

    def read(self) -> None:
        """Take what was written since the last reading."""
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._place)
            new = file.read()
        self._place += len(new)
        *lines, self._rest = (self._rest + new).split(b"\n")
        for line in lines:
            self._take(json.loads(line))

    def forget(self) -> None:
        """What was heard has been compared."""
        self.heard.clear()

    def _take(self, entry: dict[str, Any]) -> None:
        if entry["what"] == "event":
            self._hear(entry)
            return
        self.connected = entry["what"] == "connected"
        if self.connected:
            start = self.unheard.pop().start if self.unheard else 0.0
            self.unheard.append(Span(start=start, end=entry["time"]))
        else:
            self.unheard.append(Span(start=entry["time"], end=_NEVER))

    def _hear(self, entry: dict[str, Any]) -> None:
        if entry["vm"] == BARRIER and entry["type"] == "undefined":
            self.barriers += 1
        if entry["vm"] not in BESIDE:
            self.heard.append(
                Heard(
                    time=entry["time"],
                    node=self._node,
                    vm=entry["vm"],
                    type=entry["type"],
                    subtype=entry["subtype"],
                )
            )


class Registered:
    """What the panel has registered so far, of all VMs."""

    def __init__(self, client: PanelClient) -> None:
        self.told: list[Told] = []
        """Since the beginning: of what was told once it must be known that it was."""
        self._client = client
        self._last: dict[str, int] = {}
        self._compared = 0

    def read(self) -> None:
        """Take what was registered since the last reading. Raises LabError, requests' errors."""
        for vm in self._client.vms():
            self._read(vm.name)

    @property
    def news(self) -> list[Told]:
        """What was read since `forget`, of VMs that somebody owns."""
        return [line for line in self.told[self._compared :] if line.vm not in BESIDE]

    def forget(self) -> None:
        """What was read has been compared."""
        self._compared = len(self.told)

    def _read(self, vm: str) -> None:
        last = self._last.get(vm, 0)
        new: dict[int, Told] = {}  # by id: a line that comes between two pages moves one over to the second
        for page in range(1, 10_000):
            answer = self._client.call("vm.history", elid=vm, p_cnt=str(_PAGE), p_num=str(page))
            rows = [_told(vm, row) for row in answer.get("elem", [])]
            new |= {line.id: line for line in rows if line.id > last}
            if len(rows) < _PAGE or rows[-1].id <= last:
                break
        if new:
            self.told += [new[number] for number in sorted(new)]
            self._last[vm] = max(new)


def _told(vm: str, row: dict[str, dict[str, str]]) -> Told:
    text = {name: value.get("$", "") for name, value in row.items()}
    node, run, seq = text["event_id"].split(".")
    return Told(
        id=int(text["id"]),
        node=int(node),
        vm=vm,
        type=text["type"],
        subtype=text["subtype"],
        time=_seconds(text["time"]),
        run=run,
        seq=int(seq),
        is_found=text["source"] == "snapshot",
        registered=_seconds(text["registered"]),
    )


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
