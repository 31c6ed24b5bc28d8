# SPDX-License-Identifier: Apache-2.0
"""An outbox or a ledger that is written as fast as it goes, and one that is read, as processes of their own.

    python -m tests.system.durable_writer write outbox|ledger FOLDER [SYNCHRONOUS]
    python -m tests.system.durable_writer read outbox|ledger FOLDER

`write` prints each number once it is told to be durable, without end. `read` prints how far the file goes, having
looked whether all of it hangs together. SYNCHRONOUS: SQLite's word, in place of the product's own.
"""

from __future__ import annotations

import itertools
import sys
import time
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from vmwatch.intake import Intake
from vmwatch.ledger import Ledger
from vmwatch.messages import Begin, Event, Hello, Source
from vmwatch.outbox import Outbox
from vmwatch.presence import Presence
from vmwatch.protocol import Envelope, Kind, Run, seal
from vmwatch.strict import encode

if TYPE_CHECKING:
    from collections.abc import Iterator

KEY = b"k" * 32
RUN = Run("0" * 31 + "1")
NOW = datetime(2026, 11, 22, 10, tzinfo=UTC)
VMS = 10


def event(number: int) -> Event:
    return Event(
        uuid=f"u{number % VMS}",
        name=f"vm-{number % VMS}",
        type="suspended" if number // VMS % 2 else "resumed",
        subtype="paused" if number // VMS % 2 else "unpaused",
        time=NOW,
        cause=None,
        source=Source.EVENT,
        since=None,
        domain_id=1,
    )


def write_outbox(folder: Path, synchronous: str | None) -> Iterator[int]:
    with closing(open_outbox(folder)) as outbox:
        if synchronous:
            outbox._database._connection.execute(f"PRAGMA synchronous={synchronous}")
        for number in itertools.count(1):
            outbox.append([event(number)])
            yield number


def write_ledger(folder: Path, synchronous: str | None) -> Iterator[int]:
    with closing(open_ledger(folder)) as ledger:
        if synchronous:
            ledger._database._connection.execute(f"PRAGMA synchronous={synchronous}")
        intake = Intake(
            ledger, Presence(), signature=KEY, monotonic=time.monotonic, clock=lambda: datetime.now(UTC)
        )
        opening = (
            (Kind.HELLO, encode(Hello(host="h", version="0"))),
            (Kind.BEGIN, encode(Begin(previous=None, last=None, time=NOW))),
        )
        intake.accept([frame(0, kind, body) for kind, body in opening])
        for number in itertools.count(1):
            intake.accept([frame(number, Kind.EVENT, encode(event(number)))])
            yield number


def frame(seq: int, kind: Kind, body: bytes) -> bytes:
    return seal(Envelope(node=1, run=RUN, seq=seq, kind=kind), body, KEY)


def read_outbox(folder: Path) -> int:
    with closing(open_outbox(folder)) as outbox:
        first, *rest, begin = outbox.read(after=0, limit=1_000_000)
        assert (first.kind, begin.kind) == (Kind.BEGIN, Kind.BEGIN), (first, begin)
        assert [record.seq for record in rest] == list(range(1, len(rest) + 1))
        alive = {f"u{number % VMS}": event(number).type for number in range(1, len(rest) + 1)}
        known = {
            uuid: "suspended" if known.state == "paused" else "resumed"
            for uuid, known in outbox.known.items()
        }
        assert known == alive
        return len(rest)


def read_ledger(folder: Path) -> int:
    with closing(open_ledger(folder)) as ledger, ledger.transaction() as transaction:
        position = transaction.position(1)
        last = position.seq if position else 0
        (calls,) = ledger._database._connection.execute("SELECT count(*) FROM call").fetchone()
        assert calls == last
        return last


def open_outbox(folder: Path) -> Outbox:
    return Outbox(folder / "outbox.db", now=NOW, random=1, boot="boot")


def open_ledger(folder: Path) -> Ledger:
    return Ledger(folder / "ledger.db", clock=time.monotonic)


WRITE = {"outbox": write_outbox, "ledger": write_ledger}
READ = {"outbox": read_outbox, "ledger": read_ledger}


def main(what: str, kind: str, folder: str, synchronous: str | None = None) -> None:
    if what == "read":
        print(READ[kind](Path(folder)))
        return
    for number in WRITE[kind](Path(folder), synchronous):
        print(number, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
