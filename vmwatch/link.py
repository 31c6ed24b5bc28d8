# SPDX-License-Identifier: Apache-2.0
"""The connection between node and master: encryption, admission, bounded buffers. The only importer of zmq.

PUSH on the node, PULL on the master. One connection is one session: a node's socket lives from its handshake to
its first disconnect, and is then thrown away with all that it held, because the next session sends again what the
master may not have. What a session sends is `session`'s business, what a frame holds is `protocol`'s.
"""

from __future__ import annotations

import asyncio
import ctypes
import itertools
import logging
import socket
import struct
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Final, cast

import zmq
import zmq.asyncio
from zmq.auth.asyncio import AsyncioAuthenticator
from zmq.utils import z85

from vmwatch.errors import VmwatchError
from vmwatch.protocol import MAX_MESSAGE
from vmwatch.tcp import is_cut, listen

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from vmwatch.config import Endpoint
    from vmwatch.protocol import Keys

# What is in flight is bounded by these, and the outbox's window is reckoned from them (docs/protocol.md).
NODE_QUEUE: Final = 10  # messages, in ZeroMQ's queue on the node
MASTER_QUEUE: Final = (
    100  # the same on the master: a short one costs more than half of what a message costs in all
)
KERNEL_BUFFER: Final = 8 << 10  # bytes asked of the kernel for each direction
BATCH: Final = 256  # messages in one commit of the master

_CUT_BYTES: Final = 4 * MAX_MESSAGE
"""A larger message costs its sender the connection before it is in memory; from MAX_MESSAGE to here it is
received, so that it can be refused and counted."""

HANDSHAKE_SECONDS: Final = 5
_CONNECT_MILLISECONDS: Final = 500  # TCP's own next attempt comes after 1 s, then 2: a new connection sooner
_LOOK_SECONDS: Final = 0.25  # between two looks whether the network is cut
_PING_SECONDS: Final = 5
_SILENCE_SECONDS: Final = 30  # a full pipe stops the pings: a shorter time would cut healthy connections
_BACKLOG: Final = 1024
_ZAP_DOMAIN: Final = "vmwatch"
_MONITOR: Final = "inproc://monitor-{}"

_HANDSHAKE_FAILED: Final = int(
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
)
_NODE_EVENTS: Final = (
    zmq.EVENT_CONNECTED
    | zmq.EVENT_HANDSHAKE_SUCCEEDED
    | _HANDSHAKE_FAILED
    | zmq.EVENT_DISCONNECTED
    | zmq.EVENT_CLOSED
    | zmq.EVENT_MONITOR_STOPPED
)
_MASTER_EVENTS: Final = (
    zmq.EVENT_ACCEPTED | zmq.EVENT_HANDSHAKE_SUCCEEDED | _HANDSHAKE_FAILED | zmq.EVENT_DISCONNECTED
)

_MONITOR_EVENT: Final = struct.Struct("=Hi")  # the event and its value: zmq_socket_monitor(3)
_EVENTS_A_TURN: Final = 32

_REFUSALS_A_CLEANING: Final = 256

_monitors: Final = itertools.count()

log = logging.getLogger(__name__)


class LinkLost(VmwatchError):
    """There is no connection to the master, or no longer. The text says why."""


class CannotListen(VmwatchError):
    """The master's address cannot be had. The text says which, and why."""


class _Socket(zmq.asyncio.Socket):
    """Looks after itself a turn of the loop later. When it was closed meanwhile, pyzmq 24 has that raise an error."""

    def _handle_events(self, fd: int = 0, events: int = 0) -> None:
        if not self.closed:
            super()._handle_events(fd, events)  # type: ignore[no-untyped-call]


class _Context(zmq.asyncio.Context):
    _socket_class = _Socket


class _Monitor:
    """What libzmq tells of a socket's connections. Its own socket is closed with it."""

    def __init__(self, context: zmq.asyncio.Context, watched: zmq.asyncio.Socket, events: int) -> None:
        address = _MONITOR.format(next(_monitors))  # a number once only: libzmq forgets an address late
        watched.monitor(address, events)
        self._watched = watched
        self._socket = context.socket(zmq.PAIR)
        self._now = _without_waiting(self._socket)
        self._read = itertools.count(1)
        self._socket.linger = 0
        # Without a limit: at one, libzmq's own thread would wait for our reader, and every connection with it, and
        # `close` without end for that thread. It is 150 bytes an event, for as long as our loop is busy elsewhere.
        self._socket.rcvhwm = 0
        self._socket.connect(address)

    async def next(self) -> tuple[int, int]:
        """The next event and its value: a file descriptor, or an error number. Gives way to other tasks at times."""
        if next(self._read) % _EVENTS_A_TURN == 0:
            await asyncio.sleep(0)
        try:
            head, _ = self._now.recv_multipart(zmq.NOBLOCK)
        except zmq.Again:
            head, _ = await self._socket.recv_multipart()
        event, value = _MONITOR_EVENT.unpack(head)
        return event, value

    def close(self) -> None:
        self._watched.disable_monitor()
        self._socket.close()


