# SPDX-License-Identifier: Apache-2.0
"""`script/demo`: two nodes, a master and a panel on this machine, and VMs that live through everything."""

from __future__ import annotations

import argparse
import itertools
import signal
import statistics
import sys
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final, NoReturn

import libvirt

from tests.lab.accelerator import find_accelerator
from tests.lab.cluster import USER, Cluster
from tests.lab.errors import LabError
from tests.lab.image import make_image
from tests.lab.play import Play, event_of
from tests.lab.terminal import BOLD, DIM, GREEN, RED, STATUS_COLOURS, Terminal

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tests.lab.play import Outcome, Step

WIDTHS: Final = {
    "time": 8,
    "VM": 4,
    "what was done": 27,
    "what libvirt told": 19,
    "the panel shows": 18,
    "delay": 6,
}
STOPS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
DESCRIPTION: Final = """\
Shows vmwatch at work: two cluster nodes, each with a libvirtd of its own and real QEMU guests, the master, and
the reference panel on 127.0.0.1. Plays start, pause, resume, reboot, migration, power off, destroy and kill -9.
Each line says what was done, what the panel came to show, and how many milliseconds after libvirt's event it
had committed that. Goes on until Ctrl-C, and leaves nothing behind."""
EPILOG: Final = """\
environment:
  VMWATCH_KERNEL       a kernel image for the guests, instead of Debian's
  VMWATCH_ACCELERATOR  kvm or qemu, instead of finding out
  NO_COLOR             no colours

exit codes: 0 all was shown as it should be, or stopped by Ctrl-C; 1 it was not, or could not be tried"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; return its exit code."""
    options = _parse(arguments)
    terminal = Terminal()
    for number in STOPS:
        signal.signal(number, _stop)
    try:
        with ExitStack() as stack:
            _demonstrate(terminal, stack, options)
    except KeyboardInterrupt:
        terminal.say("\n  Stopped. Nothing is left behind.")
        return 1 if options.once else 0  # what was to be checked was not
    except (LabError, libvirt.libvirtError) as error:
        terminal.say(f"  {terminal.paint(terminal.bad, RED)} {error}")
        return 1
    return 0


def _stop(_number: int, _frame: object) -> NoReturn:
    for number in STOPS:
        signal.signal(number, signal.SIG_IGN)  # what follows is the tidying up: nothing may cut it short
    raise KeyboardInterrupt


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="script/demo",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--once", action="store_true", help="one round without pauses, then end")
    parser.add_argument(
        "--pace", type=float, default=1.5, metavar="SECONDS", help="between two steps (%(default)s)"
    )
    return parser.parse_args(arguments)


def _demonstrate(terminal: Terminal, stack: ExitStack, options: argparse.Namespace) -> None:
    terminal.say(f"\n  {terminal.paint('vmwatch demo', BOLD)}\n")
    with terminal.progress("preparing") as say:
        image = make_image(say)
        accelerator = find_accelerator(image, say)
        cluster = stack.enter_context(Cluster(image=image, say=say))
    _introduce(terminal, cluster, accelerator)
    play = Play(cluster, accelerator=accelerator)
    try:
        pace = 0.0 if options.once else options.pace
        _play(terminal, cluster, play, play.opening(), pace=pace)
        for _ in range(1) if options.once else itertools.count():
            _play(terminal, cluster, play, play.round(), pace=pace)
    except (LabError, libvirt.libvirtError):
        terminal.say(cluster.logs())
        raise


def _introduce(terminal: Terminal, cluster: Cluster, accelerator: str) -> None:
    page = cluster.client.url.removesuffix("vmmgr")
    hosts = " and ".join(host.name for host in cluster.hosts)
    speed = "under KVM" if accelerator == "kvm" else "emulated, for KVM does not work here"
    lines = {
        "page": terminal.paint(page, BOLD),
        "sign in": f"{USER}, password {cluster.password}",
        "nodes": f"{hosts}, guests {speed}",
        "end": "Ctrl-C",
    }
    for name, text in lines.items():
        terminal.say(f"  {terminal.paint(name.ljust(8), DIM)}  {text}")
    header = "  ".join(_fit(name, width, right=name == "delay") for name, width in WIDTHS.items())
    terminal.say(f"\n  {terminal.paint(header, DIM)}")


def _play(terminal: Terminal, cluster: Cluster, play: Play, steps: Iterable[Step], *, pace: float) -> None:
    delays = []
    for step in steps:
        with terminal.progress(f"{step.vm}: {step.done}", plain=False):
            outcome = play.take(step)
        terminal.say(_line(terminal, cluster, step, outcome))
        if step.boots:
            with terminal.progress(f"{step.vm} boots", plain=False):
                play.wait_booted(step)
        delays.append(outcome.change.milliseconds)
        time.sleep(pace)
    mark = terminal.paint(terminal.good, GREEN)
    median, slowest = statistics.median(delays), max(delays)
    terminal.say(
        f"  {mark} {len(delays)} of {len(delays)} as they should be; event to panel:"
        f" median {median:g} ms, slowest {slowest} ms"
    )


def _line(terminal: Terminal, cluster: Cluster, step: Step, outcome: Outcome) -> str:
    change, shown = outcome.change, outcome.shown
    node = f" on {cluster.host(shown.node).name}" if shown.node else ""
    status = terminal.paint(shown.status, STATUS_COLOURS.get(shown.status, ""))
    room = WIDTHS["the panel shows"] - len(shown.status) - len(node)
    cells = [
        terminal.paint(change.registered.astimezone().strftime("%H:%M:%S"), DIM),
        _fit(step.vm, WIDTHS["VM"]),
        _fit(step.done, WIDTHS["what was done"]),
        terminal.paint(_fit(event_of(change), WIDTHS["what libvirt told"]), DIM),
        f"{status}{node}{' ' * room}",
        _fit(f"{change.milliseconds} ms", WIDTHS["delay"], right=True),
    ]
    return "  " + "  ".join(cells)


def _fit(text: str, width: int, *, right: bool = False) -> str:
    return text.rjust(width) if right else text.ljust(width)


if __name__ == "__main__":
    sys.exit(main())
