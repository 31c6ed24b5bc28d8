# SPDX-License-Identifier: Apache-2.0
"""A network that is cut, as a pulled cable cuts it: no answer, no error. The truth is there soon after its return."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Final

import pytest

from tests.lab.cluster import Cluster
from tests.lab.guest import domain_xml
from tests.lab.network import HERE, Network
from tests.lab.processes import Service, find_command, free_port
from tests.lab.waiting import wait_for

if TYPE_CHECKING:
    from tests.lab.image import Image

OWN_NETWORK: Final = "VMWATCH_TEST_OWN_NETWORK"
CUTS: Final = (0.5, 1.0, 2.5, 4.0, 7.0)  # seconds
BAR: Final = 1.0

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
