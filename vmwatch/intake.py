# SPDX-License-Identifier: Apache-2.0
"""Messages in, calls to the panel out: what the master makes of a batch that arrived, in one transaction.

What a message means is decided by the pure modules (protocol, sequence, cluster) on what the ledger has; here they
are put together. A message that is not accepted changes nothing but a count.
"""

from __future__ import annotations

import dataclasses
import logging
from collections import Counter
from typing import TYPE_CHECKING, Final

from vmwatch import calls, cluster, problems, sequence
from vmwatch.duplicates import Duplicates
from vmwatch.errors import BadBody, ProtocolError
from vmwatch.messages import (
    Begin,
    Body,
    Event,
    Gap,
    Heartbeat,
    KnownSet,
    LibvirtState,
    Source,
    Statistics,
)
from vmwatch.protocol import Kind, Message, read, verify
from vmwatch.strict import encode
from vmwatch.throttle import Throttle

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import datetime

    from vmwatch.ledger import Ledger, Transaction
    from vmwatch.presence import Presence
    from vmwatch.protocol import Envelope
    from vmwatch.sequence import Decision

WARNING_SECONDS: Final = 10.0
"""Between two log lines about messages that were refused for the same reason."""

DEFAULT_INTERVAL: Final = 10.0
"""Seconds between the heartbeats of a node that has not said otherwise yet."""

LEAST_INTERVAL: Final = 0.1
"""Seconds: no node beats more often (config), whatever it says."""

log = logging.getLogger(__name__)


class Intake:
    """Takes what arrived. `refused` counts, by reason, the messages that were not accepted.

    While nobody is listening, nobody is silent: set `listening` accordingly.
    """

    def __init__(
        self,
        ledger: Ledger,
        presence: Presence,
        *,
        signature: bytes,
        monotonic: Callable[[], float],
        clock: Callable[[], datetime],
    ) -> None:
        self.listening = True
        self.refused: Counter[str] = Counter()
        self._ledger = ledger
        self._presence = presence
        self._signature = signature
        self._monotonic = monotonic
        self._clock = clock
        self._warnings = Throttle(seconds=WARNING_SECONDS)
        self._duplicates = Duplicates()
        self._heard = True
        self._current: set[int] = set()  # of a batch: nodes that have nothing more under way, once it is kept
        for node in ledger.nodes():
            presence.heard(node, interval=DEFAULT_INTERVAL, now=monotonic())

    def accept(self, untrusted_frames: Iterable[bytes]) -> None:
        """Verify, apply and keep a batch; when it returns, it is durable. StorageError: none of it was taken."""
        self._ledger.check_room()
        self._current.clear()
        with self._ledger.transaction() as transaction:
            for untrusted_frame in untrusted_frames:
                if message := self._verified(untrusted_frame):
                    self._take(transaction, message)
        for node in self._current:
            self._presence.current(node, now=self._monotonic())

    def look_around(self) -> bool:
        """Find who is silent, and what runs twice. Whether the panel is told of anything. Raises StorageError.

        To be asked every second or so.
        """
        silent, duplicates = self.find_silent(), self.find_duplicates()
        return silent or duplicates

    def find_silent(self) -> bool:
        """Raise a problem for each node that is silent now. Whether there is any."""
        if not self.listening:
            self._presence.pause(self._monotonic())
            return False
        silent = self._presence.silent(self._monotonic())
        if not silent:
            return False
        with self._ledger.transaction() as transaction:
            for node, seconds in silent.items():
                problems.begin(transaction, "node_silent", node, text=f"no heartbeat for {seconds:.0f} s")
        return True

    def find_duplicates(self) -> bool:
        """Raise a problem for each VM that runs on two nodes, solve those that no longer do. Whether any changed."""
        if not (self._heard or self._duplicates.watching):
            return False
        running_twice = self._ledger.running_twice()
        duplicates = self._duplicates.look(
            running_twice, now=self._monotonic(), current_since=self._presence.current_since
        )
        told = problems.raised_of_vms(self._ledger, "duplicate", None)
        raised, solved = duplicates.keys() - told, told - running_twice.keys()
        if not (raised or solved):
            self._heard = False
            return False
        with self._ledger.transaction() as transaction:
            for name in raised:
                text = f"runs at the same time on the nodes {', '.join(map(str, duplicates[name]))}"
                problems.begin(transaction, "duplicate", None, name=name, text=text)
            for name in solved:
                problems.end(transaction, "duplicate", None, name=name)
        self._heard = False
        return True

    def _verified(self, untrusted_frame: bytes) -> Message | None:
        try:
            return verify(untrusted_frame, self._signature)
        except ProtocolError as error:
            self._refuse(error)
            return None

    def _take(self, transaction: Transaction, message: Message) -> None:
        envelope = message.envelope
        if envelope.numbered:
            self._heard = True
            self._take_record(transaction, message)
            return
        body = self._read(message)
        if envelope.kind == Kind.HELLO:  # its body, which a newer node may write, decides nothing
            _follow(transaction, envelope, sequence.greet(transaction.position(envelope.node), envelope))
        elif isinstance(body, KnownSet):
            self._heard = True
            self._compare(transaction, envelope, body)
        elif isinstance(body, Heartbeat | Statistics):
            self._take_latest(transaction, envelope, body)

    def _read(self, message: Message) -> Body | None:
        try:
            return read(message)
        except BadBody as error:
            self._refuse(error)
            return None

    def _take_record(self, transaction: Transaction, message: Message) -> None:
        """A record of the stream, if it is the next one. Most bodies of those that are not are never read."""
        envelope = message.envelope
        is_begin = envelope.kind == Kind.BEGIN
        begin = self._read(message) if is_begin else None
        decision = sequence.receive(
            transaction.position(envelope.node), envelope, begin if isinstance(begin, Begin) else None
        )
        _follow(transaction, envelope, decision)
        if not decision.take:
            return
        body = begin if is_begin else self._read(message)
        if isinstance(body, Event):
            _apply(transaction, envelope, body, message.untrusted_body.decode())  # by now it is trusted
        elif isinstance(body, Gap):
            text = f"{body.count} events were dropped from the outbox: {body.reason}"
            problems.tell(transaction, "events_lost", envelope.node, text=text)
        elif body is None:
            # The stream goes on: a record that a newer node wrote must not hold up those behind it.
            transaction.keep_unread(message)
            text = f"record {envelope.seq} of run {envelope.run} cannot be read by this version"
            problems.tell(transaction, "unreadable_record", envelope.node, text=text)

    def _compare(self, transaction: Transaction, envelope: Envelope, known: KnownSet) -> None:
        """Correct what the ledger has of a node by what the node knows, as of one and the same record."""
        position = transaction.position(envelope.node)
        if position is None or (position.run, position.seq) != (envelope.run, envelope.seq):
            return
        kept = transaction.vms_on(envelope.node)
        domains = {domain.uuid: (domain.name, domain.state) for domain in known.domains}
        names = {name for name, _ in domains.values()}
        for uuid in kept.keys() | domains.keys():
            name, state = domains.get(uuid, (kept[uuid][0] if uuid in kept else "", None))
            told = cluster.untold(kept[uuid][1] if uuid in kept else None, state)
            if told is not None:
                # Nothing to the panel of a VM whose name another one has by now; nor of a copy that never ran, was
                # a failed migration's target, and is off, while the VM lives elsewhere.
                superseded = state is None and name in names
                never_ran = uuid not in kept and cluster.is_alive(transaction.copies(uuid))
                event = self._correction(uuid, name, told)
                body = None if superseded or never_ran else encode(event).decode()
                _apply(transaction, envelope, event, body)

    def _correction(self, uuid: str, name: str, told: tuple[str, str]) -> Event:
        return Event(
            uuid=uuid,
            name=name,
            type=told[0],
            subtype=told[1],
            time=self._clock(),
            cause=None,
            source=Source.SNAPSHOT,
            since=None,
            domain_id=None,
        )

    def _take_latest(
        self, transaction: Transaction, envelope: Envelope, body: Heartbeat | Statistics
    ) -> None:
        """What is not numbered in the stream goes forward only: late data of dead sessions changes nothing."""
        if not transaction.goes_forward(envelope.node, envelope.run, envelope.seq, heard=self._clock()):
            return
        if isinstance(body, Statistics):
            _enqueue_statistics(transaction, envelope.node, body)
            return
        self._presence.heard(
            envelope.node, interval=max(body.interval_ms / 1000, LEAST_INTERVAL), now=self._monotonic()
        )
        position = transaction.position(envelope.node)
        if position is not None and (position.run, position.seq) == (envelope.run, body.top):
            self._current.add(envelope.node)
        problems.end(transaction, "node_silent", envelope.node)
        if body.libvirt is LibvirtState.LOST:
            text = "vmwatch-node has no connection to libvirt"
            problems.begin(transaction, "libvirt_lost", envelope.node, text=text)
        else:
            problems.end(transaction, "libvirt_lost", envelope.node)
        self._hear_of_silent_vms(transaction, envelope.node, set(body.not_responding))

    def _hear_of_silent_vms(self, transaction: Transaction, node: int, silent: set[str]) -> None:
        told = problems.raised_of_vms(self._ledger, "vm_not_responding", node)
        for name in sorted(silent - told):
            text = "its QEMU does not answer libvirt: it may run on, but cannot be stopped or moved"
            problems.begin(transaction, "vm_not_responding", node, name=name, text=text)
        for name in sorted(told - silent):
            problems.end(transaction, "vm_not_responding", node, name=name)

    def _refuse(self, error: ProtocolError) -> None:
        self.refused[error.reason] += 1
        held = self._warnings.admit(error.reason, now=self._monotonic())
        if held is not None:
            count = self.refused[error.reason]
            log.warning("message refused: reason=%s count=%d text=%s", error.reason, count, error)


