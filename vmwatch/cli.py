# SPDX-License-Identifier: Apache-2.0
"""`vmwatch`, the operator's command: what one wants by hand, on any host of the cluster."""

from __future__ import annotations

import argparse
import dataclasses
import json
import secrets
import string
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from vmwatch import __version__, config
from vmwatch.errors import ConfigError, StorageError, VmwatchError
from vmwatch.inspection import inspect
from vmwatch.strict import instant

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vmwatch.status import Service

SECRET_LENGTH: Final = 32
"""Characters, each one of 36: 165 bits."""

EXIT_HAND: Final = 1
"""Of `status`: something wants a hand."""

_FILES: Final = {
    "node": (config.read_node, config.NODE_CONFIG),
    "master": (config.read_master, config.MASTER_CONFIG),
}


def make_secret() -> str:
    """A new secret for the `secret` parameter of both services."""
    return "".join(secrets.choice(string.ascii_uppercase + string.digits) for _ in range(SECRET_LENGTH))


def _secret(_options: argparse.Namespace) -> int:
    sys.stdout.write(f"{make_secret()}\n")
    return 0


def _check(options: argparse.Namespace) -> int:
    read, default = _FILES[options.service]
    path = options.file or default
    _, warnings = read(path, strict=True)
    sys.stderr.writelines(f"vmwatch: {warning}\n" for warning in warnings)
    sys.stdout.write(f"{path}: correct\n")
    return 0


def _status(options: argparse.Namespace) -> int:
    """Show all that can be read, and say what cannot."""
    now = datetime.now(UTC)
    code = 0
    found = []
    for name, path in _asked(options):
        try:
            found.append(inspect(_FILES[name][0](path)[0]))
        except (ConfigError, StorageError) as error:
            sys.stderr.write(f"vmwatch: {error}\n")
            code = max(code, error.exit_code)
    _show(found, now, as_json=options.json)
    return max(code, EXIT_HAND if any(service.wants(now) for service in found) else 0)


def _asked(options: argparse.Namespace) -> list[tuple[str, Path]]:
    """The services that were named, or else those that have a configuration on this host."""
    if options.service:
        return [(options.service, options.file or _FILES[options.service][1])]
    here = [(name, path) for name, (_, path) in _FILES.items() if path.exists()]
    if not here:
        looked = " or ".join(str(path) for _, path in _FILES.values())
        raise ConfigError(
            f"no service is configured here: expected {looked}, or name the service and its file"
        )
    return here


def _show(services: list[Service], now: datetime, *, as_json: bool) -> None:
    if as_json:
        shown = [dataclasses.asdict(service) | {"wants": service.wants(now)} for service in services]
        sys.stdout.write(f"{json.dumps(shown, indent=2, default=instant)}\n")
    else:
        sys.stdout.writelines(f"{line}\n" for service in services for line in service.lines(now))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="vmwatch", description="What an operator of vmwatch does by hand.")
    parser.add_argument("--version", action="version", version=f"vmwatch {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    secret = commands.add_parser("secret", help="make a secret for both services and print it")
    secret.set_defaults(command=_secret)
    check = commands.add_parser("check", help="check a configuration file, unknown names too")
    check.add_argument("service", choices=sorted(_FILES), help="whose file it is")
    check.add_argument("file", nargs="?", type=Path, help="default: where the service itself looks")
    check.set_defaults(command=_check)
    status = commands.add_parser(
        "status",
        help="show whether services run, what waits in their files and what wants a hand",
        epilog="Exit codes: 0 all is well; 1 something wants a hand, or is not to be read; 78 configuration.",
    )
    status.add_argument(
        "service", nargs="?", choices=sorted(_FILES), help="default: what is configured on this host"
    )
    status.add_argument(
        "file", nargs="?", type=Path, help="its configuration; default: where it looks itself"
    )
    status.add_argument("--json", action="store_true", help="for programs, and with all of long lists")
    status.set_defaults(command=_status)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Do what the command line says, and return the exit code for the process to end with."""
    options = _parser().parse_args(argv)
    try:
        return int(options.command(options))
    except VmwatchError as error:
        sys.stderr.write(f"vmwatch: {error}\n")
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
