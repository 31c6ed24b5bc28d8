# SPDX-License-Identifier: Apache-2.0
"""What a call may say, and which field is named when it may not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmwatch.events import Status
from vmwatch.panel import fields
from vmwatch.panel.convention import ApiError, ErrorType
from vmwatch.panel.fields import EventId, Fields, VmEvent, iso

LEAST = {"hostnode": "1", "name": "web", "type": "started", "subtype": "booted"}


def test_the_least_that_an_event_says() -> None:
    assert fields.vm_event(Fields(LEAST)) == VmEvent(
        hostnode=1,
        name="web",
        type="started",
        subtype="booted",
        uuid=None,
        status=None,
        cause=None,
        source="event",
        earliest=None,
        time=None,
        event_id=None,
    )


def test_all_that_an_event_says() -> None:
    event = fields.vm_event(
        Fields(
            {
                "hostnode": "12",
                "name": "Größe 1.example.com",
                "type": "unknown-17",
                "subtype": "unknown-3",
                "uuid": "5F3C2A1E-0000-4000-8000-000000000001",
                "status": "paused",
                "cause": "host-qmp-system-reset",
                "source": "snapshot",
                "since": "2026-11-22T10:00:00+02:00",
                "time": "2026-11-22T08:00:00.123Z",
                "event_id": "12.00064a.x.7",
                "later": "ignored",
            }
        )
    )
    assert event == VmEvent(
        hostnode=12,
        name="Größe 1.example.com",
        type="unknown-17",
        subtype="unknown-3",
        uuid="5f3c2a1e-0000-4000-8000-000000000001",
        status=Status.PAUSED,
        cause="host-qmp-system-reset",
        source="snapshot",
        earliest=1795334400000,
        time=1795334400123,
        event_id=EventId(node=12, run="00064a.x", seq=7),
    )
    assert str(event.event_id) == "12.00064a.x.7"


def test_what_the_hypervisor_calls_a_cause_is_no_reason_to_refuse_the_event() -> None:
    event = fields.vm_event(Fields({**LEAST, "cause": "No space left: /dev/vdb"}))
    assert event.cause == "No space left: /dev/vdb"


def test_every_node_id_that_a_node_may_have_is_taken() -> None:
    event = fields.vm_event(Fields({**LEAST, "hostnode": "2147483647", "event_id": "2147483647.run.1"}))
    assert event.event_id == EventId(node=2147483647, run="run", seq=1)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("hostnode", ""),
        ("hostnode", "0"),
        ("hostnode", "-1"),
        ("hostnode", "1.0"),
        ("hostnode", "\N{ARABIC-INDIC DIGIT ONE}"),
        ("hostnode", "9" * 30),
        ("name", ""),
        ("name", "a/b"),
        ("name", ".."),
        ("name", " web"),
        ("name", "a\nb"),
        ("name", "a" * 256),
        ("type", ""),
        ("type", "exploded"),
        ("subtype", ""),
        ("subtype", "Booted"),
        ("uuid", "5f3c2a1e"),
        ("status", "fine"),
        ("cause", "a\nb"),
        ("source", "rumour"),
        ("since", "yesterday"),
        ("time", "2026-11-22T10:00:00"),
        ("time", "1795338000"),
        ("event_id", "1.run"),
        ("event_id", "2.run.1"),
        ("event_id", "1.run.-1"),
        ("event_id", "1.a b.1"),
    ],
)
def test_a_wrong_value_names_its_field(field: str, value: str) -> None:
    with pytest.raises(ApiError) as caught:
        fields.vm_event(Fields({**LEAST, field: value}))
    assert (caught.value.kind, caught.value.subject) == (ErrorType.VALUE, field)


@pytest.mark.parametrize(
    "text", ["", "no json", "{}", "[1]", '[{"uuid": "x"}]', '[{"name": 1}]', "[" * 100_000]
)
def test_statistics_are_a_list_of_named_objects(text: str) -> None:
    with pytest.raises(ApiError, match="domains"):
        fields.domains(Fields({"domains": text}))


@pytest.mark.parametrize(
    ("asked", "number", "size"),
    [
        ({}, 1, 500),
        ({"p_num": "3", "p_cnt": "20"}, 3, 20),
        ({"p_cnt": "1000000"}, 1, 1000),
    ],
)
def test_paging(asked: dict[str, str], number: int, size: int) -> None:
    paging = Fields(asked).paging()
    assert (paging.number, paging.size) == (number, size)


@given(st.integers(min_value=0, max_value=220_000_000_000_000))
def test_times_travel_without_loss(time: int) -> None:
    assert Fields({"time": iso(time)}).time("time") == time


def test_a_secret_is_not_shown_by_an_error_about_another_field() -> None:
    with pytest.raises(ApiError) as caught:
        Fields({"passwd": "hunter22"}).number("p_num") or Fields({"passwd": "hunter22"}).required_number(
            "elid"
        )
    assert "hunter22" not in f"{caught.value.text}{caught.value.value}"
