# SPDX-License-Identifier: Apache-2.0
"""What the panel should show, read from libvirt itself with nothing of vmwatch in between."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import libvirt

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

ABSENT: Final = frozenset({"stopped"})
"""A VM that no node has any more is off."""

_ALIVE: Final = {
    libvirt.VIR_DOMAIN_RUNNING: "running",
    libvirt.VIR_DOMAIN_BLOCKED: "running",
    libvirt.VIR_DOMAIN_SHUTDOWN: "running",
    libvirt.VIR_DOMAIN_PAUSED: "paused",
    libvirt.VIR_DOMAIN_PMSUSPENDED: "sleeping",
}
# libvirt's event says stopped(failed) of a QEMU that was killed, its list crashed, and after a restart nothing.
_OFF: Final = frozenset({"stopped", "crashed"})
_SAVED: Final = frozenset({"saved"})


def expected(uris: Iterable[str]) -> dict[str, frozenset[str]]:
    """By name, the statuses of which the panel should show one. Raises libvirt's error."""
    found: dict[str, frozenset[str]] = {}
    for uri in uris:
        connection = libvirt.open(uri)
        try:
            for name, statuses in _statuses(connection).items():
                if name not in found or statuses <= frozenset(_ALIVE.values()):
                    found[name] = statuses
        finally:
            connection.close()
    return found


def untrue(wanted: Mapping[str, frozenset[str]], shown: Mapping[str, str]) -> dict[str, str]:
    """By name, what is shown where it is wrong."""
    missing = dict.fromkeys(wanted.keys() - shown.keys(), "not listed")
    wrong = {name: status for name, status in shown.items() if status not in wanted.get(name, ABSENT)}
    return {**missing, **wrong}


def _statuses(connection: libvirt.virConnect) -> dict[str, frozenset[str]]:
    return {domain.name(): _of(domain) for domain in connection.listAllDomains()}


def _of(domain: libvirt.virDomain) -> frozenset[str]:
    state, _ = domain.state()
    if state in _ALIVE:
        return frozenset({_ALIVE[state]})
    return _SAVED if domain.hasManagedSaveImage() else _OFF
