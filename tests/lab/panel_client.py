# SPDX-License-Identifier: Apache-2.0
"""What the reference panel shows, read through its API as any program would."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import requests

from tests.lab.errors import LabError

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Self


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownVm:
    """A VM as the panel shows it now. `node` is None where the panel knows of none."""

    id: int
    name: str
    uuid: str
    status: str
    node: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One line of a VM's history: the event, when the node had it, when the panel committed it, what it made."""

    id: int
    type: str
    subtype: str
    cause: str
    source: str
    reporter: int
    status: str
    node: int | None
    time: datetime
    registered: datetime
    event_id: str

    @property
    def milliseconds(self) -> int:
        """From the node's callback to the panel's commit; both clocks are this machine's, in whole ms."""
        return round((self.registered - self.time).total_seconds() * 1000)


class PanelClient:
    """A signed-in user of the panel. Every method raises LabError where the panel says no."""

    def __init__(self, url: str, *, user: str, password: str) -> None:
        """`url` is the API's, ending in `/vmmgr`."""
        self.url = url
        self._user, self._password = user, password
        self._access = {"authinfo": f"{user}:{password}", "out": "json"}
        self._session = requests.Session()
        self._session.trust_env = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._session.close()

    def trust(self, certificate: Path) -> None:
        """The panel speaks https with this certificate."""
        self._session.verify = str(certificate)

    def clone(self) -> PanelClient:
        """The same user, over a connection of its own: for another thread."""
        return PanelClient(self.url, user=self._user, password=self._password)

    def call(self, function: str, **fields: str) -> dict[str, Any]:
        """Call a function; return the answer's `doc`."""
        form = {"func": function, **self._access, **fields}
        answer = self._session.post(self.url, data=form, timeout=(5, 10))
        document: dict[str, Any] = answer.json()["doc"]
        if "error" in document:
            raise LabError(f"{function}: the panel said {document['error']}")
        return document

    def vms(self) -> list[ShownVm]:
        """The VMs as listed, so far as one page of 1,000 shows them."""
        return [
            ShownVm(
                id=int(row["id"]),
                name=row["name"],
                uuid=row["uuid"],
                status=row["status"],
                node=_number(row["hostnode"]),
            )
            for row in self._rows("vm", p_cnt="1000")
        ]

    def vm(self, name: str) -> ShownVm | None:
        """One VM; None where it is not listed. Raises LabError where it is listed twice."""
        found = [vm for vm in self.vms() if vm.name == name]
        if len(found) > 1:
            raise LabError(f"{name} is listed {len(found)} times")
        return found[0] if found else None

    def history(self, name: str, *, since: int = 0) -> list[Change]:
        """The VM's changes after the one with id `since`, the oldest first; the last 100 at most."""
        rows = self._rows("vm.history", elid=name, p_cnt="100")
        return [_change(row) for row in reversed(rows) if int(row["id"]) > since]

    def problems(self) -> list[str]:
        """The open problems: `duplicate web-1`."""
        rows = self._rows("vmwatch.problem")
        return [f"{row['problem']} {row['name']}".strip() for row in rows if row["state"] == "raised"]

    def _rows(self, function: str, **fields: str) -> list[dict[str, str]]:
        elements = self.call(function, **fields).get("elem", [])
        return [{name: value.get("$", "") for name, value in element.items()} for element in elements]


def _change(row: dict[str, str]) -> Change:
    return Change(
        id=int(row["id"]),
        type=row["type"],
        subtype=row["subtype"],
        cause=row["cause"],
        source=row["source"],
        reporter=int(row["reporter"]),
        status=row["status"],
        node=_number(row["hostnode"]),
        time=datetime.fromisoformat(row["time"]),
        registered=datetime.fromisoformat(row["registered"]),
        event_id=row["event_id"],
    )


def _number(text: str) -> int | None:
    return int(text) if text else None
