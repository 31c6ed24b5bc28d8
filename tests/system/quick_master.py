# SPDX-License-Identifier: Apache-2.0
"""The master's receiving half, the real Pull, Intake and Ledger, as processes that live for a moment.

    python -m tests.system.quick_master PORT LEDGER SECRET PAUSE_US LIFE

For each line of standard input a process is forked, when the one before it has ended, so that nothing is loaded anew;
it prints its id once it listens. PAUSE_US: each message takes so much longer, so that batches are large and last.
LIFE: after so many messages each process kills itself; 0: never.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Never

from vmwatch.config import Endpoint
from vmwatch.intake import Intake
from vmwatch.ledger import Ledger
from vmwatch.link import Pull
from vmwatch.presence import Presence
from vmwatch.protocol import Keys, derive_keys

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


async def receive(port: int, file: Path, keys: Keys, pause: float, life: int) -> Never:
    ledger = Ledger(file, clock=time.monotonic)
    intake = Intake(
        ledger,
        Presence(),
        signature=keys.signature,
        monotonic=time.monotonic,
        clock=lambda: datetime.now(UTC),
    )
    pull = Pull(Endpoint("127.0.0.1", port), keys, on_refused=print)
    ages = itertools.count(1)
    print(os.getpid(), flush=True)
    while True:
        intake.accept(_taken(await pull.receive(), pause, ages, life))


def _taken(frames: Iterable[bytes], pause: float, ages: Iterator[int], life: int) -> Iterator[bytes]:
    for frame in frames:
        if next(ages) == life:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(pause)  # the load: a slow processor
        yield frame


def main(port: str, file: str, secret: str, pause_us: str, life: str) -> None:
    keys = derive_keys(secret)
    for _ in sys.stdin:
        child = os.fork()
        if child == 0:
            asyncio.run(receive(int(port), Path(file), keys, int(pause_us) / 1e6, int(life)))
        os.waitpid(child, 0)


if __name__ == "__main__":
    main(*sys.argv[1:])
