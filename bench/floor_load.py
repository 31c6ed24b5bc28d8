# SPDX-License-Identifier: Apache-2.0
"""The floor of the drain: a plain load generator on the panel's endpoint, one kept connection a thread.

Made of the standard library's http.client with bodies encoded beforehand, so that the panel is what limits it.
"""

from __future__ import annotations

import http.client
import threading
import time
from datetime import UTC, datetime
from urllib.parse import urlencode, urlsplit

from bench.rig import USER
from vmwatch.calls import event_fields
from vmwatch.protocol import Run, new_run

NODE = 2
_HEADERS = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}


def generate(url: str, password: str, *, calls: int, vms: int, threads: int) -> float:
    """Make the calls, each VM's in order; the calls a second. Raises RuntimeError when one was not answered ok."""
    now = datetime.now(UTC)
    run = new_run(int(now.timestamp() * 1e6), NODE)
    bodies = [_body(number, vms, run, now, password) for number in range(calls)]
    failures: list[BaseException] = []
    shares = [
        [body for number, body in enumerate(bodies) if number % vms % threads == share]
        for share in range(threads)
    ]
    workers = [threading.Thread(target=_work, args=(url, share, failures)) for share in shares]
    began = time.monotonic()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if failures:
        raise RuntimeError("a call of the load generator failed") from failures[0]
    return calls / (time.monotonic() - began)


def _work(url: str, bodies: list[bytes], failures: list[BaseException]) -> None:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)
    try:
        for body in bodies:
            connection.request("POST", parts.path, body, _HEADERS)
            _check(connection.getresponse().read())
    except (OSError, http.client.HTTPException, RuntimeError) as error:
        failures.append(error)
    finally:
        connection.close()


def _check(answer: bytes) -> None:
    if b'"ok"' not in answer:
        raise RuntimeError(answer.decode(errors="replace")[:300])


def _body(number: int, vms: int, run: Run, now: datetime, password: str) -> bytes:
    paused = number // vms % 2 == 1
    fields = event_fields(
        hostnode=NODE,
        name=f"load-{number % vms}",
        type="suspended" if paused else "resumed",
        subtype="paused" if paused else "unpaused",
        uuid=f"00000000-0000-4000-8000-{number % vms:012d}",
        time=now,
        event_id=f"{NODE}.{run}.{number + 1}",
        status="paused" if paused else "running",
    )
    access = {"func": "vm.event", "out": "json", "sok": "ok", "authinfo": f"{USER}:{password}"}
    return urlencode({**access, **fields}).encode()
