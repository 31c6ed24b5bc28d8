# SPDX-License-Identifier: Apache-2.0
"""vmwatch-panel: serves the API at /vmmgr and the pages. Exit codes: 0 stopped as asked, 78 configuration, 1 else.

SIGTERM and SIGINT stop it: streams end at once, what is being answered is answered, for a second at most. A
second signal does not wait.
"""

from __future__ import annotations

import argparse
import asyncio
import ipaddress
import logging
import signal
import socket
import sys
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import uvicorn
from starlette.applications import Starlette

from vmwatch import __version__
from vmwatch.errors import ConfigError, VmwatchError
from vmwatch.log import ProductFormatter
from vmwatch.panel import certificate, pruning
from vmwatch.panel import settings as settings_file
from vmwatch.panel.access import Access
from vmwatch.panel.api import Api
from vmwatch.panel.background import Background
from vmwatch.panel.call import Panel
from vmwatch.panel.domains import Domains, write_ssh_program
from vmwatch.panel.intents import Intents
from vmwatch.panel.live import Hub
from vmwatch.panel.lookout import Lookout
from vmwatch.panel.pages import Pages
from vmwatch.panel.remote import Ssh
from vmwatch.panel.services import Services
from vmwatch.panel.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, MutableMapping
    from typing import Any

    from starlette.types import Receive, Scope, Send

    from vmwatch.panel.background import Room
    from vmwatch.panel.settings import Settings

DEFAULT_CONFIG = Path("/usr/local/mgr5/etc/vmmgr.conf")
STOP_SECONDS = 1  # for answers on their way
KEEP_ALIVE_SECONDS = 75  # longer than a caller pauses between two heartbeats' worth of calls
API_PATH = "/vmmgr"
SSH_PROGRAM = "libvirt-ssh"  # beside the database

_POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self';"
    b" form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS = (
    (b"content-security-policy", _POLICY),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),
)

log = logging.getLogger(__name__)


