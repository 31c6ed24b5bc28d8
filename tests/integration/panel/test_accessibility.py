# SPDX-License-Identifier: Apache-2.0
"""Every page in both themes, before axe-core: no finding that matters; nothing is wider than its screen."""

from __future__ import annotations

import importlib.resources
from typing import TYPE_CHECKING, Any

import pytest
from playwright.sync_api import expect

from tests.integration.panel.browsing import CHROMIUM, DESKTOP, PHONE, keep_picture, open_live, visit, watched
from tests.integration.panel.filled import PAGES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, BrowserContext, Page

    from tests.integration.panel.process import PanelProcess

pytestmark = pytest.mark.needs(CHROMIUM)

AXE = (importlib.resources.files("axe_playwright_python") / "axe.min.js").read_text()
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


@pytest.fixture(params=["light", "dark"], scope="module")
def theme(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def signed_in(browser: Browser, filled: PanelProcess, theme: str) -> Iterator[BrowserContext]:
    with visit(browser, filled, color_scheme=theme) as context:
        yield context


def findings(page: Page) -> list[str]:
    """What axe finds that is moderate, serious or critical. Its script runs outside of the page's policy."""
    page.evaluate(AXE)
    options = {"runOnly": {"type": "tag", "values": RULES}, "resultTypes": ["violations"]}
    found: dict[str, Any] = page.evaluate("(options) => axe.run(document, options)", options)
    return [
        f"{violation['impact']} {violation['id']}: {node['html']} {node['failureSummary']}"
        for violation in found["violations"]
        if violation["impact"] in ("serious", "critical", "moderate")
        for node in violation["nodes"]
    ]


@pytest.mark.parametrize("name", PAGES)
def test_a_page_can_be_used_by_all(
    signed_in: BrowserContext, filled: PanelProcess, theme: str, name: str
) -> None:
    with watched(signed_in.new_page()) as page:
        open_live(page, filled, PAGES[name])
        assert findings(page) == []
        keep_picture(page, f"{name}-{theme}")
        page.set_viewport_size(PHONE)
        assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
        if theme == "light":  # the layout is the same in both
            assert findings(page) == []
            keep_picture(page, f"{name}-phone")
        page.close()


def test_signing_in_can_be_done_by_all(browser: Browser, filled: PanelProcess, theme: str) -> None:
    with browser.new_context(viewport=DESKTOP, color_scheme=theme) as context:  # type: ignore[arg-type]
        page = context.new_page()
        page.goto(f"{filled.site}/sign-in")
        assert findings(page) == []
        page.get_by_label("User name").fill("nobody")
        page.get_by_label("Password").fill("wrong")
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_role("alert")).to_contain_text("Wrong")
        assert findings(page) == []
        keep_picture(page, f"sign-in-{theme}")


def test_axe_finds_what_is_wrong(browser: Browser) -> None:
    """Else the others could not fail."""
    with browser.new_context() as context:
        page = context.new_page()
        page.set_content("<html><body><img src='x.png'><button></button></body></html>")
        assert any("image-alt" in found for found in findings(page))
        assert any("button-name" in found for found in findings(page))
