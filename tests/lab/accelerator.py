# SPDX-License-Identifier: Apache-2.0
"""Whether guests may use KVM here: only if one really boots under it. `/dev/kvm` alone promises nothing."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.lab.errors import require
from tests.lab.guest import MEMORY_MIB
from tests.lab.image import CACHE, KERNEL_ARGUMENTS

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.lab.image import Image

TRIAL_SECONDS: Final = 8.0  # under working KVM a guest boots in less than one


def find_accelerator(image: Image, say: Callable[[str], None] = lambda _: None) -> str:
    """Return libvirt's domain type for guests: `kvm` or `qemu`. Tried once per machine, kept in the cache.

    `VMWATCH_ACCELERATOR` overrides it.
    """
    named = os.environ.get("VMWATCH_ACCELERATOR")
    if named:
        return named
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "qemu"
    cached = CACHE / f"accelerator-{_machine()}"
    if not cached.exists():
        say(f"trying whether guests boot under KVM (at most {TRIAL_SECONDS:.0f} s)")
        cached.write_text("kvm" if _boots_under_kvm(image) else "qemu")
    return cached.read_text()


def _machine() -> str:
    """What the answer depends on, shortened."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line for line in lines if line.startswith("model name")), "")
    return hashlib.sha256(f"{platform.uname()} {model}".encode()).hexdigest()[:12]


def _boots_under_kvm(image: Image) -> bool:
    require("qemu-system-x86_64")
    command = [
        *("qemu-system-x86_64", "-machine", "pc,accel=kvm", "-m", str(MEMORY_MIB), "-no-reboot"),
        *("-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio"),
        *("-kernel", str(image.kernel), "-initrd", str(image.initramfs)),
        *("-append", f"{KERNEL_ARGUMENTS} -- once"),
    ]
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as qemu:
        try:
            said, _ = qemu.communicate(timeout=TRIAL_SECONDS)
        except subprocess.TimeoutExpired:
            qemu.kill()
            said, _ = qemu.communicate()
        return b"READY" in said
