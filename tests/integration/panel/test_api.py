# SPDX-License-Identifier: Apache-2.0
"""The API, called over HTTP as the master and an administrator's script call it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest

from tests.integration.panel.process import PASSWORD, USER, PanelProcess

if TYPE_CHECKING:
    from pathlib import Path

AUTHINFO = f"{USER}:{PASSWORD}"


def test_a_session(shared: PanelProcess) -> None:
    auth = shared.call("auth", username=USER, password=PASSWORD)["auth"]
    assert auth["$id"] == auth["$"]
    assert "elem" in shared.call("vm", auth=auth["$id"])


def test_a_session_in_xml_by_get_as_documented(shared: PanelProcess) -> None:
    query = {"out": "xml", "func": "auth", "username": USER, "password": PASSWORD}
    answer = shared.http.get(shared.url, params=query, timeout=5)
    assert answer.headers["content-type"].startswith("text/xml")
    auth = ET.fromstring(answer.text).find("auth")
    assert auth is not None
    query = {"out": "xml", "func": "vm", "auth": auth.attrib["id"]}
    assert (
        ET.fromstring(shared.http.get(shared.url, params=query, timeout=5).text).find("p_elems") is not None
    )


def test_a_key_makes_one_session(shared: PanelProcess) -> None:
    key = "0123456789abcdef"
    assert shared.call("session.newkey", username=USER, key=key) == {"ok": {}}
    session = shared.call("auth", username=USER, key=key)["auth"]["$id"]
    assert "elem" in shared.call("vm", auth=session)
    assert shared.error("auth", username=USER, key=key) == ("auth", "badkey")


@pytest.mark.parametrize(
    ("fields", "subject"),
    [
        ({"authinfo": f"{USER}:wrong"}, "badpassword"),
        ({"authinfo": "nobody:x"}, "badpassword"),
        ({"authinfo": ""}, "badpassword"),
        ({"auth": "0" * 32}, "expired"),
    ],
)
def test_who_is_not_known_gets_an_error_in_the_body(
    shared: PanelProcess, fields: dict[str, str], subject: str
) -> None:
    answer = shared.raw(func="vm", out="json", **fields)
    error = json.loads(answer.text)["doc"]["error"]
    assert (answer.status_code, error["$type"], error["$object"]) == (200, "auth", subject)


def test_without_signing_in_nothing_is_told_not_even_which_functions_exist(shared: PanelProcess) -> None:
    for func in ("vm", "nonesuch"):
        answer = shared.http.post(shared.url, data={"func": func}, timeout=5)
        assert json.loads(answer.text)["doc"]["error"]["$type"] == "auth"


def test_an_unknown_function_is_missed(shared: PanelProcess) -> None:
    assert shared.error("vm.explode") == ("missed", "func")


def test_an_error_in_xml(shared: PanelProcess) -> None:
    error = ET.fromstring(shared.raw(func="vm.explode", out="xml").text).find("error")
    assert error is not None
    assert (error.attrib["type"], error.attrib["object"]) == ("missed", "func")
    assert error.findtext("msg") == "There is no function 'vm.explode'"


def test_another_format_is_refused(shared: PanelProcess) -> None:
    assert json.loads(shared.raw(func="vm", out="html").text)["doc"]["error"]["$object"] == "out"


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_what_writes_must_be_posted(shared: PanelProcess, method: str) -> None:
    for fields in ({"func": "vm.event"}, {"func": "vmhostnode.edit", "elid": "1", "name": "a", "sok": "ok"}):
        query = {**fields, "authinfo": AUTHINFO}
        answer = shared.http.request(method, shared.url, params=query, timeout=5)
        assert json.loads(answer.text)["doc"]["error"]["$type"] == "access"


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"func=vm&func=vm", "application/x-www-form-urlencoded"),
        (b"func=%ff", "application/x-www-form-urlencoded"),
        (b"func=\xff", "application/x-www-form-urlencoded"),
        (b"&".join(b"a%d=1" % number for number in range(101)), "application/x-www-form-urlencoded"),
        (b"a=" + b"b" * (9 << 20), "application/x-www-form-urlencoded"),
        (b'{"func": "vm"}', "application/json"),
    ],
    ids=["twice", "not utf-8", "not ascii", "too many", "too large", "not a form"],
)
def test_what_is_not_a_form_is_refused(shared: PanelProcess, body: bytes, kind: str) -> None:
    answer = shared.http.post(shared.url, data=body, headers={"Content-Type": kind}, timeout=5)
    assert json.loads(answer.text)["doc"]["error"]["$type"] == "value"


def test_vms_and_nodes_are_made_and_changed(shared: PanelProcess) -> None:
    assert shared.call("vmhostnode.edit", elid=71, name="made-1", sok="ok")["id"] == {"$": "71"}
    assert shared.call("vmhostnode.edit", elid=71)["name"] == {"$": "made-1"}
    made = shared.call("vm.edit", name="made", hostnode=71, sok="ok")
    assert made["ok"] == {}
    elid = made["id"]["$"]
    uuid = "5f3c2a1e-0000-4000-8000-000000000001"
    shared.call("vm.edit", elid=elid, name="remade", uuid=uuid, hostnode=71, sok="ok")
    shown = shared.call("vm.edit", elid=elid)
    assert (shown["name"], shown["uuid"], shown["status"]) == ({"$": "remade"}, {"$": uuid}, {"$": "unknown"})
    assert shared.error("vm.edit", elid=elid, name="remade", hostnode=9999, sok="ok") == (
        "missed",
        "hostnode",
    )
    assert shared.error("vm.edit", name="remade", hostnode=71, sok="ok") == ("exists", "name")
    assert shared.error("vm.edit", elid=99999) == ("missed", "elid")
    assert shared.error("vmhostnode.edit", elid=9999) == ("missed", "elid")


def test_pages_of_a_list(shared: PanelProcess) -> None:
    shared.call("vmhostnode.edit", elid=72, name="paged", sok="ok")
    for number in range(7):
        shared.call("vm.edit", name=f"paged-{number}", hostnode=72, sok="ok")
    page = shared.call("vm", name="PAGED-", p_cnt=3, p_num=2)
    assert [vm["name"]["$"] for vm in page["elem"]] == ["paged-3", "paged-4", "paged-5"]
    assert (page["p_num"], page["p_cnt"], page["p_elems"]) == ({"$": "2"}, {"$": "3"}, {"$": "7"})
    assert shared.call("vm", name="paged-", p_cnt=3, p_num=4)["elem"] == []
    assert [vm["name"] for vm in shared.rows("vm", name="paged-6")] == ["paged-6"]
    assert shared.error("vm", p_num="0") == ("value", "p_num")
    assert shared.error("vm", status="fine") == ("value", "status")


def test_an_event_is_shown_and_a_repetition_is_not(shared: PanelProcess) -> None:
    shared.event("told", "started", "booted", 1, time="2026-11-22T10:00:00.123Z")
    shared.event("told", "suspended", "paused", 2, time="2026-11-22T10:00:01Z")
    shared.event("told", "started", "booted", 1, time="2026-11-22T10:00:00.123Z")
    (vm,) = shared.rows("vm", name="told")
    assert (vm["status"], vm["since"], vm["type"]) == ("paused", "2026-11-22T10:00:01.000Z", "suspended")
    history = shared.rows("vm.history", elid=vm["id"])
    assert history == shared.rows("vm.history", elid="told")
    assert [(entry["event_id"], entry["status"]) for entry in history] == [
        ("1.r1.2", "paused"),
        ("1.r1.1", "running"),
    ]
    assert history[1]["time"] == "2026-11-22T10:00:00.123Z"


def test_without_the_option_an_unknown_vm_is_missed(tmp_path: Path) -> None:
    with PanelProcess(tmp_path, more="") as panel:
        event = {"hostnode": 1, "name": "web", "type": "started", "subtype": "booted"}
        assert panel.error("vm.event", **event) == ("missed", "hostnode")
        panel.call("vmhostnode.edit", elid=1, name="one", sok="ok")
        assert panel.error("vm.event", **event) == ("missed", "vm")
        panel.call("vm.edit", name="web", hostnode=1, sok="ok")
        assert panel.call("vm.event", **event) == {"ok": {}}


def test_problems_make_a_nodes_vms_unknown_until_solved(shared: PanelProcess) -> None:
    shared.event("lonely", "started", "booted", 1, node=80)
    problem = {"problem": "node_silent", "hostnode": 80, "text": "for 30 s"}
    shared.call("vmwatch.problem", state="raised", **problem)
    (vm,) = shared.rows("vm", name="lonely")
    assert (vm["status"], vm["last_status"]) == ("unknown", "running")
    shared.call("vmwatch.problem", state="solved", **problem)
    (vm,) = shared.rows("vm", name="lonely")
    assert vm["status"] == "running"
    assert shared.rows("vmwatch.problem")[0]["state"] == "solved"
    assert shared.error("vmwatch.problem", problem="node_silent", state="maybe") == ("value", "state")


def test_statistics(shared: PanelProcess) -> None:
    shared.call("vmhostnode.edit", elid=73, name="counted", sok="ok")
    domains = json.dumps([{"name": "web", "uuid": "x", "packets_sent": 1}])
    assert shared.call("vmwatch.statistics", hostnode=73, domains=domains) == {"ok": {}}
    assert shared.error("vmwatch.statistics", hostnode=9999, domains=domains) == ("missed", "hostnode")
    assert shared.error("vmwatch.statistics", hostnode=73, domains="[") == ("value", "domains")


def test_a_changed_password_ends_the_old_one(panel: PanelProcess) -> None:
    new = "another long one"
    assert panel.error("usrparam", passwd="short", confirm="short", sok="ok") == ("value", "passwd")
    assert panel.error("usrparam", passwd=new, confirm="other", sok="ok") == ("value", "confirm")
    assert panel.call("usrparam", passwd=new, confirm=new, sok="ok") == {"ok": {}}
    assert panel.error("vm") == ("auth", "badpassword")
    assert "elem" in panel.call("vm", authinfo=f"{USER}:{new}")
    panel.stop()
    panel.start()  # the file's password counted at the first start only
    assert panel.error("vm") == ("auth", "badpassword")
    assert new not in panel.log.read_text()


def test_many_calls_over_one_connection(shared: PanelProcess) -> None:
    for seq in range(1, 101):
        kind, detail = ("resumed", "unpaused") if seq % 2 else ("suspended", "paused")
        shared.event("busy", kind, detail, seq)
    assert shared.call("vm.history", elid="busy", p_cnt=1)["p_elems"] == {"$": "100"}
