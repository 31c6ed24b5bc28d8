# SPDX-License-Identifier: Apache-2.0
"""A domain's definition, changed for an installation: what boots, what a reboot does, and who last started it. Pure.

Only what must change is changed, in the tree that libvirt gave. The mark is the id of the intent that the
definition was last changed for, in libvirt's `<metadata>`: a running domain keeps that of its start, so it can be
told whether it was started for this intent or before.

Source: https://libvirt.org/formatdomain.html (BIOS bootloader, Direct kernel boot, Events configuration,
General metadata, Hard drives).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from xml.etree import ElementTree as ET

NAMESPACE: Final = "https://vmwatch.invalid/panel/1"
MEDIUM_ALIAS: Final = "ua-vmwatch-medium"  # of our CD drive; libvirt leaves names that begin so to its users

_MARK: Final = f"{{{NAMESPACE}}}intent"
_KERNEL: Final = ("kernel", "initrd", "cmdline")
# Its prefixes stay as people know them. Others would become ns0, ns1, which means the same.
for _prefix, _uri in (
    ("vmwatch", NAMESPACE),
    ("qemu", "http://libvirt.org/schemas/domain/qemu/1.0"),
    ("libosinfo", "http://libosinfo.org/xmlns/libvirt/domain/1.0"),
):
    ET.register_namespace(_prefix, _uri)


class DefinitionError(Exception):
    """The domain's definition does not allow what is wanted: a sentence for an administrator."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Medium:
    """What a guest is installed from: the image of a CD, or a kernel; all empty: its definition says what boots."""

    cd: str = ""
    kernel: str = ""
    initrd: str = ""
    cmdline: str = ""


def installing(xml: str, medium: Medium, *, mark: int) -> str:
    """The definition of a domain that boots from the medium, and stops where its guest reboots."""
    root = _parse(xml)
    _set_mark(root, mark)
    _child(root, "on_reboot").text = "destroy"
    if medium.kernel:
        _boot_kernel(root, medium)
    elif medium.cd:
        _boot_kernel(root, Medium())
        _boot(root, [_insert(root, medium.cd), *_disks(root)[:1]])
    return _write(root)


def installed(xml: str, *, mark: int) -> str:
    """The definition of a domain that boots from its main disk, and starts again where its guest reboots.

    The main disk is the first one. Raises DefinitionError: it has none.
    """
    root = _parse(xml)
    _set_mark(root, mark)
    _child(root, "on_reboot").text = "restart"
    _boot_kernel(root, Medium())
    _eject(root)
    if not _disks(root):
        raise DefinitionError("it has no disk to boot from")
    _boot(root, _disks(root)[:1])
    return _write(root)


def mark_of(xml: str) -> int | None:
    """The intent that this definition, or this run, was made for; None: none of ours."""
    found = _parse(xml).find(f"metadata/{_MARK}")
    number = found.get("id", "") if found is not None else ""
    return int(number) if number.isascii() and number.isdigit() else None


def _parse(xml: str) -> ET.Element:
    return ET.fromstring(xml)  # noqa: S314 (libvirt wrote it, and has no entities in it)


def _write(root: ET.Element) -> str:
    return ET.tostring(root, encoding="unicode")


def _child(parent: ET.Element, name: str) -> ET.Element:
    found = parent.find(name)
    return ET.SubElement(parent, name) if found is None else found


def _set_mark(root: ET.Element, mark: int) -> None:
    _child(_child(root, "metadata"), _MARK).set("id", str(mark))


def _boot_kernel(root: ET.Element, medium: Medium) -> None:
    """Boot this kernel; an empty one: none."""
    system = _child(root, "os")
    for name in _KERNEL:
        value = getattr(medium, name)
        if value:
            _child(system, name).text = value
        else:
            _remove(system, system.findall(name))


def _boot(root: ET.Element, devices: list[ET.Element]) -> None:
    """Boot from these devices, in this order, and from no others: libvirt takes either kind of order, not both."""
    system = _child(root, "os")
    _remove(system, system.findall("boot"))
    for device in _child(root, "devices"):
        _remove(device, device.findall("boot"))
    for order, device in enumerate(devices, start=1):
        ET.SubElement(device, "boot", order=str(order))


def _disks(root: ET.Element) -> list[ET.Element]:
    return [disk for disk in root.findall("devices/disk") if disk.get("device", "disk") == "disk"]


def _insert(root: ET.Element, image: str) -> ET.Element:
    """A CD drive of our own with this image; the domain's own drives stay as they are."""
    _eject(root)
    bus, target = _free_target(root)
    drive = ET.SubElement(_child(root, "devices"), "disk", type="file", device="cdrom")
    ET.SubElement(drive, "driver", name="qemu", type="raw")
    ET.SubElement(drive, "source", file=image)
    ET.SubElement(drive, "target", dev=target, bus=bus)
    ET.SubElement(drive, "readonly")
    ET.SubElement(drive, "alias", name=MEDIUM_ALIAS)
    return drive


def _eject(root: ET.Element) -> None:
    devices = _child(root, "devices")
    _remove(devices, devices.findall(f"disk/alias[@name='{MEDIUM_ALIAS}']/.."))


def _free_target(root: ET.Element) -> tuple[str, str]:
    machine = root.find("os/type")
    is_pc = (
        machine is not None and "q35" not in machine.get("machine", "") and machine.get("arch") == "x86_64"
    )
    bus, prefix, letters = ("ide", "hd", "dcba") if is_pc else ("sata", "sd", "zyxwvutsrqponmlkjihgfedcba")
    taken = {target.get("dev") for target in root.findall("devices/disk/target")}
    for letter in letters:
        if prefix + letter not in taken:
            return bus, prefix + letter
    raise DefinitionError("it has no room for another CD drive")


def _remove(parent: ET.Element, children: list[ET.Element]) -> None:
    for child in children:
        parent.remove(child)
