# SPDX-License-Identifier: Apache-2.0
"""A QEMU that no longer answers: told by its name, solved by itself, and nobody waits for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.lab.cluster import Cluster
from tests.lab.guest import domain_xml
from tests.lab.waiting import wait_for

if TYPE_CHECKING:
    from tests.lab.image import Image


def shown(cluster: Cluster, name: str) -> str | None:
    vm = cluster.client.vm(name)
    return None if vm is None else vm.status


@pytest.mark.timeout(180)
def test_a_wedged_guest_is_told_and_the_others_go_on(image: Image, accelerator: str) -> None:
    settings = {
        "statistics_interval": "1"
    }  # the statistics ask every QEMU, and so find the one that is silent
    with Cluster(image=image, names=("alpha",), node_settings=settings) as cluster:
        (alpha,) = cluster.hosts
        for name in ("sick", "well"):
            alpha.connection.createXML(domain_xml(name, accelerator=accelerator))
        alpha.qemu("sick").suspend()
        wait_for(
            lambda: cluster.client.problems() == ["vm_not_responding sick"], seconds=60, what="the problem"
        )
        well = alpha.connection.lookupByName("well")
        well.suspend()
        wait_for(lambda: shown(cluster, "well") == "paused", seconds=2, what="the other VM's event")
        assert shown(cluster, "sick") == "running"
        alpha.qemu("sick").resume()
        wait_for(lambda: cluster.client.problems() == [], seconds=30, what="the end of the problem")
