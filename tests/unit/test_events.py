# SPDX-License-Identifier: Apache-2.0
"""The tables against the constants of the installed libvirt, and what they make of each number."""

from __future__ import annotations

from typing import TYPE_CHECKING

import libvirt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmwatch import events
from vmwatch.events import CopyState, EventType

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# libvirt's other enumerations whose constants begin as those of the tables do.
NOT_LIFECYCLE = (
    *("ID_", "GRAPHICS_", "DISK_CHANGE_", "DISK_DROP_", "TRAY_CHANGE_", "MEMORY_FAILURE_"),
    *("IO_ERROR_", "WATCHDOG_"),
)
SHUTDOWN_FLAGS = ("DEFAULT", "ACPI_POWER_BTN", "GUEST_AGENT", "INITCTL", "SIGNAL", "PARAVIRT")
NOT_REASONS = {
    *(f"VIR_DOMAIN_SHUTDOWN_{flag}" for flag in SHUTDOWN_FLAGS),
    "VIR_DOMAIN_PMSUSPENDED_DISK_UNKNOWN",  # of a state that no driver of libvirt uses
}


def installed(prefix: str) -> dict[str, int]:
    """The installed libvirt's constants below `prefix`, in lower case without it."""
    return {
        name.removeprefix(prefix).lower(): value
        for name, value in vars(libvirt).items()
        if name.startswith(prefix) and not name.endswith("_LAST") and name not in NOT_REASONS
    }


def numbered(names: Sequence[str], prefix: str = "") -> dict[str, int]:
    return {prefix + name: number for number, name in enumerate(names)}


def assert_covers(table: Mapping[str, int], libvirts: Mapping[str, int]) -> None:
    """A newer libvirt may know less than the tables (never more), and never by other numbers."""
    assert libvirts
    assert set(libvirts) - set(table) == set(), "vmwatch/events.py lacks these names of the installed libvirt"
    assert {name: table[name] for name in libvirts} == libvirts


def test_lifecycle_events_and_details_are_all_known() -> None:
    libvirts = {
        name: number
        for name, number in installed("VIR_DOMAIN_EVENT_").items()
        if not name.upper().startswith(NOT_LIFECYCLE)
    }
    table = numbered(list(events.DETAILS))
    for kind, details in events.DETAILS.items():
        table |= numbered(details, f"{kind}_")
    assert_covers(table, libvirts)


@pytest.mark.parametrize(
    ("names", "prefix"),
    [
        (events.IOERROR_ACTIONS, "VIR_DOMAIN_EVENT_IO_ERROR_"),
        (events.WATCHDOG_ACTIONS, "VIR_DOMAIN_EVENT_WATCHDOG_"),
        *(
            ([reason for reason, _, _ in reasons], f"VIR_DOMAIN_{state.upper()}_")
            for state, reasons in events.REASONS.items()
        ),
    ],
)
def test_actions_and_reasons_are_all_known(names: Sequence[str], prefix: str) -> None:
    assert_covers(numbered(names), installed(prefix))


def test_states_have_libvirts_numbers() -> None:
    assert tuple(events.REASONS) == events.STATES
    for number, state in enumerate(events.STATES):
        assert getattr(libvirt, f"VIR_DOMAIN_{state.upper()}") == number


@pytest.mark.parametrize(
    ("event", "detail", "names"),
    [
        (libvirt.VIR_DOMAIN_EVENT_DEFINED, libvirt.VIR_DOMAIN_EVENT_DEFINED_ADDED, ("defined", "added")),
        (
            libvirt.VIR_DOMAIN_EVENT_STOPPED,
            libvirt.VIR_DOMAIN_EVENT_STOPPED_FROM_SNAPSHOT,
            ("stopped", "from_snapshot"),
        ),
        (
            libvirt.VIR_DOMAIN_EVENT_CRASHED,
            libvirt.VIR_DOMAIN_EVENT_CRASHED_CRASHLOADED,
            ("crashed", "crashloaded"),
        ),
        (libvirt.VIR_DOMAIN_EVENT_STOPPED, 99, ("stopped", "unknown-99")),
        (17, 0, ("unknown-17", "unknown-0")),
        (-1, -1, ("unknown--1", "unknown--1")),
    ],
)
def test_numbers_become_names(event: int, detail: int, names: tuple[str, str]) -> None:
    assert (events.event_name(event), events.detail_name(event, detail)) == names


def test_actions_become_names() -> None:
    assert events.ioerror_name(libvirt.VIR_DOMAIN_EVENT_IO_ERROR_PAUSE) == "pause"
    assert events.ioerror_name(9) == "unknown-9"
    assert events.watchdog_name(libvirt.VIR_DOMAIN_EVENT_WATCHDOG_INJECTNMI) == "injectnmi"
    assert events.watchdog_name(9) == "unknown-9"


