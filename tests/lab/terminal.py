# SPDX-License-Identifier: Apache-2.0
"""What the demo prints: aligned lines, colour where it is a terminal, and a moving line while something lasts."""

from __future__ import annotations

import itertools
import os
import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, TextIO

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DIM, BOLD, RED, GREEN, YELLOW, BLUE, CYAN = "2", "1", "31", "32", "33", "34", "36"

STATUS_COLOURS: Final = {
    "running": GREEN,
    "paused": YELLOW,
    "migrating": CYAN,
    "crashed": RED,
    "unknown": YELLOW,
}
FRAME_SECONDS: Final = 0.1


class Terminal:
    """Prints lines. On a terminal in colour (unless `NO_COLOR` is set), else plainly."""

    def __init__(self, stream: TextIO = sys.stdout) -> None:
        """`stream` is where it prints."""
        self._stream = stream
        self._live = stream.isatty() and os.environ.get("TERM") != "dumb"
        self._coloured = self._live and "NO_COLOR" not in os.environ
        utf8 = (stream.encoding or "").lower().replace("-", "") == "utf8"
        self.good, self.bad, self.arrow = ("✓", "✗", "→") if utf8 else ("ok", "FAILED", "->")
        self._frames = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏" if utf8 else "|/-\\"

    def paint(self, text: str, colour: str) -> str:
        """The text in a colour, where there are colours."""
        return f"\033[{colour}m{text}\033[0m" if self._coloured and colour else text

    def say(self, text: str = "") -> None:
        """Print one line."""
        self._stream.write(f"{text}\n")
        self._stream.flush()

    @contextmanager
    def progress(self, text: str, *, plain: bool = True) -> Iterator[Callable[[str], None]]:
        """Show what is being done: a moving line that vanishes afterwards; else a plain line, unless `plain` is no.

        Hands out a function that says what is being done next.
        """
        if not self._live:
            yield self._say_plainly(text if plain else None)
            return
        doing = [text]
        done = threading.Event()
        spinner = threading.Thread(target=self._spin, args=(doing, done), daemon=True)
        spinner.start()
        try:
            yield doing.append
        finally:
            done.set()
            spinner.join()

    def _say_plainly(self, text: str | None) -> Callable[[str], None]:
        def say(text: str) -> None:
            self.say(f"  {text} ...")

        if text is not None:
            say(text)
        return say

    def _spin(self, doing: list[str], done: threading.Event) -> None:
        began = time.monotonic()
        for frame in itertools.cycle(self._frames):
            seconds = int(time.monotonic() - began)
            lasting = f"  {seconds} s" if seconds else ""
            self._stream.write(f"\r\033[K  {self.paint(frame, CYAN)} {self.paint(doing[-1] + lasting, DIM)}")
            self._stream.flush()
            if done.wait(FRAME_SECONDS):
                break
        self._stream.write("\r\033[K")
        self._stream.flush()
