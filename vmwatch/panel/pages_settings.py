# SPDX-License-Identifier: Apache-2.0
"""The pages of the policy and the settings: status check, history, the services, the own password."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from vmwatch.panel import forms, kept, policy, shown_services
from vmwatch.panel.forms import Field, Form
from vmwatch.panel.policy_functions import HISTORY_DAYS
from vmwatch.panel.sharing import ENDPOINT
from vmwatch.panel.shown_services import MASTER

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.responses import Response
    from starlette.routing import Route

    from vmwatch.panel.site import Site, Visit
    from vmwatch.panel.views import Content

_HISTORY: Final = Form(
    title="How long history is kept",
    func="paramlist.edit",
    fixed={"elid": HISTORY_DAYS, "sok": "ok"},
    button="Save",
    fields=(
        Field(
            name="value",
            label="Days",
            kind="number",
            hint=f"1 to {policy.DAYS_MOST}. Older events and solved problems are removed, step by step.",
            attributes={"min": "1", "max": str(policy.DAYS_MOST), "inputmode": "numeric"},
        ),
    ),
    back="/settings",
    back_word="Settings",
    here="settings",
)
_PASSWORD: Final = Form(
    title="Change your password",
    func="usrparam",
    fixed={"sok": "ok"},
    button="Change",
    fields=(
        Field(
            name="passwd",
            label="New password",
            kind="password",
            hint="8 to 255 characters.",
            attributes={"autocomplete": "new-password"},
        ),
        Field(
            name="confirm",
            label="The same again",
            kind="password",
            attributes={"autocomplete": "new-password"},
        ),
    ),
    back="/settings",
    back_word="Settings",
    here="settings",
    text="You will have to sign in again, here and wherever else you are signed in.",
)


class SettingsPages:
    """`/policy`, `/settings` and below."""

    def __init__(self, site: Site) -> None:
        """`site` frames them."""
        self._site = site
        self._connection = site.panel.store.connection

    def routes(self) -> list[Route]:
        """For the application."""
        site = self._site
        return [
            site.shows("/policy", self.policy_page),
            site.takes("/policy", self.change_policy),
            site.shows("/settings", self.settings_page),
            site.shows("/settings/history", self.history_page),
            site.takes(
                "/settings/history", lambda visit: forms.submit(site, visit, _HISTORY, "/settings?done=saved")
            ),
            site.shows("/settings/password", lambda visit: forms.show(site, visit, _PASSWORD, {})),
            site.takes("/settings/password", lambda visit: forms.submit(site, visit, _PASSWORD, "/sign-in")),
        ]

    def policy_page(self, visit: Visit) -> Response:
        """`/policy`: what holds for the whole cluster."""
        return self._site.page(visit, "policy.html", self.policy_content(visit.query), here="policy")

    def policy_content(self, query: Mapping[str, str]) -> Content:  # noqa: ARG002 (every page has a query)
        """The policy."""
        found = policy.read(self._connection)
        return self._site.content(context={"policy": found}, parts={"policy": found})

    async def change_policy(self, visit: Visit) -> Response:
        """Switch the status check: `status_check` on or off."""
        values = {"status_check": visit.form.get("status_check", ""), "sok": "ok"}
        return await forms.act(self._site, visit, "clusterpolicy", values, "/policy?done=saved")

    def settings_page(self, visit: Visit) -> Response:
        """`/settings`: what can be set, and what follows from it."""
        return self._site.page(visit, "settings.html", self.settings_content(visit.query), here="settings")

    def settings_content(self, query: Mapping[str, str]) -> Content:  # noqa: ARG002 (every page has a query)
        """The settings."""
        found = policy.read(self._connection)
        master = shown_services.service(self._connection, MASTER)
        endpoint = kept.read(self._connection, ENDPOINT)
        managed = self._site.panel.services.managed
        context = {"policy": found, "master": master, "endpoint": endpoint, "managed": managed}
        return self._site.content(context=context, parts={"settings": (found, master, endpoint)})

    def history_page(self, visit: Visit) -> Response:
        """`/settings/history`: the form to change how long history is kept."""
        days = policy.read(self._connection).history_days
        return forms.show(self._site, visit, _HISTORY, {"value": str(days)})
