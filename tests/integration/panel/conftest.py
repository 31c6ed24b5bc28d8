# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import sync_playwright

from tests.integration.panel.browsing import ARGUMENTS, CHROMIUM, visit, watched
from tests.integration.panel.filled import fill
from tests.integration.panel.process import PanelProcess

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Browser, Page


@pytest.fixture
def panel(tmp_path: Path) -> Iterator[PanelProcess]:
    with PanelProcess(tmp_path) as panel:
        yield panel


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PanelProcess]:
    """One for all tests of a module: each uses names of its own."""
    with PanelProcess(tmp_path_factory.mktemp("shared")) as panel:
        panel.call("vm")  # opens the connection that all of them use
        yield panel


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PanelProcess]:
    """One that has something for every page."""
    folder = tmp_path_factory.mktemp("filled")
    fill(folder / "panel.db")
    with PanelProcess(folder) as panel:
        panel.call("vm")
        yield panel


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser, shared: PanelProcess) -> Iterator[Page]:
    """A page of the shared panel, signed in."""
    with visit(browser, shared) as context, watched(context.new_page()) as page:
        yield page


@pytest.fixture
def filled_page(browser: Browser, filled: PanelProcess) -> Iterator[Page]:
    """A page of the filled panel, signed in."""
    with visit(browser, filled) as context, watched(context.new_page()) as page:
        yield page
