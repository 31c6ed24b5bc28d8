# SPDX-License-Identifier: Apache-2.0
"""Real services whose streams are not what they seem: two hosts of one id; an outbox copied back, or elsewhere."""

from __future__ import annotations

import itertools
import shutil
import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import libvirt
import pytest

from tests.integration.driver import DOMAIN
from tests.integration.stack import Stack
from tests.lab.host import Host
from tests.lab.processes import Service, write_config
from tests.lab.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CHANGES: Final = [*["suspended", "resumed"] * 3, "suspended"]

pytestmark = pytest.mark.needs("libvirtd", "unshare", "virsh")


@pytest.fixture
def stack(driver_host: Host, tmp_path: Path) -> Iterator[Stack]:
    with Stack(driver_host, tmp_path) as stack:
        stack.panel.start()
        stack.master.start()
        yield stack


class Twin:
    """A second host with a libvirtd, and a node service that speaks with the first one's id."""

    def __init__(self, stack: Stack, host: Host) -> None:
        self.folder = stack.folder / "twin"
        self.folder.mkdir()
        self.connection = libvirt.open(host.test_uri)
        values = {
            "connect": stack.listen,
            "secret": stack.secret,
            "node_id": 1,
            "libvirt_uri": host.test_uri,
            "log_file": self.folder / "node.log",
            "pid_file": self.folder / "node.pid",
            "state_dir": self.folder / "state",
        }
        config = write_config(self.folder / "node.conf", values)
        command = ["vmwatch-node", "--config", str(config), "--foreground"]
        self.service = Service(command, log=self.folder / "node.out", ready=" ready\n")


@contextmanager
def twin_of(stack: Stack) -> Iterator[Twin]:
    with Host("delta") as host:
        twin = Twin(stack, host)
        try:
            yield twin
        finally:
            twin.service.stop()
            twin.connection.close()


def copy_outbox(source: Path, target: Path) -> None:
    """As an administrator does, with the log that SQLite lays beside it."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)


def wait_for_problem(stack: Stack, problem: str) -> None:
    wait_for(lambda: problem in stack.client.problems(), seconds=20, what=problem)


def changes_of(stack: Stack, name: str) -> list[str]:
    """The suspends and resumes that the panel has, in order."""
    return [line["type"] for line in stack.registered(name) if line["type"] in ("suspended", "resumed")]


def suspend_and_resume(*domains: libvirt.virDomain, rounds: int) -> None:
    for domain, _ in itertools.product(domains, range(rounds)):
        domain.suspend()
        domain.resume()


def test_two_hosts_with_one_id_are_told_and_the_first_ones_stream_goes_on(stack: Stack) -> None:
    stack.node.start()
    (here,) = stack.define("here")
    here.create()
    wait_for(lambda: stack.shown().get("here") == "running", seconds=20, what="the start")
    with twin_of(stack) as twin:
        there = twin.connection.defineXML(DOMAIN.format(name="there"))
        there.create()
        twin.service.start()
        wait_for(lambda: "there" in stack.shown(), seconds=20, what="the second host's VM")
        suspend_and_resume(here, there, rounds=5)
        wait_for_problem(stack, "two_nodes_one_id")
        twin.service.stop()
        (stack.node.stop(), stack.node.start())  # its id is right: it begins anew
        suspend_and_resume(here, rounds=3)
        wait_for(
            lambda: changes_of(stack, "here")[-6:] == ["suspended", "resumed"] * 3, seconds=20, what="it"
        )
        changes = changes_of(stack, "here")
    ids = [line["event_id"] for line in stack.registered("here")]
    assert len(ids) == len(set(ids)), "nothing twice"
    assert all(one != other for one, other in itertools.pairwise(changes)), "in order"
    assert stack.shown()["here"] == "running"


def test_an_outbox_of_an_earlier_run_that_was_copied_back_is_told_and_the_truth_returns(stack: Stack) -> None:
    vm = started(stack)
    stack.node.stop()
    copy_outbox(stack.folder / "node", stack.folder / "backup")
    stack.node.start()
    restore(stack, vm)
    wait_for_problem(stack, "two_nodes_one_id")  # by its numbers it is a copy that runs beside the first
    check_truth_returns(stack, vm)


def test_an_outbox_of_the_same_run_that_was_copied_back_is_told_and_the_truth_returns(stack: Stack) -> None:
    vm = started(stack)
    stack.node.signal(signal.SIGSTOP)
    copy_outbox(stack.folder / "node", stack.folder / "backup")
    stack.node.signal(signal.SIGCONT)
    restore(stack, vm)
    wait_for_problem(stack, "outbox_replaced")
    check_truth_returns(stack, vm)


def started(stack: Stack) -> libvirt.virDomain:
    stack.node.start()
    (vm,) = stack.define("vm")
    vm.create()
    wait_for(lambda: stack.shown().get("vm") == "running", seconds=20, what="the start")
    return vm


def restore(stack: Stack, vm: libvirt.virDomain) -> None:
    """Copy the backup back, after changes that it does not have, and one that nobody has."""
    suspend_and_resume(vm, rounds=3)
    vm.suspend()
    wait_for(lambda: changes_of(stack, "vm") == CHANGES, seconds=20, what="what comes after the copy")
    stack.node.stop()
    vm.resume()
    copy_outbox(stack.folder / "backup", stack.folder / "node")
    stack.node.start()


def check_truth_returns(stack: Stack, vm: libvirt.virDomain) -> None:
    """Nothing that was told is told again; what is new is."""
    wait_for(lambda: stack.shown()["vm"] == "running", seconds=20, what="the truth")
    suspend_and_resume(vm, rounds=2)
    wait_for(
        lambda: changes_of(stack, "vm")[-4:] == ["suspended", "resumed"] * 2, seconds=20, what="what is new"
    )
    found = changes_of(stack, "vm")[len(CHANGES) : -4]
    assert changes_of(stack, "vm")[: len(CHANGES)] == CHANGES
    assert found in ([], ["resumed"])  # by what the backup knew, it had never been suspended


def test_an_outbox_that_was_copied_to_another_host_is_told(stack: Stack) -> None:
    stack.node.start()
    (here,) = stack.define("here")
    here.create()
    stack.wait_until_all_is_registered()
    stack.node.stop()
    with twin_of(stack) as twin:
        there = twin.connection.defineXML(DOMAIN.format(name="there"))
        there.create()
        copy_outbox(stack.folder / "node", twin.folder / "state")
        stack.node.start()
        suspend_and_resume(here, rounds=2)
        wait_for(lambda: len(changes_of(stack, "here")) == 4, seconds=20, what="the first host's events")
        twin.service.start()
        wait_for_problem(stack, "two_nodes_one_id")
        assert changes_of(stack, "here") == ["suspended", "resumed"] * 2
