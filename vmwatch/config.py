# SPDX-License-Identifier: Apache-2.0
"""NAME=VALUE files become frozen, typed settings; what is wrong in one is one line for an administrator.

Each parameter is declared once, as a field of its settings class: name, type, default, and in the annotation
the `Parameter` that says how its text is read, what is expected and what it is for. docs/configuration.md is
checked against these declarations. Reading has no other effect: no environment, no log.
"""

from __future__ import annotations

import ipaddress
import re
import stat
from dataclasses import MISSING, dataclass, field, fields
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Self, TypeVar, get_type_hints
from urllib.parse import urlsplit

from vmwatch import config_file
from vmwatch.config_file import ConfigFile, Line, printable
from vmwatch.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

MIN_SECRET_LENGTH: Final = 16
"""Characters. A shorter secret can be guessed: it is used, with a warning."""

_ETC: Final = Path("/usr/local/mgr5/etc")
_VAR: Final = Path("/usr/local/mgr5/var")
NODE_CONFIG: Final = _ETC / "vmwatch-node.conf"
MASTER_CONFIG: Final = _ETC / "vmwatch-master.conf"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A TCP address as ZeroMQ writes it: `tcp://IP:PORT`, an IPv6 address in brackets."""

    host: str
    """An IP address in its canonical form, without brackets."""

    port: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `tcp://192.0.2.1:1515` or `tcp://[::1]:1515`; ValueError for anything else."""
        match = re.fullmatch(r"tcp://(?:\[([0-9A-Fa-f:.]+)\]|([0-9.]+)):([1-9][0-9]{0,4})", text)
        if match is None or int(match[3]) > 65535:
            raise ValueError(text)
        host = ipaddress.IPv6Address(match[1]) if match[1] else ipaddress.IPv4Address(match[2])
        return cls(str(host), int(match[3]))

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"tcp://{host}:{self.port}"


