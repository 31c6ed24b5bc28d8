# SPDX-License-Identifier: Apache-2.0
"""A million frames that no node would send, into a real ledger: nothing ends, nothing changes, no memory is kept."""

from __future__ import annotations

import itertools
import logging
import random
from contextlib import closing
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.unit.wire import BEFORE, EXAMPLES, KINDS, RUN, keys, mutated
from vmwatch.intake import Intake
from vmwatch.ledger import Ledger
from vmwatch.link import BATCH
from vmwatch.messages import Begin, Hello
from vmwatch.presence import Presence
from vmwatch.protocol import Envelope, Kind, Run, seal
from vmwatch.strict import encode

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KEY = keys().signature
UNSIGNED = 900_000
SIGNED = 100_000
KEPT_MIB = 8.0
WARM_UP = 20_000  # frames, after which all that is loaded or cached once is there
OTHER_KINDS = (0, 4, 15, 20, 2**32 - 1)
TABLES = ("node", "beat", "vm", "problem", "unread", "call", "latest", "parked")
FRAMES = [
    seal(Envelope(node=1, run=RUN, seq=1, kind=KINDS[type(body)]), encode(body), KEY) for body in EXAMPLES
]


@pytest.fixture(autouse=True)
def silence() -> Iterator[None]:
    """Each warning would be kept for the report."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with closing(Ledger(tmp_path / "ledger.db", clock=lambda: 1.0)) as opened:
        yield opened


@pytest.fixture
def intake(ledger: Ledger) -> Intake:
    """It has heard of node 1."""
    intake = Intake(ledger, Presence(), signature=KEY, monotonic=lambda: 1.0, clock=lambda: datetime.now(UTC))
    intake.accept([record(Kind.HELLO, encode(Hello(host="kvm1", version="1")), 0)])
    intake.accept([record(Kind.BEGIN, encode(Begin(previous=None, last=None, time=datetime.now(UTC))), 0)])
    return intake


def record(kind: int, body: bytes, seq: int, *, run: Run = RUN, node: int = 1) -> bytes:
    return seal(Envelope(node=node, run=run, seq=seq, kind=kind), body, KEY)


def memory() -> float:
    """MiB of this process."""
    return psutil.Process().memory_info().rss / (1 << 20)


def state(ledger: Ledger) -> list[list[tuple[object, ...]]]:
    with ledger._database.reading() as sql:
        return [list(sql.execute(f"SELECT * FROM {table}")) for table in TABLES]


def take(intake: Intake, frames: Iterator[bytes], count: int) -> float:
    """Have the intake take so many, in batches. Returns by how many MiB memory grew after the first of them."""
    for _ in range(0, WARM_UP, BATCH):
        intake.accept(list(itertools.islice(frames, BATCH)))
    before = memory()
    for _ in range(WARM_UP, count, BATCH):
        intake.accept(list(itertools.islice(frames, BATCH)))
    return memory() - before


def unsigned(chance: random.Random) -> Iterator[bytes]:
    """Changed in transit, or noise."""
    while True:
        frame = mutated(chance.choice(FRAMES), chance)
        if frame not in FRAMES:
            yield frame


def signed(chance: random.Random) -> Iterator[bytes]:
    """By somebody who has the secret and errs: bodies that were changed, of any kind, at any place of the stream."""
    bodies = [encode(body) for body in EXAMPLES]
    while True:
        yield record(
            chance.choice((*Kind, *OTHER_KINDS)),
            mutated(chance.choice(bodies), chance),
            chance.randrange(1 << chance.randrange(1, 63)),
            run=chance.choice((RUN, BEFORE)),
            node=chance.randrange(1, 4),
        )


def test_frames_without_the_signature_change_nothing_but_counts(ledger: Ledger, intake: Intake) -> None:
    before = state(ledger)
    grown = take(intake, unsigned(random.Random(20261122)), UNSIGNED)
    print(f"{sum(intake.refused.values())} refused, memory grew by {grown:.1f} MiB: {dict(intake.refused)}")
    assert state(ledger) == before
    assert sum(intake.refused.values()) >= UNSIGNED
    assert set(intake.refused) == {"size", "version", "signature"}
    assert grown < KEPT_MIB


def test_signed_bodies_that_make_no_sense_end_nothing_and_the_stream_goes_on(
    ledger: Ledger, intake: Intake
) -> None:
    grown = take(intake, signed(random.Random(20261122)), SIGNED)
    print(f"{sum(intake.refused.values())} refused, memory grew by {grown:.1f} MiB: {dict(intake.refused)}")
    assert grown < KEPT_MIB
    later = Run("f" * 32)
    intake.accept([record(Kind.BEGIN, encode(EXAMPLES[0]), 0, run=later)])
    intake.accept([record(Kind.EVENT, encode(EXAMPLES[1]), 1, run=later)])
    (position,) = [row for row in state(ledger)[0] if row[0] == 1]
    assert position[1:3] == (later, 1)
