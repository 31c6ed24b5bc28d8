# SPDX-License-Identifier: Apache-2.0
"""The command behind bench/faults, and what the test in CI runs too."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import statistics
import sys
import time
from random import Random, SystemRandom
from typing import TYPE_CHECKING, Final

import libvirt

from tests.faults import plan
from tests.faults.history import Wrong
from tests.faults.plan import Kind
from tests.faults.stand import Stand
from tests.faults.trial import WANTED_SECONDS, Result, Settled, Trial
from tests.faults.workload import DriverWorkload, GuestWorkload, Workload
from tests.lab.errors import LabError
from tests.lab.image import make_image

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

DRIVER_NODES: Final = 2
GUEST_NODES: Final = 2
DRIVER_MEAN_SECONDS: Final = 0.04
GUEST_MEAN_SECONDS: Final = 0.7  # an emulated boot takes all of a processor
PROGRESS_SECONDS: Final = 30.0

DESCRIPTION: Final = """\
Breaks vmwatch on purpose: changes real VMs at random while a nemesis kills, freezes, cuts and stalls its parts,
and compares after each round what the panel has with what an independent observer of libvirt wrote. The seed gives
the same faults in the same order; what they hit, chance decides."""
EPILOG: Final = "exit codes: 0 nothing was wrong; 1 something was; 2 it could not be tried"


def attack(
    *, seed: int, seconds: float, kinds: Sequence[Kind], guests: bool, say: Callable[[str], None]
) -> Result:
    """Rounds until the time is over. Raises LabError; `say` hears what is going on."""
    images = [None] * DRIVER_NODES + ([make_image(say)] * GUEST_NODES if guests else [])
    disks = bool(plan.DISKS & set(kinds))
    with Stand(images, small_disks=disks) as stand, _working(stand, seed) as workloads:
        trial = Trial(stand, workloads, say=say)
        try:
            _play(trial, seed=seed, seconds=seconds, kinds=kinds, nodes=len(images), say=say)
        finally:
            if sys.exc_info()[0]:
                say(f"evidence: {stand.keep_evidence('end', 'the trial itself failed')}")
            if trial.result.violations or sys.exc_info()[0]:
                say(stand.logs())
        return trial.result


def may_fill_disks() -> bool:
    """Whether this user can mount disks that are small enough to be filled."""
    return os.geteuid() == 0


def _play(
    trial: Trial, *, seed: int, seconds: float, kinds: Sequence[Kind], nodes: int, say: Callable[[str], None]
) -> None:
    deadline = time.monotonic() + seconds
    next_progress = time.monotonic() + PROGRESS_SECONDS
    for faults in plan.rounds(seed, nodes=nodes, kinds=kinds):
        if time.monotonic() >= deadline:
            break
        trial.play(faults)
        if time.monotonic() >= next_progress:
            next_progress += PROGRESS_SECONDS
            say(f"{max(0, deadline - time.monotonic()) / 60:5.1f} min left: {summary(trial.result)}")


@contextlib.contextmanager
def _working(stand: Stand, seed: int) -> Iterator[list[Workload]]:
    random = Random(seed)
    workloads: list[Workload] = [
        DriverWorkload(
            stand.hosts[node - 1],
            name=f"node {node}",
            seed=random.getrandbits(32),
            vms=[f"n{node}-vm{number}" for number in range(1, 7)],
            mean_seconds=DRIVER_MEAN_SECONDS,
        )
        for node in range(1, len(stand.hosts) + 1)
        if not stand.has_guests(node)
    ]
    with_guests = [host for node, host in enumerate(stand.hosts, start=1) if stand.has_guests(node)]
    if with_guests:
        seed = random.getrandbits(32)
        vms = ("guest1", "guest2", "guest3")
        workloads.append(GuestWorkload(with_guests, seed=seed, vms=vms, mean_seconds=GUEST_MEAN_SECONDS))
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(workload) for workload in workloads]


def summary(result: Result) -> str:
    """In a line."""
    wrongs = ", ".join(f"{wrong} {result.count(wrong)}" for wrong in Wrong)
    return (
        f"{result.rounds} rounds, {result.faults.total()} faults, {result.matched} events told,"
        f" {result.missed} missed while away, {result.found} found; {wrongs}"
    )


def table(result: Result) -> str:
    """By kind of fault: how often, and how long the truth took after it (where it was its round's last)."""
    lines = [
        f"| fault | times | ended rounds | s to the truth | slowest | over {WANTED_SECONDS:g} s | waiting then |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {kind} | {count} | {_row(result.settled.get(kind, []))} |"
        for kind, count in sorted(result.faults.items())
    ]
    return "\n".join(lines)


def _row(settled: Sequence[Settled]) -> str:
    if not settled:
        return "0 | - | - | - | -"
    seconds = [one.seconds for one in settled]
    slow = [one for one in settled if one.seconds > WANTED_SECONDS]
    waited = ", ".join(str(one.waited) for one in slow) or "-"
    return f"{len(settled)} | {statistics.median(seconds):.2f} | {max(seconds):.2f} | {len(slow)} | {waited}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print the result, return the exit code."""
    options = _parse(arguments)
    libvirt.registerErrorHandler(lambda *_: None, None)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is ended
    print(f"seed {options.seed}, {options.minutes:g} minutes, faults: {' '.join(options.kinds)}", flush=True)
    try:
        result = attack(
            seed=options.seed,
            seconds=options.minutes * 60,
            kinds=options.kinds,
            guests=not options.no_guests,
            say=lambda text: print(text, flush=True),
        )
    except LabError as error:
        print(f"bench/faults: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    print(f"\n{table(result)}\n\n{summary(result)}")
    return 1 if result.violations else 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench/faults", description=DESCRIPTION, epilog=EPILOG)
    names = [str(kind) for kind in Kind]
    default = [kind for kind in Kind if may_fill_disks() or kind not in plan.DISKS]
    parser.add_argument("--minutes", type=float, default=30, metavar="N", help="how long (%(default)s)")
    parser.add_argument(
        "--seed", type=int, default=SystemRandom().getrandbits(32), metavar="N", help="of chance"
    )
    parser.add_argument(
        "--kinds",
        type=Kind,
        nargs="+",
        default=default,
        metavar="KIND",
        help=f"faults, of {', '.join(names)} (all; {' and '.join(sorted(plan.DISKS))} only for root)",
    )
    parser.add_argument("--no-guests", action="store_true", help="the test driver's domains alone, no QEMU")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
