# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.integration.panel.process import PanelProcess

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


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
