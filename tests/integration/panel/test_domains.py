# SPDX-License-Identifier: Apache-2.0
"""What is done at a libvirtd, and done again after a kill at any point: at libvirt's test driver."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import libvirt
import pytest

from tests.lab.host import Host
from tests.lab.waiting import wait_for
from vmwatch.panel import register, register_installation, register_osmgr, shown_installation
from vmwatch.panel.definition import Medium, installed, installing, mark_of
from vmwatch.panel.domains import Domains, Doubt, NotDone, NotReached
from vmwatch.panel.fields import VmEvent
from vmwatch.panel.installation import Action
from vmwatch.panel.intents import Intents
from vmwatch.panel.lookout import Lookout
from vmwatch.panel.shown_installation import Intent, Template
from vmwatch.panel.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator

DOMAIN: Final = """
<domain type='test'><name>web</name><memory>1024</memory><os><type>hvm</type></os>
  <devices><disk type='file'><source file='/disk'/><target dev='vda'/></disk>
  <graphics type='vnc' passwd='secret'/></devices></domain>
"""
MEDIUM: Final = Medium(kernel="/boot/vmlinuz", initrd="/boot/initrd", cmdline="quiet")
EARLIER, THIS = 3, 4
DESTROYING, STARTING = (Action.INSTALL, Action.FINISH), (Action.INSTALL, Action.START, Action.FINISH)


@dataclass
class Web:
    """The domain `web`, and what can be done to it."""

    uri: str
    connection: libvirt.virConnect

    def intent(self, action: Action) -> Intent:
        return Intent(
            id=THIS, action=action, name="web", hostnode=1, address="", uri=self.uri, unreachable=False,
            created=0, medium="", kernel=MEDIUM.kernel, initrd=MEDIUM.initrd, cmdline=MEDIUM.cmdline,
        )  # fmt: skip

    def define(self, action: Action, mark: int) -> None:
        """As a try of this action left it."""
        is_installed = action in (Action.FINISH, Action.RELEASE)
        xml = installed(DOMAIN, mark=mark) if is_installed else installing(DOMAIN, MEDIUM, mark=mark)
        self.connection.defineXML(xml)

    @property
    def domain(self) -> libvirt.virDomain:
        return self.connection.lookupByName("web")

    def xml(self) -> str:
        flags = libvirt.VIR_DOMAIN_XML_INACTIVE | libvirt.VIR_DOMAIN_XML_SECURE
        return str(self.domain.XMLDesc(flags))

    async def do(self, action: Action, *, again: bool = False) -> None:
        await Domains(ssh_program=Path("/nowhere")).carry_out(self.intent(action), is_repeated=again)


@pytest.fixture
def web(driver_host: Host) -> Iterator[Web]:
    connection = libvirt.open(driver_host.test_uri)
    yield Web(driver_host.test_uri, connection)
    connection.close()


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("action", STARTING)
async def test_one_that_is_off_is_defined_and_started(web: Web, action: Action, again: bool) -> None:
    web.connection.defineXML(DOMAIN)
    await web.do(action, again=again)
    assert web.domain.isActive()
    assert mark_of(web.xml()) == mark_of(web.domain.XMLDesc()) == THIS
    assert ("<on_reboot>restart" in web.xml()) == (action is Action.FINISH)
    assert ("vmlinuz" in web.xml()) == (action is not Action.FINISH)
    assert "passwd='secret'" in web.xml()


@pytest.mark.parametrize("action", Action)
async def test_one_that_runs_from_before_is_ended_where_another_start_is_wanted(
    web: Web, action: Action
) -> None:
    web.define(Action.START, EARLIER)
    web.domain.create()
    before = web.domain.ID()
    await web.do(action)
    assert (web.domain.ID() != before) == (action in DESTROYING)
    assert web.domain.isActive()
    assert mark_of(web.xml()) == THIS


@pytest.mark.parametrize("action", STARTING)
async def test_one_that_was_started_for_this_is_left_alone(web: Web, action: Action) -> None:
    """Killed between the start and the intent's end."""
    web.define(action, THIS)
    web.domain.create()
    before = web.domain.ID()
    await web.do(action, again=True)
    assert web.domain.ID() == before


@pytest.mark.parametrize("action", STARTING)
async def test_one_that_may_have_been_started_and_is_off_is_in_doubt(web: Web, action: Action) -> None:
    """Killed between the definition and the intent's end."""
    web.define(action, THIS)
    with pytest.raises(Doubt):
        await web.do(action, again=True)
    assert not web.domain.isActive()
    await web.do(action, again=False)  # nothing was heard of it meanwhile
    assert web.domain.isActive()


async def test_a_released_one_is_not_started(web: Web) -> None:
    web.define(Action.START, EARLIER)
    await web.do(Action.RELEASE)
    await web.do(Action.RELEASE, again=True)
    assert not web.domain.isActive()
    assert "<on_reboot>restart" in web.xml()


