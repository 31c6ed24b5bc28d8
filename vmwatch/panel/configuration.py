# SPDX-License-Identifier: Apache-2.0
"""What the panel writes into the services' files, and what it leaves of an administrator's. Pure.

Only the panel's own names change; other lines and comments stay as they are, where they are. The grammar is
vmwatch.config_file's, the values are checked by vmwatch.config itself.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from vmwatch import config
from vmwatch.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from vmwatch.config import Endpoint, ServiceSettings

MASTER_USER: Final = "vmwatch-master"
"""The panel's own account for the master. Where the file names another one, access is the administrator's."""

_HEAD: Final = "# Written by vmwatch-panel. Lines of other names, and comments, stay as you write them.\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """What all services of a cluster share."""

    endpoint: Endpoint
    """Where the master listens, and nodes connect to."""
    secret: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class MasterAccess:
    """The master's way to the panel. `verify`: the panel's certificate; None: as the file has it, or the default."""

    url: str
    password: str = field(repr=False)
    verify: str | None


def master(text: str, cluster: Cluster, access: MasterAccess, *, disabled: bool) -> str:
    """The text of vmwatch-master.conf, from the one that it has ("": none). Raises ConfigError."""
    values: dict[str, str | None] = {"listen": str(cluster.endpoint), "secret": cluster.secret}
    values["disabled"] = "yes" if disabled else None
    if assignments(text).get("panel_user", MASTER_USER) == MASTER_USER:
        values |= {"panel_url": access.url, "panel_user": MASTER_USER, "panel_password": access.password}
        values |= {"panel_verify": access.verify} if access.verify else {}
    return _written(text, values, config.MasterSettings)


def node(text: str, cluster: Cluster, node_id: int, *, disabled: bool) -> str:
    """The text of vmwatch-node.conf, from the one that it has ("": none). Raises ConfigError."""
    values: dict[str, str | None] = {"connect": str(cluster.endpoint), "secret": cluster.secret}
    values |= {"node_id": str(node_id), "disabled": "yes" if disabled else None}
    return _written(text, values, config.NodeSettings)


def secret_in(text: str) -> str | None:
    """The secret that a file has; None: none, or one that no service would take."""
    secret = assignments(text).get("secret", "")
    try:
        return str(config.parameters(config.MasterSettings)["secret"].parse(secret))
    except ValueError:
        return None


def assignments(text: str) -> dict[str, str]:
    """NAME=VALUE of a file's lines; what is none of these is passed over, for its service will tell of it."""
    return {name: value for name, value, _ in _lines(text) if name}


def _written(text: str, values: Mapping[str, str | None], settings: type[ServiceSettings]) -> str:
    _check(values, settings)
    lines = []
    seen = set()
    for name, _, line in _lines(text or _HEAD):
        if name not in values:
            lines.append(line)
        elif name not in seen and values[name] is not None:
            lines.append(f"{name}={values[name]}")
        seen.add(name)
    lines += [f"{name}={value}" for name, value in values.items() if value is not None and name not in seen]
    return "".join(f"{line}\n" for line in lines)


def _check(values: Mapping[str, str | None], settings: type[ServiceSettings]) -> None:
    parameters = config.parameters(settings)
    for name, value in values.items():
        if value is None:
            continue
        try:
            parameters[name].parse(value)
        except ValueError:
            shown = "" if parameters[name].secret else f" {value!r}:"
            raise ConfigError(f"{name}:{shown} expected {parameters[name].expected}") from None


def _lines(text: str) -> Iterator[tuple[str, str, str]]:
    r"""Each line as name, value and whole; one without an assignment has the name "". A line ends with \n or \r\n."""
    for line in text.removeprefix("\ufeff").removesuffix("\n").split("\n"):
        content = line.strip(" \t\r")
        name, equals, value = content.partition("=")
        is_assignment = equals and not content.startswith("#")
        yield (name.strip(" \t"), value.strip(" \t"), line) if is_assignment else ("", "", line)
