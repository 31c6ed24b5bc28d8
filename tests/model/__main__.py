# SPDX-License-Identifier: Apache-2.0
"""`python -m tests.model`: explore scenarios by hand, in larger bounds than the tests' if asked."""

from __future__ import annotations

import argparse
import sys
import time
from typing import TYPE_CHECKING

from tests.model.scenarios import SCENARIOS, check
from tests.model.setup import Rules, Setup

if TYPE_CHECKING:
    from tests.model.checker import Report


def main() -> int:
    """1 if anything is wrong in any scenario."""
    options = _arguments()
    wrong = False
    for name in options.scenario or SCENARIOS:
        scenario = SCENARIOS[name]
        setup = Setup(
            bounds=scenario.large if options.large else scenario.standard,
            rules=Rules(),
        )
        start = time.monotonic()
        report = _checked(setup, depth=options.depth)
        print(f"{name}: {report}, {time.monotonic() - start:.1f} s", flush=True)
        wrong = wrong or report.wrong is not None
    return int(wrong)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.model", description=__doc__)
    parser.add_argument(
        "--scenario", action="append", choices=list(SCENARIOS), help="one of them; again for more"
    )
    parser.add_argument("--large", action="store_true", help="in larger bounds: minutes and gigabytes")
    parser.add_argument("--depth", type=int, default=1000, help="steps; fewer than all judge no ends")
    return parser.parse_args()


def _checked(setup: Setup, *, depth: int) -> Report:
    if not sys.stderr.isatty():
        return check(setup, depth=depth)

    def tell(states: int, waiting: int) -> None:
        print(f"\r{states:12,} states found, {waiting:12,} to explore ", end="", file=sys.stderr, flush=True)

    report = check(setup, depth=depth, tell=tell)
    print("\r" + " " * 60 + "\r", end="", file=sys.stderr)
    return report


if __name__ == "__main__":
    sys.exit(main())
