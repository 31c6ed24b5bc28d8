# SPDX-License-Identifier: Apache-2.0
"""The pages in a real browser: they change by themselves, and they read on a phone."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

from tests.integration.panel.browsing import DESKTOP, PHONE, open_live, visit

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

    from tests.integration.panel.process import PanelProcess

pytestmark = pytest.mark.needs("/usr/bin/chromium")


def test_the_list_changes_by_itself(page: Page, shared: PanelProcess) -> None:
    shared.event("alive-1", "started", "booted", 1)
    open_live(page, shared, "/?q=alive")
    page.evaluate("window.loadedOnce = true")
    cells = page.locator("#rows tr")
    expect(cells).to_have_count(1)
    expect(cells.first).to_contain_text("running")
    begin = time.monotonic()
    shared.event("alive-1", "stopped", "crashed", 2)
    expect(cells.first.locator(".word")).to_have_text("crashed", timeout=1000)
    assert time.monotonic() - begin < 1
    shared.event("alive-0", "started", "booted", 1)  # a new one takes its place in the order
    expect(cells).to_have_count(2)
    expect(cells.first).to_contain_text("alive-0")
    expect(page.locator("#summary")).to_contain_text("crashed")
    shared.call("vmwatch.problem", problem="duplicate", name="alive-1", text="here, there", state="raised")
    expect(page.locator("#problems")).to_contain_text("here, there")
    expect(cells.nth(1).locator(".badge")).to_have_text("1")
    shared.call("vmwatch.problem", problem="duplicate", name="alive-1", state="solved")
    expect(cells.nth(1).locator(".badge")).to_have_count(0)
    assert page.evaluate("window.loadedOnce")


def test_a_vms_page_changes_by_itself(page: Page, shared: PanelProcess) -> None:
    shared.event("watched", "started", "booted", 1)
    open_live(page, shared, "/vm/watched")
    shared.event("watched", "stopped", "saved", 2)
    expect(page.locator(".state")).to_contain_text("saved", timeout=1000)
    expect(page.locator(".history tbody tr")).to_have_count(2)
    expect(page.locator(".picture .b-saved")).to_have_count(1)


@pytest.mark.parametrize(
    "path", ["/", "/nodes", "/nodes/add", "/problems", "/templates", "/policy", "/settings"]
)
def test_the_number_of_problems_changes_on_every_page(page: Page, shared: PanelProcess, path: str) -> None:
    open_live(page, shared, path)
    expect(page.locator("#badge")).to_have_text("")
    shared.call("vmwatch.problem", problem="odd", text="here", state="raised")
    expect(page.locator("#badge")).to_contain_text("1", timeout=1000)
    expect(page.locator("#told")).to_have_text("Problems: 1 open")  # for those who do not see it
    shared.call("vmwatch.problem", problem="odd", state="solved")
    expect(page.locator("#told")).to_have_text("No open problems")


def test_the_nodes_change_by_themselves(page: Page, shared: PanelProcess) -> None:
    open_live(page, shared, "/nodes")
    shared.call("vmhostnode.edit", elid=55, name="node-55", sok="ok")
    row = page.locator("#rows tr", has_text="node-55")
    expect(row.locator("[data-head=Heard]")).to_have_text("yes", timeout=1000)
    shared.call("vmwatch.problem", problem="node_silent", hostnode=55, text="gone", state="raised")
    expect(row.locator("[data-head=Heard]")).to_contain_text("not for", timeout=1000)
    shared.call("vmwatch.problem", problem="node_silent", hostnode=55, state="solved")
    shared.call("vmhostnode.delete", elid=55)
    expect(row).to_have_count(0)


def test_a_restarted_panel_is_found_again(browser: Browser, panel: PanelProcess) -> None:
    panel.event("back", "started", "booted", 1)
    context = visit(browser, panel)
    page = context.new_page()
    open_live(page, panel, "/")
    port = panel.site.rpartition(":")[2]
    panel.config.write_text(panel.config.read_text().replace("ListenPort 0", f"ListenPort {port}"))
    panel.kill()
    expect(page.locator("#live")).to_have_text("reconnecting", timeout=10_000)
    panel.start()
    # Sessions ended with the process: the page finds that out by itself, and asks to sign in.
    expect(page.get_by_role("button", name="Sign in")).to_be_visible(timeout=15_000)
    context.close()


def test_the_list_without_script(browser: Browser, shared: PanelProcess) -> None:
    shared.event("scriptless", "started", "booted", 1)
    context = visit(browser, shared, java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{shared.site}/?q=scriptless")
    expect(page.locator("#rows tr")).to_contain_text("running")
    expect(page.locator("#live")).to_have_text("not live")
    page.get_by_role("link", name="scriptless").click()
    expect(page.locator(".picture .b-running")).to_have_count(1)
    page.get_by_role("link", name="All VMs").click()
    page.get_by_label("Find a VM by name").fill("scriptless")
    page.get_by_role("button", name="Find").click()
    expect(page).to_have_url(re.compile(r"q=scriptless"))
    context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_a_page_fits_its_screen(
    browser: Browser, shared: PanelProcess, scheme: str, viewport: dict[str, int]
) -> None:
    for seq, (kind, detail) in enumerate([("started", "booted"), ("suspended", "ioerror")], start=1):
        shared.event("customer-4490-with-a-long-name.example.com", kind, detail, seq)
    context = visit(browser, shared, viewport=viewport, color_scheme=scheme)
    page = context.new_page()
    for path in ("/", "/vm/customer-4490-with-a-long-name.example.com"):
        open_live(page, shared, path)
        assert page.evaluate("document.documentElement.scrollWidth") == viewport["width"]
        small = page.evaluate(
            "Array.from(document.querySelectorAll('main *'))"
            ".filter((one) => one.textContent.trim() && parseFloat(getComputedStyle(one).fontSize) < 11).length"
        )
        assert small == 0
    context.close()
