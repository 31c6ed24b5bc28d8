# SPDX-License-Identifier: Apache-2.0
"""Who calls: accounts with hashed passwords, sessions of one hour, one-time keys, and `authinfo`.

Source of the four ways: COREmanager's "Guide to ISPsystem software API": a session is made by `func=auth` and
ends when it has not been used for one hour; `authinfo` carries user and password in every call; a key of at
least 16 characters, left by `session.newkey`, makes one session without a password.

Sessions and keys live in memory: after a restart of the panel everybody signs in again.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from vmwatch.panel.convention import ApiError, ErrorType

if TYPE_CHECKING:
    from collections.abc import Callable

    from vmwatch.panel.store import Store

SESSION_SECONDS = 3600
KEY_SECONDS = 300
KEY_LENGTH_LEAST = 16
AUTHINFO_SECONDS = 3600  # from the last use, as a session: a rare event must not wait for a hash
SESSIONS_MOST = 10_000  # the oldest goes
AUTHINFO_MOST = 256

_COST = 1 << 14  # scrypt's n: 16 MiB and about 50 ms a check
_T = TypeVar("_T")


def hash_password(password: str) -> str:
    """`scrypt$n$salt$hash`, salt and hash in hexadecimal digits."""
    salt = secrets.token_bytes(16)
    return f"scrypt${_COST}${salt.hex()}${_scrypt(password, salt, _COST).hex()}"


def check_password(password: str, stored: str) -> bool:
    """Whether `stored` was made of `password`."""
    _, cost, salt, expected = stored.split("$")
    return hmac.compare_digest(_scrypt(password, bytes.fromhex(salt), int(cost)).hex(), expected)


def _scrypt(password: str, salt: bytes, cost: int) -> bytes:
    # A surrogate can come out of a broken form; it is no reason to fail.
    return hashlib.scrypt(password.encode("utf-8", "replace"), salt=salt, n=cost, r=8, p=1, dklen=32)


@dataclass(frozen=True, slots=True)
class _Entry(Generic[_T]):
    value: _T
    until: float


class Expiring(Generic[_T]):
    """A bounded map whose entries end `seconds` after they were put. `clock` is monotonic."""

    def __init__(self, *, seconds: float, most: int, clock: Callable[[], float]) -> None:
        self._entries: OrderedDict[str, _Entry[_T]] = OrderedDict()
        self._seconds = seconds
        self._most = most
        self._clock = clock

    def put(self, key: str, value: _T) -> None:
        """Add or renew; beyond the bound the oldest entry goes."""
        self._entries[key] = _Entry(value, self._clock() + self._seconds)
        self._entries.move_to_end(key)
        while len(self._entries) > self._most:
            self._entries.popitem(last=False)

    def get(self, key: str) -> _T | None:
        """The value, if it is there and has not ended."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        if entry.until <= self._clock():
            del self._entries[key]
            return None
        return entry.value

    def drop(self, key: str) -> None:
        """Forget one entry."""
        self._entries.pop(key, None)

    def drop_value(self, value: _T) -> None:
        """Forget every entry of this value."""
        for key in [key for key, entry in self._entries.items() if entry.value == value]:
            del self._entries[key]


