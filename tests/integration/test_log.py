# SPDX-License-Identifier: Apache-2.0
"""The log file: the product's form, one line a record, nothing lost in silence."""

from __future__ import annotations

import logging
import os
import time
from typing import TYPE_CHECKING

import pytest

from vmwatch.log import JournalFormatter, LogFile, ProductFormatter

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# Sunday, 2 March 2025, 03:04:05 UTC
MOMENT = 1740884645.9


def record(text: str, *arguments: object, level: int = logging.INFO) -> logging.LogRecord:
    made = logging.LogRecord("vmwatch.node", level, "node.py", 1, text, arguments, None)
    made.created = MOMENT
    return made


@pytest.fixture
def file(tmp_path: Path) -> Iterator[LogFile]:
    file = LogFile(tmp_path / "folder/vmwatch.log")
    yield file
    file.close()


def test_the_products_form() -> None:
    line = ProductFormatter().format(record("connected uri=%s", "qemu:///system"))
    local = time.localtime(MOMENT)
    stamp = f"Mar {local.tm_mday} {time.strftime('%H:%M:%S', local)}"
    assert line == f"{stamp} [{os.getpid()}] node INFO connected uri=qemu:///system"


def test_a_name_cannot_begin_a_line_of_its_own() -> None:
    line = JournalFormatter().format(
        record("vm name=%s", "a\n<0>node CRITICAL b\x1b[0m", level=logging.WARNING)
    )
    assert line == r"<4>node WARNING vm name=a\x0a<0>node CRITICAL b\x1b[0m"


def test_lost_lines_are_counted_and_told(file: LogFile, tmp_path: Path) -> None:
    path = tmp_path / "folder/vmwatch.log"
    file.handle(record("first"))
    file.handle(record("second"))
    assert file.trouble() == f"log_file {path} cannot be written: No such file or directory"
    path.parent.mkdir()
    file.handle(record("third"))
    file.handle(record("fourth"))
    assert [line.partition("INFO ")[2] for line in path.read_text().splitlines()] == [
        "third lost_lines_before=2",
        "fourth",
    ]
    assert file.trouble() is None


def test_what_is_no_utf_8_is_written_all_the_same(file: LogFile, tmp_path: Path) -> None:
    path = tmp_path / "folder/vmwatch.log"
    path.parent.mkdir()
    file.handle(record("name=%s", os.fsdecode(b"\xff")))
    assert path.read_text().endswith("name=\\udcff\n")


def test_a_pipe_that_nobody_reads_holds_up_nothing(file: LogFile, tmp_path: Path) -> None:
    path = tmp_path / "folder/vmwatch.log"
    path.parent.mkdir()
    os.mkfifo(path)
    file.handle(record("first"))
    assert file.trouble() == f"log_file {path} cannot be written: No such device or address"
