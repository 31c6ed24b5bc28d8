# SPDX-License-Identifier: Apache-2.0
"""What an administrator does to the domains of a private libvirtd's test driver."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

    from tests.lab.host import Host

DOMAIN: Final = (
    "<domain type='test'><name>{name}</name><memory>1024</memory><os><type>hvm</type></os></domain>"
)


async def virsh(driver: Host, *commands: str) -> None:
    """Run virsh's commands one after the other, in a process of its own. Each must succeed."""
    process = await asyncio.create_subprocess_exec(
        *("virsh", "--quiet", "--connect", driver.test_uri, "; ".join(commands)),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    _, errors = await process.communicate()
    assert errors == b""


def definition(folder: Path, name: str) -> str:
    """The command that defines a domain."""
    file = folder / f"{name}.xml"
    file.write_text(DOMAIN.format(name=name))
    return f"define {file}"
