# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime
from typing import Any

import pytest

from vmwatch import status
from vmwatch.panel import service_report
from vmwatch.strict import instant

OUTBOX = status.Outbox(run="r1", last=7, kept=5, unsent=2, vms={"running": 1})
LEDGER = status.Ledger(
    nodes=(
        status.Taken(node=1, run="r1", last=6, heard=datetime(2026, 11, 22, 10, tzinfo=UTC)),
        status.Taken(node=2, run="r2", last=0, heard=None),
    ),
    calls=3,
    oldest=None,
    aside=(),
    problems=("node_silent, node 1",),
    told=(),
    unread=0,
)


def printed(state: status.Outbox | status.Ledger | None, /, **changes: object) -> str:
    """What `vmwatch status --json` prints."""
    service = status.Service(name="vmwatch-node", disabled=False, pid=1, state=state)
    shown = dataclasses.asdict(service) | {"wants": service.wants(datetime.now(UTC))}
    return json.dumps([shown | changes], default=instant)


def service(status_text: str) -> dict[str, Any]:
    report = service_report.read("vmwatch 0.1.0", status_text)
    assert report is not None
    assert report["version"] == "0.1.0"
    found: dict[str, Any] = report["service"]
    return found


def test_what_is_kept_of_a_nodes() -> None:
    assert service(printed(OUTBOX)) == {
        "disabled": False,
        "wants": ["the master does not take what waits: 2 records or more"],
        "state": {"run": "r1", "last": 7, "kept": 5, "unsent": 2},
    }


def test_what_is_kept_of_the_masters() -> None:
    found = service(printed(LEDGER))
    assert found["state"] == {
        "calls": 3,
        "nodes": [
            {"node": 1, "run": "r1", "last": 6, "heard": 1795341600000},
            {"node": 2, "run": "r2", "last": 0, "heard": None},
        ],
    }
    assert found["wants"] == ["open problem: node_silent, node 1"]


def test_one_that_never_ran() -> None:
    assert service(printed(None, disabled=True)) == {"disabled": True, "wants": [], "state": None}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "[1]",
        "[[]]",
        "null",
        "[" * 100_000,
        printed(OUTBOX, disabled="yes"),
        printed(OUTBOX, wants="x"),
        printed(OUTBOX, wants=[1]),
        printed(OUTBOX, state=[]),
        printed(OUTBOX, state="x"),
        printed(OUTBOX, state={"run": "r1", "last": "7", "kept": 5, "unsent": 2}),
        printed(OUTBOX, state={"run": "r1", "last": True, "kept": 5, "unsent": 2}),
        printed(OUTBOX, state={"calls": 3, "nodes": [{"node": 1}]}),
        printed(OUTBOX, state={"calls": 3, "nodes": 7}),
        printed(OUTBOX, state={"calls": 3, "nodes": [{"node": 1, "run": "r1", "last": 6, "heard": "once"}]}),
    ],
    ids=range(17),
)
def test_what_no_service_prints_is_not_taken(text: str) -> None:
    assert service_report.read("vmwatch 0.1.0", text) is None


def test_texts_are_bounded_and_printable() -> None:
    found = service(printed(OUTBOX, wants=["\x1b[2J" + "x" * 1000] * 100))
    assert len(found["wants"]) == service_report.WANTS_MOST
    assert all(len(want) < 400 and want.isprintable() for want in found["wants"])
