# SPDX-License-Identifier: Apache-2.0
"""What several modules here begin with."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.lab.host import Host


@pytest.fixture
def driver(driver_host: Host) -> Iterator[Host]:
    # The test driver's domains live as long as somebody is connected.
    command = ("virsh", "--quiet", "--connect", driver_host.test_uri)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as visitor:
        assert visitor.stdin is not None
        assert visitor.stdout is not None
        visitor.stdin.write(b"uri\n")
        while b"test+unix" not in visitor.stdout.readline():
            assert visitor.poll() is None
        yield driver_host
        visitor.kill()
