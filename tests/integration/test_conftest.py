# SPDX-License-Identifier: Apache-2.0
"""The rules of tests/conftest.py, held against tests that break them, in a pytest of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HEAD = "import asyncio, os, subprocess, threading, time\nimport pytest\nKEPT = []\n"
LEAVING = {
    "thread": "threading.Thread(target=time.sleep, args=(9,), name='lazy', daemon=True).start()",
    "descriptor": "os.open('/dev/null', os.O_RDONLY)",
    "process 1": "KEPT.append(subprocess.Popen(['sleep', '1.5']))",
    "process 2": "subprocess.run('sleep 1.5 <&- >&- 2>&- &', shell=True, start_new_session=True, check=True)",
}
TIDY = """
def test_it():
    thread = threading.Thread(target=time.sleep, args=(0.05,))
    thread.start()
async def test_coroutine(tmp_path):
    await asyncio.create_task(asyncio.sleep(0))
"""
TASK = """
async def test_it():
    KEPT.append(asyncio.create_task(asyncio.sleep(9), name="lazy"))
"""
MISSING = """
@pytest.mark.needs("sh", "/dev/null", "no-such-tool")
def test_it(): pass
"""


def run(folder: Path, tests: str, *, ci: bool = False) -> tuple[int, str]:
    """Exit code and output of pytest for one file of tests under our conftest, with less patience."""
    conftest = (Path(__file__).parents[1] / "conftest.py").read_text()
    assert "GRACE = 2.0" in conftest
    (folder / "conftest.py").write_text(conftest.replace("GRACE = 2.0", "GRACE = 0.2"))
    (folder / "test_it.py").write_text(HEAD + tests)
    environment = {name: value for name, value in os.environ.items() if name != "CI"}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", "--rootdir", folder, folder],
        env=environment | ({"CI": "true"} if ci else {}),
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout


@pytest.mark.parametrize("what", LEAVING)
def test_what_is_left_behind_fails(tmp_path: Path, what: str) -> None:
    code, output = run(tmp_path, f"def test_it(): {LEAVING[what]}\n")
    assert (code, f"left behind: {what.split(maxsplit=1)[0]} " in output) == (1, True), output


def test_a_task_left_behind_fails(tmp_path: Path) -> None:
    code, output = run(tmp_path, TASK)
    assert (code, "tasks left behind: ['lazy']" in output) == (1, True), output


def test_a_tidy_test_passes(tmp_path: Path) -> None:
    code, output = run(tmp_path, TIDY)
    assert (code, "2 passed" in output) == (0, True), output


def test_a_missing_tool_skips_at_a_desk_and_fails_in_ci(tmp_path: Path) -> None:
    code, output = run(tmp_path, MISSING)
    assert (code, "missing: no-such-tool" in output, "1 skipped" in output) == (0, True, True), output
    code, output = run(tmp_path, MISSING, ci=True)
    assert (code, "missing: no-such-tool" in output) == (1, True), output
