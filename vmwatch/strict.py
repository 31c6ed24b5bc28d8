# SPDX-License-Identifier: Apache-2.0
"""Values <-> JSON, strictly: exactly the declared fields, each of its declared type. Pure.

Works on records, which are frozen dataclasses or named tuples, whose fields are str, int, bool, an aware datetime,
a StrEnum, another record, a tuple of one of these, or one of these or None. An error says where:
`domains[3].name: expected text`.
"""

from __future__ import annotations

import json
import types
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Any, Final, TypeVar, get_args, get_origin, get_type_hints

from vmwatch.errors import BadBody

if TYPE_CHECKING:
    from enum import StrEnum

INTEGER_LIMIT: Final = 2**63
"""Integers lie within ±this: SQLite keeps no larger ones."""

T = TypeVar("T")
_Check = Callable[[object], Any]


def encode(value: object) -> bytes:
    """The value as compact JSON in UTF-8, its fields in their order. Times become ISO 8601 in UTC.

    What `decode` would refuse in a text (NUL, half of a surrogate pair) becomes `?`: what is kept can be read.
    """
    return json.dumps(_plain(value), ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def decode(kind: type[T], untrusted_body: bytes) -> T:
    """The dataclass value that the bytes say, or BadBody."""
    try:
        text = untrusted_body.decode()
        untrusted, end = _JSON.raw_decode(text)
    except (ValueError, RecursionError) as error:
        raise BadBody("not_json", f"not JSON in UTF-8: {type(error).__name__}") from None
    if end != len(text):
        raise BadBody("not_json", f"not JSON in UTF-8: {len(text) - end} characters too many")
    try:
        value: T = _checker(kind)(untrusted)  # type: ignore[arg-type] # typeshed: a type is hashable
    except _Wrong as wrong:
        raise BadBody(wrong.reason, f"{wrong.path or 'body'}: {wrong.text}") from None
    return value


def instant(time: datetime) -> str:
    """A time as it is written on the wire and to the panel: `2026-11-22T10:00:00.123456Z`.

    Raises ValueError for one without a zone.
    """
    if time.tzinfo is None:
        raise ValueError("a time without a zone")
    return time.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


_Pairs = tuple[tuple[str, object], ...]
"""An object, as it was written: in its order, and a name that was given twice is there twice."""

_JSON: Final = json.JSONDecoder(object_pairs_hook=tuple)


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return instant(value)
    if isinstance(value, str):
        return value.replace("\0", "?")
    if names := _names(type(value)):  # type: ignore[arg-type] # typeshed: a type is hashable
        return {name: _plain(getattr(value, name)) for name in names}
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    return value


@cache
def _names(kind: type[Any]) -> tuple[str, ...]:
    """The names of a record's fields; none: it is no record."""
    if is_dataclass(kind):
        return tuple(field.name for field in fields(kind))
    return getattr(kind, "_fields", ())


class _Wrong(Exception):
    """What is wrong with a value. Where it stands is added on the way out, from the inside."""

    def __init__(self, reason: str, text: str) -> None:
        self.reason, self.text, self.path = reason, text, ""

    def within(self, place: str) -> _Wrong:
        separator = "." if self.path and not self.path.startswith("[") else ""
        self.path = f"{place}{separator}{self.path}"
        return self


def _expected(what: str) -> _Wrong:
    return _Wrong("wrong_type", f"expected {what}")


def _text(untrusted: object) -> str:
    if type(untrusted) is not str or "\0" in untrusted or not (untrusted.isascii() or _encodable(untrusted)):
        raise _expected("text in UTF-8 without NUL")
    return untrusted


def _encodable(text: str) -> bool:
    """JSON can hold halves of surrogate pairs, which no file, socket or database takes."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _integer(untrusted: object) -> int:
    if type(untrusted) is not int or not -INTEGER_LIMIT <= untrusted < INTEGER_LIMIT:
        raise _expected("an integer of 64 bits")
    return untrusted


def _boolean(untrusted: object) -> bool:
    if type(untrusted) is not bool:
        raise _expected("true or false")
    return untrusted


def _time(untrusted: object) -> datetime:
    text = _text(untrusted)
    try:
        time = datetime.fromisoformat(text)
        if time.tzinfo is not None:
            return time if time.tzinfo is UTC else time.astimezone(UTC)
    except (ValueError, OverflowError):  # the year 1 or 9999 may have no such time in UTC
        pass
    raise _expected("an ISO 8601 time with its zone")


def _enumeration(kind: type[StrEnum]) -> _Check:
    members = {member.value: member for member in kind}

    def check(untrusted: object) -> StrEnum:
        try:
            return members[_text(untrusted)]
        except KeyError:
            raise _expected(f"one of {', '.join(members)}") from None

    return check


def _optional(inner: _Check) -> _Check:
    return lambda untrusted: None if untrusted is None else inner(untrusted)


def _tuple(inner: _Check) -> _Check:
    def check(untrusted: object) -> tuple[object, ...]:
        if type(untrusted) is not list:
            raise _expected("a list")
        values = []
        for place, one in enumerate(untrusted):
            try:
                values.append(inner(one))
            except _Wrong as wrong:
                raise wrong.within(f"[{place}]") from None
        return tuple(values)

    return check


def _record(kind: type[Any]) -> _Check:
    names, hints = _names(kind), get_type_hints(kind)  # type: ignore[arg-type]
    checks = [(name, _checker(hints[name])) for name in names]
    make = _maker(kind, names)

    def check(untrusted: object) -> object:
        if type(untrusted) is not tuple:
            raise _expected("an object")
        if len(untrusted) != len(checks):
            raise _wrong_fields(untrusted, names)
        values = []
        for (name, inner), (given, value) in zip(checks, untrusted, strict=True):
            if given != name:
                return check(_in_order(untrusted, names))
            try:
                values.append(inner(value))
            except _Wrong as wrong:
                raise wrong.within(name) from None
        return make(values)

    return check


def _maker(kind: type[Any], names: tuple[str, ...]) -> Callable[[list[object]], object]:
    """What makes the record of its fields' values, which are in their order."""
    if issubclass(kind, tuple):
        make: Callable[[list[object]], object] = kind._make  # type: ignore[attr-defined]
        return make
    return lambda values: kind(**dict(zip(names, values, strict=True)))


def _in_order(untrusted: _Pairs, names: tuple[str, ...]) -> _Pairs:
    found = dict(untrusted)
    if found.keys() != set(names):
        raise _wrong_fields(untrusted, names)
    return tuple((name, found[name]) for name in names)


def _wrong_fields(untrusted: _Pairs, names: tuple[str, ...]) -> _Wrong:
    given = [name for name, _ in untrusted]
    if missing := sorted(set(names).difference(given)):
        return _Wrong("missing_field", f"{', '.join(missing)} missing")
    if extra := set(given).difference(names):
        return _Wrong("extra_field", f"{len(extra)} unknown fields")
    return _Wrong("extra_field", "a field is given twice")


_SCALARS: Final[dict[object, _Check]] = {str: _text, int: _integer, bool: _boolean, datetime: _time}


@cache
def _checker(kind: Any) -> _Check:  # noqa: ANN401 (a type expression is of no one type)
    if kind in _SCALARS:
        return _SCALARS[kind]
    if _names(kind):
        return _record(kind)
    if get_origin(kind) is types.UnionType:
        return _optional(_checker(next(one for one in get_args(kind) if one is not types.NoneType)))
    if get_origin(kind) is tuple:
        return _tuple(_checker(get_args(kind)[0]))
    return _enumeration(kind)
