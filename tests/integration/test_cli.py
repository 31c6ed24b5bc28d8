# SPDX-License-Identifier: Apache-2.0
"""The operator's command, as a process."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def vmwatch(*arguments: str | Path) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "vmwatch.cli", *arguments], capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout, done.stderr


def test_a_secret_is_new_and_one_that_both_services_take(tmp_path: Path) -> None:
    made = [vmwatch("secret") for _ in range(2)]
    assert all(code == 0 and error == "" for code, _, error in made)
    assert all(re.fullmatch(r"[A-Z0-9]{32}\n", secret) for _, secret, _ in made)
    assert made[0] != made[1]
    file = tmp_path / "master.conf"
    file.write_text(f"listen=tcp://[::1]:1515\nsecret={made[0][1]}")
    file.chmod(0o640)
    assert vmwatch("check", "master", file) == (0, f"{file}: correct\n", "")


def test_check(tmp_path: Path) -> None:
    file = tmp_path / "node.conf"
    file.write_text("connect=tcp://[::1]:1515\nsecret=ABC\nnode_id=1\n")
    file.chmod(0o640)
    warning = f"vmwatch: {file}:2: secret: can be guessed: expected 16 characters or more\n"
    assert vmwatch("check", "node", file) == (0, f"{file}: correct\n", warning)
    code, out, error = vmwatch("check", "master", file)
    assert (code, out) == (78, "")
    assert error.startswith(f"vmwatch: {file}: listen: missing: expected tcp://")


def test_wrong_arguments() -> None:
    assert vmwatch()[0] == 2
    assert vmwatch("check", "panel")[0] == 2
