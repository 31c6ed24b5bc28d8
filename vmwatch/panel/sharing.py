# SPDX-License-Identifier: Apache-2.0
"""What all services share: the master's address and the secret; and the master's access to the panel.

Secret and password are made once, and kept in the panel's database.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from vmwatch import secret
from vmwatch.config import Endpoint
from vmwatch.errors import ConfigError
from vmwatch.panel import addresses, configuration, kept, register_services
from vmwatch.panel.configuration import MASTER_USER, Cluster

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Sequence

    from vmwatch.panel.access import Access
    from vmwatch.panel.settings import ServiceSettings
    from vmwatch.panel.store import Store

SECRET: Final = "services_secret"  # noqa: S105 (a setting's name)
ENDPOINT: Final = "services_endpoint"
PASSWORD: Final = "master_password"  # noqa: S105 (a setting's name)


def share(
    store: Store, settings: ServiceSettings, *, nodes: Iterable[str], own: Sequence[str], master_file: str
) -> Cluster:
    """What the services share, kept where it is new; then all of them are asked for. Raises ConfigError.

    `nodes` are the nodes' addresses, `own` this host's. A secret that the master's file has is taken over.
    """
    address = addresses.choose(wanted=settings.listen_ip, nodes=nodes, own=own)
    if address is None:
        raise ConfigError("no interface here has an address that nodes could connect to: set VmwatchListenIp")
    endpoint = Endpoint(address, settings.listen_port)
    with store.transaction() as connection:
        if kept.read(connection, SECRET) is None:
            kept.write(connection, SECRET, configuration.secret_in(master_file) or secret.make())
        if kept.read(connection, ENDPOINT) != str(endpoint):
            kept.write(connection, ENDPOINT, str(endpoint))
            register_services.ask_all(connection)
        return Cluster(endpoint=endpoint, secret=kept.read(connection, SECRET) or "")


def renew_secret(connection: sqlite3.Connection) -> None:
    """Make another secret for all services."""
    kept.write(connection, SECRET, secret.make())
    register_services.ask_all(connection)


def master_password(store: Store, access: Access) -> str:
    """The password of the master's own account, which is made where it is not there."""
    password = kept.read(store.connection, PASSWORD)
    if password is None or not access.has_account(MASTER_USER):
        password = secret.make()
        access.set_password(MASTER_USER, password)  # before it is kept: one that is kept is right
        with store.transaction() as connection:
            kept.write(connection, PASSWORD, password)
    return password
