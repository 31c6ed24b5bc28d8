# SPDX-License-Identifier: Apache-2.0
"""Problems and the policy over the API, as the master tells them and an administrator deals with them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from vmwatch.panel.status_check import COUNTERS

if TYPE_CHECKING:
    from tests.integration.panel.process import PanelProcess


def tell(panel: PanelProcess, problem: str, **fields: object) -> None:
    assert panel.call("vmwatch.problem", problem=problem, **{"state": "raised", **fields}) == {"ok": {}}


def counted(panel: PanelProcess) -> dict[str, int]:
    return {name: int(value["$"]) for name, value in panel.call("problem.count").items()}


def listed(panel: PanelProcess, **fields: object) -> list[str]:
    return [row["problem"] for row in panel.rows("problem", state="raised", **fields)]


def collect(panel: PanelProcess, time: str, *, sent: int) -> None:
    counters = {**dict.fromkeys(COUNTERS, 100), "packets_sent": sent}
    domain = {"name": "web", "run": "7", "interfaces": 1, "disks": 1, **counters}
    panel.call("vmwatch.statistics", hostnode=1, time=time, domains=json.dumps([domain]))


def test_a_lost_node_is_one_alarm_and_what_is_left_comes_back(panel: PanelProcess) -> None:
    for number in range(200):
        tell(panel, "vm_not_responding", hostnode=1, name=f"web-{number}", text="for 10 s")
    tell(panel, "libvirt_lost", hostnode=1, text="closed")
    tell(panel, "node_silent", hostnode=1, text="no heartbeat for 30 s")
    assert listed(panel) == ["libvirt_lost"]
    assert counted(panel) == {"raised": 1, "errors": 1, "warnings": 0, "covered": 201}
    covered = panel.rows("problem", covered="on", name="web-7", state="raised")[0]
    assert covered["covered_by"] == panel.rows("problem", state="raised")[0]["id"]
    for problem in ("libvirt_lost", "node_silent"):
        tell(panel, problem, hostnode=1, state="solved")
    assert counted(panel)["raised"] == 200


def test_told_again_it_is_counted_and_told_after_its_solution_it_is_new(panel: PanelProcess) -> None:
    for text in ("2 events", "3 events"):
        tell(panel, "events_lost", hostnode=1, text=text)
    (found,) = panel.rows("problem")
    assert (found["count"], found["text"], found["level"]) == ("2", "3 events", "warning")
    assert panel.call("problem.solve", elid=found["id"]) == {"ok": {}}
    (solved,) = panel.rows("problem", state="solved")
    assert (solved["id"], solved["solver"]) == (found["id"], "admin")
    assert solved["solved"]
    tell(panel, "events_lost", hostnode=1, text="1 event")
    (anew,) = panel.rows("problem", state="raised")
    assert (anew["count"], anew["solver"]) == ("1", "")
    assert anew["id"] != found["id"]


def test_who_solves_a_nodes_silence_says_that_its_vms_are_as_they_were(panel: PanelProcess) -> None:
    panel.event("web", "started", "booted", 1)
    tell(panel, "node_silent", hostnode=1)
    assert panel.rows("vm")[0]["status"] == "unknown"
    panel.call("problem.solve", elid=panel.rows("problem")[0]["id"])
    assert panel.rows("vm")[0]["status"] == "running"


def test_the_check_warns_where_it_is_on(panel: PanelProcess) -> None:
    panel.event("web", "started", "booted", 1, time="2026-11-22T09:00:00Z")
    collect(panel, "2026-11-22T10:00:00Z", sent=100)
    collect(panel, "2026-11-22T10:10:00Z", sent=100)
    assert panel.rows("vm")[0]["warning"] == ""  # off by default
    assert panel.call("clusterpolicy") == {"status_check": {"$": "off"}}
    panel.call("clusterpolicy", status_check="on", sok="ok")
    collect(panel, "2026-11-22T10:20:00Z", sent=105)
    (warned,) = panel.rows("vm", warning="disk")
    assert (warned["warning"], warned["idle_packets"], warned["idle_writes"]) == ("disk", "5", "0")
    assert (warned["idle_seconds"], warned["idle_since"]) == ("600.0", "2026-11-22T10:10:00.000Z")
    assert panel.rows("vm", warning="network") == []
    samples = panel.rows("vm.samples", elid="web")
    assert [(row["time"], row["packets_sent"]) for row in samples] == [
        ("2026-11-22T10:20:00.000Z", "5"),
        ("2026-11-22T10:10:00.000Z", "0"),
    ]
    panel.call("clusterpolicy", status_check="off", sok="ok")
    assert panel.rows("vm", warning="any") == []


def test_what_is_set_is_kept(panel: PanelProcess) -> None:
    panel.call("paramlist.edit", elid="HistoryDays", value=7, sok="ok")
    panel.call("clusterpolicy", status_check="on", sok="ok")
    panel.stop()
    panel.start()
    assert panel.rows("paramlist") == [{"id": "HistoryDays", "name": "HistoryDays", "value": "7"}]
    assert panel.call("clusterpolicy") == {"status_check": {"$": "on"}}
