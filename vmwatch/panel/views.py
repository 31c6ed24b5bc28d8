# SPDX-License-Identifier: Apache-2.0
"""What an open page shows, and what of it differs from what it was sent before.

A page is made of parts, elements with an id, and, if it is a list, of rows. Each has a *state*: the values that its
HTML follows from. Where that is equal to what it was, nothing is rendered and nothing is sent, so that what a
reader has focused, opened or marked in it stays.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import jinja2


class Row(Protocol):
    """A row of a list: a value whose `id` names it for as long as it is listed."""

    @property
    def id(self) -> int:
        """Unique in its list."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """What a page shows at a moment. The template of a part is `part-NAME.html`, a row's is `row-ROW.html`.

    `context` is what all its templates know; a row's knows its row as `row` besides.
    """

    context: Mapping[str, Any]
    parts: Mapping[str, object]
    row: str = ""
    rows: Sequence[Row] = field(default=())


class LiveView:
    """One open page: what it shows is read anew at each look."""

    def __init__(self, env: jinja2.Environment, read: Callable[[], Content]) -> None:
        """`read` gives what the page shows now."""
        self._env = env
        self._read = read
        self._rows: dict[int, Row] = {}
        self._parts: dict[str, object] = {}

    def changes(self) -> dict[str, Any]:
        """`order` (the rows' ids), `rows` (HTML by id), `parts` (HTML by element); what is the same is left out."""
        content = self._read()
        changed = {**self._changed_parts(content), **self._changed_rows(content)}
        self._parts = dict(content.parts)
        self._rows = {row.id: row for row in content.rows}
        return changed

    def _changed_parts(self, content: Content) -> dict[str, Any]:
        fresh = [name for name, state in content.parts.items() if self._parts.get(name, _NEVER) != state]
        parts = {name: self._render(f"part-{name}.html", content.context) for name in fresh}
        return {"parts": parts} if parts else {}

    def _changed_rows(self, content: Content) -> dict[str, Any]:
        order = [row.id for row in content.rows]
        found: dict[str, Any] = {}
        if content.row and (order != list(self._rows) or not self._parts):
            found["order"] = order
        if fresh := [row for row in content.rows if self._rows.get(row.id) != row]:
            template = f"row-{content.row}.html"
            found["rows"] = {row.id: self._render(template, {**content.context, "row": row}) for row in fresh}
        return found

    def _render(self, template: str, context: Mapping[str, Any]) -> str:
        return self._env.get_template(template).render(context)


_NEVER = object()  # no part's state
