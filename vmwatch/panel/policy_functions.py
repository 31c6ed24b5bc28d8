# SPDX-License-Identifier: Apache-2.0
"""The API's functions about the cluster's policy and parameters.

Sources: VMmanager's administrator guide, "Policy settings" (Cluster settings, Policy), names the form's place and
not its function: `clusterpolicy` is the reference panel's own name. `paramlist` and `paramlist.edit` (elid: the
parameter's name; value) are COREmanager's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from vmwatch.panel import policy
from vmwatch.panel.call import Content, Function, Kind
from vmwatch.panel.convention import OK, ApiError, ErrorType, listing, scalars

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vmwatch.panel.call import Call

HISTORY_DAYS: Final = "HistoryDays"


def cluster_policy(call: Call) -> Content:
    """`clusterpolicy`: show, or with sok change, the policy: `status_check` (on, off)."""
    store = call.panel.store
    if call.fields.flag("sok"):
        policy.set_status_check(store, on=call.fields.one_of("status_check", ("on", "off"), "") == "on")
        return OK
    return scalars({"status_check": "on" if policy.read(store.connection).status_check else "off"})


def parameter_list(call: Call) -> Content:
    """`paramlist`: the parameters, by name."""
    rows = [{"id": name, "name": name, "value": value} for name, value in _parameters(call).items()]
    paging = call.fields.paging()
    return listing(rows[paging.offset :][: paging.size], paging=paging, total=len(rows))


def parameter_edit(call: Call) -> Content:
    """`paramlist.edit`: show the parameter `elid`, or with sok give it `value`."""
    name = call.fields.text("elid")
    parameters = _parameters(call)
    if name not in parameters:
        raise ApiError(ErrorType.MISSED, "elid", f"There is no parameter '{name}'", value=name)
    if not call.fields.flag("sok"):
        return scalars({"name": name, "value": parameters[name]})
    days = call.fields.required_number("value")
    if days > policy.DAYS_MOST:
        raise call.fields.wrong("value", f"1 to {policy.DAYS_MOST} days")
    policy.set_history_days(call.panel.store, days)
    return OK


FUNCTIONS: Final[Mapping[str, Function]] = {
    "clusterpolicy": Function(handler=cluster_policy, kind=Kind.FORM),
    "paramlist": Function(handler=parameter_list, kind=Kind.READS),
    "paramlist.edit": Function(handler=parameter_edit, kind=Kind.FORM),
}


def _parameters(call: Call) -> dict[str, int]:
    return {HISTORY_DAYS: policy.read(call.panel.store.connection).history_days}
