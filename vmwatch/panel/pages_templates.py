# SPDX-License-Identifier: Apache-2.0
"""The pages of the templates of operating systems: list, add, change, remove."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from vmwatch.panel import forms, shown_installation
from vmwatch.panel.forms import Field, Form
from vmwatch.panel.installation_functions import (
    REBOOTS_MOST,
    SECONDS_LEAST,
    SECONDS_MOST,
    SECONDS_USUAL,
)
from vmwatch.panel.lists import Links, Pager, page_number

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.responses import Response
    from starlette.routing import Route

    from vmwatch.panel.shown_installation import Template
    from vmwatch.panel.site import Site, Visit
    from vmwatch.panel.views import Content

PAGE: Final = 100  # rows of a list

_PATH: Final = {"autocapitalize": "none", "spellcheck": "false"}
_FIELDS: Final = (
    Field(name="name", label="Name"),
    Field(
        name="rebootcount",
        label="Reboots",
        kind="number",
        hint="How often the guest reboots until it is installed.",
        attributes={"min": "1", "max": str(REBOOTS_MOST), "inputmode": "numeric"},
    ),
    Field(
        name="timelimit",
        label="Time limit, in seconds",
        kind="number",
        hint="For the whole installation. When it is over, the installation waits, with a problem.",
        attributes={"min": str(SECONDS_LEAST), "max": str(SECONDS_MOST), "inputmode": "numeric"},
    ),
    Field(
        name="medium",
        label="Medium",
        required=False,
        hint="The path of an installation image on the node. Empty: the kernel below, or as the VM is defined.",
        attributes=_PATH,
    ),
    Field(
        name="kernel",
        label="Kernel",
        required=False,
        hint="The path of a kernel on the node, to boot from instead of a medium.",
        attributes=_PATH,
    ),
    Field(name="initrd", label="Its initial RAM disk", required=False, attributes=_PATH),
    Field(name="cmdline", label="Its command line", required=False, attributes=_PATH),
)


class TemplatePages:
    """`/templates` and below."""

    def __init__(self, site: Site) -> None:
        """`site` frames them."""
        self._site = site
        self._connection = site.panel.store.connection

    def routes(self) -> list[Route]:
        """For the application."""
        return [
            self._site.shows("/templates", self.list_page),
            self._site.shows("/templates/add", self.add_page),
            self._site.takes("/templates/add", self.add),
            self._site.shows("/templates/{id:int}", self.edit_page),
            self._site.takes("/templates/{id:int}", self.edit),
            self._site.shows("/templates/{id:int}/remove", self.remove_page),
            self._site.takes("/templates/{id:int}/remove", self.remove),
        ]

    def list_page(self, visit: Visit) -> Response:
        """`/templates`: by name. Query: page."""
        return self._site.page(visit, "templates.html", self.list_content(visit.query), here="templates")

    def list_content(self, query: Mapping[str, str]) -> Content:
        """One page of the templates."""
        total = shown_installation.count_templates(self._connection)
        pager = Pager(number=page_number(query), size=PAGE, total=total)
        context = {"pager": pager, "link": Links(path="/templates", query={}), "empty": "No template yet."}
        rows = shown_installation.templates(self._connection, pager.paging)
        return self._site.content(context=context, parts={"pager": pager}, row="template", rows=rows)

    def add_page(self, visit: Visit) -> Response:
        """`/templates/add`: the form."""
        return forms.show(self._site, visit, _form(None), {"timelimit": str(SECONDS_USUAL)})

    async def add(self, visit: Visit) -> Response:
        """What that form sends."""
        return await forms.submit(self._site, visit, _form(None), "/templates?done=saved")

    def edit_page(self, visit: Visit) -> Response:
        """`/templates/ID`: the form to change a template."""
        template = self._template(visit)
        if template is None:
            return self._missing(visit)
        values = {field.name: str(getattr(template, field.name)) for field in _FIELDS}
        return forms.show(self._site, visit, _form(template), values)

    async def edit(self, visit: Visit) -> Response:
        """What that form sends."""
        template = self._template(visit)
        if template is None:
            return self._missing(visit)
        return await forms.submit(self._site, visit, _form(template), "/templates?done=saved")

    def remove_page(self, visit: Visit) -> Response:
        """`/templates/ID/remove`: whether it is really to be removed."""
        template = self._template(visit)
        return forms.show(self._site, visit, _remove(template), {}) if template else self._missing(visit)

    async def remove(self, visit: Visit) -> Response:
        """What that form sends."""
        template = self._template(visit)
        if template is None:
            return self._missing(visit)
        return await forms.submit(self._site, visit, _remove(template), "/templates?done=removed")

    def _template(self, visit: Visit) -> Template | None:
        return shown_installation.template(self._connection, visit.path["id"])

    def _missing(self, visit: Visit) -> Response:
        number = str(visit.path["id"])
        return self._site.missing(visit, what="template", name=number, back="/templates", here="templates")


def _form(template: Template | None) -> Form:
    return Form(
        title=f"Template {template.name}" if template else "Add a template",
        func="osmgr.edit",
        fixed={"sok": "ok", **({"elid": str(template.id)} if template else {})},
        button="Save" if template else "Add",
        fields=_FIELDS,
        back="/templates",
        back_word="All templates",
        here="templates",
    )


def _remove(template: Template) -> Form:
    return Form(
        title=f"Remove template {template.name}?",
        func="osmgr.delete",
        fixed={"elid": str(template.id)},
        button="Remove",
        back="/templates",
        back_word="All templates",
        here="templates",
        danger=True,
        text="What is installed stays as it is.",
    )
