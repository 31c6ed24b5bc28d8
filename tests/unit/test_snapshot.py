# SPDX-License-Identifier: Apache-2.0
"""The differences between the known set and libvirt's list, one by one and in general."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmwatch import events
from vmwatch.events import CopyState
from vmwatch.snapshot import Finding, Known, after, completed, differences

NOW = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
BEFORE = datetime(2030, 1, 2, 3, 0, 0, tzinfo=UTC)
UUIDS = tuple(f"00000000-0000-0000-0000-00000000000{number}" for number in range(4))
A, B, C, _ = UUIDS
SHUTOFF, CRASHED = 5, 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Domain:
    uuid: str
    name: str
    type: str
    subtype: str
    state: CopyState
    domain_id: int | None


def seen(uuid: str, told: str, *, name: str = "vm", domain_id: int | None = None) -> Domain:
    """A domain of libvirt's list, from the event that a snapshot tells of it: `started(booted)`."""
    kind, subtype = told.removesuffix(")").split("(")
    state = events.effect(kind, subtype)
    assert state
    return Domain(uuid=uuid, name=name, type=kind, subtype=subtype, state=state, domain_id=domain_id)


def known(state: CopyState, *, name: str = "vm", domain_id: int | None = None) -> Known:
    return Known(name=name, state=state, domain_id=domain_id)


def apply(start: dict[str, Known], findings: list[Finding]) -> dict[str, Known]:
    ends = dict(start)
    for finding in findings:
        if (now_known := after(ends.get(finding.uuid), finding)) is None:
            del ends[finding.uuid]
        else:
            ends[finding.uuid] = now_known
    return ends


def told(start: dict[str, Known], found: list[Domain], *, skip: tuple[str, ...] = ()) -> list[str]:
    findings = differences(start, found, skip=skip, now=NOW, since=BEFORE)
    assert all((finding.time, finding.since) == (NOW, BEFORE) for finding in findings)
    return [f"{finding.name} {finding.type}({finding.subtype})" for finding in findings]


@pytest.mark.parametrize(
    ("was", "found", "expected"),
    [
        pytest.param(None, seen(A, "started(booted)", domain_id=1), ["vm started(booted)"], id="new, runs"),
        pytest.param(
            None,
            seen(A, "stopped(saved)"),
            ["vm defined(added)", "vm stopped(saved)"],
            id="new, does not run",
        ),
        pytest.param(
            None, seen(A, "suspended(migrated)", domain_id=1), ["vm started(migrated)"], id="new, incoming"
        ),
        pytest.param(known(CopyState.STOPPED), None, ["vm undefined(removed)"], id="undefined"),
        pytest.param(
            known(CopyState.RUNNING, domain_id=1),
            None,
            ["vm stopped(unknown)", "vm undefined(removed)"],
            id="transient, vanished",
        ),
        pytest.param(
            known(CopyState.LEAVING, domain_id=1),
            None,
            ["vm stopped(migrated)", "vm undefined(removed)"],
            id="left, for good",
        ),
        pytest.param(
            known(CopyState.RUNNING, domain_id=1),
            seen(A, "stopped(failed)"),
            ["vm stopped(failed)"],
            id="its QEMU was killed",
        ),
        pytest.param(
            known(CopyState.RUNNING, domain_id=1), seen(A, "started(booted)", domain_id=1), [], id="ran on"
        ),
        pytest.param(
            known(CopyState.RUNNING, domain_id=1),
            seen(A, "started(booted)", domain_id=2),
            ["vm stopped(unknown)", "vm started(booted)"],
            id="was off in between",
        ),
        pytest.param(
            known(CopyState.RUNNING),
            seen(A, "started(booted)", domain_id=2),
            [],
            id="runs, and its events gave no id",
        ),
        pytest.param(
            known(CopyState.RUNNING, domain_id=1),
            seen(A, "suspended(ioerror)", domain_id=1),
            ["vm suspended(ioerror)"],
            id="paused",
        ),
        pytest.param(
            known(CopyState.INCOMING, domain_id=1),
            seen(A, "suspended(migrated)", domain_id=1),
            [],
            id="still incoming",
        ),
        pytest.param(
            known(CopyState.RUNNING, domain_id=1),
            seen(A, "suspended(migrated)", domain_id=1),
            ["vm suspended(migrated)"],
            id="about to leave",
        ),
        pytest.param(
            known(CopyState.LEAVING, domain_id=1),
            seen(A, "stopped(migrated)"),
            ["vm stopped(migrated)"],
            id="has left",
        ),
        pytest.param(
            known(CopyState.STOPPED),
            seen(A, "stopped(unknown)", name="new"),
            ["vm undefined(renamed)", "new defined(renamed)"],
            id="renamed",
        ),
        pytest.param(
            known(CopyState.RUNNING, domain_id=1),
            seen(A, "started(booted)", name="new", domain_id=2),
            ["vm stopped(unknown)", "vm undefined(renamed)", "new defined(renamed)", "new started(booted)"],
            id="stopped, renamed, started",
        ),
        pytest.param(None, seen(A, "suspended(starting_up)", domain_id=1), [], id="new, about to start"),
        pytest.param(
            known(CopyState.STOPPED), seen(A, "suspended(starting_up)", domain_id=1), [], id="about to start"
        ),
        pytest.param(
            known(CopyState.RUNNING, domain_id=1),
            seen(A, "suspended(starting_up)", domain_id=2),
            ["vm stopped(unknown)"],
            id="was off, and is about to start",
        ),
        pytest.param(None, seen(A, "started(booted)", name="guestfs-x1", domain_id=9), [], id="appliance"),
    ],
)
def test_difference(was: Known | None, found: Domain | None, expected: list[str]) -> None:
    start = {A: was} if was else {}
    assert told(start, [found] if found else []) == expected


