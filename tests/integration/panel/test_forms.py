# SPDX-License-Identifier: Apache-2.0
"""Each form in a real browser: what it does, how an error is told, and that it can be used without script."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest
from playwright.sync_api import expect

from tests.integration.panel.browsing import CHROMIUM, keep_picture, open_live, visit
from tests.integration.panel.filled import INSTALLED, PLAIN, STRANGE
from tests.integration.panel.process import PASSWORD, USER, PanelProcess

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.needs(CHROMIUM)


def row(page: Page, text: str) -> str:
    return page.locator("#rows tr", has_text=text).inner_text()


def test_a_node_is_added_changed_and_removed(filled_page: Page, filled: PanelProcess) -> None:
    page = filled_page
    open_live(page, filled, "/nodes")
    page.get_by_role("link", name="Add a node").click()
    page.get_by_label("Number").fill("2")
    page.get_by_label("Name").fill(STRANGE)
    page.get_by_label("Address").fill("root@192.0.2.44")
    page.get_by_role("button", name="Add").click()
    expect(page.get_by_role("alert")).to_contain_text("taken, by node 'node-2'")
    expect(page.get_by_label("Number")).to_be_focused()
    expect(page.get_by_label("Number")).to_have_attribute("aria-invalid", "true")
    expect(page.get_by_label("Address")).to_have_value("root@192.0.2.44")
    keep_picture(page, "form-refused")
    page.get_by_label("Number").fill("44")
    page.get_by_role("button", name="Add").click()
    expect(page.get_by_text("Saved.")).to_be_visible()
    assert "root@192.0.2.44" in row(page, STRANGE)
    page.get_by_role("link", name=STRANGE, exact=True).click()
    page.get_by_label("Name").fill("node-44")
    page.get_by_role("button", name="Save").click()
    page.get_by_role("link", name="Remove node-44").click()
    page.get_by_role("link", name="Cancel").click()
    page.get_by_role("link", name="Remove node-44").click()
    page.get_by_role("button", name="Remove").click()
    expect(page.get_by_text("Removed.")).to_be_visible()
    expect(page.locator("#rows")).not_to_contain_text("node-44")


def test_a_node_that_vms_run_on_stays(filled_page: Page, filled: PanelProcess) -> None:
    filled_page.goto(f"{filled.site}/nodes/2/remove")
    filled_page.get_by_role("button", name="Remove").click()
    expect(filled_page.get_by_role("alert")).to_contain_text("VMs run on node 2")
    assert [node["id"] for node in filled.rows("vmhostnode") if node["id"] == "2"]


def test_configuring_tells_why_it_is_not_done(filled_page: Page, filled: PanelProcess) -> None:
    page = filled_page
    open_live(page, filled, "/nodes")
    expect(page.get_by_text("does not manage the services")).to_be_visible()
    expect(page.get_by_role("button", name="Configure")).to_have_count(0)
    # One that was loaded before the panel was told so.
    page.locator("#act").evaluate("(form) => { form.action = '/nodes/1/configure'; form.submit(); }")
    expect(page.get_by_role("alert")).to_contain_text("does not manage the services")


def test_a_template_is_added_changed_and_removed(filled_page: Page, filled: PanelProcess) -> None:
    page = filled_page
    open_live(page, filled, "/templates")
    page.get_by_role("link", name="Add a template").click()
    page.get_by_label("Name").fill("Alma 9")
    page.get_by_label("Reboots").fill("0")
    page.get_by_role("button", name="Add").click()
    expect(page.get_by_role("alert")).to_contain_text("rebootcount")
    expect(page.get_by_label("Name")).to_have_value("Alma 9")
    page.get_by_label("Reboots").fill("3")
    page.get_by_role("button", name="Add").click()
    page.get_by_role("link", name="Alma 9", exact=True).click()
    page.get_by_label("Time limit").fill("600")
    page.get_by_role("button", name="Save").click()
    assert "10 min" in row(page, "Alma 9")
    page.get_by_role("link", name="Remove Alma 9").click()
    page.get_by_role("button", name="Remove").click()
    expect(page.locator("#rows")).not_to_contain_text("Alma 9")


def test_problems_are_solved_several_at_once(filled_page: Page, filled: PanelProcess) -> None:
    page = filled_page
    for number in (1, 2, 3):
        filled.call(
            "vmwatch.problem", problem="events_lost", hostnode=70 + number, state="raised", text="lost"
        )
    open_live(page, filled, "/problems?q=&level=warning")
    page.get_by_role("button", name="Solve those ticked").click()
    expect(page.get_by_text("Nothing was ticked")).to_be_visible()
    page.get_by_label("events lost", exact=True).nth(0).check()
    page.get_by_label("events lost", exact=True).nth(1).check()
    # What is told meanwhile leaves ticks and focus where they are.
    filled.call("vmwatch.problem", problem="events_lost", hostnode=72, state="raised", text="lost, and lost")
    expect(page.get_by_text("lost, and lost")).to_be_visible()
    expect(page.get_by_label("events lost", exact=True).nth(1)).to_be_checked()
    expect(page.get_by_label("events lost", exact=True).nth(1)).to_be_focused()
    badge = page.locator("#badge")
    before = int(re.sub(r"\D", "", badge.inner_text()))
    page.get_by_role("button", name="Solve those ticked").click()
    expect(page.get_by_text("Solved.")).to_be_visible()
    assert re.search(r"level=warning", page.url)
    expect(badge).to_contain_text(str(before - 2))
    page.get_by_label("State").select_option("solved")
    page.get_by_role("button", name="Find").click()
    expect(page.locator("#rows")).to_contain_text(f"by {USER}")
    keep_picture(page, "problems-solved")


def test_the_status_check_is_switched(filled_page: Page, filled: PanelProcess) -> None:
    page = filled_page
    open_live(page, filled, "/?warning=any")
    expect(page.locator("#rows tr")).to_have_count(1)
    expect(page.locator("#rows .idle")).to_have_text("0 packets sent, 523 disk writes in 10 min")
    page.get_by_role("link", name="Policy").click()
    page.get_by_role("button", name="Switch the status check off").click()
    expect(page.locator("#policy")).to_contain_text("The status check is off")
    open_live(page, filled, "/?warning=any")
    expect(page.locator("#rows tr")).to_have_count(0)


def test_how_long_history_is_kept(filled_page: Page, filled: PanelProcess) -> None:
    page = filled_page
    open_live(page, filled, "/settings")
    page.get_by_role("link", name="Change how long").click()
    page.get_by_label("Days").fill("0")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("alert")).to_contain_text("value")
    page.get_by_label("Days").fill("30")
    page.get_by_role("button", name="Save").click()
    expect(page.locator("#settings")).to_contain_text("30 days")


def test_an_installation_that_waits_goes_on(filled_page: Page, filled: PanelProcess) -> None:
    page = filled_page
    open_live(page, filled, f"/vm/{INSTALLED}")
    card = page.locator("#installation")
    for text in ("Debian 12", "Step 2 of 2", "nobody knows why", "it was switched off by force"):
        expect(card).to_contain_text(text)
    page.get_by_role("button", name="Start it again").click()
    expect(card).not_to_contain_text("It waits")
    page.get_by_role("button", name="Cancel the installation").click()
    expect(card).to_contain_text("Install an operating system")


def test_an_installation_begins(filled_page: Page, filled: PanelProcess) -> None:
    page = filled_page
    open_live(page, filled, f"/vm/{quote(STRANGE)}")
    page.get_by_role("link", name="Install an operating system").click()
    page.get_by_label("Operating system").select_option("Debian 12")
    page.get_by_role("button", name="Install").click()
    expect(page.get_by_text("The installation begins.")).to_be_visible()
    expect(page.locator("#installation")).to_contain_text("Step 1 of 2")
    expect(page.get_by_role("heading", level=1)).to_have_text(STRANGE)


def test_the_lists_filters_and_orders(filled_page: Page, filled: PanelProcess) -> None:
    page = filled_page
    open_live(page, filled, "/")
    page.get_by_label("Node", exact=True).select_option("node-2")
    page.get_by_role("button", name="Find").click()
    rows = page.locator("#rows tr")
    expect(rows.first.locator(".node")).to_have_text("node-2")
    expect(page.locator("#rows .node", has_text="node-1")).to_have_count(0)
    page.get_by_role("link", name="VM", exact=True).click()  # by name it is: the other way round now
    expect(page.locator("th[aria-sort]")).to_have_attribute("aria-sort", "descending")
    names = page.locator("#rows .name a").all_inner_texts()
    assert names == sorted(names, reverse=True)
    assert PLAIN in names
    page.get_by_role("link", name="Since", exact=True).click()
    assert re.search(r"node=2", page.url)
    expect(page.locator("th[aria-sort]")).to_have_text("Since")
    page.get_by_role("link", name=re.compile("^running")).click()
    assert set(page.locator("#rows .word").all_inner_texts()) == {"running"}


def test_a_page_is_used_with_the_keyboard(filled_page: Page, filled: PanelProcess) -> None:
    page = filled_page
    open_live(page, filled, "/problems")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    expect(page.get_by_label("State")).to_be_focused()
    outline = page.get_by_label("State").evaluate("(element) => getComputedStyle(element).outlineStyle")
    assert outline == "solid"


def test_a_form_of_another_session_has_no_effect(filled_page: Page, filled: PanelProcess) -> None:
    filled_page.goto(f"{filled.site}/policy")
    action = filled_page.get_by_role("button", name="Switch the status check").get_attribute("formaction")
    answer = filled_page.request.post(f"{filled.site}{action}", form={"token": "forged"})
    assert answer.status == 403


def test_without_script(browser: Browser, filled: PanelProcess) -> None:
    with visit(browser, filled, java_script_enabled=False) as context:
        page = context.new_page()
        page.goto(f"{filled.site}/settings")
        page.get_by_role("link", name="Change how long").click()
        page.get_by_label("Days").fill("31")
        page.get_by_role("button", name="Save").click()
        expect(page.locator("#settings")).to_contain_text("31 days")


def test_the_password_is_changed(browser: Browser, panel: PanelProcess) -> None:
    with visit(browser, panel) as context:
        page = context.new_page()
        open_live(page, panel, "/settings/password")
        page.get_by_label("New password").fill("correct horse 2")
        page.get_by_label("The same again").fill("something else")
        page.get_by_role("button", name="Change").click()
        expect(page.locator("#error-confirm")).to_be_visible()
        expect(page.get_by_label("New password")).to_have_value("")  # a password is never sent back
        page.get_by_label("New password").fill("correct horse 2")
        page.get_by_label("The same again").fill("correct horse 2")
        page.get_by_role("button", name="Change").click()
        page.get_by_label("User name").fill(USER)
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_role("alert")).to_contain_text("Wrong")
        page.get_by_label("Password").fill("correct horse 2")
        page.get_by_role("button", name="Sign in").click()
        expect(page.locator("#rows")).to_be_attached()
