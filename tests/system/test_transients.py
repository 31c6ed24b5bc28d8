# SPDX-License-Identifier: Apache-2.0
"""Transient guests: QEMU's driver tells no `undefined` of them, and no node has them after their stop."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from tests.lab.guest import domain_xml
from tests.lab.waiting import wait_for

if TYPE_CHECKING:
    from tests.lab.cluster import Cluster

GONE = "undefined(removed) snapshot"


def told(cluster: Cluster, name: str) -> list[str]:
    """Who told what: `1 stopped(failed) event`."""
    history = cluster.client.history(name) if cluster.client.vm(name) else []
    return [f"{one.reporter} {one.type}({one.subtype}) {one.source}" for one in history]


def copies(cluster: Cluster, name: str) -> list[tuple[int, str]]:
    """The VM's copies in the master's ledger: node and state."""
    with closing(sqlite3.connect(cluster.folder / "master/ledger.db")) as sql:
        return sql.execute("SELECT node, state FROM vm WHERE name = ? ORDER BY node", (name,)).fetchall()


@pytest.mark.timeout(240)
def test_what_stops_and_what_leaves_is_on_no_node_afterwards(cluster: Cluster, accelerator: str) -> None:
    alpha, beta = cluster.hosts
    for name in ("dies", "moves"):
        alpha.connection.createXML(domain_xml(name, accelerator=accelerator))
    alpha.qemu("dies").kill()
    wait_for(lambda: f"1 {GONE}" in told(cluster, "dies"), seconds=5, what="its end")
    assert told(cluster, "dies")[-2:] == ["1 stopped(failed) event", f"1 {GONE}"]
    assert copies(cluster, "dies") == []

    alpha.console("moves").wait_ready()
    alpha.migrate("moves", beta)
    wait_for(lambda: f"1 {GONE}" in told(cluster, "moves"), seconds=5, what="the source's end")
    wait_for(lambda: copies(cluster, "moves") == [(2, "running")], seconds=5, what="the target alone")
    beta.connection.lookupByName("moves").undefine()  # it was made persistent there: transient again
    beta.connection.lookupByName("moves").destroy()
    wait_for(lambda: f"2 {GONE}" in told(cluster, "moves"), seconds=5, what="its end")
    for name in ("dies", "moves"):
        shown = cluster.client.vm(name)
        assert shown is not None
        assert (shown.status, shown.node) == ("stopped", None)
        assert copies(cluster, name) == []
