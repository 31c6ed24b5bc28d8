# SPDX-License-Identifier: Apache-2.0
"""Real sockets: who gets in, who does not, what breaks, and how much can be on its way."""

from __future__ import annotations

import asyncio
import itertools
import os
import resource
import socket
import time
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, cast

import pytest
import zmq
import zmq.asyncio

from tests.unit.wire import keys
from vmwatch import link, outbox
from vmwatch.config import Endpoint
from vmwatch.errors import BadEnvelope
from vmwatch.link import BATCH, CannotListen, LinkLost, Pull, Push
from vmwatch.protocol import MAX_MESSAGE, OVERHEAD, Keys, derive_keys, verify

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

T = TypeVar("T")

KEYS = keys()
OTHER = derive_keys("ANOTHER0SECRET")
DEADLINE = 10.0
QUIET = 0.2  # seconds in which what can move has moved: for showing that something stands still


@pytest.fixture(autouse=True)
def nothing_of_zeromq_left() -> Iterator[None]:
    """Ends libzmq's own threads and descriptors. Waits for ever for a socket that was not closed."""
    yield
    link.flush()


class Master:
    """A listening Pull, its watch, and whom it refused."""

    def __init__(self, host: str, port: int) -> None:
        self.refused: list[str] = []
        self.pull = Pull(Endpoint(host, port), KEYS, on_refused=self.refused.append)
        address = str(self.pull._socket.getsockopt_string(zmq.LAST_ENDPOINT))
        self.endpoint = Endpoint(host, int(address.rpartition(":")[2]))

    async def receive(self, count: int) -> list[bytes]:
        frames: list[bytes] = []
        async with asyncio.timeout(DEADLINE):
            while len(frames) < count:
                frames += await self.pull.receive()
        return frames

    async def receive_exactly(self, count: int) -> list[bytes]:
        """For showing what happens when a master stops at a certain message."""
        async with asyncio.timeout(DEADLINE):
            return [cast("bytes", await self.pull._socket.recv()) for _ in range(count)]

    async def is_silent(self) -> bool:
        with suppress(TimeoutError):
            await asyncio.wait_for(self.pull.receive(), QUIET)
            return False
        return True


