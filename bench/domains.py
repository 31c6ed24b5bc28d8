# SPDX-License-Identifier: Apache-2.0
"""Domains of libvirt's test driver: no QEMU, so that what is measured is libvirt's event and what follows it."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import libvirt

if TYPE_CHECKING:
    from collections.abc import Iterator

_XML = "<domain type='test'><name>{}</name><memory unit='MiB'>8</memory><os><type>hvm</type></os></domain>"


@contextlib.contextmanager
def connection(uri: str) -> Iterator[libvirt.virConnect]:
    """A blocking connection to a test driver."""
    opened = libvirt.open(uri)
    try:
        yield opened
    finally:
        opened.close()


def start(driver: libvirt.virConnect, name: str) -> libvirt.virDomain:
    """Define a domain and start it."""
    domain = driver.defineXML(_XML.format(name))
    domain.create()
    return domain


def change(domain: libvirt.virDomain, number: int) -> None:
    """Change its state: even ones suspend it, odd ones let it go on."""
    if number % 2 == 0:
        domain.suspend()
    else:
        domain.resume()
