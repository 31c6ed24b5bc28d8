# SPDX-License-Identifier: Apache-2.0
"""The product's rules hold in every interleaving. VMWATCH_MODEL=large takes larger bounds: minutes and gigabytes."""

from __future__ import annotations

import os

import pytest

from tests.model.scenarios import SCENARIOS, check
from tests.model.setup import Bounds, Rules, Setup

LARGE = os.environ.get("VMWATCH_MODEL") == "large"

pytestmark = pytest.mark.timeout(7200 if LARGE else 600)


def bounds(name: str) -> Bounds:
    return SCENARIOS[name].large if LARGE else SCENARIOS[name].standard


@pytest.mark.parametrize("name", SCENARIOS)
def test_product_holds(name: str) -> None:
    report = check(Setup(bounds=bounds(name), rules=Rules()))
    print(f"{name}: {report}")
    assert report.complete
    assert not report.wrong, str(report)