class Application:
    """The ASGI application: the API beside the pages, and the headers that every answer has."""

    def __init__(self, panel: Panel, hub: Hub, *, secure: bool) -> None:
        """`secure`: it is served over https."""
        self._api = Api(panel)
        self._pages = Starlette(routes=list(Pages(panel, hub, secure=secure).routes()))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""

        async def send_with_headers(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                headers = message["headers"]
                named = {name for name, _ in headers}
                extra = [] if b"cache-control" in named else [(b"cache-control", b"no-cache")]
                message = {**message, "headers": [*headers, *_HEADERS, *extra]}
            await send(message)

        # The API is what must be fast: it goes around the pages' router.
        answer = self._api if scope["path"] == API_PATH else self._pages
        await answer(scope, receive, send_with_headers)


class Server(uvicorn.Server):
    """uvicorn's server, with its signals left to us: it would end the process by the signal, not with 0."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Nothing."""
        yield


def main() -> None:
    """The command `vmwatch-panel`."""
    arguments = _parse_arguments()
    _log_to_standard_error()
    try:
        sys.exit(serve(settings_file.read(arguments.config), arguments.config))
    except VmwatchError as error:
        sys.exit(_fail(str(error), error.exit_code))
    except OSError as error:
        sys.exit(_fail(str(error), 1))


def serve(settings: Settings, config: Path) -> int:
    """Serve until a signal; the exit code. Raises VmwatchError or OSError: it cannot start."""
    for warning in settings.warnings:
        log.warning("%s", warning)
    store = Store(settings.database)
    try:
        access = Access(store)
        _make_administrator(access, settings, config)
        if settings.own_certificate and settings.certificate and settings.certificate_key:
            certificate.ensure(settings.certificate, settings.certificate_key, host=settings.host)
        with _listen(settings) as listener:
            panel = _make_panel(store, access, settings, listener)
            return asyncio.run(_run(panel, settings, listener))
    finally:
        store.close()


def _make_panel(store: Store, access: Access, settings: Settings, listener: socket.socket) -> Panel:
    def clock() -> int:
        return time.time_ns() // 1_000_000

    services = Services(
        store,
        access,
        settings.services,
        url=_address(listener, secure=settings.certificate is not None, local=True) + API_PATH,
        verify=_verify(settings),
        clock=clock,
    )
    return Panel(
        store=store,
        access=access,
        services=services,
        clock=clock,
        register_unknown_vm=settings.register_unknown_vm,
    )


def _verify(settings: Settings) -> str | None:
    """The master's `panel_verify`. A given certificate names the panel as people do, not as its own host does."""
    if settings.own_certificate:
        return str(settings.certificate)
    return "no" if settings.certificate else None


async def _run(panel: Panel, settings: Settings, listener: socket.socket) -> int:
    hub = Hub()
    domains = _make_domains(settings)
    intents = Intents(panel.store, domains, clock=panel.clock)
    lookout = Lookout(panel.store, domains, clock=panel.clock)

    def changed() -> None:
        hub.notify()
        intents.wake()

    panel.store.on_change = changed
    secure = settings.certificate is not None
    config = uvicorn.Config(
        Application(panel, hub, secure=secure),
        lifespan="off",
        ws="none",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=STOP_SECONDS,
        ssl_certfile=settings.certificate,
        ssl_keyfile=settings.certificate_key,
    )
    server = Server(config)

    def stop() -> None:
        server.force_exit = server.should_exit
        server.should_exit = True
        hub.close()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    print(f"vmwatch-panel: listening on {_address(listener, secure=secure)}{API_PATH}", flush=True)  # noqa: T201 (read by people and scripts)
    async with Background(_rooms(panel, intents, lookout), on_failure=stop) as background:
        await server.serve(sockets=[listener])
    log.info("stopped")
    return 1 if background.failed else 0


def _make_domains(settings: Settings) -> Domains:
    program = settings.database.with_name(SSH_PROGRAM).absolute()
    services = settings.services
    write_ssh_program(program, Ssh(identity=services.ssh_identity, known_hosts=services.ssh_known_hosts))
    return Domains(ssh_program=program)


def _rooms(panel: Panel, intents: Intents, lookout: Lookout) -> Mapping[str, Room]:
    """What runs beside the answers."""
    return {
        "intents": intents.run,
        "lookout": lookout.run,
        "pruning": partial(pruning.run, panel.store, panel.clock),
        "services": panel.services.run,
    }


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="vmwatch-panel",
        description="The reference panel: the API of VMmanager 5 at /vmmgr, and pages that show every VM's status.",
        epilog="Exit codes: 0 stopped as asked; 78 the configuration is wrong; 1 anything else.",
    )
    parser.add_argument(
        "--config", type=Path, default=DEFAULT_CONFIG, help="configuration file (%(default)s)"
    )
    parser.add_argument("--version", action="version", version=f"vmwatch-panel {__version__}")
    return parser.parse_args()


def _log_to_standard_error() -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(ProductFormatter())
    logging.basicConfig(handlers=[handler], level=logging.INFO)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)


def _fail(text: str, code: int) -> int:
    print(f"vmwatch-panel: {text}", file=sys.stderr)  # noqa: T201 (one line, for whoever started it)
    return code


def _make_administrator(access: Access, settings: Settings, config: Path) -> None:
    if access.has_account(settings.admin_user):
        return
    if settings.admin_password is None:
        raise ConfigError(f"{config}: AdminPassword: missing: expected a password, for the first start")
    access.set_password(settings.admin_user, settings.admin_password)


def _listen(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    # asyncio switches Nagle's delay off (40 ms an answer) only where the protocol is named.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((settings.host, settings.port))
        listener.listen(1024)
    except OSError as error:
        listener.close()
        raise OSError(f"cannot listen on {settings.host} port {settings.port}: {error.strerror}") from error
    return listener


def _address(listener: socket.socket, *, secure: bool, local: bool = False) -> str:
    """Where it is served. `local`: as this host itself reaches it, though all its addresses are listened to."""
    host, port = listener.getsockname()[:2]
    if local and ipaddress.ip_address(host).is_unspecified:
        host = "::1" if ":" in host else "127.0.0.1"
    return f"{'https' if secure else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"
