# SPDX-License-Identifier: Apache-2.0
"""Forms: which fields a function of the API has for people, how they are shown, and what becomes of what is typed.

A form that is refused is shown again with what was typed, the error at the field that it names.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from starlette.responses import RedirectResponse

from vmwatch.panel.convention import ApiError, ErrorType

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.responses import Response

    from vmwatch.panel.site import Site, Visit

_REFUSED: Final = 422  # what was sent is understood, and wrong


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """A field. `kind` is an input's type, or `select` with `options` (value, word); `hint` says what is expected.

    `attributes` are HTML's own, of the element.
    """

    name: str
    label: str
    kind: str = "text"
    hint: str = ""
    required: bool = True
    options: tuple[tuple[str, str], ...] = ()
    attributes: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """A form of the function `func`. `back` is the page that it belongs to, `here` that page's name.

    `fixed` is sent along, whatever the visitor types; `danger`: what it does cannot be undone.
    """

    title: str
    func: str
    button: str
    back: str
    back_word: str
    here: str
    fields: tuple[Field, ...] = ()
    fixed: Mapping[str, str] | None = None
    text: str = ""
    danger: bool = False


def show(site: Site, visit: Visit, form: Form, values: Mapping[str, str]) -> Response:
    """The form's page, with these values in its fields."""
    return _show(site, visit, form, values, None)


async def submit(site: Site, visit: Visit, form: Form, target: str) -> Response:
    """Call the form's function with what was typed; then to `target`, or to the form again with its error."""
    typed = {field.name: visit.form.get(field.name, "") for field in form.fields}
    error = await site.try_call(visit, form.func, {**typed, **(form.fixed or {})})
    return _show(site, visit, form, typed, error) if error else back(target)


def refuse(site: Site, visit: Visit, form: Form, field: str, text: str) -> Response:
    """The form again, with an error that was found before the function was called."""
    return _show(site, visit, form, visit.form, ApiError(ErrorType.VALUE, field, text))


async def act(site: Site, visit: Visit, func: str, values: Mapping[str, str], target: str) -> Response:
    """What a single button does: call the function, then to `target`, or to a page that says why not."""
    error = await site.try_call(visit, func, values)
    return site.page(visit, "refused.html", status=_REFUSED, here="", error=error) if error else back(target)


def back(target: str) -> Response:
    """To a page, by GET, so that loading it anew sends nothing again."""
    return RedirectResponse(target, 303)


def _show(
    site: Site, visit: Visit, form: Form, values: Mapping[str, str], error: ApiError | None
) -> Response:
    kept = {field.name: values.get(field.name, "") for field in form.fields if field.kind != "password"}
    at = error.subject if error and error.subject in [field.name for field in form.fields] else ""
    return site.page(
        visit,
        "form.html",
        status=_REFUSED if error else 200,
        here=form.here,
        form=form,
        values=kept,
        error=error,
        error_at=at,
    )
