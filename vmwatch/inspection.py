# SPDX-License-Identifier: Apache-2.0
"""Looks at a service from outside: whether it runs, and what its files hold. Changes nothing, holds up nobody.

The lock is not tried, for a service that starts at that moment would find it taken. The files are opened for reading
alone; a clean one without SQLite making files of its own beside it.
"""

from __future__ import annotations

import re
import sqlite3
import time
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from vmwatch import status
from vmwatch.config import NodeSettings
from vmwatch.errors import StorageError
from vmwatch.outbox import WINDOW_BYTES, WINDOW_MESSAGES
from vmwatch.protocol import OVERHEAD

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vmwatch.config import ServiceSettings

_BUSY_SECONDS: Final = 5.0
_CLEANED_EVERY: Final = 1024 + 64
"""Records that were sent and go beyond what a session repeats stay for so long (see `session`)."""

_PROBLEM: Final = re.compile(r"problem (?P<problem>\S+) (?P<node>\S+) (?P<name>.+)", re.DOTALL)


def inspect(settings: ServiceSettings) -> status.Service:
    """How the service with this configuration, a node's or a master's, stands on this host. Raises StorageError."""
    is_node = isinstance(settings, NodeSettings)
    file = settings.state_dir / ("outbox.db" if is_node else "ledger.db")
    state: status.Outbox | status.Ledger | None = None
    try:
        if file.exists():
            with _opened(file) as sql:
                state = _outbox(sql) if is_node else _ledger(sql)
        pid = running(settings.pid_file)
    except PermissionError as error:
        raise StorageError(f"{error.filename}: not to be read by this user") from None
    name = "vmwatch-node" if is_node else "vmwatch-master"
    return status.Service(name=name, disabled=settings.disabled, pid=pid, state=state)


def running(pid_file: Path) -> int | None:
    """The process that holds the pid file open, as it does from its start to its end; None: nobody.

    Raises PermissionError where another user's process cannot be looked at.
    """
    try:
        text = pid_file.read_text().partition("\n")[0]
        descriptors = Path("/proc", str(int(text)), "fd")
        held = pid_file.stat()
        for descriptor in descriptors.iterdir():
            found = descriptor.stat()
            if (found.st_dev, found.st_ino) == (held.st_dev, held.st_ino):
                return int(text)
    except (FileNotFoundError, ProcessLookupError, ValueError):
        return None  # never started, ended, or ending while we look
    return None


@contextmanager
def _opened(file: Path) -> Iterator[sqlite3.Connection]:
    """One state of the file, whoever writes it. StorageError: not to be read, or not as this version has it."""
    # A clean file has no write-ahead log, and SQLite would make one for whoever reads it.
    how = "mode=ro" if file.with_name(f"{file.name}-wal").exists() else "mode=ro&immutable=1"
    try:
        with closing(sqlite3.connect(f"{file.as_uri()}?{how}", uri=True, timeout=_BUSY_SECONDS)) as sql:
            sql.isolation_level = None
            sql.execute("BEGIN")
            yield sql
    except sqlite3.Error as error:
        raise StorageError(f"{file}: {error}") from error


def _outbox(sql: sqlite3.Connection) -> status.Outbox:
    (run,) = sql.execute("SELECT id FROM run").fetchone()
    (last,) = sql.execute("SELECT max(seq) FROM record WHERE run = ?", (run,)).fetchone()
    (kept,) = sql.execute("SELECT count(*) FROM record").fetchone()
    return status.Outbox(
        run=run,
        last=last,
        kept=kept,
        unsent=max(0, kept - _window(sql) - _CLEANED_EVERY),
        vms=dict(sql.execute("SELECT state, count(*) FROM known GROUP BY state")),
    )


def _window(sql: sqlite3.Connection) -> int:
    """How many records a session would repeat if all had been sent (docs/protocol.md)."""
    count, size = 0, 0
    for (length,) in sql.execute("SELECT length(body) FROM record ORDER BY id DESC"):
        if count >= WINDOW_MESSAGES and size >= WINDOW_BYTES:
            break
        count += 1
        size += length + OVERHEAD if count > WINDOW_MESSAGES else 0
    return count


_TAKEN: Final = "SELECT id, node.run, seq, heard FROM node LEFT JOIN beat ON beat.node = id ORDER BY id"


def _ledger(sql: sqlite3.Connection) -> status.Ledger:
    (calls,) = sql.execute("SELECT (SELECT count(*) FROM call) + (SELECT count(*) FROM latest)").fetchone()
    (unread,) = sql.execute("SELECT count(*) FROM unread").fetchone()
    problems = [_PROBLEM.fullmatch(key) for (key,) in sql.execute("SELECT key FROM problem ORDER BY key")]
    return status.Ledger(
        nodes=tuple(
            status.Taken(node=node, run=run, last=seq, heard=datetime.fromisoformat(heard) if heard else None)
            for node, run, seq, heard in sql.execute(_TAKEN)
        ),
        calls=calls,
        oldest=_oldest(sql),
        aside=tuple(
            status.Aside(id=number, func=func, about=key, reason=reason)
            for number, func, key, reason in sql.execute(
                "SELECT id, func, key, reason FROM parked ORDER BY id"
            )
        ),
        problems=tuple(_problem(match) for match in problems if match),
        told=tuple(key for (key,) in sql.execute("SELECT key FROM anomaly ORDER BY id")),
        unread=unread,
    )


def _oldest(sql: sqlite3.Connection) -> datetime | None:
    """Calls are kept with the monotonic time, which all processes share, and which begins with the host's start."""
    oldest = "SELECT * FROM (SELECT time FROM {} ORDER BY id LIMIT 1)"
    query = f"{oldest.format('call')} UNION ALL {oldest.format('latest')}"
    now = time.monotonic()
    waited = [now - enqueued if enqueued <= now else now for (enqueued,) in sql.execute(query)]
    return datetime.now(UTC) - timedelta(seconds=max(waited)) if waited else None


def _problem(match: re.Match[str]) -> str:
    """`node_silent, node 1`, from the ledger's key."""
    parts = [match["problem"]]
    parts += [f"{what} {match[what]}" for what in ("node", "name") if match[what] != "None"]
    return ", ".join(parts)
