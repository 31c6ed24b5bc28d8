# SPDX-License-Identifier: Apache-2.0
"""What becomes of a node's statistics: the latest of each domain, samples for the plots, warnings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from vmwatch.panel import policy, register, register_nodes, register_statistics, shown_vms
from vmwatch.panel.convention import ApiError, ErrorType
from vmwatch.panel.fields import ProblemReport, VmEvent
from vmwatch.panel.status_check import COUNTERS
from vmwatch.panel.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MINUTES_10 = 600_000


class Cluster:
    """A store with nodes 1 and 2, and the VM `web` that runs on node 1 since time 0."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.counters = dict.fromkeys(COUNTERS, 100)
        for node in (1, 2):
            register_nodes.write_node(store, node, name=f"node-{node}")
        register.create_vm(store, name="web", uuid=None, hostnode=1)
        policy.set_status_check(store, on=True)
        self.event("started", "booted", time=0)

    def event(self, kind: str, detail: str, *, time: int, node: int = 1) -> None:
        told = VmEvent(
            hostnode=node,
            name="web",
            type=kind,
            subtype=detail,
            uuid=None,
            status=None,
            cause=None,
            source="event",
            earliest=None,
            time=time,
            event_id=None,
        )
        register.record_event(self.store, told, clock=lambda: time, create=False)

    def collect(
        self, time: int, *, sent: int = 0, written: int = 0, node: int = 1, run: str = "7", disks: int = 1
    ) -> None:
        """What the VM did since the last collection."""
        self.counters["packets_sent"] += sent
        self.counters["write_requests"] += written
        self.counters["write_bytes"] += 512 * written
        self.tell(time, {"name": "web", "run": run, "interfaces": 1, "disks": disks, **self.counters}, node)

    def tell(self, time: int, domain: dict[str, Any], node: int = 1) -> None:
        register_statistics.record_statistics(self.store, node, [domain], time=time)

    @property
    def vm(self) -> shown_vms.Vm:
        vm = shown_vms.vm_by_name(self.store.connection, "web")
        assert vm is not None
        return vm

    @property
    def samples(self) -> list[tuple[int, float, int, int]]:
        return [
            tuple(row)
            for row in self.store.connection.execute(
                "SELECT time, seconds, packets_sent, write_bytes FROM sample ORDER BY time"
            )
        ]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    store = Store(tmp_path / "panel.db")
    yield Cluster(store)
    store.close()


def test_the_latest_is_kept(cluster: Cluster) -> None:
    for time, value in ((10, 1), (30, 3), (20, 2)):
        cluster.tell(time, {"name": "web", "rx": value})
    rows = cluster.store.connection.execute("SELECT time, domain FROM statistics").fetchall()
    assert [tuple(row) for row in rows] == [(30, '{"name": "web", "rx": 3}')]


def test_an_unknown_node_is_missed(cluster: Cluster) -> None:
    with pytest.raises(ApiError) as caught:
        cluster.collect(10, node=3)
    assert (caught.value.kind, caught.value.subject) == (ErrorType.MISSED, "hostnode")


def test_two_collections_are_one_sample(cluster: Cluster) -> None:
    cluster.collect(1000)
    assert cluster.samples == []
    cluster.collect(601_000, sent=3, written=2)
    cluster.collect(1_201_000, sent=1)
    assert cluster.samples == [(601_000, 600.0, 3, 1024), (1_201_000, 600.0, 1, 0)]
    cluster.collect(1_201_000, sent=1)  # told again
    cluster.collect(900_000, sent=1)  # late
    assert len(cluster.samples) == 2


def test_a_domain_that_is_no_vm_of_the_panels_is_only_kept(cluster: Cluster) -> None:
    for time in (1000, 601_000):
        cluster.tell(time, {"name": "other", "run": "7", "interfaces": 1, "disks": 1, **cluster.counters})
    assert cluster.samples == []
    assert cluster.store.connection.execute("SELECT count(*) FROM idle").fetchone()[0] == 0


def test_after_two_collections_the_idle_one_is_warned_of_until_it_moves(cluster: Cluster) -> None:
    cluster.collect(1000)
    assert cluster.vm.warning == ""
    cluster.collect(601_000)
    vm = cluster.vm
    assert vm.warning == "network,disk"
    assert (vm.idle_packets, vm.idle_writes, vm.idle_seconds, vm.idle_since) == (0, 0, 600.0, 1000)
    cluster.collect(1_201_000, sent=7)
    vm = cluster.vm
    assert (vm.warning, vm.idle_packets, vm.idle_since) == ("disk", 7, 1000)
    cluster.collect(1_801_000, sent=1, written=1)
    assert cluster.vm.warning == ""
    assert cluster.vm.idle_seconds is None


