# SPDX-License-Identifier: Apache-2.0
"""The panel's own certificate, made at the first start where it speaks https and none is given.

Made by the `openssl` program, which hosts have; a library for it would be larger than the panel. Callers
trust the certificate itself: `panel_verify` of the master names the file.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import re
import socket
import subprocess
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from ssl import PROTOCOL_TLS_SERVER, PEM_cert_to_DER_cert, SSLContext
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final

from vmwatch.errors import ConfigError
from vmwatch.panel.addresses import of_interfaces

if TYPE_CHECKING:
    from collections.abc import Iterable

DAYS: Final = 3650
SECONDS: Final = 30.0  # for each program

_NAME: Final = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9_])?")
_CONFIG: Final = """\
[req]
prompt = no
distinguished_name = subject
x509_extensions = extensions
[subject]
CN = {subject}
[extensions]
basicConstraints = critical, CA:TRUE, pathlen:0
keyUsage = critical, digitalSignature, keyCertSign
extendedKeyUsage = serverAuth
subjectKeyIdentifier = hash
subjectAltName = {names}
"""

log = logging.getLogger(__name__)


def ensure(certificate: Path, key: Path, *, host: str) -> None:
    """Make both files unless they are there. `host` is the address that the panel listens on.

    The key is 0600. ConfigError: they cannot be made, or what is there cannot be used.
    """
    if certificate.exists() and key.exists():
        _check(certificate, key)
        return
    hosts = (socket.gethostname(), socket.getfqdn(), "localhost")
    names = list(dict.fromkeys(filter(_NAME.fullmatch, hosts)))
    addresses = _addresses(host.partition("%")[0])
    try:
        _make(certificate, key, _config(names, addresses))
    except FileNotFoundError as error:
        raise ConfigError(f"{certificate}: cannot be made: {error.filename}: not found") from error
    except (OSError, subprocess.SubprocessError) as error:
        raise ConfigError(f"{certificate}: cannot be made: {_reason(error)}") from error
    digest = sha256(PEM_cert_to_DER_cert(certificate.read_text(encoding="ascii"))).hexdigest()
    log.info(
        "certificate made: file=%s for=%s sha256=%s", certificate, ",".join([*names, *addresses]), digest
    )


def _check(certificate: Path, key: Path) -> None:
    try:
        SSLContext(PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
    except OSError as error:
        text = f"{certificate}: not a certificate that {key.name} fits, and new ones are made without both: {error}"
        raise ConfigError(text) from error


def _config(names: list[str], addresses: Iterable[str]) -> str:
    alternatives = [*(f"DNS:{name}" for name in names), *(f"IP:{address}" for address in addresses)]
    return _CONFIG.format(subject=names[0][:64], names=", ".join(alternatives))


def _addresses(host: str) -> list[str]:
    """The address that is listened on, or, where that is any, all of this host's; and loopback's."""
    own = (host,) if not ipaddress.ip_address(host).is_unspecified else _of_interfaces()
    return list(dict.fromkeys((*own, "127.0.0.1", "::1")))


def _of_interfaces() -> tuple[str, ...]:
    with suppress(OSError, subprocess.SubprocessError, ValueError):  # it will do without them
        return of_interfaces(_run("ip", "-json", "address"))
    return ()


def _make(certificate: Path, key: Path, config: str) -> None:
    # In a folder of its own that nobody else enters; the certificate comes last, for it says that all is there.
    with TemporaryDirectory(prefix=".certificate-", dir=key.parent) as folder:
        new_key, new_certificate = Path(folder, "key"), Path(folder, "certificate")
        curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
        files = ("-config", "/dev/stdin", "-keyout", str(new_key), "-out", str(new_certificate))
        _run("openssl", "req", "-x509", "-sha256", "-days", str(DAYS), *curve, *files, stdin=config)
        for new, place, mode in ((new_key, key, 0o600), (new_certificate, certificate, 0o644)):
            new.chmod(mode)
            _sync(new)
            new.rename(place)
            _sync(place.parent)


def _run(*command: str, stdin: str = "") -> str:
    done = subprocess.run(  # noqa: S603 (our own words)
        command, input=stdin, capture_output=True, text=True, timeout=SECONDS, check=True
    )
    return done.stdout


def _reason(error: Exception) -> str:
    if isinstance(error, subprocess.CalledProcessError):
        return str(error.stderr).strip().rpartition("\n")[2] or str(error)
    return str(error)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
