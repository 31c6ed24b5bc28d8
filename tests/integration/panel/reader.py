# SPDX-License-Identifier: Apache-2.0
"""An independent reader of COREmanager's answers: plain JSON, plain XML, and what both must say alike.

It knows the convention from its documentation, and nothing of the panel's own writer.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, order=True)
class Node:
    """An element, whichever way it was written. JSON does not keep the order of unlike children."""

    name: str
    text: str
    attributes: tuple[tuple[str, str], ...]
    children: tuple[Node, ...]

    def all(self, name: str) -> list[Node]:
        return [child for child in self.children if child.name == name]

    def one(self, name: str) -> Node:
        (found,) = self.all(name)
        return found

    @property
    def error(self) -> tuple[str, str] | None:
        """Type and object, where the answer is an error; it has a text for people then."""
        found = self.all("error")
        if not found:
            return None
        attributes = dict(found[0].attributes)
        assert attributes["lang"] == "en"
        assert found[0].one("msg").text
        return attributes["type"], attributes["object"]


def read_xml(text: bytes) -> Node:
    root = _from_xml(ET.fromstring(text))
    assert root.name == "doc"
    return root


def read_json(text: bytes) -> Node:
    document = json.loads(text)
    assert document.keys() == {"doc"}
    return _from_json("doc", document["doc"])


def _from_xml(element: ET.Element) -> Node:
    assert not (element.tail or "").strip()
    return Node(
        name=element.tag,
        text=element.text or "",
        attributes=tuple(sorted(element.attrib.items())),
        children=tuple(sorted(map(_from_xml, element))),
    )


def _from_json(name: str, value: Mapping[str, Any]) -> Node:
    scalars = {key: text for key, text in value.items() if key.startswith("$")}
    assert all(isinstance(text, str) for text in scalars.values()), "every scalar is a string"
    assert scalars.get("$") != "", "an empty text is left out"
    children = [
        _from_json(key, one)
        for key, found in value.items()
        if not key.startswith("$")
        for one in (found if isinstance(found, list) else [found])
    ]
    assert isinstance(value.get("elem", []), list), "elements are a list, however many"
    return Node(
        name=name,
        text=scalars.pop("$", ""),
        attributes=tuple(sorted((key[1:], text) for key, text in scalars.items())),
        children=tuple(sorted(children)),
    )
