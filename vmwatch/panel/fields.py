# SPDX-License-Identifier: Apache-2.0
"""A call's form fields -> typed values, strictly. What does not fit is an ApiError naming its field. Pure.

Source of the fields: docs/panel.md. Fields that a function does not know are ignored: a newer caller may send
them.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from vmwatch.events import EventType, Status
from vmwatch.panel.convention import ApiError, ErrorType, Paging

if TYPE_CHECKING:
    from collections.abc import Mapping

PAGE_SIZE = 500
PAGE_SIZE_LIMIT = 1000

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_WORD = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_UNKNOWN_TYPE = re.compile(r"unknown-[0-9]{1,9}")
_EVENT_ID = re.compile(r"([0-9]{1,10})\.([\x21-\x7e]{1,64})\.([0-9]{1,18})")
_NUMBER = re.compile(r"[0-9]{1,10}")  # node_id is one of them: up to 2147483647
_SSH_ADDRESS = re.compile(
    r"([A-Za-z0-9_][A-Za-z0-9_.-]{0,31}@)?([A-Za-z0-9]([A-Za-z0-9.-]{0,252})|[0-9A-Fa-f:.]{2,45})"
)
_URI = re.compile(r"[a-z][a-z0-9+]{0,30}://[\x21-\x7e]{0,500}")
_SOURCES = ("event", "snapshot")
_PROBLEM_STATES = ("raised", "solved")


@dataclass(frozen=True, slots=True, kw_only=True)
class EventId:
    """`node.run.seq`: an event's place in its node's stream. A run is one life of the node's service."""

    node: int
    run: str
    seq: int

    def __str__(self) -> str:
        """As it travels."""
        return f"{self.node}.{self.run}.{self.seq}"


@dataclass(frozen=True, slots=True, kw_only=True)
class VmEvent:
    """What `vm.event` tells. Times in ms since 1970; `status` None: to be found from the VM's copies."""

    hostnode: int
    name: str
    type: str
    subtype: str
    uuid: str | None
    status: Status | None
    cause: str | None
    source: str
    earliest: int | None
    time: int | None
    event_id: EventId | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProblemReport:
    """What `vmwatch.problem` tells. `hostnode` None and `name` "": not about one."""

    problem: str
    hostnode: int | None
    name: str
    raised: bool
    text: str


class Fields:
    """Strict accessors over a call's fields. An empty field counts as none."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self._values = values

    def wrong(self, name: str, expected: str) -> ApiError:
        """The error that says what `name` should have held."""
        value = self._values.get(name, "")
        problem = f"expected {expected}" if value else f"missing: expected {expected}"
        return ApiError(ErrorType.VALUE, name, f"Field '{name}': {problem}", value=value[:255])

    def text(self, name: str, *, limit: int = 255) -> str:
        """Printable text, "" when absent."""
        value = self._values.get(name, "")
        if len(value) > limit or not value.isprintable():
            raise self.wrong(name, f"at most {limit} printable characters")
        return value

    def secret(self, name: str) -> str:
        """Any text, "" when absent. An error about it must not hold it."""
        return self._values.get(name, "")

    def flag(self, name: str) -> bool:
        """Whether it is `ok`, `on` or `yes`."""
        return self._values.get(name, "") in ("ok", "on", "yes")

    def number(self, name: str) -> int | None:
        """A positive integer, None when absent."""
        value = self._values.get(name, "")
        if not value:
            return None
        if not _NUMBER.fullmatch(value) or int(value) == 0:
            raise self.wrong(name, "a positive integer")
        return int(value)

    def required_number(self, name: str) -> int:
        """As `number`, but not absent."""
        number = self.number(name)
        if number is None:
            raise self.wrong(name, "a positive integer")
        return number

    def numbers(self, name: str) -> list[int]:
        """A list of positive integers, as COREmanager has it: `1, 2`. It is not empty."""
        parts = [part.strip() for part in self._values.get(name, "").split(",")]
        if not all(_NUMBER.fullmatch(part) and int(part) for part in parts):
            raise self.wrong(name, "positive integers, divided by commas")
        return [int(part) for part in parts]

    def ssh_address(self, name: str) -> str | None:
        """Where SSH reaches a host, `[USER@]HOST`; "" when empty, None when absent."""
        value = self._values.get(name)
        if value and not _SSH_ADDRESS.fullmatch(value):
            raise self.wrong(name, "[USER@]HOST, the host a name or an IP address")
        return value

    def uri(self, name: str) -> str | None:
        """A libvirt URI; "" when empty, None when absent."""
        value = self._values.get(name)
        if value and not _URI.fullmatch(value):
            raise self.wrong(name, "a libvirt URI such as qemu:///system")
        return value

    def name(self, name: str) -> str:
        """A VM's or node's name: what libvirt takes (no slash), and what can stand in an address."""
        value = self._values.get(name, "")
        if not _is_name(value):
            raise self.wrong(name, "1 to 255 printable characters, no slash, no blank at the ends")
        return value

    def uuid(self, name: str) -> str | None:
        """A UUID in lower case, None when absent."""
        value = self._values.get(name, "").lower()
        if value and not _UUID.fullmatch(value):
            raise self.wrong(name, "a UUID")
        return value or None

    def word(self, name: str) -> str:
        """A word of the protocol, such as an event's subtype."""
        value = self._values.get(name, "")
        if not _WORD.fullmatch(value):
            raise self.wrong(name, "a word of a-z, 0-9, - and _")
        return value

    def one_of(self, name: str, choices: tuple[str, ...], default: str) -> str:
        """One of the choices, `default` when absent ("": it must not be)."""
        value = self._values.get(name, "") or default
        if value not in choices:
            raise self.wrong(name, "one of " + ", ".join(filter(None, choices)))
        return value

    def time(self, name: str) -> int | None:
        """ISO 8601 with its offset from UTC, in milliseconds since 1970; None when absent."""
        value = self._values.get(name, "")
        if not value:
            return None
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            raise self.wrong(name, "a time as ISO 8601 has it") from None
        if moment.tzinfo is None or not 1970 <= moment.year <= 9000:
            raise self.wrong(name, "a time with its offset from UTC, such as Z")
        return round(moment.timestamp() * 1000)

    def paging(self) -> Paging:
        """`p_num` and `p_cnt`: COREmanager's names of the page and its size."""
        size = self.number("p_cnt") or PAGE_SIZE
        return Paging(number=self.number("p_num") or 1, size=min(size, PAGE_SIZE_LIMIT))


