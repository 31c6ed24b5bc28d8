# SPDX-License-Identifier: Apache-2.0
"""Lists by the page: which part of a list a page shows, and the addresses of its other pages and orders. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from vmwatch.panel.convention import Paging

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class Pager:
    """Page `number` (from 1) of a list of `total` elements, `size` a page."""

    number: int
    size: int
    total: int

    @property
    def paging(self) -> Paging:
        """For who reads it."""
        return Paging(number=self.number, size=self.size)

    @property
    def first(self) -> int:
        """The number, from 1, of the page's first element."""
        return self.paging.offset + 1

    @property
    def last(self) -> int:
        """The number of its last one."""
        return min(self.total, self.paging.offset + self.size)

    @property
    def is_beyond(self) -> bool:
        """Whether the list has elements, and ends before this page."""
        return 0 < self.total < self.first


@dataclass(frozen=True, slots=True, kw_only=True)
class Links:
    """The addresses of a page's variants: `path`, and the query that it was asked with."""

    path: str
    query: Mapping[str, str]

    def __call__(self, **changes: object) -> str:
        """The address with these changes; what is empty is left out. The page's number goes, unless it is given."""
        query = {**self.query, "page": "", **{name: str(value) for name, value in changes.items()}}
        kept = {name: value for name, value in query.items() if value}
        return f"{self.path}?{urlencode(kept)}" if kept else self.path


def page_number(query: Mapping[str, str]) -> int:
    """The query's `page`; 1 where it names none."""
    text = query.get("page", "")
    return max(1, int(text)) if text.isascii() and text.isdigit() and len(text) < 8 else 1


def node_number(query: Mapping[str, str]) -> int:
    """The query's `node`; 0 where it names none."""
    text = query.get("node", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 11 else 0


def chosen(query: Mapping[str, str], name: str, choices: Iterable[str]) -> str:
    """The query's `name` if it is one of the choices, else ""."""
    value = query.get(name, "")
    return value if value in set(choices) else ""
