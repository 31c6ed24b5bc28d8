# SPDX-License-Identifier: Apache-2.0
"""The panel's client against a real HTTP server that behaves as badly as the network has it."""

from __future__ import annotations

import gzip
import logging
import ssl
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

import pytest

from vmwatch.errors import Missed, PanelError, Refused, Unavailable
from vmwatch.sessions import Sessions
from vmwatch.vmmanager import MAX_ANSWER, Access, Panel, Timeouts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from typing import TypeAlias

    Serve: TypeAlias = Callable[..., "Server"]
    Connect: TypeAlias = Callable[..., Panel]
    Answer: TypeAlias = Callable[["Request"], None]

OK = b'{"doc":{"ok":{}}}'
PASSWORD = "hunter2+%&="
BOMB = gzip.compress(b" " * (64 << 20), compresslevel=1)
QUICK = Timeouts(connect=0.3, answer=0.3)


class Server(ThreadingHTTPServer):
    """Answers each form posted to it with `answer`; remembers forms and connections."""

    daemon_threads = False  # closing waits for its threads
    request_queue_size = 64

    def __init__(self, answer: Answer) -> None:
        super().__init__(("127.0.0.1", 0), Request)
        self.answer = answer
        self.forms: list[dict[str, str]] = []
        self.headers: list[dict[str, str]] = []
        self.connections: list[object] = []
        self.stopping = threading.Event()
        self.hung_up = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/vmmgr"

    def process_request(self, request: object, client_address: object) -> None:
        self.connections.append(client_address)
        super().process_request(request, client_address)  # type: ignore[arg-type]

    def shutdown_request(self, request: object) -> None:
        super().shutdown_request(request)  # type: ignore[arg-type]
        self.hung_up.set()


class Request(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.form = dict(parse_qsl(body, keep_blank_values=True, strict_parsing=True))
        self.server.forms.append(self.form)
        self.server.headers.append(dict(self.headers))
        try:
            self.server.answer(self)
        except ConnectionError:  # the client has had enough
            self.close_connection = True

    def log_message(self, *args: object) -> None:
        """Say nothing."""

    def reply(self, body: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def drip(self, data: bytes) -> None:
        """Write what is given byte by byte, again and again, for as long as somebody reads."""
        while not self.server.stopping.wait(0.01):
            self.wfile.write(data[:1])
            data = data[1:] + data[:1]


def say_ok(request: Request) -> None:
    request.reply(OK)


@pytest.fixture
def serve() -> Iterator[Serve]:
    servers: list[tuple[Server, threading.Thread]] = []

    def start(answer: Answer = say_ok, tls: ssl.SSLContext | None = None) -> Server:
        server = Server(answer)
        if tls:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        servers.append((server, thread))
        return server

    yield start
    for server, thread in servers:
        server.stopping.set()
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def connect(serve: Serve) -> Iterator[Connect]:  # noqa: ARG001
    """Takes `serve`, so that connections are closed before their servers."""
    panels: list[Panel] = []

    def make(url: str, timeouts: Timeouts | None = None, verify: bool | Path = True) -> Panel:
        access = Access(url=url, user="admin", password=PASSWORD, verify=verify)
        panels.append(Panel(access, timeouts=timeouts))
        return panels[-1]

    yield make
    for panel in panels:
        panel.close()


def failure(panel: Panel, func: str = "vm.event") -> PanelError:
    with pytest.raises(PanelError) as caught:
        panel.call(func, {"name": "web"})
    return caught.value


def test_a_call_is_a_form(serve: Serve, connect: Connect) -> None:
    server = serve()
    connect(server.url).call("vm.event", {"hostnode": "3", "name": "сервер & co=1 +2", "cause": "\ud800"})
    assert server.forms == [
        {
            "func": "vm.event",
            "out": "json",
            "sok": "ok",
            "authinfo": f"admin:{PASSWORD}",
            "hostnode": "3",
            "name": "сервер & co=1 +2",
            "cause": "?",  # what UTF-8 cannot say must not stop a call
        }
    ]


def chunked(request: Request) -> None:
    request.send_response(200)
    request.send_header("Transfer-Encoding", "chunked")
    request.end_headers()
    request.wfile.write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(OK), OK))


