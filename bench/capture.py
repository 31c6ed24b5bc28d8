# SPDX-License-Identifier: Apache-2.0
"""The panel's calls as they pass over loopback, with the kernel's own times, in nanoseconds.

The panel's register has whole milliseconds, too coarse for a few of them. A listener on the interface sees when a
call left its caller and when its answer left the panel, which is just after the commit, and is in nobody's way.
"""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections import deque
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qs

if TYPE_CHECKING:
    from typing import Self

_ALL_PROTOCOLS: Final = 3  # ETH_P_ALL
_SOL_PACKET: Final = 263
_PACKET_IGNORE_OUTGOING: Final = 23  # on loopback each packet is seen twice, leaving and arriving
_PACKET_STATISTICS: Final = 6
_STATISTICS: Final = struct.Struct("=II")  # packets, and of them dropped
_SO_RCVBUFFORCE: Final = 33
_BUFFER: Final = 16 << 20  # bytes
_SO_TIMESTAMPNS: Final = 35
_TIMESPEC: Final = struct.Struct("=qq")
_LONGEST: Final = 1 << 17
_TCP: Final = 6
_LEAST_MESSAGE: Final = 200  # bytes: what is shorter is a ping of ZeroMQ's


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """One call of `vm.event` and its answer. Times in nanoseconds since 1970, of this machine's clock."""

    name: str
    """The VM's."""

    heard: int
    """When the caller's callback had libvirt's event: the call's own `time`, in whole microseconds."""

    carried: int | None
    """When the node's message left for the master; None of a call that was made without them."""

    sent: int
    """When the call left its caller."""

    answered: int
    """When the answer left the panel."""


class Capture:
    """Listens from `__enter__` to `__exit__`. Needs the right to read packets: root's, or a namespace's own."""

    def __init__(self, panel: int, master: int) -> None:
        """The ports that panel and master listen on, on 127.0.0.1."""
        self._panel = panel
        self._master = master
        self._carried: deque[int] = deque(maxlen=100)
        self._calls: dict[int, tuple[bytes, int]] = {}  # by the caller's port: what it sent so far, and when
        self._exchanges: list[Exchange] = []
        self._news = threading.Condition()
        self._ends = False
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ALL_PROTOCOLS))
        self._socket.bind(("lo", _ALL_PROTOCOLS))
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        self._socket.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
        self._enlarge_buffer()
        self._socket.settimeout(0.2)
        self._thread = threading.Thread(target=self._listen, name="capture")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends = True
        self._thread.join()
        self._socket.close()

    def wait_for(self, name: str, *, after: int, seconds: float = 10.0) -> Exchange:
        """The next exchange about this VM whose call was sent after this time. Raises TimeoutError."""
        deadline = time.monotonic() + seconds
        with self._news:
            while True:
                for exchange in reversed(self._exchanges):
                    if exchange.name == name and exchange.sent > after:
                        return exchange
                if not self._news.wait(deadline - time.monotonic()):
                    missed = f"{self._dropped()} packets were not seen"
                    raise TimeoutError(f"the panel had no call about {name} within {seconds:g} s ({missed})")

    def _enlarge_buffer(self) -> None:
        """On a busy machine this thread may have to wait for its turn: what comes meanwhile must not be lost."""
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
        except PermissionError:  # in an ordinary user's namespace: as much as the machine lets everybody have
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)

    def _dropped(self) -> int:
        counts = self._socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, _STATISTICS.size)
        return int(_STATISTICS.unpack(counts)[1])

    def _listen(self) -> None:
        while not self._ends:
            try:
                packet, ancillary, _, _ = self._socket.recvmsg(_LONGEST, 256)
            except TimeoutError:
                continue
            if packet[9] == _TCP:
                seconds, nanoseconds = _TIMESPEC.unpack(ancillary[0][2])
                self._take(packet, seconds * 1_000_000_000 + nanoseconds)

    def _take(self, packet: bytes, at: int) -> None:
        start = (packet[0] & 15) * 4
        (length,) = struct.unpack_from("!H", packet, 2)
        source, target = struct.unpack_from("!HH", packet, start)
        content = packet[start + (packet[start + 12] >> 4) * 4 : length]
        if not content:
            return
        if target == self._master and len(content) > _LEAST_MESSAGE:
            self._carried.append(at)
        elif target == self._panel:
            said, _ = self._calls.get(source, (b"", 0))
            self._calls[source] = (said + content, at)
        elif source == self._panel and target in self._calls:
            self._answer(*self._calls.pop(target), content, at)

    def _answer(self, call: bytes, sent: int, answer: bytes, at: int) -> None:
        form = parse_qs(call.rpartition(b"\r\n\r\n")[2].decode(errors="replace"))
        if form.get("func") != ["vm.event"] or not answer.startswith(b"HTTP/1.1 200"):
            return
        heard = round(datetime.fromisoformat(form["time"][0]).timestamp() * 1e6) * 1000
        exchange = Exchange(
            name=form["name"][0],
            heard=heard,
            carried=next((carried for carried in self._carried if heard < carried < sent), None),
            sent=sent,
            answered=at,
        )
        with self._news:
            self._exchanges.append(exchange)
            self._news.notify_all()