class LogLevel(StrEnum):
    """How much a service writes to its log; the names are those of Python's logging, in lower case."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """How one parameter is read, and how it is explained."""

    parse: Callable[[str], object]
    """Its text to its value; ValueError when it is not what is expected."""

    expected: str
    """The expectation in words, as it ends an error: "expected …"."""

    help: str
    """What it is for: one sentence."""

    secret: bool = False
    """Its value is never shown."""


def _matching(pattern: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if re.fullmatch(pattern, text) is None:
            raise ValueError(text)
        return text

    return parse


def _yes_no(text: str) -> bool:
    return _matching("yes|no")(text) == "yes"


def _positive_integer(text: str) -> int:
    value = int(_matching(r"[1-9][0-9]{0,9}")(text))
    if value >= 1 << 31:
        raise ValueError(text)
    return value


def _seconds(lowest: float, highest: float) -> Callable[[str], float]:
    def parse(text: str) -> float:
        value = float(_matching(r"[0-9]{1,9}(\.[0-9]{1,9})?")(text))
        if not lowest <= value <= highest:
            raise ValueError(text)
        return value

    return parse


def _absolute_path(text: str) -> Path:
    return Path(_matching(r"/+[^/].*")(text))


def _url(text: str) -> str:
    parts = urlsplit(_matching(r"https?://\S+")(text))
    if not parts.hostname or "@" in parts.netloc or parts.port == 0 or "?" in text or "#" in text:
        raise ValueError(text)
    return text


def _verify(text: str) -> bool | Path:
    if text in {"yes", "no"}:
        return _yes_no(text)
    path = _absolute_path(text)
    if not path.is_file():
        raise ValueError(text)
    return path


# The same parameter of both services: only its default differs.
_Secret = Annotated[
    str,
    Parameter(
        parse=_matching(r"[A-Z0-9]+"),
        expected=f"letters A-Z and digits 0-9, {MIN_SECRET_LENGTH} or more",
        help="Encrypts, admits and signs what nodes send: the same on the master and on every node.",
        secret=True,
    ),
]
_Disabled = Annotated[
    bool,
    Parameter(
        parse=_yes_no, expected="yes or no", help="With `yes` the service is blocked: it does not start."
    ),
]
_LogFile = Annotated[
    Path,
    Parameter(parse=_absolute_path, expected="an absolute path of a file", help="Where the log is written."),
]
_LogLevel = Annotated[
    LogLevel,
    Parameter(
        parse=LogLevel,
        expected="one of debug, info, warning, error",
        help="The least important lines that are still written.",
    ),
]
_PidFile = Annotated[
    Path,
    Parameter(
        parse=_absolute_path,
        expected="an absolute path of a file",
        help="Holds the process id; locked while the service runs, so that it runs once.",
    ),
]
_StateDir = Annotated[
    Path,
    Parameter(
        parse=_absolute_path,
        expected="an absolute path of a folder",
        help="Where the service keeps what must survive it.",
    ),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceSettings:
    """What every service is told: the part that vmwatch.service itself needs."""

    disabled: _Disabled = False
    log_file: _LogFile
    log_level: _LogLevel = LogLevel.INFO
    pid_file: _PidFile
    state_dir: _StateDir


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSettings(ServiceSettings):
    """vmwatch-node.conf."""

    connect: Annotated[
        Endpoint,
        Parameter(
            parse=Endpoint.parse,
            expected="tcp://IP:PORT or tcp://[IPV6]:PORT, port 1 to 65535",
            help="Where vmwatch-master listens.",
        ),
    ]
    secret: _Secret = field(repr=False)
    node_id: Annotated[
        int,
        Parameter(
            parse=_positive_integer,
            expected="a positive integer",
            help="The panel's id of this cluster node.",
        ),
    ]
    libvirt_uri: Annotated[
        str,
        Parameter(
            parse=_matching(r"[a-z][a-z0-9+]*://\S*"),
            expected="a libvirt URI such as qemu:///system",
            help="The hypervisor that is watched.",
        ),
    ] = "qemu:///system"
    statistics_interval: Annotated[
        float,
        Parameter(
            parse=_seconds(1, 86400),
            expected="seconds, 1 to 86400",
            help="How often the statistics of all VMs are collected, in seconds.",
        ),
    ] = 600.0
    heartbeat_interval: Annotated[
        float,
        Parameter(
            parse=_seconds(0.1, 300),
            expected="seconds, 0.1 to 300",
            help="How often at least the node says that it is alive; one that was silent for three times as long "
            "is told as silent.",
        ),
    ] = 10.0
    log_file: _LogFile = _VAR / "vmwatch-node.log"
    pid_file: _PidFile = _VAR / "run/vmwatch-node.pid"
    state_dir: _StateDir = _VAR / "vmwatch-node"


@dataclass(frozen=True, slots=True, kw_only=True)
class MasterSettings(ServiceSettings):
    """vmwatch-master.conf."""

    listen: Annotated[
        Endpoint,
        Parameter(
            parse=Endpoint.parse,
            expected="tcp://IP:PORT or tcp://[IPV6]:PORT, port 1 to 65535",
            help="Where messages of the nodes arrive.",
        ),
    ]
    secret: _Secret = field(repr=False)
    panel_url: Annotated[
        str,
        Parameter(
            parse=_url,
            expected="http://HOST[:PORT]/PATH or https://…, without user, query or fragment",
            help="The panel's API.",
        ),
    ] = "https://127.0.0.1:1500/vmmgr"
    panel_user: Annotated[
        str | None,
        Parameter(
            parse=_matching(r"[^:\s]+"),
            expected="a user's name without blanks and colons",
            help="The panel's user; without it access comes from `mgrctl` on the panel's host itself.",
        ),
    ] = None
    panel_password: Annotated[
        str | None,
        Parameter(
            parse=_matching(r".+"),
            expected="the password of panel_user",
            help="The password of `panel_user`, sent in the body of each call.",
            secret=True,
        ),
    ] = field(default=None, repr=False)
    panel_verify: Annotated[
        bool | Path,
        Parameter(
            parse=_verify,
            expected="yes, no or the absolute path of an existing file of CA certificates",
            help="Whether, or by which authorities, the panel's certificate is checked.",
        ),
    ] = True
    log_file: _LogFile = _VAR / "vmwatch-master.log"
    pid_file: _PidFile = _VAR / "run/vmwatch-master.pid"
    state_dir: _StateDir = _VAR / "vmwatch-master"


_S = TypeVar("_S", bound=ServiceSettings)


def parameters(settings: type[ServiceSettings]) -> dict[str, Parameter]:
    """Every parameter of a settings class by name, as declared."""
    hints = get_type_hints(settings, include_extras=True)
    return {item.name: hints[item.name].__metadata__[0] for item in fields(settings)}


def shown(value: object) -> str:
    """The text of a value as it stands in a file."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.9f}".rstrip("0").rstrip(".")
    return str(value)


