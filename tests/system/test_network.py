# SPDX-License-Identifier: Apache-2.0
"""A network that is cut, as a pulled cable cuts it: no answer, no error. The truth is there soon after its return."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Final

import psutil
import pytest

from tests.lab.cluster import Cluster
from tests.lab.guest import domain_xml
from tests.lab.network import HERE, Network
from tests.lab.processes import Service, find_command, free_port, write_config
from tests.lab.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tests.lab.image import Image

OWN_NETWORK: Final = "VMWATCH_TEST_OWN_NETWORK"
CUTS: Final = (0.5, 1.0, 2.5, 4.0, 7.0)  # seconds
BAR: Final = 1.0
LET_GO_SECONDS: Final = 60.0  # the kernel takes 30

pytestmark = [
    pytest.mark.needs("libvirtd", "unshare", "nsenter", "ip"),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root makes a network of its own"),
]


@pytest.mark.timeout(240)
def test_after_a_cut_the_truth_is_there_within_a_second(
    request: pytest.FixtureRequest, image: Image, accelerator: str
) -> None:
    if OWN_NETWORK not in os.environ:
        return again_in_a_network_of_its_own(request)
    address = f"tcp://{HERE}:{free_port()}"
    with (
        Network() as network,
        Cluster(
            image=image,
            names=("alpha",),
            node_settings={"connect": address},
            master_settings={"listen": address},
        ) as cluster,
    ):
        cluster.nodes[0].stop()  # it is here, where the master is
        command = (*network.enter, find_command("vmwatch-node"), "--foreground")
        config = ("--config", str(cluster.folder / "node-1.conf"))
        with Service((*command, *config), log=cluster.folder / "there.out", ready="ready") as node:
            check_cuts(cluster, network, accelerator)
            print(node.output())
    return None


@pytest.mark.timeout(150)
def test_a_node_whose_host_lost_its_power_is_let_go(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """Nobody closes its connection, and nothing is ever sent to it."""
    if OWN_NETWORK not in os.environ:
        return again_in_a_network_of_its_own(request)
    port = free_port()
    with Network() as network, master(tmp_path, port):
        with node(tmp_path, port, network) as there:
            network.pull()
            there.kill()
        assert connections(port) == 1
        wait_for(lambda: connections(port) == 0, seconds=LET_GO_SECONDS, what="the end", pause=0.5)
    return None


def master(folder: Path, port: int) -> Service:
    """Here. No panel is needed."""
    panel = {"panel_url": "http://127.0.0.1:1/vmmgr", "panel_user": "admin", "panel_password": "x"}
    command = service("vmwatch-master", folder, {"listen": f"tcp://{HERE}:{port}", **panel})
    return Service(command, log=folder / "master.out", ready=" ready\n")


def node(folder: Path, port: int, network: Network) -> Service:
    """There. It speaks to the master while it waits for a libvirt that never comes."""
    nobody = f"qemu+unix:///system?socket={folder}/nobody"
    values = {"connect": f"tcp://{HERE}:{port}", "node_id": 1, "libvirt_uri": nobody}
    command = [*network.enter, *service("vmwatch-node", folder, values), "--wait"]
    return Service(command, log=folder / "node.out", ready="session with the master")


def service(name: str, folder: Path, values: Mapping[str, object]) -> list[str]:
    """Its command."""
    own = folder / name
    files = {"log_file": own / "log", "pid_file": own / "pid", "state_dir": own, "secret": "0123456789ABCDEF"}
    config = write_config(folder / f"{name}.conf", {**files, **values})
    return [find_command(name), "--foreground", "--config", str(config)]


def connections(port: int) -> int:
    """Open ones that were accepted on a port here."""
    found = psutil.net_connections("tcp4")
    return sum(
        each.status == psutil.CONN_ESTABLISHED and getattr(each.laddr, "port", None) == port for each in found
    )


def again_in_a_network_of_its_own(request: pytest.FixtureRequest) -> None:
    """The same test, in a process of its own."""
    done = subprocess.run(
        ("unshare", "--net", sys.executable, "-m", "pytest", "-qs", request.node.nodeid),
        env={**os.environ, OWN_NETWORK: "yes"},
        cwd=request.config.rootpath,
        check=False,
        capture_output=True,
        text=True,
    )
    print(done.stdout)
    assert done.returncode == 0, done.stdout


def check_cuts(cluster: Cluster, network: Network, accelerator: str) -> None:
    web = cluster.host(1).connection.createXML(domain_xml("web", accelerator=accelerator))
    wait_for(lambda: status(cluster) == "running", seconds=10, what="the start")
    measured = {}
    for number, seconds in enumerate(CUTS):
        act, truth = ((web.suspend, "paused"), (web.resume, "running"))[number % 2]
        network.pull()
        act()
        time.sleep(seconds)  # the cut's own length
        assert status(cluster) != truth, "it is cut"
        network.plug()
        began = time.monotonic()
        wait_for(lambda: status(cluster) == truth, seconds=20, what="the truth")  # noqa: B023 (here and now)
        measured[seconds] = time.monotonic() - began
    print("seconds cut: seconds to the truth", {cut: round(late, 2) for cut, late in measured.items()})
    assert max(measured.values()) < BAR
    assert cluster.client.problems() == []


def status(cluster: Cluster) -> str | None:
    vm = cluster.client.vm("web")
    return vm.status if vm else None
