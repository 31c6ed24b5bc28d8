# SPDX-License-Identifier: Apache-2.0
"""Calls to the panel, and what they carry: plain values -> form fields in the contract's words. Pure.

How a certain panel spells them is vmmanager's `Dialect`. An absent value is left out.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from vmwatch.strict import instant

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A call to the panel that waits: calls of one `key` (a VM, a node's statistics) are made in order."""

    id: int
    """Growing, and no other call's while the process lives: a call may be dropped while it is being made."""
    key: str
    time: float
    """When it was enqueued (monotonic seconds, by the clock of the process that did)."""
    func: str
    fields: dict[str, str]
    unreadable: str = ""
    """Why what was kept of it says no fields; `kept` among them then is what was kept. Such a call is not made."""


def event_fields(  # noqa: PLR0913 (by keyword, one for each field)
    *,
    hostnode: int,
    name: str,
    type: str,  # noqa: A002 (the contract's word)
    subtype: str,
    uuid: str,
    time: datetime,
    event_id: str,
    status: str | None = None,
    source: Literal["event", "snapshot"] = "event",
    cause: str | None = None,
    since: datetime | None = None,
) -> dict[str, str]:
    """The fields of `vm.event`: on node `hostnode` libvirt told `type` and `subtype` of the VM `name`.

    `event_id` is `node.run.seq`; `status` what the cluster makes of it; `cause` why a guest stopped; `since`
    the earliest moment of what a snapshot found. The product's documentation names the first four; a
    VMmanager may ignore the others.
    """
    fields = {
        "hostnode": str(hostnode),
        "name": name,
        "type": type,
        "subtype": subtype,
        "uuid": uuid,
        "status": status,
        "cause": cause,
        "source": source,
        "since": None if since is None else instant(since),
        "time": instant(time),
        "event_id": event_id,
    }
    return {name: value for name, value in fields.items() if value is not None}


def statistics_fields(
    *, hostnode: int, time: datetime, domains: Sequence[Mapping[str, object]]
) -> dict[str, str]:
    """The fields of `vmwatch.statistics`: `domains` as a JSON list; ValueError for NaN."""
    listed = json.dumps(list(domains), separators=(",", ":"), allow_nan=False)
    return {"hostnode": str(hostnode), "time": instant(time), "domains": listed}


def problem_fields(
    *,
    problem: str,
    state: Literal["raised", "solved"],
    text: str,
    hostnode: int | None = None,
    name: str | None = None,
) -> dict[str, str]:
    """The fields of `vmwatch.problem`: what is wrong, or no longer, with a node, a VM, or neither."""
    node = None if hostnode is None else str(hostnode)
    fields = {"problem": problem, "hostnode": node, "name": name, "state": state, "text": text}
    return {name: value for name, value in fields.items() if value is not None}
