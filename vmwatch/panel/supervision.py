# SPDX-License-Identifier: Apache-2.0
"""What follows from how a service was found: its problem, and whether it is to be configured anew. Pure."""

from __future__ import annotations

from typing import Final, NamedTuple

from vmwatch.panel.shown_services import State

STOPPED: Final = "service_stopped"
UNREACHABLE: Final = "node_unreachable"
NOT_CONFIGURED: Final = "not_configured"
PROBLEMS: Final = (STOPPED, UNREACHABLE, NOT_CONFIGURED)
"""All problems that a service can have. Of the master they are told without a node."""


class Verdict(NamedTuple):
    """What follows. `problem`: the one that it has, None: neither of those that a look can find."""

    problem: str | None
    again: bool
    """It is to be configured."""


def judge(before: State, now: State, *, blocked: bool) -> Verdict:
    """What follows when a service that was in one state is found in another. `blocked`: it is not to run."""
    if now is State.UNREACHABLE:
        return Verdict(UNREACHABLE, again=False)
    runs = now is State.RUNNING
    if blocked:
        return Verdict(None, again=runs)
    if not runs:
        return Verdict(STOPPED, again=False)
    return Verdict(None, again=before in (State.STOPPED, State.DISABLED, State.UNREACHABLE))


def text(service: str, state: State) -> str:
    """What the problem of a service that does not run says."""
    if state is State.DISABLED:
        return f"{service} is blocked by disabled=yes in its file: configure it anew"
    return f"{service} does not run"
