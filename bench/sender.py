# SPDX-License-Identifier: Apache-2.0
"""A node's stream, sealed beforehand and pushed as fast as it is taken: a session of one run, events of many VMs.

`python -m bench.sender HOST:PORT SECRET EVENTS VMS` prints when the first event went, in nanoseconds since 1970.
Sends with libzmq alone, so that no event loop of the sender's limits what is measured.
"""

from __future__ import annotations

import sys
import time
import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import zmq
from zmq.utils import z85

from vmwatch.link import KERNEL_BUFFER, NODE_QUEUE
from vmwatch.messages import Begin, Body, Event, Hello, Source
from vmwatch.protocol import Envelope, Keys, Kind, derive_keys, new_run, seal
from vmwatch.strict import encode

if TYPE_CHECKING:
    from collections.abc import Iterator

NODE = 1
_NAMESPACE = uuid.UUID(int=0)
_LINGER_MS = 30_000


def frames(keys: Keys, *, events: int, vms: int) -> Iterator[bytes]:
    """Hello, begin, and the events 1, 2, …, each VM's in turn."""
    now = datetime.now(UTC)
    run = new_run(int(now.timestamp() * 1e6), 1)

    def sealed(kind: Kind, seq: int, body: Body) -> bytes:
        return seal(Envelope(node=NODE, run=run, seq=seq, kind=kind), encode(body), keys.signature)

    yield sealed(Kind.HELLO, 0, Hello(host="bench", version="0"))
    yield sealed(Kind.BEGIN, 0, Begin(previous=None, last=None, time=now))
    for number in range(events):
        yield sealed(Kind.EVENT, number + 1, _event(number, vms, now))


def _event(number: int, vms: int, now: datetime) -> Event:
    name = f"vm-{number % vms}"
    type_, subtype = ("suspended", "paused") if number // vms % 2 else ("resumed", "unpaused")
    return Event(
        uuid=str(uuid.uuid5(_NAMESPACE, name)),
        name=name,
        type=type_,
        subtype=subtype,
        time=now,
        cause=None,
        source=Source.EVENT,
        since=None,
        domain_id=number % vms + 1,
    )


def public(secret_key: bytes) -> bytes:
    return zmq.curve_public(z85.encode(secret_key))  # type: ignore[no-untyped-call]


def main(address: str, secret: str, events: str, vms: str) -> None:
    keys = derive_keys(secret)
    hello, begin, *rest = frames(keys, events=int(events), vms=int(vms))
    with zmq.Context() as context, context.socket(zmq.PUSH) as push:
        push.immediate = True  # the clock starts after the handshake
        push.linger = _LINGER_MS
        push.sndhwm, push.sndbuf = NODE_QUEUE, KERNEL_BUFFER
        push.curve_serverkey, push.curve_publickey = public(keys.master), public(keys.node)
        push.curve_secretkey = keys.node
        push.connect(f"tcp://{address}")
        push.send(hello)
        push.send(begin)
        print(time.time_ns(), flush=True)
        for frame in rest:
            push.send(frame)


if __name__ == "__main__":
    main(*sys.argv[1:])
