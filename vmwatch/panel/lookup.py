# SPDX-License-Identifier: Apache-2.0
"""What a call names: `elid` -> the object."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmwatch.panel import shown_vms
from vmwatch.panel.convention import ApiError, ErrorType

if TYPE_CHECKING:
    from vmwatch.panel.call import Call


def find_vm(call: Call, elid: str) -> shown_vms.Vm:
    """The VM that `elid` names: an id, or a name that is no number. ApiError: `missed`."""
    connection = call.panel.store.connection
    if elid.isascii() and elid.isdigit() and len(elid) < 19:
        vm = shown_vms.vm_by_id(connection, int(elid))
    else:
        vm = shown_vms.vm_by_name(connection, elid)
    if vm is None:
        raise ApiError(ErrorType.MISSED, "elid", f"There is no VM '{elid}'", value=elid)
    return vm
