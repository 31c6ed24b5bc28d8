# SPDX-License-Identifier: Apache-2.0
"""A new secret for the cluster while events flow, as docs/security.md has it: services with libvirt's test driver."""

from __future__ import annotations

import itertools
import secrets
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.integration.stack import Stack
from tests.lab.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.lab.host import Host

pytestmark = pytest.mark.needs("libvirtd", "unshare", "virsh")

PACE_SECONDS = 0.3
SAID = {
    "master": "handshake failed, wrong secret or not a node: peer=127.0.0.1",
    "node": "closed during the handshake: wrong secret, or no vmwatch-master there",
}


@contextmanager
def changes(stack: Stack) -> Iterator[None]:
    """While this lasts a domain pauses and goes on, all the time."""
    (domain,) = stack.define("web")
    domain.create()
    stopping = threading.Event()

    def change() -> None:
        for number in itertools.count():
            (domain.resume if number % 2 else domain.suspend)()
            if stopping.wait(PACE_SECONDS):
                return

    thread = threading.Thread(target=change)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join()


def give(stack: Stack, name: str, secret: str) -> None:
    """What the administrator does on a host: write the secret into the file, restart the service."""
    file = stack.folder / f"{name}.conf"
    lines = [line for line in file.read_text().splitlines() if not line.startswith("secret=")]
    file.write_text("\n".join([*lines, f"secret={secret}", ""]))
    service = getattr(stack, name)
    assert service.stop() == 0
    service.start()


@pytest.mark.parametrize("order", [("master", "node"), ("node", "master")])
def test_a_new_secret_loses_nothing_whoever_has_it_first(
    driver_host: Host, tmp_path: Path, order: tuple[str, str]
) -> None:
    with Stack(driver_host, tmp_path) as stack:
        stack.start()
        with changes(stack):
            wait_for(lambda: "web" in stack.shown(), seconds=20, what="the first changes to be told")
            first, second = order
            secret = secrets.token_hex(16).upper()
            give(stack, first, secret)
            for service, said in SAID.items():
                output = getattr(stack, service).output
                wait_for(lambda: said in output(), seconds=20, what=f"the {service} to say so")  # noqa: B023 (now)
            told = len(stack.told("web"))
            give(stack, second, secret)
            wait_for(lambda: len(stack.told("web")) > told + 5, seconds=20, what="changes to be told again")
        stack.wait_until_all_is_registered()
        assert stack.shown() == stack.states()
        assert stack.client.problems() == []
