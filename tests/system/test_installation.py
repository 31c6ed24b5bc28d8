# SPDX-License-Identifier: Apache-2.0
"""OS installation with a real guest: it boots a kernel, writes its disk, reboots twice, and then runs from the disk.

The whole way: guest, libvirtd, node service, master, panel, libvirtd. Each of ours is killed at each step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest
import requests

from tests.lab.bare import FROM_CD, FROM_DISK, boot_sector, cd_image
from tests.lab.cluster import Cluster
from tests.lab.guest import GUEST_FOLDER, domain_xml
from tests.lab.image import KERNEL_ARGUMENTS
from tests.lab.waiting import wait_for
from vmwatch.panel.definition import mark_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.lab.image import Image
    from tests.lab.processes import Service

STEP_SECONDS: Final = 40.0  # a guest boots in 3 s; a busy machine takes longer
NAME: Final = "web"

pytestmark = pytest.mark.timeout(180)


class Site:
    """One node, and one VM with an empty disk, off.

    Templates: `auto` reboots by itself, `held` when it is told to, both from a kernel; `cd` is one, and does not.
    """

    def __init__(self, cluster: Cluster, accelerator: str) -> None:
        self.cluster = cluster
        self.host = cluster.host(1)
        self.disk = self.host.folder / "run/vmwatch/disk.img"
        self.disk.write_bytes(bytes(1 << 20))
        xml = domain_xml(NAME, accelerator=accelerator, disk=f"{GUEST_FOLDER}/disk.img")
        self.host.connection.defineXML(xml)
        (self.host.folder / "run/vmwatch/cd.iso").write_bytes(cd_image(FROM_CD))
        kernel = {"kernel": f"{GUEST_FOLDER}/vmlinuz", "initrd": f"{GUEST_FOLDER}/initramfs"}
        self.templates = {
            "auto": self._template("auto", 2, **kernel, cmdline=f"{KERNEL_ARGUMENTS} -- install"),
            "held": self._template("held", 2, **kernel, cmdline=KERNEL_ARGUMENTS),
            "cd": self._template("cd", 1, medium=f"{GUEST_FOLDER}/cd.iso"),
        }
        wait_for(lambda: cluster.client.vm(NAME), seconds=10, what="the VM at the panel")

    def _template(self, name: str, rebootcount: int, **fields: str) -> str:
        made = self.cluster.client.call(
            "osmgr.edit", name=name, rebootcount=str(rebootcount), timelimit="300", sok="ok", **fields
        )
        return str(made["id"]["$"])

    def install(self, template: str, **more: str) -> None:
        self.cluster.client.call("vm.reinstall", elid=NAME, osmgr=self.templates[template], sok="ok", **more)

    def say(self, action: str) -> None:
        self.cluster.client.call("vm.reinstall.continue", elid=NAME, action=action)

    def shown(self) -> dict[str, str]:
        """The fields of the installation; a panel that does not answer shows none."""
        try:
            answer = self.cluster.client.call("vm.reinstall", elid=NAME)
        except requests.ConnectionError:
            return {}
        return {name: value.get("$", "") for name, value in answer.items()}

    def wait(self, what: str, **wanted: str) -> None:
        """Until the installation shows this."""
        wait_for(
            lambda: wanted.items() <= self.shown().items(),
            seconds=STEP_SECONDS,
            what=f"{what}: {wanted}; the panel: {self.cluster.logs()}",
        )

    def reboot(self) -> None:
        """Have the guest do a step, once it answers."""
        self.host.console(NAME).wait_ready()
        self.host.console(NAME).tell("install")

    def is_on(self) -> bool:
        return bool(self.host.connection.lookupByName(NAME).isActive())

    def wait_off(self) -> None:
        wait_for(lambda: not self.is_on(), seconds=STEP_SECONDS, what="the guest's stop")

    def wait_installed(self) -> None:
        """Until it runs from its disk, and nobody has anything to do with it any more."""
        self.wait("the end", install_step="", id=str(self.vm_id))
        self.host.console(NAME).wait_for(FROM_DISK)
        content = self.disk.read_bytes()
        assert content[:512] == boot_sector(FROM_DISK)
        assert content[512:1024].rstrip(b"\0") == b"xx"  # two steps, each once
        xml = self.host.connection.lookupByName(NAME).XMLDesc()
        assert "<on_reboot>restart</on_reboot>" in xml
        assert "<kernel>" not in xml
        assert [line for line in self.cluster.client.problems() if line.startswith("installation")] == []

    @property
    def vm_id(self) -> int:
        vm = self.cluster.client.vm(NAME)
        assert vm is not None
        return vm.id

    def status(self) -> str:
        vm = self.cluster.client.vm(NAME)
        return vm.status if vm else ""

    def problems_ever(self) -> list[str]:
        """The names of all problems, solved ones too."""
        answer = self.cluster.client.call("vmwatch.problem")
        return [row["problem"]["$"] for row in answer["elem"]]

    def causes(self) -> list[str]:
        """Of the stops, in their order."""
        return [change.cause for change in self.cluster.client.history(NAME) if change.type == "stopped"]


@pytest.fixture
def site(image: Image, accelerator: str) -> Iterator[Site]:
    with Cluster(image=image, names=("alpha",)) as cluster:
        yield Site(cluster, accelerator)


def test_two_reboots_and_it_runs_from_its_disk(site: Site) -> None:
    site.install("auto")
    site.wait("the first reboot", install_step="2", install_name="auto", install_guessed="0")
    site.wait_installed()
    assert site.causes() == ["guest-reset", "guest-reset"]


def test_a_vm_that_runs_or_is_being_installed_is_installed_anew(site: Site) -> None:
    """That the panel itself ends what runs is no stop to wait for."""
    site.host.connection.lookupByName(NAME).create()
    wait_for(lambda: site.status() == "running", seconds=10, what="its start")
    site.install("held")
    site.wait("the start", install_step="1", install_action="")
    site.host.console(NAME).wait_ready()
    site.install("auto", replace="ok")
    site.wait_installed()
    subtypes = [change.subtype for change in site.cluster.client.history(NAME) if change.type == "stopped"]
    assert subtypes == ["destroyed", "destroyed", "shutdown", "shutdown"]
    assert site.problems_ever() == []


def test_a_cd_is_booted_first_and_gone_in_the_end(site: Site) -> None:
    site.disk.write_bytes(boot_sector(FROM_DISK).ljust(1 << 20, b"\0"))
    site.install("cd")
    site.wait("the start", install_step="1", install_action="")
    site.host.console(NAME).wait_for(FROM_CD)
    site.host.connection.lookupByName(NAME).reset()  # an administrator's: no reboot of the guest
    site.wait("a person", install_waits="host-qmp-system-reset")
    site.say("continue")
    site.wait("the end", install_step="")
    site.host.console(NAME).wait_for(FROM_DISK)
    assert "cd.iso" not in site.host.connection.lookupByName(NAME).XMLDesc()


def _node(cluster: Cluster) -> Service:
    return cluster.nodes[0]


def _master(cluster: Cluster) -> Service:
    return cluster.master


def _panel(cluster: Cluster) -> Service:
    return cluster.panel


@pytest.mark.parametrize("which", [_node, _master, _panel])
def test_one_of_the_services_is_killed_before_the_start_and_before_each_reboot(
    site: Site, which: Callable[[Cluster], Service]
) -> None:
    service = which(site.cluster)
    site.install("held")
    service.kill()
    if which is not _panel:
        wait_for(site.is_on, seconds=STEP_SECONDS, what="the start, which nobody tells of")
    service.start()
    for step in (1, 2):
        site.wait("its turn", install_step=str(step), install_action="")
        site.host.console(NAME).wait_ready()
        service.kill()
        site.reboot()
        site.wait_off()
        service.start()
        if step == 1:
            site.wait("the next step", install_step="2", install_guessed="1" if which is _node else "0")
    site.wait_installed()


def test_the_panel_is_killed_between_the_counter_and_the_start(site: Site) -> None:
    """The node's libvirt cannot be reached by the panel when the reboot comes: the intent stays open."""
    panel = site.cluster.panel
    for step in (0, 1, 2):
        if step:
            site.wait("its turn", install_step=str(step), install_action="")
            site.host.console(NAME).wait_ready()
        site.cluster.client.call(
            "vmhostnode.edit", elid="1", name="alpha", uri="qemu+unix:///x?socket=/", sok="ok"
        )
        if step:
            site.reboot()
        else:
            site.install("held")
        site.wait(
            "the intent", install_step=str(step + 1), install_action=("install", "start", "finish")[step]
        )
        panel.kill()
        assert not site.is_on()
        panel.start()
        site.cluster.client.call("vmhostnode.edit", elid="1", name="alpha", uri=site.host.uri, sok="ok")
    site.wait_installed()
    assert site.causes() == ["guest-reset", "guest-reset"]


