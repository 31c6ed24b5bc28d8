# SPDX-License-Identifier: Apache-2.0
"""The pages without a browser: signing in, what is shown, what is escaped, what is streamed."""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

from tests.integration.panel.filled import PAGES
from tests.integration.panel.visitor import Visitor

if TYPE_CHECKING:
    from collections.abc import Iterator

    import requests

    from tests.integration.panel.process import PanelProcess

VOID = {"meta", "link", "input", "path", "line", "rect", "br"}


class Outline(HTMLParser):
    """What is open, which ids there are, and which are referred to."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: Counter[str] = Counter()
        self.wanted: set[str] = set()
        self.titles = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.ids.update([values["id"]] if "id" in values else [])
        for name in ("for", "form", "aria-labelledby", "aria-describedby"):
            self.wanted.update(values.get(name, "").split())
        self.titles += tag == "h1"
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag


STRANGE = "<b>&\"'x #?% ü"


@pytest.fixture
def stranger(shared: PanelProcess) -> Iterator[Visitor]:
    visitor = Visitor(shared)
    yield visitor
    visitor.http.close()


@pytest.fixture
def visitor(stranger: Visitor) -> Visitor:
    assert stranger.sign_in().status_code == 303
    return stranger


@pytest.mark.parametrize("path", ["/", "/vm/web", "/?q=a&status=running"])
def test_a_stranger_is_sent_to_sign_in_and_back(stranger: Visitor, path: str) -> None:
    sent = stranger.get(path, follow=False)
    assert sent.status_code == 303
    assert stranger.sign_in(path=sent.headers["location"]).headers["location"] == path


def test_a_wrong_password_is_told_and_opens_nothing(stranger: Visitor) -> None:
    answer = stranger.sign_in("wrong")
    assert answer.status_code == 403
    assert "Wrong user name or password" in answer.text
    assert "vmwatch_session" not in stranger.http.cookies


def test_the_sessions_cookie_is_out_of_scripts_reach(stranger: Visitor) -> None:
    cookie = stranger.sign_in().headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=lax" in cookie


@pytest.mark.parametrize("token", ["", "0" * 64])
def test_a_forged_form_has_no_effect(stranger: Visitor, token: str) -> None:
    assert stranger.sign_in(token=token).status_code == 403
    stranger.sign_in()
    stranger.http.post(f"{stranger.site}/sign-out", data={"token": token}, timeout=5, allow_redirects=False)
    stranger.http.post(f"{stranger.site}/sign-out", data=b"\xff", timeout=5, allow_redirects=False)
    assert stranger.get("/", follow=False).status_code == 200


def test_signing_out(visitor: Visitor) -> None:
    session = visitor.http.cookies["vmwatch_session"]
    visitor.http.post(f"{visitor.site}/sign-out", data={"token": visitor.token()}, timeout=5)
    visitor.http.cookies["vmwatch_session"] = session  # though the browser kept it
    assert visitor.get("/", follow=False).status_code == 303


@pytest.mark.parametrize("target", ["https://evil.example/", "//evil.example/", "/\\evil.example", "", "x"])
def test_signing_in_leads_nowhere_else(stranger: Visitor, target: str) -> None:
    assert stranger.sign_in(next=target).headers["location"] == "/"


def test_every_answer_forbids_what_we_do_not_use(visitor: Visitor) -> None:
    for path in ("/", "/sign-in", "/vmmgr", "/static/style.css", "/nonesuch"):
        headers = visitor.get(path).headers
        assert headers["content-security-policy"].startswith("default-src 'none'; script-src 'self';"), path
        assert headers["x-content-type-options"] == "nosniff"


@pytest.fixture
def guest_of_filled(filled: PanelProcess) -> Iterator[Visitor]:
    visitor = Visitor(filled)
    assert visitor.sign_in().status_code == 303
    yield visitor
    visitor.http.close()


@pytest.mark.parametrize("path", [*PAGES.values(), "/sign-in", "/vm/nonesuch"])
def test_a_page_is_whole_and_nothing_breaks_out(guest_of_filled: Visitor, path: str) -> None:
    """Nothing from elsewhere, nothing inline; every element is closed, every id unique, every label has its field."""
    html = guest_of_filled.get(path).text
    assert re.findall(r'(?:src|href)="(?!/|\?|#main")[^"]*"', html) == []
    assert re.findall(r"<style|style=|<script(?! src=)| on\w+=|<b>\"", html) == []
    outline = Outline()
    outline.feed(html)
    outline.close()
    assert outline.open == []
    assert [name for name, count in outline.ids.items() if count > 1] == []
    assert outline.wanted <= outline.ids.keys()
    assert outline.titles == 1


def test_names_are_escaped_and_lead_to_their_page(shared: PanelProcess, visitor: Visitor) -> None:
    shared.event(STRANGE, "started", "booted", 1)
    shared.call(
        "vmwatch.problem", problem="odd", name=STRANGE, text="<script>alert(1)</script>", state="raised"
    )
    page = visitor.get(f"/?q={quote(STRANGE)}").text
    assert "<b>&" not in page
    assert "<script>" not in page
    address = re.search(r'<td class="name"><a href="([^"]+)"', page)
    assert address
    page = visitor.get(address[1]).text
    assert "<h1><bdi>&lt;b&gt;&amp;&#34;&#39;x #?% ü</bdi></h1>" in page
    assert "&lt;script&gt;alert(1)" in page


def test_the_list_tells_all_without_script(shared: PanelProcess, visitor: Visitor) -> None:
    shared.event("plain", "started", "booted", 1, node=90)
    shared.event("plain", "stopped", "shutdown", 2, node=90, cause="guest-reset", time="2026-11-22T10:00:00Z")
    row = re.search(r"<tr data-id.*?</tr>", visitor.get("/?q=plain").text, re.DOTALL)
    assert row
    for word in (
        "stopped",
        "plain",
        "node-90",
        "shutdown",
        "guest-reset",
        'datetime="2026-11-22T10:00:00.000Z"',
    ):
        assert word in row[0]
    shared.call("vmwatch.problem", problem="node_silent", hostnode=90, state="raised", text="gone")
    page = visitor.get("/?q=plain").text
    assert "last known stopped" in page
    assert "node silent" in page


def test_pages_and_search(shared: PanelProcess, visitor: Visitor) -> None:
    shared.call("vmhostnode.edit", elid=91, name="many", sok="ok")
    for number in range(105):
        shared.call("vm.edit", name=f"many-{number:03}", hostnode=91, sok="ok")
    first, second = visitor.get("/?q=many-").text, visitor.get("/?q=many-&page=2").text
    assert "1\N{EN DASH}100 of 105" in first
    assert "many-099" in first
    assert "many-100" not in first
    assert "101\N{EN DASH}105 of 105" in second
    assert "There is no page 9" in visitor.get("/?q=many-&page=9").text
    assert "No VM matches" in visitor.get("/?q=nonesuch").text
    assert visitor.get("/?page=x&status=nonesuch").status_code == 200


def test_a_vms_page(shared: PanelProcess, visitor: Visitor) -> None:
    for seq, (kind, detail) in enumerate([("started", "booted"), ("stopped", "crashed")], start=1):
        shared.event("drawn", kind, detail, seq, source="snapshot", since="2026-11-22T09:00:00Z")
    page = visitor.get("/vm/drawn").text
    assert page.count('<rect class="bar b-') == 4  # two in the picture, two in its legend
    assert page.count('<td class="event">') == 2
    for span in ("hour", "day", "week", "nonesuch"):
        assert visitor.get(f"/vm/drawn?span={span}&page=7").status_code == 200
    assert visitor.get("/vm/nonesuch").status_code == 404
    beyond = visitor.get("/vm/drawn?span=day&page=7").text
    assert re.search(r'There is no page 7\. <a href="/vm/drawn\?span=day">', beyond)


def messages(answer: requests.Response) -> Iterator[dict[str, Any]]:
    for line in answer.iter_lines(chunk_size=1):
        if line.startswith(b"data: "):
            yield json.loads(line[6:])


def test_the_stream_tells_of_a_change_within_moments(shared: PanelProcess, visitor: Visitor) -> None:
    shared.event("streamed", "started", "booted", 1)
    vm = shared.rows("vm", name="streamed")[0]["id"]
    with visitor.get("/live?q=streamed", stream=True) as answer:
        told = messages(answer)
        first = next(told)
        assert first["order"] == [int(vm)]
        assert "running" in first["rows"][vm]
        begin = time.monotonic()
        shared.event("streamed", "suspended", "paused", 2)
        change = next(told)
        assert time.monotonic() - begin < 1
        assert "paused" in change["rows"][vm]
        assert "order" not in change
        shared.event("streamed-too", "started", "booted", 1)
        assert len(next(told)["order"]) == 2


def test_the_stream_ends_with_its_session(shared: PanelProcess, visitor: Visitor) -> None:
    with visitor.get("/live?q=nonesuch", stream=True) as answer:
        told = messages(answer)
        next(told)
        visitor.http.post(f"{visitor.site}/sign-out", data={"token": visitor.token()}, timeout=5)
        shared.event("ending", "started", "booted", 1)
        assert list(told) == []
    assert visitor.get("/live").status_code == 401
