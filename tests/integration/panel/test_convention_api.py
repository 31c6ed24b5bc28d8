# SPDX-License-Identifier: Apache-2.0
"""Every function of the API against the convention: JSON and XML, access, errors, lists, hostile input."""

from __future__ import annotations

import json
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
import requests

from tests.integration.panel.process import PASSWORD, USER, PanelProcess
from tests.integration.panel.reader import Node, read_json, read_xml
from vmwatch.panel.catalogue import FUNCTIONS
from vmwatch.panel.fields import Fields

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Form = dict[str, str]

COUNTERS: Final = (
    *("packets_received", "packets_sent", "bytes_received", "bytes_sent"),
    *("read_requests", "read_bytes", "write_requests", "write_bytes"),
)

# What each function takes. `#` is a number that nobody has had, `@` one that was made for this call (`MADE`).
GOOD: Final[dict[str, list[Form]]] = {
    "clusterpolicy": [{}, {"status_check": "on", "sok": "ok"}],
    "osmgr": [{}],
    "osmgr.delete": [{"elid": "@"}],
    "osmgr.edit": [{}, {"elid": "1"}, {"name": "os-#", "rebootcount": "2", "sok": "ok"}],
    "paramlist": [{}],
    "paramlist.edit": [{"elid": "HistoryDays"}, {"elid": "HistoryDays", "value": "30", "sok": "ok"}],
    "problem": [{}, {"state": "raised", "level": "error", "hostnode": "1", "name": "w", "covered": "on"}],
    "problem.count": [{}],
    "problem.solve": [{"elid": "@"}],
    "session.newkey": [{"key": "0123456789abcdef-#"}],
    "usrparam": [{}],
    "vm": [{}, {"name": "web", "status": "running", "hostnode": "1", "warning": "any"}],
    "vm.edit": [{}, {"elid": "web"}, {"name": "vm-#", "hostnode": "1", "sok": "ok"}],
    "vm.event": [
        {"hostnode": "1", "name": "web", "type": "resumed", "subtype": "unpaused", "event_id": "1.b.#"}
    ],
    "vm.history": [{"elid": "web"}, {"elid": "1"}],
    "vm.reinstall": [{"elid": "web"}],
    "vm.samples": [{"elid": "web"}],
    "vmhostnode": [{}],
    "vmhostnode.delete": [{"elid": "@"}],
    "vmhostnode.edit": [{"elid": "1"}, {"elid": "#", "name": "node #", "sok": "ok"}],
    "vmwatch.problem": [{}, {"problem": "events_lost", "state": "raised", "hostnode": "1", "text": "two"}],
    "vmwatch.services": [{}],
    "vmwatch.statistics": [
        {"hostnode": "1", "domains": json.dumps([{"name": "web", **dict.fromkeys(COUNTERS, 1)}])}
    ],
}
MADE: Final[dict[str, tuple[str, Form]]] = {
    "osmgr.delete": ("osmgr.edit", {"name": "gone-#", "rebootcount": "1", "sok": "ok"}),
    "problem.solve": ("vmwatch.problem", {"problem": "events_lost", "state": "raised", "name": "vm-#"}),
    "vmhostnode.delete": ("vmhostnode.edit", {"elid": "#", "name": "gone #", "sok": "ok"}),
}

