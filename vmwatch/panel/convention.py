# SPDX-License-Identifier: Apache-2.0
"""COREmanager's shape of an answer: a tree of elements, written as JSON or as XML. Pure.

Sources: "Guide to ISPsystem software API" (ispsystem.com/docs/coremanager/developer-section; DCImanager's
edition of it shows `<auth id="…" level="…">…</auth>`) and COREmanager's page "Errors" (`<error type=… object=…
lang=…>` with `param` elements). In JSON a text stands under `$`, an attribute under `$name`, an empty element is
`{}`, every scalar is a string, and `elem` is always a list. Errors are in the body, whatever the HTTP status.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import escape, quoteattr

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

LANGUAGE = "en"
# XML 1.0 has no way to write these, escaped or not; JSON keeps them.
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class Format(StrEnum):
    """The values of `out` that the panel answers."""

    JSON = "json"
    XML = "xml"


class ErrorType(StrEnum):
    """An error's `type`. Those with a source are COREmanager's; the rest are the reference panel's own."""

    AUTH = "auth"  # who calls is not known, or no longer
    ACCESS = "access"  # this function, or this method, is not for the caller
    VALUE = "value"  # `object` names the field
    MISSED = "missed"  # `object` names what does not exist: a function, a VM, a node
    EXISTS = "exists"  # `object` names what exists already
    INTERNAL = "internal"  # the panel's own failure: comes with HTTP 5xx, so that the caller tries again


class ApiError(Exception):
    """An answer that is an error: its type, what it is about, the value that was wrong, a text for people."""

    def __init__(self, kind: ErrorType, subject: str, text: str, *, value: str = "") -> None:
        """`value` is shown to the caller: it must never be a secret."""
        super().__init__(text)
        self.kind = kind
        self.subject = subject
        self.text = text
        self.value = value


@dataclass(frozen=True, slots=True, kw_only=True)
class Element:
    """A named element: attributes, and either a text or children."""

    name: str
    text: str = ""
    attributes: Mapping[str, str] = field(default_factory=dict)
    children: Sequence[Element] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Paging:
    """Which part of a list is asked for: `number` counts from 1, `size` is elements a page."""

    number: int
    size: int

    @property
    def offset(self) -> int:
        """How many elements come before this page."""
        return (self.number - 1) * self.size


OK = (Element(name="ok"),)


def scalar(name: str, value: object) -> Element:
    """`<name>value</name>`; None is an empty element."""
    return Element(name=name, text="" if value is None else str(value))


def scalars(values: Mapping[str, object]) -> tuple[Element, ...]:
    """One scalar an entry, in order."""
    return tuple(scalar(name, value) for name, value in values.items())


def listing(rows: Iterable[Mapping[str, object]], *, paging: Paging, total: int) -> tuple[Element, ...]:
    """A list's page: an `elem` a row, then `p_num` (page), `p_cnt` (elements a page), `p_elems` (all)."""
    elems = tuple(Element(name="elem", children=scalars(row)) for row in rows)
    return elems + scalars({"p_num": paging.number, "p_cnt": paging.size, "p_elems": total})


def failure(error: ApiError) -> tuple[Element, ...]:
    """An error's answer."""
    attributes = {"type": str(error.kind), "object": error.subject, "lang": LANGUAGE}
    children = (
        Element(name="param", text=error.subject, attributes={"name": "object"}),
        Element(name="param", text=error.value, attributes={"name": "value"}),
        scalar("msg", error.text),
    )
    return (Element(name="error", attributes=attributes, children=children),)


def write(content: Sequence[Element], form: Format) -> bytes:
    """The document around `content`, UTF-8."""
    if form is Format.XML:
        body = "".join(_xml(element) for element in content)
        return f'<?xml version="1.0" encoding="UTF-8"?>\n<doc>{body}</doc>\n'.encode()
    document = {"doc": _json_children(content)}
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def media_type(form: Format) -> str:
    """The Content-Type of a format."""
    return "text/xml; charset=UTF-8" if form is Format.XML else "application/json"


def _json(element: Element) -> dict[str, Any]:
    shown: dict[str, Any] = {f"${name}": value for name, value in element.attributes.items()}
    if element.children:
        return shown | _json_children(element.children)
    return {**shown, "$": element.text} if element.text else shown


def _json_children(children: Sequence[Element]) -> dict[str, Any]:
    groups: dict[str, list[dict[str, Any]]] = {}
    for child in children:
        groups.setdefault(child.name, []).append(_json(child))
    if "p_elems" in groups:
        groups.setdefault("elem", [])  # a list stays one when nothing is in it
    return {name: group if name == "elem" or len(group) > 1 else group[0] for name, group in groups.items()}


def _xml(element: Element) -> str:
    attributes = "".join(
        f" {name}={quoteattr(_NOT_XML.sub('�', value))}" for name, value in element.attributes.items()
    )
    inside = "".join(_xml(child) for child in element.children) or escape(_NOT_XML.sub("�", element.text))
    return (
        f"<{element.name}{attributes}>{inside}</{element.name}>"
        if inside
        else f"<{element.name}{attributes}/>"
    )
