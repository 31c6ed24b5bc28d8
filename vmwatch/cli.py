# SPDX-License-Identifier: Apache-2.0
"""`vmwatch`, the operator's command: what one wants by hand, on any host of the cluster."""

from __future__ import annotations

import argparse
import secrets
import string
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from vmwatch import __version__, config
from vmwatch.errors import VmwatchError

if TYPE_CHECKING:
    from collections.abc import Sequence

SECRET_LENGTH: Final = 32
"""Characters, each one of 36: 165 bits."""

_FILES: Final = {
    "node": (config.read_node, config.NODE_CONFIG),
    "master": (config.read_master, config.MASTER_CONFIG),
}


def make_secret() -> str:
    """A new secret for the `secret` parameter of both services."""
    return "".join(secrets.choice(string.ascii_uppercase + string.digits) for _ in range(SECRET_LENGTH))


def _secret(_options: argparse.Namespace) -> None:
    sys.stdout.write(f"{make_secret()}\n")


def _check(options: argparse.Namespace) -> None:
    read, default = _FILES[options.service]
    path = options.file or default
    _, warnings = read(path, strict=True)
    sys.stderr.writelines(f"vmwatch: {warning}\n" for warning in warnings)
    sys.stdout.write(f"{path}: correct\n")


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
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Do what the command line says, and return the exit code for the process to end with."""
    options = _parser().parse_args(argv)
    try:
        options.command(options)
    except VmwatchError as error:
        sys.stderr.write(f"vmwatch: {error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
