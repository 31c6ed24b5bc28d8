# SPDX-License-Identifier: Apache-2.0
"""A round: changes and faults at once, then rest, then everything is looked at.

Two times are taken: when everything is back (`quiet`), and when the panel shows the truth. Between them lies what the
services need to find it, and what the calls need that waited, for none is left out: so their number is noted too.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final

import libvirt
import requests

from tests.faults import checker, evidence, truth
from tests.faults.books import BESIDE, Observed, Registered
from tests.faults.history import Verdict, Violation, Wrong
from tests.faults.nemesis import TICK, Nemesis
from tests.faults.plan import Kind
from tests.faults.workload import raise_barrier
from tests.lab.errors import LabError
from tests.lab.waiting import DeadlinePassed, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from tests.faults.plan import Round
    from tests.faults.stand import Stand
    from tests.faults.workload import Workload

DAMAGE: Final = frozenset({"problem events_lost", "problem outbox_replaced", "problem two_nodes_one_id"})
"""What has to be raised when an outbox was damaged, and stays until a person has seen it.

The last one: an outbox that went back behind its last start cannot be told from another host's.
"""

BACK_SECONDS: Final = 60.0
"""All services run again, however badly the machine is loaded."""

WANTED_SECONDS: Final = 1.0
"""In which the truth is wanted, once everything is back. A truth that took longer is worth a line."""

SLOW_SECONDS: Final = 2.0
FEW: Final = 1000
"""A truth that took longer though fewer events waited was held up by something else: its round leaves evidence."""

SLOW_LOOK_SECONDS: Final = 0.5
"""A look that took longer says who was asleep: the diary has it."""

SAID: Final = 8
"""Violations of one round that are told in words; the others are counted."""

BARRIER_SECONDS: Final = 2.0

SETTLE_SECONDS: Final = 20.0
"""The panel shows the truth, and has all. How long it really took is what the result says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """How a round came to the truth: seconds since everything was back, events that the panel took after that."""

    seconds: float
    waited: int

    @property
    def wants_cause(self) -> bool:
        """Whether what waited does not say why it took so long."""
        return self.seconds > SLOW_SECONDS and self.waited < FEW


@dataclass(slots=True)
class Result:
    """What came out of the rounds so far. `settled`: by the kind of a round's last fault."""

    rounds: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    settled: dict[str, list[Settled]] = field(default_factory=dict)
    matched: int = 0
    missed: int = 0
    found: int = 0
    violations: list[tuple[int, Round, Violation]] = field(default_factory=list)
    evidence: list[Path] = field(default_factory=list)
    """Folders, one for each of the first rounds with a violation."""
    slow: list[Path] = field(default_factory=list)
    """The same for the first rounds whose truth was slow, and nothing says why: no violation."""

    def count(self, wrong: Wrong) -> int:
        return sum(violation.wrong is wrong for _, _, violation in self.violations)