# What each function refuses, and what its error says.
WRONG: Final[list[tuple[str, Form, tuple[str, str]]]] = [
    ("clusterpolicy", {"sok": "ok"}, ("value", "status_check")),
    ("clusterpolicy", {"sok": "ok", "status_check": "maybe"}, ("value", "status_check")),
    ("osmgr.delete", {}, ("value", "elid")),
    ("osmgr.delete", {"elid": "99999"}, ("missed", "elid")),
    ("osmgr.edit", {"elid": "99999"}, ("missed", "elid")),
    ("osmgr.edit", {"sok": "ok"}, ("value", "name")),
    ("osmgr.edit", {"sok": "ok", "name": "a", "rebootcount": "x"}, ("value", "rebootcount")),
    ("paramlist.edit", {}, ("missed", "elid")),
    ("paramlist.edit", {"elid": "NoSuch", "value": "1", "sok": "ok"}, ("missed", "elid")),
    ("paramlist.edit", {"elid": "HistoryDays", "sok": "ok"}, ("value", "value")),
    ("paramlist.edit", {"elid": "HistoryDays", "value": "36501", "sok": "ok"}, ("value", "value")),
    ("problem", {"state": "open"}, ("value", "state")),
    ("problem", {"level": "bad"}, ("value", "level")),
    ("problem", {"hostnode": "0"}, ("value", "hostnode")),
    ("problem.solve", {}, ("value", "elid")),
    ("problem.solve", {"elid": "1,,2"}, ("value", "elid")),
    ("problem.solve", {"elid": "1 2"}, ("value", "elid")),
    ("problem.solve", {"elid": "-1"}, ("value", "elid")),
    ("problem.solve", {"elid": "99999"}, ("missed", "elid")),
    ("session.newkey", {}, ("value", "key")),
    ("session.newkey", {"key": "0123456789abcdef", "username": "nobody"}, ("missed", "username")),
    ("usrparam", {"sok": "ok"}, ("value", "passwd")),
    ("usrparam", {"sok": "ok", "passwd": "long enough", "confirm": "no"}, ("value", "confirm")),
    ("vm", {"status": "fine"}, ("value", "status")),
    ("vm", {"warning": "some"}, ("value", "warning")),
    ("vm", {"p_num": "0"}, ("value", "p_num")),
    ("vm", {"p_cnt": "many"}, ("value", "p_cnt")),
    ("vm.edit", {"elid": "nobody"}, ("missed", "elid")),
    ("vm.edit", {"sok": "ok"}, ("value", "name")),
    ("vm.edit", {"sok": "ok", "name": "a"}, ("value", "hostnode")),
    ("vm.edit", {"sok": "ok", "name": "a", "hostnode": "99999"}, ("missed", "hostnode")),
    ("vm.edit", {"sok": "ok", "name": "web", "hostnode": "1"}, ("exists", "name")),
    ("vm.event", {}, ("value", "hostnode")),
    ("vm.event", {"hostnode": "1"}, ("value", "name")),
    ("vm.event", {"hostnode": "1", "name": "web"}, ("value", "type")),
    ("vm.event", {"hostnode": "1", "name": "web", "type": "started"}, ("value", "subtype")),
    ("vm.history", {}, ("missed", "elid")),
    ("vm.history", {"elid": "99999"}, ("missed", "elid")),
    ("vm.reinstall", {}, ("missed", "elid")),
    ("vm.reinstall", {"elid": "web", "sok": "ok"}, ("value", "osmgr")),
    ("vm.reinstall", {"elid": "web", "sok": "ok", "osmgr": "99999"}, ("missed", "osmgr")),
    ("vm.reinstall.continue", {}, ("missed", "elid")),
    ("vm.reinstall.continue", {"elid": "web", "action": "pray"}, ("value", "action")),
    ("vm.reinstall.continue", {"elid": "web"}, ("missed", "installation")),
    ("vm.samples", {"elid": "nobody"}, ("missed", "elid")),
    ("vmhostnode.delete", {}, ("value", "elid")),
    ("vmhostnode.delete", {"elid": "99999"}, ("missed", "elid")),
    ("vmhostnode.delete", {"elid": "1"}, ("access", "elid")),
    ("vmhostnode.edit", {}, ("value", "elid")),
    ("vmhostnode.edit", {"elid": "99999"}, ("missed", "elid")),
    ("vmhostnode.edit", {"elid": "1", "sok": "ok"}, ("value", "name")),
    ("vmwatch.problem", {"problem": "A B"}, ("value", "problem")),
    ("vmwatch.problem", {"problem": "p"}, ("value", "state")),
    ("vmwatch.services", {"p_num": "0"}, ("value", "p_num")),
    ("vmwatch.statistics", {}, ("value", "hostnode")),
    ("vmwatch.statistics", {"hostnode": "1"}, ("value", "domains")),
    ("vmwatch.statistics", {"hostnode": "99999", "domains": "[]"}, ("missed", "hostnode")),
    ("vmwatch.statistics", {"hostnode": "1", "domains": "[]", "time": "now"}, ("value", "time")),
]

