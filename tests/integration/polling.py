# SPDX-License-Identifier: Apache-2.0
"""Waiting, in a test that is a coroutine, for what another thread or process does."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

DEADLINE: Final = 20.0


async def until(condition: Callable[[], object], *, seconds: float = DEADLINE) -> None:
    """Return when the condition holds; TimeoutError after `seconds`."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 (nobody there who could set an event)
            await asyncio.sleep(0.005)
