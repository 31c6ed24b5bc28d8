# SPDX-License-Identifier: Apache-2.0
"""The panel's history against what an independent observer of libvirt wrote. Pure; tested by itself.

Two questions, each with an answer of its own:

- `compare`: does the panel have, for each VM of each node, what libvirt told, once and in libvirt's order? What
  libvirt told while the node was away may be missing; then a snapshot may have found what came of it.
- `holes`: does the panel have every record that a node had kept? This one excuses nothing: whatever was committed
  to an outbox must arrive, though the node was killed the moment after.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from tests.faults.history import Heard, Span, Told, Verdict, Violation, Wrong, within

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    Spans = Mapping[int, Sequence[Span]]

LIFECYCLE: Final = frozenset(
    {
        "defined",
        "undefined",
        "started",
        "suspended",
        "resumed",
        "stopped",
        "shutdown",
        "pmsuspended",
        "crashed",
    }
)
"""What an observer listens to. The panel has other events too (reboots), which only `holes` looks at."""

EARLY_SECONDS: Final = 3.0
"""A node may hear an event so long before the observer does: both are processes of a busy machine."""

LATE_SECONDS: Final = 15.0
"""And so long after it: it may have been frozen in between."""

RECOVERY_SECONDS: Final = 5.0
"""A libvirtd that has just started finds guests gone, and tells nobody: its list shows it, no event does."""

AROUND_SECONDS: Final = 2.0
"""How much of both books is shown beside a violation, before and after it."""

_ENDS: Final = frozenset({"stopped", "undefined"})
_WRONG: Final = 10**12  # what a violation costs in an alignment, beside what an excused absence costs,
_EXCUSED: Final = 10**8  # and that beside each millisecond between what was heard and what was told


@dataclass(slots=True)
class _Pair:
    """One VM on one node: what was heard, and what was told."""

    heard: list[Heard] = field(default_factory=list)
    told: list[Told] = field(default_factory=list)


def compare(
    heard: Iterable[Heard],
    told: Iterable[Told],
    *,
    away: Spans,
    unheard: Spans,
    replaced: Spans = MappingProxyType({}),
) -> Verdict:
    """Compare what was heard, in the order of hearing, with the panel's history, in any order.

    `away`: by node, when vmwatch-node was not connected to libvirt. `unheard`: when the observer was not. `replaced`:
    while its outbox was taken from it: what it finds when it is back it may have told before, and cannot know.
    """
    pairs: dict[tuple[int, str], _Pair] = defaultdict(_Pair)
    for event in heard:
        pairs[event.node, event.vm].heard.append(event)
    for line in told:
        if line.type in LIFECYCLE:
            pairs[line.node, line.vm].told.append(line)
    verdicts = [
        _Comparison(
            pair, away=away.get(node, ()), unheard=unheard.get(node, ()), replaced=replaced.get(node, ())
        ).verdict()
        for (node, _), pair in sorted(pairs.items())
    ]
    return Verdict(
        violations=tuple(violation for verdict in verdicts for violation in verdict.violations),
        matched=sum(verdict.matched for verdict in verdicts),
        missed=sum(verdict.missed for verdict in verdicts),
        found=sum(verdict.found for verdict in verdicts),
    )


def holes(told: Iterable[Told], kept: Mapping[tuple[int, str], int]) -> list[Violation]:
    """The records that never arrived. `kept`: (node, run) -> the last number that its outbox was seen to hold."""
    arrived: dict[tuple[int, str], set[int]] = defaultdict(set)
    for line in told:
        arrived[line.node, line.run].add(line.seq)
    found = []
    for stream in sorted(arrived.keys() | kept.keys()):
        top = max(kept.get(stream, 0), max(arrived[stream], default=0))
        missing = sorted(set(range(1, top + 1)) - arrived[stream])
        if missing:
            text = f"records {_ranges(missing)} of run {stream[1]} never arrived"
            found += [Violation(wrong=Wrong.HOLE, node=stream[0], vm="", text=text)]
    return found


class _Comparison:
    """Of one VM on one node."""

    def __init__(
        self, pair: _Pair, *, away: Sequence[Span], unheard: Sequence[Span], replaced: Sequence[Span]
    ) -> None:
        self._heard = pair.heard
        self._lines = pair.told
        self._away = away
        self._unheard = unheard
        self._replaced = replaced
        self._violations: list[Violation] = []
        self._told = self._in_order(sorted(pair.told, key=lambda line: line.id))

    def verdict(self) -> Verdict:
        events = [line for line in self._told if not line.is_found]
        matches = self._align(events)
        partner = {told: heard for heard, told in matches}
        lost = self._lost({heard for heard, _ in matches})
        extra = [
            event
            for index, event in enumerate(events)
            if index not in partner and not within(event.time, self._unheard)
        ]
        self._blame(lost, extra)
        found = [line for line in self._told if line.is_found]
        self._check_found({events[told].id: heard for told, heard in partner.items()})
        return Verdict(
            violations=tuple(self._violations),
            matched=len(matches),
            missed=len(self._heard) - len(matches) - len(lost),
            found=len(found),
        )

    def _in_order(self, told: list[Told]) -> list[Told]:
        """What the numbers say: each once, each after the one before. In their order then."""
        last: tuple[str, int] | None = None
        seen: set[tuple[str, int]] = set()
        once = []
        for line in told:
            number = (line.run, line.seq)
            if number in seen:
                self._violate(Wrong.DOUBLED, f"{line}: the same number is there already", line)
                continue
            if last is not None and number < last:
                self._violate(Wrong.SWAPPED, f"{line}: a later one came before it", line)
            seen.add(number)
            last = max(last or number, number)
            once.append(line)
        return sorted(once, key=lambda line: (line.run, line.seq))

    def _align(self, events: list[Told]) -> list[tuple[int, int]]:
        """The pairs (heard, told) of the cheapest alignment."""
        head = 0
        while self._must_match(events, head, head):
            head += 1
        tail = 0
        while tail < min(len(self._heard), len(events)) - head and self._must_match(
            events, len(self._heard) - 1 - tail, len(events) - 1 - tail
        ):
            tail += 1
        middle = self._align_middle(
            self._heard[head : len(self._heard) - tail], events[head : len(events) - tail]
        )
        ends = [(index, index) for index in range(head)] + [
            (len(self._heard) - index, len(events) - index) for index in range(tail, 0, -1)
        ]
        return sorted(ends + [(heard + head, told + head) for heard, told in middle])

    def _must_match(self, events: list[Told], heard: int, told: int) -> bool:
        """Whether nothing excuses these two from being partners: then no search is needed."""
        if heard >= len(self._heard) or told >= len(events):
            return False
        one, other = self._heard[heard], events[told]
        excused = within(one.time, self._away) or within(other.time, self._unheard)
        return not excused and _alike(one, other)

    def _align_middle(self, heard: Sequence[Heard], told: Sequence[Told]) -> list[tuple[int, int]]:
        """By the table of what is left of both, from the ends to the beginnings."""
        skip = [_EXCUSED if within(event.time, self._away) else _WRONG for event in heard]
        drop = [_EXCUSED if within(event.time, self._unheard) else _WRONG for event in told]
        costs = [[0] * (len(told) + 1) for _ in range(len(heard) + 1)]
        for i in range(len(heard), -1, -1):
            for j in range(len(told), -1, -1):
                options = []
                if i < len(heard):
                    options.append(costs[i + 1][j] + skip[i])
                if j < len(told):
                    options.append(costs[i][j + 1] + drop[j])
                if i < len(heard) and j < len(told) and _alike(heard[i], told[j]):
                    options.append(costs[i + 1][j + 1] + _distance(heard[i], told[j]))
                costs[i][j] = min(options, default=0)
        return _walk(costs, heard, told, skip)

    def _lost(self, matched: set[int]) -> list[Heard]:
        return [
            event
            for index, event in enumerate(self._heard)
            if index not in matched and not within(event.time, self._away)
        ]

    def _blame(self, lost: list[Heard], extra: list[Told]) -> None:
        """One that is missing here and too many there was swapped; what remains was lost, or doubled."""
        for event in lost:
            twin = next((line for line in extra if _same(event, line)), None)
            if twin is None:
                self._violate(Wrong.LOST, f"{event} was not told", event)
                continue
            extra.remove(twin)
            self._violate(Wrong.SWAPPED, f"{event} was told in another place: {twin}", event)
        for line in extra:
            self._violate(Wrong.DOUBLED, f"{line} happened once less than it was told", line)

    def _check_found(self, partner: Mapping[int, int]) -> None:
        """A snapshot's finding stands for what was missed between its neighbours, or while nobody heard."""
        missed = set(range(len(self._heard))) - set(partner.values())
        before = before_its_end = -1
        for place, line in enumerate(self._told):
            if line.id in partner:
                before = partner[line.id]
                before_its_end = before_its_end if line.type == "undefined" else before
            if not line.is_found or within(line.time, self._replaced):
                continue
            following = (partner[later.id] for later in self._told[place:] if later.id in partner)
            # Who comes back and hears that a VM was undefined has not found yet that it had stopped.
            start = before_its_end if line.type in _ENDS else before
            end = next(following, len(self._heard))
            if missed & set(range(start + 1, end)) or self._is_gone_with_its_stop(place, before, end):
                continue
            since = self._heard[before].time if before >= 0 else 0.0
            unheard = (Span(start=span.start, end=span.end + RECOVERY_SECONDS) for span in self._unheard)
            if not any(span.end >= since and span.start <= line.time for span in unheard):
                self._violate(Wrong.DOUBLED, f"{line} was found though nothing had been missed", line)

    def _is_gone_with_its_stop(self, place: int, before: int, after: int) -> bool:
        """Of a transient domain libvirt tells no more than that it stopped (docs/decisions/0004)."""
        stopped = before >= 0 and self._heard[before].type == "stopped"
        told = after < len(self._heard) and self._heard[after].type == "undefined"
        undefined = [line.type == "undefined" for line in self._told[max(0, place - 1) : place + 1]]
        return stopped and not told and undefined == [False, True]

    def _violate(self, wrong: Wrong, text: str, event: Heard | Told) -> None:
        text = f"{text}; {self._around(event.time)}"
        self._violations.append(Violation(wrong=wrong, node=event.node, vm=event.vm, text=text))

    def _around(self, time: float) -> str:
        """What was heard and told about then, for who looks for the cause."""
        heard = [str(event) for event in self._heard if abs(event.time - time) < AROUND_SECONDS]
        told = [
            f"{line}{' found' if line.is_found else ''}"
            for line in sorted(self._lines, key=lambda line: line.id)
            if abs(line.time - time) < AROUND_SECONDS
        ]
        spans = [
            f"{name} {span.start:.3f}..{span.end:.3f}"
            for name, spans in (("away", self._away), ("unheard", self._unheard))
            for span in spans
            if span.start - AROUND_SECONDS < time < span.end + AROUND_SECONDS
        ]
        return f"heard [{', '.join(heard)}] told [{', '.join(told)}] {' '.join(spans)}"


