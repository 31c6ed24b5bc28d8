# SPDX-License-Identifier: Apache-2.0
"""A service as an administrator meets it: commands, exit codes, one instance, detaching, signals, log."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from vmwatch.service import Lock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DEADLINE = 10.0  # seconds
LINE = re.compile(
    r"(Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) [1-9]\d? \d\d:\d\d:\d\d \[\d+\] \w+ [A-Z]+ .+"
)


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.01)


def is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


class Tiny:
    """The service of tiny_service.py with a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.config = folder / "tiny.conf"
        self.log = folder / "tiny.log"
        self.pid_file = folder / "run/tiny.pid"
        self.state = folder / "state"
        self.processes: list[subprocess.Popen[str]] = []
        self.detached: list[int] = []
        self.configure()

    def configure(self, *more: str) -> None:
        """Write the configuration; what `more` says comes instead of what stands here."""
        lines = {
            "connect": "tcp://127.0.0.1:1515",
            "secret": "ABCDEFGHIJ0123456789",
            "node_id": "7",
            "log_file": str(self.log),
            "pid_file": str(self.pid_file),
            "state_dir": str(self.state),
        } | dict(line.split("=", 1) for line in more)
        self.config.write_text("".join(f"{name}={value}\n" for name, value in lines.items()))
        self.config.chmod(0o640)

    def start(self, *arguments: str, main: str = "serve", **environment: str) -> subprocess.Popen[str]:
        """Start the command, and do not wait for it."""
        process = subprocess.Popen(
            [
                "env",
                "--default-signal=INT",  # a shell's background job, which the tests may be, ignores it
                sys.executable,
                str(Path(__file__).with_name("tiny_service.py")),
                f"--config={self.config}",
                *arguments,
            ],
            cwd=self.config.parent,
            env=os.environ | {"TINY": main} | environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.processes.append(process)
        return process

    def run(self, *arguments: str, main: str = "serve") -> tuple[int, str, str]:
        """The exit code, standard output and standard error of the command."""
        process = self.start(*arguments, main=main)
        out, error = process.communicate(timeout=DEADLINE)
        return process.returncode, out, error

    def foreground(self, *arguments: str, main: str = "serve", **environment: str) -> subprocess.Popen[str]:
        """Start in the foreground, and wait until it is ready."""
        process = self.start("--foreground", *arguments, main=main, **environment)
        assert process.stderr
        for line in process.stderr:
            if line.endswith("service INFO ready\n"):
                return process
        pytest.fail("the service ended before it was ready")

    def detach(self, main: str = "serve") -> int:
        """Start in the background: the service's pid, though the test fails later it will be ended."""
        assert self.run(main=main) == (0, "", "")
        self.detached.append(self.pid())
        return self.pid()

    def pid(self) -> int:
        return int(self.pid_file.read_text().split()[0])

    def lines(self) -> list[str]:
        """The log, what differs from run to run left out."""
        return [re.sub(r"^.*?\] ", "", line) for line in self.log.read_text().splitlines()]

    def close(self) -> None:
        for pid in self.detached:
            if is_alive(pid):
                os.kill(pid, signal.SIGKILL)
        for process in self.processes:
            process.kill()
            process.communicate()


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Tiny]:
    tiny = Tiny(tmp_path)
    yield tiny
    tiny.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_foreground_from_start_to_stop(tiny: Tiny, number: signal.Signals) -> None:
    process = tiny.foreground()
    assert tiny.pid() == process.pid
    process.send_signal(number)
    assert process.wait(DEADLINE) == 0
    assert not tiny.pid_file.exists()
    assert tiny.lines() == [
        "service INFO starting program=tiny version=0.1.0",
        "service INFO ready",
        f"service INFO stopping signal={number.name}",
        "service INFO stopped exit_code=0",
    ]
    assert all(LINE.fullmatch(line) for line in tiny.log.read_text().splitlines())
    assert f"[{process.pid}] service INFO ready\n" in tiny.log.read_text()
    assert tiny.log.stat().st_mode & 0o777 == 0o640