def vm_event(fields: Fields) -> VmEvent:
    """The fields of `vm.event`. Only hostnode, name, type and subtype are required."""
    hostnode = fields.required_number("hostnode")
    return VmEvent(
        hostnode=hostnode,
        name=fields.name("name"),
        type=_event_type(fields),
        subtype=fields.word("subtype"),
        uuid=fields.uuid("uuid"),
        status=_status(fields),
        cause=fields.text("cause") or None,  # the hypervisor's own words: shown, and nothing else
        source=fields.one_of("source", _SOURCES, "event"),
        earliest=fields.time("since"),
        time=fields.time("time"),
        event_id=_event_id(fields, hostnode),
    )


def problem_report(fields: Fields) -> ProblemReport:
    """The fields of `vmwatch.problem`."""
    return ProblemReport(
        problem=fields.word("problem"),
        hostnode=fields.number("hostnode"),
        name=fields.name("name") if fields.text("name") else "",
        raised=fields.one_of("state", _PROBLEM_STATES, "") == "raised",
        text=fields.text("text", limit=2000),
    )


def domains(fields: Fields) -> list[dict[str, Any]]:
    """The field `domains` of `vmwatch.statistics`: a JSON list of objects, each with at least a VM's `name`."""
    try:
        found = json.loads(fields.text("domains", limit=8 << 20))
    except (ValueError, RecursionError):
        raise fields.wrong("domains", "JSON") from None
    if not isinstance(found, list) or not all(
        isinstance(domain, dict) and _is_name(domain.get("name")) for domain in found
    ):
        raise fields.wrong("domains", "a JSON list of objects, each with a VM's name")
    return found


def iso(milliseconds: int | None) -> str:
    """A time as it travels: ISO 8601, UTC, milliseconds; "" for none."""
    if milliseconds is None:
        return ""
    seconds, rest = divmod(milliseconds, 1000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:03}Z"


def _is_name(value: object) -> bool:
    if not isinstance(value, str) or not 1 <= len(value) <= 255:
        return False
    return value.isprintable() and value == value.strip() and "/" not in value and value not in (".", "..")


def _event_type(fields: Fields) -> str:
    value = fields.text("type")
    if not _UNKNOWN_TYPE.fullmatch(value) and value not in list(EventType):
        raise fields.wrong("type", "one of " + ", ".join(EventType) + ", or unknown-N")
    return value


def _status(fields: Fields) -> Status | None:
    value = fields.text("status")
    if value and value not in list(Status):
        raise fields.wrong("status", "one of " + ", ".join(Status))
    return Status(value) if value else None


def _event_id(fields: Fields, hostnode: int) -> EventId | None:
    value = fields.text("event_id")
    if not value:
        return None
    match = _EVENT_ID.fullmatch(value)
    if match is None or int(match[1]) != hostnode:
        raise fields.wrong("event_id", "node.run.seq, of the same node")
    return EventId(node=hostnode, run=match[2], seq=int(match[3]))
