# SPDX-License-Identifier: Apache-2.0
"""The pages of the VMs: the list, and one VM with its pictures, events and installation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from vmwatch.panel import (
    plot,
    shown,
    shown_installation,
    shown_nodes,
    shown_problems,
    shown_samples,
    shown_vms,
    timeline,
)
from vmwatch.panel.convention import Paging
from vmwatch.panel.lists import Links, Pager, chosen, node_number, page_number
from vmwatch.panel.pages_installation import address
from vmwatch.panel.presentation import STATUSES
from vmwatch.panel.shown_vms import Column, Filter, Order, Warned

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Mapping

    from starlette.responses import Response
    from starlette.routing import Route

    from vmwatch.panel.shown_installation import ShownInstallation
    from vmwatch.panel.shown_vms import Vm
    from vmwatch.panel.site import Site, Visit
    from vmwatch.panel.views import Content

PAGE: Final = 100  # rows of a list
PROBLEMS: Final = 20  # of the list of problems atop the VMs
SPANS: Final = {"hour": 3600, "day": 86_400, "week": 7 * 86_400}  # seconds
_DRAWN = 1000  # events in one picture
_FITTED = 30  # events that the picture shows unless a time is asked for
_PLOTTED = SPANS["day"]  # unless a time is asked for
_REDRAWN = 60_000  # ms: a picture of the last hour moves on, though nothing happens


@dataclass(frozen=True, slots=True, kw_only=True)
class VmRow:
    """A VM of the list, and its installation, while one goes on."""

    id: int
    vm: Vm
    installation: ShownInstallation | None


class VmPages:
    """`/` and `/vm/NAME`."""

    def __init__(self, site: Site) -> None:
        """`site` frames them."""
        self._site = site
        self._connection = site.panel.store.connection

    def routes(self) -> list[Route]:
        """For the application."""
        return [self._site.shows("/", self.list_page), self._site.shows("/vm/{name}", self.vm_page)]

    def list_page(self, visit: Visit) -> Response:
        """`/`: the VMs. Query: q (part of the name), status, node, warning, page, sort (`-` turns the order)."""
        return self._site.page(visit, "vms.html", self.list_content(visit.query), here="vms")

    def list_content(self, query: Mapping[str, str]) -> Content:
        """The VMs of one filter and page, with the problems and counts above them."""
        wanted, order = _filter(query), _order(query)
        counts = shown_vms.count_by_status(self._connection, wanted)
        total = counts.get(wanted.status, 0) if wanted.status else sum(counts.values())
        pager = Pager(number=page_number(query), size=PAGE, total=total)
        problems = shown_problems.open_problems(self._connection, PROBLEMS)
        context = {
            "wanted": wanted,
            "order": order,
            "counts": counts,
            "pager": pager,
            "problems": problems,
            "nodes": shown_nodes.node_names(self._connection),
            "link": Links(path="/", query=_query(wanted, order)),
            "empty": "No VM yet. A VM appears here when it is created, or with its first event.",
            "empty_filtered": "No VM matches.",
        }
        parts = {"summary": counts, "problems": problems, "pager": pager}
        installations = shown_installation.all_by_vm(self._connection)
        rows = [
            VmRow(id=vm.id, vm=vm, installation=installations.get(vm.id))
            for vm in shown_vms.vms(self._connection, wanted, pager.paging, order)
        ]
        return self._site.content(context=context, parts=parts, row="vm", rows=rows)

    def vm_page(self, visit: Visit) -> Response:
        """`/vm/NAME`: one VM. Query: span (of the pictures), page (of the table)."""
        name = visit.path["name"]
        content = self.vm_content(name, visit.query)
        if content.context["vm"] is None:
            return self._site.missing(visit, what="VM", name=name, back="/", here="vms")
        return self._site.page(visit, "vm.html", content, here="vms")

    def vm_content(self, name: str, query: Mapping[str, str]) -> Content:
        """What is known of a VM; one that there is not, or no more, is None."""
        vm = shown_vms.vm_by_name(self._connection, name)
        if vm is None:
            return self._site.content(context={"vm": None, "name": name}, parts={"head": None})
        span = query.get("span", "") if query.get("span") in SPANS else ""
        total = shown.count_history(self._connection, vm.id)
        pager = Pager(number=page_number(query), size=PAGE, total=total)
        problems = shown_problems.problems_of(self._connection, vm)
        installation = shown_installation.of_vm(self._connection, vm.id)
        minute = self._site.panel.clock() // _REDRAWN
        sampled = shown_samples.latest(self._connection, vm.id)
        context = {
            "vm": vm,
            "vm_problems": problems,
            "installation": installation,
            "history": lambda: shown.history(self._connection, vm.id, pager.paging),
            "span": span,
            "pager": pager,
            "link": Links(path=address(vm.name), query={"span": span}),
            "pictures": Pictures(self._connection, vm.id, span=span, now=self._site.panel.clock()),
        }
        parts = {
            "head": vm,
            "vm-problems": problems,
            "installation": installation,
            "picture": (vm, problems, minute),
            "plots": (sampled, minute),
            "history": pager,
        }
        return self._site.content(context=context, parts=parts)


class Pictures:
    """A VM's pictures, drawn when a template asks for them: an open page asks only when they have changed."""

    def __init__(self, connection: sqlite3.Connection, vm: int, *, span: str, now: int) -> None:
        """`span` is a key of SPANS; "": the timeline fits the last events, and the plots show a day."""
        self._connection = connection
        self._vm = vm
        self._span = span
        self._now = now
        self._measured = now - SPANS.get(span, _PLOTTED) * 1000

    def statuses(self) -> timeline.Timeline:
        """Statuses along time."""
        most = _DRAWN if self._span else _FITTED
        entries = shown.history(self._connection, self._vm, Paging(number=1, size=most))[::-1]
        since = self._measured if self._span else timeline.fit(entries, self._now)
        gaps = shown.gaps(self._connection, since)
        return timeline.draw(entries, gaps, since=since, now=self._now)

    def rates(self) -> dict[str, plot.Plot | None]:
        """Rates along time, by what they are of; None: nothing was measured."""
        network, disk = shown_samples.rates(self._connection, self._vm, since=self._measured, until=self._now)
        return {
            "Network": plot.draw(network, since=self._measured, until=self._now),
            "Disk": plot.draw(disk, since=self._measured, until=self._now),
        }

    def moments(self) -> tuple[timeline.Tick, ...]:
        """Moments on the plots' axis."""
        return timeline.ticks(self._measured, self._now)


def _filter(query: Mapping[str, str]) -> Filter:
    return Filter(
        name=query.get("q", "").strip()[:255],
        status=chosen(query, "status", STATUSES),
        hostnode=node_number(query),
        warning=chosen(query, "warning", Warned),
    )


def _order(query: Mapping[str, str]) -> Order:
    sort = query.get("sort", "")
    column = sort.removeprefix("-")
    if column not in list(Column):
        return Order()
    return Order(column=Column(column), descending=sort.startswith("-"))


def _query(wanted: Filter, order: Order) -> dict[str, str]:
    sort = "-" * order.descending + order.column
    return {
        "q": wanted.name,
        "status": wanted.status,
        "node": str(wanted.hostnode or ""),
        "warning": wanted.warning,
        "sort": sort if order != Order() else "",
    }
