# SPDX-License-Identifier: Apache-2.0
"""What was told to be durable is there after a loss of power.

A disk of its own (ext4 in a file, by a loop device): what a process wrote and did not have synchronized stays in the
kernel's memory, and does not reach that file. A copy of the file, taken while the process stands still, is therefore
what a host finds that lost its power in that moment.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.lab.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.needs("unshare", "nsenter", "mount", "losetup", "mkfs.ext4")

ROUNDS = 6
DISK_BYTES = 48 << 20
SBIN = {**os.environ, "PATH": f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"}
MODULE = [
    "env",
    f"PYTHONPATH={Path(__file__).parents[2]}",
    sys.executable,
    "-m",
    "tests.system.durable_writer",
]


@pytest.fixture
def image(tmp_path: Path) -> Path:
    if os.geteuid() != 0 or subprocess.run(["losetup", "--find"], env=SBIN, check=False).returncode:
        pytest.skip("no disk can be mounted: that takes root, and a kernel with loop devices")
    image = tmp_path / "disk.img"
    with image.open("wb") as file:
        file.truncate(DISK_BYTES)
    subprocess.run(
        ["mkfs.ext4", "-q", image], check=True, env={**os.environ, "PATH": f"{os.environ['PATH']}:/sbin"}
    )
    return image


@contextmanager
def mounted(image: Path, folder: Path) -> Iterator[list[str]]:
    """What a command begins with that sees the disk in `folder`."""
    script = f"mount -o loop {image} {folder} && echo mounted && read -r _; umount {folder}"
    holder = subprocess.Popen(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert holder.stdout
        assert holder.stdout.readline() == b"mounted\n"
        yield ["nsenter", f"--mount=/proc/{holder.pid}/ns/mnt", "--"]
    finally:
        holder.communicate(timeout=30)


def lose_power(kind: str, image: Path, folder: Path, *, after: int, synchronous: tuple[str, ...] = ()) -> int:
    """Write, and copy the disk in the midst of it to `after.img`. The last number that was told by then."""
    with ExitStack() as stack:
        enter = stack.enter_context(mounted(image, folder))
        command = [*enter, *MODULE, "write", kind, str(folder), *synchronous]
        writer = stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        stack.callback(writer.kill)
        assert writer.stdout
        for _ in range(after):
            writer.stdout.readline()
        writer.send_signal(signal.SIGSTOP)
        stat = Path(f"/proc/{writer.pid}/stat")
        wait_for(
            lambda: ") T " in stat.read_text(), seconds=10, what="the writer to stand still", pause=0.001
        )
        shutil.copyfile(image, image.with_name("after.img"))
        writer.kill()
        told = after
        for line in writer.stdout:
            told = int(line)
        return told


def found(kind: str, image: Path, folder: Path) -> int:
    """How far the file on the disk goes, after the power came back."""
    with mounted(image.with_name("after.img"), folder) as enter:
        done = subprocess.run(
            [*enter, *MODULE, "read", kind, str(folder)], stdout=subprocess.PIPE, check=True, timeout=60
        )
    return int(done.stdout)


@pytest.mark.parametrize("kind", ["outbox", "ledger"])
def test_what_was_told_is_there_after_a_loss_of_power(kind: str, image: Path, tmp_path: Path) -> None:
    folder = tmp_path / "disk"
    folder.mkdir()
    clean = image.read_bytes()
    for number in range(ROUNDS):
        image.write_bytes(clean)
        told = lose_power(kind, image, folder, after=random.Random(number).randrange(1, 300))
        assert told <= found(kind, image, folder) <= told + 1


@pytest.mark.parametrize("kind", ["outbox", "ledger"])
def test_the_loss_is_seen_of_a_file_that_is_not_synchronized(kind: str, image: Path, tmp_path: Path) -> None:
    folder = tmp_path / "disk"
    folder.mkdir()
    told = lose_power(kind, image, folder, after=100, synchronous=("OFF",))
    assert found(kind, image, folder) < told
