# SPDX-License-Identifier: Apache-2.0
"""The panel's API as the master calls it: what a call carries, how it is sent, what its answer means.

Nothing is tried again here and nothing is kept: that is delivery's and the ledger's. What calls carry is in
`calls`. The only importer of requests.

Sources: the documentation of VMmanager 5 KVM, "Guide to ISPsystem software API" (authinfo, auth,
session.newkey) and "Mgrctl utility". What it does not say is assumed in `Dialect`, and only there.
"""

from __future__ import annotations

import json
import ssl
from dataclasses import dataclass, field, fields, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol
from urllib.parse import quote, quote_plus

import requests
import urllib3
from requests.adapters import HTTPAdapter

from vmwatch import config_file
from vmwatch.deadline import POOLS
from vmwatch.errors import ConfigError, Missed, PanelError, Refused, Unavailable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from urllib3.connectionpool import HTTPConnectionPool

    from vmwatch.deadline import Answer

MAX_ANSWER: Final = 1 << 20
"""Bytes. The answers to our calls take less than a hundred."""

_HEADERS: Final = {
    "Content-Type": "application/x-www-form-urlencoded",
    "Accept": "application/json",
    "Accept-Encoding": "identity",  # of what is compressed the size could not be limited
    "User-Agent": "vmwatch-master",
}
_SHORT: Final = 64  # letters
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
    text = one_line(message.get("$") if isinstance(message, dict) else message) or "the panel gives no reason"
    for types, verdict in ((dialect.unavailable, Unavailable), (dialect.missed, Missed)):
        if {kind, f"{kind}:{subject}"} & set(types.split()):
            return verdict(kind, text, subject=subject)
    return Refused(kind or "error", text, subject=subject)


def _word(untrusted: object) -> str:
    return one_line(untrusted, longest=64).replace(" ", "_")


def one_line(untrusted: object, longest: int = 300) -> str:
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


class Session(Protocol):
    """Access without a password: a session of the panel, shared by all who call it."""

    def current(self, panel: Panel) -> str:
        """The id of the session; where none is open, it is opened through `panel`. Raises Unavailable."""

    def ended(self, session: str) -> None:
        """The panel does not know this session any more; somebody else may have opened the next one."""


class Panel:
    """The panel, for one thread: one kept connection, a limit of time and size on every answer."""

    def __init__(
        self,
        access: Access,
        *,
        sessions: Session | None = None,
        dialect: Dialect | None = None,
        timeouts: Timeouts | None = None,
    ) -> None:
        """`sessions` serves the access that names no user, and only that."""
        if (access.user is None) == (sessions is None):
            raise ValueError("access takes either a user or sessions")
        self._access, self._sessions = access, sessions
        self._dialect, self._timeouts = dialect or Dialect(), timeouts or Timeouts()
        # Prepared once: preparing a request takes requests longer than sending it.
        self._request = requests.Request("POST", access.url).prepare()
        self._verify = str(access.verify) if isinstance(access.verify, Path) else access.verify
        if access.verify is False:
            # The administrator has decided so in the configuration; a warning a call tells nobody more.
            urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
        self._adapter = _Adapter(path=self._request.path_url)

    def close(self) -> None:
        """Close the connection."""
        pools = self._adapter.poolmanager.pools
        for key in pools.keys():  # noqa: SIM118 (no dictionary: it cannot be iterated over)
            pools[key].close()  # urllib3 2 leaves that to the garbage collector
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

    def _ask_in_session(self, form: dict[str, str], sessions: Session) -> dict[str, Any]:
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
            return read_answer(*self._post(_encode({**form, "out": "json"})), self._dialect)
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
        self._request.body = body
        self._request.headers = {**_HEADERS, "Content-Length": str(len(body))}  # type: ignore[assignment]
        try:
            with self._adapter.send(
                self._request, stream=True, timeout=limits, verify=self._verify
            ) as response:
                if 300 <= response.status_code < 400:
                    target = one_line(response.raw.headers.get("Location")) or "nowhere"
                    raise Unavailable("redirect", f"{url} points to {target}: set panel_url to what is meant")
                untrusted_body: bytes = response.raw.read(MAX_ANSWER + 1)
        except (requests.Timeout, urllib3.exceptions.TimeoutError, TimeoutError):
            seconds = f"{limits[0]:g} s to connect, {limits[1]:g} s to answer"
            raise Unavailable("timeout", f"{url}: no answer in time ({seconds})") from None
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            raise Unavailable("no-connection", f"{url}: {reason(error)}") from None
        if len(untrusted_body) > MAX_ANSWER:
            raise Unavailable("too-large", f"{url}: the answer exceeds {MAX_ANSWER} bytes")
        return response.status_code, untrusted_body


class _Adapter(HTTPAdapter):
    """What sends a request: requests' adapter, for one URL. What it would find out anew for each call is kept.

    Without a requests.Session before it: that one follows redirects, asks the environment for proxies, .netrc
    and authorities, keeps cookies, and takes longer to prepare a call than to send it. The methods are those that
    requests exposes for subclasses.
    """

    def __init__(self, *, path: str) -> None:
        super().__init__(pool_connections=1, pool_maxsize=1)
        self.poolmanager.pool_classes_by_scheme = POOLS
        self._path = path
        self._pool: HTTPConnectionPool | None = None
        self._is_verifying = False

    def get_connection(self, *arguments: object) -> HTTPConnectionPool:
        """The pool of the connection to the panel."""
        self._pool = self._pool or super().get_connection(*arguments)  # type: ignore[no-untyped-call]
        return self._pool

    def get_connection_with_tls_context(self, *arguments: object, **more: object) -> HTTPConnectionPool:
        """The same, as requests 2.32 and newer ask for it."""
        self._pool = self._pool or super().get_connection_with_tls_context(*arguments, **more)  # type: ignore[misc]
        return self._pool

    def cert_verify(self, *arguments: object) -> None:
        """Tell the pool which certificates are accepted."""
        if not self._is_verifying:
            super().cert_verify(*arguments)  # type: ignore[no-untyped-call]
            self._is_verifying = True

    def request_url(self, *_: object) -> str:
        """What stands in the request's first line."""
        return self._path

    def build_response(self, _request: requests.PreparedRequest, raw: Answer) -> requests.Response:
        """Status and body are all that is read."""
        response = requests.Response()
        response.status_code, response.raw = raw.status, raw
        return response


def _encode(form: Mapping[str, str]) -> bytes:
    """A form's body, in UTF-8; what UTF-8 cannot say becomes a question mark."""
    return "&".join([f"{_quote(name)}={_quote(value)}" for name, value in form.items()]).encode()


def _quote(text: str) -> str:
    """Most names and values come again and again, which urlencode does not know; long ones, statistics, do not."""
    return _quote_short(text) if len(text) <= _SHORT else quote_plus(text, errors="replace")


_quote_short = lru_cache(maxsize=1024)(partial(quote_plus, errors="replace"))


def reason(error: BaseException) -> str:
    """The innermost cause in a few words: requests wraps it in object addresses and class names."""
    while inner := _inner(error):
        error = inner
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate not accepted: {error.verify_message}"
    return one_line(getattr(error, "strerror", None) or str(error) or type(error).__name__)


def _inner(error: BaseException) -> BaseException | None:
    # urllib3 tries what old Pythons had, and fails in it, before what then fails: it suppresses that context itself.
    context = None if error.__suppress_context__ else error.__context__
    candidates = (getattr(error, "reason", None), *error.args, context)
    return next((inner for inner in candidates if isinstance(inner, BaseException)), None)
