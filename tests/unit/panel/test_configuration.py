# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmwatch import config
from vmwatch.config import Endpoint
from vmwatch.errors import ConfigError
from vmwatch.panel import configuration
from vmwatch.panel.configuration import Cluster, MasterAccess

if TYPE_CHECKING:
    from pathlib import Path

SECRET = "3K0Q7ZB1M5XWT9RD82LNC4VHY6FJGPSA"
CLUSTER = Cluster(endpoint=Endpoint("192.0.2.10", 1515), secret=SECRET)
ACCESS = MasterAccess(url="http://127.0.0.1:1500/vmmgr", password="ours", verify=None)


def master(text: str = "", *, disabled: bool = False, access: MasterAccess = ACCESS) -> str:
    return configuration.master(text, CLUSTER, access, disabled=disabled)


def node(text: str = "", *, disabled: bool = False) -> str:
    return configuration.node(text, CLUSTER, 7, disabled=disabled)


def test_new_files_are_what_the_services_read(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch(mode=0o600)
    file.write_text(master())
    settings, warnings = config.read_master(file, strict=True)
    assert (settings.listen, settings.secret, settings.disabled) == (CLUSTER.endpoint, SECRET, False)
    assert (settings.panel_url, settings.panel_user, settings.panel_password) == (
        ACCESS.url,
        configuration.MASTER_USER,
        "ours",
    )
    file.write_text(node(disabled=True))
    of_node, more = config.read_node(file, strict=True)
    assert (of_node.connect, of_node.secret, of_node.node_id) == (CLUSTER.endpoint, SECRET, 7)
    assert of_node.disabled
    assert warnings == more == []


def test_an_administrators_lines_stay_and_ours_change_in_their_places() -> None:
    text = (
        "# ours\r\n\r\nlog_level = debug\n  secret=OLD \nsecret=TWICE\nnonsense\n"
        "#connect=tcp://1.1.1.1:1\nconnect=tcp://192.0.2.9:1\nbus_id=1"
    )
    assert node(text) == (
        f"# ours\r\n\r\nlog_level = debug\nsecret={SECRET}\nnonsense\n"
        "#connect=tcp://1.1.1.1:1\nconnect=tcp://192.0.2.10:1515\nbus_id=1\nnode_id=7\n"
    )


def test_disabled_comes_and_goes() -> None:
    blocked = node(disabled=True)
    assert blocked.count("disabled=yes\n") == 1
    assert node(blocked) == node()


LINES = (
    "secret=A\n",
    " secret = B\r\n",
    "#secret=C\n",
    "panel_user=me\n",
    "\n",
    "node_id\n",
    "disabled=no\n",
    "x=",
)


@given(st.lists(st.sampled_from(LINES)).map("".join))
def test_what_is_written_once_stays_as_it_is(text: str) -> None:
    for written in (node, master):
        assert written(written(text)) == written(text)
        assert configuration.secret_in(written(text)) == SECRET


def test_where_the_administrator_gave_the_master_an_access_it_stays() -> None:
    own = "panel_url=https://panel.example/vmmgr\npanel_user=me\npanel_password=mine\npanel_verify=no\n"
    assert master(own).startswith(own)
    assert "ours" not in master(own)


def test_the_panels_certificate_is_named_where_there_is_one(tmp_path: Path) -> None:
    certificate = tmp_path / "cert.pem"
    certificate.touch()
    access = MasterAccess(url="https://127.0.0.1:1500/vmmgr", password="ours", verify=str(certificate))
    assert f"\npanel_verify={certificate}\n" in master(access=access)
    assert "panel_verify=no\n" in master("panel_verify=no\n")


def test_a_value_that_no_service_would_take_is_not_written() -> None:
    wrong = Cluster(endpoint=CLUSTER.endpoint, secret="not a secret")
    with pytest.raises(ConfigError, match=r"^secret: expected letters A-Z"):
        configuration.node("", wrong, 7, disabled=False)
    with pytest.raises(ConfigError, match=r"^node_id: '0': expected a positive integer"):
        configuration.node("", CLUSTER, 0, disabled=False)


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        (f"secret={SECRET}\n", SECRET),
        (f"# secret=A\n secret = {SECRET} \r\n", SECRET),
        ("listen=x\n", None),
        ("secret=\n", None),
        ("secret=lower\n", None),
        ("", None),
    ],
)
def test_the_secret_of_a_file(text: str, secret: str | None) -> None:
    assert configuration.secret_in(text) == secret


def test_no_secret_is_shown() -> None:
    assert SECRET not in repr(CLUSTER)
    assert "ours" not in repr(ACCESS)
