# SPDX-License-Identifier: Apache-2.0
"""What a guest boots: a kernel and an initramfs, made once and kept in the repository's `.cache/`.

The kernel is Debian's, taken out of its package without installing it, or the file that `VMWATCH_KERNEL`
names. The initramfs is a busybox and one script, which obeys the guest's serial console.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.lab.bare import FROM_DISK, boot_sector
from tests.lab.errors import LabError, require

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CACHE = Path(__file__).resolve().parents[2] / ".cache"
_MODULES_FOLDER = CACHE / "modules"

KERNEL_PACKAGE = "linux-image-cloud-amd64"  # depends on the newest real one

# Nothing but the console: a guest is here to run, pause, reboot, die and migrate. `OK` before each answer
# tells it from the terminal's echo of the question. `once`: boot, and that is all. `install`: do a step of an
# installation, and reboot; that is a command, too. A step writes the disk's first sector, and one more x into the
# second: how many steps were done. `work`: from then on write to a virtio disk and ping over a virtio interface.
INIT = """\
#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
install() {
    /bin/busybox mount -t devtmpfs dev /dev
    steps=$(/bin/busybox dd if=/dev/nvme0n1 bs=512 skip=1 count=1 | /bin/busybox tr -d '\\0')
    /bin/busybox dd if=/bootsector of=/dev/nvme0n1
    echo -n "${steps}x" | /bin/busybox dd of=/dev/nvme0n1 bs=512 seek=1 conv=sync
    /bin/busybox sync
    /bin/busybox reboot -f
}
work() {
    for module in $(/bin/busybox cat /modules/order); do /bin/busybox insmod "/modules/$module.ko"; done
    /bin/busybox mount -t devtmpfs dev /dev
    /bin/busybox ip link set eth0 up
    /bin/busybox ip address add 192.0.2.1/24 dev eth0
    /bin/busybox arp -s 192.0.2.2 52:54:00:00:00:02
    while [ -b /dev/vda ] && /bin/busybox dd if=/dev/zero of=/dev/vda bs=512 count=1 conv=fsync; do
        /bin/busybox ping -c 1 -W 1 192.0.2.2 &
        /bin/busybox sleep 0.2
    done >/dev/null 2>&1 & # which ash needs for what is in the background, so not before the mount
}
echo READY
[ "$1" != once ] || /bin/busybox poweroff -f
[ "$1" != install ] || install
while read -r line; do
    case "$line" in
        install) install ;;
        work) work ;;
        reboot | poweroff) /bin/busybox "$line" -f ;;
        panic) echo c >/proc/sysrq-trigger ;;
        *) echo "OK $line" ;;
    esac
done
"""

# What the kernel lacks for that, each after those that it needs.
MODULES = (
    *("virtio_ring", "virtio", "virtio_pci_legacy_dev", "virtio_pci_modern_dev", "virtio_pci", "virtio_blk"),
    *("failover", "net_failover", "virtio_net"),
)

KERNEL_ARGUMENTS = "console=ttyS0 quiet panic=-1"  # a panic reboots at once, as hosting providers set it


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """The two files that a guest boots from."""

    kernel: Path
    initramfs: Path


def make_image(say: Callable[[str], None] = lambda _: None) -> Image:
    """Return the image, making what is not in the cache. `say` is told what takes a while."""
    require("busybox", "cpio")
    with _cache_lock():
        return Image(kernel=_kernel(say), initramfs=_initramfs())


@contextlib.contextmanager
def _cache_lock() -> Iterator[None]:
    """One at a time: several test runs share a working tree."""
    CACHE.mkdir(exist_ok=True)
    with (CACHE / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _kernel(say: Callable[[str], None]) -> Path:
    named = _named_kernel()
    if named:
        if not named.is_file():
            raise LabError(f"VMWATCH_KERNEL={named}: there is no such file")
        return named.resolve()
    cached = CACHE / "vmlinuz"
    if not (cached.exists() and _MODULES_FOLDER.exists()):
        say(f"fetching a kernel for the guests ({KERNEL_PACKAGE}, not installed)")
        _take_kernel(cached)
    return cached


def _named_kernel() -> Path | None:
    """Somebody else's, whose modules are not known: its guests cannot `work`."""
    named = os.environ.get("VMWATCH_KERNEL")
    return Path(named) if named else None


