# SPDX-License-Identifier: Apache-2.0
"""The product's rules hold in every interleaving. VMWATCH_MODEL=large takes larger bounds: minutes and gigabytes."""

from __future__ import annotations

import os

import pytest

from tests.model.scenarios import REPAIRED, SCENARIOS, check
from tests.model.setup import Bounds, Rules, Setup

LARGE = os.environ.get("VMWATCH_MODEL") == "large"

FOUND = {
    "ledger lost": "calls that were in it are lost, and nobody is told",
    "ledger rolled back": "calls that were in it are lost, and nobody is told",
    "unreadable": "the status is wrong until the next session",
    "dropped": "the status is wrong until the next session",
}
"""What the model found, not yet repaired in the product: scenario -> what goes wrong in it."""

pytestmark = pytest.mark.timeout(7200 if LARGE else 600)


def bounds(name: str) -> Bounds:
    return SCENARIOS[name].large if LARGE else SCENARIOS[name].standard


def product_scenarios() -> list[object]:
    """A scenario that comes to hold fails here, so that its line in FOUND goes."""
    return [
        pytest.param(name, marks=pytest.mark.xfail(reason=FOUND[name], strict=True) if name in FOUND else ())
        for name in SCENARIOS
    ]


@pytest.mark.parametrize("name", product_scenarios())
def test_product_holds(name: str) -> None:
    report = check(Setup(bounds=bounds(name), rules=Rules()))
    print(f"{name}: {report}")
    assert report.complete or report.wrong
    assert not report.wrong, str(report)


@pytest.mark.parametrize("name", sorted(FOUND))
def test_repaired_rules_hold(name: str) -> None:
    report = check(Setup(bounds=bounds(name), rules=REPAIRED))
    print(f"{name}, repaired: {report}")
    assert report.complete
    assert not report.wrong, str(report)


def test_repaired_rules_cry_no_wolf() -> None:
    """Kills alone give no problem, though a master that suspects more has more to be wrong about."""
    report = check(Setup(bounds=bounds("kills, two VMs"), rules=REPAIRED))
    assert report.complete
    assert not report.wrong, str(report)