@pytest.mark.parametrize(
    ("kind", "subtype", "state"),
    [
        ("defined", "added", None),
        ("undefined", "removed", CopyState.GONE),
        ("undefined", "renamed", None),
        ("started", "booted", CopyState.RUNNING),
        ("started", "migrated", CopyState.INCOMING),
        ("started", "unknown-9", CopyState.RUNNING),
        ("suspended", "paused", CopyState.PAUSED),
        ("suspended", "migrated", CopyState.LEAVING),
        ("suspended", "postcopy", CopyState.LEAVING),
        ("suspended", "postcopy_failed", CopyState.PAUSED),
        ("resumed", "migrated", CopyState.RUNNING),
        ("resumed", "postcopy", CopyState.RUNNING),
        ("stopped", "shutdown", CopyState.STOPPED),
        ("stopped", "failed", CopyState.STOPPED),
        ("stopped", "crashed", CopyState.CRASHED),
        ("stopped", "migrated", CopyState.DEPARTED),
        ("stopped", "saved", CopyState.SAVED),
        ("stopped", "unknown-12", CopyState.STOPPED),
        ("shutdown", "guest", None),
        ("pmsuspended", "disk", CopyState.SLEEPING),
        ("crashed", "panicked", CopyState.CRASHED),
        ("crashed", "crashloaded", None),
        ("rebooted", "reset", None),
        ("ioerror", "report", None),
        ("watchdog", "reset", None),
        ("unknown-17", "unknown-0", None),
    ],
)
def test_effect(kind: str, subtype: str, state: CopyState | None) -> None:
    assert events.effect(kind, subtype) == state


@pytest.mark.parametrize(
    ("state", "reason", "told", "copy"),
    [
        ("NOSTATE", "NOSTATE_UNKNOWN", ("started", "unknown"), CopyState.RUNNING),
        ("RUNNING", "RUNNING_BOOTED", ("started", "booted"), CopyState.RUNNING),
        ("RUNNING", "RUNNING_MIGRATED", ("resumed", "migrated"), CopyState.RUNNING),
        ("BLOCKED", "BLOCKED_UNKNOWN", ("started", "unknown"), CopyState.RUNNING),
        ("PAUSED", "PAUSED_USER", ("suspended", "paused"), CopyState.PAUSED),
        ("PAUSED", "PAUSED_MIGRATION", ("suspended", "migrated"), CopyState.LEAVING),
        ("PAUSED", "PAUSED_CRASHED", ("crashed", "panicked"), CopyState.CRASHED),
        ("SHUTDOWN", "SHUTDOWN_USER", ("started", "unknown"), CopyState.RUNNING),
        ("SHUTOFF", "SHUTOFF_DESTROYED", ("stopped", "destroyed"), CopyState.STOPPED),
        ("SHUTOFF", "SHUTOFF_FAILED", ("stopped", "failed"), CopyState.STOPPED),
        ("SHUTOFF", "SHUTOFF_SAVED", ("stopped", "saved"), CopyState.SAVED),
        ("SHUTOFF", "SHUTOFF_MIGRATED", ("stopped", "migrated"), CopyState.DEPARTED),
        ("CRASHED", "CRASHED_UNKNOWN", ("crashed", "unknown"), CopyState.CRASHED),
        ("PMSUSPENDED", "PMSUSPENDED_UNKNOWN", ("pmsuspended", "unknown"), CopyState.SLEEPING),
    ],
)
def test_what_a_snapshot_tells(state: str, reason: str, told: tuple[str, str], copy: CopyState) -> None:
    numbers = getattr(libvirt, f"VIR_DOMAIN_{state}"), getattr(libvirt, f"VIR_DOMAIN_{reason}")
    assert events.state_event(*numbers) == told
    assert events.copy_state(*numbers) == copy


def test_unknown_states_and_reasons_say_so_and_never_stop_a_vm() -> None:
    assert events.state_event(libvirt.VIR_DOMAIN_SHUTOFF, 77) == ("stopped", "unknown-77")
    assert events.state_event(42, 7) == ("started", "unknown-7")
    assert events.copy_state(42, 7) == CopyState.RUNNING


@given(st.integers(-2, 12), st.integers(-2, 40))
def test_what_a_snapshot_tells_leads_to_the_state_it_saw(state: int, reason: int) -> None:
    kind, subtype = events.state_event(state, reason)
    assert kind in set(EventType)
    assert subtype
    assert events.effect(kind, subtype) == events.copy_state(state, reason)
