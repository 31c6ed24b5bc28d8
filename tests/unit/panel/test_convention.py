# SPDX-License-Identifier: Apache-2.0
"""COREmanager's answers, byte by byte."""

from __future__ import annotations

import json
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmwatch.panel.convention import (
    OK,
    ApiError,
    Element,
    ErrorType,
    Format,
    Paging,
    failure,
    listing,
    scalar,
    write,
)

PAGING = Paging(number=2, size=10)
GOLDEN = [
    (OK, '{"doc":{"ok":{}}}', "<doc><ok/></doc>"),
    (
        (Element(name="auth", text="f00d", attributes={"id": "f00d"}),),
        '{"doc":{"auth":{"$id":"f00d","$":"f00d"}}}',
        '<doc><auth id="f00d">f00d</auth></doc>',
    ),
    (
        failure(ApiError(ErrorType.VALUE, "name", "Field 'name': <wrong>", value='a"&b')),
        (
            '{"doc":{"error":{"$type":"value","$object":"name","$lang":"en","param":['
            '{"$name":"object","$":"name"},{"$name":"value","$":"a\\"&b"}],"msg":{"$":"Field \'name\': <wrong>"}}}}'
        ),
        (
            '<doc><error type="value" object="name" lang="en"><param name="object">name</param>'
            '<param name="value">a"&amp;b</param><msg>Field \'name\': &lt;wrong&gt;</msg></error></doc>'
        ),
    ),
    (
        listing([{"id": 11, "uuid": None}], paging=PAGING, total=11),
        '{"doc":{"elem":[{"id":{"$":"11"},"uuid":{}}],"p_num":{"$":"2"},"p_cnt":{"$":"10"},"p_elems":{"$":"11"}}}',
        "<doc><elem><id>11</id><uuid/></elem><p_num>2</p_num><p_cnt>10</p_cnt><p_elems>11</p_elems></doc>",
    ),
    (
        listing([{"id": 1}, {"id": 2}], paging=PAGING, total=0),
        (
            '{"doc":{"elem":[{"id":{"$":"1"}},{"id":{"$":"2"}}],"p_num":{"$":"2"},"p_cnt":{"$":"10"},'
            '"p_elems":{"$":"0"}}}'
        ),
        (
            "<doc><elem><id>1</id></elem><elem><id>2</id></elem><p_num>2</p_num><p_cnt>10</p_cnt>"
            "<p_elems>0</p_elems></doc>"
        ),
    ),
    (
        listing([], paging=PAGING, total=0),
        '{"doc":{"p_num":{"$":"2"},"p_cnt":{"$":"10"},"p_elems":{"$":"0"},"elem":[]}}',
        "<doc><p_num>2</p_num><p_cnt>10</p_cnt><p_elems>0</p_elems></doc>",
    ),
]


@pytest.mark.parametrize(("content", "as_json", "as_xml"), GOLDEN)
def test_golden(content: tuple[Element, ...], as_json: str, as_xml: str) -> None:
    assert write(content, Format.JSON).decode() == as_json
    assert write(content, Format.XML).decode() == f'<?xml version="1.0" encoding="UTF-8"?>\n{as_xml}\n'


@given(st.text())
def test_any_text_can_be_answered(text: str) -> None:
    content = (Element(name="msg", text=text, attributes={"object": text}),)
    told = json.loads(write(content, Format.JSON))["doc"]["msg"]
    assert told.get("$", "") == text
    element = ET.fromstring(write(content, Format.XML)).find("msg")
    assert element is not None
    # XML itself turns carriage returns into line feeds, and has no way to write most control characters.
    assert len(element.text or "") <= len(text)


def test_what_xml_cannot_hold_is_replaced() -> None:
    assert "<msg>a�b</msg>" in write((scalar("msg", "a\x00b"),), Format.XML).decode()


def test_a_page_begins_after_the_pages_before_it() -> None:
    assert (Paging(number=1, size=10).offset, PAGING.offset) == (0, 10)