def folded(request: Request) -> None:
    """Headers that say nothing, going on in lines that would say something after another one."""
    request.wfile.write(
        b"HTTP/1.1 200 OK\r\nX-A: 1\r\n Content-Length: 3\r\nContent-Length: %d\r\n" % len(OK)
    )
    request.wfile.write(b"X-B: 2\r\n\t4\r\n\r\n" + OK)


def refuse(request: Request) -> None:
    request.reply(b'{"doc":{"error":{"$type":"value","$object":"name","msg":{"$":"Bad"}}}}', status=400)


@pytest.mark.parametrize("answer", [say_ok, chunked, folded])
def test_one_connection_serves_many_calls(serve: Serve, connect: Connect, answer: Answer) -> None:
    server = serve(answer)
    panel = connect(server.url)
    for _ in range(3):
        panel.call("vm.event", {})
    assert (len(server.forms), len(server.connections)) == (3, 1)


def test_a_refusal_keeps_the_connection(serve: Serve, connect: Connect) -> None:
    server = serve(refuse)
    panel = connect(server.url)
    for error in (failure(panel), failure(panel)):
        assert (type(error), str(error)) == (Refused, "value: Bad (name)")
    assert len(server.connections) == 1


def test_a_connection_that_the_panel_closed_is_replaced(serve: Serve, connect: Connect) -> None:
    def answer_and_hang_up(request: Request) -> None:
        request.reply(OK)
        request.close_connection = True

    server = serve(answer_and_hang_up)
    panel = connect(server.url)
    panel.call("vm.event", {})
    assert server.hung_up.wait(5)
    panel.call("vm.event", {})
    assert len(server.connections) == 2


def test_the_cause_is_told_in_plain_words(serve: Serve, connect: Connect) -> None:
    server = serve()
    panel = connect(server.url)
    panel.call("vm.event", {})
    server.answer = hang_up
    for _ in ("over the kept connection", "over a new one"):
        said = "Remote end closed connection without response"
        assert str(failure(panel)) == f"no-connection: {server.url}: {said}"


def test_missed_is_told_apart(serve: Serve, connect: Connect) -> None:
    server = serve(lambda request: request.reply(b'{"doc":{"error":{"$type":"missed","$object":"vm"}}}'))
    assert type(failure(connect(server.url))) is Missed


def test_an_answer_that_confirms_nothing_is_refused(serve: Serve, connect: Connect) -> None:
    server = serve(lambda request: request.reply(b'{"doc":{"tparams":{"name":{"$":"web"}}}}'))
    error = failure(connect(server.url))
    assert (type(error), str(error)) == (Refused, "not-ok: the panel answered without 'ok'")


def test_nobody_there(serve: Serve, connect: Connect) -> None:
    server = serve()
    url = server.url
    server.shutdown()
    server.socket.close()
    error = failure(connect(url))
    assert (type(error), str(error)) == (Unavailable, f"no-connection: {url}: Connection refused")


def test_no_such_host(connect: Connect) -> None:
    error = failure(connect("http://panel.invalid:1500/vmmgr"))
    assert (type(error), error.kind) == (Unavailable, "no-connection")
    assert "object at 0x" not in str(error)


def hang_up(request: Request) -> None:
    request.close_connection = True


def say_nothing(request: Request) -> None:
    request.server.stopping.wait()


def drip_head(request: Request) -> None:
    request.drip(b"HTTP/1.1 200 OK\r\nX-A: " + b"a" * 60_000)


def drip_body(request: Request) -> None:
    request.send_response(200)
    request.send_header("Content-Length", "1000000")
    request.end_headers()
    request.drip(b" ")


def endless_body(request: Request) -> None:
    request.send_response(200)
    request.end_headers()
    request.close_connection = True
    while not request.server.stopping.is_set():
        request.wfile.write(b" " * 65536)


def gzip_bomb(request: Request) -> None:
    request.reply(BOMB, Content_Encoding="gzip")