@asynccontextmanager
async def listening(host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[Master]:
    master = Master(host, port)
    watching = asyncio.create_task(master.pull.watch())
    try:
        yield master
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        master.pull.close()


@asynccontextmanager
async def connected(master: Master, keys: Keys = KEYS) -> AsyncIterator[Push]:
    push = await Push.open(master.endpoint, keys)
    try:
        yield push
    finally:
        push.close()


async def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE
    while not true():
        assert time.monotonic() < deadline, "it did not come to be"
        await asyncio.sleep(0.01)


async def within(awaited: Awaitable[T]) -> T:
    return await asyncio.wait_for(awaited, DEADLINE)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@contextmanager
def stranger(master: Master, **options: object) -> Iterator[zmq.Socket[bytes]]:
    """A PUSH socket that is none of ours."""
    with zmq.Context() as context, context.socket(zmq.PUSH) as sock:
        sock.linger = 0
        for name, value in options.items():
            setattr(sock, name, value)
        sock.connect(str(master.endpoint))
        yield sock


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_messages_arrive_whole_and_in_order(host: str) -> None:
    frames = [bytes([number % 256]) * (number * 37 % 3000 + 1) for number in range(1000)]
    async with listening(host) as master, connected(master) as push:
        sending = asyncio.create_task(send_all(push, frames))
        assert await master.receive(1000) == frames
        await sending


async def send_all(push: Push, frames: list[bytes]) -> None:
    for frame in frames:
        await push.send(frame)


async def test_a_batch_has_a_limit_and_waits_for_nothing() -> None:
    async with listening() as master, connected(master) as push:
        await push.send(b"one")
        assert await master.receive(1) == [b"one"]
        sending = asyncio.create_task(send_all(push, [b"x"] * 5000))
        got = 0
        while got < 5000:
            frames = list(await within(master.pull.receive()))
            assert 1 <= len(frames) <= BATCH
            got += len(frames)
        await sending


async def test_a_flooded_master_lets_other_tasks_have_their_turn() -> None:
    """Though there is always something to receive: as many turns as batches."""
    async with listening() as master, connected(master) as push:
        sending = asyncio.create_task(send_all(push, [bytes(100)] * 20_000))
        turns = itertools.count()

        async def other() -> None:
            while not sending.done():
                next(turns)
                await asyncio.sleep(0)

        others = asyncio.create_task(other())
        batches, got = 0, 0
        while got < 20_000:
            got += len(list(await within(master.pull.receive())))
            batches += 1
        await sending
        await others
        assert next(turns) >= batches


async def test_a_wrong_secret_is_told_on_both_sides() -> None:
    """The peer is asked for its address when its connection is accepted, and may be gone by then."""
    async with listening() as master:
        for attempt in itertools.count(1):
            with pytest.raises(
                LinkLost, match="closed during the handshake: wrong secret, or no vmwatch-master"
            ):
                await Push.open(master.endpoint, OTHER)
            await until(lambda: len(master.refused) == attempt)  # noqa: B023 (called here and now)
            if master.refused[-1] == "127.0.0.1":
                break
            assert attempt < 50, set(master.refused)
        assert await master.is_silent()


async def test_a_stranger_without_encryption_gets_nothing_through() -> None:
    async with listening() as master:
        with stranger(master) as sock:
            sock.send(b"let me in")
            await until(lambda: bool(master.refused))
            assert await master.is_silent()


async def test_a_stranger_who_knows_the_master_but_not_the_nodes_key_gets_nothing_through() -> None:
    public, secret = zmq.curve_keypair()
    master_key = link._public(KEYS.master)
    async with listening() as master:
        with stranger(
            master, curve_serverkey=master_key, curve_publickey=public, curve_secretkey=secret
        ) as sock:
            sock.send(b"let me in")
            await until(lambda: bool(master.refused))
            assert await master.is_silent()


async def test_nobody_there() -> None:
    with pytest.raises(LinkLost, match="no connection: nothing listens there"):
        await within(Push.open(Endpoint("127.0.0.1", free_port()), KEYS))


async def test_something_else_there() -> None:
    """A server that accepts and closes, as another program does that is greeted so."""
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(LinkLost, match="closed during the handshake"):
            await within(Push.open(Endpoint("127.0.0.1", port), KEYS))


async def test_a_server_that_never_answers_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        began = time.monotonic()
        with pytest.raises(LinkLost):
            await Push.open(Endpoint("127.0.0.1", server.getsockname()[1]), KEYS)
        assert time.monotonic() - began < 2 * link.HANDSHAKE_SECONDS + 1


async def test_a_client_that_never_shakes_hands_is_thrown_out_and_named() -> None:
    """Though others came and went since: 127.0.0.2 stalled, 127.0.0.1 did not."""
    async with listening() as master:
        with socket.create_connection(
            ("127.0.0.1", master.endpoint.port), source_address=("127.0.0.2", 0)
        ) as stalled:
            stalled.settimeout(DEADLINE)
            assert stalled.recv(1)  # libzmq greets whom it has accepted
            async with connected(master) as push:
                await push.send(b"from a node")
                assert await master.receive(1) == [b"from a node"]
                await until(lambda: bool(master.refused))
                assert master.refused == ["127.0.0.2"]
                await push.send(b"still here")
                assert await master.receive(1) == [b"still here"]
            while stalled.recv(4096):
                pass


@pytest.mark.parametrize("begins", [b"noise", b"\xff\0\0\0\0\0\0\0\1\x7f\3\0CURVE", b"GET / HTTP/1.1\r\n"])
async def test_two_mebibytes_of_noise_from_a_stranger_change_nothing(begins: bytes) -> None:
    async with listening() as master, connected(master) as push:
        reader, writer = await asyncio.open_connection("127.0.0.1", master.endpoint.port)
        writer.write(begins + os.urandom(2 << 20))
        with suppress(ConnectionError):
            await within(reader.read())  # the greeting of the master, then its end
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
        await until(lambda: len(master.refused) == 1)
        await push.send(b"a node's")
        assert await master.receive(1) == [b"a node's"]
        assert await master.is_silent()


@pytest.mark.parametrize("size", [MAX_MESSAGE + 1, 2 << 20])
async def test_two_mebibytes_from_one_who_has_the_secret_arrive_to_be_refused(size: int) -> None:
    async with listening() as master, connected(master) as push:
        await push.send(os.urandom(size))
        (noise,) = await master.receive(1)
        with pytest.raises(BadEnvelope) as refused:
            verify(noise, KEYS.signature)
        assert refused.value.reason == "size"
        await push.send(b"the connection holds")
        assert await master.receive(1) == [b"the connection holds"]


async def test_what_is_larger_still_costs_the_connection_and_nothing_else() -> None:
    async with listening() as master, connected(master) as push, connected(master) as other:
        await push.send(bytes(5 << 20))
        assert await within(push.lost()) == "the connection was closed"
        await other.send(b"another node's")
        assert await master.receive(1) == [b"another node's"]
        assert not master.refused


async def test_the_largest_message_passes() -> None:
    frame = os.urandom(MAX_MESSAGE)
    async with listening() as master, connected(master) as push:
        await push.send(frame)
        assert await master.receive(1) == [frame]


async def test_a_node_sees_that_its_master_is_gone_and_finds_the_next_one() -> None:
    async with listening() as master:
        push = await Push.open(master.endpoint, KEYS)
        lost = asyncio.create_task(push.lost())
        await push.send(b"first")
        assert await master.receive(1) == [b"first"]
        assert not lost.done()
    assert await within(lost) == "the connection was closed"
    with pytest.raises(TimeoutError):  # nobody takes more than the queue now, and none of it arrives
        await asyncio.wait_for(send_all(push, [b"lost"] * (link.NODE_QUEUE + link.MASTER_QUEUE + 2)), QUIET)
    push.close()
    master_gone = False
    while not master_gone:  # libzmq lets go of an address a moment after it was closed
        with suppress(OSError), socket.create_server(("127.0.0.1", master.endpoint.port)):
            master_gone = True
    async with listening(port=master.endpoint.port) as second, connected(second) as push:
        await push.send(b"again")
        assert await second.receive(1) == [b"again"]


async def test_what_was_sent_before_a_farewell_arrives() -> None:
    async with listening() as master:
        push = await Push.open(master.endpoint, KEYS)
        await push.send(b"goodbye")
        push.close(linger=DEADLINE)
        assert await master.receive(1) == [b"goodbye"]


async def test_a_sender_waits_while_its_buffers_are_full_and_loses_nothing() -> None:
    async with listening() as master, connected(master) as push:
        frames = [number.to_bytes(4) * 2000 for number in range(200)]
        sending = asyncio.create_task(send_all(push, frames))
        await asyncio.wait({sending}, timeout=QUIET)
        assert not sending.done()
        assert await master.receive(200) == frames
        await within(sending)


async def test_a_cancelled_send_sends_nothing_and_the_next_one_does() -> None:
    async with listening() as master, connected(master) as push:
        accepted = await fill(push, b"x" * 8000)  # its last send was cancelled
        assert await master.receive(accepted) == [b"x" * 8000] * accepted
        await push.send(b"next")
        assert await master.receive(1) == [b"next"]


async def fill(push: Push, frame: bytes) -> int:
    """How many messages are accepted by a socket whose receiver does not read."""
    for accepted in itertools.count():
        try:
            await asyncio.wait_for(push.send(frame), QUIET)
        except TimeoutError:
            return accepted
    raise AssertionError


@pytest.mark.parametrize("size", [OVERHEAD + 1, 200, 1000, 4000, 60_000, MAX_MESSAGE])
async def test_the_window_is_more_than_can_be_on_its_way(size: int) -> None:
    """What `send` accepted and nobody received, wherever the receiver stopped, and a batch: docs/protocol.md."""
    async with listening() as master, connected(master) as push:
        on_its_way, most = 0, 0
        for received in (0, 1, 1, 2, 3, 5, 8, 13):
            on_its_way -= len(await master.receive_exactly(received))
            on_its_way += await fill(push, bytes(size))
            most = max(most, on_its_way)
        window = outbox.WINDOW_MESSAGES + -(-outbox.WINDOW_BYTES // size)
        print(f"{size} bytes: at most {most} on their way, window {window}")
        assert most + BATCH <= window


async def test_a_hundred_sessions_leave_nothing() -> None:
    async with listening() as master:
        counts = []
        for number in range(100):
            async with connected(master) as push:
                await push.send(b"%d" % number)
                assert await master.receive(1) == [b"%d" % number]
            counts.append(descriptors())
        await until(lambda: descriptors() <= min(counts))
        assert len(asyncio.all_tasks()) == 3  # this one, the watch, and the admission


async def test_a_hundred_refusals_leave_nothing() -> None:
    async with listening() as master:
        before = descriptors()
        for _ in range(100):
            with pytest.raises(LinkLost):
                await Push.open(master.endpoint, OTHER)
        await until(lambda: len(master.refused) == 100)
        await until(lambda: descriptors() <= before)


async def test_many_segments_fit_into_the_window() -> None:
    """Where one is larger than half of it, Linux comes to pass a window each 0.2 s and no more (vmwatch.tcp)."""
    async with listening() as master:
        with socket.create_connection((master.endpoint.host, master.endpoint.port)) as node:
            assert node.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG) <= link.KERNEL_BUFFER // 4


async def test_an_address_in_use_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(
            CannotListen, match=f"cannot listen on tcp://127.0.0.1:{port}: Address already in use"
        ):
            Pull(Endpoint("127.0.0.1", port), KEYS, on_refused=print)


async def test_an_address_of_another_host_is_told() -> None:
    with pytest.raises(CannotListen, match=r"cannot listen on tcp://192\.0\.2\.1:1515: Cannot assign"):
        Pull(Endpoint("192.0.2.1", 1515), KEYS, on_refused=print)


async def test_a_second_master_in_one_process_is_told_too() -> None:
    async with listening() as master:
        with pytest.raises(CannotListen):
            Pull(master.endpoint, KEYS, on_refused=print)
        async with connected(master) as push:
            await push.send(b"the first one lives")
            assert await master.receive(1) == [b"the first one lives"]


async def test_no_descriptor_left_is_no_connection_and_no_bug() -> None:
    async with listening() as master:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors(), hard))
        try:
            with pytest.raises(LinkLost, match="no connection: Too many open files"):
                await Push.open(master.endpoint, KEYS)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        async with connected(master) as push:
            await push.send(b"x")
            await master.receive(1)


