# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json

import pytest

from vmwatch.panel import addresses

OWN = ("127.0.0.1", "::1", "169.254.7.7", "fe80::7", "10.0.0.5", "2001:db8::5", "192.0.2.5")


@pytest.mark.parametrize(
    ("wanted", "nodes", "own", "chosen"),
    [
        # What is set comes first, whatever it is.
        ("203.0.113.9", ["10.0.0.5"], OWN, "203.0.113.9"),
        ("127.0.0.1", ["10.0.0.5"], OWN, "127.0.0.1"),
        # Then the cluster node that is this host.
        (None, ["10.0.0.8", "root@192.0.2.5", "10.0.0.5"], OWN, "192.0.2.5"),
        (None, ["root@2001:DB8:0::5"], OWN, "2001:db8::5"),
        # A node whose address says nothing to others does not count, nor does another host's.
        (None, ["", "127.0.0.1", "localhost", "169.254.7.7"], OWN, "10.0.0.5"),
        (None, ["10.0.0.8", "kvm-1.example"], OWN, "10.0.0.5"),
        # Then the first one that is not local; private ranges are not.
        (None, [], OWN, "10.0.0.5"),
        (None, [], OWN[5:], "2001:db8::5"),
        (None, [], ("fe80::1", "fd00::1"), "fd00::1"),
        (None, [], OWN[:4], None),
        (None, [], (), None),
    ],
)
def test_where_the_master_listens(
    wanted: str | None, nodes: list[str], own: tuple[str, ...], chosen: str | None
) -> None:
    assert addresses.choose(wanted=wanted, nodes=nodes, own=own) == chosen


@pytest.mark.parametrize(
    ("node", "is_own"),
    [
        ("", True),
        ("localhost", True),
        ("root@127.0.0.2", True),
        ("10.0.0.5", True),
        ("admin@2001:db8:0:0::5", True),
        ("10.0.0.6", False),
        ("kvm-1.example", False),
    ],
)
def test_the_panels_own_host(node: str, is_own: bool) -> None:
    assert addresses.is_own(node, OWN) is is_own


def test_of_two_nodes_at_one_place_the_first_one_has_it() -> None:
    nodes = {3: "root@10.0.0.8", 1: "10.0.0.8", 2: "", 4: "127.0.0.1", 5: "Kvm.example", 6: "kvm.example"}
    assert addresses.places(nodes, OWN) == {
        3: ("root@10.0.0.8", None),
        1: ("10.0.0.8", 3),
        2: (None, None),
        4: (None, 2),
        5: ("Kvm.example", None),
        6: ("kvm.example", 5),
    }


def interface(*infos: dict[str, object], flags: tuple[str, ...] = ("UP",)) -> dict[str, object]:
    return {"flags": flags, "addr_info": list(infos)}


def test_addresses_come_in_the_interfaces_order_without_what_is_of_no_use() -> None:
    listed = [
        interface({"local": "127.0.0.1"}, {"local": "::1"}),
        interface({"local": "10.0.0.1"}, flags=("BROADCAST",)),
        {"flags": ["UP"]},
        interface({"local": "10.0.0.5"}, {"local": "2001:db8::a", "temporary": True}),
        interface({"local": "2001:db8::b", "dadfailed": True}, {"local": "2001:DB8::5"}),
    ]
    assert addresses.of_interfaces(json.dumps(listed)) == ("127.0.0.1", "::1", "10.0.0.5", "2001:db8::5")


@pytest.mark.parametrize("listed", ["", "{}x", "7", "[7]", "[{}]", '[{"flags": ["UP"], "addr_info": [{}]}]'])
def test_what_is_no_list_of_interfaces(listed: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 (json's own is one too)
        addresses.of_interfaces(listed)
