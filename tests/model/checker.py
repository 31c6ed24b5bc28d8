# SPDX-License-Identifier: Apache-2.0
"""A small explicit-state model checker: breadth first, so that a trace that it shows is a shortest one.

It knows nothing of vmwatch. A state is any hashable value. Two things are checked: no reachable state is wrong
(safety), and from every reachable state one that lacks nothing can be reached by steps of progress alone, that is
without a fault or a favour of the world outside (no deadlock; no livelock, if what can always happen does happen).
"""

from __future__ import annotations

import gc
from array import array
from collections import deque
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

S = TypeVar("S", bound=Hashable)


class Step(NamedTuple, Generic[S]):
    """What can happen in a state: its name, the state after it, and whether it must happen in the end."""

    name: str
    state: S
    progress: bool


Steps = Callable[[S], Iterator[Step[S]]]
Progress = Callable[[int, int], None]
"""Hears, now and then, how many states were found and how many of them wait to be explored."""

TELL_EVERY = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What was found. `wrong`: None, or what is; `trace`: the steps that lead there. `complete`: all explored."""

    states: int
    transitions: int
    depth: int
    complete: bool
    wrong: str | None = None
    trace: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Several lines: the numbers, and the trace if there is one."""
        how = "complete" if self.complete else "stopped"
        numbers = f"{self.states:,} states, {self.transitions:,} transitions, depth {self.depth}, {how}"
        if self.wrong is None:
            return numbers
        steps = [f"{number:3} {name}" for number, name in enumerate(self.trace, 1)]
        return "\n".join([f"WRONG: {self.wrong}", *steps, numbers])


def silent(_states: int, _waiting: int) -> None:
    """Progress that nobody hears."""


@contextmanager
def _no_collector() -> Iterator[None]:
    """States are tuples of tuples: looking for cycles in them costs a third of the time, and finds none."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


class _Graph(Generic[S]):
    """The states found, numbered as they were found; by which state each was reached; the steps of progress."""

    def __init__(self, initial: S) -> None:
        self.numbers: dict[S, int] = {initial: 0}
        self.states = [initial]
        self.parents = array("l", [-1])
        self.depths = array("h", [0])
        self.sources = array("l")
        self.targets = array("l")
        self.transitions = 0

    def add(self, source: int, step: Step[S]) -> int | None:
        """The number of the state after the step if it is new."""
        self.transitions += 1
        number = self.numbers.setdefault(step.state, len(self.states))
        if step.progress:
            self.sources.append(source)
            self.targets.append(number)
        if number < len(self.states):
            return None
        self.states.append(step.state)
        self.parents.append(source)
        self.depths.append(self.depths[source] + 1)
        return number

    def trace(self, number: int, steps: Steps[S]) -> tuple[str, ...]:
        """The steps from the first state to this one."""
        names = []
        while (parent := self.parents[number]) >= 0:
            state = self.states[number]
            names.append(next(step.name for step in steps(self.states[parent]) if step.state == state))
            number = parent
        return tuple(reversed(names))

    def end_of_progress(self, number: int) -> int | None:
        """A nearest state where progress ends, among those that lead to no good one. None: it goes round for ever."""
        following: dict[int, list[int]] = {}
        for source, target in zip(self.sources, self.targets, strict=True):
            following.setdefault(source, []).append(target)
        seen, waiting = {number}, deque([number])
        while waiting:
            number = waiting.popleft()
            if number not in following:
                return number
            new = [target for target in following[number] if target not in seen]
            seen.update(new)
            waiting.extend(new)
        return None

    def stranded(self, lacking: Callable[[S], str | None]) -> int | None:
        """The first state from which none that lacks nothing can be reached by progress."""
        by_target = sorted(range(len(self.targets)), key=self.targets.__getitem__)
        starts = array("l", bytes(array("l").itemsize * (len(self.states) + 1)))
        for target in self.targets:
            starts[target + 1] += 1
        for number in range(len(self.states)):
            starts[number + 1] += starts[number]
        reaches = bytearray(lacking(state) is None for state in self.states)
        waiting = deque(number for number, reached in enumerate(reaches) if reached)
        while waiting:
            number = waiting.popleft()
            for edge in by_target[starts[number] : starts[number + 1]]:
                source = self.sources[edge]
                if not reaches[source]:
                    reaches[source] = True
                    waiting.append(source)
        first = reaches.find(0)
        return None if first < 0 else first


def explore(
    initial: S,
    *,
    steps: Steps[S],
    wrong: Callable[[S], str | None],
    lacking: Callable[[S], str | None],
    depth: int = 1000,
    tell: Progress = silent,
) -> Report:
    """Explore what can be reached in `depth` steps. `wrong`: what is wrong in a state; `lacking`: what is not done.

    Whether good ends can be reached is judged only where all was explored.
    """
    with _no_collector():
        return _Search(initial, steps, wrong, lacking).run(depth, tell)


class _Search(Generic[S]):
    """One exploration."""

    def __init__(
        self,
        initial: S,
        steps: Steps[S],
        wrong: Callable[[S], str | None],
        lacking: Callable[[S], str | None],
    ) -> None:
        self._graph = _Graph(initial)
        self._steps = steps
        self._wrong = wrong
        self._lacking = lacking

    def run(self, depth: int, tell: Progress) -> Report:
        """Safety while exploring; when all is explored, whether each state leads to a good end."""
        graph, current = self._graph, 0
        while current < len(graph.states) and graph.depths[current] < depth:
            if current % TELL_EVERY == 0:
                tell(len(graph.states), len(graph.states) - current)
            for step in self._steps(graph.states[current]):
                new = graph.add(current, step)
                if new is not None and (text := self._wrong(step.state)):
                    return self._report(complete=False, number=new, text=text)
            current += 1
        if current < len(graph.states):
            return self._report(complete=False)
        if (stranded := graph.stranded(self._lacking)) is None:
            return self._report(complete=True)
        return self._no_good_end(stranded)

    def _no_good_end(self, stranded: int) -> Report:
        end = self._graph.end_of_progress(stranded)
        if end is None:
            return self._report(complete=True, number=stranded, text="from here it goes round for ever")
        text = f"the end: {self._lacking(self._graph.states[end])}"
        return self._report(complete=True, number=end, text=text)

    def _report(self, *, complete: bool, number: int | None = None, text: str | None = None) -> Report:
        return Report(
            states=len(self._graph.states),
            transitions=self._graph.transitions,
            depth=self._graph.depths[-1],
            complete=complete,
            wrong=text,
            trace=() if number is None else self._graph.trace(number, self._steps),
        )