class Push:
    """A node's connection to the master, for one session. Made by `open`; ended by `close`."""

    def __init__(self, endpoint: Endpoint, keys: Keys) -> None:
        """For `open` alone. Raises ZMQError."""
        self._context = _Context.instance()
        self._descriptor = -1  # libzmq's, of the connection
        with ExitStack() as undo:
            self._socket = undo.enter_context(self._context.socket(zmq.PUSH))
            self._now = _without_waiting(self._socket)
            _bound_buffers(self._socket, endpoint)
            self._socket.reconnect_ivl = -1
            self._socket.connect_timeout = _CONNECT_MILLISECONDS
            self._socket.heartbeat_ivl = _PING_SECONDS * 1000
            self._socket.heartbeat_timeout = _SILENCE_SECONDS * 1000
            self._socket.curve_serverkey = _public(keys.master)
            self._socket.curve_publickey = _public(keys.node)
            self._socket.curve_secretkey = keys.node
            self._monitor = _Monitor(self._context, self._socket, _NODE_EVENTS)
            undo.callback(self._monitor.close)
            self._socket.connect(str(endpoint))
            undo.pop_all()

    @classmethod
    async def open(cls, endpoint: Endpoint, keys: Keys) -> Push:
        """Connect and shake hands. Raises LinkLost, with a text for an administrator."""
        try:
            self = cls(endpoint, keys)
        except zmq.ZMQError as error:  # such as too many open files
            raise LinkLost(f"no connection: {error}") from error
        try:
            async with asyncio.timeout(2 * HANDSHAKE_SECONDS):
                await self._shake_hands()
        except TimeoutError:
            self.close()
            raise LinkLost(f"no answer from {endpoint}") from None
        except BaseException:
            self.close()
            raise
        return self

    async def send(self, frame: bytes) -> None:
        """Hand a message to the socket; waits while its buffers are full. For one task, which ends before `close`.

        Does not give way to other tasks while there is room.
        """
        try:
            self._now.send(frame, zmq.NOBLOCK)
        except zmq.Again:
            await self._socket.send(frame)

    async def cut(self) -> str:
        """Return when nothing gets through to the master, with the reason. TCP itself goes on for a long time."""
        while not is_cut(self._descriptor):  # noqa: ASYNC110 (of this, nobody is told)
            await asyncio.sleep(_LOOK_SECONDS)
        return "nothing gets through"

    async def lost(self) -> str:
        """Return when the connection is gone, with the reason."""
        while True:
            event, _ = await self._monitor.next()
            if event in (zmq.EVENT_DISCONNECTED, zmq.EVENT_CLOSED, zmq.EVENT_MONITOR_STOPPED):
                return "the connection was closed"

    def close(self, *, linger: float = 0) -> None:
        """Throw the socket away. What it still held is gone, but for what leaves within `linger` seconds."""
        self._monitor.close()
        self._socket.close(linger=int(linger * 1000))

    async def _shake_hands(self) -> None:
        connected = False
        while True:
            event, value = await self._monitor.next()
            if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                return
            if event == zmq.EVENT_CONNECTED:
                connected = True
                self._descriptor = value
            elif connected:
                raise LinkLost("closed during the handshake: wrong secret, or no vmwatch-master there")
            else:
                raise LinkLost("no connection: nothing listens there, or the network is down")


