# SPDX-License-Identifier: Apache-2.0
"""The command behind script/bench."""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import away, away_long, drain, latency, memory, throughput
from bench.figures import table
from tests.lab.errors import LabError

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.figures import Group


def _say(text: str) -> None:
    """Progress: on one line of a terminal, else nothing."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


_MEASUREMENTS: dict[str, Callable[[argparse.Namespace], Group]] = {
    "latency": lambda options: latency.measure(changes=options.changes, say=_say),
    "memory": lambda options: memory.measure(domains=options.domains, say=_say),
    "throughput": lambda options: throughput.measure(
        messages=options.messages, rounds=options.rounds, say=_say
    ),
    "away": lambda options: away.measure(seconds=options.away, say=_say),
    "drain": lambda options: drain.measure(calls=options.calls, rounds=options.rounds, say=_say),
    "away-long": lambda options: away_long.measure(seconds=options.long, rate=options.rate, say=_say),
}
_ON_DEMAND = {"away-long"}


def main() -> int:
    options = _parser().parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is ended
    machine = _machine()
    print(" · ".join(f"{name} {value}" for name, value in machine.items()), flush=True)
    groups = []
    try:
        for name in options.measurements or [name for name in _MEASUREMENTS if name not in _ON_DEMAND]:
            groups.append(_MEASUREMENTS[name](options))
            _say("")
            print(f"\n{table(groups[-1])}", flush=True)
    except (LabError, TimeoutError) as error:
        _say("")
        print("\n".join((f"script/bench: {error}", *getattr(error, "__notes__", ()))), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    if options.json:
        content = {"machine": machine, "groups": [group.plain() for group in groups]}
        options.json.write_text(json.dumps(content, indent=2) + "\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="script/bench",
        description="Measures vmwatch on this machine, each figure beside its floor from the same run:"
        " docs/benchmarks.md. Real processes on a loopback of their own; nothing stays behind.",
        epilog="Exit codes: 0 measured, whether a bar was met or not; 1 could not be measured.",
    )
    parser.add_argument(
        "measurements",
        nargs="*",
        metavar="MEASUREMENT",
        choices=[[], *_MEASUREMENTS],
        help=f"{', '.join(_MEASUREMENTS)}; without any: all but {', '.join(_ON_DEMAND)}",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    for name, default, what in (
        ("changes", 200, "latency: changes of each side"),
        ("domains", 100, "memory: domains of the node"),
        ("messages", 60_000, "throughput: messages in a round"),
        ("calls", 2_000, "drain: calls that wait"),
        ("rounds", 3, "throughput, drain: rounds of each side"),
        ("away", 10, "away: seconds without a panel"),
        ("long", 600, "away-long: seconds without a panel"),
        ("rate", 200, "away-long: changes a second"),
    ):
        parser.add_argument(f"--{name}", type=int, default=default, metavar="N", help=f"{what} (%(default)s)")
    return parser


def _machine() -> dict[str, Any]:
    """Under what conditions this was measured: a busy machine shows in its load."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="minutes").replace("+00:00", "Z"),
        "cpus": len(os.sched_getaffinity(0)),
        "load": round(os.getloadavg()[0], 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


if __name__ == "__main__":
    sys.exit(main())
