# SPDX-License-Identifier: Apache-2.0
"""Bodies and frames for the tests of the wire: one example of each kind, and all that there can be."""

from __future__ import annotations

import sys
from dataclasses import is_dataclass
from datetime import UTC, datetime
from functools import cache
from types import UnionType
from typing import TYPE_CHECKING, Any, Final, get_args, get_origin, get_type_hints

from hypothesis import strategies as st

from vmwatch.events import CopyState
from vmwatch.messages import (
    Begin,
    Body,
    DomainStatistics,
    Event,
    Gap,
    Heartbeat,
    Hello,
    KnownDomain,
    KnownSet,
    LibvirtState,
    Source,
    Statistics,
)
from vmwatch.protocol import Keys, Kind, Run, derive_keys

if TYPE_CHECKING:
    import random

SECRET: Final = "VMWATCH4DOCUMENTATION7ONLY"
NODE: Final = 3
RUN: Final = Run("00064428d5b3e94000112233445566ff")
BEFORE: Final = Run("00064428c0000000deadbeefdeadbeef")
TIME: Final = datetime(2026, 11, 22, 10, 0, 0, 123456, tzinfo=UTC)

KINDS: Final[dict[type[Body], Kind]] = {
    Begin: Kind.BEGIN,
    Event: Kind.EVENT,
    Gap: Kind.GAP,
    Hello: Kind.HELLO,
    KnownSet: Kind.KNOWN,
    Heartbeat: Kind.HEARTBEAT,
    Statistics: Kind.STATISTICS,
}

EXAMPLES: Final[tuple[Body, ...]] = (
    Begin(previous=BEFORE, last=41, time=TIME),
    Event(
        uuid="6d1a3f0e-4c52-4f3b-9a57-2f6c1b8d7e90",
        name="web",
        type="stopped",
        subtype="shutdown",
        time=TIME,
        cause="guest-reset",
        source=Source.SNAPSHOT,
        since=TIME,
        domain_id=7,
    ),
    Gap(count=9, reason="the outbox was full"),
    Hello(host="kvm3", version="0.1.0"),
    KnownSet(
        domains=(
            KnownDomain(uuid="6d1a3f0e-4c52-4f3b-9a57-2f6c1b8d7e90", name="web", state=CopyState.RUNNING),
        )
    ),
    Heartbeat(
        top=41, time=TIME, interval_ms=10_000, libvirt=LibvirtState.CONNECTED, not_responding=("web-2",)
    ),
    Statistics(
        time=TIME,
        domains=(
            DomainStatistics(
                name="web",
                uuid="6d1a3f0e-4c52-4f3b-9a57-2f6c1b8d7e90",
                run="7",
                interfaces=1,
                disks=1,
                packets_received=1,
                packets_sent=2,
                bytes_received=3,
                bytes_sent=4,
                read_requests=5,
                read_bytes=6,
                write_requests=7,
                write_bytes=8,
            ),
        ),
    ),
)


@cache
def keys() -> Keys:
    """Those of SECRET: making them is slow on purpose."""
    return derive_keys(SECRET)


def mutated(frame: bytes, chance: random.Random) -> bytes:
    """With a part of it changed, missing, added or repeated; or noise of its length."""
    start, end = sorted(chance.choices(range(len(frame) + 1), k=2))
    match chance.randrange(5):
        case 0:
            return frame[:start] + chance.randbytes(end - start) + frame[end:]
        case 1:
            return frame[:start] + frame[end:]
        case 2:
            return frame[:start] + chance.randbytes(chance.randrange(64)) + frame[start:]
        case 3:
            return frame[:end] + frame[start:]
        case _:
            return chance.randbytes(len(frame))


def hostile_texts() -> st.SearchStrategy[str]:
    """All of Unicode, NUL and halves of surrogate pairs as well."""
    return st.text(st.characters(max_codepoint=sys.maxunicode, exclude_categories=()) | st.just("\0"))


_SCALARS: Final[dict[object, st.SearchStrategy[Any]]] = {
    str: st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
    int: st.integers(-(2**63), 2**63 - 1),
    datetime: st.datetimes(timezones=st.just(UTC)),
}


def _all_of(kind: Any) -> st.SearchStrategy[Any]:  # noqa: ANN401 (a type expression is of no one type)
    if kind in _SCALARS:
        return _SCALARS[kind]
    if is_dataclass(kind) or hasattr(kind, "_fields"):
        fields = {name: _all_of(hint) for name, hint in get_type_hints(kind).items()}
        return st.builds(kind, **fields)
    if get_origin(kind) is UnionType:
        return st.none() | _all_of(get_args(kind)[0])
    if get_origin(kind) is tuple:
        return st.lists(_all_of(get_args(kind)[0]), max_size=3).map(tuple)
    return st.sampled_from(kind)


BODIES: Final[st.SearchStrategy[Body]] = st.one_of([_all_of(kind) for kind in KINDS])
