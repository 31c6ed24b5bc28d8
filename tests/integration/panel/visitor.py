# SPDX-License-Identifier: Apache-2.0
"""A browser without script: cookies, forms, no more."""

from __future__ import annotations

import re
from html import unescape
from typing import TYPE_CHECKING

import requests

from tests.integration.panel.process import PASSWORD, USER

if TYPE_CHECKING:
    from tests.integration.panel.process import PanelProcess


class Visitor:
    """One visitor of a panel's pages."""

    def __init__(self, panel: PanelProcess) -> None:
        self.site = panel.site
        self.http = requests.Session()
        self.http.trust_env = False

    def get(self, path: str, *, follow: bool = True, stream: bool = False) -> requests.Response:
        return self.http.get(self.site + path, timeout=5, allow_redirects=follow, stream=stream)

    def sign_in(self, password: str = PASSWORD, path: str = "/sign-in", **more: str) -> requests.Response:
        hidden = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', self.get(path).text))
        hidden = {name: unescape(value) for name, value in hidden.items()}
        form = {**hidden, "username": USER, "password": password, **more}
        return self.http.post(f"{self.site}/sign-in", data=form, timeout=5, allow_redirects=False)

    def token(self) -> str:
        match = re.search(r'name="token" value="(\w+)"', self.get("/").text)
        assert match
        return match[1]
