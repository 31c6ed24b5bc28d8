# SPDX-License-Identifier: Apache-2.0
"""urllib3's connections with a deadline for the whole answer, and a short way from requests' adapter to them.

A socket's timeout begins anew with every byte: a panel that drips one byte a second would hold a worker for days, in
the head of its answer too. The short way leaves out what is not used here, and took the master a third of the time
of a call: retries, redirects, proxies, compressed answers, headers and addresses that are read once more.
"""

from __future__ import annotations

import http.client
import io
import math
import time
from typing import TYPE_CHECKING, Any, Final

from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import NewConnectionError, ProtocolError, ReadTimeoutError
from urllib3.util.ssl_match_hostname import CertificateError

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Mapping

    from _typeshed import WriteableBuffer
    from urllib3.util.timeout import Timeout


_SAYING: Final = (
    b"http/",
    b"content-length",
    b"transfer-encoding",
    b"connection",
    b"keep-alive",
    b"location",
)
"""What the lines of an answer's head begin with that are read, in small letters."""


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


class _Head:
    """An answer's head without the headers that say nothing here: to parse them took a tenth of a call's time."""

    def __init__(self, lines: io.BufferedReader) -> None:
        self._lines = lines
        self._skips = False

    def readline(self, most: int) -> bytes:
        """The status, a header that says how long the answer is or where it points to, or the empty line."""
        while True:
            line = self._lines.readline(most)
            if line[:1] not in (b" ", b"\t"):  # which go on with what the last line began
                self._skips = b":" in line and not line.lower().startswith(_SAYING)
            if not self._skips or not line.endswith(b"\n"):
                return line

    def close(self) -> None:
        self._lines.close()


class _Response(http.client.HTTPResponse):
    """An answer whose head and body have the read timeout together."""

    def __init__(
        self, sock: socket.socket, debuglevel: int = 0, method: str | None = None, url: str | None = None
    ) -> None:
        super().__init__(sock, debuglevel, method, url)
        self.fp = io.BufferedReader(_Timed(sock, self.fp.detach()))

    def begin(self) -> None:
        """Read the head."""
        whole = self.fp
        self.fp = _Head(whole)  # type: ignore[assignment]
        try:
            super().begin()
        finally:
            if self.fp is not None:  # http.client has not closed it
                self.fp = whole


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


class Answer:
    """A status, headers, and a body that is read once. Closed, it gives the connection back to its pool."""

    def __init__(self, answer: http.client.HTTPResponse, close: Callable[[], None]) -> None:
        """`close` is called in the end; the connection can be kept when `is_complete` then."""
        self._answer = answer
        self._close = close
        self.status = answer.status
        self.headers = answer.headers
        self.is_complete = False

    def read(self, size: int) -> bytes:
        """So many bytes, or all there are. Raises OSError, ProtocolError."""
        try:
            content = self._answer.read(size)
        except http.client.HTTPException as error:
            raise ProtocolError("no HTTP", error) from error
        self.is_complete = self._answer.isclosed()
        if self._answer.length and len(content) < size:
            raise ProtocolError("the answer was cut short")
        return content

    def close(self) -> None:
        """It is not read on."""
        self._answer.close()
        self._close()


class _ShortWay(HTTPConnectionPool):
    """What requests' adapter calls of urllib3: `urlopen`, with those of its arguments that say anything here."""

    def urlopen(  # type: ignore[override]
        self, *, method: str, url: str, body: bytes, headers: Mapping[str, str], timeout: Timeout, **_: object
    ) -> Answer:
        """Send a request; return when the head of the answer is there. Raises what requests' adapter expects."""
        connection = self._get_conn()  # type: ignore[attr-defined]
        answer: Answer | None = None

        def give_back() -> None:
            if answer is None or not answer.is_complete:
                connection.close()
            self._put_conn(connection)  # type: ignore[attr-defined]

        try:
            connection.timeout = timeout.connect_timeout
            self._validate_conn(connection)  # type: ignore[attr-defined]
            connection.request(method, url, body=body, headers=headers)
            connection.sock.settimeout(timeout.read_timeout)
            # Not `connection.getresponse`: urllib3 2 wraps what it gets, urllib3 1 does not.
            answer = Answer(_checked(http.client.HTTPConnection.getresponse(connection)), give_back)
        except TimeoutError as error:
            raise ReadTimeoutError(self, url, "timed out") from error
        except (http.client.HTTPException, CertificateError, NewConnectionError) as error:
            raise ProtocolError("no connection", error) from error
        finally:
            if answer is None:
                give_back()
        return answer


def _checked(answer: http.client.HTTPResponse) -> http.client.HTTPResponse:
    """Of two lengths, http.client takes the first: where the next answer begins would be anybody's guess."""
    if len(set(answer.headers.get_all("Content-Length", ()))) > 1:
        raise ProtocolError("the answer has two lengths")
    return answer


class _PlainPool(_ShortWay):
    ConnectionCls = _PlainConnection


class _SecurePool(_ShortWay, HTTPSConnectionPool):
    ConnectionCls = _SecureConnection


POOLS: Final = {"http": _PlainPool, "https": _SecurePool}
"""For `PoolManager.pool_classes_by_scheme`."""
