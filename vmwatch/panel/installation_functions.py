# SPDX-License-Identifier: Apache-2.0
"""The API's functions of OS installation: templates, the installation of a VM, what a person says to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from vmwatch.panel import register_installation, register_osmgr
from vmwatch.panel import shown_installation as shown
from vmwatch.panel.call import Content, Function, Kind
from vmwatch.panel.convention import OK, ApiError, ErrorType, listing, scalars
from vmwatch.panel.fields import iso
from vmwatch.panel.installation import Choice
from vmwatch.panel.lookup import find_vm

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vmwatch.panel.call import Call
    from vmwatch.panel.fields import Fields

REBOOTS_MOST: Final = 100
SECONDS_LEAST, SECONDS_MOST, SECONDS_USUAL = 1, 7 * 86_400, 3600


def osmgr_list(call: Call) -> Content:
    """`osmgr`: the templates, by name."""
    connection = call.panel.store.connection
    paging = call.fields.paging()
    rows = [_template(template) for template in shown.templates(connection, paging)]
    return listing(rows, paging=paging, total=shown.count_templates(connection))


def osmgr_edit(call: Call) -> Content:
    """`osmgr.edit`: show (elid), change (elid, sok), create (sok) a template."""
    elid = call.fields.number("elid")
    if call.fields.flag("sok"):
        written = register_osmgr.write(call.panel.store, _read_template(call.fields, elid or 0))
        return (*OK, *scalars({"id": written}))
    if elid is None:
        return scalars({"name": "", "rebootcount": 1, "timelimit": SECONDS_USUAL})
    template = shown.template(call.panel.store.connection, elid)
    if template is None:
        raise ApiError(ErrorType.MISSED, "elid", f"There is no template {elid}", value=str(elid))
    return scalars(_template(template))


def osmgr_delete(call: Call) -> Content:
    """`osmgr.delete`: the templates `elid`, ids divided by commas; all of them, or none."""
    register_osmgr.delete(call.panel.store, call.fields.numbers("elid"))
    return OK


def reinstall(call: Call) -> Content:
    """`vm.reinstall`: show how far it is (elid), or install the VM `elid` anew from the template `osmgr` (sok)."""
    vm = find_vm(call, call.fields.text("elid"))
    if call.fields.flag("sok"):
        register_installation.begin(
            call.panel.store,
            vm.id,
            osmgr=call.fields.required_number("osmgr"),
            replace=call.fields.flag("replace"),
            now=call.panel.clock(),
        )
        return OK
    return scalars({"id": vm.id, **summary(shown.of_vm(call.panel.store.connection, vm.id))})


def reinstall_continue(call: Call) -> Content:
    """`vm.reinstall.continue`: what a person says (action) to an installation that waits; cancel: to any."""
    vm = find_vm(call, call.fields.text("elid"))
    choice = Choice(call.fields.one_of("action", tuple(Choice), Choice.CONTINUE))
    register_installation.choose(call.panel.store, vm.id, choice, now=call.panel.clock())
    return OK


def summary(found: shown.ShownInstallation | None) -> dict[str, object]:
    """The fields of an installation, as a VM has them: all empty without one."""
    return {
        "osmgr": found and found.osmgr,
        "install_name": found and found.template,
        "install_step": found and found.step,
        "install_steps": found and found.steps,
        "install_began": iso(found.began) if found else None,
        "install_since": iso(found.since) if found else None,
        "install_deadline": iso(found.deadline) if found else None,
        "install_waits": found and found.waits,
        "install_reason": found and found.reason,
        "install_guessed": found and found.guessed,
        "install_action": found and found.action,
        "install_error": found and found.error,
    }


FUNCTIONS: Mapping[str, Function] = {
    "osmgr": Function(handler=osmgr_list, kind=Kind.READS),
    "osmgr.delete": Function(handler=osmgr_delete, kind=Kind.WRITES),
    "osmgr.edit": Function(handler=osmgr_edit, kind=Kind.FORM),
    "vm.reinstall": Function(handler=reinstall, kind=Kind.FORM),
    "vm.reinstall.continue": Function(handler=reinstall_continue, kind=Kind.WRITES),
}


def _read_template(fields: Fields, elid: int) -> shown.Template:
    template = shown.Template(
        id=elid,
        name=fields.name("name"),
        rebootcount=_between(fields, "rebootcount", 1, REBOOTS_MOST, None),
        timelimit=_between(fields, "timelimit", SECONDS_LEAST, SECONDS_MOST, SECONDS_USUAL),
        medium=_path(fields, "medium"),
        kernel=_path(fields, "kernel"),
        initrd=_path(fields, "initrd"),
        cmdline=fields.text("cmdline", limit=2000),
    )
    if template.kernel and template.medium:
        raise fields.wrong("medium", "nothing, for there is a kernel to boot from")
    if (template.initrd or template.cmdline) and not template.kernel:
        raise fields.wrong("kernel", "the path of a kernel, for initrd or cmdline")
    return template


def _between(fields: Fields, name: str, least: int, most: int, default: int | None) -> int:
    number = fields.number(name) or default
    if number is None or not least <= number <= most:
        raise fields.wrong(name, f"a number from {least} to {most}")
    return number


def _path(fields: Fields, name: str) -> str:
    path = fields.text(name, limit=1000)
    if path and not path.startswith("/"):
        raise fields.wrong(name, "an absolute path on the node")
    return path


def _template(template: shown.Template) -> dict[str, object]:
    return {
        "id": template.id,
        "name": template.name,
        "rebootcount": template.rebootcount,
        "timelimit": template.timelimit,
        "medium": template.medium,
        "kernel": template.kernel,
        "initrd": template.initrd,
        "cmdline": template.cmdline,
    }
