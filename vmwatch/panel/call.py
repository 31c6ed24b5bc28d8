# SPDX-License-Identifier: Apache-2.0
"""What a function of the API is, and what it works on. The functions stand by subject in modules of their own."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from vmwatch.panel.access import Access
    from vmwatch.panel.convention import Element
    from vmwatch.panel.fields import Fields
    from vmwatch.panel.services import Services
    from vmwatch.panel.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """What the functions work on. `clock` gives milliseconds since 1970."""

    store: Store
    access: Access
    services: Services
    clock: Callable[[], int]
    register_unknown_vm: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call of a function by a signed-in user."""

    panel: Panel
    user: str
    fields: Fields


class Kind(Enum):
    """When a function changes something; what does must come by POST."""

    READS = auto()
    WRITES = auto()
    FORM = auto()  # writes with sok=ok


Content = tuple["Element", ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Function:
    """A function of the API. One that waits for others (a node, a service) is a coroutine function."""

    handler: Callable[[Call], Content | Awaitable[Content]]
    kind: Kind

    def writes(self, values: Fields) -> bool:
        """Whether a call with these fields changes something."""
        return self.kind is Kind.WRITES or (self.kind is Kind.FORM and values.flag("sok"))
