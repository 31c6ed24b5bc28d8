# SPDX-License-Identifier: Apache-2.0
"""The panel's API as the master calls it: what a call carries, how it is sent, what its answer means.

Nothing is tried again here and nothing is kept: that is delivery's and the ledger's. What calls carry is in
`calls`. The only importer of requests.

Sources: the documentation of VMmanager 5 KVM, "Guide to ISPsystem software API" (authinfo, auth,
session.newkey) and "Mgrctl utility". What it does not say is assumed in `Dialect`, and only there.
"""

from __future__ import annotations

import json
import os
import secrets
import ssl
import subprocess
import threading
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, quote_plus, urlencode

import requests
import urllib3
from requests.adapters import HTTPAdapter

from vmwatch import config_file
from vmwatch.deadline import POOLS
from vmwatch.errors import ConfigError, Missed, PanelError, Refused, Unavailable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MAX_ANSWER: Final = 1 << 20
"""Bytes. The answers to our calls take less than a hundred."""

MGRCTL: Final = ("/usr/local/mgr5/sbin/mgrctl", "-m", "vmmgr")
MGRCTL_TIMEOUT: Final = 15.0  # seconds
_HEADERS: Final = {
    "Content-Type": "application/x-www-form-urlencoded",
    "Accept": "application/json",
    "Accept-Encoding": "identity",  # of what is compressed the size could not be limited
    "User-Agent": "vmwatch-master",
}
DIALECT_FILE: Final = Path("/usr/local/mgr5/etc/vmwatch-dialect.conf")


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """ASSUMED of the panel: the one table of what no documentation says. Changed by a file, without code.

    A call is kept in the contract's words and translated when it is sent, so that a change here helps the
    calls that wait already. Error types are words, `type` or `type:object`, divided by blanks.
    """

    # How functions are called.
    vm_event: str = "vm.event"
    vmwatch_statistics: str = "vmwatch.statistics"
    vmwatch_problem: str = "vmwatch.problem"
    # How vm.event spells what it is documented to carry: cluster node id, VM name, event type, event subtype.
    hostnode: str = "hostnode"
    name: str = "name"
    type: str = "type"
    subtype: str = "subtype"
    # Errors that pass: access, and the licence.
    unavailable: str = "auth license licexpired"
    # No such object, or no such function.
    missed: str = "missed"
    # What a call that was carried out is answered with.
    success: str = "ok"

    def translate(self, func: str, values: Mapping[str, str]) -> dict[str, str]:
        """A call in the contract's words -> the form fields in the panel's, `func` among them."""
        documented = {"hostnode", "name", "type", "subtype"} if func == "vm.event" else set()
        spelt = {getattr(self, name) if name in documented else name: value for name, value in values.items()}
        return spelt | {"func": getattr(self, func.replace(".", "_"), func)}


def read_dialect(path: Path = DIALECT_FILE) -> Dialect:
    """The defaults, and what a NAME=VALUE file, where there is one, says otherwise. Raises ConfigError."""
    if not path.exists():
        return Dialect()
    known = [item.name for item in fields(Dialect)]
    lines = config_file.read(path).lines
    for line in lines.values():
        if line.name not in known or not line.value:
            shown = line.text(secret=False)
            raise ConfigError(f"{shown}: expected a value for one of {', '.join(known)}")
    return replace(Dialect(), **{line.name: line.value for line in lines.values()})


# What an answer means: pure.


def read_answer(status: int, untrusted_body: bytes, dialect: Dialect) -> dict[str, Any]:
    """The `doc` of an answer without error; else Unavailable, Missed or Refused, by the contract's rules.

    The error is in the body whatever the HTTP status, but a 5xx is none of the panel's verdicts.
    """
    if status >= 500:
        raise Unavailable(f"http-{status}", "the panel, or what stands before it, failed")
    doc = _doc(untrusted_body)
    if doc is None:
        raise Unavailable("not-json", f"HTTP status {status}, but not an answer of the panel's API")
    if "error" in doc:
        raise _verdict(doc["error"], dialect)
    return doc


def _doc(untrusted_body: bytes) -> dict[str, Any] | None:
    try:
        answer = json.loads(untrusted_body)
    except (ValueError, RecursionError):  # the first: not JSON, or not UTF-8
        return None
    doc = answer.get("doc") if isinstance(answer, dict) else None
    return doc if isinstance(doc, dict) else None


def _verdict(untrusted_error: object, dialect: Dialect) -> PanelError:
    error = untrusted_error if isinstance(untrusted_error, dict) else {}
    kind, subject = _word(error.get("$type")), _word(error.get("$object"))
    message = error.get("msg")
    text = _line(message.get("$") if isinstance(message, dict) else message) or "the panel gives no reason"
    for types, verdict in ((dialect.unavailable, Unavailable), (dialect.missed, Missed)):
        if {kind, f"{kind}:{subject}"} & set(types.split()):
            return verdict(kind, text, subject=subject)
    return Refused(kind or "error", text, subject=subject)


def _word(untrusted: object) -> str:
    return _line(untrusted, longest=64).replace(" ", "_")


def _line(untrusted: object, longest: int = 300) -> str:
    """What the panel wrote, fit for one line of a log."""
    text = " ".join(untrusted[: 2 * longest].split()) if isinstance(untrusted, str) else ""
    return "".join(letter if letter.isprintable() else "?" for letter in text[:longest])


