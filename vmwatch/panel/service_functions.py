# SPDX-License-Identifier: Apache-2.0
"""The API's functions that configure the services and look at them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from vmwatch.panel import shown_services
from vmwatch.panel.call import Content, Function, Kind
from vmwatch.panel.convention import OK, ApiError, Element, ErrorType, listing, scalars
from vmwatch.panel.fields import iso
from vmwatch.panel.shown_services import MASTER

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vmwatch.panel.call import Call
    from vmwatch.panel.configuring import Outcome
    from vmwatch.panel.shown_services import Service

_PERIODS: Final = ("5", "60")  # minutes: of the nodes' services, and of the master's


async def configure(call: Call) -> Content:
    """`vmwatch.configure`: configure all services anew, or those of nodes (elid); `secret=new`: with a new one."""
    _require_managed(call)
    new_secret = call.fields.one_of("secret", ("keep", "new"), "keep") == "new"
    numbers = call.fields.numbers("elid") if call.fields.text("elid") else None
    for number in numbers or ():
        _require_service(call, number)
    return _outcomes(await call.panel.services.configure(numbers, new_secret=new_secret))


async def periodic(call: Call) -> Content:
    """`periodic`: look at the service of every node (period=5), or at the master's (period=60).

    With the nodes' the master's is looked at too: what a node has sent is read against what the master has taken.
    """
    _require_managed(call)
    period = call.fields.one_of("period", _PERIODS, "")
    services = shown_services.services(call.panel.store.connection)
    nodes = [service.hostnode for service in services if service.hostnode != MASTER and not service.removed]
    return _outcomes(await call.panel.services.check([MASTER, *(nodes if period == "5" else ())]))


def service_list(call: Call) -> Content:
    """`vmwatch.services`: the master's service and the nodes', as they were found the last time."""
    services = shown_services.services(call.panel.store.connection)
    paging = call.fields.paging()
    page = services[paging.offset : paging.offset + paging.size]
    return listing([_service(service) for service in page], paging=paging, total=len(services))


FUNCTIONS: Final[Mapping[str, Function]] = {
    "periodic": Function(handler=periodic, kind=Kind.WRITES),
    "vmwatch.configure": Function(handler=configure, kind=Kind.WRITES),
    "vmwatch.services": Function(handler=service_list, kind=Kind.READS),
}


def _require_managed(call: Call) -> None:
    if not call.panel.services.managed:
        text = "This panel does not manage the services: its file is without `Option ManageServices`"
        raise ApiError(ErrorType.ACCESS, "func", text)


def _require_service(call: Call, number: int) -> None:
    service = shown_services.service(call.panel.store.connection, number)
    if service is None or service.removed:
        text = f"There is no node {number} that the panel manages: vmhostnode.edit says where it is"
        raise ApiError(ErrorType.MISSED, "elid", text, value=str(number))


def _outcomes(outcomes: Sequence[Outcome]) -> Content:
    return (*OK, *(Element(name="elem", children=scalars(_outcome(outcome))) for outcome in outcomes))


def _service(service: Service) -> dict[str, object]:
    return {
        "service": "vmwatch-master" if service.hostnode == MASTER else "vmwatch-node",
        "hostnode": service.hostnode or None,
        "hostnode_name": service.name,
        "address": service.address,
        "state": service.state,
        "checked": iso(service.checked),
        "configured": iso(service.configured),
        "waits": "on" if service.waits else "off",
        "removed": "on" if service.removed else "off",
        "error": service.error,
        "version": service.report.version,
        "unsent": service.report.unsent,
    }


def _outcome(outcome: Outcome) -> dict[str, object]:
    return {
        "service": "vmwatch-master" if outcome.hostnode == MASTER else "vmwatch-node",
        "hostnode": outcome.hostnode or None,
        "state": outcome.state,
        "change": outcome.change,
        "error": outcome.error,
    }
