# SPDX-License-Identifier: Apache-2.0
"""The pages for people: signing in, the list of the VMs, one VM, and the stream that keeps them current."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, quote

from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from vmwatch.panel import shown_vms
from vmwatch.panel.api import read_body
from vmwatch.panel.convention import ApiError
from vmwatch.panel.presentation import FOLDER, STATUSES, environment
from vmwatch.panel.views import ListView, VmView

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.requests import Request
    from starlette.routing import BaseRoute

    from vmwatch.panel.call import Panel
    from vmwatch.panel.live import Hub, Stream

SESSION_COOKIE = "vmwatch_session"
FORM_COOKIE = "vmwatch_form"  # binds the sign-in form to the browser that loaded it
_FORM_MOST = 16 << 10  # bytes


class Pages:
    """The routes of the pages."""

    def __init__(self, panel: Panel, hub: Hub, *, secure: bool) -> None:
        """`secure`: the panel speaks https, and so must its cookies."""
        self._panel = panel
        self._hub = hub
        self._secure = secure
        self._env = environment()

    def routes(self) -> Sequence[BaseRoute]:
        """For the application."""
        return [
            Route("/", self.list_page),
            Route("/vm/{name:path}", self.vm_page),
            Route("/live", self.live),
            Route("/sign-in", self.sign_in_page, methods=["GET"]),
            Route("/sign-in", self.sign_in, methods=["POST"]),
            Route("/sign-out", self.sign_out, methods=["POST"]),
            Mount("/static", StaticFiles(directory=FOLDER / "static")),
        ]

    async def list_page(self, request: Request) -> Response:
        """`/`: the VMs. Query: q (part of the name), status, page."""
        user = self._user(request)
        if user is None:
            return self._to_sign_in(request)
        return self._page(request, "list.html", user=user, **self._list_view(request).context())

    async def vm_page(self, request: Request) -> Response:
        """`/vm/NAME`: one VM. Query: span (of the picture), page (of the table)."""
        user = self._user(request)
        if user is None:
            return self._to_sign_in(request)
        name = request.path_params["name"]
        context = self._vm_view(request, name).context()
        if context is None:
            return self._page(request, "missing.html", user=user, status=404, name=name)
        return self._page(request, "vm.html", user=user, **context)

    async def live(self, request: Request) -> Response | Stream:
        """`/live`: the changes of the page with the same query; `vm` names a VM's page."""
        session = request.cookies.get(SESSION_COOKIE, "")
        if self._user(request) is None:
            return PlainTextResponse("Not signed in\n", status_code=401)
        if request.method == "HEAD":  # static/live.js asks whether its stream would be answered
            return Response()
        if self._hub.is_full():
            return PlainTextResponse("Too many open pages\n", status_code=503)
        name = request.query_params.get("vm")
        view = self._list_view(request) if name is None else self._vm_view(request, name)
        return self._hub.stream(view, lambda: self._panel.access.signed_in(session) is not None)

    async def sign_in_page(self, request: Request) -> Response:
        """`GET /sign-in`: the form."""
        if self._user(request) is not None:
            return RedirectResponse("/", 303)
        return self._sign_in_form(request, error="", username="", target=request.query_params.get("next", ""))

    async def sign_in(self, request: Request) -> Response:
        """`POST /sign-in`: a session in a cookie, and back to where one wanted to go."""
        form = await _read_form(request)
        username, target = form.get("username", ""), form.get("next", "")
        if not self._is_form_of(request.cookies.get(FORM_COOKIE, ""), form):
            error = "This form was too old. Please try again."
            return self._sign_in_form(request, error=error, username=username, target=target, status=403)
        try:
            session = await self._panel.access.sign_in(username, form.get("password", ""))
        except ApiError as wrong:
            return self._sign_in_form(request, error=wrong.text, username=username, target=target, status=403)
        response = RedirectResponse(_local(target), 303)
        self._set_cookie(response, SESSION_COOKIE, session)
        return response

    async def sign_out(self, request: Request) -> Response:
        """`POST /sign-out`: the session ends."""
        session = request.cookies.get(SESSION_COOKIE, "")
        if not self._is_form_of(session, await _read_form(request)):
            return RedirectResponse("/", 303)
        self._panel.access.sign_out(session)
        response = RedirectResponse("/sign-in", 303)
        response.delete_cookie(SESSION_COOKIE)
        return response

    def _list_view(self, request: Request) -> ListView:
        query = request.query_params
        status = query.get("status", "")
        wanted = shown_vms.Filter(
            name=query.get("q", "").strip()[:255], status=status if status in STATUSES else ""
        )
        return ListView(self._panel, self._env, wanted, _page_number(request))

    def _vm_view(self, request: Request, name: str) -> VmView:
        span = request.query_params.get("span", "")
        return VmView(self._panel, self._env, name, span=span, number=_page_number(request))

    def _user(self, request: Request) -> str | None:
        session = request.cookies.get(SESSION_COOKIE)
        return self._panel.access.signed_in(session) if session else None

    def _page(self, request: Request, template: str, *, status: int = 200, **context: object) -> Response:
        session = request.cookies.get(SESSION_COOKIE, "")
        token = self._panel.access.form_token(session)
        return HTMLResponse(self._env.get_template(template).render(token=token, **context), status)

    def _sign_in_form(
        self, request: Request, *, error: str, username: str, target: str, status: int = 200
    ) -> Response:
        binding = request.cookies.get(FORM_COOKIE) or secrets.token_hex(16)
        html = self._env.get_template("sign_in.html").render(
            user=None,
            error=error,
            username=username,
            target=_local(target),
            token=self._panel.access.form_token(binding),
        )
        response = HTMLResponse(html, status)
        self._set_cookie(response, FORM_COOKIE, binding)
        return response

    def _to_sign_in(self, request: Request) -> Response:
        wanted = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        return RedirectResponse("/sign-in" + (f"?next={quote(wanted)}" if wanted != "/" else ""), 303)

    def _is_form_of(self, binding: str, form: dict[str, str]) -> bool:
        return bool(binding) and self._panel.access.is_form_token(binding, form.get("token", ""))

    def _set_cookie(self, response: Response, name: str, value: str) -> None:
        # The panel's own clock ends a session, one hour after its last use; the cookie goes with the browser.
        response.set_cookie(name, value, httponly=True, samesite="lax", secure=self._secure)


async def _read_form(request: Request) -> dict[str, str]:
    try:
        body = await read_body(request.scope, request.receive, _FORM_MOST)
        return dict(parse_qsl(body.decode("ascii"), keep_blank_values=True, max_num_fields=20))
    except (ApiError, ValueError):
        return {}


def _page_number(request: Request) -> int:
    value = request.query_params.get("page", "")
    return max(1, int(value)) if value.isascii() and value.isdigit() and len(value) < 8 else 1


def _local(target: str) -> str:
    """A place in this panel: never another site's address, however it is written."""
    harmless = target.startswith("/") and not target.startswith(("//", "/\\")) and target.isprintable()
    return target if harmless else "/"
