# SPDX-License-Identifier: Apache-2.0
"""What a page shows, and what of it has changed since it was last asked: the list of the VMs, and one VM."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vmwatch.panel import shown, shown_vms, timeline
from vmwatch.panel.convention import Paging

if TYPE_CHECKING:
    import jinja2

    from vmwatch.panel.call import Panel

PAGE = 100  # rows of a list
PROBLEMS = 20  # of the list of problems atop the VMs
_DRAWN = 1000  # events in one picture
_FITTED = 30  # events that the picture shows unless a time is asked for
SPANS = {"hour": 3600, "day": 86_400, "week": 7 * 86_400}  # seconds


class ListView:
    """The VMs of one filter and page, with the problems and counts above them."""

    def __init__(self, panel: Panel, env: jinja2.Environment, wanted: shown_vms.Filter, number: int) -> None:
        """`number` is the page's, from 1."""
        self._panel = panel
        self._env = env
        self._wanted = wanted
        self._paging = Paging(number=number, size=PAGE)
        self._rows: dict[int, shown_vms.Vm] = {}
        self._parts: dict[str, str] = {}

    def context(self) -> dict[str, Any]:
        """The template's values."""
        connection = self._panel.store.connection
        counts = shown_vms.count_by_status(connection, self._wanted)
        total = shown_vms.count_vms(connection, self._wanted)
        return {
            "now": self._panel.clock(),
            "vms": shown_vms.vms(connection, self._wanted, self._paging),
            "counts": counts,
            "all": sum(counts.values()),
            "problems": shown.open_problems(connection, PROBLEMS),
            "problem_count": shown.count_problems(connection, only_open=True),
            "wanted": self._wanted,
            "total": total,
            "first": self._paging.offset + 1,
            "last": min(total, self._paging.offset + PAGE),
            "number": self._paging.number,
        }

    def changes(self) -> dict[str, Any]:
        """`order` (the rows' ids), `rows` (HTML by id), `parts` (HTML by element); what is the same is left out."""
        context = self.context()
        rows = {vm.id: vm for vm in context["vms"]}
        found: dict[str, Any] = {}
        if list(rows) != list(self._rows) or not self._parts:
            found["order"] = list(rows)
        changed = [vm for vm in rows.values() if self._rows.get(vm.id) != vm]
        if changed:
            found["rows"] = {vm.id: self._render("row.html", {"vm": vm, **context}) for vm in changed}
        self._rows = rows
        parts = {name: self._render(f"{name}.html", context) for name in ("summary", "problems", "pager")}
        if fresh := {name: html for name, html in parts.items() if self._parts.get(name) != html}:
            found["parts"] = fresh
        self._parts = parts
        return found

    def _render(self, template: str, context: dict[str, Any]) -> str:
        return self._env.get_template(template).render(context)


class VmView:
    """One VM: what it does, its problems, its history."""

    def __init__(self, panel: Panel, env: jinja2.Environment, name: str, *, span: str, number: int) -> None:
        """`span` is a key of SPANS, else the picture fits the last events; `number` is the table's page."""
        self._panel = panel
        self._env = env
        self._name = name
        self._span = span if span in SPANS else ""
        self._paging = Paging(number=number, size=PAGE)
        self._seen: object = None

    def context(self) -> dict[str, Any] | None:
        """The template's values; None: there is no such VM."""
        connection = self._panel.store.connection
        vm = shown_vms.vm_by_name(connection, self._name)
        if vm is None:
            return None
        now = self._panel.clock()
        total = shown.count_history(connection, vm.id)
        return {
            "now": now,
            "vm": vm,
            "problems": shown.problems_of(connection, vm),
            "history": shown.history(connection, vm.id, self._paging),
            "timeline": self._timeline(vm.id, now),
            "span": self._span,
            "total": total,
            "first": self._paging.offset + 1,
            "last": min(total, self._paging.offset + PAGE),
            "number": self._paging.number,
        }

    def changes(self) -> dict[str, Any]:
        """`parts`: the page's content anew, when the VM or its problems have changed."""
        connection = self._panel.store.connection
        vm = shown_vms.vm_by_name(connection, self._name)
        seen = (vm, shown.problems_of(connection, vm) if vm else None)
        if seen == self._seen:
            return {}
        self._seen = seen
        context = self.context()
        html = self._env.get_template("vm_content.html").render(context) if context else ""
        return {"parts": {"vm": html}}

    def _timeline(self, vm: int, now: int) -> timeline.Timeline:
        connection = self._panel.store.connection
        most = _DRAWN if self._span else _FITTED
        entries = shown.history(connection, vm, Paging(number=1, size=most))[::-1]
        since = now - SPANS[self._span] * 1000 if self._span else timeline.fit(entries, now)
        return timeline.draw(entries, shown.gaps(connection, since), since=since, now=now)
