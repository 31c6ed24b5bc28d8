# SPDX-License-Identifier: Apache-2.0
"""What all pages share: who looks, the frame around a page, forms that cannot be forged, and the API's functions.

A form does nothing of its own: it calls the function of the API that has its fields (`Site.try_call`).
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl, quote

from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from vmwatch.panel import shown_problems
from vmwatch.panel.api import read_body
from vmwatch.panel.call import Call
from vmwatch.panel.catalogue import FUNCTIONS
from vmwatch.panel.convention import ApiError, ErrorType
from vmwatch.panel.fields import Fields
from vmwatch.panel.presentation import environment
from vmwatch.panel.views import Content

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from starlette.requests import Request

    from vmwatch.panel.call import Panel
    from vmwatch.panel.views import Row

SESSION_COOKIE: Final = "vmwatch_session"
MANY: Final = "elid"
"""The one field of a form that may be given more than once: the ids of what was ticked. It becomes a list, `1, 2`."""

_FORM_MOST: Final = 64 << 10  # bytes
_FIELDS_MOST: Final = 1000  # a page of problems, each ticked

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """A request of somebody who is signed in. `form`: what was sent, by name; empty for a page that is only shown."""

    request: Request
    user: str
    session: str
    form: Mapping[str, str] = field(default_factory=dict)

    @property
    def path(self) -> Mapping[str, Any]:
        """What stands in the address where the route has a name."""
        return self.request.path_params

    @property
    def query(self) -> Mapping[str, str]:
        """What stands behind the question mark."""
        return self.request.query_params


Handler = Callable[[Visit], Response | Awaitable[Response]]


class Site:
    """The frame of all pages, over one panel."""

    def __init__(self, panel: Panel) -> None:
        """`panel` is what the functions work on."""
        self.panel = panel
        self.env = environment()

    def shows(self, path: str, handler: Handler) -> Route:
        """A page: strangers are sent to sign in, and back."""

        async def endpoint(request: Request) -> Response:
            visit = self.visit(request)
            return await _outcome(handler(visit)) if visit else to_sign_in(request)

        return Route(path, endpoint, methods=["GET"])

    def takes(self, path: str, handler: Handler) -> Route:
        """What a page's form is sent to. A form that is not this session's has no effect."""

        async def endpoint(request: Request) -> Response:
            visit = self.visit(request, await read_form(request))
            if visit is None:
                return RedirectResponse("/sign-in", 303)
            if not self.is_form_of(visit.session, visit.form):
                return self.page(visit, "refused.html", status=403, here="", error=None)
            return await _outcome(handler(visit))

        return Route(path, endpoint, methods=["POST"])

    def visit(self, request: Request, form: Mapping[str, str] | None = None) -> Visit | None:
        """Who looks; None: a stranger, or one whose session has ended."""
        session = request.cookies.get(SESSION_COOKIE, "")
        user = self.panel.access.signed_in(session) if session else None
        return Visit(request=request, user=user, session=session, form=form or {}) if user else None

    def is_form_of(self, binding: str, form: Mapping[str, str]) -> bool:
        """Whether the form came from a page that was made for `binding`: a session, or a browser's cookie."""
        return bool(binding) and self.panel.access.is_form_token(binding, form.get("token", ""))

    def content(
        self,
        *,
        context: Mapping[str, Any],
        parts: Mapping[str, object],
        row: str = "",
        rows: Sequence[Row] = (),
    ) -> Content:
        """What a page shows, with what every page shows: the number of open problems."""
        count = shown_problems.count_open(self.panel.store.connection)
        return Content(
            context={"now": self.panel.clock(), "open_problems": count, "rows": rows, **context},
            parts={"badge": count, **parts},
            row=row,
            rows=rows,
        )

    def page(
        self,
        visit: Visit,
        template: str,
        content: Content | None = None,
        *,
        status: int = 200,
        **more: object,
    ) -> Response:
        """A page in its frame: navigation, the number of open problems, and a token for its forms."""
        content = content or self.content(context={}, parts={})
        html = self.env.get_template(template).render(
            {
                "user": visit.user,
                "token": self.panel.access.form_token(visit.session),
                "done": visit.query.get("done", ""),
                **content.context,
                **more,
            }
        )
        return HTMLResponse(html, status)

    def missing(self, visit: Visit, *, what: str, name: str, back: str, here: str) -> Response:
        """A page that says that there is no such thing, and leads `back` to those that there are."""
        return self.page(visit, "missing.html", status=404, what=what, name=name, back=back, here=here)

    async def try_call(self, visit: Visit, func: str, values: Mapping[str, str]) -> ApiError | None:
        """Call a function of the API as the visitor; its error, if it has one."""
        try:
            outcome = FUNCTIONS[func].handler(Call(panel=self.panel, user=visit.user, fields=Fields(values)))
            if isinstance(outcome, Awaitable):
                await outcome
        except ApiError as error:
            return error
        except sqlite3.Error:
            log.exception("database failed")
            return ApiError(ErrorType.INTERNAL, "panel", "The database cannot be written")
        return None


def to_sign_in(request: Request) -> Response:
    """To the sign-in page, which leads back."""
    wanted = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    return RedirectResponse("/sign-in" + (f"?next={quote(wanted)}" if wanted != "/" else ""), 303)


async def read_form(request: Request) -> dict[str, str]:
    """A form's fields; what cannot be read is empty, and then has no token either."""
    try:
        body = await read_body(request.scope, request.receive, _FORM_MOST)
        pairs = parse_qsl(body.decode("ascii"), keep_blank_values=True, max_num_fields=_FIELDS_MOST)
    except (ApiError, ValueError):
        return {}
    ticked = ", ".join(value for name, value in pairs if name == MANY)
    return {**dict(pairs), MANY: ticked} if ticked else dict(pairs)


def number_in(text: str) -> int:
    """A positive number of an address; what is none is 1."""
    return max(1, int(text)) if text.isascii() and text.isdigit() and len(text) < 8 else 1


async def _outcome(found: Response | Awaitable[Response]) -> Response:
    return await found if isinstance(found, Awaitable) else found
