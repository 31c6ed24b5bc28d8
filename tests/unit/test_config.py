# SPDX-License-Identifier: Apache-2.0
"""Each kind of mistake in a configuration gives its one line; what is right is read as it was written."""

from __future__ import annotations

import os
import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmwatch import config
from vmwatch.config import Endpoint, LogLevel, MasterSettings, NodeSettings
from vmwatch.errors import ConfigError

SECRET = "ABCDEFGHIJ0123456789"
NODE = f"connect=tcp://192.0.2.1:1515\nsecret={SECRET}\nnode_id=7\n"
MASTER = f"listen=tcp://192.0.2.1:1515\nsecret={SECRET}\n"
ENDPOINT = "expected tcp://IP:PORT or tcp://[IPV6]:PORT, port 1 to 65535"
SECRET_EXPECTED = "expected letters A-Z and digits 0-9, 16 or more"
PATH = "expected an absolute path of a file"
URL = "expected http://HOST[:PORT]/PATH or https://…, without user, query or fragment"


def write(folder: Path, content: str | bytes) -> Path:
    path = folder / "vmwatch.conf"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    path.chmod(0o640)
    return path


def node_error(folder: Path, content: str | bytes, *, strict: bool = False) -> str:
    """The error of a vmwatch-node.conf, the file's path left out."""
    path = write(folder, content)
    with pytest.raises(ConfigError) as caught:
        config.read_node(path, strict=strict)
    assert caught.value.exit_code == 78
    return str(caught.value).replace(str(path), "FILE")


def master_error(folder: Path, content: str) -> str:
    path = write(folder, content)
    with pytest.raises(ConfigError) as caught:
        config.read_master(path)
    return str(caught.value).replace(str(path), "FILE")


def test_three_names_make_a_node(tmp_path: Path) -> None:
    settings, warnings = config.read_node(write(tmp_path, NODE))
    assert warnings == []
    assert settings == NodeSettings(
        disabled=False,
        connect=Endpoint("192.0.2.1", 1515),
        secret=SECRET,
        node_id=7,
        libvirt_uri="qemu:///system",
        statistics_interval=600.0,
        heartbeat_interval=10.0,
        log_file=Path("/usr/local/mgr5/var/vmwatch-node.log"),
        log_level=LogLevel.INFO,
        pid_file=Path("/usr/local/mgr5/var/run/vmwatch-node.pid"),
        state_dir=Path("/usr/local/mgr5/var/vmwatch-node"),
    )


def test_three_names_make_a_master(tmp_path: Path) -> None:
    settings, warnings = config.read_master(write(tmp_path, f"disabled=no\n{MASTER}"))
    assert warnings == []
    assert settings == MasterSettings(
        disabled=False,
        listen=Endpoint("192.0.2.1", 1515),
        secret=SECRET,
        panel_url="https://127.0.0.1:1500/vmmgr",
        panel_user=None,
        panel_password=None,
        panel_verify=True,
        log_file=Path("/usr/local/mgr5/var/vmwatch-master.log"),
        log_level=LogLevel.INFO,
        pid_file=Path("/usr/local/mgr5/var/run/vmwatch-master.pid"),
        state_dir=Path("/usr/local/mgr5/var/vmwatch-master"),
    )


@pytest.mark.parametrize(
    "content",
    [
        pytest.param("\ufeff" + NODE, id="byte order mark"),
        pytest.param(NODE.replace("\n", "\r\n"), id="CRLF"),
        pytest.param(NODE.rstrip("\n"), id="no newline at the end"),
        pytest.param(
            NODE.replace("=", " \t= \t").replace("\n", "\t \n"), id="blanks around names and values"
        ),
        pytest.param("# a comment\n\n  \t\n  # x=1\n#=\n" + NODE, id="comments and blank lines"),
    ],
)
def test_is_read_as_the_plain_file(tmp_path: Path, content: str) -> None:
    plain = config.read_node(write(tmp_path, NODE))
    assert config.read_node(write(tmp_path, content)) == plain