def test_a_second_signal_ends_at_once_whatever_hangs(tiny: Tiny) -> None:
    process = tiny.foreground(main="be_deaf")
    process.terminate()
    until(lambda: "tiny INFO blocked for ever" in tiny.lines())
    process.terminate()
    assert process.wait(DEADLINE) == -signal.SIGTERM


def test_flags_reach_the_program(tiny: Tiny) -> None:
    tiny.configure("log_level=debug")
    tiny.foreground("--wait")
    assert "tiny DEBUG serving node_id=7 flags=['wait']" in tiny.lines()


def test_under_the_journal_no_line_tells_what_the_journal_knows(tiny: Tiny) -> None:
    process = tiny.start("--foreground", main="lose_libvirt", JOURNAL_STREAM="8:1")
    _, error = process.communicate(timeout=DEADLINE)
    assert error.splitlines() == [
        "<6>service INFO starting program=tiny version=0.1.0",
        "<3>service ERROR no libvirt here",
        "<6>service INFO stopped exit_code=69",
    ]


def test_detached_from_start_to_stop(tiny: Tiny) -> None:
    pid = tiny.detach()
    service = psutil.Process(pid)
    assert os.getsid(pid) not in {os.getsid(0), pid}  # its own session, of which it is not the leader
    assert service.cwd() == "/"
    assert service.terminal() is None
    assert {file.path for file in service.open_files()} == {str(tiny.log), str(tiny.pid_file)}
    assert {Path(f"/proc/{pid}/fd/{number}").readlink() for number in range(3)} == {Path("/dev/null")}
    os.kill(pid, signal.SIGTERM)
    until(lambda: not is_alive(pid))
    assert not tiny.pid_file.exists()
    assert tiny.lines()[-1] == "service INFO stopped exit_code=0"


@pytest.mark.parametrize(
    ("main", "code", "reason"),
    [
        ("lose_libvirt", 69, "no libvirt here"),
        ("leave_a_thread_that_hangs", 69, "no libvirt here"),
        ("lose_libvirt_in_a_group", 69, "no libvirt here"),
        ("have_a_bug", 1, "unexpected KeyError: 'a bug' (the log has more)"),
        ("be_cancelled", 1, "unexpected CancelledError:  (the log has more)"),
        ("exit_without_a_word", 1, "died before it was ready: exit status 7"),
        ("be_killed", 1, "died before it was ready: killed by SIGKILL"),
        ("leave", 1, "stopped before it was ready"),
    ],
)
def test_the_command_tells_why_the_service_did_not_start(
    tiny: Tiny, main: str, code: int, reason: str
) -> None:
    assert tiny.run(main=main) == (code, "", f"tiny: {reason}\n")
    assert tiny.run(main="lose_libvirt")[0] == 69  # nothing is in the way of the next start


def test_what_is_expected_is_one_line_in_the_log(tiny: Tiny) -> None:
    assert tiny.run("--foreground", main="lose_libvirt")[0] == 69
    assert tiny.lines()[1:] == ["service ERROR no libvirt here", "service INFO stopped exit_code=69"]


def test_a_thread_that_hangs_does_not_keep_the_process(tiny: Tiny) -> None:
    assert tiny.run("--foreground", main="leave_a_thread_that_hangs")[0] == 69
    assert tiny.lines()[1:] == [
        "service ERROR no libvirt here",
        "service INFO stopped exit_code=69",
        "service ERROR ended while a task or a thread hangs",
    ]
    assert is_alive(tiny.detach())


def test_what_is_unexpected_leaves_its_traceback_in_the_log(tiny: Tiny) -> None:
    assert tiny.run("--foreground", main="have_a_bug")[0] == 1
    assert tiny.lines()[1] == "service CRITICAL unexpected: 'a bug'"
    assert "    KeyError: 'a bug'" in tiny.lines()


def test_what_is_raised_in_a_callback_ends_the_service(tiny: Tiny) -> None:
    assert tiny.run("--foreground", main="have_a_bug_in_a_callback")[0] == 1
    assert "    KeyError: 'a bug'" in tiny.lines()
    assert tiny.lines()[-1] == "service INFO stopped exit_code=1"


