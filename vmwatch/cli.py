# SPDX-License-Identifier: Apache-2.0
"""`vmwatch`, the operator's command: what one wants by hand, on any host of the cluster."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from vmwatch import __version__, config, secret
from vmwatch.errors import ConfigError, StorageError, VmwatchError
from vmwatch.inspection import inspect, running
from vmwatch.orders import Order, What, give
from vmwatch.sessions import Sessions
from vmwatch.status import Ledger, Service, one_line
from vmwatch.strict import instant
from vmwatch.vmmanager import Access, Panel, Timeouts, read_dialect

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vmwatch.config import MasterSettings

EXIT_HAND: Final = 1
"""Of `status`: something wants a hand."""

CALL_SECONDS: Final = 600.0
"""How long the panel may take for a call: it asks every node, and each may take a minute."""

ORDER_SECONDS: Final = 10.0
"""How long a running master may take to carry out an order; it looks twice a second."""

_FILES: Final = {
    "node": (config.read_node, config.NODE_CONFIG),
    "master": (config.read_master, config.MASTER_CONFIG),
}


def _secret(_options: argparse.Namespace) -> int:
    sys.stdout.write(f"{secret.make()}\n")
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
            found.append(_inspect(name, path))
        except (ConfigError, StorageError) as error:
            sys.stderr.write(f"vmwatch: {error}\n")
            code = max(code, error.exit_code)
    _show(found, now, as_json=options.json)
    return max(code, EXIT_HAND if any(service.wants(now) for service in found) else 0)


def _inspect(name: str, path: Path) -> Service:
    """A file with `disabled=yes` may be unfinished: nothing reads it but who finishes it."""
    try:
        return inspect(_FILES[name][0](path)[0])
    except ConfigError as error:
        if not config.is_disabled(path):
            raise
        return Service(name=f"vmwatch-{name}", disabled=True, pid=None, state=None, unfinished=str(error))


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


def _parked(options: argparse.Namespace) -> int:
    settings, ledger = _master(options)
    if options.json:
        shown = [dataclasses.asdict(call) for call in ledger.aside]
        sys.stdout.write(f"{json.dumps(shown, indent=2)}\n")
    else:
        sys.stdout.writelines(
            f"{one_line(f'{call.func} {call.about}: {call.reason}')}\n" for call in ledger.aside
        )
    if options.forget and ledger.aside:
        _order(settings, Order(what=What.ASIDE, number=ledger.aside[-1].id))
    return 0


def _forget_node(options: argparse.Namespace) -> int:
    settings, ledger = _master(options)
    if options.node not in [taken.node for taken in ledger.nodes]:
        raise StorageError(f"node {options.node}: the master has never heard of it")
    if f"node_silent, node {options.node}" not in ledger.problems:
        raise StorageError(f"node {options.node}: it is not silent: stop vmwatch-node there first")
    if _order(settings, Order(what=What.NODE, number=options.node)):
        _, ledger = _master(options)
        if options.node in [taken.node for taken in ledger.nodes]:
            raise StorageError(f"node {options.node}: it was heard of meanwhile, and is not forgotten")
    return 0


def _master(options: argparse.Namespace) -> tuple[MasterSettings, Ledger]:
    """The settings of this host's master, and what its ledger holds."""
    settings, _ = config.read_master(options.file)
    state = inspect(settings).state
    if not isinstance(state, Ledger):
        raise StorageError(f"{settings.state_dir}: vmwatch-master never ran here")
    return settings, state


def _order(settings: MasterSettings, order: Order) -> bool:
    """Have the master carry out an order. Whether it has; one that does not run will. Raises StorageError."""
    file = give(settings.state_dir, order)
    deadline = time.monotonic() + ORDER_SECONDS
    while file.exists():
        if not running(settings.pid_file):
            sys.stdout.write("vmwatch-master does not run: it will do so when it starts\n")
            return False
        if time.monotonic() > deadline:
            raise StorageError(f"vmwatch-master has not done so yet: its log says why ({settings.log_file})")
        time.sleep(0.05)
    return True


def _call(options: argparse.Namespace) -> int:
    """Call a function of the panel with the access that the master has, once: cron comes again."""
    settings, _ = config.read_master(options.config)
    access = Access(
        url=settings.panel_url,
        user=settings.panel_user,
        password=settings.panel_password,
        verify=settings.panel_verify,
    )
    sessions = Sessions() if access.user is None else None
    timeouts = Timeouts(answer=CALL_SECONDS)
    with closing(Panel(access, sessions=sessions, dialect=read_dialect(), timeouts=timeouts)) as panel:
        panel.call(options.function, dict(options.fields))
    return 0


def _field(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise argparse.ArgumentTypeError(f"{text}: expected NAME=VALUE")
    return name, value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="vmwatch", description="What an operator of vmwatch does by hand.")
    parser.add_argument("--version", action="version", version=f"vmwatch {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    making = commands.add_parser("secret", help="make a secret for both services and print it")
    making.set_defaults(command=_secret)
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
    _add_orders(commands)
    _add_call(commands)
    return parser


def _add_orders(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parked = commands.add_parser(
        "parked",
        help="show the calls that the panel did not take and that were put aside; forget them",
        epilog="Exit codes: 0 shown, and forgotten if asked; 1 not to be read, or not forgotten; 78 configuration.",
    )
    parked.add_argument(
        "--forget", action="store_true", help="forget those shown, and the problems about them"
    )
    parked.add_argument("--json", action="store_true", help="for programs")
    parked.set_defaults(command=_parked)
    forget = commands.add_parser(
        "forget-node",
        help="forget a node that is gone for good: what it ran is told as stopped, its problems as solved",
        epilog="Exit codes: 0 forgotten; 1 it is not silent, or not known, or not forgotten; 78 configuration.",
    )
    forget.add_argument("node", type=int, metavar="ID", help="the node's id at the panel")
    forget.set_defaults(command=_forget_node)
    for command in (parked, forget):
        command.add_argument(
            "file", nargs="?", type=Path, default=config.MASTER_CONFIG, help="the master's configuration"
        )


def _add_call(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    call = commands.add_parser(
        "call",
        help="call a function of the panel, as cron does: with the access of vmwatch-master.conf",
        epilog="Exit codes: 0 the panel has done it; 1 it has not, with its reason; 78 configuration.",
    )
    call.add_argument("--config", type=Path, default=config.MASTER_CONFIG, help="the master's configuration")
    call.add_argument("function", metavar="FUNCTION", help="such as periodic")
    call.add_argument("fields", metavar="NAME=VALUE", nargs="*", type=_field, help="such as period=5")
    call.set_defaults(command=_call)


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
