# SPDX-License-Identifier: Apache-2.0
"""Lists by the page, and the addresses of their variants."""

from __future__ import annotations

import pytest

from vmwatch.panel.lists import Links, Pager, chosen, node_number, page_number


@pytest.mark.parametrize(
    ("number", "total", "shown", "is_beyond"),
    [(1, 0, (1, 0), False), (1, 5, (1, 5), False), (2, 150, (101, 150), False), (3, 150, (201, 150), True)],
)
def test_what_a_page_shows(number: int, total: int, shown: tuple[int, int], *, is_beyond: bool) -> None:
    pager = Pager(number=number, size=100, total=total)
    assert (pager.first, pager.last) == shown
    assert pager.is_beyond == is_beyond


def test_an_address_keeps_the_rest_of_the_query() -> None:
    link = Links(path="/", query={"q": "a&b", "status": "", "node": "7"})
    assert link() == "/?q=a%26b&node=7"
    assert link(node="") == "/?q=a%26b"
    assert link(page=2, status="running") == "/?q=a%26b&status=running&node=7&page=2"


def test_another_order_or_filter_begins_with_the_first_page() -> None:
    assert Links(path="/x", query={"page": "7"})(sort="name") == "/x?sort=name"


def test_the_address_of_nothing_is_the_path() -> None:
    assert Links(path="/nodes", query={})() == "/nodes"


@pytest.mark.parametrize("text", ["", "0", "-1", "x", "1e9", "99999999", "٣", " 1"])
def test_what_is_no_page_is_the_first(text: str) -> None:
    assert page_number({"page": text}) == 1


def test_numbers_and_words_of_a_query() -> None:
    assert page_number({"page": "12"}) == 12
    assert node_number({"node": "2147483647"}) == 2147483647
    assert [node_number({"node": text}) for text in ("", "x", "-7", "99999999999")] == [0, 0, 0, 0]
    assert chosen({"level": "error"}, "level", ("error", "warning")) == "error"
    assert chosen({"level": "<b>"}, "level", ("error", "warning")) == ""
