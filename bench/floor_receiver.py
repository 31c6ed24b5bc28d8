# SPDX-License-Identifier: Apache-2.0
"""The floor of the throughput: receive, verify the HMAC, decode, insert, commit. Nothing that vmwatch makes of it.

The least that keeps a message: envelope and body as they come, each field a column of one table; on a socket as the
master's, in its batches and as durably. No field is checked, no order kept, no state, no call.

`python -m bench.floor_receiver HOST:PORT SECRET FILE`: prints `ready`, and is ended when the rows are counted.
"""

from __future__ import annotations

import hmac
import json
import sqlite3
import struct
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import zmq

from vmwatch.link import BATCH, KERNEL_BUFFER, MASTER_QUEUE
from vmwatch.messages import Event
from vmwatch.protocol import derive_keys
from vmwatch.tcp import listen

if TYPE_CHECKING:
    from collections.abc import Iterator

_HEADER: Final = struct.Struct("!4sI16sQIII")  # docs/protocol.md
_SIGNATURE: Final = 32  # bytes
_COLUMNS: Final = ("node", "run", "seq", "span", "kind", *Event._fields)
_TABLE: Final = f"CREATE TABLE event (id INTEGER PRIMARY KEY, {', '.join(_COLUMNS)})"
_INSERT: Final = f"INSERT INTO event ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))})"


def main(address: str, secret: str, file: str) -> None:
    keys = derive_keys(secret)
    keyed = hmac.new(keys.signature, digestmod="sha256")
    database = sqlite3.connect(file, isolation_level=None)
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("PRAGMA synchronous=FULL")
    database.execute(_TABLE)
    with zmq.Context() as context, context.socket(zmq.PULL) as pull:
        pull.rcvhwm, pull.rcvbuf = MASTER_QUEUE, KERNEL_BUFFER
        pull.curve_server, pull.curve_secretkey = True, keys.master
        host, _, port = address.rpartition(":")
        listener = listen(host, int(port), buffer=KERNEL_BUFFER, backlog=1)
        pull.use_fd = listener.fileno()
        pull.bind(f"tcp://{address}")
        listener.detach()  # the descriptor is libzmq's
        print("ready", flush=True)
        while True:
            rows = [_row(frame, keyed) for frame in _arrived(pull)]
            database.execute("BEGIN")
            database.executemany(_INSERT, rows)
            database.execute("COMMIT")


def _arrived(pull: zmq.Socket[bytes]) -> Iterator[bytes]:
    """One message at least, as many as are there, a batch at most."""
    yield pull.recv()
    with suppress(zmq.Again):
        for _ in range(BATCH - 1):
            yield pull.recv(zmq.NOBLOCK)


def _row(frame: bytes, keyed: hmac.HMAC) -> tuple[object, ...]:
    signed = frame[:-_SIGNATURE]
    digest = keyed.copy()
    digest.update(signed)
    if not hmac.compare_digest(digest.digest(), frame[-_SIGNATURE:]):
        raise ValueError("signature")
    _, node, run, seq, span, kind, _ = _HEADER.unpack_from(signed)
    body = json.loads(signed[_HEADER.size :].decode())
    return (node, run, seq, span, kind, *map(body.get, Event._fields))


if __name__ == "__main__":
    main(*sys.argv[1:])