def _follow(transaction: Transaction, envelope: Envelope, decision: Decision) -> None:
    if decision.position is not None:
        transaction.keep_position(envelope.node, decision.position)
    if decision.anomaly is None:
        return
    first = transaction.tell_anomaly(f"{decision.anomaly} {envelope.node} {envelope.run}")
    if first or decision.take:  # what is taken happens once; what is not may come again and again
        problems.tell(transaction, decision.anomaly, envelope.node, text=decision.text)


def _apply(transaction: Transaction, envelope: Envelope, event: Event, body: str | None) -> None:
    """One VM's event: its copies, and the call that tells the panel (`body`; None: it is not told)."""
    copies = cluster.apply(transaction.copies(event.uuid), envelope.node, event.type, event.subtype)
    transaction.keep_copies(event.uuid, event.name, copies)
    if body is not None:
        transaction.enqueue_event(
            event.name,
            body,
            hostnode=envelope.node,
            event_id=f"{envelope.node}.{envelope.run}.{envelope.seq}",
            status=cluster.place_name(copies, transaction.namesakes(event.uuid, event.name)).status.value,
        )


def _enqueue_statistics(transaction: Transaction, node: int, statistics: Statistics) -> None:
    """The latest statistics are all that the panel wants: those that still wait are superseded."""
    key = f"statistics {node}"
    domains = [dataclasses.asdict(domain) for domain in statistics.domains]
    fields = calls.statistics_fields(hostnode=node, time=statistics.time, domains=domains)
    transaction.enqueue_latest(key, "vmwatch.statistics", fields)