class Trial:
    """Rounds on a stand. `say` hears of each violation as it is found."""

    def __init__(self, stand: Stand, workloads: Sequence[Workload], *, say: Callable[[str], None]) -> None:
        self.result = Result()
        self._stand = stand
        self._workloads = workloads
        self._say = say
        self._nemesis = Nemesis(stand)
        self._registered = Registered(stand.client)
        self._blamed: set[str] = set()
        """What was wrong once and stays so: an alarm, a hole. Told once."""

    def play(self, faults: Round) -> None:
        """One round, to its end."""
        self._stand.diary.write(f"round {self.result.rounds + 1} [{_trace(faults)}]")
        for workload in self._workloads:
            workload.go()
        for fault in faults:
            self._nemesis.strike(fault)
            self.result.faults[fault.kind] += 1
        for workload in self._workloads:
            workload.rest()
        self.result.rounds += 1
        self._look(faults)

    def _look(self, faults: Round) -> None:
        try:
            self._wait(self._is_quiet, BACK_SECONDS, "all services to be back, and all changes to end")
            quiet = time.time()
            self._stand.diary.write(f"quiet, load {os.getloadavg()[0]:.1f}")
            seconds = self._settle(faults)
            self._raise_barriers()
        except DeadlinePassed as error:
            self._blame(faults, Violation(wrong=Wrong.STUCK, node=0, vm="", text=str(error)))
            return
        self._compare(faults)
        if seconds is not None:
            self._note(faults, seconds, quiet)
        for text in self._stand.deaths:
            self._blame(faults, Violation(wrong=Wrong.DIED, node=0, vm="", text=text))
        self._stand.deaths.clear()
        for observed in self._stand.observed:
            observed.forget()
        self._registered.forget()

    def _raise_barriers(self) -> None:
        """Return when the observers have heard all that has happened so far."""
        for node, observed in enumerate(self._stand.observed, start=1):
            self._wait(partial(self._barrier_is_heard, node, observed), BACK_SECONDS, "the observers")

    def _barrier_is_heard(self, node: int, observed: Observed) -> bool:
        """Raise it; again, if the observer has only now noticed that it must connect anew."""
        before = observed.barriers
        with contextlib.suppress(libvirt.libvirtError):
            raise_barrier(self._stand.uri(node), has_guests=self._stand.has_guests(node))
        with contextlib.suppress(DeadlinePassed):
            self._wait(lambda: observed.barriers > before, BARRIER_SECONDS, "a barrier")
        return observed.barriers > before

    def _is_quiet(self) -> bool:
        return self._stand.is_healthy and all(workload.rests for workload in self._workloads)

    def _settle(self, faults: Round) -> float | None:
        """The panel comes to show what libvirt shows, and no problem. Returns how long it took; None: it did not."""
        start = time.monotonic()
        wrong: dict[str, str] = {}

        def settled() -> bool:
            wrong.clear()
            wrong.update(self._untrue())
            self._stand.diary.write_change("wrong", _many(wrong))
            return not wrong

        try:
            self._wait(settled, SETTLE_SECONDS, "the truth")
        except DeadlinePassed:
            self._registered.read()
            for name, status in wrong.items():
                kind = Wrong.ALARM if name.startswith("problem ") else Wrong.UNTRUE
                history = [str(line) for line in self._registered.told if line.vm == name][-8:]
                text = f"{status}; told last: {', '.join(history)}"
                self._blame(faults, Violation(wrong=kind, node=0, vm=name, text=text))
            return None
        return time.monotonic() - start

    def _note(self, faults: Round, seconds: float, quiet: float) -> None:
        waited = sum(line.registered > quiet for line in self._registered.news)
        settled = Settled(seconds=seconds, waited=waited)
        self.result.settled.setdefault(faults[-1].kind, []).append(settled)
        if seconds <= WANTED_SECONDS:
            return
        load = os.getloadavg()[0]
        took = f"the truth took {seconds:.1f} s, after {waited} events that waited (load {load:.1f})"
        text = f"{self._round(faults)} {took}"
        self._say(text)
        if settled.wants_cause:
            self._keep_evidence(self.result.slow, "slow", text)

    def _untrue(self) -> dict[str, str]:
        """By name, what the panel shows where it is wrong; its open problems too."""
        began = time.monotonic()
        try:
            nodes = range(1, len(self._stand.hosts) + 1)
            wanted = truth.wanted(self._stand.uri(node) for node in nodes)
            between = time.monotonic()
            shown = {vm.name: vm.status for vm in self._stand.client.vms()}
            problems = {f"problem {text}" for text in self._stand.client.problems()} - self._blamed
            if self.result.faults[Kind.CORRUPT_OUTBOX]:
                problems -= DAMAGE
        except (LabError, libvirt.libvirtError, requests.RequestException) as error:
            self._stand.diary.write(f"a look failed after {time.monotonic() - began:.1f} s: {error}")
            return {"": str(error)}
        if time.monotonic() - began > SLOW_LOOK_SECONDS:
            libvirt_took, panel_took = between - began, time.monotonic() - between
            self._stand.diary.write(
                f"a look took {libvirt_took:.1f} s of libvirt, {panel_took:.1f} s of the panel"
            )
        for name in BESIDE:
            wanted.pop(name, None)
            shown.pop(name, None)
        return {**truth.untrue(wanted, shown), **dict.fromkeys(problems, "open")}

    def _compare(self, faults: Round) -> None:
        """The two books say the same; what is still on its way has a moment."""
        verdict = self._verdict()

        def complete() -> bool:
            nonlocal verdict
            if verdict.count(Wrong.LOST) or verdict.count(Wrong.HOLE):
                verdict = self._verdict()
            return not verdict.count(Wrong.LOST) and not verdict.count(Wrong.HOLE)

        with contextlib.suppress(DeadlinePassed):
            self._wait(complete, SETTLE_SECONDS, "the history")
        self._stand.diary.write("compared")
        for violation in verdict.violations:
            self._blame(faults, violation)
        self.result.matched += verdict.matched
        self.result.missed += verdict.missed
        self.result.found += verdict.found

    def _verdict(self) -> Verdict:
        self._registered.read()
        heard = [event for observed in self._stand.observed for event in observed.heard]
        verdict = checker.compare(
            heard,
            self._registered.news,
            away=self._stand.away(),
            unheard=self._stand.unheard(),
            replaced=self._stand.replaced(),
        )
        found = checker.holes(self._registered.told, self._stand.kept)
        fresh = tuple(violation for violation in found if str(violation) not in self._blamed)
        return Verdict(
            violations=verdict.violations + fresh,
            matched=verdict.matched,
            missed=verdict.missed,
            found=verdict.found,
        )

    def _blame(self, faults: Round, violation: Violation) -> None:
        self._blamed |= {str(violation), violation.vm} - {""}
        text = f"{self._round(faults)} {violation}"
        of_this_round = sum(number == self.result.rounds for number, _, _ in self.result.violations)
        if not of_this_round:  # before anything else happens
            self._keep_evidence(self.result.evidence, "round", text)
        self.result.violations.append((self.result.rounds, faults, violation))
        if of_this_round < SAID:
            self._say(text)

    def _keep_evidence(self, folders: list[Path], name: str, text: str) -> None:
        if len(folders) < evidence.MOST:
            folders.append(self._stand.keep_evidence(f"{name}-{self.result.rounds}", f"{text}\n"))
            self._say(f"evidence: {folders[-1]}")

    def _round(self, faults: Round) -> str:
        return f"round {self.result.rounds} [{_trace(faults)}]"

    def _wait(self, condition: Callable[[], bool], seconds: float, what: str) -> None:
        def tended() -> bool:
            self._stand.tend()
            return condition()

        wait_for(tended, seconds=seconds, what=what, pause=TICK)


def _many(wrong: dict[str, str]) -> str:
    return "; ".join(f"{name} {text}" for name, text in sorted(wrong.items())) or "nothing"


def _trace(faults: Round) -> str:
    return ", ".join(str(fault) for fault in faults)