def _take_kernel(kernel: Path) -> None:
    """Take the kernel out of Debian's package. Works as any user, and on a machine without package lists."""
    require("apt-get", "dpkg-deb")
    with tempfile.TemporaryDirectory(dir=CACHE) as name:
        folder = Path(name)
        options = ["-o", "APT::Sandbox::User=root"]  # the sandbox's user cannot write here, and is not needed
        package = _real_package(options)
        if package is None:
            options += _private_lists(folder)
            _run("apt-get", *options, "update", "-qq")
            package = _real_package(options)
        if package is None:
            raise LabError(f"no package source offers {KERNEL_PACKAGE}: set VMWATCH_KERNEL=/path/to/vmlinuz")
        _run("apt-get", *options, "download", "-qq", package, cwd=folder)
        (archive,) = folder.glob("*.deb")
        _run("dpkg-deb", "-x", str(archive), str(folder / "content"))
        (found,) = (folder / "content/boot").glob("vmlinuz-*")
        _keep_modules(folder / "content")
        found.replace(kernel)


def _keep_modules(content: Path) -> None:
    """Replace the cached modules with those of the package; they come before the kernel, which says all is there."""
    shutil.rmtree(_MODULES_FOLDER, ignore_errors=True)
    kept = content / "kept"
    kept.mkdir()
    for name in MODULES:
        (found,) = content.rglob(f"{name}.ko")
        found.rename(kept / found.name)
    kept.rename(_MODULES_FOLDER)


def _real_package(options: list[str]) -> str | None:
    """Return the package that KERNEL_PACKAGE stands for, None when the package lists do not know it."""
    lines = _run("apt-cache", *options, "depends", "--important", KERNEL_PACKAGE, check=False).split()
    return next((word for word in lines if word.startswith("linux-image-") and word != KERNEL_PACKAGE), None)


def _private_lists(folder: Path) -> list[str]:
    """Options by which apt keeps package lists of its own: the system's are root's to write."""
    for name in ("lists/partial", "archives/partial"):
        (folder / "apt" / name).mkdir(parents=True)
    return [
        *("-o", f"Dir::State::lists={folder}/apt/lists"),
        *("-o", f"Dir::Cache={folder}/apt"),
        *("-o", f"Dir::Cache::archives={folder}/apt/archives"),
    ]


def _initramfs() -> Path:
    busybox = Path(shutil.which("busybox") or "/bin/busybox").resolve()
    modules = [] if _named_kernel() else [_MODULES_FOLDER / f"{name}.ko" for name in MODULES]
    parts = (INIT.encode(), boot_sector(FROM_DISK), *(file.read_bytes() for file in (busybox, *modules)))
    digest = hashlib.sha256(b"".join(parts)).hexdigest()[:12]
    cached = CACHE / f"initramfs-{digest}"
    if cached.exists():
        return cached
    with tempfile.TemporaryDirectory(dir=CACHE) as name:
        root = Path(name) / "root"
        for folder in ("bin", "proc", "dev", "modules"):
            (root / folder).mkdir(parents=True)
        shutil.copy(busybox, root / "bin/busybox")
        (root / "init").write_text(INIT)
        (root / "init").chmod(0o755)
        (root / "bootsector").write_bytes(boot_sector(FROM_DISK))
        (root / "modules/order").write_text(" ".join(MODULES))
        for module in modules:
            shutil.copy(module, root / "modules")
        archive = Path(name) / "initramfs"
        files = "\n".join(str(path.relative_to(root)) for path in sorted(root.rglob("*")))
        with archive.open("wb") as output:
            subprocess.run(
                ["cpio", "--quiet", "--create", "--format=newc", "--owner=0:0"],
                input=files.encode(),
                stdout=output,
                cwd=root,
                check=True,
            )
        archive.replace(cached)
    return cached


def _run(*command: str, cwd: Path | None = None, check: bool = True) -> str:
    done = subprocess.run(command, cwd=cwd, check=False, capture_output=True, text=True)
    if check and done.returncode != 0:
        raise LabError(f"{' '.join(command)}: exit {done.returncode}: {done.stderr.strip()[-500:]}")
    return done.stdout
