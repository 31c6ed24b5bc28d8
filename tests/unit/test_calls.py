# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest

from vmwatch.calls import event_fields, problem_fields, statistics_fields
from vmwatch.strict import instant

NOON = datetime(2026, 1, 31, 12, 0, 0, 1500, tzinfo=UTC)


def test_an_event_with_everything() -> None:
    assert event_fields(
        hostnode=3,
        name="web",
        type="stopped",
        subtype="shutdown",
        uuid="6f1b",
        time=NOON,
        event_id="3.run.7",
        status="stopped",
        source="snapshot",
        cause="guest-reset",
        since=NOON - timedelta(hours=1),
    ) == {
        "hostnode": "3",
        "name": "web",
        "type": "stopped",
        "subtype": "shutdown",
        "uuid": "6f1b",
        "time": "2026-01-31T12:00:00.001500Z",
        "event_id": "3.run.7",
        "status": "stopped",
        "source": "snapshot",
        "cause": "guest-reset",
        "since": "2026-01-31T11:00:00.001500Z",
    }


def test_what_is_not_known_of_an_event_is_left_out() -> None:
    fields = event_fields(
        hostnode=3, name="web", type="started", subtype="booted", uuid="6f1b", time=NOON, event_id="3.run.7"
    )
    assert fields.keys().isdisjoint({"status", "cause", "since"})
    assert fields["source"] == "event"


def test_statistics_are_one_json_list() -> None:
    domains = [{"name": "вебщик", "rx_bytes": 2**63}]
    fields = statistics_fields(hostnode=3, time=NOON, domains=domains)
    assert (fields["hostnode"], fields["time"]) == ("3", "2026-01-31T12:00:00.001500Z")
    assert json.loads(fields["domains"]) == domains


def test_statistics_refuse_what_json_does_not_have() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        statistics_fields(hostnode=3, time=NOON, domains=[{"load": float("nan")}])


def test_a_problem_of_a_node_and_of_nobody() -> None:
    assert problem_fields(problem="node_silent", state="raised", text="for 30 s", hostnode=3) == {
        "problem": "node_silent",
        "state": "raised",
        "text": "for 30 s",
        "hostnode": "3",
    }
    assert problem_fields(problem="ledger_full", state="solved", text="") == {
        "problem": "ledger_full",
        "state": "solved",
        "text": "",
    }


def test_a_timestamp_is_utc_wherever_it_was_taken() -> None:
    assert instant(NOON.astimezone(timezone(timedelta(hours=3)))) == "2026-01-31T12:00:00.001500Z"
    assert datetime.fromisoformat(instant(NOON)) == NOON


def test_a_timestamp_without_a_zone_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="without a zone"):
        instant(NOON.replace(tzinfo=None))