# Those that touch other hosts: a panel that is not told to manage them refuses.
UNMANAGED: Final = {"periodic": {"period": "5"}, "vmwatch.configure": {}}

_numbers = count(1000)


class Caller:
    """A panel with a node, a VM, a template and a problem, and someone who calls it in both formats."""

    def __init__(self, panel: PanelProcess) -> None:
        self.panel = panel
        self.good("vmhostnode.edit", {"elid": "1", "name": "one", "uri": "test:///nowhere", "sok": "ok"})
        self.good("vm.edit", {"name": "web", "hostnode": "1", "sok": "ok"})
        event = {"hostnode": "1", "name": "web", "type": "started", "subtype": "booted", "event_id": "1.a.1"}
        self.good("vm.event", event)
        self.good("osmgr.edit", {"name": "os", "rebootcount": "1", "sok": "ok"})
        self.good("vmwatch.problem", {"problem": "vm_unknown", "state": "raised", "name": "ghost"})

    def ask(self, func: str, form: Form, *, out: str = "json") -> Node:
        answer = self.panel.raw(func=func, out=out, **form)
        assert answer.status_code == 200, answer.text
        kind = answer.headers["content-type"]
        assert kind == {"json": "application/json", "xml": "text/xml; charset=UTF-8"}[out]
        return {"json": read_json, "xml": read_xml}[out](answer.content)

    def good(self, func: str, form: Form) -> Node:
        answer = self.ask(func, form)
        assert answer.error is None, answer
        return answer

    def prepared(self, func: str, form: Form) -> Form:
        """The form with numbers of its own in it."""
        number = str(next(_numbers))
        if "@" in form.values():
            maker, fields = MADE[func]
            made = self.good(maker, {name: value.replace("#", number) for name, value in fields.items()})
            own = made.one("id").text if made.all("id") else self.newest_problem()
            return {name: value.replace("@", own) for name, value in form.items()}
        return {name: value.replace("#", number) for name, value in form.items()}

    def newest_problem(self) -> str:
        return self.good("problem", {"p_cnt": "1"}).one("elem").one("id").text


@pytest.fixture(scope="module")
def caller(shared: PanelProcess) -> Caller:
    return Caller(shared)


CASES: Final = [(func, form) for func, forms in GOOD.items() for form in forms]


def test_every_function_is_here() -> None:
    assert set(GOOD) | set(UNMANAGED) | {"vm.reinstall.continue"} >= set(FUNCTIONS)
    assert {func for func, _, _ in WRONG} | set(UNMANAGED) >= set(FUNCTIONS) - {
        *("osmgr", "paramlist", "problem.count", "vmhostnode")  # which nobody can ask wrongly
    }


@pytest.mark.parametrize(("func", "form"), CASES, ids=str)
def test_json_and_xml_say_the_same(caller: Caller, func: str, form: Form) -> None:
    if FUNCTIONS[func].writes(Fields(form)) and form:  # vmwatch.problem without fields is a list
        answers = [caller.ask(func, caller.prepared(func, form), out=out) for out in ("json", "xml")]
        assert all(answer.one("ok") for answer in answers)
        assert {child.name for child in answers[0].children} == {child.name for child in answers[1].children}
    else:
        form = caller.prepared(func, form)
        assert caller.ask(func, form) == caller.ask(func, form, out="xml")
        assert caller.ask(func, form).error is None


@pytest.mark.parametrize(("func", "form", "error"), WRONG, ids=str)
def test_what_is_wrong_is_named(caller: Caller, func: str, form: Form, error: tuple[str, str]) -> None:
    for out in ("json", "xml"):
        answer = caller.ask(func, form, out=out)
        assert answer.error == error
        assert [child.name for child in answer.children] == ["error"]


@pytest.mark.parametrize("func", sorted(UNMANAGED.keys() & FUNCTIONS.keys()))
def test_other_hosts_are_left_alone_unless_it_is_told_to(caller: Caller, func: str) -> None:
    assert caller.ask(func, dict(UNMANAGED[func])).error == ("access", "func")


