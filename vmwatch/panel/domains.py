# SPDX-License-Identifier: Apache-2.0
"""A node's libvirt, as the panel uses it: what an intent says is done there. The panel's only importer of libvirt.

Each call opens a connection, and is made in a thread that may hang without anybody waiting for it. All of them may
be repeated, after a kill at any point: see `_carry_out`.
"""

from __future__ import annotations

import shlex
from contextlib import closing, contextmanager
from functools import cache, partial
from typing import TYPE_CHECKING, Final, TypeVar
from urllib.parse import quote

import libvirt

from vmwatch.panel.definition import DefinitionError, Medium, installed, installing, mark_of
from vmwatch.panel.installation import Action
from vmwatch.patience import Patience

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from vmwatch.panel.remote import Ssh
    from vmwatch.panel.shown_installation import Intent, Unheard

T = TypeVar("T")

CALL_SECONDS: Final = 60.0  # libvirt itself gives a QEMU that does not end 15 s and more
_AS_DEFINED: Final = libvirt.VIR_DOMAIN_XML_INACTIVE | libvirt.VIR_DOMAIN_XML_SECURE  # with its passwords


class NotReached(Exception):
    """Libvirt of the node cannot be reached, or does not answer: time may mend it."""


class NotDone(Exception):
    """Libvirt, or the domain's definition, does not allow it: a person must."""


class Doubt(Exception):
    """The domain is off, and may have been started for this very intent, by an earlier try: its events will tell."""


class Domains:
    """The domains of all nodes."""

    def __init__(self, *, ssh_program: Path) -> None:
        """`ssh_program` is run as `ssh` for nodes that are reached so: see `write_ssh_program`."""
        self._ssh_program = ssh_program
        self._patience: dict[tuple[str, str], Patience] = {}

    async def carry_out(self, intent: Intent, *, is_repeated: bool) -> None:
        """Do what the intent says. Raises NotReached, NotDone; Doubt only if `is_repeated`: it may be done."""
        if intent.hostnode is None:
            raise NotDone("the VM is on no node that is known")
        uri = self._uri(intent)
        await self._call(uri, intent.name, partial(_carry_out, uri, intent, is_repeated=is_repeated))

    async def is_off(self, vm: Unheard) -> bool:
        """Whether a VM is off. Raises NotReached, NotDone."""
        uri = self._uri(vm)
        return await self._call(uri, vm.name, partial(_is_off, uri, vm.name))

    def _uri(self, place: Intent | Unheard) -> str:
        return place.uri or node_uri(place.address, ssh_program=self._ssh_program)

    async def _call(self, uri: str, name: str, call: Callable[[], T]) -> T:
        # One each: a call that hangs holds up no other VM's. Of a VM there is one at most: an old one that wakes up
        # would undo what a later one has done.
        patience = self._patience.setdefault((uri, name), Patience(name="libvirt-domains", limit=1))
        try:
            return await patience.call(call, seconds=CALL_SECONDS)
        except TimeoutError as error:
            raise NotReached(f"libvirt at {uri} does not answer within {CALL_SECONDS:g} s") from error


def node_uri(address: str, *, ssh_program: Path) -> str:
    """The libvirt of a node that SSH reaches at this address; "": of the panel's own host."""
    if not address:
        return "qemu:///system"
    user, at, host = address.rpartition("@")
    host = f"[{host}]" if ":" in host else host
    # no_tty: nobody is there to be asked for a password.
    return f"qemu+ssh://{user}{at}{host}/system?no_tty=1&command={quote(str(ssh_program))}"


def write_ssh_program(path: Path, ssh: Ssh) -> None:
    """Make a program that is `ssh` as the panel uses it, with its key and its known hosts.

    For libvirt runs a program of a given name, and gives it no options but its own.
    """
    text = f'#!/bin/sh\nexec {shlex.join(ssh.program())} "$@"\n'
    if path.exists() and path.read_text() == text:
        return  # so that a panel starts on a full disk
    new = path.with_name(f"{path.name}.new")
    new.write_text(text)
    new.chmod(0o700)
    new.replace(path)


def _carry_out(uri: str, intent: Intent, *, is_repeated: bool) -> None:
    """Define, end what runs from before, start; each step only where the one before has not made it needless.

    A kill before the definition leaves nothing done. After it, the mark is the intent's: a domain that runs with it
    is started already. One that is off with it was not started yet, or was, and has stopped since, which its events
    are about to tell: Doubt. A domain that runs with another mark is of an earlier step.
    """
    with _connection(uri) as connection:
        _do(connection, intent, is_repeated=is_repeated)


def _is_off(uri: str, name: str) -> bool:
    with _connection(uri) as connection:
        return not connection.lookupByName(name).isActive()


@contextmanager
def _connection(uri: str) -> Iterator[libvirt.virConnect]:
    """A connection for one call; what goes wrong is NotReached or NotDone."""
    with closing(_open(uri)) as connection:
        try:
            yield connection
        except DefinitionError as error:
            raise NotDone(str(error)) from error
        except libvirt.libvirtError as error:
            kind = NotDone if connection.isAlive() else NotReached
            raise kind(f"libvirt at {uri}: {error}") from error


def _do(connection: libvirt.virConnect, intent: Intent, *, is_repeated: bool) -> None:
    domain = connection.lookupByName(intent.name)
    xml = domain.XMLDesc(_AS_DEFINED)
    is_doubtful = is_repeated and mark_of(xml) == intent.id
    domain = connection.defineXML(_wanted(xml, intent))
    if intent.action is Action.RELEASE:
        return
    if domain.isActive():
        if intent.action is Action.START or mark_of(domain.XMLDesc(0)) == intent.id:
            return
        _end(domain)
    elif is_doubtful:
        raise Doubt
    domain.create()


def _wanted(xml: str, intent: Intent) -> str:
    if intent.action in (Action.FINISH, Action.RELEASE):
        return installed(xml, mark=intent.id)
    medium = Medium(cd=intent.medium, kernel=intent.kernel, initrd=intent.initrd, cmdline=intent.cmdline)
    return installing(xml, medium, mark=intent.id)


def _end(domain: libvirt.virDomain) -> None:
    try:
        domain.destroy()
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_OPERATION_INVALID:  # it has ended by itself
            raise


def _open(uri: str) -> libvirt.virConnect:
    _quiet()
    try:
        return libvirt.open(uri)
    except libvirt.libvirtError as error:
        raise NotReached(f"no connection to libvirt at {uri}: {error}") from error


@cache
def _quiet() -> None:
    # Else libvirt writes every error to standard error, too.
    libvirt.registerErrorHandler(lambda *_: None, None)
