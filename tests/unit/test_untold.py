# SPDX-License-Identifier: Apache-2.0
"""What a known set corrects in a ledger that lost, or never had, what came before."""

from __future__ import annotations

import itertools

import pytest

from vmwatch.cluster import Copies, Copy, apply, place, untold
from vmwatch.events import CopyState, Status

STATES = [state for state in CopyState if state is not CopyState.GONE]
NODE = 1
SHOWN = {
    CopyState.RUNNING: Status.RUNNING,
    CopyState.PAUSED: Status.PAUSED,
    CopyState.SLEEPING: Status.SLEEPING,
    CopyState.SAVED: Status.SAVED,
    CopyState.STOPPED: Status.STOPPED,
    CopyState.CRASHED: Status.CRASHED,
}
MIGRATES = (CopyState.INCOMING, CopyState.LEAVING, CopyState.DEPARTED)  # its other end decides what is shown


def corrected(kept: CopyState | None, known: CopyState | None) -> Copies:
    copies: Copies = {} if kept is None else {NODE: Copy(state=kept, order=1)}
    told = untold(kept, known)
    return copies if told is None else apply(copies, NODE, *told)


@pytest.mark.parametrize("state", [None, *STATES])
def test_what_agrees_is_not_told(state: CopyState | None) -> None:
    assert untold(state, state) is None


@pytest.mark.parametrize(("kept", "known"), list(itertools.product([None, *STATES], [None, *STATES])))
def test_a_correction_is_told_once(kept: CopyState | None, known: CopyState | None) -> None:
    """Each session tells the known set again: there must be an end to it."""
    copies = corrected(kept, known)
    now = copies[NODE].state if NODE in copies else None
    assert untold(now, known) is None, (kept, known, now)


@pytest.mark.parametrize(
    ("kept", "known"), list(itertools.product([None, *(s for s in STATES if s not in MIGRATES)], SHOWN))
)
def test_what_the_node_knows_is_shown(kept: CopyState | None, known: CopyState) -> None:
    assert place(corrected(kept, known)).status == SHOWN[known]


@pytest.mark.parametrize("kept", [CopyState.RUNNING, CopyState.PAUSED, CopyState.SLEEPING, *MIGRATES[:2]])
def test_a_vm_that_its_node_does_not_have_is_off(kept: CopyState) -> None:
    assert place(corrected(kept, None)).status == Status.STOPPED