@pytest.mark.parametrize("state", [CopyState.STOPPED, CopyState.SAVED, CopyState.CRASHED, CopyState.DEPARTED])
def test_why_a_domain_is_off_is_remembered_though_libvirtd_forgets_it(state: CopyState) -> None:
    assert told({A: known(state)}, [seen(A, "stopped(unknown)")]) == []


def test_a_killed_qemu_is_told_once_though_event_and_list_name_it_differently() -> None:
    """The event says stopped(failed); the list, crashed."""
    was = after(known(CopyState.RUNNING, domain_id=1), finding("stopped", "failed"))
    assert was
    assert told({A: was}, [seen(A, "stopped(crashed)")]) == []


def test_nothing_ran_on_when_the_host_restarted() -> None:
    start = {A: known(CopyState.RUNNING, domain_id=-1)}  # as the outbox has it then: no domain has this id
    found = [seen(A, "started(booted)", domain_id=1)]
    findings = differences(start, found, skip=(), now=NOW, since=BEFORE)
    assert [(finding.type, finding.subtype) for finding in findings] == [
        ("stopped", "unknown"),
        ("started", "booted"),
    ]
    assert differences(apply(start, findings), found, skip=(), now=NOW, since=BEFORE) == []


def test_who_had_an_event_since_the_reading_began_is_left() -> None:
    start = {A: known(CopyState.RUNNING, domain_id=1), B: known(CopyState.STOPPED)}
    found = [seen(B, "started(booted)", domain_id=2), seen(C, "stopped(unknown)")]
    assert told(start, found, skip=(A, B, C)) == []


def test_a_name_is_free_before_another_domain_takes_it() -> None:
    start = {A: known(CopyState.STOPPED, name="one"), B: known(CopyState.STOPPED, name="two")}
    found = [seen(A, "stopped(unknown)", name="two"), seen(C, "started(booted)", name="one", domain_id=3)]
    assert told(start, found) == [
        "one undefined(renamed)",
        "two undefined(removed)",
        "two defined(renamed)",
        "one started(booted)",
    ]


def finding(kind: str, subtype: str, *, name: str = "vm", domain_id: int | None = None) -> Finding:
    return Finding(uuid=A, name=name, type=kind, subtype=subtype, time=NOW, since=None, domain_id=domain_id)


