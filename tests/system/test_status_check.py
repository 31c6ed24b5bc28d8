# SPDX-License-Identifier: Apache-2.0
"""The status check with real guests: one that writes its disk and pings, one that idles, one with neither device."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from tests.lab.cluster import Cluster
from tests.lab.guest import GUEST_FOLDER, domain_xml
from tests.lab.waiting import DeadlinePassed, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.lab.image import Image

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.needs("/dev/net/tun"),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root makes tap devices"),
    pytest.mark.skipif("VMWATCH_KERNEL" in os.environ, reason="this kernel's drivers are not known"),
]

# The interface is a tap device that is connected with nothing.
DISK_AND_INTERFACE = """
    <disk type='file' device='disk'>
      <driver name='qemu' type='raw'/>
      <source file='{folder}/{name}.img'/>
      <target dev='vda' bus='virtio'/>
    </disk>
    <interface type='ethernet'><model type='virtio'/></interface>
"""
CD_ROM = "<disk type='file' device='cdrom'><target dev='hdc' bus='ide'/><readonly/></disk>"


@pytest.fixture
def checked(image: Image) -> Iterator[Cluster]:
    """A node that collects statistics every 4 s, in which even a starved guest moves, and the check switched on."""
    with Cluster(image=image, names=("alpha",), node_settings={"statistics_interval": "4"}) as cluster:
        cluster.client.call("clusterpolicy", status_check="on", sok="ok")
        yield cluster


def start(cluster: Cluster, name: str, devices: str, accelerator: str) -> None:
    host = cluster.host(1)
    (host.folder / f"run/vmwatch/{name}.img").write_bytes(bytes(1 << 16))
    xml = domain_xml(name, accelerator=accelerator)
    devices = devices.format(folder=GUEST_FOLDER, name=name)
    host.connection.createXML(xml.replace("</devices>", f"{devices}</devices>"))


def shown(cluster: Cluster, name: str) -> dict[str, str]:
    (row,) = cluster.client.call("vm", name=name)["elem"]
    return {field: value.get("$", "") for field, value in row.items()}


def warnings(cluster: Cluster) -> dict[str, str]:
    return {name: shown(cluster, name)["warning"] for name in ("busy", "idle", "bare")}


def samples(cluster: Cluster, name: str) -> tuple[int, bool]:
    """How many intervals of it the panel has seen, and whether it moved in the latest."""
    answer = cluster.client.call("vm.samples", elid=name, p_cnt="1")
    latest = answer["elem"][0] if answer["elem"] else {}
    moved = all(latest.get(what, {}).get("$", "0") != "0" for what in ("packets_sent", "write_requests"))
    return int(answer["p_elems"]["$"]), moved


def set_to_work(cluster: Cluster, name: str) -> None:
    """A console may lose a word while its guest is busy: it is told until the guest moves."""
    moves = False
    for _ in range(10):
        cluster.host(1).console(name).tell("work")
        with suppress(DeadlinePassed):
            moves = wait_for(lambda: samples(cluster, name)[1], seconds=12, what="it to move")
            break
    assert moves, cluster.logs()


def more_samples(cluster: Cluster, name: str, count: int) -> Iterator[None]:
    """Until there are so many more: each of them is a chance to be wrong."""
    begin = samples(cluster, name)[0]
    while samples(cluster, name)[0] < begin + count:
        yield


def test_just_the_idle_one_is_warned_of(checked: Cluster, accelerator: str) -> None:
    for name, devices in (("busy", DISK_AND_INTERFACE), ("idle", DISK_AND_INTERFACE), ("bare", CD_ROM)):
        start(checked, name, devices, accelerator)
        checked.host(1).console(name).wait_ready()
    set_to_work(checked, "busy")
    idle_alone = {"busy": "", "idle": "network,disk", "bare": ""}
    wait_for(lambda: warnings(checked) == idle_alone, seconds=60, what="the warning of the idle one")
    for _ in more_samples(checked, "busy", 3):
        assert warnings(checked) == idle_alone

    set_to_work(checked, "idle")
    wait_for(lambda: not any(warnings(checked).values()), seconds=60, what="the warning to go")
    checked.host(1).connection.lookupByName("busy").suspend()
    wait_for(lambda: shown(checked, "busy")["status"] == "paused", seconds=30, what="its pause")
    for _ in more_samples(checked, "idle", 2):
        assert warnings(checked)["busy"] == ""  # it does not run
