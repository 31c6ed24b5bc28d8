# SPDX-License-Identifier: Apache-2.0
"""The master's receiving half, the real Pull, Intake and Ledger, as processes that live for a moment.

    python -m tests.system.quick_master PORT LEDGER SECRET PAUSE_US

For each line of standard input a process is forked, when the one before it has ended, so that nothing is loaded anew;
it prints its id once it listens. PAUSE_US: each message takes so much longer, so that batches are large and last.
"""

from __future__ import annotations

import asyncio
import os
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


async def receive(port: int, file: Path, keys: Keys, pause: float) -> Never:
    ledger = Ledger(file, clock=time.monotonic)
    intake = Intake(
        ledger,
        Presence(),
        signature=keys.signature,
        monotonic=time.monotonic,
        clock=lambda: datetime.now(UTC),
    )
    pull = Pull(Endpoint("127.0.0.1", port), keys, on_refused=print)
    print(os.getpid(), flush=True)
    while True:
        intake.accept(_slowly(await pull.receive(), pause))


def _slowly(frames: Iterable[bytes], pause: float) -> Iterator[bytes]:
    for frame in frames:
        time.sleep(pause)  # the load: a slow processor
        yield frame


def main(port: str, file: str, secret: str, pause_us: str) -> None:
    keys = derive_keys(secret)
    for _ in sys.stdin:
        child = os.fork()
        if child == 0:
            asyncio.run(receive(int(port), Path(file), keys, int(pause_us) / 1e6))
        os.waitpid(child, 0)


if __name__ == "__main__":
    main(*sys.argv[1:])