class Access:
    """The accounts of a store, and who is signed in."""

    def __init__(self, store: Store, *, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` is monotonic, in seconds."""
        self._store = store
        self._secret = secrets.token_bytes(32)
        self._sessions: Expiring[str] = Expiring(seconds=SESSION_SECONDS, most=SESSIONS_MOST, clock=clock)
        self._keys: Expiring[str] = Expiring(seconds=KEY_SECONDS, most=SESSIONS_MOST, clock=clock)
        self._checked: Expiring[str] = Expiring(seconds=AUTHINFO_SECONDS, most=AUTHINFO_MOST, clock=clock)
        # One check at a time: a flood of wrong passwords costs one core at most, and 16 MiB.
        self._checking = asyncio.Semaphore(1)

    def has_account(self, user: str) -> bool:
        """Whether there is such an account."""
        return self._stored(user) is not None

    def set_password(self, user: str, password: str) -> None:
        """Make an account, or change its password: its sessions, keys and remembered checks end."""
        with self._store.transaction() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO account (name, password) VALUES (?, ?)",
                (user, hash_password(password)),
            )
        for memory in (self._sessions, self._keys, self._checked):
            memory.drop_value(user)

    async def sign_in(self, user: str, password: str) -> str:
        """A new session. ApiError `auth`: wrong user or password, which of them is not told."""
        async with self._checking:
            right = await self._is_password(user, password)
        if not right:
            raise ApiError(ErrorType.AUTH, "badpassword", "Wrong user name or password")
        return self._new_session(user)

    def sign_in_by_key(self, user: str, key: str) -> str:
        """A new session for a key of `session.newkey`, which is used up. ApiError `auth`."""
        slot = self._key_slot(user, key)
        if self._keys.get(slot) is None:
            raise ApiError(ErrorType.AUTH, "badkey", "The key is wrong, used, or too old")
        self._keys.drop(slot)
        return self._new_session(user)

    def new_key(self, user: str, key: str) -> None:
        """Let `key` make one session within five minutes. ApiError: `value` (key), `missed` (username)."""
        if len(key) < KEY_LENGTH_LEAST:
            raise ApiError(
                ErrorType.VALUE, "key", f"Field 'key': expected {KEY_LENGTH_LEAST} characters or more"
            )
        if not self.has_account(user):
            raise ApiError(ErrorType.MISSED, "username", f"There is no user '{user}'", value=user)
        self._keys.put(self._key_slot(user, key), user)

    async def by_authinfo(self, authinfo: str) -> str:
        """The user of `user:password`; what was right is remembered, as a keyed digest, for an hour."""
        user, _, password = authinfo.partition(":")
        digest = self._digest("authinfo", authinfo)
        if self._checked.get(digest) != user:
            async with self._checking:
                # After a start all callers come at once: who waited for the check of another need not have his own.
                right = self._checked.get(digest) == user or await self._is_password(user, password)
            if not right:
                raise ApiError(ErrorType.AUTH, "badpassword", "Wrong user name or password")
        self._checked.put(digest, user)
        return user

    def by_session(self, session: str) -> str:
        """The user of a session, which is good for another hour from now. ApiError `auth`."""
        user = self.signed_in(session)
        if user is None:
            raise ApiError(ErrorType.AUTH, "expired", "The session has ended: sign in again")
        return user

    def signed_in(self, session: str) -> str | None:
        """As `by_session`; None when the session has ended."""
        slot = self._digest("session", session)
        user = self._sessions.get(slot)
        if user is not None:
            self._sessions.put(slot, user)
        return user

    def sign_out(self, session: str) -> None:
        """End a session."""
        self._sessions.drop(self._digest("session", session))

    def form_token(self, binding: str) -> str:
        """What a form must bring back, against forgery: only this panel can make it of `binding`."""
        return self._digest("form", binding)

    def is_form_token(self, binding: str, token: str) -> bool:
        """Whether `token` was made of `binding`."""
        return hmac.compare_digest(self.form_token(binding).encode(), token.encode("utf-8", "replace"))

    def _new_session(self, user: str) -> str:
        session = secrets.token_hex(16)
        self._sessions.put(self._digest("session", session), user)
        return session

    async def _is_password(self, user: str, password: str) -> bool:
        """For who holds `_checking`."""
        stored = self._stored(user)
        # An unknown user takes as long as a known one.
        right = await asyncio.to_thread(check_password, password, stored or _NOBODY)
        # The password may have been changed in the meantime.
        return right and stored is not None and stored == self._stored(user)

    def _stored(self, user: str) -> str | None:
        query = "SELECT password FROM account WHERE name = ?"
        row = self._store.connection.execute(query, (user.encode("utf-8", "replace").decode(),)).fetchone()
        return str(row["password"]) if row else None

    def _key_slot(self, user: str, key: str) -> str:
        return self._digest("key", f"{user}:{key}")

    def _digest(self, purpose: str, text: str) -> str:
        # Memory holds no session id, key or password, only what cannot be used without this process's secret.
        return hmac.new(self._secret, f"{purpose}\0{text}".encode("utf-8", "replace"), "sha256").hexdigest()


_NOBODY = f"scrypt${_COST}${'00' * 16}${'00' * 32}"
