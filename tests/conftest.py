# SPDX-License-Identifier: Apache-2.0
"""What holds for every test: nothing is left behind, a coroutine is a test, a missing tool is told.

A test leaves nothing: no thread, no descriptor, no process (though it was detached and has another parent),
no task of its event loop. What is being ended when a test returns gets a moment for it. What a fixture of a
wider scope made is there before the test, and may stay.

    @pytest.mark.needs("libvirtd", "/dev/kvm")     skipped where one is missing; fails where CI is set
    async def test_something() -> None             runs under asyncio.run
"""

from __future__ import annotations

import asyncio
import gc
import inspect
import os
import shutil
import threading
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

# The laboratory's fixtures are every test's.
from tests.lab.fixtures import accelerator, cluster, driver_host, host, hosts, image  # noqa: F401

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

GRACE = 2.0  # seconds for what is being ended: a thread that returns, a child that is being reaped
MARK = f"VMWATCH_TEST_RUN={uuid.uuid4()}"  # inherited by every process that a test starts, detached or not


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "needs(*tools): commands, or paths, without which the test cannot run")
    os.environ[MARK.partition("=")[0]] = MARK.partition("=")[2]


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker in item.iter_markers("needs"):
        needs(*marker.args)


def needs(*tools: str) -> None:
    """Skip where a tool is missing, fail where CI is set. Commands are looked for in the sbin folders too."""
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
    missing = [tool for tool in tools if not shutil.which(tool, path=path) and not _is_path(tool)]
    if not missing:
        return
    reason = f"missing: {' '.join(missing)}"
    if os.environ.get("CI"):
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def _is_path(tool: str) -> bool:
    return tool.startswith("/") and Path(tool).exists()


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a test that is a coroutine function; pytest itself has no loop for it."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = pyfuncitem._fixtureinfo.argnames
    asyncio.run(_without_leftover_tasks(pyfuncitem.obj, {name: pyfuncitem.funcargs[name] for name in names}))
    return True


async def _without_leftover_tasks(test: Callable[..., Awaitable[None]], arguments: dict[str, object]) -> None:
    await test(**arguments)
    left = asyncio.all_tasks() - {asyncio.current_task()}
    if left:
        _, left = await asyncio.wait(left, timeout=GRACE)
    assert not left, f"tasks left behind: {[task.get_name() for task in left]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Belongings:
    """What this process holds at one moment."""

    threads: frozenset[threading.Thread]
    descriptors: frozenset[str]  # "7 socket:[4711]": a number that came to mean another file is another one
    processes: frozenset[str]  # "4711 sleep 60"

    @classmethod
    def now(cls) -> Belongings:
        return cls(
            threads=frozenset(threading.enumerate()),
            descriptors=frozenset(_descriptors()),
            processes=frozenset(_processes()),
        )

    def beyond(self, before: Belongings) -> list[str]:
        """What is here and was not then, in words."""
        return [
            *(f"thread {thread.name}" for thread in self.threads - before.threads),
            *(f"descriptor {descriptor}" for descriptor in self.descriptors - before.descriptors),
            *(f"process {process}" for process in self.processes - before.processes),
        ]


def _descriptors() -> Iterator[str]:
    for link in Path("/proc/self/fd").iterdir():
        try:
            yield f"{link.name} {link.readlink()}"
        except FileNotFoundError:
            continue  # the one that lists the folder


def _processes() -> Iterator[str]:
    """Those that carry our mark, and our children (a zombie, which nobody has waited for, has no mark)."""
    me = str(os.getpid())
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if folder.name != me and _is_ours(folder, me):
                command = (
                    (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                )
                yield f"{folder.name} {command or '(zombie)'}"
        except OSError:
            continue  # it ended while we looked, or is another user's


def _is_ours(folder: Path, me: str) -> bool:
    parent = (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()[1]
    return parent == me or MARK.encode() in (folder / "environ").read_bytes()


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """Fail the test that leaves a thread, a descriptor or a process."""
    before = Belongings.now()
    yield
    deadline = time.monotonic() + GRACE
    while left := Belongings.now().beyond(before):
        assert time.monotonic() < deadline, f"left behind: {', '.join(left)}"
        gc.collect()  # what only the collector closes is closed, though late
        time.sleep(0.01)
