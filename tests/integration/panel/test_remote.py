# SPDX-License-Identifier: Apache-2.0
"""Scripts here and over a real sshd: what a host answers, and what is said of one that does not let us in."""

from __future__ import annotations

import os
import stat
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Final

import psutil
import pytest

from tests.lab.own_network import ip, own_network
from tests.lab.service_host import ServiceHost, make_key
from tests.lab.waiting import wait_for
from vmwatch.panel import hosts, remote
from vmwatch.panel.addresses import choose
from vmwatch.panel.hosts import Host
from vmwatch.panel.reach import Reach
from vmwatch.panel.remote import HostError, Ssh, Unreachable
from vmwatch.panel.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

pytestmark = [
    pytest.mark.needs("unshare", "nsenter", "ip", "service", "ssh", "sshd", "ssh-keygen"),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root makes a network of its own"),
]

THERE: Final = "192.0.2.2"
AT: Final = f"root@{THERE}"


@pytest.fixture
def network() -> Iterator[None]:
    with own_network():
        ip("link add bridge type bridge")
        ip("addr add 192.0.2.1/24 dev bridge")
        ip("link set bridge up")
        yield


@pytest.fixture
def ssh(tmp_path: Path) -> Ssh:
    folder = tmp_path / 'a "panel" 100%'
    folder.mkdir()
    make_key(folder / "key")
    return Ssh(identity=folder / "key", known_hosts=folder / "known")


@pytest.fixture
def host(network: None, tmp_path: Path, ssh: Ssh) -> Iterator[ServiceHost]:  # noqa: ARG001
    with ServiceHost(tmp_path / "there", own_network=True) as host:
        host.plug("there", THERE)
        key = host.start_sshd(Path(f"{ssh.identity}.pub").read_text())
        ssh.known_hosts.write_text(f"{THERE} {key}")
        yield host


@pytest.mark.usefixtures("host")
async def test_arguments_and_input_arrive_as_they_are(ssh: Ssh) -> None:
    hostile = ["a b", "$(id)", "`id`", "'", '"', "\\", "*", "-n", "", "ä\n;"]
    script = 'for each; do printf "%s\\0" "$each"; done; cat; echo "$0 said" >&2; exit 3'
    for address in (None, AT):
        done = await remote.run(ssh, address, script, *hostile, stdin=b"\0\xff input", seconds=10)
        assert done.output == b"".join(each.encode() + b"\0" for each in hostile) + b"\0\xff input"
        assert (done.code, done.error) == (3, "sh said")


@pytest.mark.usefixtures("host")
async def test_why_a_host_cannot_be_reached_is_told_apart(ssh: Ssh, tmp_path: Path) -> None:
    async def reason(ssh: Ssh, address: str = AT) -> str:
        with pytest.raises(Unreachable) as caught:
            await remote.run(ssh, address, "true", seconds=20)
        return str(caught.value)

    key = make_key(tmp_path / "other")
    known, empty = ssh.known_hosts, tmp_path / "empty"
    assert f"key is not known: compare it, then add it to {empty}" in await reason(
        Ssh(identity=ssh.identity, known_hosts=empty)
    )
    (tmp_path / "wrong").write_text(f"{THERE} {key}")
    assert "host key is not the one in" in await reason(
        Ssh(identity=ssh.identity, known_hosts=tmp_path / "wrong")
    )
    assert "does not accept the panel's key" in await reason(
        Ssh(identity=tmp_path / "other", known_hosts=known)
    )
    assert f"there is no key {tmp_path}/none" in await reason(
        Ssh(identity=tmp_path / "none", known_hosts=known)
    )
    assert "No route to host" in await reason(ssh, "root@192.0.2.9")
    assert await reason(ssh, "root@192.0.2.1") == (
        "SSH to root@192.0.2.1: ssh: connect to host 192.0.2.1 port 22: Connection refused"
    )
    assert (await remote.run(ssh, AT, "true", seconds=10)).code == 0


