# SPDX-License-Identifier: Apache-2.0
"""What the kernel knows of a TCP connection, and what it has to be told: libzmq does neither.

Whether the network lets nothing through. TCP sends again what is not acknowledged, after pauses that double: when the
network is back after half a minute, the next attempt may be another half away. A new connection is there at once. A
peer that is only slow or frozen is another thing: its kernel answers, and the connection is to be kept.

How large a segment may be. Loopback's, or one of a network with jumbo frames, may be larger than half of a small
buffer. Linux, when such a buffer has been read, keeps to itself that there is room again (`tcp_cleanup_rbuf`,
`__tcp_select_window`); the sender waits for as much as a segment takes, and all that passes is what it sends five
times a second to ask for room: 30 to 105 messages, seen after a receiver was frozen, until nothing waited.
"""

from __future__ import annotations

import socket
import struct
from typing import Final

CUT_ATTEMPTS: Final = 3  # by Linux 0.2, 0.6 and 1.4 s after the first, where the way there and back is short
CUT_MILLISECONDS: Final = 1000

SEGMENT: Final = 1400
"""Bytes of a segment, at most: no more than an Ethernet's."""

# Of a host that lost its power nobody is told: its connection is let go 30 s after its kernel has last answered. A
# node speaks each second, so that no healthy one is ever asked.
_IDLE_SECONDS: Final = 10
_ASK_SECONDS: Final = 5
_ASK_TIMES: Final = 4

# struct tcp_info of linux/tcp.h: the second byte counts attempts in vain; two of its words are the milliseconds since
# data was last sent, again or not, and since anything was acknowledged.
_TCP_INFO: Final = struct.Struct("=2xB41xI8xI")


def listen(host: str, port: int, *, buffer: int, backlog: int) -> socket.socket:
    """A socket that listens; who connects has its `buffer` (bytes, each direction) and all else. Raises OSError."""
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        for level, option, value in (
            (socket.SOL_SOCKET, socket.SO_REUSEADDR, 1),
            (socket.SOL_SOCKET, socket.SO_RCVBUF, buffer),
            (socket.SOL_SOCKET, socket.SO_SNDBUF, buffer),
            (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
            (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _IDLE_SECONDS),
            (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _ASK_SECONDS),
            (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _ASK_TIMES),
            (socket.IPPROTO_TCP, socket.TCP_MAXSEG, SEGMENT),
        ):
            listener.setsockopt(level, option, value)
        listener.settimeout(0)  # as libzmq's own: it does not wait
        listener.bind((host, port))
        listener.listen(backlog)
    except OSError:
        listener.close()
        raise
    return listener


def is_cut(descriptor: int) -> bool:
    """Whether a connection's data was sent again and again, and nothing came back. False: it may be well, or closed.

    The descriptor is another's, which may close it at any moment: then this is another connection's answer, or none.
    """
    try:
        with socket.socket(fileno=descriptor) as connection:
            try:
                info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
            finally:
                connection.detach()
    except OSError:
        return False
    attempts: int
    since_sent: int
    since_answer: int
    attempts, since_sent, since_answer = _TCP_INFO.unpack(info)
    return attempts >= CUT_ATTEMPTS and since_answer - since_sent >= CUT_MILLISECONDS
