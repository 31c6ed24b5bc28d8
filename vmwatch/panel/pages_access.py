# SPDX-License-Identifier: Apache-2.0
"""Signing in and out."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Final

from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from vmwatch.panel.convention import ApiError
from vmwatch.panel.site import SESSION_COOKIE, read_form

if TYPE_CHECKING:
    from starlette.requests import Request

    from vmwatch.panel.site import Site, Visit

FORM_COOKIE: Final = "vmwatch_form"  # binds the sign-in form to the browser that loaded it


class AccessPages:
    """`/sign-in` and `/sign-out`."""

    def __init__(self, site: Site, *, secure: bool) -> None:
        """`secure`: the panel speaks https, and so must its cookies."""
        self._site = site
        self._secure = secure

    def routes(self) -> list[Route]:
        """For the application."""
        return [
            Route("/sign-in", self.sign_in_page, methods=["GET"]),
            Route("/sign-in", self.sign_in, methods=["POST"]),
            self._site.takes("/sign-out", self.sign_out),
        ]

    async def sign_in_page(self, request: Request) -> Response:
        """`GET /sign-in`: the form."""
        if self._site.visit(request) is not None:
            return RedirectResponse("/", 303)
        return self._form(request, error="", username="", target=request.query_params.get("next", ""))

    async def sign_in(self, request: Request) -> Response:
        """`POST /sign-in`: a session in a cookie, and back to where one wanted to go."""
        form = await read_form(request)
        username, target = form.get("username", ""), form.get("next", "")
        if not self._site.is_form_of(request.cookies.get(FORM_COOKIE, ""), form):
            error = "This form was too old. Please try again."
            return self._form(request, error=error, username=username, target=target, status=403)
        try:
            session = await self._site.panel.access.sign_in(username, form.get("password", ""))
        except ApiError as wrong:
            return self._form(request, error=wrong.text, username=username, target=target, status=403)
        response = RedirectResponse(_local(target), 303)
        self._set_cookie(response, SESSION_COOKIE, session)
        return response

    def sign_out(self, visit: Visit) -> Response:
        """`POST /sign-out`: the session ends."""
        self._site.panel.access.sign_out(visit.session)
        response = RedirectResponse("/sign-in", 303)
        response.delete_cookie(SESSION_COOKIE)
        return response

    def _form(
        self, request: Request, *, error: str, username: str, target: str, status: int = 200
    ) -> Response:
        binding = request.cookies.get(FORM_COOKIE) or secrets.token_hex(16)
        html = self._site.env.get_template("sign_in.html").render(
            user=None,
            error=error,
            username=username,
            target=_local(target),
            token=self._site.panel.access.form_token(binding),
        )
        response = HTMLResponse(html, status)
        self._set_cookie(response, FORM_COOKIE, binding)
        return response

    def _set_cookie(self, response: Response, name: str, value: str) -> None:
        # The panel's own clock ends a session, one hour after its last use; the cookie goes with the browser.
        response.set_cookie(name, value, httponly=True, samesite="lax", secure=self._secure)


def _local(target: str) -> str:
    """A place in this panel: never another site's address, however it is written."""
    harmless = target.startswith("/") and not target.startswith(("//", "/\\")) and target.isprintable()
    return target if harmless else "/"
