# SPDX-License-Identifier: Apache-2.0
"""Waiting for a condition with a deadline: the only way in which anything here waits."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

from tests.lab.errors import LabError

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class DeadlinePassed(LabError):
    """A condition did not come true in time."""


def wait_for(condition: Callable[[], T | None], *, seconds: float, what: str, pause: float = 0.01) -> T:
    """Return the condition's first true value, asked every `pause` s; DeadlinePassed after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() >= deadline:
            raise DeadlinePassed(f"waited {seconds:g} s for {what}")
        time.sleep(pause)
