# SPDX-License-Identifier: Apache-2.0
"""What the kernel is told of the connections that a master accepts."""

from __future__ import annotations

import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from vmwatch.tcp import listen

if TYPE_CHECKING:
    from collections.abc import Iterator

BUFFER = 8192


@contextmanager
def connected(host: str) -> Iterator[tuple[socket.socket, socket.socket]]:
    """A connection: our end, and the other one."""
    with (
        listen(host, 0, buffer=BUFFER, backlog=1) as listener,
        socket.create_connection(listener.getsockname()[:2]) as there,
        listener.accept()[0] as here,
    ):
        yield here, there


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_several_segments_fit_into_the_buffers_of_a_connection(host: str) -> None:
    with connected(host) as (here, there):
        assert there.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG) <= BUFFER // 4
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            assert here.getsockopt(socket.SOL_SOCKET, option) == 2 * BUFFER, "as the kernel counts"


def test_a_host_that_lost_its_power_is_let_go_within_a_minute() -> None:
    with connected("127.0.0.1") as (here, _):
        assert here.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        idle, interval, count = (
            here.getsockopt(socket.IPPROTO_TCP, option)
            for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
        )
        assert idle + interval * count <= 60
