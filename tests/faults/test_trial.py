# SPDX-License-Identifier: Apache-2.0
"""Which rounds leave evidence though nothing was wrong."""

from __future__ import annotations

import pytest

from tests.faults.trial import FEW, SLOW_SECONDS, Settled


@pytest.mark.parametrize(
    ("seconds", "waited", "wants"),
    [
        (SLOW_SECONDS + 0.1, FEW - 1, True),
        (SLOW_SECONDS + 0.1, FEW, False),
        (SLOW_SECONDS, 0, False),
    ],
)
def test_a_slow_truth_wants_a_cause_where_few_events_waited(
    seconds: float, waited: int, *, wants: bool
) -> None:
    assert Settled(seconds=seconds, waited=waited).wants_cause == wants
