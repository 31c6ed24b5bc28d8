# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from vmwatch.panel.background import Background

if TYPE_CHECKING:
    import pytest


async def test_rooms_run_inside_and_have_ended_after_it() -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def room() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)  # what ends may itself wait
            ended.set()

    async with Background({"room": room}, on_failure=lambda: None) as background:
        await begun.wait()
        assert not ended.is_set()
    assert ended.is_set()
    assert not background.failed


async def test_a_room_that_raises_is_told_with_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    async def broken() -> None:
        raise ValueError("a bug")

    async def done() -> None:
        """One that has nothing more to do is no failure."""

    failed = asyncio.Event()
    async with Background({"broken": broken, "done": done}, on_failure=failed.set) as background:
        await asyncio.wait_for(failed.wait(), timeout=5)
    assert background.failed
    (record,) = caplog.records
    assert "room=broken" in record.getMessage()
    assert record.exc_info is not None
    assert record.exc_info[0] is ValueError
