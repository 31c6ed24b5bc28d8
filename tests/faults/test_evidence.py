# SPDX-License-Identifier: Apache-2.0
"""What a failed run leaves is there when the run is not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.faults.evidence import DIARY, Diary, keep

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_all_that_can_be_read_is_copied_where_it_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VMWATCH_EVIDENCE", str(tmp_path / "kept"))
    folder = tmp_path / "node-1"
    folder.mkdir()
    (folder / "outbox.db").write_bytes(b"records")
    sources = {"node-1": folder, "outbox": folder / "outbox.db", "gone": tmp_path / "gone"}
    kept = keep("round-7", sources, "untrue")
    assert kept.parent == tmp_path / "kept"
    assert (kept / "node-1" / "outbox.db").read_bytes() == (kept / "outbox").read_bytes() == b"records"
    assert (kept / "why.txt").read_text() == "untrue"
    assert not (kept / "gone").exists()
    assert keep("round-7", {}, "again") != kept


def test_the_diary_has_each_look_that_differs_from_the_last(tmp_path: Path) -> None:
    diary = Diary(tmp_path)
    for text in ("web stopped", "web stopped", "nothing", "web stopped"):
        diary.write_change("wrong", text)
    diary.write("quiet")
    diary.close()
    lines = [line.split(" ", 1)[1] for line in (tmp_path / DIARY).read_text().splitlines()]
    assert lines == ["wrong: web stopped", "wrong: nothing", "wrong: web stopped", "quiet"]