async def test_what_cannot_be_done(web: Web) -> None:
    with pytest.raises(NotDone, match="Domain not found"):
        await web.do(Action.START)
    web.connection.defineXML(DOMAIN.replace("<disk", "<!--").replace("</disk>", "-->"))
    with pytest.raises(NotDone, match="no disk to boot from"):
        await web.do(Action.FINISH)
    domains = Domains(ssh_program=Path("/nowhere"))
    with pytest.raises(NotDone, match="no node"):
        await domains.carry_out(replace(web.intent(Action.START), hostnode=None), is_repeated=False)
    for address, uri in (("", "test+unix:///default?socket=/nowhere"), ("root@192.0.2.1", "")):
        intent = replace(web.intent(Action.START), address=address, uri=uri)
        with pytest.raises(NotReached, match="no connection to libvirt"):
            await domains.carry_out(intent, is_repeated=False)


async def test_a_node_that_hangs_holds_up_no_other(web: Web, driver_host: Host) -> None:
    web.connection.defineXML(DOMAIN)
    domains = Domains(ssh_program=Path("/nowhere"))
    with Host("delta") as other:
        connection = libvirt.open(other.test_uri)
        connection.defineXML(DOMAIN)
        driver_host.freeze_libvirtd()
        hangs = asyncio.create_task(domains.carry_out(web.intent(Action.START), is_repeated=False))
        elsewhere = replace(web.intent(Action.START), uri=other.test_uri)
        await asyncio.wait_for(domains.carry_out(elsewhere, is_repeated=False), timeout=5)
        assert connection.lookupByName("web").isActive()
        connection.close()
    assert not hangs.done()
    driver_host.thaw_libvirtd()
    await asyncio.wait_for(hangs, timeout=10)
    assert web.domain.isActive()


@dataclass
class Desk:
    """A store in which `web` is being installed, with one reboot to come."""

    store: Store
    now: int = 1000

    def clock(self) -> int:
        return self.now

    def tell(self, kind: str, subtype: str, cause: str | None = None) -> None:
        event = VmEvent(
            hostnode=1, name="web", type=kind, subtype=subtype, uuid=None, status=None, cause=cause,
            source="event", earliest=None, time=None, event_id=None,
        )  # fmt: skip
        register.record_event(self.store, event, clock=self.clock, create=True)

    def begin(self, uri: str) -> Intent:
        self.tell("defined", "added")
        self.store.connection.execute("UPDATE hostnode SET uri = ?", (uri,))
        template = Template(
            id=0, name="linux", rebootcount=1, timelimit=600, medium="", kernel="/k", initrd="", cmdline=""
        )
        osmgr = register_osmgr.write(self.store, template)
        register_installation.begin(self.store, 1, osmgr=osmgr, replace=False, now=self.now)
        (intent,) = shown_installation.open_intents(self.store.connection)
        return intent

    @property
    def waits(self) -> str | None:
        return shown_installation.all_by_vm(self.store.connection)[1].waits


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    store = Store(tmp_path / "panel.db")
    yield Desk(store)
    store.close()


async def test_the_events_of_a_start_that_is_in_doubt_say_how_it_goes_on(web: Web, desk: Desk) -> None:
    """The panel was killed after it had started the VM; while it was away, the guest rebooted for the last time."""
    intent = desk.begin(web.uri)
    web.define(Action.INSTALL, intent.id)
    room = Intents(desk.store, Domains(ssh_program=Path("/nowhere")), clock=desk.clock)
    desk.store.on_change = room.wake
    running = asyncio.create_task(room.run())
    await asyncio.to_thread(
        wait_for, lambda: room._tries and not room._tries[intent.id].is_repeated, seconds=10, what="the doubt"
    )
    desk.tell("started", "booted")
    desk.tell("stopped", "shutdown", "guest-reset")
    await asyncio.to_thread(wait_for, web.domain.isActive, seconds=10, what="the start")
    assert "<on_reboot>restart" in web.xml()
    assert web.domain.ID() == 2  # the test driver has one of its own: this is the first start
    running.cancel()
    await asyncio.wait([running])


async def test_a_vm_that_was_started_and_never_heard_of_is_looked_at(web: Web, desk: Desk) -> None:
    intent = desk.begin(web.uri)
    web.define(Action.INSTALL, intent.id)
    lookout = Lookout(desk.store, Domains(ssh_program=Path("/nowhere")), clock=desk.clock)
    desk.now += 1_000_000
    await lookout.look()  # it is not started yet
    assert desk.waits is None
    register_installation.close(desk.store, intent.id, now=desk.now)
    await lookout.look()  # its events may be on their way
    desk.now += 61_000
    web.domain.create()
    await lookout.look()  # it runs: whoever has to tell of it is away, and so told of
    assert desk.waits is None
    web.domain.destroy()
    await lookout.look()
    assert desk.waits == "unheard"
    desk.tell("started", "booted")  # they were only late
    desk.tell("stopped", "shutdown", "guest-reset")
    (intent,) = shown_installation.open_intents(desk.store.connection)
    assert intent.action is Action.FINISH
