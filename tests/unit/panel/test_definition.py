# SPDX-License-Identifier: Apache-2.0
"""What an installation changes of a domain's definition, and that it changes nothing else."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from vmwatch.panel.definition import MEDIUM_ALIAS, DefinitionError, Medium, installed, installing, mark_of
from vmwatch.panel.domains import node_uri

CD = Medium(cd="/iso/a & b.iso")
KERNEL = Medium(kernel="/boot/vmlinuz", initrd="/boot/initrd", cmdline="console=ttyS0 -- a<b")

# As libvirt 9 writes one, shortened. Two disks, a CD drive of its own, and a network card that boots first.
DOMAIN = """\
<domain type='kvm' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>web</name>
  <metadata>
    <libosinfo:libosinfo xmlns:libosinfo="http://libosinfo.org/xmlns/libvirt/domain/1.0">
      <libosinfo:os id="http://debian.org/debian/12"/>
    </libosinfo:libosinfo>
  </metadata>
  <os>
    <type arch='x86_64' machine='pc-i440fx-7.2'>hvm</type>
    <boot dev='network'/>
    <boot dev='hd'/>
  </os>
  <on_poweroff>destroy</on_poweroff>
  <on_reboot>restart</on_reboot>
  <devices>
    <disk type='file' device='cdrom'><target dev='hdd' bus='ide'/><readonly/></disk>
    <disk type='file' device='disk'><source file='/a'/><target dev='vda' bus='virtio'/></disk>
    <disk type='file'><source file='/b'/><target dev='vdb' bus='virtio'/></disk>
    <interface type='bridge'><mac address='52:54:00:00:00:01'/></interface>
    <graphics type='vnc' passwd='secret'/>
  </devices>
  <qemu:commandline><qemu:arg value='-name'/></qemu:commandline>
</domain>
"""


def tree(xml: str) -> ET.Element:
    return ET.fromstring(xml)


def text(xml: str, path: str) -> str | None:
    return tree(xml).findtext(path)


def boots(xml: str) -> list[str]:
    """The devices that it boots from, in their order: by their target's name, or their kind."""
    found = {}
    for device in tree(xml).findall("devices/*"):
        for boot in device.findall("boot"):
            target = device.find("target")
            found[boot.get("order")] = device.tag if target is None else target.get("dev")
    return [name or "" for _, name in sorted(found.items())]


def without_changes(xml: str) -> str:
    """What an installation may not touch, in one form."""
    root = tree(xml)
    for path in ("os", "on_reboot", "metadata"):
        for element in root.findall(path):
            root.remove(element)
    for device in root.findall("devices/*"):
        for boot in device.findall("boot"):
            device.remove(boot)
    return ET.canonicalize(ET.tostring(root, encoding="unicode"), strip_text=True)


def test_a_cd_is_inserted_and_booted_first_then_the_main_disk() -> None:
    xml = installing(DOMAIN, CD, mark=7)
    assert boots(xml) == ["hdc", "vda"]
    assert text(xml, "on_reboot") == "destroy"
    assert tree(xml).findall("os/boot") == []
    drive = tree(xml).find(f"devices/disk/alias[@name='{MEDIUM_ALIAS}']/..")
    assert drive is not None
    assert drive.get("device") == "cdrom"
    source = drive.find("source")
    assert source is not None
    assert source.get("file") == "/iso/a & b.iso"
    assert drive.find("readonly") is not None


def test_a_kernel_is_booted_instead_and_the_order_stays() -> None:
    xml = installing(DOMAIN, KERNEL, mark=7)
    assert [text(xml, f"os/{name}") for name in ("kernel", "initrd", "cmdline")] == [
        "/boot/vmlinuz", "/boot/initrd", "console=ttyS0 -- a<b",
    ]  # fmt: skip
    assert text(xml, "on_reboot") == "destroy"
    assert len(tree(xml).findall("os/boot")) == 2


