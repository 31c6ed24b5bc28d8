# SPDX-License-Identifier: Apache-2.0
"""What can go wrong in the laboratory."""

from __future__ import annotations

import os
import shutil


class LabError(Exception):
    """The laboratory could not do what it was asked for: a sentence, and the end of the log that says why."""


class MissingTool(LabError):
    """A program that the laboratory needs is not installed. Skips a test locally, fails it in CI."""


def require(*tools: str) -> None:
    """Raise MissingTool unless each program is found, in `/usr/sbin` too: a user's PATH may lack it."""
    path = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    missing = [tool for tool in tools if shutil.which(tool, path=path) is None]
    if missing:
        raise MissingTool(f"not installed: {', '.join(missing)}")
