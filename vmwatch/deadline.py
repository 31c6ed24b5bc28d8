# SPDX-License-Identifier: Apache-2.0
"""urllib3's connections with a deadline for the whole answer: a socket's timeout begins anew with every byte.

Without it, a panel that drips one byte a second holds a worker for days, in the head of its answer too.
"""

from __future__ import annotations

import http.client
import io
import math
import time
from typing import TYPE_CHECKING, Any, Final

from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

if TYPE_CHECKING:
    import socket

    from _typeshed import WriteableBuffer


class _Timed(io.RawIOBase):
    """What arrives on a socket: nothing more once its timeout, counted from now, has passed.

    A read that waits then may still wait that long, so that an answer takes at most twice the timeout.
    """

    def __init__(self, sock: socket.socket, raw: io.RawIOBase) -> None:
        self._raw = raw
        self._deadline = time.monotonic() + (sock.gettimeout() or math.inf)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int | None:
        if time.monotonic() > self._deadline:
            raise TimeoutError("timed out")
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Response(http.client.HTTPResponse):
    """An answer whose head and body have the read timeout together."""

    def __init__(
        self, sock: socket.socket, debuglevel: int = 0, method: str | None = None, url: str | None = None
    ) -> None:
        super().__init__(sock, debuglevel, method, url)
        self.fp = io.BufferedReader(_Timed(sock, self.fp.detach()))


class _OneSend(http.client.HTTPConnection):
    """Sends the head of a request and its body at once: the server need not wake up for half a request."""

    _held: list[bytes] | None = None

    def endheaders(self, message_body: Any = None, *, encode_chunked: bool = False) -> None:  # noqa: ANN401
        self._held = []
        try:
            super().endheaders(message_body, encode_chunked=encode_chunked)
            held = self._held
        finally:
            self._held = None
        self.send(b"".join(held))

    def send(self, data: Any) -> None:  # noqa: ANN401 (http.client takes files and iterables too)
        if self._held is None or not isinstance(data, bytes):
            super().send(data)
        else:
            self._held.append(data)


class _PlainConnection(_OneSend, HTTPConnection):
    response_class = _Response


class _SecureConnection(_OneSend, HTTPSConnection):
    response_class = _Response


class _PlainPool(HTTPConnectionPool):
    ConnectionCls = _PlainConnection


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = _SecureConnection


POOLS: Final = {"http": _PlainPool, "https": _SecurePool}
"""For `PoolManager.pool_classes_by_scheme`."""
