# SPDX-License-Identifier: Apache-2.0
"""vmwatch-master as a process, and what the test itself is to it: nodes that send, a panel that answers."""

from __future__ import annotations

import asyncio
import secrets
import sqlite3
import time
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qs

from tests.lab.processes import Service, free_port, write_config
from vmwatch.config import Endpoint
from vmwatch.link import Push
from vmwatch.messages import Begin, Event, Hello, Source
from vmwatch.protocol import Envelope, Kind, Run, derive_keys, seal
from vmwatch.strict import encode

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from vmwatch.messages import Body
    from vmwatch.protocol import Keys

RUN: Final = Run("0" * 31 + "1")
_TIME: Final = datetime(2026, 11, 22, 10, tzinfo=UTC)
_ANSWER: Final = b'{"doc":{"ok":{}}}'
_OK: Final = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(_ANSWER), _ANSWER)


class Panel:
    """Takes every call. `told`: when each event came, by its id (monotonic seconds)."""

    def __init__(self) -> None:
        self.told: dict[str, float] = {}
        self.calls = 0
        self.url = ""

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/vmmgr"
        async with server:
            yield

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                size = int(head.partition(b"content-length:")[2].split()[0])
                form = parse_qs((await reader.readexactly(size)).decode())
                self.calls += 1
                if "event_id" in form:
                    self.told.setdefault(form["event_id"][0], time.monotonic())
                writer.write(_OK)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the master has closed
        finally:
            writer.close()


class MasterProcess(Service):
    """The service with files of its own. A context manager: in the end it is gone."""

    def __init__(self, folder: Path, *, panel_url: str) -> None:
        self.secret = secrets.token_hex(16).upper()
        self.keys = derive_keys(self.secret)
        self.endpoint = Endpoint("127.0.0.1", free_port())
        self.ledger = folder / "master/ledger.db"
        values = {
            "listen": self.endpoint,
            "secret": self.secret,
            "panel_url": panel_url,
            "panel_user": "admin",
            "panel_password": "secret",
            "log_file": folder / "master.log",
            "pid_file": folder / "master.pid",
            "state_dir": folder / "master",
        }
        config = write_config(folder / "master.conf", values)
        command = ["vmwatch-master", "--config", str(config), "--foreground"]
        super().__init__(command, log=folder / "master.out", ready=" ready\n")

    def rows(self, query: str) -> list[tuple[object, ...]]:
        """What its ledger holds, as others may read it."""
        with closing(sqlite3.connect(f"{self.ledger.as_uri()}?mode=ro", uri=True, timeout=5)) as reader:
            return reader.execute(query).fetchall()

    def taken(self, node: int = 1) -> int:
        """The number of the last record taken from a node; -1: none."""
        rows = self.rows(f"SELECT seq FROM node WHERE id = {node}")
        return int(str(rows[0][0])) if rows else -1


@asynccontextmanager
async def session(endpoint: Endpoint, keys: Keys) -> AsyncIterator[Push]:
    """A connection as a node makes it."""
    push = await Push.open(endpoint, keys)
    try:
        yield push
    finally:
        push.close()


def frame(kind: Kind, body: Body, seq: int, *, key: bytes, node: int = 1) -> bytes:
    return seal(Envelope(node=node, run=RUN, seq=seq, kind=kind), encode(body), key)


def hello(key: bytes, seq: int = 0, *, node: int = 1) -> bytes:
    return frame(Kind.HELLO, Hello(host="kvm1", version="1"), seq, key=key, node=node)


def begin(key: bytes, *, node: int = 1) -> bytes:
    return frame(Kind.BEGIN, Begin(previous=None, last=None, time=_TIME), 0, key=key, node=node)


def event(key: bytes, seq: int, *, vms: int = 50, node: int = 1, extra: str = "") -> bytes:
    """A change of one VM after the other; `extra` makes the message as large as one likes."""
    name = f"vm{seq % vms}"
    type_, subtype = ("suspended", "paused") if seq // vms % 2 else ("resumed", "unpaused")
    body = Event(
        uuid=name,
        name=name,
        type=type_,
        subtype=subtype,
        time=_TIME,
        cause=extra or None,
        source=Source.EVENT,
        since=None,
        domain_id=1,
    )
    return frame(Kind.EVENT, body, seq, key=key, node=node)


def event_id(seq: int, *, node: int = 1) -> str:
    return f"{node}.{RUN}.{seq}"
