# SPDX-License-Identifier: Apache-2.0
"""Problems on their way to the panel: told once when they begin, once when they end."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from vmwatch import calls

if TYPE_CHECKING:
    from vmwatch.ledger import Ledger, Transaction

log = logging.getLogger(__name__)


def begin(
    transaction: Transaction, problem: str, node: int | None, *, text: str, name: str | None = None
) -> None:
    """A condition holds: raised, unless it is already."""
    if transaction.raise_problem(_key(problem, node, name)):
        tell(transaction, problem, node, text=text, name=name)


def end(transaction: Transaction, problem: str, node: int | None, *, name: str | None = None) -> None:
    """A condition no longer holds: solved, if it was raised."""
    if not transaction.solve_problem(_key(problem, node, name)):
        return
    log.info("problem solved: problem=%s node=%s name=%s", problem, node, name)
    fields = calls.problem_fields(problem=problem, state="solved", text="", hostnode=node, name=name)
    transaction.enqueue(_key(problem, node, name), "vmwatch.problem", fields)


def tell(
    transaction: Transaction, problem: str, node: int | None, *, text: str, name: str | None = None
) -> None:
    """Something happened: raised each time, and for a person to solve."""
    log.warning("problem raised: problem=%s node=%s name=%s text=%s", problem, node, name, text)
    fields = calls.problem_fields(problem=problem, state="raised", text=text, hostnode=node, name=name)
    transaction.enqueue(_key(problem, node, name), "vmwatch.problem", fields)


def is_raised(ledger: Ledger, problem: str, node: int | None) -> bool:
    """Whether the problem of this node (None: of none), and of no VM, is raised."""
    return "" in ledger.problems(_key(problem, node, None))


def raised_of_vms(ledger: Ledger, problem: str, node: int | None) -> set[str]:
    """The names of the VMs that this problem is raised of, on this node (None: it is told of no node)."""
    return set(ledger.problems(_key(problem, node, "")))


def _key(problem: str, node: int | None, name: str | None) -> str:
    return f"problem {problem} {node} {name}"