@pytest.mark.parametrize("func", [*FUNCTIONS, "nonesuch", ""])
def test_who_does_not_sign_in_is_told_nothing_else(caller: Caller, func: str) -> None:
    for access in ({"authinfo": f"{USER}:wrong"}, {"authinfo": "nobody:x"}, {"auth": "0" * 32}):
        for out in ("json", "xml"):
            error = caller.ask(func, access, out=out).error
            assert error is not None
            assert error[0] == "auth"


@pytest.mark.parametrize("func", ["nonesuch", "", "vm.", "VM", "auth.", "vm\0", "<vm>"])
def test_an_unknown_function(caller: Caller, func: str) -> None:
    assert caller.ask(func, {}).error == caller.ask(func, {}, out="xml").error == ("missed", "func")


@pytest.mark.parametrize(("func", "form"), CASES, ids=str)
def test_what_changes_something_is_not_taken_from_an_address(caller: Caller, func: str, form: Form) -> None:
    query = {"func": func, "authinfo": f"{USER}:{PASSWORD}", **form}
    answer = read_json(caller.panel.http.get(caller.panel.url, params=query, timeout=5).content)
    writes = FUNCTIONS[func].writes(Fields(form))
    assert (answer.error == ("access", "method")) is writes


LISTS: Final[dict[str, Callable[[Caller, int], object]]] = {
    "vm": lambda caller, number: caller.good(
        "vm.edit", {"name": f"list-{number}", "hostnode": "1", "sok": "ok"}
    ),
    "vm.history": lambda caller, number: caller.panel.event("web", "resumed", "unpaused", number, node=1),
    "vmhostnode": lambda caller, number: caller.good(
        "vmhostnode.edit", {"elid": str(number), "name": f"list {number}", "sok": "ok"}
    ),
    "osmgr": lambda caller, number: caller.good(
        "osmgr.edit", {"name": f"list-{number}", "rebootcount": "1", "sok": "ok"}
    ),
    "problem": lambda caller, number: caller.good(
        "vmwatch.problem", {"problem": "call_refused", "state": "raised", "name": f"list-{number}"}
    ),
}


@pytest.mark.parametrize("func", list(LISTS))
def test_a_list_comes_in_pages(caller: Caller, func: str) -> None:
    for _ in range(5):
        LISTS[func](caller, next(_numbers))
    form = {"elid": "web"} if func == "vm.history" else {}
    whole = [elem.one("id").text for elem in caller.ask(func, form, out="xml").all("elem")]
    read: list[str] = []
    for number in count(1):
        page = caller.good(func, {**form, "p_cnt": "3", "p_num": str(number)})
        assert (page.one("p_num").text, page.one("p_cnt").text) == (str(number), "3")
        assert page.one("p_elems").text == str(len(whole))
        if not page.all("elem"):
            break
        read += [elem.one("id").text for elem in page.all("elem")]
    assert sorted(read) == sorted(whole)
    assert len(whole) >= 5


def test_a_list_of_ids_is_taken_whole_or_not_at_all(caller: Caller) -> None:
    ids = []
    for number in range(3):
        report = {"problem": "events_lost", "state": "raised", "name": f"many-{number}"}
        caller.good("vmwatch.problem", report)
        ids.append(caller.newest_problem())
    assert caller.ask("problem.solve", {"elid": f"{ids[0]}, 99999, {ids[1]}"}).error == ("missed", "elid")
    states = [caller.good("problem", {"name": "many-"}).all("elem")[at].one("state").text for at in range(3)]
    assert states == ["raised"] * 3
    caller.good("problem.solve", {"elid": ", ".join(ids[:2])})
    found = caller.good("problem", {"name": "many-"}).all("elem")
    assert sorted((elem.one("state").text, elem.one("solver").text) for elem in found) == [
        ("raised", ""),
        ("solved", USER),
        ("solved", USER),
    ]
    caller.good("problem.solve", {"elid": f" {ids[2]} ,{ids[0]}"})
    assert caller.good("problem", {"name": "many-", "state": "raised"}).all("elem") == []