@pytest.mark.parametrize(
    ("was", "event", "is_now"),
    [
        (None, finding("defined", "added"), known(CopyState.STOPPED)),
        (None, finding("undefined", "removed"), None),
        (None, finding("started", "migrated", domain_id=4), known(CopyState.INCOMING, domain_id=4)),
        (
            known(CopyState.STOPPED),
            finding("started", "booted", domain_id=4),
            known(CopyState.RUNNING, domain_id=4),
        ),
        (
            known(CopyState.RUNNING, domain_id=4),
            finding("defined", "updated"),
            known(CopyState.RUNNING, domain_id=4),
        ),
        (
            known(CopyState.RUNNING, domain_id=4),
            finding("undefined", "removed"),
            known(CopyState.RUNNING, domain_id=4),
        ),
        (
            known(CopyState.RUNNING, domain_id=4),
            finding("stopped", "shutdown", domain_id=4),
            known(CopyState.STOPPED),
        ),
        (known(CopyState.STOPPED), finding("undefined", "removed"), None),
        (known(CopyState.STOPPED), finding("undefined", "renamed"), known(CopyState.STOPPED)),
        (
            known(CopyState.STOPPED),
            finding("defined", "renamed", name="new"),
            known(CopyState.STOPPED, name="new"),
        ),
        (
            known(CopyState.PAUSED, domain_id=4),
            finding("rebooted", "reset", domain_id=4),
            known(CopyState.PAUSED, domain_id=4),
        ),
        (
            known(CopyState.PAUSED, domain_id=4),
            finding("unknown-17", "unknown-0", domain_id=4),
            known(CopyState.PAUSED, domain_id=4),
        ),
    ],
)
def test_after(was: Known | None, event: Finding, is_now: Known | None) -> None:
    assert after(was, event) == is_now


NAMES = st.sampled_from(["one", "two", "three"])
IDS = st.integers(1, 3)


@st.composite
def lists(draw: st.DrawFn) -> list[Domain]:
    """What libvirt may list: any state and reason; an id for what has a process, and for nothing else."""
    found = []
    for uuid in draw(st.lists(st.sampled_from(UUIDS), unique=True)):
        state, reason = draw(st.integers(0, 8)), draw(st.integers(0, 16))
        kind, subtype = events.state_event(state, reason)
        is_alive = state not in {SHUTOFF, CRASHED} or (state == CRASHED and draw(st.booleans()))
        found.append(
            Domain(
                uuid=uuid,
                name=draw(NAMES),
                type=kind,
                subtype=subtype,
                state=events.copy_state(state, reason),
                domain_id=draw(IDS) if is_alive else None,
            )
        )
    return found


def is_starting(domain: Domain) -> bool:
    """Of such a one libvirt is about to tell."""
    return (domain.type, domain.subtype) == ("suspended", "starting_up")


KNOWN_SETS = st.dictionaries(
    st.sampled_from(UUIDS),
    st.builds(
        Known,
        name=NAMES,
        state=st.sampled_from(sorted(set(CopyState) - {CopyState.GONE})),
        domain_id=st.none() | IDS,
    ),
)
SKIPS = st.sets(st.sampled_from(UUIDS))


@given(KNOWN_SETS, lists(), SKIPS)
def test_no_change_is_told_twice(start: dict[str, Known], found: list[Domain], skip: set[str]) -> None:
    first = differences(start, found, skip=skip, now=NOW, since=None)
    assert differences(apply(start, first), found, skip=skip, now=NOW, since=None) == []


@given(KNOWN_SETS, lists(), SKIPS)
def test_what_is_told_leads_to_what_libvirt_shows(
    start: dict[str, Known], found: list[Domain], skip: set[str]
) -> None:
    findings = differences(start, found, skip=skip, now=NOW, since=None)
    ends = apply(start, findings)
    listed = {domain.uuid: domain for domain in found}
    for uuid in UUIDS:
        if uuid in skip:
            assert ends.get(uuid) == start.get(uuid)
        elif uuid in listed and is_starting(listed[uuid]):
            continue  # its events lead there
        elif uuid not in listed:
            assert uuid not in ends
        else:
            assert ends[uuid].name == listed[uuid].name
            is_known = uuid not in start or ends[uuid].state == start[uuid].state  # what libvirt cannot tell
            assert ends[uuid].state == listed[uuid].state or (
                is_known and listed[uuid].subtype in {"unknown", "migrated", "crashed"}
            )


