# SPDX-License-Identifier: Apache-2.0
"""A QEMU that no longer answers: told by its name, solved by itself, and nobody waits for it."""

from __future__ import annotations

import shutil
import sqlite3
import time
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Final

import pytest

from tests.lab.cluster import Cluster
from tests.lab.guest import domain_xml
from tests.lab.waiting import wait_for

if TYPE_CHECKING:
    from tests.lab.image import Image

ASKED_EACH: Final = 1  # seconds between statistics: they ask every QEMU, and so find the one that is silent
NOTICED: Final = 10 + 5 + ASKED_EACH  # it has not answered for 10 s, which is looked at each 5
SOLVED: Final = 5
SLACK: Final = 5  # of a busy machine


def shown(cluster: Cluster, name: str) -> str | None:
    vm = cluster.client.vm(name)
    return None if vm is None else vm.status


def counted(cluster: Cluster, name: str) -> int:
    """When the statistics were read that the panel has of a VM: milliseconds since 1970.

    Read from a copy, for the panel locks its file.
    """
    for suffix in ("", "-wal"):
        shutil.copy(cluster.folder / f"panel.db{suffix}", cluster.folder / f"copy.db{suffix}")
    with (
        closing(sqlite3.connect(cluster.folder / "copy.db")) as sql,
        suppress(sqlite3.Error),
    ):  # it was being written
        row = sql.execute("SELECT time FROM statistics WHERE name = ?", (name,)).fetchone()
        return int(row[0]) if row else 0
    return 0


def wait_for_problems(cluster: Cluster, *problems: str, seconds: float) -> float:
    """Return how long it took."""
    began = time.monotonic()
    wait_for(lambda: cluster.client.problems() == [*problems], seconds=seconds, what=f"{problems}")
    return time.monotonic() - began


@pytest.mark.timeout(180)
def test_a_wedged_guest_is_told_and_the_others_go_on(image: Image, accelerator: str) -> None:
    settings = {"statistics_interval": str(ASKED_EACH)}
    with Cluster(image=image, names=("alpha",), node_settings=settings) as cluster:
        (alpha,) = cluster.hosts
        for name in ("sick", "well"):
            alpha.connection.createXML(domain_xml(name, accelerator=accelerator))
        wait_for(lambda: counted(cluster, "well"), seconds=20, what="statistics")
        alpha.qemu("sick").suspend()
        wedged = time.time() * 1000
        noticed = wait_for_problems(cluster, "vm_not_responding sick", seconds=NOTICED + SLACK)
        well = alpha.connection.lookupByName("well")
        well.suspend()
        wait_for(lambda: shown(cluster, "well") == "paused", seconds=2, what="the other VM's event")
        assert shown(cluster, "sick") == "running"
        # The first reading that meets it hangs, and is given up on; libvirt carries later ones past it.
        wait_for(
            lambda: counted(cluster, "well") > wedged + 1000, seconds=20, what="the other VM's statistics"
        )
        alpha.qemu("sick").resume()
        solved = wait_for_problems(cluster, seconds=SOLVED + SLACK)
        print(f"noticed after {noticed:.1f} s, solved after {solved:.1f} s")
