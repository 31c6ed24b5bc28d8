# SPDX-License-Identifier: Apache-2.0
"""The floor of the throughput: receive, verify the HMAC, decode, insert, commit. No order, no state, no calls.

`python -m bench.floor_receiver HOST:PORT SECRET FILE`: prints `ready`, and is ended when the rows are counted.
"""

from __future__ import annotations

import hashlib
import hmac
import itertools
import json
import sqlite3
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

import zmq

from vmwatch.link import BATCH, KERNEL_BUFFER, MASTER_QUEUE
from vmwatch.protocol import OVERHEAD, derive_keys

if TYPE_CHECKING:
    from collections.abc import Iterator

_SIGNATURE = hashlib.sha256().digest_size
_HEADER = OVERHEAD - _SIGNATURE


def main(address: str, secret: str, file: str) -> None:
    keys = derive_keys(secret)
    database = sqlite3.connect(file, isolation_level=None)
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("PRAGMA synchronous=FULL")
    database.execute("CREATE TABLE event (id INTEGER PRIMARY KEY, name TEXT, type TEXT, subtype TEXT)")
    with zmq.Context() as context, context.socket(zmq.PULL) as pull:
        pull.rcvhwm, pull.rcvbuf = MASTER_QUEUE, KERNEL_BUFFER
        pull.curve_server, pull.curve_secretkey = True, keys.master
        pull.bind(f"tcp://{address}")
        print("ready", flush=True)
        while True:
            arrived = _arrived(pull)
            first = next(arrived)
            database.execute("BEGIN")
            for frame in itertools.chain([first], arrived):
                _insert(database, frame, keys.signature)
            database.execute("COMMIT")


def _arrived(pull: zmq.Socket[bytes]) -> Iterator[bytes]:
    """One message at least, as many as are there, a batch at most."""
    yield pull.recv()
    with suppress(zmq.Again):
        for _ in range(BATCH - 1):
            yield pull.recv(zmq.NOBLOCK)


def _insert(database: sqlite3.Connection, frame: bytes, key: bytes) -> None:
    signed, signature = frame[:-_SIGNATURE], frame[-_SIGNATURE:]
    if not hmac.compare_digest(hmac.digest(key, signed, "sha256"), signature):
        raise ValueError("signature")
    body = json.loads(signed[_HEADER:])
    values = (body.get("name"), body.get("type"), body.get("subtype"))
    database.execute("INSERT INTO event (name, type, subtype) VALUES (?, ?, ?)", values)


if __name__ == "__main__":
    main(*sys.argv[1:])