def _walk(
    costs: list[list[int]], heard: Sequence[Heard], told: Sequence[Told], skip: Sequence[int]
) -> list[tuple[int, int]]:
    """The pairs on the cheapest way through the table."""
    pairs = []
    i = j = 0
    while i < len(heard) and j < len(told):
        matched = costs[i + 1][j + 1] + _distance(heard[i], told[j])
        if _alike(heard[i], told[j]) and costs[i][j] == matched:
            pairs.append((i, j))
            i, j = i + 1, j + 1
        elif costs[i][j] == costs[i + 1][j] + skip[i]:
            i += 1
        else:
            j += 1
    return pairs


def _same(heard: Heard, told: Told) -> bool:
    return (heard.type, heard.subtype) == (told.type, told.subtype)


def _alike(heard: Heard, told: Told) -> bool:
    return _same(heard, told) and -EARLY_SECONDS <= told.time - heard.time <= LATE_SECONDS


def _distance(heard: Heard, told: Told) -> int:
    """Milliseconds: of two events that are alike, the nearer one is the one."""
    return round(1000 * abs(told.time - heard.time))


def _ranges(numbers: Sequence[int]) -> str:
    """Ascending numbers as people write them: 3, 7-9."""
    starts = [number for number in numbers if number - 1 not in set(numbers)]
    ends = [number for number in numbers if number + 1 not in set(numbers)]
    return ", ".join(f"{a}" if a == b else f"{a}-{b}" for a, b in zip(starts, ends, strict=True))