@given(lists())
def test_nothing_is_told_of_what_is_known(found: list[Domain]) -> None:
    as_known = {
        domain.uuid: Known(name=domain.name, state=domain.state, domain_id=domain.domain_id)
        for domain in found
    }
    assert differences(as_known, found, skip=(), now=NOW, since=None) == []


@given(lists())
def test_a_first_snapshot_tells_of_every_domain(found: list[Domain]) -> None:
    findings = differences({}, found, skip=(), now=NOW, since=None)
    found = [domain for domain in found if not is_starting(domain)]
    assert {finding.uuid for finding in findings} == {domain.uuid for domain in found}
    assert {uuid: end.state for uuid, end in apply({}, findings).items()} == {
        domain.uuid: CopyState.INCOMING
        if (domain.type, domain.subtype) == ("suspended", "migrated")
        else domain.state
        for domain in found
    }


# --- what must have come before an event ---


def event(uuid: str, kind: str, subtype: str, *, name: str = "vm", domain_id: int | None = None) -> Finding:
    """As heard: told apart from what is found by being the very same object."""
    return Finding(
        uuid=uuid, name=name, type=kind, subtype=subtype, time=NOW, since=None, domain_id=domain_id
    )


def completions(start: dict[str, Known], *heard: Finding) -> list[str]:
    """What is told, the uuid's last digit first; what was not heard in brackets."""
    lines = []
    for line in completed(start, heard, now=NOW, since=BEFORE):
        text = f"{line.uuid[-1]} {line.name} {line.type}({line.subtype})"
        lines.append(text if line in heard else f"[{text}]")
    return lines


def test_who_bore_a_name_has_left_before_another_is_told_of_under_it() -> None:
    was = {A: known(CopyState.RUNNING, domain_id=1), B: known(CopyState.STOPPED, name="other")}
    assert completions(was, event(C, "defined", "added"), event(C, "started", "booted", domain_id=1)) == [
        "[0 vm stopped(unknown)]",
        "[0 vm undefined(removed)]",
        "2 vm defined(added)",
        "2 vm started(booted)",
    ]
    assert completions({A: known(CopyState.STOPPED)}, event(B, "started", "booted", domain_id=1)) == [
        "[0 vm undefined(removed)]",
        "1 vm started(booted)",
    ]


def test_a_domain_that_came_and_went_unheard_had_the_name_too() -> None:
    assert completions({A: known(CopyState.STOPPED)}, event(B, "undefined", "removed")) == [
        "[0 vm undefined(removed)]",
        "1 vm undefined(removed)",
    ]


def test_what_was_heard_is_not_found_again() -> None:
    was = {A: known(CopyState.STOPPED)}
    assert completions(was, event(A, "undefined", "removed"), event(B, "defined", "added")) == [
        "0 vm undefined(removed)",
        "1 vm defined(added)",
    ]
    renamed = event(A, "undefined", "renamed"), event(A, "defined", "renamed", name="new")
    assert completions(was, *renamed, event(B, "defined", "added")) == [
        "0 vm undefined(renamed)",
        "0 new defined(renamed)",
        "1 vm defined(added)",
    ]


def test_what_is_known_after_a_completion_has_no_name_twice() -> None:
    """So the comparison that follows has nothing more to tell of who is gone."""
    was = {A: known(CopyState.RUNNING, domain_id=1)}
    heard = event(B, "started", "booted", domain_id=1)
    ends = apply(was, completed(was, [heard], now=NOW, since=BEFORE))
    assert ends == {B: known(CopyState.RUNNING, domain_id=1)}
    assert told(ends, [seen(B, "started(booted)", domain_id=1)]) == []