@pytest.mark.parametrize(
    ("content", "error"),
    [
        pytest.param("", f"FILE: connect: missing: {ENDPOINT}", id="empty"),
        pytest.param("connect=tcp://[::1]:1\n", f"FILE: secret: missing: {SECRET_EXPECTED}", id="no secret"),
        pytest.param(
            NODE.replace("node_id=7\n", ""),
            "FILE: node_id: missing: expected a positive integer",
            id="no node_id",
        ),
        pytest.param(
            f"{NODE}secret {SECRET}\n", 'FILE:4: no "=" in the line: expected NAME=VALUE', id="no ="
        ),
        pytest.param(f"{NODE}={SECRET}\n", 'FILE:4: no name before "=": expected NAME=VALUE', id="no name"),
        pytest.param(
            f"{NODE}\nnode_id=8\n",
            "FILE:5: node_id=***: given twice: expected once, line 3 has it",
            id="twice",
        ),
        pytest.param(
            f"x=1\n#\nx=1\n{NODE}",
            "FILE:3: x=***: given twice: expected once, line 1 has it",
            id="unknown twice",
        ),
        pytest.param(
            f"{NODE}# \xff\n".encode("latin-1"),
            "FILE:4: not UTF-8: expected NAME=VALUE in UTF-8",
            id="not UTF-8",
        ),
        pytest.param("connect=\n", f"FILE:1: connect=: {ENDPOINT}", id="empty value"),
        pytest.param("secret=\n", f"FILE:1: secret=: {SECRET_EXPECTED}", id="empty secret"),
        pytest.param("secret=abc\n", f"FILE:1: secret=***: {SECRET_EXPECTED}", id="secret in lower case"),
        pytest.param("secret=ÄÖÜ\n", f"FILE:1: secret=***: {SECRET_EXPECTED}", id="secret of other letters"),
        pytest.param("secret=AB # x\n", f"FILE:1: secret=***: {SECRET_EXPECTED}", id="comment after a value"),
        pytest.param(
            "log_file=/a\x00b\n",
            f"FILE:1: log_file=/a\\x00b: {PATH}",
            id="a control character, shown escaped",
        ),
        pytest.param(
            "log_file=/a\rsecret=B\n",
            f"FILE:1: log_file=/a\\rsecret=B: {PATH}",
            id="a carriage return within",
        ),
        pytest.param(f"log_file={'x' * 999}\n", f"FILE:1: log_file={'x' * 100}…: {PATH}", id="a long value"),
        pytest.param("disabled=true\n", "FILE:1: disabled=true: expected yes or no", id="neither yes nor no"),
        pytest.param("log_file=log\n", f"FILE:1: log_file=log: {PATH}", id="a relative path"),
        pytest.param("log_file=/\n", f"FILE:1: log_file=/: {PATH}", id="the root folder"),
        pytest.param(
            "log_level=loud\n",
            "FILE:1: log_level=loud: expected one of debug, info, warning, error",
            id="an unknown level",
        ),
        pytest.param(
            "libvirt_uri=qemu\n",
            "FILE:1: libvirt_uri=qemu: expected a libvirt URI such as qemu:///system",
            id="no URI",
        ),
    ],
)
def test_error(tmp_path: Path, content: str | bytes, error: str) -> None:
    assert node_error(tmp_path, content) == error