def cut_short(request: Request) -> None:
    request.send_response(200)
    request.send_header("Content-Length", "100")
    request.end_headers()
    request.wfile.write(OK)
    request.close_connection = True


def two_lengths(request: Request) -> None:
    request.reply(OK, Content_Length="100")


def no_http(request: Request) -> None:
    request.wfile.write(b"SSH-2.0-OpenSSH_9.2\r\n")
    request.close_connection = True


def redirect_endlessly(request: Request) -> None:
    request.send_response(302)
    request.send_header("Location", "/elsewhere")
    request.end_headers()
    request.close_connection = True
    while not request.server.stopping.is_set():
        request.wfile.write(b" " * 65536)


def redirect(request: Request) -> None:
    request.reply(b"", status=302, Location=f"{request.server.url}/elsewhere")


@pytest.mark.parametrize(
    ("behaviour", "kind"),
    [
        (hang_up, "no-connection"),
        (no_http, "no-connection"),
        (cut_short, "no-connection"),
        (two_lengths, "no-connection"),
        (say_nothing, "timeout"),
        (drip_head, "timeout"),
        (drip_body, "timeout"),
        (endless_body, "too-large"),
        (lambda request: request.reply(b" " * (MAX_ANSWER + 1)), "too-large"),
        (gzip_bomb, "not-json"),
        (lambda request: request.reply(b"<html>", status=404), "not-json"),
        (lambda request: request.reply(b"<html>", status=500), "http-500"),
        (redirect, "redirect"),
        (redirect_endlessly, "redirect"),
    ],
)
def test_what_is_not_an_answer_is_unavailable_and_soon(
    serve: Serve, connect: Connect, behaviour: Answer, kind: str
) -> None:
    server = serve(behaviour)
    panel = connect(server.url, QUICK)
    began = time.monotonic()
    error = failure(panel)
    assert (type(error), error.kind) == (Unavailable, kind), error
    assert time.monotonic() - began < 2
    assert len(server.forms) == 1  # and nobody asked again
    server.answer = say_ok
    panel.call("vm.event", {})  # the next call is none the worse for it


def test_the_largest_answer_is_read(serve: Serve, connect: Connect) -> None:
    server = serve(lambda request: request.reply(OK.rjust(MAX_ANSWER)))
    connect(server.url).call("vm.event", {})


def test_a_redirect_is_told_and_not_followed(serve: Serve, connect: Connect) -> None:
    server = serve(redirect)
    assert f"points to {server.url}/elsewhere" in str(failure(connect(server.url)))


