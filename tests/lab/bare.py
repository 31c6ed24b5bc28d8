# SPDX-License-Identifier: Apache-2.0
"""What boots without a kernel: a program of 16 bits that answers on the serial line, on a disk or on a CD.

A guest that boots from its disk, or from a CD, needs no loader of a distribution then, and is there in a second.
"""

from __future__ import annotations

from typing import Final

FROM_DISK: Final = b"FROM DISK\r\n"
FROM_CD: Final = b"FROM CD\r\n"

_SECTOR: Final = 2048  # of a CD
_CATALOG, _PROGRAM = 19, 20  # sectors


def boot_sector(text: bytes) -> bytes:
    """A disk's first sector: answers `text` to each character on the serial line. The BIOS loads it to 0x7c00."""
    program = bytes.fromhex(
        "31c0 8ed8 fb"  # xor ax,ax; mov ds,ax; sti
        "f4 bafd03 ec a801 74f7"  # next: hlt (18 ticks a second); line status: anything there? else next
        "baf803 ec be207c"  # take it; si = the text, behind these 32 bytes
        "ac 84c0 74eb"  # more: lodsb; its end? then next
        "baf803 ee ebf5"  # send; more (QEMU's line is never busy)
    )
    return (program + text).ljust(510, b"\0") + b"\x55\xaa"


def cd_image(text: bytes) -> bytes:
    """The image of a CD that boots the same program, without a file system.

    Source: "El Torito" Bootable CD-ROM Format Specification 1.0 (Phoenix, IBM 1995), sections 2 and 6.
    """
    record = b"\0CD001\x01EL TORITO SPECIFICATION".ljust(0x47, b"\0") + _CATALOG.to_bytes(4, "little")
    validation = b"\x01".ljust(28, b"\0") + (-(0xAA55 + 1) & 0xFFFF).to_bytes(2, "little") + b"\x55\xaa"
    bootable = bytes([0x88, 0, 0, 0, 0, 0, 1, 0]) + _PROGRAM.to_bytes(4, "little")  # no emulation, one sector
    sectors = {17: record, _CATALOG: validation + bootable, _PROGRAM: boot_sector(text)}
    return b"".join(sectors.get(number, b"").ljust(_SECTOR, b"\0") for number in range(_PROGRAM + 1))
