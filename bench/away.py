# SPDX-License-Identifier: Apache-2.0
"""What the panel comes to know of what happens while it is away, beside a callback that posts straight to it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from bench import domains
from bench.figures import Figure, Group
from bench.rig import Rig
from tests.lab.host import Host
from tests.lab.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.lab.panel_client import PanelClient

CHANGES: Final = 10
BACK_SECONDS: Final = 30.0  # for whatever still comes once the panel is there again

_OURS, _FLOOR = "ours", "floor"


def measure(*, seconds: float, say: Callable[[str], None]) -> Group:
    """Stop the panel for so long, and change a domain of each side ten times meanwhile. Raises LabError."""
    with Host(_OURS) as ours, Host(_FLOOR) as floor, Rig() as rig:
        panel = rig.start_panel()
        rig.start_master()
        rig.start_node(ours.test_uri)
        rig.start_module("bench.floor_callback", floor.test_uri, rig.panel_url, rig.password)
        with domains.connection(ours.test_uri) as one, domains.connection(floor.test_uri) as other:
            both = [domains.start(one, _OURS), domains.start(other, _FLOOR)]
            before = {name: _settled(panel, name) for name in (_OURS, _FLOOR)}
            rig.panel.stop()
            for number in range(CHANGES):
                say(f"away: the panel is away, change {number} of {CHANGES}")
                time.sleep(seconds / CHANGES)
                for domain in both:
                    domains.change(domain, number)
            rig.panel.start()
            wait_for(
                lambda: len(panel.history(_OURS)) >= before[_OURS] + CHANGES,
                seconds=BACK_SECONDS,
                what="all changes",
            )
            told = {name: len(panel.history(name)) - before[name] for name in (_OURS, _FLOOR)}
    figure = Figure(name="told in the end", unit=f"of {CHANGES}", value=told[_OURS], floor=told[_FLOOR])
    conditions = f"{CHANGES} changes of each side in the {seconds:g} s in which the panel was away"
    return Group(title="away", conditions=conditions, figures=(figure,))


def _settled(panel: PanelClient, name: str) -> int:
    """How many entries a domain's history has, once its start is told."""

    def is_running() -> bool:
        vm = panel.vm(name)
        return vm is not None and panel.history(name)[-1].type == "started"

    wait_for(is_running, seconds=10, what=f"the start of {name}")
    return len(panel.history(name))
