# SPDX-License-Identifier: Apache-2.0
"""What an open page is sent: all of it first, then what differs."""

from __future__ import annotations

from dataclasses import dataclass

import jinja2

from vmwatch.panel.views import Content, LiveView

ENV = jinja2.Environment(
    loader=jinja2.DictLoader(
        {"part-head.html": "<b>{{ head }}</b>", "row-thing.html": "<i>{{ row.word }}</i>"}
    ),
    autoescape=True,
)


@dataclass(frozen=True)
class Thing:
    id: int
    word: str


class Page:
    """What a page would read from the database."""

    def __init__(self) -> None:
        self.head = "one"
        self.things = [Thing(1, "a"), Thing(2, "b")]

    def read(self) -> Content:
        return Content(
            context={"head": self.head}, parts={"head": self.head}, row="thing", rows=tuple(self.things)
        )


def test_all_comes_first_then_only_what_differs() -> None:
    page = Page()
    view = LiveView(ENV, page.read)
    assert view.changes() == {
        "parts": {"head": "<b>one</b>"},
        "order": [1, 2],
        "rows": {1: "<i>a</i>", 2: "<i>b</i>"},
    }
    assert view.changes() == {}
    page.things[1] = Thing(2, "<c>")
    assert view.changes() == {"rows": {2: "<i>&lt;c&gt;</i>"}}
    page.things.reverse()
    assert view.changes() == {"order": [2, 1]}
    page.things.pop()
    page.head = "two"
    assert view.changes() == {"parts": {"head": "<b>two</b>"}, "order": [2]}


def test_an_empty_list_is_told_too() -> None:
    page = Page()
    page.things = []
    assert LiveView(ENV, page.read).changes()["order"] == []


def test_a_row_that_comes_back_is_sent_again() -> None:
    page = Page()
    view = LiveView(ENV, page.read)
    view.changes()
    gone = page.things.pop()
    view.changes()
    page.things.append(gone)
    assert view.changes() == {"order": [1, 2], "rows": {2: "<i>b</i>"}}