@pytest.mark.parametrize(
    "value",
    [
        "192.0.2.1:1515",
        "tcp://192.0.2.1",
        "tcp://192.0.2.1:",
        "tcp://192.0.2.1:0",
        "tcp://192.0.2.1:65536",
        "tcp://192.0.2.1:015",
        "tcp://192.0.2.1:٣",
        "tcp://192.0.2.1:1/x",
        "tcp://192.0.2.256:1515",
        "tcp://192.0.2:1515",
        "tcp://*:1515",
        "tcp://localhost:1515",
        "tcp://::1:1515",
        "tcp://[192.0.2.1]:1515",
        "tcp://[::1]1515",
        "tcp://[::g]:1515",
        "tcp://[fe80::1%eth0]:1515",
        "TCP://192.0.2.1:1515",
        "udp://192.0.2.1:1515",
    ],
)
def test_no_endpoint(tmp_path: Path, value: str) -> None:
    assert node_error(tmp_path, f"connect={value}\n") == f"FILE:1: connect={value}: {ENDPOINT}"


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("tcp://192.0.2.1:1", "192.0.2.1", 1),
        ("tcp://0.0.0.0:65535", "0.0.0.0", 65535),
        ("tcp://[::1]:1515", "::1", 1515),
        ("tcp://[2001:db8::ffff]:1515", "2001:db8::ffff", 1515),
    ],
)
def test_endpoint(text: str, host: str, port: int) -> None:
    assert Endpoint.parse(text) == Endpoint(host, port)
    assert str(Endpoint(host, port)) == text


def test_an_ipv6_address_has_one_form() -> None:
    assert str(Endpoint.parse("tcp://[0:0::1]:1515")) == "tcp://[::1]:1515"


@pytest.mark.parametrize("value", ["0", "-1", "+1", "1.0", "01", "1e3", "2147483648", "٣", "one", "1_0"])
def test_no_node_id(tmp_path: Path, value: str) -> None:
    assert (
        node_error(tmp_path, f"node_id={value}\n") == f"FILE:1: node_id={value}: expected a positive integer"
    )


@pytest.mark.parametrize("value", ["0.09", "300.1", "301", "-5", "10s", "nan", "inf", "1e1", "٣", ".5", "5."])
def test_no_heartbeat_interval(tmp_path: Path, value: str) -> None:
    error = f"FILE:1: heartbeat_interval={value}: expected seconds, 0.1 to 300"
    assert node_error(tmp_path, f"heartbeat_interval={value}\n") == error


@pytest.mark.parametrize("value", ["0", "0.9", "86401"])
def test_no_statistics_interval(tmp_path: Path, value: str) -> None:
    error = f"FILE:1: statistics_interval={value}: expected seconds, 1 to 86400"
    assert node_error(tmp_path, f"statistics_interval={value}\n") == error


def test_bounds_belong_to_the_interval(tmp_path: Path) -> None:
    for value in (0.1, 300.0):
        settings, _ = config.read_node(write(tmp_path, f"{NODE}heartbeat_interval={value}\n"))
        assert settings.heartbeat_interval == value


@pytest.mark.parametrize(
    "value",
    [
        "127.0.0.1:1500/vmmgr",
        "ftp://127.0.0.1/vmmgr",
        "https:///vmmgr",
        "https://127.0.0.1:65536/vmmgr",
        "https://127.0.0.1:0/vmmgr",
        "https://127.0.0.1:x/vmmgr",
        "https://127.0.0.1/vm mgr",
        "https://127.0.0.1/vmmgr?func=vm",
        "https://127.0.0.1/vmmgr#top",
        "https://[::1/vmmgr",
    ],
)
def test_no_panel_url(tmp_path: Path, value: str) -> None:
    assert master_error(tmp_path, f"panel_url={value}\n") == f"FILE:1: panel_url={value}: {URL}"


def test_the_password_in_a_url_is_refused_and_not_shown(tmp_path: Path) -> None:
    error = master_error(tmp_path, "panel_url=https://root:Pa55@127.0.0.1/vmmgr\n")
    assert error == f"FILE:1: panel_url=https://***@127.0.0.1/vmmgr: {URL}"


@pytest.mark.parametrize(
    "value", ["http://127.0.0.1:8080/vmmgr", "https://[::1]:1500/vmmgr", "https://panel/vmmgr"]
)
def test_panel_url(tmp_path: Path, value: str) -> None:
    assert config.read_master(write(tmp_path, f"{MASTER}panel_url={value}\n"))[0].panel_url == value


