# SPDX-License-Identifier: Apache-2.0
"""What of a service's files wants a hand, and how it reads. That it is read right: tests/integration/test_cli.py."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from vmwatch.status import BEHIND, Aside, Ledger, Outbox, Service

NOW = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)
RUN = f"{1_700_000_000_000_000:016x}{0xABCDEF01:016x}"


def ledger(
    *,
    oldest: datetime | None = None,
    aside: tuple[Aside, ...] = (),
    problems: tuple[str, ...] = (),
    told: tuple[str, ...] = (),
    unread: int = 0,
) -> Ledger:
    return Ledger(nodes=(), calls=7, oldest=oldest, aside=aside, problems=problems, told=told, unread=unread)


def test_a_call_may_wait_as_long_as_its_vm_may_be_on_its_way() -> None:
    assert ledger(oldest=NOW - BEHIND).wants(NOW) == []
    late = ledger(oldest=NOW - BEHIND - timedelta(seconds=1)).wants(NOW)
    assert late == ["the panel does not take calls: 7 wait, since 2026-11-22T09:57:59Z"]


def test_each_thing_that_wants_a_hand_is_named() -> None:
    aside = Aside(id=1, func="vm.event", about="vm web", reason="value: no")
    found = ledger(aside=(aside, aside), problems=("node_silent, node 3",), unread=1).wants(NOW)
    assert found == [
        "open problem: node_silent, node 3",
        "calls put aside: 2 (vmwatch parked)",
        "records that a newer version can read: 1",
    ]


def test_what_was_told_once_is_shown_and_left_to_the_panel() -> None:
    once = ledger(told=("events_lost 3",))
    assert "told: events_lost 3" in once.lines()
    assert once.wants(NOW) == []


def test_a_file_that_is_not_finished_wants_nothing_while_it_is_disabled() -> None:
    lacks = "node.conf: connect: missing"
    service = Service(name="vmwatch-node", disabled=True, pid=None, state=None, unfinished=lacks)
    assert service.wants(NOW) == []
    assert service.lines(NOW) == ["vmwatch-node: not running, blocked by disabled=yes", f"  {lacks}"]


def test_a_long_list_is_cut_in_text() -> None:
    lines = ledger(problems=tuple(f"vm_unknown, name {number}" for number in range(25))).lines()
    shown = [line for line in lines if line.startswith("problem: ")]
    assert (shown[0], len(shown), shown[-1]) == ("problem: 5 more", 21, "problem: vm_unknown, name 24")


def test_a_service_that_stopped_is_told_with_what_it_left() -> None:
    outbox = Outbox(run=RUN, last=4, kept=5, unsent=0, vms={"running": 2, "paused": 1})
    stopped = Service(name="vmwatch-node", disabled=False, pid=None, state=outbox)
    assert stopped.lines(NOW) == [
        "vmwatch-node: not running",
        "  run abcdef01 of 2023-11-14T22:13:20Z, last record 4",
        "  records: 5 kept; which of them the master has, its own status says",
        "  known VMs: 3 (1 paused, 2 running)",
        "  wants a hand: the service does not run",
    ]
