# SPDX-License-Identifier: Apache-2.0
"""The same VM on two hosts, with real guests: told within three seconds, and never because it migrates."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from tests.lab.guest import domain_xml
from tests.lab.waiting import wait_for

if TYPE_CHECKING:
    from tests.lab.cluster import Cluster

UUID = "5f3c2a1e-0000-4000-8000-000000000001"


@pytest.mark.timeout(240)
def test_a_vm_that_runs_on_two_hosts_is_told_until_it_does_not(cluster: Cluster, accelerator: str) -> None:
    definition = domain_xml("web", accelerator=accelerator, uuid=UUID)
    alpha, beta = cluster.hosts
    alpha.connection.createXML(definition)
    beta.connection.createXML(definition)
    began = time.monotonic()
    wait_for(lambda: cluster.client.problems() == ["duplicate web"], seconds=10, what="the duplicate")
    assert time.monotonic() - began < 3.0
    beta.connection.lookupByName("web").destroy()
    wait_for(lambda: cluster.client.problems() == [], seconds=10, what="the end of the duplicate")


@pytest.mark.timeout(240)
def test_a_vm_that_migrates_to_and_fro_never_is_a_duplicate(cluster: Cluster, accelerator: str) -> None:
    alpha, beta = cluster.hosts
    alpha.connection.createXML(domain_xml("web", accelerator=accelerator, uuid=UUID))
    alpha.console("web").wait_ready()
    seen: set[str] = set()
    for source, target in ((alpha, beta), (beta, alpha), (alpha, beta)):
        source.migrate("web", target)
        until = time.monotonic() + 2.5
        while time.monotonic() < until:
            seen.update(cluster.client.problems())
            time.sleep(0.05)
    assert seen == set()
    shown = cluster.client.vm("web")
    assert shown is not None
    assert (shown.status, shown.node) == ("running", 2)
