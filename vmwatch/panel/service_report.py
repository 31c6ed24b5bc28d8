# SPDX-License-Identifier: Apache-2.0
"""What a host says of its service, taken apart: what the panel shows of it, each of its type, and no more. Pure.

A node is trusted with its own VMs and no further: what it prints must not break a page that shows all nodes.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any, Final, TypeVar

WANTS_MOST: Final = 20
TEXT_MOST: Final = 300  # characters

T = TypeVar("T")


def read(untrusted_version: str, untrusted_status: str) -> dict[str, Any] | None:
    """Of `vmwatch --version` and `vmwatch status SERVICE --json`: {version, service}. None: not what these print.

    `service` has disabled, wants, and state: of a node run, last, kept, unsent, of the master calls and nodes, None
    where the service never ran; `heard` of a node in milliseconds since 1970. See vmwatch.status.
    """
    try:
        (untrusted,) = json.loads(untrusted_status)
        state = untrusted["state"]
        service = {
            "disabled": _typed(bool, untrusted["disabled"]),
            "wants": [_text(want) for want in _typed(list, untrusted["wants"])[:WANTS_MOST]],
            "state": None if state is None else _state(state),
        }
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return {"version": _text(untrusted_version.rpartition(" ")[2]), "service": service}


def _state(untrusted: dict[str, Any]) -> dict[str, Any]:
    if "nodes" in untrusted:
        return _fields(untrusted, ("calls",)) | {"nodes": [_taken(each) for each in untrusted["nodes"]]}
    return _fields(untrusted, ("last", "kept", "unsent")) | {"run": _text(untrusted["run"])}


def _taken(untrusted: dict[str, Any]) -> dict[str, Any]:
    heard = untrusted["heard"]
    moment = None if heard is None else datetime.fromisoformat(_typed(str, heard))
    return _fields(untrusted, ("node", "last")) | {
        "run": _text(untrusted["run"]),
        "heard": None if moment is None else round(moment.timestamp() * 1000),
    }


def _fields(untrusted: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: _typed(int, untrusted[name]) for name in names}


def _typed(kind: type[T], untrusted: object) -> T:
    if type(untrusted) is not kind:  # True is none of the numbers here
        raise TypeError(kind.__name__)
    return untrusted


def _text(untrusted: object) -> str:
    text = _typed(str, untrusted)[:TEXT_MOST]
    return text if text.isprintable() else ascii(text)[1:-1]
