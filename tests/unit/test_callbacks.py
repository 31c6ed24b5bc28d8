# SPDX-License-Identifier: Apache-2.0
"""Why a guest stopped, and which REBOOT events are one reboot."""

from __future__ import annotations

import json

import pytest

from vmwatch.callbacks import ECHO_SECONDS, Causes, Reboots

RESET = json.dumps({"guest": True, "reason": "guest-reset"})


def test_the_next_stop_of_that_vm_takes_the_cause_and_no_other() -> None:
    causes = Causes()
    causes.shutdown("a", RESET)
    assert causes.of("b", "stopped") is None
    assert causes.of("a", "shutdown") is None
    assert causes.of("a", "stopped") == "guest-reset"
    assert causes.of("a", "stopped") is None


def test_the_first_reason_counts_for_libvirt_then_ends_qemu_by_a_signal() -> None:
    causes = Causes()
    causes.shutdown("a", RESET)
    causes.shutdown("a", json.dumps({"guest": False, "reason": "host-signal"}))
    assert causes.of("a", "stopped") == "guest-reset"


@pytest.mark.parametrize("event", ["started", "resumed"])
def test_a_shutdown_that_became_a_restart_is_no_cause_of_a_later_stop(event: str) -> None:
    causes = Causes()
    causes.shutdown("a", RESET)
    assert causes.of("a", event) is None
    assert causes.of("a", "stopped") is None


@pytest.mark.parametrize("details", ["", "null", "[]", "{}", '{"reason": 7}', '{"reason": ""}', '"text"'])
def test_what_is_not_understood_tells_no_cause(details: str) -> None:
    causes = Causes()
    causes.shutdown("a", details)
    assert causes.of("a", "stopped") is None


def test_the_events_of_one_reboot_are_one() -> None:
    reboots = Reboots()
    assert not reboots.is_echo("a", now=100.0)
    assert reboots.is_echo("a", now=100.01)
    assert not reboots.is_echo("b", now=100.02)
    assert reboots.is_echo("a", now=100.035)


def test_echoes_do_not_make_the_time_longer() -> None:
    """A guest that reboots without end is told again and again."""
    reboots = Reboots()
    told = [not reboots.is_echo("a", now=step * ECHO_SECONDS / 4) for step in range(9)]
    assert told == [True, False, False, False, True, False, False, False, True]
