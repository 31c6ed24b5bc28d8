# SPDX-License-Identifier: Apache-2.0
"""Exactly the declared fields, each of its declared type, and an error that says where."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.unit.wire import BODIES, EXAMPLES, hostile_texts
from vmwatch.errors import BadBody
from vmwatch.messages import Body, Event, Gap, Heartbeat, KnownSet, Source, Statistics
from vmwatch.strict import decode, encode, instant

EVENT = next(one for one in EXAMPLES if isinstance(one, Event))
SAID = json.loads(encode(EVENT))


def refusal(kind: type[Body], said: object) -> str:
    with pytest.raises(BadBody) as refused:
        decode(kind, said if isinstance(said, bytes) else json.dumps(said).encode())
    return str(refused.value)


def said_of(body: Body) -> dict[str, object]:
    said: dict[str, object] = json.loads(encode(body))
    return said


@given(body=BODIES)
def test_what_is_encoded_is_decoded(body: Body) -> None:
    assert decode(type(body), encode(body)) == body


@given(text=hostile_texts())
@example(text="a\0b\ud83db")
@example(text="\U0001f600 \u202eright to left \u0646\u0635\u200f")
def test_whatever_a_text_holds_it_is_kept_so_that_it_can_be_read(text: str) -> None:
    read = decode(Gap, encode(Gap(count=1, reason=text))).reason
    assert read == "".join("?" if one == "\0" or "\ud800" <= one <= "\udfff" else one for one in text)


@pytest.mark.parametrize("body", EXAMPLES, ids=lambda body: type(body).__name__)
def test_each_field_must_be_there_and_no_other(body: Body) -> None:
    said = said_of(body)
    for field in said:
        less = {name: value for name, value in said.items() if name != field}
        assert refusal(type(body), less) == f"body: {field} missing"
    assert refusal(type(body), said | {"more": 1}) == "body: 1 unknown fields"


@pytest.mark.parametrize("body", EXAMPLES, ids=lambda body: type(body).__name__)
def test_the_fields_may_come_in_any_order(body: Body) -> None:
    said = said_of(body)
    turned = dict(reversed(said.items()))
    assert list(turned) != list(said) or len(said) == 1
    assert decode(type(body), json.dumps(turned).encode()) == body


@pytest.mark.parametrize(
    "bytes_",
    [
        b'{"count":1,"reason":"a","reason":"b"}',
        b'{"count":1,"count":1,"reason":"a"}',
        b'{"count":1,"reason":"a","count":1}',
    ],
)
def test_no_field_is_given_twice(bytes_: bytes) -> None:
    assert refusal(Gap, bytes_) == "body: a field is given twice"


def test_no_field_takes_the_place_of_another() -> None:
    assert refusal(Gap, b'{"count":1,"count":1}') == "body: reason missing"
    assert refusal(Gap, b'{"count":1,"reasons":"a"}') == "body: reason missing"


@pytest.mark.parametrize("body", EXAMPLES, ids=lambda body: type(body).__name__)
def test_each_field_must_be_of_its_type(body: Body) -> None:
    said = said_of(body)
    for field in said:
        wrong: object
        for wrong in (1.5, {}, {"a": 1}, [[]], [1.5], [None]):
            assert refusal(type(body), said | {field: wrong}).startswith(f"{field}"), (field, wrong)


@pytest.mark.parametrize(
    ("field", "wrong", "expected"),
    [
        ("uuid", None, "uuid: expected text in UTF-8 without NUL"),
        ("uuid", 7, "uuid: expected text in UTF-8 without NUL"),
        ("name", "a\0b", "name: expected text in UTF-8 without NUL"),
        ("name", "half of a pair: \ud83d", "name: expected text in UTF-8 without NUL"),
        ("source", "hearsay", "source: expected one of event, snapshot"),
        ("source", "EVENT", "source: expected one of event, snapshot"),
        ("domain_id", True, "domain_id: expected an integer of 64 bits"),
        ("domain_id", 1.0, "domain_id: expected an integer of 64 bits"),
        ("domain_id", "1", "domain_id: expected an integer of 64 bits"),
        ("domain_id", 2**63, "domain_id: expected an integer of 64 bits"),
        ("domain_id", -(2**63) - 1, "domain_id: expected an integer of 64 bits"),
        ("time", None, "time: expected text in UTF-8 without NUL"),
        ("time", "yesterday", "time: expected an ISO 8601 time with its zone"),
        ("time", "2026-11-22T10:00:00", "time: expected an ISO 8601 time with its zone"),
        ("time", "0001-01-01T00:00:00+14:00", "time: expected an ISO 8601 time with its zone"),
        ("time", "9999-12-31T23:59:59-14:00", "time: expected an ISO 8601 time with its zone"),
        ("since", 0, "since: expected text in UTF-8 without NUL"),
    ],
)
def test_an_event_with_a_wrong_field(field: str, wrong: object, expected: str) -> None:
    assert refusal(Event, SAID | {field: wrong}) == expected


@pytest.mark.parametrize("field", ["cause", "since", "domain_id"])
def test_what_may_be_unknown_is_null(field: str) -> None:
    assert getattr(decode(Event, json.dumps(SAID | {field: None}).encode()), field) is None


def test_the_error_says_where_in_a_list() -> None:
    known = said_of(next(one for one in EXAMPLES if isinstance(one, KnownSet)))
    first = known["domains"][0]  # type: ignore[index]
    assert refusal(KnownSet, {"domains": {}}) == "domains: expected a list"
    assert refusal(KnownSet, {"domains": [first, 5]}) == "domains[1]: expected an object"
    assert refusal(KnownSet, {"domains": [first, first | {"state": "on"}]}).startswith(
        "domains[1].state: expected one of "
    )
    assert refusal(KnownSet, {"domains": [first | {"x": 1, "y": 2}]}) == "domains[0]: 2 unknown fields"
    assert refusal(Statistics, said_of(EXAMPLES[-1]) | {"domains": [{}]}).startswith(
        "domains[0]: bytes_received, "
    )


def test_true_is_no_number_and_one_is_not_true() -> None:
    heartbeat = said_of(next(one for one in EXAMPLES if isinstance(one, Heartbeat)))
    assert refusal(Heartbeat, heartbeat | {"top": True}) == "top: expected an integer of 64 bits"


@pytest.mark.parametrize(
    "bytes_",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b'{"count":1,"reason":"\xff"}',
        b'{"count":1,"reason":"\xed\xa0\xbd"}',
        b'\xef\xbb\xbf{"count":1,"reason":"a"}',
        '{"count":1,"reason":"a"}'.encode("utf-16"),
        b'{"count":1,"reason":"a"} {}',
        b'{"count":1,"reason":"a"} ',
        b' {"count":1,"reason":"a"}',
        b"{'count':1,'reason':'a'}",
        b'{"count":' + b"9" * 5000 + b',"reason":"a"}',
        b"[" * 100_000,
        b'{"a":' * 100_000,
    ],
    ids=lambda one: repr(one[:20]),
)
def test_what_is_not_json_in_utf_8(bytes_: bytes) -> None:
    assert refusal(Gap, bytes_).startswith("not JSON in UTF-8: ")


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"-Infinity", b"1e3", b"1.0", b"-0.0"])
def test_json_has_no_integer_but_plain_ones(number: bytes) -> None:
    assert refusal(Gap, b'{"count":%s,"reason":""}' % number) == "count: expected an integer of 64 bits"


@given(said=st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | hostile_texts(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*SAID, "x"]), inner, max_size=9),
    max_leaves=12,
))  # fmt: skip
def test_no_json_raises_anything_else(said: object) -> None:
    body = json.dumps(said).encode()
    for kind in {type(one) for one in EXAMPLES}:
        with pytest.raises(BadBody):
            decode(kind, body)


@pytest.mark.parametrize("limit", [2**63 - 1, -(2**63), 0])
def test_integers_of_64_bits_are_taken(limit: int) -> None:
    assert decode(Gap, encode(Gap(count=limit, reason=""))).count == limit


def test_a_time_is_the_same_moment_in_utc() -> None:
    paris = datetime(2026, 11, 22, 11, 0, 0, 1, tzinfo=timezone(timedelta(hours=1)))
    assert instant(paris) == "2026-11-22T10:00:00.000001Z"
    read = decode(Event, json.dumps(SAID | {"time": "2026-11-22T11:00:00.000001+01:00"}).encode()).time
    assert (read, read.tzinfo) == (paris, UTC)


def test_an_enumeration_travels_as_its_text() -> None:
    assert SAID["source"] == Source.SNAPSHOT.value
