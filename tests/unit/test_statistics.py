# SPDX-License-Identifier: Apache-2.0
"""What is summed over a domain's devices."""

from __future__ import annotations

from vmwatch.statistics import count_devices, sum_counters


def test_counters_are_summed_over_devices() -> None:
    record: dict[str, int | str] = {
        "state.state": 1,
        "net.count": 2,
        "net.0.name": "vnet0",
        "net.0.rx.bytes": 10,
        "net.0.rx.pkts": 1,
        "net.0.tx.bytes": 20,
        "net.0.tx.pkts": 2,
        "net.1.rx.bytes": 100,
        "net.1.tx.pkts": 4,
        "net.2.tx.pkts": 1000,  # beyond the count
        "block.count": 2,
        "block.0.rd.reqs": 3,
        "block.0.rd.bytes": 4096,
        "block.1.rd.bytes": 512,
        "block.1.wr.reqs": 5,
        "block.1.wr.bytes": 6,
    }
    assert sum_counters(record) == {
        "packets_received": 1,
        "packets_sent": 6,
        "bytes_received": 110,
        "bytes_sent": 20,
        "read_requests": 3,
        "write_requests": 5,
        "read_bytes": 4608,
        "write_bytes": 6,
    }


def test_a_domain_whose_monitor_does_not_answer_has_no_counters() -> None:
    assert set(sum_counters({"state.state": 1}).values()) == {0}


def test_devices_count_that_libvirt_counts_and_the_guest_can_write() -> None:
    record: dict[str, int | str] = {
        "net.count": 2,
        "net.0.tx.pkts": 0,
        "net.1.name": "a device of QEMU's own",
        "block.count": 4,
        "block.0.name": "vda",
        "block.0.wr.reqs": 0,
        "block.1.name": "sdb",
        "block.1.wr.reqs": 7,
        "block.2.name": "hdc",
        "block.2.wr.reqs": 0,
        "block.3.name": "vdd",
        "block.3.capacity": 4096,  # all that libvirt tells when QEMU is busy
    }
    assert count_devices(record, {"vda", "sdb", "vdd"}) == {"interfaces": 1, "disks": 2}
    assert count_devices({}, {"vda"}) == {"interfaces": 0, "disks": 0}
