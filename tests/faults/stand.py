# SPDX-License-Identifier: Apache-2.0
"""The cluster that is broken on purpose: hosts, observers, wires, nodes, master and panel, and who restarts them.

Every node speaks to the master through a wire of its own (proxy.py). A service that was killed, or that ended, is
started again by `tend`, as its unit would; so `tend` has to be called all the time.
"""

from __future__ import annotations

import contextlib
import secrets
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.faults import evidence, files
from tests.faults.books import Observed
from tests.faults.disk import Disk
from tests.faults.evidence import Diary
from tests.faults.history import Span
from tests.faults.wire import Wire
from tests.lab.errors import LabError
from tests.lab.host import Host
from tests.lab.panel_client import PanelClient
from tests.lab.processes import Service, free_port, write_config
from tests.lab.waiting import DeadlinePassed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Self

    from tests.lab.image import Image

USER: Final = "admin"
HEARTBEAT_SECONDS: Final = 1

MARGIN: Final = 0.5
"""Seconds before a node is killed in which an event may not have come to its outbox yet. The design's bound is a
millisecond; a busy machine's scheduler needs more. `checker.holes` knows no margin."""

CATCH_UP_SECONDS: Final = 3.0
"""So long a node that was frozen, or had no room, has to hear and keep what libvirt told meanwhile. If it is killed
before, what it had not kept is gone: docs/architecture.md, *Who loses what when what dies*."""

START_SECONDS: Final = 2.0
"""A service opens its file within this time after its start."""

_LIBVIRT_GONE: Final = 69


@dataclass(slots=True)
class Part:
    """A service of ours, and what has become of it."""

    name: str
    service: Service
    node: int = 0
    state: Path | None = None
    """The folder of its outbox, or ledger."""
    is_held: bool = False
    """Ended on purpose; it is started again when the nemesis lets it."""
    is_ready: bool = True
    is_doomed: bool = False
    """Its libvirtd was killed under it: it has to end."""
    libvirt_broken: Span | None = None
    """While its libvirtd was broken, and a while after, exit code 69 is what has to be."""
    hindered: Span | None = None
    """The last time that it could not hear (STOP), or not keep (no room); it ends never while that lasts."""
    away_since: float | None = None
    away: list[Span] = field(default_factory=list)
    is_replaced: bool = False
    """Its outbox was spoilt; so until it is ready again."""
    replaced: list[Span] = field(default_factory=list)


