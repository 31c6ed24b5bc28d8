# SPDX-License-Identifier: Apache-2.0
"""The panel configures and watches real services, on its own host and on one that it reaches over a real sshd."""

from __future__ import annotations

import os
import re
import sqlite3
import stat
import threading
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.integration.panel.site import ALSO_HERE, HERE, MASTER, NOBODY, NODE, THERE, Site
from tests.lab.waiting import wait_for
from vmwatch import __version__, config
from vmwatch.messages import Event
from vmwatch.protocol import Kind, Run
from vmwatch.strict import decode

if TYPE_CHECKING:
    from collections.abc import Iterator

    import libvirt

    from tests.lab.service_host import ServiceHost

pytestmark = [
    pytest.mark.needs("libvirtd", "unshare", "nsenter", "ip", "service", "ssh", "sshd", "ssh-keygen"),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root makes hosts"),
    pytest.mark.timeout(300),
]

PACE_SECONDS = 0.2


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with Site(tmp_path) as site:
        yield site


def tamper(file: Path, pattern: str, text: str) -> None:
    before = file.read_text()
    file.write_text(re.sub(pattern, text, before))
    assert file.read_text() != before


def shown(site: Site) -> dict[str, str]:
    return {vm["name"]: vm["status"] for vm in site.panel.rows("vm")}


def test_the_first_node_unblocks_the_master_and_the_last_one_that_goes_blocks_it(site: Site) -> None:
    file = site.here.config(MASTER)
    wait_for(file.exists, seconds=10, what="the master's file")
    wait_for(lambda: "disabled=yes" in file.read_text(), seconds=5, what="it to be whole")
    assert site.here.service(MASTER, "start") == 0
    assert site.here.service(MASTER, "status") == 3, "it is blocked"

    site.add(2, THERE)
    wait_for(lambda: site.there.service(NODE, "status") == 0, seconds=30, what="the node's service")
    master, _ = config.read_master(file, strict=True)
    node, _ = config.read_node(site.there.config(NODE), strict=True)
    assert not master.disabled
    assert str(master.listen) == str(node.connect) == f"tcp://{HERE}:1515"
    assert re.fullmatch("[A-Z0-9]{32}", master.secret)
    assert (node.secret, node.node_id, node.libvirt_uri) == (master.secret, 2, site.uri)
    for each in (file, site.there.config(NODE)):
        assert (stat.S_IMODE(each.stat().st_mode), each.stat().st_uid, each.stat().st_gid) == (0o640, 0, 0)
    wait_for(lambda: shown(site) == {"test": "running"}, seconds=20, what="its VM")  # libvirt's own

    assert site.panel.error("vmhostnode.delete", elid=2) == ("access", "elid")  # a VM runs there
    assert site.there.run("virsh", "-c", site.uri, "destroy", "test").returncode == 0
    wait_for(lambda: shown(site) == {"test": "stopped"}, seconds=20, what="its end")
    assert site.panel.call("vmhostnode.delete", elid=2) == {"ok": {}}
    assert site.panel.rows("vmhostnode") == []
    wait_for(lambda: "disabled=yes" in file.read_text(), seconds=40, what="the master to be blocked")
    wait_for(lambda: site.here.service(MASTER, "status") == 3, seconds=20, what="the master to be stopped")
    assert "disabled=yes" in site.there.config(NODE).read_text()
    assert site.there.service(NODE, "status") == 3
    assert "node 2:" not in site.here.run("vmwatch", "status", "master").stdout, "it is forgotten"
    assert [row for row in site.panel.rows("vmwatch.problem") if row["state"] == "raised"] == []


def test_a_killed_service_is_a_problem_and_when_it_runs_it_is_configured_anew(site: Site) -> None:
    site.add_both()
    check_node("1", site.here, site)
    check_node("2", site.there, site)
    check_master(site)
    site.settle()
    check_cron(site)


def check_node(number: str, host: ServiceHost, site: Site) -> None:
    host.kill(NODE)
    found = site.outcomes("periodic", period=5)
    assert found[number] == ("stopped", "unchanged", "vmwatch-node does not run")
    assert site.problems() == {("service_stopped", number): "vmwatch-node does not run"}
    site.outcomes("periodic", period=5)
    assert len(site.problems()) == 1, "it is one problem, however often it is found"
    tamper(host.config(NODE), "secret=.*", "secret=ANOTHERSECRETANOTHER")
    assert host.service(NODE, "start") == 0
    assert site.outcomes("periodic", period=5)[number] == ("running", "unchanged", "")
    assert site.problems() == {}
    wait_for(lambda: "ANOTHER" not in host.config(NODE).read_text(), seconds=20, what="its configuration")
    site.settle()


