# SPDX-License-Identifier: Apache-2.0
"""The pages of a VM's installation: the form that begins it, and what a person says to one that waits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from vmwatch.panel import forms, shown_installation, shown_vms
from vmwatch.panel.convention import Paging
from vmwatch.panel.forms import Field, Form

if TYPE_CHECKING:
    import sqlite3

    from starlette.responses import Response
    from starlette.routing import Route

    from vmwatch.panel.shown_vms import Vm
    from vmwatch.panel.site import Site, Visit

_TEMPLATES: Final = 1000  # to choose from


class InstallationPages:
    """`/vm/NAME/reinstall` and `/vm/NAME/installation`."""

    def __init__(self, site: Site) -> None:
        """`site` frames them."""
        self._site = site
        self._connection = site.panel.store.connection

    def routes(self) -> list[Route]:
        """For the application."""
        return [
            self._site.shows("/vm/{name}/reinstall", self.begin_page),
            self._site.takes("/vm/{name}/reinstall", self.begin),
            self._site.takes("/vm/{name}/installation", self.choose),
        ]

    def begin_page(self, visit: Visit) -> Response:
        """`/vm/NAME/reinstall`: the form."""
        vm = self._vm(visit)
        return forms.show(self._site, visit, _form(self._connection, vm), {}) if vm else self._missing(visit)

    async def begin(self, visit: Visit) -> Response:
        """What that form sends."""
        vm = self._vm(visit)
        if vm is None:
            return self._missing(visit)
        return await forms.submit(
            self._site, visit, _form(self._connection, vm), f"{address(vm.name)}?done=installing"
        )

    async def choose(self, visit: Visit) -> Response:
        """A button of the VM's page: `action` is continue, retry or cancel."""
        vm = self._vm(visit)
        if vm is None:
            return self._missing(visit)
        values = {"elid": str(vm.id), "action": visit.form.get("action", "")}
        return await forms.act(self._site, visit, "vm.reinstall.continue", values, address(vm.name))

    def _vm(self, visit: Visit) -> Vm | None:
        return shown_vms.vm_by_name(self._connection, visit.path["name"])

    def _missing(self, visit: Visit) -> Response:
        return self._site.missing(visit, what="VM", name=visit.path["name"], back="/", here="vms")


def address(name: str) -> str:
    """The page of a VM."""
    return f"/vm/{quote(name, safe='')}"


def _form(connection: sqlite3.Connection, vm: Vm) -> Form:
    going_on = shown_installation.of_vm(connection, vm.id)
    found = shown_installation.templates(connection, Paging(number=1, size=_TEMPLATES))
    template = Field(
        name="osmgr",
        label="Operating system",
        kind="select",
        options=tuple((str(template.id), template.name) for template in found),
        hint="" if found else "There is no template yet: add one first.",
    )
    text = "All data on its main disk will be lost. A VM that runs is switched off at once."
    if going_on:
        text += f" {going_on.template} is being installed now: that ends."
    return Form(
        title=f"Install {vm.name} anew",
        func="vm.reinstall",
        fixed={"elid": str(vm.id), "sok": "ok", **({"replace": "on"} if going_on else {})},
        button="Install",
        fields=(template,),
        back=address(vm.name),
        back_word=vm.name,
        here="vms",
        text=text,
        danger=True,
    )