def test_a_service_goes_on_without_the_command_that_started_it(tiny: Tiny) -> None:
    command = tiny.start(main="be_slow")
    until(lambda: tiny.log.exists() and tiny.pid() != command.pid)
    tiny.detached.append(tiny.pid())
    command.kill()
    command.wait()
    tiny.state.mkdir()
    until(lambda: "service INFO ready" in tiny.lines())


def test_an_interrupted_command_says_that_the_service_goes_on(tiny: Tiny) -> None:
    command = tiny.start(main="be_slow")
    until(lambda: tiny.log.exists() and tiny.pid() != command.pid)
    tiny.detached.append(tiny.pid())
    command.send_signal(signal.SIGINT)
    _, error = command.communicate(timeout=DEADLINE)
    assert (command.returncode, error) == (130, "tiny: interrupted, the service goes on starting\n")
    tiny.state.mkdir()
    until(lambda: "service INFO ready" in tiny.lines())


@pytest.mark.parametrize("arguments", [[], ["--foreground"]])
def test_a_second_instance_names_the_first(tiny: Tiny, arguments: list[str]) -> None:
    pid = tiny.detach()
    error = f"tiny: already running: pid {pid} holds {tiny.pid_file}\n"
    assert tiny.run(*arguments) == (75, "", error)
    assert tiny.pid() == pid


def test_of_many_starts_at_once_one_succeeds(tiny: Tiny) -> None:
    commands = [tiny.start() for _ in range(6)]
    for command in commands:
        command.communicate(timeout=DEADLINE)
    tiny.detached.append(tiny.pid())
    assert sorted(command.returncode for command in commands) == [0, 75, 75, 75, 75, 75]


@pytest.mark.parametrize("content", ["1\n", "", "nonsense", "9" * 99])
def test_a_stale_pid_file_does_not_hinder(tiny: Tiny, content: str) -> None:
    tiny.pid_file.parent.mkdir()
    tiny.pid_file.write_text(content)
    assert is_alive(tiny.detach())


def test_starts_again_after_a_kill(tiny: Tiny) -> None:
    first = tiny.detach()
    os.kill(first, signal.SIGKILL)
    until(lambda: not is_alive(first))
    assert tiny.pid() == first
    assert tiny.detach() != first


def test_a_pid_file_that_goes_while_it_is_opened_is_no_lock(tmp_path: Path) -> None:
    path = tmp_path / "tiny.pid"
    first = Lock.take(path)
    descriptor = os.open(path, os.O_RDWR)
    first.release()
    assert not Lock._is_locked(path, descriptor)  # nobody else would see this lock
    second = Lock.take(path)
    assert not Lock._is_locked(path, descriptor)
    second.release()
    os.close(descriptor)


def test_a_pid_file_that_cannot_be_made(tiny: Tiny) -> None:
    tiny.pid_file.parent.touch()
    assert tiny.run() == (1, "", f"tiny: pid_file {tiny.pid_file} cannot be locked: File exists\n")


def test_an_unwritable_log_is_told_and_stops_nothing(tiny: Tiny) -> None:
    tiny.log.mkdir()
    trouble = f"log_file {tiny.log} cannot be written: Is a directory"
    code, _, error = tiny.run()
    tiny.detached.append(tiny.pid())
    assert (code, error) == (0, f"tiny: {trouble}\n")
    os.kill(tiny.pid(), signal.SIGTERM)
    until(lambda: not is_alive(tiny.detached[0]))
    process = tiny.start("--foreground", main="lose_libvirt")
    _, error = process.communicate(timeout=DEADLINE)
    assert process.returncode == 69
    assert f"service WARNING {trouble}\n" in error


def test_a_full_log_stops_nothing(tiny: Tiny) -> None:
    tiny.configure("log_file=/dev/full")
    process = tiny.foreground()
    process.terminate()
    assert process.wait(DEADLINE) == 0


