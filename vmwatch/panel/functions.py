# SPDX-License-Identifier: Apache-2.0
"""The API's functions by name: fields in, elements out. Who calls, and over what, is `api`'s matter.

An `.edit` function without `sok=ok` shows the object's fields, with it writes them (COREmanager's forms). `elid`
is an object's id; where a VM is meant and it is not a number, its name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmwatch.events import Status
from vmwatch.panel import (
    fields,
    installation_functions,
    register,
    shown,
    shown_installation,
    shown_vms,
)
from vmwatch.panel.call import Content, Function, Kind
from vmwatch.panel.convention import OK, ApiError, ErrorType, listing, scalars
from vmwatch.panel.fields import iso
from vmwatch.panel.lookup import find_vm

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vmwatch.panel.call import Call
    from vmwatch.panel.timeline import Entry


def vm_list(call: Call) -> Content:
    """`vm`: the VMs, by name; narrowed by `name` (a part of it), `status` (as shown), `hostnode`, `warning`."""
    connection = call.panel.store.connection
    wanted = shown_vms.Filter(
        name=call.fields.text("name"),
        status=call.fields.one_of("status", ("", *Status), ""),
        hostnode=call.fields.number("hostnode") or 0,
        warning=call.fields.one_of("warning", ("", *shown_vms.Warned), ""),
    )
    paging = call.fields.paging()
    installations = shown_installation.all_by_vm(connection)
    rows = [
        {**_vm(vm), **installation_functions.summary(installations.get(vm.id))}
        for vm in shown_vms.vms(connection, wanted, paging)
    ]
    return listing(rows, paging=paging, total=shown_vms.count_vms(connection, wanted))


def vm_edit(call: Call) -> Content:
    """`vm.edit`: show (elid), change (elid, sok), create (sok). Fields: name, hostnode, uuid where known."""
    elid = call.fields.text("elid")
    vm = find_vm(call, elid) if elid else None
    if not call.fields.flag("sok"):
        return scalars(_vm(vm)) if vm else scalars({"name": "", "uuid": "", "hostnode": ""})
    name, uuid = call.fields.name("name"), call.fields.uuid("uuid")
    hostnode = call.fields.required_number("hostnode")
    if vm:
        register.change_vm(call.panel.store, vm.id, name=name, uuid=uuid, hostnode=hostnode)
        return (*OK, *scalars({"id": vm.id}))
    created = register.create_vm(call.panel.store, name=name, uuid=uuid, hostnode=hostnode)
    return (*OK, *scalars({"id": created}))


def vm_history(call: Call) -> Content:
    """`vm.history`: every event of a VM (elid), the newest first."""
    connection = call.panel.store.connection
    vm = find_vm(call, call.fields.text("elid"))
    paging = call.fields.paging()
    rows = [_entry(entry) for entry in shown.history(connection, vm.id, paging)]
    return listing(rows, paging=paging, total=shown.count_history(connection, vm.id))


def vm_event(call: Call) -> Content:
    """`vm.event`: what happened to a VM on a node. A repetition is `ok`, and changes nothing."""
    event = fields.vm_event(call.fields)
    panel = call.panel
    register.record_event(panel.store, event, clock=panel.clock, create=panel.register_unknown_vm)
    return OK


def new_key(call: Call) -> Content:
    """`session.newkey`: let `key` sign in once, as `username` (the caller, when empty)."""
    user = call.fields.text("username") or call.user
    call.panel.access.new_key(user, call.fields.secret("key"))
    return OK


def user_settings(call: Call) -> Content:
    """`usrparam`: the caller's settings; with sok the new password, twice (passwd, confirm). Sessions end."""
    if not call.fields.flag("sok"):
        return scalars({"name": call.user})
    password = call.fields.secret("passwd")
    if not 8 <= len(password) <= 255:
        raise ApiError(ErrorType.VALUE, "passwd", "Field 'passwd': expected 8 to 255 characters")
    if password != call.fields.secret("confirm"):
        raise ApiError(ErrorType.VALUE, "confirm", "Field 'confirm': expected the same as in 'passwd'")
    call.panel.access.set_password(call.user, password)
    return OK


FUNCTIONS: Mapping[str, Function] = {
    "session.newkey": Function(handler=new_key, kind=Kind.READS),  # by GET too, as documented
    "usrparam": Function(handler=user_settings, kind=Kind.FORM),
    "vm": Function(handler=vm_list, kind=Kind.READS),
    "vm.edit": Function(handler=vm_edit, kind=Kind.FORM),
    "vm.event": Function(handler=vm_event, kind=Kind.WRITES),
    "vm.history": Function(handler=vm_history, kind=Kind.READS),
}


def _vm(vm: shown_vms.Vm) -> dict[str, object]:
    return {
        "id": vm.id,
        "name": vm.name,
        "uuid": vm.uuid,
        "status": vm.status,
        "last_status": vm.last_status,
        "since": iso(vm.since),
        "hostnode": vm.hostnode,
        "hostnode_name": vm.node,
        "type": vm.type,
        "subtype": vm.subtype,
        "cause": vm.cause,
        "source": vm.source,
        "time": iso(vm.time),
        "problems": vm.problems,
        "warning": vm.warning,
        "idle_packets": vm.idle_packets,
        "idle_writes": vm.idle_writes,
        "idle_seconds": vm.idle_seconds,
        "idle_since": iso(vm.idle_since),
    }


def _entry(entry: Entry) -> dict[str, object]:
    return {
        "id": entry.id,
        "time": iso(entry.time),
        "registered": iso(entry.registered),
        "type": entry.type,
        "subtype": entry.subtype,
        "cause": entry.cause,
        "source": entry.source,
        "since": iso(entry.earliest),
        "reporter": entry.reporter,
        "status": entry.status,
        "hostnode": entry.hostnode,
        "event_id": entry.event_id,
    }