def check_master(site: Site) -> None:
    """When it runs again everything is configured anew."""
    site.here.kill(MASTER)
    stopped = ("stopped", "unchanged", "vmwatch-master does not run")
    assert site.outcomes("periodic", period=60) == {"": stopped}
    assert site.outcomes("periodic", period=5)[""] == stopped
    assert site.problems() == {("service_stopped", ""): "vmwatch-master does not run"}
    for host in (site.here, site.there):
        tamper(host.config(NODE), "secret=.*", "secret=ANOTHERSECRETANOTHER")
    assert site.here.service(MASTER, "start") == 0
    assert site.outcomes("periodic", period=60) == {"": ("running", "unchanged", "")}
    assert site.problems() == {}
    for host in (site.here, site.there):
        wait_for(lambda: "ANOTHER" not in host.config(NODE).read_text(), seconds=20, what="both nodes")  # noqa: B023


def check_cron(site: Site) -> None:
    """The lines of cron do it, with no password."""
    site.there.kill(NODE)
    lines = (Path(__file__).parents[3] / "cron/vmwatch-panel").read_text().splitlines()
    commands = [line.split(maxsplit=6)[6] for line in lines if " root " in line and not line.startswith("#")]
    assert len(commands) == 2
    for command in commands:
        done = site.here.run("sh", "-c", f"PATH=$PATH:/usr/local/bin; {command}")
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert set(site.problems()) == {("service_stopped", "2")}


def test_services_are_configured_when_they_need_it_and_restarted_only_then(site: Site) -> None:
    site.add_both()
    pids = site.pids()
    assert set(site.outcomes("vmwatch.configure").values()) == {("running", "unchanged", "")}
    assert site.outcomes("vmwatch.configure", elid=2) == {"2": ("running", "unchanged", "")}
    assert site.pids() == pids
    rows = site.panel.rows("vmwatch.services")
    assert [
        (row["service"], row["hostnode"], row["address"], row["state"], row["waits"]) for row in rows
    ] == [
        (MASTER, "", "", "running", "off"),
        (NODE, "1", HERE, "running", "off"),
        (NODE, "2", THERE, "running", "off"),
    ]
    assert {row["version"] for row in rows} == {__version__}
    check_a_restart_that_was_not_made(site)
    check_another_version(site)
    check_what_was_asked_for_is_done_though_the_panel_is_killed(site)


def check_a_restart_that_was_not_made(site: Site) -> None:
    """The panel was killed after it had written the file."""
    before = site.pids()
    change_database(site, "UPDATE service SET stale = 1, asked = asked + 1 WHERE hostnode = 2")
    site.panel.start()
    wait_for(lambda: site.pids()[2] != before[2], seconds=20, what="the restart")
    site.settle()
    assert site.pids()[:2] == before[:2]


def change_database(site: Site, statement: str) -> None:
    assert site.panel.stop() == 0
    with closing(sqlite3.connect(site.panel.config.parent / "panel.db")) as sql, sql:
        assert sql.execute(statement).rowcount == 1


def check_another_version(site: Site) -> None:
    change_database(site, "UPDATE setting SET value = '0.0.1' WHERE name = 'services_version'")
    tamper(site.there.config(NODE), "connect=.*", "")
    site.panel.start()
    wait_for(lambda: "connect=" in site.there.config(NODE).read_text(), seconds=20, what="the configuration")
    site.settle()


def check_what_was_asked_for_is_done_though_the_panel_is_killed(site: Site) -> None:
    site.add(2, NOBODY)
    site.panel.kill()
    tamper(site.there.config(NODE), "connect=.*", "")
    site.panel.start()
    site.add(2, THERE)
    site.panel.kill()
    site.panel.start()
    wait_for(lambda: "connect=" in site.there.config(NODE).read_text(), seconds=40, what="the configuration")
    wait_for(lambda: site.problems() == {}, seconds=40, what="no problem")


def test_a_node_that_cannot_be_reached_holds_up_no_other(site: Site) -> None:
    site.add(3, NOBODY)
    assert site.panel.stop() == 0, "at once, though it waits for that node"
    site.panel.start()
    site.add(4, f"admin@{NOBODY}")
    site.add(2, THERE)
    wait_for(lambda: site.there.service(NODE, "status") == 0, seconds=40, what="the other node")
    found = site.outcomes("vmwatch.configure")
    assert found[""] == found["2"] == ("running", "unchanged", "")
    assert found["3"][:2] == ("unreachable", "failed")
    assert "No route to host" in found["3"][2]
    assert found["4"] == ("unknown", "failed", "node 3 has the same address")
    assert set(site.problems()) == {("node_unreachable", "3"), ("not_configured", "4")}
    # It is somewhere else, in truth.
    assert site.panel.call("vmhostnode.delete", elid="4") == {"ok": {}}
    site.add(3, "127.0.0.1")
    wait_for(lambda: site.here.service(NODE, "status") == 0, seconds=40, what="node 3")
    wait_for(lambda: site.problems() == {}, seconds=20, what="no problem")