async def test_a_script_that_does_not_end_is_ended_with_all_that_it_started(ssh: Ssh, tmp_path: Path) -> None:
    script = 'sleep 100 & echo $! >"$1"; wait'
    with pytest.raises(HostError, match=r"^not done here within 0\.5 s$"):
        await remote.run(ssh, None, script, str(tmp_path / "pid"), seconds=0.5)
    pid = int((tmp_path / "pid").read_text())
    wait_for(lambda: not psutil.pid_exists(pid), seconds=5, what="its end")


async def test_what_prints_without_end_is_bounded(ssh: Ssh) -> None:
    with pytest.raises(HostError, match="more than 1048576 bytes"):
        await remote.run(ssh, None, "head -c 3000000 /dev/zero", seconds=10)


async def test_a_file_is_written_whole_or_not_at_all(host: ServiceHost, ssh: Ssh) -> None:
    there = Host(number=7, address=AT, ssh=ssh)
    file = host.config("vmwatch-node")
    assert await there.read() == ""
    for text in ("# ä \udcff\nsecret=A'$(id)\n", "second\n", ""):
        await there.write(text, group="root")
        assert await there.read() == text
        assert file.read_bytes() == text.encode(errors="surrogateescape")
        status = file.stat()
        assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (0o640, 0, 0)
    with pytest.raises(HostError, match="invalid group"):
        await there.write("third\n", group="nobody-has-this")
    assert file.read_text() == ""
    assert [each.name for each in file.parent.iterdir()] == [file.name]


async def test_a_connection_that_breaks_leaves_no_half_file(host: ServiceHost, ssh: Ssh) -> None:
    file = host.config("vmwatch-node")
    done = await remote.run(
        ssh,
        AT,
        hosts._WRITE,
        "/usr/local/mgr5/etc/vmwatch-node.conf",
        "100",
        "root",
        stdin=b"short",
        seconds=10,
    )
    assert (done.code, done.error) == (1, "the file did not arrive whole")
    assert list(file.parent.iterdir()) == []


@pytest.mark.usefixtures("network")
async def test_the_rules_of_the_address_on_a_host_with_several_interfaces(tmp_path: Path) -> None:
    for command in (
        "link add one type bridge",
        "link add two type bridge",
        "link add idle type bridge",
        "addr add 169.254.1.1/16 dev one",
        "addr add fe80::1/64 dev one",
        "addr add 10.1.0.1/24 dev one",
        "addr add 203.0.113.1/24 dev idle",
        "addr add 2001:db8::1/64 dev two nodad",
        "addr add 198.51.100.1/24 dev two",
        "link set one up",
        "link set two up",
    ):
        ip(command)
    own = await own_addresses(tmp_path)
    of_ours = [
        each for each in own if each == "fe80::1" or not each.startswith("fe80::")
    ]  # the others are random
    assert of_ours == [
        *("127.0.0.1", "::1"),  # lo
        "192.0.2.1",  # the bridge of the fixture
        *("169.254.1.1", "10.1.0.1", "fe80::1"),
        *("198.51.100.1", "2001:db8::1"),
    ]
    assert choose(wanted="10.9.9.9", nodes=["198.51.100.1"], own=own) == "10.9.9.9"
    assert choose(wanted=None, nodes=["192.0.2.9", "root@2001:db8::1"], own=own) == "2001:db8::1"
    assert choose(wanted=None, nodes=["169.254.1.1", ""], own=own) == "192.0.2.1"
    ip("link set bridge down")
    assert choose(wanted=None, nodes=[], own=await own_addresses(tmp_path)) == "10.1.0.1"
    ip("addr del 10.1.0.1/24 dev one")
    ip("addr del 198.51.100.1/24 dev two")
    assert choose(wanted=None, nodes=[], own=await own_addresses(tmp_path)) == "2001:db8::1"
    ip("link set two down")
    assert choose(wanted=None, nodes=[], own=await own_addresses(tmp_path)) is None


async def own_addresses(folder: Path) -> Sequence[str]:
    with closing(Store(folder / "panel.db")) as store:
        return await Reach(store.connection, Ssh(identity=folder, known_hosts=folder)).own_addresses()
