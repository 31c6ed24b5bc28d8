# SPDX-License-Identifier: Apache-2.0
"""The API's functions about problems."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from vmwatch.panel import fields, problems, register, shown_problems
from vmwatch.panel.call import Content, Function, Kind
from vmwatch.panel.convention import OK, ApiError, ErrorType, listing, scalars
from vmwatch.panel.fields import iso
from vmwatch.panel.shown_problems import LEVELS, STATES, ProblemFilter

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vmwatch.panel.call import Call
    from vmwatch.panel.shown_problems import Problem


def problem_list(call: Call) -> Content:
    """`problem`: the newest first; narrowed by `state`, `level`, `hostnode`, `name`; `covered=on` shows those too."""
    return _list(
        call,
        ProblemFilter(
            state=call.fields.one_of("state", ("", *STATES), ""),
            level=call.fields.one_of("level", ("", *LEVELS), ""),
            hostnode=call.fields.number("hostnode") or 0,
            name=call.fields.text("name"),
            covered=call.fields.flag("covered"),
        ),
    )


def problem_count(call: Call) -> Content:
    """`problem.count`: how many are open: raised (listed), of these errors and warnings, and covered."""
    count = shown_problems.count_by_level(call.panel.store.connection)
    return scalars(
        {
            "raised": count.error + count.warning,
            "errors": count.error,  # an element `error` would say that the call failed
            "warnings": count.warning,
            "covered": count.covered,
        }
    )


def problem_solve(call: Call) -> Content:
    """`problem.solve`: the caller has dealt with the problems `elid` (`1, 2`), all or none."""
    ids = call.fields.numbers("elid")
    with call.panel.store.transaction() as connection:
        unknown = problems.solve(connection, ids, solver=call.user, now=call.panel.clock())
        if unknown:
            raise ApiError(
                ErrorType.MISSED, "elid", f"There is no problem {unknown[0]}", value=str(unknown[0])
            )
    return OK


def told(call: Call) -> Content:
    """`vmwatch.problem` with `problem`: raise or solve it; without: all problems, the newest first."""
    if not call.fields.text("problem"):
        return _list(call, ProblemFilter(covered=True))
    report = fields.problem_report(call.fields)
    register.record_problem(call.panel.store, report, now=call.panel.clock())
    return OK


FUNCTIONS: Final[Mapping[str, Function]] = {
    "problem": Function(handler=problem_list, kind=Kind.READS),
    "problem.count": Function(handler=problem_count, kind=Kind.READS),
    "problem.solve": Function(handler=problem_solve, kind=Kind.WRITES),
    "vmwatch.problem": Function(handler=told, kind=Kind.WRITES),
}


def _list(call: Call, wanted: ProblemFilter) -> Content:
    connection = call.panel.store.connection
    paging = call.fields.paging()
    rows = [_problem(found) for found in shown_problems.problems(connection, wanted, paging)]
    return listing(rows, paging=paging, total=shown_problems.count_problems(connection, wanted))


def _problem(found: Problem) -> dict[str, object]:
    return {
        "id": found.id,
        "problem": found.problem,
        "hostnode": found.hostnode,
        "hostnode_name": found.node,
        "name": found.name,
        "level": found.level,
        "state": "raised" if found.solved is None else "solved",
        "text": found.text,
        "raised": iso(found.raised),
        "last": iso(found.last),
        "count": found.count,
        "solved": iso(found.solved),
        "solver": found.solver,
        "covered_by": found.covered_by,
    }
