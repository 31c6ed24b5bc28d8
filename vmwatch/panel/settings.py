# SPDX-License-Identifier: Apache-2.0
"""The panel's configuration file -> frozen, typed settings. A certificate that it names is tried as well.

The grammar is the product's for `vmmgr.conf`: one `Name value` a line, and `Option Name` for what is on or
off; blank lines and lines that begin with `#` are skipped. The names are the reference panel's own.
"""

from __future__ import annotations

import ipaddress
import re
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vmwatch.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

OPTIONS = ("RegisterUnknownVm", "ManageServices", "Https")
_NAMES = (
    *("Listen", "ListenPort", "Database", "AdminUser", "AdminPassword", "Certificate", "CertificateKey"),
    *("VmwatchListenIp", "VmwatchListenPort", "ServiceGroup", "SshIdentity", "SshKnownHosts"),
)
_SECRETS = ("AdminPassword",)
OWN_CERTIFICATE, OWN_KEY = "vmwatch-panel.crt", "vmwatch-panel.key"  # beside the database
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
_GROUP = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,31}")
_USER = re.compile(r"[A-Za-z0-9_.@-]{1,64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceSettings:
    """How the panel configures and watches the services. `managed` False: it does not.

    `listen_ip` None: found by `addresses.choose`.
    """

    managed: bool
    listen_ip: str | None
    listen_port: int
    group: str
    ssh_identity: Path
    ssh_known_hosts: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the panel is told. `port` 0: the kernel's choice; `admin_password` counts at the first start only.

    `certificate` None: http. `own_certificate`: it is the panel's to make, where there is none yet.
    """

    host: str
    port: int
    database: Path
    admin_user: str
    admin_password: str | None
    register_unknown_vm: bool
    certificate: Path | None
    certificate_key: Path | None
    own_certificate: bool
    services: ServiceSettings
    warnings: tuple[str, ...]

    def __repr__(self) -> str:
        """Without the password, so that no log can hold it."""
        return f"Settings(host={self.host!r}, port={self.port}, database={str(self.database)!r})"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Line:
    number: int
    value: str


def read(path: Path) -> Settings:
    """The settings in `path`. Raises ConfigError: one line naming file, line, name, value and expectation."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    return parse(text, path)


def parse(text: str, path: Path) -> Settings:
    """As `read`, from the text of the file. Relative paths in it start at the file's folder."""
    lines, options, warnings = _split(text, path)
    values = _Values(path, lines)
    host, database = values.address("Listen", "127.0.0.1"), values.required_file("Database")
    certificate, key = _given_certificate(values)
    # Passwords and sessions travel with every call: nothing but loopback may carry them in the clear.
    own = certificate is None and ("Https" in options or not ipaddress.ip_address(host).is_loopback)
    return Settings(
        host=host,
        port=values.port("ListenPort", 1500),
        database=database,
        admin_user=values.user("AdminUser", "admin"),
        admin_password=values.text("AdminPassword"),
        register_unknown_vm="RegisterUnknownVm" in options,
        certificate=database.with_name(OWN_CERTIFICATE) if own else certificate,
        certificate_key=database.with_name(OWN_KEY) if own else key,
        own_certificate=own,
        services=_services(values, options),
        warnings=warnings,
    )


def _services(values: _Values, options: set[str]) -> ServiceSettings:
    keys = values.required_file("Database").parent / "ssh"
    return ServiceSettings(
        managed="ManageServices" in options,
        listen_ip=values.reachable_address("VmwatchListenIp"),
        listen_port=values.port("VmwatchListenPort", 1515, lowest=1),
        group=values.group("ServiceGroup", "root"),
        ssh_identity=(values.file("SshIdentity") or keys / "id_ed25519").absolute(),
        ssh_known_hosts=(values.file("SshKnownHosts") or keys / "known_hosts").absolute(),
    )


def _split(text: str, path: Path) -> tuple[dict[str, _Line], set[str], tuple[str, ...]]:
    lines: dict[str, _Line] = {}
    options: set[str] = set()
    warnings: list[str] = []
    for number, raw in enumerate(text.split("\n"), start=1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        name, value = _pair(path, number, line)
        if name == "Option":
            options.add(value)
            known = value in OPTIONS
        elif name in lines:
            raise _wrong(path, number, name, value, f"one value, already given in line {lines[name].number}")
        else:
            lines[name] = _Line(number=number, value=value)
            known = name in _NAMES
        if not known:
            warnings.append(f"{path}:{number}: {line if name == 'Option' else name}: unknown, ignored")
    return lines, options, tuple(warnings)


def _pair(path: Path, number: int, line: str) -> tuple[str, str]:
    name, *rest = line.split(maxsplit=1)
    # The line is not shown: a secret may stand where the name should end.
    if not _NAME.fullmatch(name) or not rest:
        raise ConfigError(f"{path}:{number}: not a setting: expected `Name value` or `Option Name`")
    if not rest[0].isprintable():
        raise ConfigError(
            f"{path}:{number}: {name}: a control character in the value: expected printable text"
        )
    return name, rest[0]


def _wrong(path: Path, number: int, name: str, value: str, expected: str) -> ConfigError:
    shown = "(hidden)" if name in _SECRETS else repr(value)
    return ConfigError(f"{path}:{number}: {name}: {shown}: expected {expected}")


class _Values:
    """Strict accessors over the file's lines."""

    def __init__(self, path: Path, lines: Mapping[str, _Line]) -> None:
        self._path = path
        self._lines = lines

    def wrong(self, name: str, expected: str) -> ConfigError:
        line = self._lines[name]
        return _wrong(self._path, line.number, name, line.value, expected)

    def text(self, name: str) -> str | None:
        line = self._lines.get(name)
        return line.value if line else None

    def file(self, name: str) -> Path | None:
        value = self.text(name)
        return self._path.parent / value if value else None

    def required_file(self, name: str) -> Path:
        file = self.file(name)
        if file is None:
            raise ConfigError(f"{self._path}: {name}: missing: expected a path")
        return file

    def user(self, name: str, default: str) -> str:
        value = self.text(name) or default
        if not _USER.fullmatch(value):
            raise self.wrong(name, "1 to 64 letters, digits, or any of _.@-")
        return value

    def address(self, name: str, default: str) -> str:
        value = self.text(name) or default
        try:
            return str(ipaddress.ip_address(value))
        except ValueError:
            raise self.wrong(name, "an IPv4 or IPv6 address") from None

    def reachable_address(self, name: str) -> str | None:
        value = self.text(name)
        if value is None:
            return None
        try:
            address = ipaddress.ip_address(value)
        except ValueError:
            raise self.wrong(name, "an IPv4 or IPv6 address") from None
        if address.is_unspecified or "%" in value:
            raise self.wrong(name, "an address that the nodes can connect to")
        return str(address)

    def group(self, name: str, default: str) -> str:
        value = self.text(name) or default
        if not _GROUP.fullmatch(value):
            raise self.wrong(name, "the name of a group")
        return value

    def port(self, name: str, default: int, *, lowest: int = 0) -> int:
        value = self.text(name)
        if value is None:
            return default
        if not (value.isascii() and value.isdigit() and lowest <= int(value) <= 65535):
            choice = "" if lowest else " (0: the kernel's choice)"
            raise self.wrong(name, f"a port from {lowest} to 65535{choice}")
        return int(value)


def _given_certificate(values: _Values) -> tuple[Path | None, Path | None]:
    for name, other in (("Certificate", "CertificateKey"), ("CertificateKey", "Certificate")):
        if values.text(name) and not values.text(other):
            raise values.wrong(name, f"{other} beside it")
    certificate, key = values.file("Certificate"), values.file("CertificateKey")
    if certificate is not None:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
        except OSError as error:
            raise values.wrong("Certificate", f"a certificate that CertificateKey fits: {error}") from error
    return certificate, key