def test_panel_user_and_password_come_together(tmp_path: Path) -> None:
    user, password = "panel_user=root\n", "panel_password=Pa55 = word\n"
    assert master_error(tmp_path, MASTER + user) == (
        "FILE: panel_password: missing beside panel_user: expected the password of panel_user"
    )
    assert master_error(tmp_path, MASTER + password) == (
        "FILE: panel_user: missing beside panel_password: expected a user's name without blanks and colons"
    )
    settings, _ = config.read_master(write(tmp_path, MASTER + user + password))
    assert (settings.panel_user, settings.panel_password) == ("root", "Pa55 = word")


def test_a_password_is_never_shown(tmp_path: Path) -> None:
    error = master_error(tmp_path, "panel_password=Pa55\x07\n")
    assert error == "FILE:1: panel_password=***: expected the password of panel_user"


def test_panel_verify(tmp_path: Path) -> None:
    authorities = tmp_path / "ca.pem"
    line = f"{MASTER}panel_verify={authorities}\n"
    assert master_error(tmp_path, line) == (
        f"FILE:3: panel_verify={authorities}: "
        "expected yes, no or the absolute path of an existing file of CA certificates"
    )
    authorities.touch()
    assert config.read_master(write(tmp_path, line))[0].panel_verify == authorities
    for text, value in (("yes", True), ("no", False)):
        settings, _ = config.read_master(write(tmp_path, f"{MASTER}panel_verify={text}\n"))
        assert settings.panel_verify is value


def test_log_level(tmp_path: Path) -> None:
    settings, _ = config.read_node(write(tmp_path, f"{NODE}log_level=debug\n"))
    assert settings.log_level is LogLevel.DEBUG


def test_an_unknown_name_is_a_warning_and_strictly_an_error(tmp_path: Path) -> None:
    content = f"{NODE}Secret=HIDDEN\nnew\x07=1\n"
    names = "disabled, log_file, log_level, pid_file, state_dir, connect, secret, node_id, libvirt_uri, "
    names += "statistics_interval, heartbeat_interval"
    path = write(tmp_path, content)
    settings, warnings = config.read_node(path)
    assert settings.node_id == 7
    assert warnings == [
        f"{path}:4: Secret: unknown name: expected one of {names}",
        f"{path}:5: new\\x07: unknown name: expected one of {names}",
    ]
    assert (
        node_error(tmp_path, content, strict=True) == f"FILE:4: Secret: unknown name: expected one of {names}"
    )


def test_a_short_secret_is_a_warning(tmp_path: Path) -> None:
    path = write(tmp_path, NODE.replace(SECRET, "ABCDEFGHIJ01234"))
    settings, warnings = config.read_node(path, strict=True)
    assert settings.secret == "ABCDEFGHIJ01234"
    assert warnings == [f"{path}:2: secret: can be guessed: expected 16 characters or more"]
    assert config.read_node(write(tmp_path, NODE.replace(SECRET, "ABCDEFGHIJ012345")))[1] == []


def test_a_file_that_everybody_can_read_is_a_warning(tmp_path: Path) -> None:
    path = write(tmp_path, NODE)
    path.chmod(0o644)
    assert config.read_node(path)[1] == [f"{path}: mode 0644: everybody can read the secret: expected 0640"]