def render(settings: ServiceSettings) -> str:
    """The text of a file that is read as these settings: every value that is not its default."""
    values = ((item, getattr(settings, item.name)) for item in fields(settings))
    return "".join(f"{item.name}={shown(value)}\n" for item, value in values if value != item.default)


def _wrong(line: Line, parameter: Parameter) -> ConfigError:
    return ConfigError(f"{line.text(secret=parameter.secret)}: expected {parameter.expected}")


def _value(line: Line, parameter: Parameter) -> object:
    if not line.value.isprintable():
        raise _wrong(line, parameter)
    try:
        return parameter.parse(line.value)
    except ValueError:
        raise _wrong(line, parameter) from None


def _convert(file: ConfigFile, settings: type[_S]) -> _S:
    known = parameters(settings)
    values = {name: _value(line, known[name]) for name, line in file.lines.items() if name in known}
    for item in fields(settings):
        if item.default is MISSING and item.name not in values:
            raise ConfigError(f"{file.path}: {item.name}: missing: expected {known[item.name].expected}")
    return settings(**values)  # type: ignore[arg-type]  # each value is what its own parser made


def _unknown_names(file: ConfigFile, settings: type[ServiceSettings]) -> list[str]:
    known = parameters(settings)
    names = ", ".join(known)
    return [
        f"{file.path}:{line.number}: {printable(name)}: unknown name: expected one of {names}"
        for name, line in file.lines.items()
        if name not in known
    ]


def _dangers(file: ConfigFile) -> list[str]:
    warnings = []
    secret = file.lines.get("secret")
    if secret and len(secret.value) < MIN_SECRET_LENGTH:
        problem = f"can be guessed: expected {MIN_SECRET_LENGTH} characters or more"
        warnings.append(f"{file.path}:{secret.number}: secret: {problem}")
    if file.mode & stat.S_IROTH:
        warnings.append(f"{file.path}: mode {file.mode:04o}: everybody can read the secret: expected 0640")
    return warnings


def _read(path: Path, settings: type[_S], *, strict: bool) -> tuple[_S, list[str]]:
    file = config_file.read(path)
    result = _convert(file, settings)
    unknown = _unknown_names(file, settings)
    if strict and unknown:
        raise ConfigError(unknown[0])
    return result, unknown + _dangers(file)


def read_node(path: Path, *, strict: bool = False) -> tuple[NodeSettings, list[str]]:
    """Read vmwatch-node.conf: the settings, and warnings of one line each.

    An unknown name is a warning (a newer panel may write it), and with `strict` an error. All errors are
    ConfigError, one line: `FILE:LINE: NAME=VALUE: expected …`.
    """
    return _read(path, NodeSettings, strict=strict)


def read_master(path: Path, *, strict: bool = False) -> tuple[MasterSettings, list[str]]:
    """Read vmwatch-master.conf as `read_node` does its file; panel user and password come together."""
    settings, warnings = _read(path, MasterSettings, strict=strict)
    for given, missing in (("panel_user", "panel_password"), ("panel_password", "panel_user")):
        if getattr(settings, given) is not None and getattr(settings, missing) is None:
            expected = parameters(MasterSettings)[missing].expected
            raise ConfigError(f"{path}: {missing}: missing beside {given}: expected {expected}")
    return settings, warnings


def is_disabled(path: Path) -> bool:
    """Whether the file blocks its service, however wrong its other values are; ConfigError as ever."""
    line = config_file.read(path).lines.get("disabled")
    return line is not None and bool(_value(line, parameters(ServiceSettings)["disabled"]))
