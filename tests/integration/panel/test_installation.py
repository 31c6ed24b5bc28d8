# SPDX-License-Identifier: Apache-2.0
"""Installation through the panel's API, at a real libvirtd: what its test driver holds, without guests.

With guests see tests/system/test_installation.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from xml.etree import ElementTree as ET

import libvirt
import pytest

from tests.lab.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.panel.process import PanelProcess
    from tests.lab.host import Host

KERNEL: Final = {"kernel": "/boot/vmlinuz", "initrd": "/boot/initrd", "cmdline": "quiet"}
DOMAIN: Final = """
<domain type='test'><name>web</name><memory>1024</memory><os><type>hvm</type></os>
  <devices><disk type='file'><source file='/disk'/><target dev='vda'/></disk></devices></domain>
"""


@pytest.fixture
def libvirtd(driver_host: Host) -> Iterator[libvirt.virConnect]:
    connection = libvirt.open(driver_host.test_uri)
    yield connection
    connection.close()


@pytest.fixture
def web(panel: PanelProcess, driver_host: Host) -> PanelProcess:
    """The panel with a node that has that libvirtd, and a VM on it of which libvirt does not know yet."""
    panel.event("web", "defined", "added", 1)
    panel.call("vmhostnode.edit", elid=1, name="alpha", uri=driver_host.test_uri, sok="ok")
    return panel


def template(panel: PanelProcess, name: str = "linux", **fields: object) -> str:
    values = {"rebootcount": 2, "timelimit": 600, **KERNEL, **fields}
    answer = panel.call("osmgr.edit", name=name, sok="ok", **values)
    return str(answer["id"]["$"])


def shown(panel: PanelProcess) -> dict[str, str]:
    (row,) = panel.rows("vm", name="web")
    return row


def wait(panel: PanelProcess, **wanted: str) -> None:
    wait_for(lambda: wanted.items() <= shown(panel).items(), seconds=10, what=f"{wanted}; {shown(panel)}")


def problems(panel: PanelProcess) -> list[str]:
    return [row["problem"] for row in panel.rows("vmwatch.problem") if row["state"] == "raised"]


def definition(libvirtd: libvirt.virConnect) -> ET.Element:
    xml = libvirtd.lookupByName("web").XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
    return ET.fromstring(xml)


def test_templates_are_made_shown_changed_and_deleted(shared: PanelProcess) -> None:
    first = template(shared, "debian & <b>", rebootcount=3)
    second = template(shared, "fedora", medium="/iso/fedora.iso", kernel="", initrd="", cmdline="")
    rows = shared.rows("osmgr")
    assert [row["name"] for row in rows] == ["debian & <b>", "fedora"]
    assert rows[1]["medium"] == "/iso/fedora.iso"
    assert shared.call("osmgr.edit", elid=first)["rebootcount"] == {"$": "3"}
    assert shared.call("osmgr.edit")["timelimit"] == {"$": "3600"}
    shared.call("osmgr.edit", elid=first, name="debian", rebootcount=1, sok="ok")
    assert shared.rows("osmgr", p_cnt=1)[0]["kernel"] == ""
    assert shared.error("osmgr.edit", name="fedora", rebootcount=1, sok="ok") == ("exists", "name")
    assert shared.error("osmgr.delete", elid=f"{first}, {second}, 99") == ("missed", "elid")
    assert len(shared.rows("osmgr")) == 2  # all of them, or none
    assert shared.call("osmgr.delete", elid=f"{first}, {second}") == {"ok": {}}
    assert shared.call("osmgr")["elem"] == []
    assert shared.error("osmgr.edit", elid=first) == ("missed", "elid")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", ""), ("rebootcount", ""), ("rebootcount", "0"), ("rebootcount", "101"), ("rebootcount", "x"),
        ("timelimit", "604801"), ("medium", "relative.iso"), ("medium", "/iso/a.iso"), ("kernel", "vmlinuz"),
        ("kernel", ""), ("cmdline", "two\nlines"), ("initrd", "\x00"),
    ],
)  # fmt: skip
def test_a_template_that_does_not_fit_names_its_field(shared: PanelProcess, field: str, value: str) -> None:
    fields = {"name": "wrong", "rebootcount": "1", **KERNEL, field: value}
    assert shared.error("osmgr.edit", sok="ok", **fields) == ("value", field)


def test_what_an_installation_is_refused_for(shared: PanelProcess) -> None:
    shared.event("refused", "defined", "added", 1)
    linux = template(shared, "of the refused")
    for fields, error in (
        ({"elid": "nobody", "osmgr": linux}, ("missed", "elid")),
        ({"elid": "refused", "osmgr": 99}, ("missed", "osmgr")),
        ({"elid": "refused"}, ("value", "osmgr")),
    ):
        assert shared.error("vm.reinstall", sok="ok", **fields) == error
    assert shared.error("vm.reinstall.continue", elid="refused") == ("missed", "installation")
    assert shared.error("vm.reinstall.continue", elid="refused", action="x") == ("value", "action")
    shared.call("vmwatch.problem", problem="node_silent", hostnode=1, state="raised")
    assert shared.error("vm.reinstall", elid="refused", osmgr=linux, sok="ok") == ("value", "hostnode")
    shared.call("vmwatch.problem", problem="node_silent", hostnode=1, state="solved")
    shared.call("vm.reinstall", elid="refused", osmgr=linux, sok="ok")
    assert shared.error("vm.reinstall", elid="refused", osmgr=linux, sok="ok") == ("exists", "installation")
    assert shared.error("vm.reinstall.continue", elid="refused") == ("value", "action")  # it does not wait
    assert shared.error("osmgr.delete", elid=linux) == ("value", "elid")
    shared.call("vm.reinstall.continue", elid="refused", action="cancel")
    assert shared.call("vm.reinstall", elid="refused")["install_step"] == {}


def test_what_cannot_be_done_is_told_and_done_when_it_can(
    web: PanelProcess, libvirtd: libvirt.virConnect
) -> None:
    linux = template(web)
    web.call("vm.reinstall", elid="web", osmgr=linux, sok="ok")
    wait_for(lambda: problems(web) == ["installation_stuck"], seconds=5, what="the problem")
    assert "Domain not found" in shown(web)["install_error"]
    libvirtd.defineXML(DOMAIN)
    wait(web, install_step="1", install_action="", install_error="")
    assert problems(web) == []
    assert libvirtd.lookupByName("web").isActive()
    assert definition(libvirtd).findtext("on_reboot") == "destroy"
    assert definition(libvirtd).findtext("os/kernel") == "/boot/vmlinuz"

    web.event("web", "started", "booted", 2)
    web.event("web", "stopped", "saved", 3)
    wait(web, install_waits="saved")
    assert problems(web) == ["installation_waiting"]
    web.call("vm.reinstall.continue", elid="web", action="cancel")
    wait_for(lambda: definition(libvirtd).findtext("on_reboot") == "restart", seconds=5, what="the release")
    assert definition(libvirtd).findtext("os/kernel") is None
    assert problems(web) == []
    assert libvirtd.lookupByName("web").isActive()  # it is left as it is


def test_a_node_that_is_not_reached_is_tried_again_and_no_problem_at_once(
    web: PanelProcess, driver_host: Host, libvirtd: libvirt.virConnect
) -> None:
    libvirtd.defineXML(DOMAIN)
    linux = template(web)
    web.call("vmhostnode.edit", elid=1, name="alpha", uri="qemu+unix:///system?socket=/nowhere", sok="ok")
    web.call("vm.reinstall", elid="web", osmgr=linux, sok="ok")
    wait_for(lambda: "no connection to libvirt" in shown(web)["install_error"], seconds=5, what="the error")
    assert problems(web) == []
    web.kill()
    web.start()  # what is to be done is in the database
    web.call("vmhostnode.edit", elid=1, name="alpha", uri=driver_host.test_uri, sok="ok")
    wait(web, install_action="")
    assert libvirtd.lookupByName("web").isActive()


def test_the_time_limit_ends_it_with_a_problem(web: PanelProcess, libvirtd: libvirt.virConnect) -> None:
    libvirtd.defineXML(DOMAIN)
    linux = template(web, timelimit=1)
    web.call("vm.reinstall", elid="web", osmgr=linux, sok="ok")
    wait(web, install_waits="timeout", install_reason="its time limit is over")
    assert problems(web) == ["installation_timeout"]
    web.event("web", "started", "booted", 2)
    web.event("web", "stopped", "shutdown", 3, cause="guest-reset")
    assert shown(web)["install_step"] == "1"  # nothing is done by itself any more
    web.call("osmgr.edit", elid=linux, name="linux", rebootcount=2, timelimit=600, sok="ok", **KERNEL)
    web.call("vm.reinstall.continue", elid="web")
    wait(web, install_step="2", install_waits="", install_action="")
    assert problems(web) == []


def test_a_repeated_event_changes_nothing_though_the_panel_was_killed(
    web: PanelProcess, libvirtd: libvirt.virConnect
) -> None:
    libvirtd.defineXML(DOMAIN)
    web.call("vm.reinstall", elid="web", osmgr=template(web), sok="ok")
    wait(web, install_action="")
    web.event("web", "started", "booted", 2)
    for _ in range(3):
        web.event("web", "stopped", "shutdown", 3, cause="guest-reset")
        wait(web, install_step="2", install_action="")
        web.kill()
        web.start()
    web.event("web", "started", "booted", 4)
    libvirtd.lookupByName("web").destroy()
    web.event("web", "stopped", "shutdown", 5, cause="guest-reset")
    wait(web, install_step="", osmgr="")
    assert definition(libvirtd).findtext("on_reboot") == "restart"
    assert libvirtd.lookupByName("web").isActive()
