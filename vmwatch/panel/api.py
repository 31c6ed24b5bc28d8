# SPDX-License-Identifier: Apache-2.0
"""The endpoint `/vmmgr`: a form in, an answer of COREmanager's convention out.

POST with form fields; what only reads, and signing in, also by GET (as the "Guide to ISPsystem software API"
has it). The HTTP status is 200 even for an error, for that is in the body; 5xx says that the panel itself
failed, and that the call should be tried again.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Awaitable
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from vmwatch.panel.call import Call
from vmwatch.panel.catalogue import FUNCTIONS
from vmwatch.panel.convention import (
    ApiError,
    Element,
    ErrorType,
    Format,
    failure,
    media_type,
    write,
)
from vmwatch.panel.fields import Fields

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.types import Receive, Scope, Send

    from vmwatch.panel.call import Panel

BODY_MOST = 8 << 20  # bytes: the statistics of 20,000 domains
_FIELDS_MOST = 100

log = logging.getLogger(__name__)


class Api:
    """An ASGI application: one call a request."""

    def __init__(self, panel: Panel) -> None:
        """`panel` is what the functions work on."""
        self._panel = panel

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        form, status = Format.JSON, 200
        try:
            values = await _read_fields(scope, receive)
            form = _format(values)
            content = await self._answer(scope["method"], values)
        except ApiError as error:
            content = failure(error)
        except sqlite3.Error:
            log.exception("database failed")
            content, status = _internal("The database cannot be read or written"), 503
        except Exception:  # a worker's boundary: one call's bug must not end the others
            log.exception("call failed")
            content, status = _internal("The panel failed: see its log"), 500
        body = write(content, form)
        headers = [
            (b"content-type", media_type(form).encode()),
            (b"content-length", str(len(body)).encode()),
            (b"cache-control", b"no-store"),
        ]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _answer(self, method: str, values: dict[str, str]) -> Sequence[Element]:
        name = values.get("func", "")
        if name == "auth":
            return await self._sign_in(values)
        user = await self._caller(values)
        function = FUNCTIONS.get(name)
        if function is None:
            raise ApiError(ErrorType.MISSED, "func", f"There is no function '{name[:100]}'", value=name[:100])
        fields = Fields(values)
        if method != "POST" and function.writes(fields):
            raise ApiError(ErrorType.ACCESS, "method", f"'{name}' changes something: send it by POST")
        outcome = function.handler(Call(panel=self._panel, user=user, fields=fields))
        return await outcome if isinstance(outcome, Awaitable) else outcome

    async def _caller(self, values: dict[str, str]) -> str:
        if "authinfo" in values:
            return await self._panel.access.by_authinfo(values["authinfo"])
        if "auth" in values:
            return self._panel.access.by_session(values["auth"])
        raise ApiError(ErrorType.AUTH, "auth", "Not signed in: give auth or authinfo")

    async def _sign_in(self, values: dict[str, str]) -> Sequence[Element]:
        access = self._panel.access
        user = values.get("username", "")
        if "key" in values:
            session = access.sign_in_by_key(user, values["key"])
        else:
            session = await access.sign_in(user, values.get("password", ""))
        return (Element(name="auth", text=session, attributes={"id": session}),)


def _internal(text: str) -> Sequence[Element]:
    return failure(ApiError(ErrorType.INTERNAL, "panel", text))


def _format(values: dict[str, str]) -> Format:
    try:
        return Format(values.get("out", Format.JSON))
    except ValueError:
        raise ApiError(
            ErrorType.VALUE, "out", "Field 'out': expected json or xml", value=values["out"][:20]
        ) from None


async def _read_fields(scope: Scope, receive: Receive) -> dict[str, str]:
    query: bytes = scope["query_string"]
    pairs = _pairs(query)
    if scope["method"] == "POST":
        pairs += _pairs(await read_body(scope, receive))
    values = dict(pairs)
    if len(values) != len(pairs):
        twice = next(name for name, _ in pairs if sum(name == other for other, _ in pairs) > 1)
        raise ApiError(ErrorType.VALUE, twice[:100], "A field is given twice")
    return values


def _pairs(encoded: bytes) -> list[tuple[str, str]]:
    try:
        text = encoded.decode("ascii")
        return parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=_FIELDS_MOST)
    except ValueError:
        raise ApiError(
            ErrorType.VALUE, "form", "The form cannot be read: expected name=value&…, in UTF-8"
        ) from None


async def read_body(scope: Scope, receive: Receive, most: int = BODY_MOST) -> bytes:
    """The body of a form's request. ApiError `value`: not a form, or larger than `most` bytes."""
    kind = next((value for name, value in scope["headers"] if name == b"content-type"), b"")
    if kind.partition(b";")[0].strip().lower() not in (b"application/x-www-form-urlencoded", b""):
        raise ApiError(ErrorType.VALUE, "form", "Expected Content-Type application/x-www-form-urlencoded")
    chunks: list[bytes] = []
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ApiError(ErrorType.VALUE, "form", "The connection ended within the form")
        chunk: bytes = message.get("body", b"")
        chunks.append(chunk)
        size += len(chunk)
        more = message.get("more_body", False)
        if size > most:
            raise ApiError(ErrorType.VALUE, "form", f"The form is larger than {most} bytes")
    return b"".join(chunks)