@contextmanager
def no_descriptors_but(spare: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    taken: list[int] = []
    try:
        with suppress(OSError):
            while True:
                taken.append(os.open(os.devnull, os.O_RDONLY))
        for _ in range(spare):
            os.close(taken.pop())
        yield
    finally:
        for descriptor in taken:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_a_master_without_descriptors_cannot_listen_and_leaves_nothing() -> None:
    with link._Context.instance().socket(zmq.PAIR):  # libzmq's threads have theirs, or it would abort
        before = descriptors()
        for spare in range(4):  # of four: for admission, messages, and both ends of the monitor
            with (
                no_descriptors_but(spare),
                pytest.raises(CannotListen, match="Too many open files"),
            ):
                Pull(Endpoint("127.0.0.1", 1), KEYS, on_refused=print)
            await until(lambda: descriptors() <= before)


async def test_an_address_that_libzmq_does_not_take_leaves_nothing() -> None:
    async with listening():  # libzmq's own descriptors are there before
        before = descriptors()
        for _ in range(10):
            with pytest.raises(LinkLost, match="no connection: Invalid argument"):
                await Push.open(Endpoint("!", 1), KEYS)
        await until(lambda: descriptors() <= before)


async def test_a_socket_that_is_closed_as_soon_as_it_gave_a_message_leaves_no_error() -> None:
    """As when what arrived cannot be kept. The loop would call the error a bug, and the service would end."""
    errors: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
    async with listening() as master, connected(master) as push:
        receiving = asyncio.create_task(master.pull.receive())
        await asyncio.sleep(0)  # it waits
        await send_all(push, [b"one", b"two"])
        assert next(iter(await within(receiving))) == b"one"
        master.pull.close()
        await asyncio.sleep(QUIET)
    assert errors == []


async def test_strangers_whom_nobody_watches_hold_up_no_node_and_no_end() -> None:
    """More events than libzmq's queues hold by default: its thread would wait for their reader."""
    pull = Pull(Endpoint("127.0.0.1", free_port()), KEYS, on_refused=print)
    master = Endpoint.parse(str(pull._socket.getsockopt_string(zmq.LAST_ENDPOINT)))
    push = await Push.open(master, KEYS)
    for _ in range(1500):
        _, writer = await within(asyncio.open_connection("127.0.0.1", master.port))
        writer.close()
    await push.send(b"a node's")
    assert next(iter(await within(pull.receive()))) == b"a node's"
    push.close()
    pull.close()


async def test_a_flood_of_strangers_lets_other_tasks_have_their_turn() -> None:
    """However many of them wait to be told of: they are read a few at a time."""
    refused: list[str] = []
    pull = Pull(Endpoint("127.0.0.1", free_port()), KEYS, on_refused=refused.append)
    port = Endpoint.parse(str(pull._socket.getsockopt_string(zmq.LAST_ENDPOINT))).port
    for _ in range(500):
        _, writer = await within(asyncio.open_connection("127.0.0.1", port))
        writer.close()
    await asyncio.sleep(QUIET)  # libzmq has told of all of them
    watching = asyncio.create_task(pull.watch())
    turns: list[int] = []
    while len(refused) < 500:
        turns.append(len(refused))
        await asyncio.sleep(0)
    assert max(later - earlier for earlier, later in itertools.pairwise([*turns, 500])) <= 32
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    pull.close()


async def test_a_client_that_connects_and_leaves_is_refused_and_a_node_that_leaves_is_not() -> None:
    async with listening() as master:
        async with connected(master) as push:
            await push.send(b"x")
            await master.receive(1)
        socket.create_connection(("127.0.0.1", master.endpoint.port), source_address=("127.0.0.2", 0)).close()
        await until(lambda: bool(master.refused))
        assert len(master.refused) == 1


def test_a_success_taken_for_another_ones_is_put_right_when_the_other_fails() -> None:
    """A node and a stranger are accepted one after the other, before either has shaken hands."""
    peers = link._Peers()
    peers.accepted(7, "node")
    peers.accepted(8, "stranger")
    peers.admitted()
    peers.failed()
    assert peers.ended(8) == "stranger"
    assert peers.ended(7) is None


def test_a_descriptor_that_is_used_again_is_another_connection() -> None:
    peers = link._Peers()
    peers.accepted(7, "node")
    peers.admitted()
    assert peers.ended(7) is None
    peers.accepted(7, "stranger")
    assert peers.ended(7) == "stranger"


def test_who_was_connected_before_the_watch_began_is_not_refused() -> None:
    peers = link._Peers()
    peers.admitted()
    assert peers.ended(7) is None