def test_the_environment_has_no_say(serve: Serve, connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    server = serve()
    connect(server.url).call("vm.event", {})
    assert len(server.forms) == 1


def test_no_cookie_is_kept(serve: Serve, connect: Connect) -> None:
    server = serve(lambda request: request.reply(OK, Set_Cookie="vmmgrses5=1; Path=/"))
    panel = connect(server.url)
    panel.call("vm.event", {})
    panel.call("vm.event", {})
    assert "Cookie" not in server.headers[1]


def test_the_password_is_in_no_error_and_no_log(
    serve: Serve, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    text = b'{"doc":{"error":{"$type":"auth","msg":{"$":"%s is wrong"}}}}' % PASSWORD.encode()
    echo = serve(lambda request: request.reply(text))
    tell = serve(lambda request: request.reply(b"", 302, Location="/?authinfo=admin:hunter2%2B%25%26%3D"))
    for server in (echo, tell):
        error = failure(connect(server.url))
        assert (type(error), str(error)) == (Unavailable, "withheld: the panel's text repeats the password")
    assert "hunter2" not in caplog.text


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of 127.0.0.1, signed by itself; key and certificate in one file."""
    file = tmp_path_factory.mktemp("tls") / "panel.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=panel"
    options = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(file)]
    done = subprocess.run([*command.split(), *options], check=True, capture_output=True, text=True)
    with file.open("a") as both:
        both.write(done.stdout)
    return file


@pytest.fixture
def tls(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


@pytest.mark.needs("openssl")
class TestEncrypted:
    def test_an_unknown_certificate_is_not_accepted(
        self, serve: Serve, connect: Connect, tls: ssl.SSLContext
    ) -> None:
        server = serve(tls=tls)
        error = failure(connect(server.url.replace("http:", "https:")))
        assert (type(error), error.kind) == (Unavailable, "no-connection")
        assert str(error).endswith("certificate not accepted: self-signed certificate")
        assert server.forms == []

    def test_a_certificate_of_another_name_is_not_accepted(
        self, serve: Serve, connect: Connect, tls: ssl.SSLContext, certificate: Path
    ) -> None:
        server = serve(tls=tls)
        panel = connect(f"https://localhost:{server.server_port}/vmmgr", verify=certificate)
        assert "hostname 'localhost' doesn't match '127.0.0.1'" in str(failure(panel))
        assert server.forms == []

    @pytest.mark.parametrize("verified", [True, False])
    def test_what_the_administrator_accepts_is_accepted(
        self, serve: Serve, connect: Connect, tls: ssl.SSLContext, certificate: Path, verified: bool
    ) -> None:
        server = serve(tls=tls)
        panel = connect(server.url.replace("http:", "https:"), verify=verified and certificate)
        panel.call("vm.event", {})
        panel.call("vm.event", {})
        assert (len(server.forms), len(server.connections)) == (2, 1)

    def test_no_missing_file_of_authorities_is_a_bug(self, connect: Connect, tmp_path: Path) -> None:
        error = failure(connect("https://127.0.0.1:9/vmmgr", verify=tmp_path / "gone.pem"))
        assert (type(error), "gone.pem" in str(error)) == (Unavailable, True)

    @pytest.mark.parametrize("behaviour", [say_nothing, drip_head, drip_body])
    def test_the_deadline_holds_too(
        self,
        serve: Serve,
        connect: Connect,
        tls: ssl.SSLContext,
        certificate: Path,
        behaviour: Answer,
    ) -> None:
        server = serve(behaviour, tls=tls)
        panel = connect(server.url.replace("http:", "https:"), QUICK, verify=certificate)
        began = time.monotonic()
        assert failure(panel).kind == "timeout"
        assert time.monotonic() - began < 2


class Doorkeeper:
    """A panel's side of sessions: a key opens one session, and a call wants a session that is open."""

    def __init__(self) -> None:
        self.keys: set[str] = set()
        self.sessions: set[str] = set()
        self.opened = 0

    def answer(self, request: Request) -> None:
        request.reply(self.doc(request.form))

    def doc(self, form: dict[str, str]) -> bytes:
        if form["func"] == "session.newkey":
            self.keys.add(form["key"])
            return OK
        if form["func"] == "auth" and form["username"] == "root" and form["key"] in self.keys:
            self.keys.remove(form["key"])
            self.opened += 1
            self.sessions.add(f"session{self.opened}")
            return b'{"doc":{"auth":{"$id":"session%d","$level":"30","$":"x"}}}' % self.opened
        if form.get("auth") in self.sessions:
            return OK
        return b'{"doc":{"error":{"$type":"auth","$object":"session","msg":{"$":"Sign in"}}}}'


REFUSAL = b'{"doc":{"error":{"$type":"auth","$object":"badkey","msg":{"$":"Wrong key"}}}}'
MGRCTL = """#!{python}
import os, sys, urllib.parse, urllib.request
assert sys.argv[1:] == "-m vmmgr -o json session.newkey username=root -e key=$VMWATCH_KEY".split(), sys.argv
assert len(os.environ["VMWATCH_KEY"]) >= 16
form = dict(func="session.newkey", username="root", key=os.environ["VMWATCH_KEY"])
with urllib.request.urlopen("{url}", urllib.parse.urlencode(form).encode()) as answer:
    sys.stdout.buffer.write(answer.read())
"""


def command(folder: Path, text: str) -> list[str]:
    file = folder / "mgrctl"
    file.write_text(text)
    file.chmod(0o755)
    return [str(file), "-m", "vmmgr"]


class TestSessions:
    @pytest.fixture
    def door(self) -> Doorkeeper:
        return Doorkeeper()

    @pytest.fixture
    def server(self, serve: Serve, door: Doorkeeper) -> Server:
        return serve(door.answer)

    @pytest.fixture
    def sessions(self, server: Server, tmp_path: Path) -> Sessions:
        return Sessions(command=command(tmp_path, MGRCTL.format(python=sys.executable, url=server.url)))

    @pytest.fixture
    def panels(self, server: Server, sessions: Sessions) -> Iterator[list[Panel]]:
        panels = [Panel(Access(url=server.url), sessions=sessions) for _ in range(4)]
        yield panels
        for panel in panels:
            panel.close()

    def test_a_key_made_before_serves_after(
        self, sessions: Sessions, panels: list[Panel], door: Doorkeeper, tmp_path: Path
    ) -> None:
        sessions.prepare()
        (tmp_path / "mgrctl").unlink()  # as it is for one who is not root any more
        panels[0].call("vm.event", {})
        assert (door.opened, door.keys) == (1, set())

    def test_all_workers_share_one_session(self, panels: list[Panel], door: Doorkeeper) -> None:
        with ThreadPoolExecutor(len(panels)) as pool:
            list(pool.map(lambda panel: panel.call("vm.event", {}), panels))
        assert door.opened == 1

    def test_a_session_that_ended_is_renewed_once(self, panels: list[Panel], door: Doorkeeper) -> None:
        panels[0].call("vm.event", {})
        panels[1].call("vm.event", {})
        door.sessions.clear()
        panels[0].call("vm.event", {})
        panels[1].call("vm.event", {})
        assert door.opened == 2

    def test_news_of_an_older_session_do_not_end_the_newer_one(
        self, panels: list[Panel], sessions: Sessions, door: Doorkeeper
    ) -> None:
        panels[0].call("vm.event", {})
        sessions.ended("session0")
        panels[1].call("vm.event", {})
        assert door.opened == 1

    def test_a_session_that_never_lasts_is_renewed_but_once(
        self, panels: list[Panel], server: Server, door: Doorkeeper
    ) -> None:
        def forget(request: Request) -> None:
            door.answer(request)
            door.sessions.clear()

        server.answer = forget
        assert failure(panels[0]).kind == "auth"
        assert door.opened == 2

    def test_a_key_that_is_refused_is_not_tried_for_ever(
        self, panels: list[Panel], server: Server, door: Doorkeeper
    ) -> None:
        server.answer = lambda request: request.reply(
            door.doc(request.form) if request.form["func"] == "session.newkey" else REFUSAL
        )
        error = failure(panels[0])
        assert (type(error), error.kind) == (Unavailable, "no-access")
        assert failure(panels[0]).kind == "no-access"
        assert [form["func"] for form in server.forms] == ["session.newkey", "auth"] * 2

    def test_a_key_waits_for_a_panel_that_is_away(
        self, panels: list[Panel], sessions: Sessions, server: Server, door: Doorkeeper
    ) -> None:
        sessions.prepare()
        server.answer = lambda request: request.reply(b"", status=503)
        assert failure(panels[0]).kind == "no-access"
        server.answer = door.answer
        panels[0].call("vm.event", {})
        assert [form["func"] for form in server.forms].count("session.newkey") == 1

    @pytest.mark.parametrize(
        ("script", "said"),
        [
            ("#!/bin/sh\necho 'not for you' >&2; exit 3\n", "exit code 3: not for you"),
            ("#!/bin/sh\necho Segmentation fault\n", "not-json: "),
            ('#!/bin/sh\necho \'{"doc":{"error":{"$type":"access"}}}\'\n', "access: "),
            ("#!/no/such/interpreter\n", "No such file or directory"),
        ],
    )
    def test_without_a_key_the_panel_is_unavailable_and_the_reason_is_told(
        self, server: Server, tmp_path: Path, script: str, said: str
    ) -> None:
        panel = Panel(Access(url=server.url), sessions=Sessions(command=command(tmp_path, script)))
        error = failure(panel)
        panel.close()
        assert (type(error), error.kind) == (Unavailable, "no-access")
        assert said in str(error)
        assert "only root can make one; or set panel_user" in str(error)