def test_without_a_medium_it_boots_as_it_is_defined() -> None:
    before = installing(DOMAIN, KERNEL, mark=7)
    xml = installing(before, Medium(), mark=8)
    assert text(xml, "os/kernel") == "/boot/vmlinuz"
    assert len(tree(xml).findall("os/boot")) == 2


@pytest.mark.parametrize("medium", [CD, KERNEL, Medium()])
def test_an_installed_one_boots_from_its_main_disk_alone(medium: Medium) -> None:
    xml = installed(installing(DOMAIN, medium, mark=7), mark=9)
    assert boots(xml) == ["vda"]
    assert text(xml, "on_reboot") == "restart"
    assert [tree(xml).find(f"os/{name}") for name in ("kernel", "initrd", "cmdline", "boot")] == [None] * 4
    assert MEDIUM_ALIAS not in xml
    assert without_changes(xml) == without_changes(DOMAIN)


def test_nothing_else_is_changed() -> None:
    xml = installing(DOMAIN, KERNEL, mark=7)
    assert without_changes(xml) == without_changes(DOMAIN)
    assert 'passwd="secret"' in xml
    assert "<qemu:arg" in xml  # under the prefix that people know
    assert "http://debian.org/debian/12" in xml


@pytest.mark.parametrize("medium", [CD, KERNEL, Medium()])
def test_a_repetition_changes_nothing(medium: Medium) -> None:
    once = installing(DOMAIN, medium, mark=7)
    assert ET.canonicalize(installing(once, medium, mark=7)) == ET.canonicalize(once)
    done = installed(once, mark=8)
    assert installed(done, mark=8) == done


def test_another_medium_takes_the_place_of_the_one_before() -> None:
    xml = installing(installing(DOMAIN, KERNEL, mark=1), CD, mark=2)
    assert text(xml, "os/kernel") is None
    xml = installing(xml, Medium(cd="/other.iso"), mark=3)
    assert [source.get("file") for source in tree(xml).findall("devices/disk/source")].count(
        "/other.iso"
    ) == 1
    assert "/iso/a" not in xml


def test_the_mark_is_that_of_the_last_intent() -> None:
    assert mark_of(DOMAIN) is None
    xml = installing(DOMAIN, KERNEL, mark=7)
    assert mark_of(xml) == 7
    assert mark_of(installed(xml, mark=12)) == 12
    assert mark_of(xml.replace('id="7"', 'id="x"')) is None


def test_a_drive_takes_what_is_free() -> None:
    q35 = DOMAIN.replace("pc-i440fx-7.2", "pc-q35-7.2")
    assert boots(installing(q35, CD, mark=1))[0] == "sdz"
    taken = DOMAIN.replace("dev='vda'", "dev='hdc'")
    assert boots(installing(taken, CD, mark=1))[0] == "hdb"


def test_what_cannot_be_done_is_said() -> None:
    diskless = "<domain><os/><devices/></domain>"
    with pytest.raises(DefinitionError, match="no disk"):
        installed(diskless, mark=1)
    assert boots(installing(diskless, CD, mark=1)) != []
    full = DOMAIN.replace(
        "</devices>", "".join(f"<disk><target dev='hd{letter}'/></disk>" for letter in "abc") + "</devices>"
    )
    with pytest.raises(DefinitionError, match="no room"):
        installing(full, CD, mark=1)


@pytest.mark.parametrize(
    ("address", "found"),
    [
        ("", "qemu:///system"),
        ("node-1", "qemu+ssh://node-1/system?no_tty=1&command=/a%20%26/ssh"),
        ("root@192.0.2.1", "qemu+ssh://root@192.0.2.1/system?no_tty=1&command=/a%20%26/ssh"),
        ("root@2001:db8::1", "qemu+ssh://root@[2001:db8::1]/system?no_tty=1&command=/a%20%26/ssh"),
    ],
)
def test_a_nodes_libvirt(address: str, found: str) -> None:
    assert node_uri(address, ssh_program=Path("/a &/ssh")) == found
