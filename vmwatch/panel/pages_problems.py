# SPDX-License-Identifier: Apache-2.0
"""The page of the problems: filtered, and solved by hand, several at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from vmwatch.panel import forms, shown_nodes, shown_problems
from vmwatch.panel.lists import Links, Pager, chosen, node_number, page_number
from vmwatch.panel.shown_problems import LEVELS, ProblemFilter

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.responses import Response
    from starlette.routing import Route

    from vmwatch.panel.site import Site, Visit
    from vmwatch.panel.views import Content

PAGE: Final = 100  # rows of a list
_STATES: Final = {"raised": "raised", "solved": "solved", "all": ""}


class ProblemPages:
    """`/problems`."""

    def __init__(self, site: Site) -> None:
        """`site` frames it."""
        self._site = site
        self._connection = site.panel.store.connection

    def routes(self) -> list[Route]:
        """For the application."""
        return [
            self._site.shows("/problems", self.list_page),
            self._site.takes("/problems", self.solve),
        ]

    def list_page(self, visit: Visit) -> Response:
        """`/problems`: the newest first. Query: state (raised; solved, all), level, node, q, covered, page."""
        return self._site.page(visit, "problems.html", self.list_content(visit.query), here="problems")

    def list_content(self, query: Mapping[str, str]) -> Content:
        """The problems of one filter and page."""
        state = chosen(query, "state", _STATES) or "raised"
        wanted = ProblemFilter(
            state=_STATES[state],
            level=chosen(query, "level", LEVELS),
            hostnode=node_number(query),
            name=query.get("q", "").strip()[:255],
            covered=query.get("covered") == "on",
        )
        total = shown_problems.count_problems(self._connection, wanted)
        pager = Pager(number=page_number(query), size=PAGE, total=total)
        kept = {
            "state": state if state != "raised" else "",
            "level": wanted.level,
            "node": str(wanted.hostnode or ""),
            "q": wanted.name,
            "covered": "on" if wanted.covered else "",
        }
        context = {
            "wanted": wanted,
            "state": state,
            "pager": pager,
            "counted": shown_problems.count_by_level(self._connection),
            "nodes": shown_nodes.node_names(self._connection),
            "link": Links(path="/problems", query=kept),
            "empty": "No open problem.",
            "empty_filtered": "No problem matches.",
        }
        rows = shown_problems.problems(self._connection, wanted, pager.paging)
        return self._site.content(
            context=context,
            parts={"pager": pager, "counted": context["counted"]},
            row="problem",
            rows=rows,
        )

    async def solve(self, visit: Visit) -> Response:
        """Those that were ticked are solved."""
        back = Links(path="/problems", query=visit.query)
        ticked = visit.form.get("elid", "")
        if not ticked:
            return forms.back(back(done="none"))
        return await forms.act(self._site, visit, "problem.solve", {"elid": ticked}, back(done="solved"))
