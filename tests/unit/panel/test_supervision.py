# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from vmwatch.panel.shown_services import State
from vmwatch.panel.supervision import STOPPED, UNREACHABLE, judge, text

NOT_RUNNING = [State.STOPPED, State.DISABLED]


@pytest.mark.parametrize("before", State)
@pytest.mark.parametrize("now", NOT_RUNNING)
def test_one_that_does_not_run_is_a_problem_unless_it_is_not_to_run(before: State, now: State) -> None:
    assert judge(before, now, blocked=False) == (STOPPED, False)
    assert judge(before, now, blocked=True) == (None, False)


@pytest.mark.parametrize("before", State)
@pytest.mark.parametrize("blocked", [False, True])
def test_one_that_cannot_be_reached_is_not_one_that_is_stopped(before: State, blocked: bool) -> None:
    assert judge(before, State.UNREACHABLE, blocked=blocked) == (UNREACHABLE, False)


@pytest.mark.parametrize("before", [*NOT_RUNNING, State.UNREACHABLE])
def test_one_that_runs_again_is_configured_anew(before: State) -> None:
    assert judge(before, State.RUNNING, blocked=False) == (None, True)


@pytest.mark.parametrize("before", [State.RUNNING, State.UNKNOWN])
def test_one_that_runs_on_is_left_alone(before: State) -> None:
    assert judge(before, State.RUNNING, blocked=False) == (None, False)


@pytest.mark.parametrize("before", State)
def test_one_that_runs_though_it_is_not_to_is_configured(before: State) -> None:
    assert judge(before, State.RUNNING, blocked=True) == (None, True)


def test_the_text_says_what_to_do() -> None:
    assert text("vmwatch-node", State.STOPPED) == "vmwatch-node does not run"
    assert "configure it anew" in text("vmwatch-node", State.DISABLED)
