# SPDX-License-Identifier: Apache-2.0
"""The pages for people, which stand by subject in modules of their own, and the stream that keeps them current."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from vmwatch.panel.pages_access import AccessPages
from vmwatch.panel.pages_installation import InstallationPages
from vmwatch.panel.pages_nodes import NodePages
from vmwatch.panel.pages_problems import ProblemPages
from vmwatch.panel.pages_settings import SettingsPages
from vmwatch.panel.pages_templates import TemplatePages
from vmwatch.panel.pages_vms import VmPages
from vmwatch.panel.presentation import FOLDER
from vmwatch.panel.site import Site
from vmwatch.panel.views import LiveView

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from starlette.requests import Request
    from starlette.routing import BaseRoute

    from vmwatch.panel.call import Panel
    from vmwatch.panel.live import Hub, Stream
    from vmwatch.panel.views import Content


class Pages:
    """The routes of the pages."""

    def __init__(self, panel: Panel, hub: Hub, *, secure: bool) -> None:
        """`secure`: the panel speaks https."""
        self._site = Site(panel)
        self._hub = hub
        self._vms = VmPages(self._site)
        self._nodes = NodePages(self._site)
        self._problems = ProblemPages(self._site)
        self._templates = TemplatePages(self._site)
        self._settings = SettingsPages(self._site)
        self._installation = InstallationPages(self._site)
        self._access = AccessPages(self._site, secure=secure)

    def routes(self) -> Sequence[BaseRoute]:
        """For the application."""
        return [
            *self._vms.routes(),
            *self._nodes.routes(),
            *self._problems.routes(),
            *self._templates.routes(),
            *self._settings.routes(),
            *self._installation.routes(),
            *self._access.routes(),
            Route("/live", self.live),
            Mount("/static", StaticFiles(directory=FOLDER / "static")),
        ]

    async def live(self, request: Request) -> Response | Stream:
        """`/live`: the changes of the page with the same query; `on` names the page, `vm` the VM of a VM's page."""
        visit = self._site.visit(request)
        if visit is None:
            return PlainTextResponse("Not signed in\n", status_code=401)
        if request.method == "HEAD":  # static/live.js asks whether its stream would be answered
            return Response()
        if self._hub.is_full():
            return PlainTextResponse("Too many open pages\n", status_code=503)
        view = LiveView(self._site.env, self._reader(visit.query))
        access, session = self._site.panel.access, visit.session
        return self._hub.stream(view, lambda: access.signed_in(session) is not None)

    def _reader(self, query: Mapping[str, str]) -> Callable[[], Content]:
        name = query.get("vm")
        if name is not None:
            return lambda: self._vms.vm_content(name, query)
        pages: dict[str, Callable[[Mapping[str, str]], Content]] = {
            "vms": self._vms.list_content,
            "nodes": self._nodes.list_content,
            "problems": self._problems.list_content,
            "templates": self._templates.list_content,
            "policy": self._settings.policy_content,
            "settings": self._settings.settings_content,
        }
        found = pages.get(query.get("on", "vms"))
        return lambda: found(query) if found else self._site.content(context={}, parts={})
