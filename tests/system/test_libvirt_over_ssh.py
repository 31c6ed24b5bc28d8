# SPDX-License-Identifier: Apache-2.0
"""The libvirt of another host, over a real sshd: with the panel's key, and no host that it does not know."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from tests.lab.bare import FROM_DISK, boot_sector
from tests.lab.guest import GUEST_FOLDER, domain_xml
from tests.lab.host import Host
from tests.lab.own_network import own_network
from tests.lab.service_host import make_key
from tests.lab.waiting import wait_for
from vmwatch.panel.domains import Domains, NotReached, write_ssh_program
from vmwatch.panel.installation import Action
from vmwatch.panel.remote import Ssh
from vmwatch.panel.shown_installation import Intent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.lab.image import Image

pytestmark = [
    pytest.mark.needs("nsenter", "ip", "ssh", "sshd", "ssh-keygen"),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root makes a network of its own"),
]

FINISH: Final = Intent(
    id=7, action=Action.FINISH, name="web", hostnode=1, address="root@127.0.0.1", uri="", unreachable=False,
    created=0, medium="", kernel="", initrd="", cmdline="",
)  # fmt: skip
SSHD: Final = """
ListenAddress 127.0.0.1
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/authorized_keys
PidFile none
PermitRootLogin prohibit-password
StrictModes no
UsePAM no
"""
# A locked account, as the machine's own may be, is not let in by any key.
START: Final = """
printf 'root:*:1::::::\\nsshd:!:1::::::\\n' >"$1/shadow"
mount --bind "$1/shadow" /etc/shadow
mkdir -p /run/sshd
exec /usr/sbin/sshd -D -e -f "$1/sshd_config"
"""


@pytest.fixture
def ssh(tmp_path: Path) -> Ssh:
    folder = tmp_path / 'a "panel" 100%'
    folder.mkdir()
    make_key(folder / "key")
    return Ssh(identity=folder / "key", known_hosts=folder / "known")


@pytest.fixture
def other_host(image: Image, accelerator: str, tmp_path: Path, ssh: Ssh) -> Iterator[Host]:
    """One with an sshd, and a VM whose disk boots."""
    folder = tmp_path / "there"
    folder.mkdir()
    make_key(folder / "host_key")
    (folder / "authorized_keys").write_text(Path(f"{ssh.identity}.pub").read_text())
    (folder / "sshd_config").write_text(SSHD.format(folder=folder))
    with own_network(), Host("alpha", image=image) as host:
        (host.folder / "run/vmwatch/disk.img").write_bytes(boot_sector(FROM_DISK).ljust(1 << 20, b"\0"))
        xml = domain_xml("web", accelerator=accelerator, disk=f"{GUEST_FOLDER}/disk.img")
        host.connection.defineXML(xml)
        enter = (
            "nsenter",
            "-t",
            str(host.libvirtd.pid),
            "--mount",
            "--",
            "sh",
            "-ec",
            START,
            "sh",
            str(folder),
        )
        with subprocess.Popen(enter, stderr=subprocess.PIPE, text=True) as sshd:
            said = sshd.stderr
            assert said is not None
            wait_for(lambda: "listening" in said.readline(), seconds=10, what="sshd")
            yield host
            sshd.terminate()


async def test_a_host_that_is_known_and_one_that_is_not(other_host: Host, ssh: Ssh, tmp_path: Path) -> None:
    program = tmp_path / "a & b" / "libvirt-ssh"
    program.parent.mkdir()
    write_ssh_program(program, ssh)
    domains = Domains(ssh_program=program)
    with pytest.raises(NotReached, match="Host key verification failed"):
        await domains.carry_out(FINISH, is_repeated=False)
    assert not other_host.connection.lookupByName("web").isActive()

    key = (tmp_path / "there/host_key.pub").read_text()
    ssh.known_hosts.write_text(f"127.0.0.1 {key}")
    await domains.carry_out(FINISH, is_repeated=False)
    other_host.console("web").wait_for(FROM_DISK)
