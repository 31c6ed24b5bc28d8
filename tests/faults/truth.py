# SPDX-License-Identifier: Apache-2.0
"""What the panel should show, read from libvirt itself with nothing of vmwatch in between."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import libvirt

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """The statuses of which the panel should show one; `seen` is libvirt's state, reason, saved image."""

    statuses: frozenset[str]
    seen: str = "on no node"

    @property
    def is_alive(self) -> bool:
        return self.statuses <= _ALIVE_STATUSES


_ALIVE: Final = {
    libvirt.VIR_DOMAIN_RUNNING: "running",
    libvirt.VIR_DOMAIN_BLOCKED: "running",
    libvirt.VIR_DOMAIN_SHUTDOWN: "running",
    libvirt.VIR_DOMAIN_PAUSED: "paused",
    libvirt.VIR_DOMAIN_PMSUSPENDED: "sleeping",
}
_ALIVE_STATUSES: Final = frozenset(_ALIVE.values())
# libvirt's event says stopped(failed) of a QEMU that was killed, its list crashed, and after a restart nothing.
_OFF: Final = frozenset({"stopped", "crashed"})
_SAVED: Final = frozenset({"saved"})

ABSENT: Final = Wanted(statuses=frozenset({"stopped"}))
"""A VM that no node has any more is off."""


def wanted(uris: Iterable[str]) -> dict[str, Wanted]:
    """By name, what the panel should show. Raises libvirt's error."""
    found: dict[str, Wanted] = {}
    for uri in uris:
        connection = libvirt.open(uri)
        try:
            for domain in connection.listAllDomains():
                found[domain.name()] = _speaking(_of(domain), found.get(domain.name()))
        finally:
            connection.close()
    return found


def untrue(wanted: Mapping[str, Wanted], shown: Mapping[str, str]) -> dict[str, str]:
    """By name, what is shown where it is wrong, and what libvirt has."""
    wrong = {}
    for name in wanted.keys() | shown.keys():
        want, status = wanted.get(name, ABSENT), shown.get(name, "not listed")
        if status not in want.statuses:
            wrong[name] = (
                f"shown {status}, expected {' or '.join(sorted(want.statuses))}; libvirt: {want.seen}"
            )
    return wrong


def _speaking(one: Wanted, other: Wanted | None) -> Wanted:
    """Of a VM on two nodes: the copy that is alive; of two that are off either may speak for it."""
    if other is None or one.is_alive:
        return one
    if other.is_alive:
        return other
    return Wanted(statuses=one.statuses | other.statuses, seen=f"{other.seen}; {one.seen}")


def _of(domain: libvirt.virDomain) -> Wanted:
    state, reason = domain.state()
    has_image = bool(domain.hasManagedSaveImage())
    seen = f"state {state}, reason {reason}{', a saved image' if has_image else ''}"
    if state in _ALIVE:
        return Wanted(statuses=frozenset({_ALIVE[state]}), seen=seen)
    if reason in (libvirt.VIR_DOMAIN_SHUTOFF_UNKNOWN, libvirt.VIR_DOMAIN_SHUTOFF_SAVED):
        return Wanted(statuses=_SAVED if has_image else _OFF, seen=seen)
    # A start from a saved image that failed leaves both, the failure and the image.
    return Wanted(statuses=_OFF | _SAVED if has_image else _OFF, seen=seen)
