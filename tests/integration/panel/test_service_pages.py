# SPDX-License-Identifier: Apache-2.0
"""The nodes page in a real browser, over real services on two hosts."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect, sync_playwright

from tests.integration.panel.browsing import ARGUMENTS, CHROMIUM, keep_picture, open_live, visit, watched
from tests.integration.panel.site import HERE, NODE, THERE, Site
from vmwatch import __version__

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Page

pytestmark = [
    pytest.mark.needs(
        "libvirtd", "unshare", "nsenter", "ip", "service", "ssh", "sshd", "ssh-keygen", CHROMIUM
    ),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root makes hosts"),
    pytest.mark.timeout(300),
]
SLOW = 60_000  # ms: services are started, here and over SSH


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with Site(tmp_path) as site:
        yield site


@pytest.fixture
def nodes_page(site: Site) -> Iterator[Page]:
    """The nodes page, in a browser of the site's own network."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        with visit(browser, site.panel) as context, watched(context.new_page()) as page:
            page.set_default_timeout(SLOW)
            open_live(page, site.panel, "/nodes")
            yield page
        browser.close()


def add(page: Page, number: int, address: str) -> None:
    page.get_by_role("link", name="Add a node").click()
    page.get_by_label("Number").fill(str(number))
    page.get_by_label("Name").fill(f"node-{number}")
    page.get_by_label("Address").fill(address)
    page.get_by_role("button", name="Add").click()
    expect(page.get_by_text("Saved.")).to_be_visible(timeout=SLOW)


def test_nodes_are_added_watched_and_configured(site: Site, nodes_page: Page) -> None:
    page = nodes_page
    add(page, 1, HERE)
    add(page, 2, THERE)
    page.get_by_role("button", name="Configure all").click()
    expect(page.get_by_text("The services were configured")).to_be_visible(timeout=SLOW)
    expect(page.locator("#live")).to_have_text("live")
    rows = page.locator("#rows tr")
    expect(rows.locator(".service")).to_have_text(["running", "running"])
    expect(page.locator("#master .service")).to_have_text("running")
    expect(page.locator("#rows [data-head=Version]").first).to_have_text(__version__)
    keep_picture(page, "nodes-managed")

    pid = site.there.pid(NODE)
    assert pid
    os.kill(pid, signal.SIGKILL)
    site.panel.call("periodic", period=5)
    # Found, and told of: the page follows by itself.
    expect(page.locator("#told")).to_contain_text("Problems: ", timeout=SLOW)
    expect(rows.nth(1).locator(".service")).to_have_text("stopped")
    keep_picture(page, "nodes-stopped")
    page.get_by_role("button", name="Configure node-2").click()
    expect(page.get_by_text("The services were configured")).to_be_visible(timeout=SLOW)
    expect(rows.nth(1).locator(".service")).to_have_text("running", timeout=SLOW)

    page.get_by_role("link", name="Settings").click()
    expect(page.locator("#settings")).to_contain_text(f"tcp://{HERE}:1515")
    file = site.there.config(NODE)
    before = file.read_text()
    page.get_by_role("button", name="Configure all with a new secret").click()
    expect(page.get_by_text("The services were configured")).to_be_visible(timeout=SLOW)
    assert file.read_text() != before