class Pull:
    """The master's socket: admits who has the secret, and gives what arrives."""

    def __init__(self, endpoint: Endpoint, keys: Keys, *, on_refused: Callable[[str], None]) -> None:
        """Bind. `on_refused` hears of each connection whose handshake failed: the peer, as far as it is known.

        Raises CannotListen.
        """
        self._context = _Context.instance()
        self._on_refused = on_refused
        try:
            self._open(endpoint, keys)
        except (OSError, zmq.ZMQError) as error:
            raise CannotListen(f"cannot listen on {endpoint}: {error.strerror}") from error

    def _open(self, endpoint: Endpoint, keys: Keys) -> None:
        with ExitStack() as undo:
            self._admission = AsyncioAuthenticator(self._context)
            undo.callback(self._admission.stop)
            self._admission.start()
            self._admission.configure_curve_callback(_ZAP_DOMAIN, credentials_provider=_Admission(keys))
            self._socket = undo.enter_context(self._context.socket(zmq.PULL))
            self._now = _without_waiting(self._socket)
            _bound_buffers(self._socket, endpoint)
            self._socket.curve_server = True
            self._socket.curve_secretkey = keys.master
            self._socket.zap_domain = _ZAP_DOMAIN.encode()
            self._socket.zap_enforce_domain = True  # nobody gets in while there is nobody to ask
            self._monitor = _Monitor(self._context, self._socket, _MASTER_EVENTS)
            undo.callback(self._monitor.close)
            listener = undo.enter_context(
                listen(endpoint.host, endpoint.port, buffer=KERNEL_BUFFER, backlog=_BACKLOG)
            )
            self._socket.use_fd = listener.fileno()
            self._socket.bind(str(endpoint))
            listener.detach()  # the descriptor is libzmq's
            self._undo = undo.pop_all()

    async def receive(self) -> Iterator[bytes]:
        """Wait for a message, and give it with those that arrive before it has been dealt with: BATCH at most.

        Unverified. To be used up before anything is awaited: while one is dealt with, more come in.
        """
        await asyncio.sleep(0)  # others have their turn, though there is always something
        first = next(self._arrived(1), None)
        if first is None:
            first = cast("bytes", await self._socket.recv())
        return itertools.chain([first], self._arrived(BATCH - 1))

    def _arrived(self, limit: int) -> Iterator[bytes]:
        with suppress(zmq.Again):
            for _ in range(limit):
                yield bytes(self._now.recv(zmq.NOBLOCK))

    async def watch(self) -> None:
        """Tell of refused connections, until cancelled."""
        peers = _Peers()
        refusals = itertools.count(1)
        while True:
            event, value = await self._monitor.next()
            if event == zmq.EVENT_ACCEPTED:
                peers.accepted(value, _peer_name(value))
            elif event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                peers.admitted()
            elif event & _HANDSHAKE_FAILED:
                peers.failed()
            elif event == zmq.EVENT_DISCONNECTED and (refused := peers.ended(value)) is not None:
                self._on_refused(refused)
                if next(refusals) % _REFUSALS_A_CLEANING == 0:
                    _give_memory_back()

    def close(self) -> None:
        """Close the socket: nodes see it, and keep what they have."""
        self._undo.close()


def flush() -> None:
    """At the end of a service: wait until every closed socket has sent what its linger lets it."""
    _Context.instance().term()


class _Peers:
    """Which of the master's connections end before they were admitted, and whose they are.

    libzmq names the descriptor when a connection begins and when it ends, but not whose handshake succeeded or
    failed, and noise that does not even greet ends without a failure. So a success is taken to be of the last one
    accepted, until the end of another shows that it was not.
    """

    def __init__(self) -> None:
        self._waiting: dict[int, str] = {}  # descriptor -> peer, as accepted
        self._admitted: dict[int, str] = {}
        self._failures = 0

    def accepted(self, descriptor: int, peer: str) -> None:
        self._waiting[descriptor] = peer

    def admitted(self) -> None:
        if self._waiting:
            descriptor, peer = self._waiting.popitem()
            self._admitted[descriptor] = peer

    def failed(self) -> None:
        self._failures += 1  # its end comes next

    def ended(self, descriptor: int) -> str | None:
        """The peer, if it was not admitted."""
        failed = self._failures > 0
        self._failures -= failed
        if descriptor in self._waiting:
            return self._waiting.pop(descriptor)
        peer = self._admitted.pop(descriptor, "unknown")
        if not failed:
            return None
        self.admitted()  # the success was of another one
        return peer


class _Admission:
    """Admits the one client key that the secret gives to nodes."""

    def __init__(self, keys: Keys) -> None:
        self._node = _public(keys.node)

    def callback(self, domain: str, key: bytes) -> bool:
        """What the authenticator asks; the key is in Z85."""
        return domain == _ZAP_DOMAIN and key == self._node


def _bound_buffers(sock: zmq.asyncio.Socket, endpoint: Endpoint) -> None:
    sock.linger = 0
    sock.ipv6 = ":" in endpoint.host
    sock.sndhwm, sock.rcvhwm = NODE_QUEUE, MASTER_QUEUE
    sock.sndbuf = sock.rcvbuf = KERNEL_BUFFER
    sock.maxmsgsize = _CUT_BYTES
    sock.handshake_ivl = HANDSHAKE_SECONDS * 1000


def _without_waiting(sock: zmq.asyncio.Socket) -> zmq.Socket[bytes]:
    """The same socket, for what need not wait: a future for each message costs ten times the message.

    Only while nothing awaits the asyncio socket, or it misses what this one has seen.
    """
    return zmq.Socket.shadow(sock.underlying)


def _public(secret_key: bytes) -> bytes:
    return zmq.curve_public(z85.encode(secret_key))  # type: ignore[no-untyped-call]


def _give_memory_back() -> None:
    """To the kernel, what strangers had: 30 KiB each, between what stays, so that glibc keeps it (malloc_trim(3))."""
    with suppress(AttributeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


def _peer_name(descriptor: int) -> str:
    """Who is at the other end of an accepted connection, while it is still open."""
    try:
        # Of which family it is, getpeername finds by itself; to have Python ask takes three calls more.
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM, fileno=descriptor) as accepted:
            try:
                return str(accepted.getpeername()[0])
            finally:
                accepted.detach()  # the descriptor is libzmq's
    except OSError:
        return "unknown, it was gone at once"