class Stand:
    """Everything, started by `with`. Nodes have the ids 1, 2, …."""

    def __init__(self, images: Sequence[Image | None], *, small_disks: bool = False) -> None:
        """A node each: with an image it has QEMU guests, without one domains of libvirt's test driver.

        `small_disks`: the state of nodes and master lies on small disks that can be filled.
        """
        self.folder = Path(tempfile.mkdtemp(prefix="vmwatch-faults-"))
        self.hosts: list[Host] = []
        self.observed: list[Observed] = []
        self.wires: list[Wire] = []
        self.nodes: list[Part] = []
        self.kept: dict[tuple[int, str], int] = {}
        """(node, run) -> the last record that the outbox of a node was seen to hold after its end."""
        self.deaths: list[str] = []
        """Services that ended though nobody ended them."""
        self.disks: dict[str, Disk] = {}
        self._images = images
        self._small_disks = small_disks
        self._secret = secrets.token_hex(16).upper()
        self._password = secrets.token_urlsafe(9)
        self._master_port = free_port()
        self._open = contextlib.ExitStack()
        self._open.callback(shutil.rmtree, self.folder, ignore_errors=True)
        self.diary = Diary(self.folder)
        self._open.callback(self.diary.close)

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._open.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for part in self.parts:
            with contextlib.suppress(LabError):
                part.service.signal(signal.SIGCONT)
        self._open.close()

    @property
    def parts(self) -> list[Part]:
        return [self.panel, self.master, *self.nodes]

    def uri(self, node: int) -> str:
        host = self.hosts[node - 1]
        return host.uri if self.has_guests(node) else host.test_uri

    def has_guests(self, node: int) -> bool:
        """Whether its VMs are QEMU's."""
        return self._images[node - 1] is not None

    def logs(self) -> str:
        """The end of what each service said."""
        files = sorted(self.folder.glob("*.out"))
        return "\n".join(f"--- {file.name}\n{file.read_text(errors='replace')[-3000:]}" for file in files)

    # --- ending and starting services ---

    def kill(self, *parts: Part, number: signal.Signals = signal.SIGKILL) -> None:
        """End services at the same instant; they stay down until `release`."""
        for part in parts:
            part.is_held = True
            self._goes_away(part, _deaf_since(part, time.time()))
            self.diary.write(f"{number.name} to {part.name}")
        for part in parts:
            part.service.signal(number)
        for part in parts:
            part.service.wait(seconds=20)
            self._look_into(part)

    def release(self, *parts: Part) -> None:
        """Start what was ended; `tend` sees it become ready."""
        for part in parts:
            part.is_held = False
            self._revive(part)

    def freeze(self, *parts: Part) -> None:
        """Stop services without ending them (STOP)."""
        for part in parts:
            part.hindered = Span(start=time.time(), end=float("inf"))
            part.service.signal(signal.SIGSTOP)

    def thaw(self, *parts: Part) -> None:
        """Let frozen services run on (CONT)."""
        for part in parts:
            part.service.signal(signal.SIGCONT)
            _is_unhindered(part)

    def fill_disk(self, part: Part) -> None:
        """Leave it no room."""
        part.hindered = Span(start=time.time(), end=float("inf"))
        self.disks[part.name].fill()

    def free_disk(self, part: Part) -> None:
        """Give it back its room."""
        self.disks[part.name].free()
        _is_unhindered(part)

    def spoil(self, part: Part, spoil: Callable[[Path], None]) -> None:
        """Spoil the outbox of a node that is down. What the master has must arrive; what was only there cannot."""
        assert part.state is not None
        assert self.master.state is not None
        taken = files.taken(self.master.state, part.node)
        only_here = [moment for stream, moment in files.events(part.state) if taken is None or stream > taken]
        spoil(part.state)
        part.is_replaced = True
        part.away_since = min([part.away_since or time.time(), *(moment - MARGIN for moment in only_here)])
        self.kept = {stream: seq for stream, seq in self.kept.items() if stream[0] != part.node}
        if taken is not None:
            self.kept[part.node, taken[0]] = taken[1]
        self._look_into(part)

    def keep_evidence(self, name: str, text: str) -> Path:
        """Copy what every part has written so far to a folder that stays; `text` says why."""
        sources = {file.name: file for file in self.folder.iterdir()}
        sources |= {part.name: part.state for part in self.parts if part.state is not None}
        for host in self.hosts:
            (self.folder / f"libvirtd-{host.name}.log").write_text(host.log())
            sources[f"libvirtd-{host.name}.log"] = self.folder / f"libvirtd-{host.name}.log"
        return evidence.keep(name, sources, text)

    def tend(self) -> None:
        """Look after all services: those that ended are started again."""
        for observed in self.observed:
            observed.read()
        for part in self.parts:
            if not part.is_held:
                self._tend(part)

    @property
    def is_healthy(self) -> bool:
        """Whether all services are ready and all observers listen."""
        parts = all(part.is_ready and not part.is_held for part in self.parts)
        return parts and all(observed.connected for observed in self.observed)

    def away(self) -> dict[int, list[Span]]:
        """By node, when its service was not listening to libvirt."""
        return {part.node: [*part.away, *_open_span(part)] for part in self.nodes}

    def replaced(self) -> dict[int, list[Span]]:
        """By node, when its service had lost its outbox and had not found yet what is."""
        return {part.node: part.replaced for part in self.nodes}

    def unheard(self) -> dict[int, list[Span]]:
        """By node, when its observer was not."""
        return {
            node: [Span(start=span.start - MARGIN, end=span.end) for span in observed.unheard]
            for node, observed in enumerate(self.observed, start=1)
        }

    def break_libvirt(self, node: int, *, seconds: float, killed: bool) -> None:
        """This node's libvirtd is about to be broken: its service may end (if `killed`, must) in `seconds`."""
        part = self.nodes[node - 1]
        now = time.time()
        part.libvirt_broken = Span(start=_deaf_since(part, now), end=now + seconds)
        if killed and part.is_ready:
            part.is_doomed, part.is_ready = True, False

    def _tend(self, part: Part) -> None:
        try:
            code = part.service.wait(seconds=0)
        except DeadlinePassed:
            self._see_ready(part)
            return
        broken = part.libvirt_broken
        self.diary.write(f"{part.name} ended with {code}")
        if code == _LIBVIRT_GONE and broken is not None and time.time() <= broken.end:
            self._goes_away(part, broken.start)
        elif self._starts_in_vain(part):
            self._goes_away(part, time.time() - MARGIN)
        else:
            self.deaths.append(f"{part.name} ended with {code}: {part.service.output()[-600:].strip()}")
            self._goes_away(part, time.time() - MARGIN)
        self._look_into(part)
        self._revive(part)

    def _starts_in_vain(self, part: Part) -> bool:
        """Whether it has ended before it was ready for want of room: its unit tries again, as we do."""
        disk = self.disks.get(part.name)
        return disk is not None and not part.is_ready and disk.was_full(since=time.time() - START_SECONDS)

    def _see_ready(self, part: Part) -> None:
        if part.is_ready or part.is_doomed:
            return
        try:
            part.service.wait_ready(seconds=0)
        except LabError:
            return  # not yet, or it has ended again
        part.is_ready = True
        self.diary.write(f"{part.name} is ready")
        if part.away_since is not None:
            span = Span(start=part.away_since, end=time.time())
            part.away.append(span)
            if part.is_replaced:
                part.replaced.append(span)
            part.away_since, part.is_replaced = None, False

    def _goes_away(self, part: Part, since: float) -> None:
        part.is_ready = False
        if part.away_since is None:
            part.away_since = since

    def _revive(self, part: Part) -> None:
        part.is_ready = part.is_doomed = False
        part.hindered = None
        self.diary.write(f"{part.name} is started")
        part.service.start(wait=False)

    def _look_into(self, part: Part) -> None:
        """What a node that has ended had kept must arrive."""
        if not part.node or part.state is None:
            return
        for run, seq in files.tops(part.state).items():
            self.kept[part.node, run] = max(seq, self.kept.get((part.node, run), 0))

    # --- the beginning ---

    def _start(self) -> None:
        self.panel = Part(name="panel", service=self._panel_service())
        self._open.enter_context(self.panel.service)
        self.client = PanelClient(self._panel_url, user=USER, password=self._password)
        self._open.enter_context(self.client)
        self.master = self._daemon("master", self._master_values())
        for node, image in enumerate(self._images, start=1):
            self.hosts.append(self._open.enter_context(Host(f"n{node}", image=image)))
            self._observe(node)
            wire = Wire(target=self._master_port, log=self.folder / f"wire-{node}.out")
            self.wires.append(self._open.enter_context(wire))
            self.nodes.append(self._daemon(f"node-{node}", self._node_values(node), node=node))

    def _observe(self, node: int) -> None:
        file = self.folder / f"observed-{node}"
        command = [sys.executable, "-m", "tests.faults.observer", self.uri(node), str(file)]
        log = self.folder / f"observer-{node}.out"
        self._open.enter_context(Service(command, log=log, ready="observing"))
        self.observed.append(Observed(node, file))

    def _panel_service(self) -> Service:
        port = free_port()
        self._panel_url = f"http://127.0.0.1:{port}/vmmgr"
        values = {
            "Listen": "127.0.0.1",
            "ListenPort": port,
            "Database": self.folder / "panel.db",
            "AdminUser": USER,
            "AdminPassword": self._password,
            "Option": "RegisterUnknownVm",
        }
        config = write_config(self.folder / "vmmgr.conf", values, separator=" ")
        command = ["vmwatch-panel", "--config", str(config)]
        return Service(command, log=self.folder / "panel.out", ready="listening on")

    def _master_values(self) -> dict[str, object]:
        return {
            "listen": f"tcp://127.0.0.1:{self._master_port}",
            "panel_url": self._panel_url,
            "panel_user": USER,
            "panel_password": self._password,
        }

    def _node_values(self, node: int) -> dict[str, object]:
        return {
            "connect": f"tcp://127.0.0.1:{self.wires[node - 1].port}",
            "node_id": node,
            "libvirt_uri": self.uri(node),
            "heartbeat_interval": HEARTBEAT_SECONDS,
        }

    def _daemon(self, name: str, values: Mapping[str, object], *, node: int = 0) -> Part:
        command: list[str] = []
        state = self.folder / name
        if self._small_disks:
            state.mkdir()
            disk = self.disks[name] = self._open.enter_context(Disk(state))
            command, state = disk.enter, disk.seen_from_outside
        files = {
            "log_file": self.folder / f"{name}.log",
            "pid_file": self.folder / f"{name}.pid",
            "state_dir": self.folder / name,
            "secret": self._secret,
        }
        config = write_config(self.folder / f"{name}.conf", {**files, **values})
        program = str(Path(sys.executable).with_name("vmwatch-node" if node else "vmwatch-master"))
        command += [program, "--config", str(config), "--foreground", *(["--wait"] if node else [])]
        service = Service(command, log=self.folder / f"{name}.out", ready=" ready\n")
        part = Part(name=name, service=service, node=node, state=state)
        if node:
            part.away_since = time.time() - MARGIN  # before its first start nobody listened either
            part.is_ready = False
        self._open.enter_context(service)
        self._see_ready(part)
        return part


def _is_unhindered(part: Part) -> None:
    if part.hindered is not None:  # else it has ended meanwhile
        part.hindered = Span(start=part.hindered.start, end=time.time())


def _deaf_since(part: Part, now: float) -> float:
    """Since when a service that is killed now may not have kept what libvirt told."""
    if part.hindered is not None and now < part.hindered.end + CATCH_UP_SECONDS:
        return part.hindered.start - MARGIN
    return now - MARGIN


def _open_span(part: Part) -> list[Span]:
    return [] if part.away_since is None else [Span(start=part.away_since, end=float("inf"))]
