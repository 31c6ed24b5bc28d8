# SPDX-License-Identifier: Apache-2.0
"""What the kernel knows of a TCP connection, and libzmq does not tell: whether the network lets nothing through.

TCP sends again what is not acknowledged, after pauses that double: when the network is back after half a minute, the
next attempt may be another half away. A new connection is there at once. A peer that is only slow or frozen is
another thing: its kernel answers, and the connection is to be kept.
"""

from __future__ import annotations

import socket
import struct
from typing import Final

CUT_ATTEMPTS: Final = 3  # by Linux 0.2, 0.6 and 1.4 s after the first, where the way there and back is short
CUT_MILLISECONDS: Final = 1000

# struct tcp_info of linux/tcp.h: the second byte counts attempts in vain; two of its words are the milliseconds since
# data was last sent, again or not, and since anything was acknowledged.
_TCP_INFO: Final = struct.Struct("=2xB41xI8xI")


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
