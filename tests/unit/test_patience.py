# SPDX-License-Identifier: Apache-2.0
"""Blocking calls that return, that raise, that come late, and that never return."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time

import pytest

from vmwatch.patience import Patience

DEADLINE = 10.0


async def test_returns_and_raises_what_the_call_does() -> None:
    calls = Patience(name="test", limit=1)
    assert await calls.call(lambda: 42, seconds=DEADLINE) == 42
    with pytest.raises(ZeroDivisionError):
        await calls.call(lambda: 1 // 0, seconds=DEADLINE)


async def test_one_call_after_the_other_never_meets_the_last() -> None:
    calls = Patience(name="test", limit=1)
    for _ in range(500):
        await calls.call(
            lambda: time.sleep(0.0001), seconds=DEADLINE
        )  # the next is made while its thread ends


async def test_what_comes_too_late_is_discarded_and_makes_room_again() -> None:
    calls, go_on, discarded = Patience(name="test", limit=1), threading.Event(), threading.Event()

    def slow() -> threading.Event:
        assert go_on.wait(DEADLINE)
        return discarded

    with pytest.raises(TimeoutError):
        await calls.call(slow, seconds=0.01, discard=threading.Event.set)
    with pytest.raises(TimeoutError, match="has not returned yet"):
        await calls.call(lambda: 42, seconds=DEADLINE)
    (thread,) = (thread for thread in threading.enumerate() if thread.name == "test")
    go_on.set()
    await asyncio.to_thread(thread.join, DEADLINE)
    assert discarded.is_set()
    assert await calls.call(lambda: 42, seconds=DEADLINE) == 42


async def test_a_cancelled_caller_leaves_its_result_to_be_discarded() -> None:
    calls, go_on, discarded = Patience(name="test", limit=1), threading.Event(), threading.Event()

    def slow() -> threading.Event:
        assert go_on.wait(DEADLINE)
        return discarded

    task = asyncio.create_task(calls.call(slow, seconds=DEADLINE, discard=threading.Event.set))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    go_on.set()
    assert await asyncio.to_thread(discarded.wait, DEADLINE)


def test_a_call_that_never_returns_does_not_hold_up_the_end_of_the_process() -> None:
    program = """
import asyncio, threading
from vmwatch.patience import Patience

async def main():
    try:
        await Patience(name="test", limit=1).call(threading.Event().wait, seconds=0.01)
    except TimeoutError:
        print("given up on")

asyncio.run(main())
"""
    ended = subprocess.run(
        [sys.executable, "-c", program], timeout=DEADLINE, capture_output=True, text=True, check=True
    )
    assert (ended.stdout, ended.stderr) == ("given up on\n", "")
