# SPDX-License-Identifier: Apache-2.0
"""A real browser at a panel's pages: signed in, and with an eye on errors of script and policy."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from playwright.sync_api import expect

from tests.integration.panel.process import PASSWORD, USER

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, ViewportSize

    from tests.integration.panel.process import PanelProcess

CHROMIUM = "/usr/bin/chromium"
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
DESKTOP: ViewportSize = {"width": 1280, "height": 800}
PHONE: ViewportSize = {"width": 360, "height": 740}
PICTURES = Path("build/pictures")
"""What each page looked like in the last run, for people to look through."""


def visit(browser: Browser, panel: PanelProcess, **more: object) -> BrowserContext:
    """A context that is signed in."""
    context = browser.new_context(viewport=more.pop("viewport", DESKTOP), **more)  # type: ignore[arg-type]
    page = context.new_page()
    page.goto(panel.site)
    page.get_by_label("User name").fill(USER)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("navigation", name="Pages")).to_be_attached()
    page.close()
    return context


@contextmanager
def watched(page: Page) -> Iterator[Page]:
    """The page, whose every error of script or policy fails the test. A form that is refused (422) is none."""
    wrong: list[str] = []

    def hear(message: ConsoleMessage) -> None:
        if message.type == "error" and "status of 422" not in message.text:
            wrong.append(message.text)

    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", hear)
    yield page
    assert wrong == []


def open_live(page: Page, panel: PanelProcess, path: str) -> None:
    """Load a page, until it is kept current."""
    page.goto(panel.site + path)
    expect(page.locator("#live")).to_have_text("live")


def keep_picture(page: Page, name: str) -> None:
    """Keep a picture of the whole page as a file of this run."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    # Written here: for a path, playwright would leave a thread behind.
    (PICTURES / f"{name}.png").write_bytes(page.screenshot(full_page=True))
