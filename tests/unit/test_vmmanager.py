# SPDX-License-Identifier: Apache-2.0
"""What an answer means, and how a call is spelt. Real bodies: those of ISPsystem's panels."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmwatch.errors import ConfigError, Missed, PanelError, Refused, Unavailable
from vmwatch.sessions import Sessions
from vmwatch.vmmanager import DIALECT_FILE, Access, Dialect, Panel, read_answer, read_dialect

OK = b'{"doc":{"ok":{}}}'


def error(kind: object, subject: object = "", text: object = "Because") -> bytes:
    body = {"$type": kind, "$object": subject, "$lang": "en", "msg": {"$": text}}
    return json.dumps({"doc": {"error": body}}).encode()


VERDICTS = [
    # status, body, verdict, its kind, its subject
    (200, error("auth", "badpassword"), Unavailable, "auth", "badpassword"),
    (401, error("auth"), Unavailable, "auth", ""),
    (200, error("license", "expired"), Unavailable, "license", "expired"),
    (200, error("missed", "vm"), Missed, "missed", "vm"),
    (404, error("missed", "func"), Missed, "missed", "func"),
    (200, error("value", "hostnode"), Refused, "value", "hostnode"),
    (200, error("exists", "name"), Refused, "exists", "name"),
    (403, error("access", "vm.event"), Refused, "access", "vm.event"),
    # What stands before the panel, or something else on its port.
    (500, b"", Unavailable, "http-500", ""),
    (502, b"<html>Bad Gateway</html>", Unavailable, "http-502", ""),
    (503, OK, Unavailable, "http-503", ""),
    (500, error("missed", "vm"), Unavailable, "http-500", ""),
    (200, b"<html>Sign in</html>", Unavailable, "not-json", ""),
    (404, b"<html>Not Found</html>", Unavailable, "not-json", ""),
    (200, b'<?xml version="1.0"?><doc><ok/></doc>', Unavailable, "not-json", ""),
    (200, b"", Unavailable, "not-json", ""),
    (200, OK[:-1], Unavailable, "not-json", ""),
    (200, b"\xff\xfe{}", Unavailable, "not-json", ""),
    (200, b"\x1f\x8b\x08", Unavailable, "not-json", ""),
    (200, b"[" * 100_000, Unavailable, "not-json", ""),
    (200, b'{"status":"ok"}', Unavailable, "not-json", ""),
    (200, b'{"doc":[]}', Unavailable, "not-json", ""),
    (200, b'["doc"]', Unavailable, "not-json", ""),
    # An error that cannot be read is an error.
    (200, b'{"doc":{"error":{}}}', Refused, "error", ""),
    (200, b'{"doc":{"error":"no"}}', Refused, "error", ""),
    (200, b'{"doc":{"error":[{"$type":"auth"}]}}', Refused, "error", ""),
    (200, b'{"doc":{"ok":{},"error":{"$type":"value"}}}', Refused, "value", ""),
    (200, error(7, None, ["x"]), Refused, "error", ""),
]


@pytest.mark.parametrize(("status", "body", "verdict", "kind", "subject"), VERDICTS)
def test_what_an_answer_means(
    status: int, body: bytes, verdict: type[PanelError], kind: str, subject: str
) -> None:
    with pytest.raises(PanelError) as caught:
        read_answer(status, body, Dialect())
    assert (type(caught.value), caught.value.kind, caught.value.subject) == (verdict, kind, subject)


@pytest.mark.parametrize("status", [200, 404])
def test_an_answer_without_error_is_its_document(status: int) -> None:
    assert read_answer(status, OK, Dialect()) == {"ok": {}}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("The VM\r\n is\tmissed", "The VM is missed"),
        ("\x1b[31mred\x00", "?[31mred?"),
        ("x" * 9000, "x" * 300),
        ("", "the panel gives no reason"),
    ],
)
def test_the_panels_words_fit_one_line_of_a_log(text: str, shown: str) -> None:
    with pytest.raises(Refused) as caught:
        read_answer(200, error("value", "name", text), Dialect())
    assert str(caught.value) == f"value: {shown} (name)"


@given(st.one_of(st.binary(), st.recursive(st.none() | st.text() | st.integers(), st.lists).map(error)))
def test_no_answer_is_beyond_us(body: bytes) -> None:
    with pytest.raises(PanelError):
        read_answer(200, body, Dialect())


def test_another_panel_may_have_other_errors() -> None:
    dialect = Dialect(missed="nofunc access:func", unavailable="busy")
    for body, verdict in [
        (error("nofunc"), Missed),
        (error("access", "func"), Missed),
        (error("access", "vm"), Refused),
        (error("busy"), Unavailable),
        (error("auth"), Refused),
    ]:
        with pytest.raises(PanelError) as caught:
            read_answer(200, body, dialect)
        assert type(caught.value) is verdict


def test_the_contracts_words_are_the_default() -> None:
    form = Dialect().translate("vm.event", {"hostnode": "3", "type": "started", "uuid": "6f1b"})
    assert form == {"func": "vm.event", "hostnode": "3", "type": "started", "uuid": "6f1b"}


def test_another_panel_may_spell_an_event_otherwise() -> None:
    dialect = Dialect(vm_event="vm.hostevent", hostnode="node", type="event")
    form = dialect.translate("vm.event", {"hostnode": "3", "type": "started", "missed": "kept"})
    assert form == {"func": "vm.hostevent", "node": "3", "event": "started", "missed": "kept"}


def test_only_the_events_fields_are_translated() -> None:
    dialect = Dialect(vmwatch_problem="problem.set", hostnode="node")
    assert dialect.translate("vmwatch.problem", {"hostnode": "3"}) == {"func": "problem.set", "hostnode": "3"}
    assert dialect.translate("missed", {}) == {"func": "missed"}


def test_a_file_changes_the_dialect(tmp_path: Path) -> None:
    file = tmp_path / "dialect.conf"
    assert read_dialect(file) == Dialect()
    file.write_text("# VMmanager 5.300\nhostnode = node\nmissed=missed nofunc\n")
    assert read_dialect(file) == Dialect(hostnode="node", missed="missed nofunc")


@pytest.mark.parametrize("line", ["hostnod=node", "hostnode=", "translate=no"])
def test_a_wrong_dialect_names_its_line(tmp_path: Path, line: str) -> None:
    file = tmp_path / "dialect.conf"
    file.write_text(f"\n{line}\n")
    with pytest.raises(ConfigError, match=rf"dialect.conf:2: {line}: expected a value for one of vm_event, "):
        read_dialect(file)


def test_access_is_by_a_user_or_by_sessions() -> None:
    with pytest.raises(ValueError, match="either a user or sessions"):
        Panel(Access(url="http://[::1]/"))
    with pytest.raises(ValueError, match="either a user or sessions"):
        Panel(Access(url="http://[::1]/", user="admin"), sessions=Sessions())


def test_the_password_is_not_shown() -> None:
    assert "hunter2" not in repr(Access(url="http://[::1]/", user="admin", password="hunter2"))


def test_the_assumptions_are_documented() -> None:
    text = (Path(__file__).parents[2] / "docs" / "vmmanager.md").read_text()
    table = re.findall(r"^\| `(\w+)` \| `([^`]+)` \| ", text, re.MULTILINE)
    assert table == [(item.name, item.default) for item in fields(Dialect)]
    assert str(DIALECT_FILE) in text