def test_the_panel_is_killed_while_it_starts_the_vm(site: Site) -> None:
    """At the moment when the definition has the intent's mark: it is started, or is about to be."""
    panel = site.cluster.panel
    domain = site.host.connection.lookupByName(NAME)
    mark = 0

    def is_marked() -> bool:
        return (mark_of(domain.XMLDesc(2)) or 0) > mark  # VIR_DOMAIN_XML_INACTIVE

    site.install("held")
    for step in (1, 2, 3):
        wait_for(is_marked, seconds=STEP_SECONDS, what=f"the definition of step {step}", pause=0.001)
        mark = mark_of(domain.XMLDesc(2)) or 0
        panel.kill()
        panel.start()
        if step < 3:
            site.wait("its turn", install_step=str(step), install_action="")
            site.reboot()
    site.wait_installed()
    assert site.causes() == ["guest-reset", "guest-reset"]


def test_an_administrators_destroy_waits_and_tells(site: Site) -> None:
    site.install("held")
    site.wait("the start", install_step="1", install_action="")
    site.host.console(NAME).wait_ready()
    site.host.connection.lookupByName(NAME).destroy()
    site.wait("a person", install_step="1", install_waits="destroyed")
    assert site.cluster.client.problems() == [f"installation_waiting {NAME}"]
    assert not site.is_on()
    site.say("retry")
    site.reboot()
    site.wait("the second step", install_step="2", install_waits="", install_action="")
    assert site.cluster.client.problems() == []
    site.host.console(NAME).wait_ready()
    site.host.console(NAME).tell("poweroff")
    site.wait("a person", install_waits="guest-shutdown")
    site.say("continue")  # what it wrote to its disk is its own matter
    site.wait("the end", install_step="")
    site.host.console(NAME).wait_for(FROM_DISK)
    assert site.cluster.client.problems() == []
