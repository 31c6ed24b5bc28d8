# SPDX-License-Identifier: Apache-2.0
"""https: with a given certificate, and with one that the panel makes for itself."""

from __future__ import annotations

import os
import re
import socket
import ssl
import subprocess
from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest
import requests

from tests.integration.panel.process import COMMAND, LEAST, PASSWORD, PanelProcess
from tests.integration.stack import Stack
from tests.lab.waiting import wait_for
from vmwatch.panel.addresses import of_interfaces
from vmwatch.panel.certificate import ensure

if TYPE_CHECKING:
    from pathlib import Path

    from tests.lab.host import Host

pytestmark = pytest.mark.needs("openssl")

OWN = "Option Https\nOption RegisterUnknownVm\n"


def fails(config: Path, *, path: str) -> str:
    """What a panel says that ends with 78 where it can find programs in `path`."""
    command = [COMMAND, "--config", str(config)]
    ended = subprocess.run(
        command, env={"PATH": path}, capture_output=True, text=True, timeout=20, check=False
    )
    assert ended.returncode == 78
    return ended.stderr


def test_a_given_certificate(tmp_path: Path) -> None:
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "key.pem", "-out", "cert.pem"],
        cwd=tmp_path, check=True, capture_output=True,
    )  # fmt: skip
    more = "Certificate cert.pem\nCertificateKey key.pem\nOption RegisterUnknownVm\n"
    with PanelProcess(tmp_path, more=more) as panel:
        panel.http.verify = os.fspath(tmp_path / "cert.pem")
        assert panel.url.startswith("https://127.0.0.1:")
        panel.event("web", "started", "booted", 1)
        answer = panel.http.get(f"{panel.site}/sign-in", timeout=5)
        assert "; Secure" in answer.headers["set-cookie"].title()
    assert not (tmp_path / "vmwatch-panel.crt").exists()


def test_a_certificate_of_its_own_is_made_once(tmp_path: Path) -> None:
    certificate, key = tmp_path / "vmwatch-panel.crt", tmp_path / "vmwatch-panel.key"
    with PanelProcess(tmp_path, more=OWN) as panel:
        panel.http.verify = os.fspath(certificate)
        panel.event("web", "started", "booted", 1)
        assert key.stat().st_mode & 0o777 == 0o600
        assert sorted(path.name for path in tmp_path.glob("*certificate*")) == []
        made = certificate.read_bytes()
        digest = subprocess.run(
            ["openssl", "x509", "-in", certificate, "-noout", "-fingerprint", "-sha256"],
            check=True, capture_output=True, text=True,
        ).stdout.strip().rpartition("=")[2].replace(":", "").lower()  # fmt: skip
        assert f"sha256={digest}" in panel.log.read_text()
        panel.stop()
        panel.start()
        assert certificate.read_bytes() == made
        assert panel.rows("vm")[0]["name"] == "web"


def test_it_names_the_host_and_its_addresses(tmp_path: Path) -> None:
    with PanelProcess(tmp_path, more=OWN) as panel:
        certificate = tmp_path / "vmwatch-panel.crt"
        port = int(panel.site.rpartition(":")[2])
        for name in (socket.gethostname(), "localhost", "127.0.0.1"):
            context = ssl.create_default_context(cafile=certificate)
            context.verify_flags |= ssl.VERIFY_X509_STRICT  # what Python 3.13 asks for by itself
            with (
                socket.create_connection(("127.0.0.1", port), timeout=5) as plain,
                context.wrap_socket(plain, server_hostname=name) as secure,
            ):
                assert secure.version() == "TLSv1.3"
        with pytest.raises(requests.exceptions.SSLError):
            panel.raw(func="vm")  # who does not name the file does not trust it


@pytest.mark.needs("ip")
@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.1.2.3", "fe80::1%eth0"])
def test_it_is_for_what_is_listened_on(tmp_path: Path, host: str) -> None:
    """Which a test must not do: all the host's addresses, or the one."""
    ensure(tmp_path / "crt", tmp_path / "key", host=host)
    listed = subprocess.run(
        ["openssl", "x509", "-in", tmp_path / "crt", "-noout", "-ext", "subjectAltName"],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    found = {ip_address(part.strip()) for part in re.findall(r"IP Address:([^,]+)", listed)}
    own = of_interfaces(
        subprocess.run(["ip", "-json", "address"], check=True, capture_output=True).stdout.decode()
    )
    wanted = own if host in ("0.0.0.0", "::") else (host.partition("%")[0],)
    assert found == {ip_address(address) for address in (*wanted, "127.0.0.1", "::1")}


def test_half_a_pair_is_made_anew_and_a_wrong_one_is_told(tmp_path: Path) -> None:
    certificate, key = tmp_path / "vmwatch-panel.crt", tmp_path / "vmwatch-panel.key"
    key.write_text("half")
    with PanelProcess(tmp_path, more=OWN) as panel:
        assert panel.stop() == 0
    assert "PRIVATE KEY" in key.read_text()
    key.write_text("damaged")
    said = fails(panel.config, path=os.environ["PATH"])
    assert f"{certificate}: not a certificate that vmwatch-panel.key fits" in said


def test_without_openssl_it_says_so(tmp_path: Path) -> None:
    config = tmp_path / "panel.conf"
    config.write_text(f"{LEAST}AdminPassword {PASSWORD}\n{OWN}")
    said = fails(config, path="/nowhere")
    assert said.endswith("vmwatch-panel.crt: cannot be made: openssl: not found\n")


class SecureStack(Stack):
    """The whole way with a panel that has a certificate of its own, and a master that names it."""

    @property
    def panel_url(self) -> str:
        return super().panel_url.replace("http://", "https://")

    @property
    def certificate(self) -> Path:
        return self.folder / "vmwatch-panel.crt"

    def secure(self, *, verify: object) -> None:
        """To be called before the start."""
        with (self.folder / "vmmgr.conf").open("a") as file:
            file.write("Option Https\n")
        with (self.folder / "master.conf").open("a") as file:
            file.write(f"panel_verify={verify}\n")


def test_the_master_trusts_the_certificate_that_it_is_told(driver_host: Host, tmp_path: Path) -> None:
    with SecureStack(driver_host, tmp_path) as stack:
        stack.secure(verify=stack.certificate)
        stack.start()
        stack.client.trust(stack.certificate)
        stack.define("web")
        wait_for(lambda: stack.shown().get("web"), seconds=20, what="the VM at the panel")


def test_a_master_that_is_not_told_does_not_speak_to_it(driver_host: Host, tmp_path: Path) -> None:
    with SecureStack(driver_host, tmp_path) as stack:
        stack.secure(verify="yes")
        stack.start()
        stack.client.trust(stack.certificate)
        wait_for(
            lambda: "certificate not accepted" in (tmp_path / "master.log").read_text(),
            seconds=20,
            what="the master to say why",
        )
        assert stack.shown() == {}