def test_hup_opens_the_log_again_and_takes_over_its_level(tiny: Tiny) -> None:
    process = tiny.foreground()
    tiny.log.rename(tiny.log.with_suffix(".1"))
    tiny.configure("log_level=error")
    process.send_signal(signal.SIGHUP)
    until(tiny.log.exists)
    tiny.configure("log_level=loud")
    process.send_signal(signal.SIGHUP)
    until(lambda: "configuration is wrong" in tiny.log.read_text())
    process.terminate()
    assert process.wait(DEADLINE) == 0
    wrong = f"{tiny.config}:7: log_level=loud: expected one of debug, info, warning, error"
    assert tiny.lines() == [f"service ERROR configuration is wrong, log_level stays: {wrong}"]


def test_a_detached_service_finds_its_file_again(tiny: Tiny) -> None:
    assert tiny.run("--config=tiny.conf") == (0, "", "")
    tiny.detached.append(tiny.pid())
    os.kill(tiny.pid(), signal.SIGHUP)
    until(lambda: tiny.lines()[-1] == "service INFO log opened again log_level=info")


@pytest.mark.parametrize("name", ["{folder}/notify", "@vmwatch-test-{pid}"])
def test_systemd_is_told(tiny: Tiny, tmp_path: Path, name: str) -> None:
    address = name.format(folder=tmp_path, pid=os.getpid())
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(address.replace("@", "\0"))
        systemd.settimeout(DEADLINE)
        process = tiny.foreground(NOTIFY_SOCKET=address)
        assert [systemd.recv(99), systemd.recv(99)] == [b"STATUS=serving", b"READY=1"]
        process.terminate()
        assert systemd.recv(99) == b"STOPPING=1"
        assert process.wait(DEADLINE) == 0


def test_check_config(tiny: Tiny) -> None:
    assert tiny.run("--check-config") == (0, f"{tiny.config}: correct\n", "")
    tiny.configure("secret=ABC")
    warning = f"tiny: {tiny.config}:2: secret: can be guessed: expected 16 characters or more\n"
    assert tiny.run("--check-config") == (0, f"{tiny.config}: correct\n", warning)
    tiny.configure("colour=red")
    code, out, error = tiny.run("--check-config")
    assert (code, out) == (78, "")
    assert error.startswith(f"tiny: {tiny.config}:7: colour: unknown name: expected one of ")
    assert not tiny.pid_file.exists()


@pytest.mark.parametrize("arguments", [[], ["--foreground"], ["--check-config"]])
def test_a_wrong_configuration(tiny: Tiny, arguments: list[str]) -> None:
    tiny.configure("node_id=none")
    assert tiny.run(*arguments) == (
        78,
        "",
        f"tiny: {tiny.config}:3: node_id=none: expected a positive integer\n",
    )


def test_warnings_are_told_at_the_start_and_logged(tiny: Tiny) -> None:
    tiny.configure("secret=ABC")
    warning = f"{tiny.config}:2: secret: can be guessed: expected 16 characters or more"
    code, _, error = tiny.run()
    tiny.detached.append(tiny.pid())
    assert (code, error) == (0, f"tiny: {warning}\n")
    assert f"service WARNING {warning}" in tiny.lines()


@pytest.mark.parametrize("arguments", [[], ["--foreground"]])
def test_disabled(tiny: Tiny, arguments: list[str]) -> None:
    tiny.configure("disabled=yes")
    assert tiny.run(*arguments) == (0, f"tiny: not started: disabled=yes in {tiny.config}\n", "")
    assert not tiny.pid_file.exists()


def test_check_enabled_lets_a_wrong_file_fail_at_the_start(tiny: Tiny) -> None:
    assert tiny.run("--check-enabled") == (0, "", "")
    tiny.configure("node_id=none")
    assert tiny.run("--check-enabled") == (0, "", "")
    tiny.configure("node_id=none", "disabled=yes")
    assert tiny.run("--check-enabled") == (1, "", "")


def test_help_tells_exit_codes_and_files(tiny: Tiny) -> None:
    code, out, _ = tiny.run("--help")
    assert code == 0
    for text in ("--wait", "--foreground", "75  already running", "/nonexistent/tiny.conf"):
        assert text in out


def test_version(tiny: Tiny) -> None:
    assert tiny.run("--version") == (0, "tiny 0.1.0\n", "")


def test_wrong_arguments(tiny: Tiny) -> None:
    assert tiny.run("--nonsense")[0] == 2
