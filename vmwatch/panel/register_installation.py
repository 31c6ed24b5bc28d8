# SPDX-License-Identifier: Apache-2.0
"""What is written of installations: the mark, the counter, the intent, the problem, always in one commit.

An intent is what is to be done at the node's libvirt. It is committed with what made it necessary, then carried
out (`intents`), then closed: were it only carried out, a kill in between would stall the installation for ever,
for the event that is repeated is known, and changes nothing. Of a VM there is one intent at most, for the later
one says it all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmwatch.panel import installation, problems
from vmwatch.panel.convention import ApiError, ErrorType
from vmwatch.panel.installation import TIMEOUT, Action, Choice, Installation

if TYPE_CHECKING:
    import sqlite3

    from vmwatch.cluster import Placement
    from vmwatch.panel.fields import VmEvent
    from vmwatch.panel.installation import Outcome
    from vmwatch.panel.store import Store

WAITING = "installation_waiting"
OVERDUE = "installation_timeout"
STUCK = "installation_stuck"


def begin(store: Store, vm: int, *, osmgr: int, replace: bool, now: int) -> None:
    """Set the mark, the counter, and the intent; `replace`: one that goes on ends with this.

    ApiError: `missed` (osmgr), `value` (hostnode: none, or an unreachable one), `exists` (one goes on).
    """
    with store.transaction() as connection:
        template = connection.execute(
            "SELECT rebootcount, timelimit FROM osmgr WHERE id = ?", (osmgr,)
        ).fetchone()
        if template is None:
            raise ApiError(ErrorType.MISSED, "osmgr", f"There is no template {osmgr}", value=str(osmgr))
        _require_reachable(connection, vm)
        if not replace and _read(connection, vm):
            raise ApiError(ErrorType.EXISTS, "installation", "The VM is being installed: see replace")
        _forget(connection, vm, now=now)
        new, action = installation.begin(template["rebootcount"])
        connection.execute(
            "INSERT INTO installation (vm, osmgr, steps, remaining, began, since, deadline)"
            " VALUES (?1, ?2, ?3, ?4, ?5, ?5, ?5 + ?6 * 1000)",
            (vm, osmgr, new.steps, new.remaining, now, template["timelimit"]),
        )
        _intend(connection, vm, action, now=now)


def follow(
    connection: sqlite3.Connection, vm: int, event: VmEvent, placement: Placement, *, now: int
) -> None:
    """What an event makes of the installation of its VM. For the transaction that takes the event."""
    old = _read(connection, vm)
    if old is None or placement.node != event.hostnode:  # of another copy than the one that is the VM
        return
    intended = _intended(connection, vm)
    new = installation.follow(old, event.type, event.subtype, event.cause, intended=intended)
    _write(connection, vm, old, new, now=now)


def choose(store: Store, vm: int, choice: Choice, *, now: int) -> None:
    """What a person says. Its time limit begins anew.

    ApiError: `missed` (none goes on), `value` (it does not wait).
    """
    with store.transaction() as connection:
        old = _read(connection, vm)
        if old is None:
            raise ApiError(ErrorType.MISSED, "installation", "The VM is not being installed")
        if choice is Choice.CANCEL:
            _forget(connection, vm, now=now)
            _intend(connection, vm, installation.decide(old, choice).action, now=now)
            return
        if old.waits is None:
            raise ApiError(
                ErrorType.VALUE, "action", "The installation goes on: it does not wait", value=choice
            )
        connection.execute(
            "UPDATE installation SET deadline = ?1 + 1000 *"
            " (SELECT timelimit FROM osmgr WHERE osmgr.id = installation.osmgr) WHERE vm = ?2",
            (now, vm),
        )
        _write(connection, vm, old, installation.decide(old, choice), now=now)


def expire(store: Store, *, now: int) -> None:
    """End those whose time limit is over: nothing more is done for them by itself, but the last step of all."""
    query = "SELECT vm FROM installation WHERE waits IS NULL AND deadline <= ?"
    if store.connection.execute(query, (now,)).fetchone() is None:
        return
    with store.transaction() as connection:
        for (vm,) in connection.execute(query, (now,)).fetchall():
            old = _read(connection, vm)
            if old is not None:
                _write(connection, vm, old, installation.expire(old), now=now)


def miss(store: Store, vm: int, *, now: int) -> None:
    """The VM was found off a while after it was started: it waits, unless something was heard of it meanwhile."""
    with store.transaction() as connection:
        old = _read(connection, vm)
        if old is not None and _intended(connection, vm) is None:
            _write(connection, vm, old, installation.miss(old), now=now)


def close(store: Store, intent: int, *, now: int) -> None:
    """The intent is carried out. One that another has taken the place of is not there any more: nothing to do."""
    with store.transaction() as connection:
        row = connection.execute("SELECT vm, action FROM intent WHERE id = ?", (intent,)).fetchone()
        if row is None:
            return
        connection.execute("DELETE FROM intent WHERE id = ?", (intent,))
        if row["action"] == Action.FINISH:
            _forget(connection, row["vm"], now=now)
            return
        connection.execute("UPDATE installation SET started = ? WHERE vm = ?", (now, row["vm"]))
        problems.end(connection, STUCK, name=_name(connection, row["vm"]), now=now)


def fail(store: Store, intent: int, error: str, *, tell: bool, now: int) -> None:
    """The intent could not be carried out, and will be tried again; `tell`: a person should know by now."""
    with store.transaction() as connection:
        row = connection.execute("SELECT vm, action FROM intent WHERE id = ?", (intent,)).fetchone()
        if row is None:
            return
        connection.execute("UPDATE intent SET error = ? WHERE id = ?", (error, intent))
        if tell:
            text = (
                f"The step '{row['action']}' of its installation cannot be done, and is tried again: {error}"
            )
            problems.begin(connection, STUCK, name=_name(connection, row["vm"]), text=text, now=now)


def _read(connection: sqlite3.Connection, vm: int) -> Installation | None:
    row = connection.execute(
        "SELECT steps, remaining, heard, waits, guessed FROM installation WHERE vm = ?", (vm,)
    ).fetchone()
    return Installation(**{**row, "heard": bool(row["heard"])}) if row else None


def _intended(connection: sqlite3.Connection, vm: int) -> Action | None:
    row = connection.execute("SELECT action FROM intent WHERE vm = ?", (vm,)).fetchone()
    return Action(row["action"]) if row else None


def _write(connection: sqlite3.Connection, vm: int, old: Installation, outcome: Outcome, *, now: int) -> None:
    new, action = outcome
    if new == old and action is None:
        return
    connection.execute(
        "UPDATE installation SET remaining = ?, heard = ?, waits = ?, guessed = ?,"
        " since = iif(remaining = ?, since, ?), started = iif(?, NULL, started) WHERE vm = ?",
        (new.remaining, new.heard, new.waits, new.guessed, new.remaining, now, action is not None, vm),
    )
    if action is not None:
        _intend(connection, vm, action, now=now)
    if new.waits and not old.waits:
        _stop(connection, vm, now=now)
    if new.waits != old.waits:
        _tell(connection, _name(connection, vm), old, new, now=now)


def _stop(connection: sqlite3.Connection, vm: int, *, now: int) -> None:
    """Who waits for a person is not started, though an intent says so that may have been carried out already."""
    if connection.execute("DELETE FROM intent WHERE vm = ? AND action <> ?", (vm, Action.FINISH)).rowcount:
        problems.end(connection, STUCK, name=_name(connection, vm), now=now)


def _tell(
    connection: sqlite3.Connection, name: str, old: Installation, new: Installation, *, now: int
) -> None:
    if old.waits:
        problems.end(connection, _problem(old.waits), name=name, now=now)
    if new.waits:
        step = f"reboot {new.steps - new.remaining + 1} of {new.steps}"
        text = f"Its installation waits at {step}: {installation.describe(new.waits)}"
        problems.begin(connection, _problem(new.waits), name=name, text=text, now=now)


def _problem(reason: str) -> str:
    return OVERDUE if reason == TIMEOUT else WAITING


def _forget(connection: sqlite3.Connection, vm: int, *, now: int) -> None:
    """No mark any more, no intent, no problem of it."""
    connection.execute("DELETE FROM installation WHERE vm = ?", (vm,))
    connection.execute("DELETE FROM intent WHERE vm = ?", (vm,))
    for problem in (WAITING, OVERDUE, STUCK):
        problems.end(connection, problem, name=_name(connection, vm), now=now)


def _intend(connection: sqlite3.Connection, vm: int, action: Action | None, *, now: int) -> None:
    connection.execute("DELETE FROM intent WHERE vm = ?", (vm,))
    connection.execute("INSERT INTO intent (vm, action, created) VALUES (?, ?, ?)", (vm, action, now))


def _name(connection: sqlite3.Connection, vm: int) -> str:
    return str(connection.execute("SELECT name FROM vm WHERE id = ?", (vm,)).fetchone()["name"])


def _require_reachable(connection: sqlite3.Connection, vm: int) -> None:
    row = connection.execute(
        "SELECT hostnode.id AS hostnode, unreachable.since FROM vm"
        " LEFT JOIN hostnode ON hostnode.id = vm.hostnode AND hostnode.removed IS NULL"
        " LEFT JOIN unreachable ON unreachable.hostnode = vm.hostnode WHERE vm.id = ?",
        (vm,),
    ).fetchone()
    if row is None or row["hostnode"] is None:
        raise ApiError(ErrorType.VALUE, "hostnode", "The VM is on no node that is known")
    if row["since"] is not None:
        node = str(row["hostnode"])
        raise ApiError(
            ErrorType.VALUE, "hostnode", f"Node {node}, where the VM is, is unreachable", value=node
        )
