# SPDX-License-Identifier: Apache-2.0
"""How values read on a page: words, times, the templates' environment. Without script a page shows UTC."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import jinja2

from vmwatch import __version__
from vmwatch.events import Status
from vmwatch.panel.fields import iso
from vmwatch.panel.plot import rate
from vmwatch.panel.shown_vms import Column

FOLDER: Final = Path(__file__).parent

# In the order of how much they want an administrator's eye.
STATUSES: Final = (
    Status.CRASHED,
    Status.UNKNOWN,
    Status.MIGRATING,
    Status.RUNNING,
    Status.PAUSED,
    Status.SLEEPING,
    Status.SAVED,
    Status.STOPPED,
)

COLUMNS: Final = (
    (Column.STATUS, "Status"),
    (Column.NAME, "VM"),
    (Column.NODE, "Node"),
    (Column.SINCE, "Since"),
    (Column.EVENT, "Last event"),
    (Column.TIME, "At"),
)

# What a page says after a form of it was sent, by the word in its address.
MESSAGES: Final = {
    "saved": "Saved.",
    "removed": "Removed.",
    "configured": "The services were configured; what failed is said below.",
    "solved": "Solved.",
    "none": "Nothing was ticked, so nothing was solved.",
    "installing": "The installation begins.",
}

_PROBLEMS: Final = {
    "node_silent": "node silent",
    "libvirt_lost": "libvirt lost",
    "two_nodes_one_id": "two nodes, one id",
    "vm_not_responding": "VM does not respond",
}


def environment() -> jinja2.Environment:
    """The templates; everything that they write is escaped."""
    env = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.filters.update(
        ago=ago, clock=clock, iso=iso, problem=problem_word, delay=delay, number=number, rate=rate
    )
    env.globals.update(version=__version__, statuses=STATUSES, columns=COLUMNS, messages=MESSAGES)
    return env


def ago(then: int, now: int) -> str:
    """How long ago, in one unit: `42 s`, `7 min`, `3 h`, `12 d`. The same as static/live.js says."""
    seconds = max(0, now - then) // 1000
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def clock(then: int, now: int) -> str:
    """A moment: the time of today, the date of another day. UTC."""
    moment, today = (datetime.fromtimestamp(time / 1000, UTC) for time in (then, now))
    return f"{moment:%H:%M:%S}" if moment.date() == today.date() else f"{moment:%Y-%m-%d %H:%M}"


def delay(milliseconds: int) -> str:
    """A duration, short: `3 ms`, `1.2 s`, `5 min`."""
    if abs(milliseconds) < 1000:
        return f"{milliseconds} ms"
    if abs(milliseconds) < 60_000:
        return f"{milliseconds / 1000:.1f} s"
    return ago(0, abs(milliseconds))


def number(count: int) -> str:
    """A count, its thousands apart: `10 000`."""
    return f"{count:,}".replace(",", " ")


def problem_word(problem: str) -> str:
    """A problem's name for people."""
    return _PROBLEMS.get(problem, problem.replace("_", " "))