def error_of(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        config.read_node(path)
    return str(caught.value).replace(str(path), "FILE")


def test_a_file_that_is_none(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    expected = "expected a configuration file"
    assert error_of(tmp_path / "none") == f"FILE: cannot be read: No such file or directory: {expected}"
    assert error_of(tmp_path) == f"FILE: cannot be read: Is a directory: {expected}"
    assert error_of(pipe) == f"FILE: cannot be read: Not a regular file: {expected}"


def test_a_file_that_may_not_be_read() -> None:
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)  # root may read every file
    try:
        error = error_of(Path("/etc/shadow"))
    finally:
        os.seteuid(user)
    assert error == "FILE: cannot be read: Permission denied: expected a configuration file"


def test_size(tmp_path: Path) -> None:
    largest = NODE + "#" * ((1 << 20) - len(NODE))
    assert config.read_node(write(tmp_path, largest))[0].node_id == 7
    assert node_error(tmp_path, largest + "#") == "FILE: too large: expected at most 1048576 bytes"


@pytest.mark.parametrize(
    ("content", "disabled"),
    [
        ("disabled=yes\n", True),
        ("disabled=yes\nlisten=nonsense\n", True),
        ("disabled=no\n", False),
        ("#disabled=yes\n", False),
        ("", False),
    ],
)
def test_is_disabled(tmp_path: Path, content: str, *, disabled: bool) -> None:
    assert config.is_disabled(write(tmp_path, content)) is disabled


def test_is_disabled_knows_no_third_answer(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="disabled=maybe: expected yes or no"):
        config.is_disabled(write(tmp_path, "disabled=maybe\n"))


def test_secrets_do_not_stand_in_a_repr() -> None:
    settings = MasterSettings(
        listen=Endpoint("::1", 1), secret=SECRET, panel_user="root", panel_password="Pa55"
    )
    assert SECRET not in repr(settings)
    assert "Pa55" not in repr(settings)


def printable(*, but: str = "") -> st.SearchStrategy[str]:
    text = st.text(
        st.characters(codec="utf-8").filter(lambda c: c.isprintable() and c not in but), min_size=1
    )
    return text.map(lambda t: t.strip(" ")).filter(bool)


ENDPOINTS = st.builds(Endpoint, st.ip_addresses().map(str), st.integers(1, 65535))
SECRETS = st.text(string.ascii_uppercase + string.digits, min_size=16)
PATHS = st.from_regex(r"/[\w. -]*\w", fullmatch=True).map(Path)
COMMON = {
    "disabled": st.booleans(),
    "log_file": PATHS,
    "log_level": st.sampled_from(LogLevel),
    "pid_file": PATHS,
    "state_dir": PATHS,
    "secret": SECRETS,
}
NODES = st.builds(
    NodeSettings,
    **COMMON,
    connect=ENDPOINTS,
    node_id=st.integers(1, (1 << 31) - 1),
    libvirt_uri=st.sampled_from(
        ["qemu:///system", "test:///default", "qemu+ssh://root@node/system?no_tty=1"]
    ),
    statistics_interval=st.integers(1000, 86_400_000).map(lambda ms: ms / 1000),
    heartbeat_interval=st.integers(100, 300_000).map(lambda ms: ms / 1000),
)
MASTERS = st.builds(
    MasterSettings,
    **COMMON,
    listen=ENDPOINTS,
    panel_url=st.sampled_from(["https://127.0.0.1:1500/vmmgr", "http://[::1]/"]),
    panel_user=printable(but=": \u3000\xa0"),
    panel_password=printable(),
    panel_verify=st.booleans(),
)


@given(settings=NODES)
def test_a_node_is_read_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory, settings: NodeSettings
) -> None:
    path = write(tmp_path_factory.getbasetemp(), config.render(settings))
    assert config.read_node(path, strict=True) == (settings, [])


@given(settings=MASTERS)
def test_a_master_is_read_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory, settings: MasterSettings
) -> None:
    path = write(tmp_path_factory.getbasetemp(), config.render(settings))
    assert config.read_master(path, strict=True) == (settings, [])


@given(data=st.binary(max_size=200))
def test_whatever_a_file_holds_one_line_is_said(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    path = write(tmp_path_factory.getbasetemp(), data)
    with pytest.raises(ConfigError) as caught:
        config.read_node(path)
    assert str(caught.value).isprintable()