@contextmanager
def load(domain: libvirt.virDomain) -> Iterator[None]:
    """While this lasts a domain pauses and goes on, all the time."""
    stopping = threading.Event()

    def change() -> None:
        while not stopping.wait(PACE_SECONDS):
            domain.suspend()
            domain.resume()

    thread = threading.Thread(target=change)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join()


def told(site: Site) -> list[str]:
    """The ids of the events of the domain `web` at the panel, the oldest first."""
    rows: list[dict[str, str]] = []
    total = int(site.panel.call("vm.history", elid="web", p_cnt=1)["p_elems"]["$"])
    for page in range(1, total // 500 + 2):
        rows += site.panel.rows("vm.history", elid="web", p_cnt=500, p_num=page)
    return [row["event_id"] for row in reversed(rows)]


def kept(site: Site) -> list[str]:
    """The same in the node's outbox, which keeps a thousand records that were sent."""
    with closing(sqlite3.connect(site.there.folder / "mgr5/var/vmwatch-node/outbox.db")) as sql:
        rows = sql.execute("SELECT run, seq, body FROM record WHERE kind = ? ORDER BY id", (Kind.EVENT,))
        return [f"2.{Run(run)}.{seq}" for run, seq, body in rows if decode(Event, body).name == "web"]


@pytest.mark.needs("openssl")
def test_the_masters_access_is_made_and_works_over_https(tmp_path: Path) -> None:
    with Site(tmp_path, more="Option ManageServices\nOption Https\n") as site:
        site.add(2, THERE)
        wait_for(lambda: shown(site) == {"test": "running"}, seconds=40, what="libvirt's own VM")
        master, _ = config.read_master(site.here.config(MASTER), strict=True)
        assert (master.panel_url, master.panel_user) == (site.panel.url, "vmwatch-master")
        assert isinstance(master.panel_verify, Path)
        assert master.panel_password
        assert master.panel_password not in site.panel.log.read_text() + site.here.log(MASTER)
        assert master.secret not in site.panel.log.read_text() + site.here.log(MASTER)


def test_another_port_and_another_secret_lose_no_event(site: Site) -> None:
    site.add_both()
    with site.domain("web") as domain, load(domain):
        wait_for(lambda: site.panel.rows("vm", name="web"), seconds=20, what="the VM")
        secret = config.read_master(site.here.config(MASTER))[0].secret
        found = site.outcomes("vmwatch.configure", secret="new")
        assert set(found.values()) == {("running", "restarted", "")}
        assert config.read_master(site.here.config(MASTER))[0].secret != secret
        site.reconfigure(r"\Z", f"VmwatchListenPort 1616\nVmwatchListenIp {ALSO_HERE}\n")
        found = site.outcomes("vmwatch.configure")
        assert set(found.values()) == {("running", "restarted", "")}
        assert str(config.read_node(site.there.config(NODE))[0].connect) == f"tcp://{ALSO_HERE}:1616"
        enough = len(kept(site)) + 20
        wait_for(lambda: len(told(site)) > enough, seconds=60, what="changes to be told again")
    wait_for(lambda: len(told(site)) == len(kept(site)), seconds=60, what="all of them")
    assert told(site) == kept(site)
    assert site.problems() == {}


def test_the_secret_of_an_existing_file_is_taken_over(tmp_path: Path) -> None:
    with Site(tmp_path) as site:
        site.panel.kill()
        (site.panel.config.parent / "panel.db").unlink()
        for left in site.panel.config.parent.glob("panel.db-*"):
            left.unlink()
        site.here.config(MASTER).write_text("secret=THEADMINISTRATORSOWN\n")
        site.panel.start()
        site.add(2, THERE)
        wait_for(lambda: site.there.service(NODE, "status") == 0, seconds=30, what="the node's service")
        assert "secret=THEADMINISTRATORSOWN\n" in site.there.config(NODE).read_text()


def test_fields_are_checked_and_without_the_option_nothing_is_done(tmp_path: Path) -> None:
    with Site(tmp_path) as site:
        assert site.panel.error("vmwatch.configure", elid=7) == ("missed", "elid")
        assert site.panel.error("vmwatch.configure", elid="x") == ("value", "elid")
        assert site.panel.error("vmwatch.configure", secret="mine") == ("value", "secret")
        assert site.panel.error("periodic") == ("value", "period")
        assert site.panel.error("periodic", period=7) == ("value", "period")
        for address in ("-oProxyCommand=id", "a b", "@x", "root@", "x;y"):
            assert site.panel.error("vmhostnode.edit", elid=1, name="a", address=address, sok="ok") == (
                "value",
                "address",
            )
        site.reconfigure("Option ManageServices\n", "")
        before = site.here.config(MASTER).read_bytes()
        for fields in ({"func": "vmwatch.configure"}, {"func": "periodic", "period": 5}):
            assert site.panel.error(**fields) == ("access", "func")
        site.add(1, HERE)
        assert site.panel.stop() == 0
        assert site.here.config(MASTER).read_bytes() == before
