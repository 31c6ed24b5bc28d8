# SPDX-License-Identifier: Apache-2.0
"""Messages on the wire: envelope, body, signature. No I/O. Byte by byte: docs/protocol.md.

    | magic, version | node | run | number | span | kind | size | body, JSON | HMAC-SHA256 |

Envelope and body are verified together and read apart: the envelope alone decides the order, so that a body
that this version cannot read does not stop the stream.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from typing import Final, NamedTuple, NewType

from vmwatch.errors import BadBody, BadEnvelope
from vmwatch.messages import Begin, Body, Event, Gap, Heartbeat, Hello, KnownSet, Statistics
from vmwatch.strict import INTEGER_LIMIT, decode

Run = NewType("Run", str)
"""One life of the node service: 32 hex digits, start time (µs, UTC), then random. Later ones compare greater."""

MAX_MESSAGE: Final = 1 << 20
"""Bytes of a whole message: what is larger is neither sent nor taken."""

_MAGIC: Final = b"VMW\x01"  # the last byte is the version of the protocol
_HEADER: Final = struct.Struct("!4sI16sQIII")
_SIGNATURE_SIZE: Final = hashlib.sha256().digest_size
OVERHEAD: Final = _HEADER.size + _SIGNATURE_SIZE
_NO_RUN: Final = bytes(16)
_BESIDE: Final = 16  # kinds from here on go beside the stream


class Kind(IntEnum):
    """What a message is. Those under 16 are records of the node's stream, in versions to come as well."""

    BEGIN = 1
    EVENT = 2
    GAP = 3
    HELLO = 16
    KNOWN = 17
    HEARTBEAT = 18
    STATISTICS = 19


_BODIES: Final[dict[int, type[Body]]] = {
    Kind.BEGIN: Begin,
    Kind.EVENT: Event,
    Kind.GAP: Gap,
    Kind.HELLO: Hello,
    Kind.KNOWN: KnownSet,
    Kind.HEARTBEAT: Heartbeat,
    Kind.STATISTICS: Statistics,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """What the secret becomes, 32 bytes each: the CURVE secret keys of both sides, and the key of the HMAC."""

    master: bytes
    node: bytes
    signature: bytes


class Envelope(NamedTuple):
    """Where a message stands. A named tuple: one is made for each message, in a third of a dataclass's time.

    `seq`: of a record, its number in the run, and `span` how many numbers end there (a gap stands for many);
    of a heartbeat or statistics, a counter of the run; of a hello, the first record of the session; of a
    known set, the record as of which it is.
    """

    node: int
    run: Run
    seq: int
    kind: int
    span: int = 1

    @property
    def numbered(self) -> bool:
        """Whether it is a record of the stream: kept, sent until it has arrived, taken in order."""
        return self.kind < _BESIDE

    @property
    def first(self) -> int:
        """The first of the numbers that a record stands for."""
        return self.seq - self.span + 1


class Message(NamedTuple):
    """A verified message: the envelope, and the authentic bytes of the body, which `read` decodes."""

    envelope: Envelope
    untrusted_body: bytes


def derive_keys(secret: str) -> Keys:
    """The keys from the secret: slow on purpose (0.1 s, 32 MiB), for the secret may be a weak one."""
    seed = hashlib.scrypt(secret.encode(), salt=b"vmwatch 1", n=1 << 15, r=8, p=1, maxmem=64 << 20, dklen=32)
    return Keys(
        master=hmac.digest(seed, b"curve master", "sha256"),
        node=hmac.digest(seed, b"curve node", "sha256"),
        signature=hmac.digest(seed, b"signature", "sha256"),
    )


def new_run(now_us: int, random: int, *, after: Run | None = None) -> Run:
    """The id of a run that begins at `now_us` (µs since 1970): greater than `after`, whatever the clock says."""
    start = now_us if after is None else max(now_us, int(after[:16], 16) + 1)
    return Run(f"{start:016x}{random % (1 << 64):016x}")


def seal(envelope: Envelope, body: bytes, key: bytes) -> bytes:
    """The message's bytes, signed. The body is of the size that `fits` says."""
    header = _HEADER.pack(
        _MAGIC,
        envelope.node,
        bytes.fromhex(envelope.run),
        envelope.seq,
        envelope.span,
        envelope.kind,
        len(body),
    )
    signed = header + body
    return signed + _signature(signed, key)


def fits(body: bytes) -> bool:
    """Whether a message with this body is within the limit of both sides."""
    return len(body) + OVERHEAD <= MAX_MESSAGE


def verify(untrusted_frame: bytes, key: bytes) -> Message:
    """The message in a frame, or BadEnvelope. Until the signature is right, size and version are all it reads."""
    if not OVERHEAD <= len(untrusted_frame) <= MAX_MESSAGE:
        raise BadEnvelope("size", f"a message of {len(untrusted_frame)} bytes")
    if not untrusted_frame.startswith(_MAGIC):
        raise BadEnvelope("version", "not a message of this version of the protocol")
    signed = untrusted_frame[:-_SIGNATURE_SIZE]
    if not hmac.compare_digest(_signature(signed, key), untrusted_frame[-_SIGNATURE_SIZE:]):
        raise BadEnvelope("signature", "the signature is not the secret's")
    return _read_header(signed)


def read(message: Message) -> Body:
    """What a verified message says, or BadBody: a kind, a field or a type that this version does not know."""
    kind = _BODIES.get(message.envelope.kind)
    if kind is None:
        raise BadBody("kind", f"a message of the unknown kind {message.envelope.kind}")
    return decode(kind, message.untrusted_body)


def _read_header(signed: bytes) -> Message:
    _, node, run, seq, span, kind, size = _HEADER.unpack_from(signed)
    body = signed[_HEADER.size :]
    if size != len(body):
        raise BadEnvelope("size", f"says {size} bytes of body, has {len(body)}")
    if run == _NO_RUN or seq >= INTEGER_LIMIT or not 1 <= span <= seq + 1:
        raise BadEnvelope("envelope", "run, number or span out of range")
    return Message(Envelope(node, Run(run.hex()), seq, kind, span), body)


def _signature(signed: bytes, key: bytes) -> bytes:
    digest = _keyed(key).copy()
    digest.update(signed)
    return digest.digest()


@lru_cache(maxsize=1)
def _keyed(key: bytes) -> hmac.HMAC:
    """The HMAC of nothing yet. To begin with the key each time takes as long as a message does."""
    return hmac.new(key, digestmod="sha256")
