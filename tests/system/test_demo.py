# SPDX-License-Identifier: Apache-2.0
"""`script/demo` plays its round to the end, and leaves nothing behind, however it ends."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.lab.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.needs("libvirtd", "qemu-system-x86_64", "unshare", "setpriv"),
    pytest.mark.usefixtures("accelerator"),  # else each demo finds it out by itself
]

DEMO = Path(__file__).resolve().parents[2] / "script/demo"
PLAYED = (
    "define",
    "start",
    "pause",
    "resume",
    "guest reboots",
    "migrate live, alpha to beta",
    "migrate live, beta to alpha",
    "guest powers off",
    "destroy",
    "kill -9 of its QEMU",
)


@pytest.fixture
def folder() -> Iterator[Path]:
    """For all that the demo makes. Not pytest's own: a socket's path may have 107 characters."""
    with tempfile.TemporaryDirectory(prefix="demo-") as name:
        yield Path(name)


def start_demo(folder: Path, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [DEMO, *options], stdout=subprocess.PIPE, text=True, env={**os.environ, "TMPDIR": str(folder)}
    )


def test_one_round_is_shown_as_it_should_be(folder: Path) -> None:
    with start_demo(folder, "--once") as demo:
        said, _ = demo.communicate()
    print(said)
    assert demo.returncode == 0
    for step in PLAYED:
        assert re.search(rf"^  \d\d:\d\d:\d\d  \w+ +{step} .* \d+ ms$", said, re.MULTILINE), step
    assert not any(folder.iterdir())


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_it_goes_on_until_it_is_stopped_and_leaves_nothing(folder: Path, how: signal.Signals) -> None:
    """That no process stays is looked at after every test."""
    with start_demo(folder) as demo:
        assert demo.stdout is not None
        assert any("started(booted)" in line for line in demo.stdout), "it ended before"
        demo.send_signal(how)
        rest = demo.stdout.read()
    wait_for(lambda: not any(folder.iterdir()), seconds=10, what="the folders to be removed")
    if how is not signal.SIGKILL:
        assert "Nothing is left behind" in rest
        assert demo.returncode == 0