@pytest.mark.parametrize("change", [{"run": "8"}, {"disks": 2}, {"sent": -50}])
def test_a_new_interval_begins_without_a_warning(cluster: Cluster, change: dict[str, Any]) -> None:
    """A start or a reset that no event has told of, yet or at all."""
    cluster.collect(1000)
    cluster.collect(601_000)
    assert cluster.vm.warning
    cluster.collect(1_201_000, **change)
    assert cluster.vm.warning == ""


def test_what_is_told_again_changes_nothing(cluster: Cluster) -> None:
    for time in (1000, 601_000, 601_000):
        cluster.collect(time)
    assert cluster.vm.warning == "network,disk"
    assert len(cluster.samples) == 1


def test_who_moves_is_not_warned_of(cluster: Cluster) -> None:
    cluster.collect(1000)
    cluster.collect(601_000, sent=1, written=1)
    assert cluster.vm.warning == ""


def test_a_busy_qemu_is_not_an_idle_disk(cluster: Cluster) -> None:
    cluster.collect(1000, written=5)
    cluster.collect(601_000, disks=0, sent=1)  # libvirt had no answer about its disks
    assert cluster.vm.warning == ""
    cluster.collect(1_201_000, sent=1)
    assert cluster.vm.warning == ""  # a new interval began
    assert cluster.samples == []


@pytest.mark.parametrize(
    ("kind", "detail"),
    [("stopped", "destroyed"), ("suspended", "paused"), ("rebooted", "reset"), ("resumed", "unpaused")],
)
def test_an_event_ends_the_warning_and_a_new_interval_begins(
    cluster: Cluster, kind: str, detail: str
) -> None:
    cluster.collect(1000)
    cluster.collect(601_000)
    assert cluster.vm.warning
    cluster.event(kind, detail, time=700_000)
    assert cluster.vm.warning == ""
    cluster.event("resumed", "unpaused", time=800_000)
    cluster.collect(1_201_000)  # from 601,000 on, within which something happened
    assert cluster.vm.warning == ""
    assert len(cluster.samples) == 2  # the plots have it all the same
    cluster.collect(1_801_000)
    assert cluster.vm.warning == "network,disk"


def test_who_does_not_run_is_not_warned_of(cluster: Cluster) -> None:
    cluster.event("suspended", "paused", time=500)
    cluster.collect(1000)
    cluster.collect(601_000)
    assert cluster.vm.warning == ""


def test_a_migrated_vm_begins_anew_on_its_node(cluster: Cluster) -> None:
    cluster.collect(1000)
    cluster.collect(601_000)
    cluster.event("started", "migrated", time=700_000, node=2)
    cluster.event("stopped", "migrated", time=700_001)
    cluster.event("resumed", "migrated", time=700_002, node=2)
    assert cluster.vm.hostnode == 2
    cluster.collect(1_201_000, node=2, run="3")
    cluster.collect(1_201_000)  # the old node's last word, late
    assert cluster.vm.warning == ""
    cluster.collect(1_801_000, node=2, run="3")
    assert cluster.vm.warning == "network,disk"
    cluster.collect(1_900_000, run="8", sent=5)  # whatever the old node says of one with its name
    assert cluster.vm.warning == "network,disk"


def test_of_an_unreachable_node_nothing_is_known(cluster: Cluster) -> None:
    cluster.collect(1000)
    cluster.collect(601_000)
    report = ProblemReport(problem="node_silent", hostnode=1, name="", raised=True, text="")
    register.record_problem(cluster.store, report, now=700_000)
    assert cluster.vm.warning == ""
    cluster.collect(1_201_000)  # late
    assert cluster.vm.warning == ""


def test_switched_off_there_are_samples_and_no_warnings(cluster: Cluster) -> None:
    cluster.collect(1000)
    cluster.collect(601_000)
    policy.set_status_check(cluster.store, on=False)
    assert cluster.vm.warning == ""
    cluster.collect(1_201_000)
    assert cluster.vm.warning == ""
    assert len(cluster.samples) == 2
    policy.set_status_check(cluster.store, on=True)
    cluster.collect(1_801_000)
    assert cluster.vm.warning == "network,disk"


def test_the_policys_defaults(tmp_path: Path) -> None:
    store = Store(tmp_path / "other.db")
    assert policy.read(store.connection) == policy.Policy(status_check=False, history_days=90)
    policy.set_history_days(store, 7)
    assert policy.read(store.connection) == policy.Policy(status_check=False, history_days=7)
    store.close()
