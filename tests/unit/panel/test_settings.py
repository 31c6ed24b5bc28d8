# SPDX-License-Identifier: Apache-2.0
"""The configuration file: what it may say, and one line for what it may not."""

from __future__ import annotations

from pathlib import Path

import pytest

from vmwatch.errors import ConfigError
from vmwatch.panel.settings import parse, read

FILE = Path("/etc/panel.conf")


def test_the_least() -> None:
    settings = parse("Database panel.db\n", FILE)
    assert (settings.host, settings.port, settings.database) == ("127.0.0.1", 1500, Path("/etc/panel.db"))
    assert (settings.admin_user, settings.admin_password, settings.register_unknown_vm) == (
        "admin",
        None,
        False,
    )


def test_all() -> None:
    settings = parse(
        "# ours\n\n  Listen ::1\nListenPort\t0\nDatabase /var/lib/panel.db\nAdminUser root@panel\n"
        "AdminPassword two words # and this\nOption RegisterUnknownVm\n",
        FILE,
    )
    assert (settings.host, settings.port, settings.admin_user) == ("::1", 0, "root@panel")
    assert (settings.admin_password, settings.register_unknown_vm) == ("two words # and this", True)
    assert settings.warnings == ()
    assert "two words" not in repr(settings)


def test_services_are_not_managed_unless_it_says_so() -> None:
    services = parse("Database data/panel.db\n", FILE).services
    assert (services.managed, services.listen_ip, services.listen_port, services.group) == (
        False,
        None,
        1515,
        "root",
    )
    assert services.ssh_identity == Path("/etc/data/ssh/id_ed25519")
    assert services.ssh_known_hosts == Path("/etc/data/ssh/known_hosts")


def test_how_services_are_managed() -> None:
    services = parse(
        "Database a\nOption ManageServices\nVmwatchListenIp 2001:DB8::0:1\nVmwatchListenPort 1616\n"
        "ServiceGroup vmwatch\nSshIdentity /root/key\nSshKnownHosts known\n",
        FILE,
    ).services
    assert (services.managed, services.listen_ip, services.listen_port) == (True, "2001:db8::1", 1616)
    assert (services.group, services.ssh_identity, services.ssh_known_hosts) == (
        "vmwatch",
        Path("/root/key"),
        Path("/etc/known"),
    )


def test_what_is_unknown_is_a_warning_for_the_product_has_more_names() -> None:
    settings = parse("Database a\nDBHost localhost\nOption Trusted\n", FILE)
    assert settings.warnings == (
        "/etc/panel.conf:2: DBHost: unknown, ignored",
        "/etc/panel.conf:3: Option Trusted: unknown, ignored",
    )


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "/etc/panel.conf: Database: missing: expected a path"),
        ("Database", "/etc/panel.conf:1: not a setting: expected `Name value` or `Option Name`"),
        (
            "AdminPassword=hunter2 x",
            "/etc/panel.conf:1: not a setting: expected `Name value` or `Option Name`",
        ),
        (
            "Database a\nListenPort 70000",
            "/etc/panel.conf:2: ListenPort: '70000': expected a port from 0 to 65535 (0: the kernel's choice)",
        ),
        (
            "Database a\nListen localhost",
            "/etc/panel.conf:2: Listen: 'localhost': expected an IPv4 or IPv6 address",
        ),
        (
            "Database a\nCertificate c.pem",
            "/etc/panel.conf:2: Certificate: 'c.pem': expected CertificateKey beside it",
        ),
        (
            "Database a\nAdminUser a:b",
            "/etc/panel.conf:2: AdminUser: 'a:b': expected 1 to 64 letters, digits, or any of _.@-",
        ),
        (
            "Database a\nVmwatchListenIp 0.0.0.0",
            "/etc/panel.conf:2: VmwatchListenIp: '0.0.0.0': expected an address that the nodes can connect to",
        ),
        (
            "Database a\nVmwatchListenIp panel",
            "/etc/panel.conf:2: VmwatchListenIp: 'panel': expected an IPv4 or IPv6 address",
        ),
        (
            "Database a\nVmwatchListenPort 0",
            "/etc/panel.conf:2: VmwatchListenPort: '0': expected a port from 1 to 65535",
        ),
        (
            "Database a\nServiceGroup -x",
            "/etc/panel.conf:2: ServiceGroup: '-x': expected the name of a group",
        ),
        (
            "AdminPassword hunter2\nAdminPassword hunter3",
            "/etc/panel.conf:2: AdminPassword: (hidden): expected one value, already given in line 1",
        ),
        (
            "AdminPassword hunter2\x00",
            "/etc/panel.conf:1: AdminPassword: a control character in the value: expected printable text",
        ),
    ],
)
def test_an_error_is_one_line(text: str, line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text, FILE)
    assert str(caught.value) == line


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read(tmp_path / "none.conf")
    (tmp_path / "latin").write_bytes(b"AdminUser J\xf6rg")
    with pytest.raises(ConfigError, match="cannot be read"):
        read(tmp_path / "latin")


def test_a_certificate_is_tried(tmp_path: Path) -> None:
    (tmp_path / "c.pem").write_text("not a certificate")
    text = "Database a\nListen 0.0.0.0\nCertificate c.pem\nCertificateKey c.pem"
    with pytest.raises(ConfigError, match=r":3: Certificate: 'c.pem': expected a certificate that"):
        parse(text, tmp_path / "panel.conf")


@pytest.mark.parametrize(
    ("more", "own"),
    [
        ("", False),
        ("Listen ::1", False),
        ("Option Https", True),
        ("Listen 0.0.0.0", True),
        ("Listen ::", True),
        ("Listen 10.0.0.1", True),  # private, yet others share the network
    ],
)
def test_beyond_loopback_it_is_https_with_a_certificate_of_its_own(more: str, own: bool) -> None:
    settings = parse(f"Database /var/lib/panel/panel.db\n{more}", FILE)
    assert settings.own_certificate is own
    assert settings.certificate == (Path("/var/lib/panel/vmwatch-panel.crt") if own else None)
    assert settings.certificate_key == (Path("/var/lib/panel/vmwatch-panel.key") if own else None)