HOSTILE: Final = (
    "<script>alert(1)",
    "\"quoted\" & 'apostrophe'",
    "]]><!--<doc>-->",
    "' OR 1=1 --",
    "\U0001f600\U00020000",
    "שלום עולם",
    "\u202egnp.exe",
    "a\0b",
    "a\nb\tc",
    "a" * 5000,
    "../../etc/passwd",
    "-rf",
    "%00%0a",
    "🏳\ufe0f\u200d🌈",
    "0x10",
    "9" * 30,
    "١٢٣",
)
OTHERS: Final = {
    "vm.event": {"uuid", "status", "cause", "source", "since", "time"},
    "osmgr.edit": {"timelimit", "medium", "kernel", "initrd", "cmdline"},
    "vmhostnode.edit": {"address", "uri"},
}


def names(func: str) -> list[str]:
    """The fields that a function looks at, and those that every function has."""
    forms = [*GOOD.get(func, []), *(form for wrong, form, _ in WRONG if wrong == func)]
    own = {name for form in forms for name in form} | OTHERS.get(func, set()) | {"p_num", "p_cnt"}
    return sorted(own - {"sok", "passwd", "confirm"})


@pytest.mark.parametrize("func", sorted(FUNCTIONS))
@pytest.mark.parametrize("hostile", HOSTILE, ids=ascii)
def test_hostile_values_are_kept_as_they_are_or_refused(caller: Caller, func: str, hostile: str) -> None:
    """Nothing breaks: every answer can be read, none is the panel's own failure."""
    base = max(GOOD.get(func, [{}]), key=len)
    for name in names(func):
        form = {**caller.prepared(func, {**base, name: "x"}), name: hostile}
        for out in ("json", "xml"):
            answer = caller.ask(func, form, out=out)
            assert answer.error is None or answer.error[0] != "internal"


@pytest.mark.parametrize("name", HOSTILE[:6], ids=ascii)
def test_a_hostile_name_comes_back_whole(caller: Caller, name: str) -> None:
    name += f" {next(_numbers)}"
    caller.good("vm.edit", {"name": name, "hostnode": "1", "sok": "ok"})
    for out in ("json", "xml"):
        assert caller.ask("vm.edit", {"elid": name}, out=out).one("name").text == name
    page = caller.panel.http.get(caller.panel.site, cookies={"vmwatch_session": session(caller)}, timeout=5)
    assert "<script>alert" not in page.text


def session(caller: Caller) -> str:
    return caller.good("auth", {"username": USER, "password": PASSWORD}).one("auth").text


@pytest.mark.parametrize("name", ["\\ud800", "a\\u0000b", "", " ", "a/b", "a" * 256, "\\u202e"], ids=ascii)
def test_hostile_names_in_statistics_are_refused(caller: Caller, name: str) -> None:
    form = {"hostnode": "1", "domains": f'[{{"name": "{name}"}}]'}
    assert caller.ask("vmwatch.statistics", form).error == ("value", "domains")


@pytest.mark.parametrize("number", ["1e999", "-1", "9" * 4000, "9223372036854775808", "true", "NaN", '"1"'])
def test_hostile_numbers_in_statistics_are_not_counted_with(caller: Caller, number: str) -> None:
    counters = dict.fromkeys(COUNTERS, 1)
    for time in ("2026-11-22T10:00:00Z", "2026-11-22T10:10:00Z"):
        domain = json.dumps({"name": "web", "run": "1", "interfaces": 1, "disks": 1, **counters})
        form = {"hostnode": "1", "time": time, "domains": "[" + domain.replace(": 1}", f": {number}}}") + "]"}
        caller.good("vmwatch.statistics", form)
    assert caller.good("vm.samples", {"elid": "web"}).all("elem") == []


def big_body(megabytes: int) -> Iterator[bytes]:
    yield b"func=vm&name="
    for _ in range(megabytes):
        yield b"a" * (1 << 20)


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_of_100_megabytes_is_refused_and_costs_no_memory(caller: Caller, chunked: bool) -> None:
    def resident() -> int:
        status = Path(f"/proc/{caller.panel.process.pid}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0])

    before = resident()
    body = big_body(100) if chunked else b"".join(big_body(100))
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    answer = requests.post(caller.panel.url, data=body, headers=headers, timeout=20)
    assert read_json(answer.content).error == ("value", "form")
    assert resident() - before < 32 << 10  # KiB
    caller.good("vm", {})
