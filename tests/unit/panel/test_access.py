# SPDX-License-Identifier: Apache-2.0
"""Who may call, for how long, and what is remembered of it."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from vmwatch.panel.access import (
    AUTHINFO_SECONDS,
    KEY_SECONDS,
    SESSION_SECONDS,
    Access,
    Expiring,
    check_password,
    hash_password,
)
from vmwatch.panel.convention import ApiError, ErrorType
from vmwatch.panel.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@dataclass
class Clock:
    """Seconds that pass when a test says so."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def access(tmp_path: Path, clock: Clock) -> Iterator[Access]:
    store = Store(tmp_path / "panel.db")
    access = Access(store, clock=clock)
    access.set_password("admin", "correct horse")
    yield access
    store.close()


def test_a_hash_knows_its_password_only() -> None:
    stored = hash_password("pässwörd")
    assert check_password("pässwörd", stored)
    assert not check_password("password", stored)
    assert "pässwörd" not in stored
    assert stored != hash_password("pässwörd")  # salted


@pytest.mark.parametrize(("user", "password"), [("admin", "wrong"), ("nobody", "correct horse"), ("", "")])
async def test_wrong_is_wrong_and_not_said_why(access: Access, user: str, password: str) -> None:
    for attempt in (access.sign_in(user, password), access.by_authinfo(f"{user}:{password}")):
        with pytest.raises(ApiError) as caught:
            await attempt
        assert (caught.value.kind, caught.value.subject) == (ErrorType.AUTH, "badpassword")


async def test_a_session_lasts_an_hour_from_its_last_use(access: Access, clock: Clock) -> None:
    session = await access.sign_in("admin", "correct horse")
    clock.now += SESSION_SECONDS - 1
    assert access.by_session(session) == "admin"
    clock.now += SESSION_SECONDS - 1
    assert access.by_session(session) == "admin"
    clock.now += SESSION_SECONDS
    with pytest.raises(ApiError, match="ended"):
        access.by_session(session)


async def test_signing_out_ends_a_session(access: Access) -> None:
    session = await access.sign_in("admin", "correct horse")
    access.sign_out(session)
    assert access.signed_in(session) is None


async def test_authinfo_is_hashed_once_while_it_is_used(access: Access, clock: Clock) -> None:
    async def seconds(calls: int) -> float:
        begin = time.perf_counter()
        for _ in range(calls):
            assert await access.by_authinfo("admin:correct horse") == "admin"
        return time.perf_counter() - begin

    await access.by_authinfo("admin:correct horse")
    clock.now += AUTHINFO_SECONDS - 1
    remembered = await seconds(100)
    clock.now += AUTHINFO_SECONDS
    assert await seconds(1) > remembered


async def test_who_comes_with_the_same_authinfo_is_hashed_together(access: Access, clock: Clock) -> None:
    async def seconds(calls: int) -> float:
        clock.now += AUTHINFO_SECONDS
        begin = time.process_time()
        await asyncio.gather(*(access.by_authinfo("admin:correct horse") for _ in range(calls)))
        return time.process_time() - begin

    assert await seconds(20) < 5 * await seconds(1)


async def test_a_new_password_ends_what_the_old_one_opened(access: Access) -> None:
    session = await access.sign_in("admin", "correct horse")
    await access.by_authinfo("admin:correct horse")
    access.new_key("admin", "k" * 16)
    access.set_password("admin", "battery staple")
    assert access.signed_in(session) is None
    with pytest.raises(ApiError):
        await access.by_authinfo("admin:correct horse")
    with pytest.raises(ApiError):
        access.sign_in_by_key("admin", "k" * 16)
    assert await access.by_authinfo("admin:battery staple") == "admin"


def test_a_key_opens_one_session_for_its_user(access: Access, clock: Clock) -> None:
    access.new_key("admin", "k" * 16)
    with pytest.raises(ApiError):
        access.sign_in_by_key("other", "k" * 16)
    assert access.by_session(access.sign_in_by_key("admin", "k" * 16)) == "admin"
    with pytest.raises(ApiError, match="used"):
        access.sign_in_by_key("admin", "k" * 16)
    access.new_key("admin", "n" * 16)
    clock.now += KEY_SECONDS
    with pytest.raises(ApiError, match="too old"):
        access.sign_in_by_key("admin", "n" * 16)


def test_a_key_is_long_and_for_somebody(access: Access) -> None:
    with pytest.raises(ApiError) as caught:
        access.new_key("admin", "k" * 15)
    assert caught.value.subject == "key"
    assert "kkk" not in caught.value.value
    with pytest.raises(ApiError) as caught:
        access.new_key("nobody", "k" * 16)
    assert caught.value.subject == "username"


def test_memory_is_bounded_and_the_oldest_goes(clock: Clock) -> None:
    memory: Expiring[str] = Expiring(seconds=10, most=2, clock=clock)
    for key in ("a", "b", "a", "c"):
        memory.put(key, key)
    assert [memory.get(key) for key in ("a", "b", "c")] == ["a", None, "c"]


def test_a_form_token_is_of_one_binding(access: Access) -> None:
    token = access.form_token("one")
    assert access.is_form_token("one", token)
    assert not access.is_form_token("two", token)
    assert not access.is_form_token("one", "\ud800")
