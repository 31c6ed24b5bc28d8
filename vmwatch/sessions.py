# SPDX-License-Identifier: Apache-2.0
"""Access to the panel without a password: a session that a one-time key opens, and mgrctl, which makes the key.

Sources: the documentation of VMmanager 5 KVM, "Guide to ISPsystem software API" (auth, session.newkey) and "Mgrctl
utility".
"""

from __future__ import annotations

import os
import secrets
import subprocess
import threading
from typing import TYPE_CHECKING, Any, Final

from vmwatch.errors import PanelError, Unavailable
from vmwatch.vmmanager import Dialect, one_line, read_answer, reason

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vmwatch.vmmanager import Panel

MGRCTL: Final = ("/usr/local/mgr5/sbin/mgrctl", "-m", "vmmgr")
MGRCTL_TIMEOUT: Final = 15.0  # seconds


class Sessions:
    """Access without a password: one session of the panel, shared by the workers, opened by a one-time key.

    Root makes the key on the panel's host (`mgrctl … session.newkey`): `prepare` makes the first one while
    the service still is root. A session ends an hour after its last call; the statistics alone keep it open.
    One that ended all the same takes a new key, and so, again, root.
    """

    def __init__(self, *, user: str = "root", command: Sequence[str] = MGRCTL) -> None:
        """`user` is the panel's whom the session is for; `command` is mgrctl with the panel's name."""
        self._command = (
            *command,
            "-o",
            "json",
            "session.newkey",
            f"username={user}",
            "-e",
            "key=$VMWATCH_KEY",
        )
        self._user = user
        self._lock = threading.Lock()
        self._key: str | None = None
        self._session: str | None = None

    def prepare(self) -> None:
        """Make the key of the next session. Raises Unavailable."""
        key = secrets.token_hex(16)  # the panel asks for 16 characters at least
        _run_mgrctl(
            self._command, os.environ | {"VMWATCH_KEY": key}
        )  # an argument could be seen by every user
        self._key = key

    def current(self, panel: Panel) -> str:
        """The id of the session; where none is open, it is opened through `panel`. Raises Unavailable."""
        with self._lock:
            if self._session is None:
                self._session = self._open(panel)
            return self._session

    def ended(self, session: str) -> None:
        """The panel does not know this session any more; another worker may have opened the next one."""
        with self._lock:
            if self._session == session:
                self._session = None

    def _open(self, panel: Panel) -> str:
        if self._key is None:
            self.prepare()
        try:
            doc = panel.ask({"func": "auth", "username": self._user, "key": self._key or ""})
        except PanelError as error:
            if error.kind == "auth":
                self._key = None  # used up, or too old; after any other error it is still good
            raise Unavailable("no-access", f"no session: {error}") from None
        self._key = None
        return _session_id(doc)


def _run_mgrctl(command: Sequence[str], environment: Mapping[str, str]) -> None:
    try:
        done = subprocess.run(  # noqa: S603 (the command is ours)
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=MGRCTL_TIMEOUT,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _no_key(reason(error)) from None
    if done.returncode:
        raise _no_key(f"exit code {done.returncode}: {one_line(done.stderr.decode(errors='replace'))}")
    try:
        read_answer(200, done.stdout, Dialect())
    except PanelError as error:
        raise _no_key(str(error)) from None


def _no_key(reason: str) -> Unavailable:
    hint = "only root can make one; or set panel_user"
    return Unavailable("no-access", f"no session key from mgrctl ({hint}): {reason}")


def _session_id(doc: dict[str, Any]) -> str:
    """The guide's editions have `<auth id="ID"/>` and `<auth id="ID" level="…">ID</auth>`."""
    auth = doc.get("auth")
    untrusted_id = auth.get("$id") if isinstance(auth, dict) else None
    if not isinstance(untrusted_id, str) or not untrusted_id:
        raise Unavailable("no-access", "no session: the panel answered func=auth without one")
    return untrusted_id
