# SPDX-License-Identifier: Apache-2.0
"""Where vmwatch-master listens, and which node is the panel's own host. Pure.

Source of the rule: the documentation of VMmanager 5 KVM. An address is *local* when it is a loopback's or
link-local; private ranges are not.
"""

from __future__ import annotations

import ipaddress
import json
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


def choose(*, wanted: str | None, nodes: Iterable[str], own: Sequence[str]) -> str | None:
    """The address that nodes connect to: `wanted`; else that of the cluster node here; else the first of `own`.

    `nodes` are the nodes' addresses (`[USER@]HOST`), `own` those of this host's interfaces in order. What is local
    is passed over, for other hosts would not find it. None: there is none.
    """
    if wanted is not None:
        return wanted
    here = (host_of(node) for node in nodes if node and is_own(node, own))
    return next((address for address in (*here, *own) if is_public(address)), None)


def is_own(node: str, own: Sequence[str]) -> bool:
    """Whether a node's address, `[USER@]HOST` or "", is this host's. A name is not looked up: another host has it."""
    host = host_of(node)
    if host in ("", "localhost"):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.is_loopback or str(address) in own


def host_of(node: str) -> str:
    """The host of `[USER@]HOST`; an IP address in its canonical form."""
    host = node.rpartition("@")[2]
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return host.lower()


def is_public(address: str) -> bool:
    """Whether other hosts can reach this: an IP address, neither a loopback's, link-local, multicast nor `any`."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    local = found.is_loopback or found.is_link_local
    return not (local or found.is_multicast or found.is_unspecified)


def of_interfaces(listed: str) -> tuple[str, ...]:
    """All addresses of this host in the interfaces' order, from the output of `ip -json address` (ip-address(8)).

    Left out are interfaces that are down, and what does not last or another host has: `temporary` (RFC 8981),
    `dadfailed` (RFC 4862). Raises ValueError: not such an output.
    """
    try:
        found = [info for interface in json.loads(listed) for info in _usable(interface)]
        return tuple(str(ipaddress.ip_address(info["local"])) for info in found)
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"not a list of interfaces: {error!r}") from None


def _usable(interface: dict[str, Any]) -> list[dict[str, Any]]:
    if "UP" not in interface["flags"]:
        return []
    infos = interface.get("addr_info", [])
    return [info for info in infos if not (info.get("temporary") or info.get("dadfailed"))]


class Place(NamedTuple):
    """Where a node is: `[USER@]HOST`, None here. `twin`: another node that is there already, None: none."""

    address: str | None
    twin: int | None


def places(nodes: Mapping[int, str], own: Sequence[str]) -> dict[int, Place]:
    """Where nodes are, by their addresses. Of two at one place the one that comes first has it."""
    holders: dict[str, int] = {}
    found = {}
    for number, node in nodes.items():
        place = "" if is_own(node, own) else host_of(node)
        holder = holders.setdefault(place, number)
        found[number] = Place(address=node if place else None, twin=None if holder == number else holder)
    return found