# How a call is sent.


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Where the panel is and who we are there. Without `user` a one-time session key opens the door."""

    url: str
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    verify: bool | Path = True  # or the file of the authorities that may have signed the panel's certificate


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """Seconds: to connect, and to answer, from the sent request to the last byte: at worst twice as long."""

    connect: float = 5.0
    answer: float = 20.0


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
        raise _no_key(_reason(error)) from None
    if done.returncode:
        raise _no_key(f"exit code {done.returncode}: {_line(done.stderr.decode(errors='replace'))}")
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


class Panel:
    """The panel, for one thread: one kept connection, a limit of time and size on every answer."""

    def __init__(
        self,
        access: Access,
        *,
        sessions: Sessions | None = None,
        dialect: Dialect | None = None,
        timeouts: Timeouts | None = None,
    ) -> None:
        """`sessions` serves the access that names no user, and only that."""
        if (access.user is None) == (sessions is None):
            raise ValueError("access takes either a user or sessions")
        self._access, self._sessions = access, sessions
        self._dialect, self._timeouts = dialect or Dialect(), timeouts or Timeouts()
        self._request = requests.Request("POST", access.url, headers=_HEADERS).prepare()
        self._verify = str(access.verify) if isinstance(access.verify, Path) else access.verify
        if access.verify is False:
            # The administrator has decided so in the configuration; a warning a call tells nobody more.
            urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
        self._adapter = _adapter()

    def close(self) -> None:
        """Close the connection."""
        self._adapter.close()  # type: ignore[no-untyped-call]

    def call(self, func: str, values: Mapping[str, str]) -> None:
        """Call a function by the contract's name with the contract's fields; return when the panel said yes.

        Raises Unavailable (try again later), Missed (no such object, or function) or Refused.
        """
        form = self._dialect.translate(func, values) | {"sok": "ok"}
        if self._sessions is None:
            authinfo = f"{self._access.user}:{self._access.password or ''}"
            doc = self.ask(form | {"authinfo": authinfo})
        else:
            doc = self._ask_in_session(form, self._sessions)
        if self._dialect.success not in doc:
            raise Refused("not-ok", f"the panel answered without {self._dialect.success!r}")

    def _ask_in_session(self, form: dict[str, str], sessions: Sessions) -> dict[str, Any]:
        session = sessions.current(self)
        try:
            return self.ask(form | {"auth": session})
        except Unavailable as error:
            if error.kind != "auth":
                raise
        sessions.ended(session)
        return self.ask(form | {"auth": sessions.current(self)})

    def ask(self, form: Mapping[str, str]) -> dict[str, Any]:
        """Post form fields in the panel's words; the answer's `doc`. Raises PanelError."""
        try:
            status, untrusted_body = self._post(urlencode({**form, "out": "json"}, errors="replace").encode())
            return read_answer(status, untrusted_body, self._dialect)
        except PanelError as error:
            if self._gives_away(str(error)):
                raise type(error)("withheld", "the panel's text repeats the password") from None
            raise

    def _gives_away(self, text: str) -> bool:
        password = self._access.password
        return password is not None and any(form(password) in text for form in (str, quote, quote_plus))

    def _post(self, body: bytes) -> tuple[int, bytes]:
        """Status and raw body. Not connected, timed out, redirected, too large: Unavailable."""
        url, limits = self._access.url, (self._timeouts.connect, self._timeouts.answer)
        try:
            request = self._request.copy()
            request.prepare_body(body, files=None)
            with self._adapter.send(request, stream=True, timeout=limits, verify=self._verify) as response:
                if 300 <= response.status_code < 400:
                    target = _line(response.headers.get("Location")) or "nowhere"
                    raise Unavailable("redirect", f"{url} points to {target}: set panel_url to what is meant")
                untrusted_body: bytes = response.raw.read(MAX_ANSWER + 1, decode_content=False)
        except (requests.Timeout, urllib3.exceptions.TimeoutError):
            seconds = f"{limits[0]:g} s to connect, {limits[1]:g} s to answer"
            raise Unavailable("timeout", f"{url}: no answer in time ({seconds})") from None
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            raise Unavailable("no-connection", f"{url}: {_reason(error)}") from None
        if len(untrusted_body) > MAX_ANSWER:
            raise Unavailable("too-large", f"{url}: the answer exceeds {MAX_ANSWER} bytes")
        return response.status_code, untrusted_body


def _adapter() -> HTTPAdapter:
    """What sends a request.

    Without a requests.Session before it: that one follows redirects, asks the environment for proxies, .netrc
    and authorities, keeps cookies, and takes longer to prepare a call than to send it.
    """
    adapter = HTTPAdapter(pool_connections=1, pool_maxsize=1)
    adapter.poolmanager.pool_classes_by_scheme = POOLS
    return adapter


def _reason(error: BaseException) -> str:
    """The innermost cause in a few words: requests wraps it in object addresses and class names."""
    while inner := _inner(error):
        error = inner
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate not accepted: {error.verify_message}"
    return _line(getattr(error, "strerror", None) or str(error) or type(error).__name__)


def _inner(error: BaseException) -> BaseException | None:
    candidates = (getattr(error, "reason", None), *error.args, error.__context__)
    return next((inner for inner in candidates if isinstance(inner, BaseException)), None)
