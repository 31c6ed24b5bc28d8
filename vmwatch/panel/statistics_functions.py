# SPDX-License-Identifier: Apache-2.0
"""The API's functions about statistics: a node's counters come in, a VM's samples go out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from vmwatch.panel import fields, register_statistics
from vmwatch.panel.call import Content, Function, Kind
from vmwatch.panel.convention import OK, listing
from vmwatch.panel.fields import iso
from vmwatch.panel.lookup import find_vm

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vmwatch.panel.call import Call

_SAMPLES: Final = (
    "SELECT time, seconds, bytes_received, bytes_sent, packets_sent, read_bytes, write_bytes, write_requests"
    " FROM sample WHERE vm = ? ORDER BY time DESC LIMIT ? OFFSET ?"
)


def statistics(call: Call) -> Content:
    """`vmwatch.statistics`: the counters of all domains of a node."""
    hostnode = call.fields.required_number("hostnode")
    time = call.fields.time("time") or call.panel.clock()
    register_statistics.record_statistics(call.panel.store, hostnode, fields.domains(call.fields), time=time)
    return OK


def samples(call: Call) -> Content:
    """`vm.samples`: what a VM (elid) did between two collections, the newest first; `time` is an interval's end."""
    connection = call.panel.store.connection
    vm = find_vm(call, call.fields.text("elid")).id
    paging = call.fields.paging()
    found = connection.execute(_SAMPLES, (vm, paging.size, paging.offset))
    rows = [{**dict(row), "time": iso(row["time"])} for row in found]
    (total,) = connection.execute("SELECT count(*) FROM sample WHERE vm = ?", (vm,)).fetchone()
    return listing(rows, paging=paging, total=total)


FUNCTIONS: Final[Mapping[str, Function]] = {
    "vm.samples": Function(handler=samples, kind=Kind.READS),
    "vmwatch.statistics": Function(handler=statistics, kind=Kind.WRITES),
}
