"""The process starts and exits as documented in every environment."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from doherty import Client
from support.command import SECONDS, environment
from support.ports import free_target
from support.server import ServerProcess
from support.wire import connect, failure_of

SERVE = (sys.executable, "-m", "doherty_service")
KEPT = ("PATH", "PYTHONPATH")
"""The only environment variables of servers in an empty environment."""

UNSHARED = ("unshare", "--mount", "--pid", "--fork", "--mount-proc", "true")
SETUP = "import sys; from doherty_service.command import serve; serve(sys.argv[1:])"

PROGRAM = """
import sys
from doherty_engine.synthetic import SyntheticEngine
from doherty_service.command import serve

starts, start = [], SyntheticEngine.start

async def fail(self, sink):
    starts.append(self)
    if len(starts) in FAILING:
        raise OSError(30, "Read-only file system", "/engine\\nsecond line")
    await start(self, sink)

SyntheticEngine.start = fail
serve(sys.argv[1:])
"""
"""A server whose engine sometimes cannot start, because of an exception that no engine expects."""


def command_whose_engine_fails(*starts: int) -> list[str]:
    program = f"FAILING = {starts}\n{PROGRAM}"
    return [sys.executable, "-c", program, "--listen", "127.0.0.1:0", "--engine", "synthetic"]


def assert_one_sentence(ended: "subprocess.CompletedProcess[str]", *words: str) -> None:
    (sentence,) = [line for line in ended.stderr.splitlines() if not line.startswith("{")]
    assert ended.returncode == 2
    assert all(word in sentence for word in words), sentence


def test_any_exception_during_the_start_is_reported_in_one_sentence() -> None:
    ended = subprocess.run(
        command_whose_engine_fails(1), check=False, capture_output=True, text=True, timeout=SECONDS, env=environment()
    )
    assert_one_sentence(ended, "The engine cannot start: OSError: [Errno 30] Read-only file system")


def test_the_engine_is_restarted_after_any_exception() -> None:
    command = [*command_whose_engine_fails(2, 3), "-o", "die_after_steps=20"]
    server = ServerProcess(subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment()))
    try:
        target = str(server.wait_for("listening")["address"])
        server.wait_for("ready")
        with connect(target) as caller:
            long: dict[str, Any] = {"prompt": "a", "stopping": {"max_output_tokens": 4000, "ignore_eos": True}}
            assert failure_of(lambda: caller.generate(**long)).reason == "ENGINE_FAILED"
            server.wait_for("engine_failed", failures=3)
            caller.wait_until(lambda now: now.engine_restarts > 0)
            assert caller.generate(prompt="a", stopping={"max_output_tokens": 2}).text
        assert server.stop() == 0
    finally:
        server.process.kill()
        server.wait()


def assert_serves_and_ends(address: str, setup: str, **variables: str) -> None:
    """Starts a server with the embedded engine from a shell that runs `setup` first, without other variables."""
    kept = {name: os.environ[name] for name in KEPT if name in os.environ}
    command = ("sh", "-c", f'{setup} "$0" "$@"', *SERVE, "--listen", address)
    with subprocess.Popen(command, env=kept | variables) as process:
        try:
            with Client(address) as client:
                client.wait_ready(SECONDS)
                assert client.generate("a", max_output_tokens=2).text
            process.terminate()
            assert process.wait(SECONDS) == 0
        finally:
            process.kill()


@pytest.mark.model
def test_a_server_needs_no_streams_no_home_no_permissions_and_no_short_tmpdir(tmp_path: Path) -> None:
    long = tmp_path / ("x" * 110)
    long.mkdir()
    setup = "umask 777; cd /; exec <&- >&- 2>&-; exec"
    assert_serves_and_ends(free_target(), setup, TMPDIR=str(long), LC_ALL="C")
    assert not list(long.iterdir())


@pytest.mark.model
@pytest.mark.skipif(subprocess.run(UNSHARED, check=False).returncode != 0, reason="this user may not mount anything")
def test_a_server_can_be_the_first_process_on_a_read_only_file_system() -> None:
    """As in a container with `--read-only`, in which only /dev/shm can be written."""
    # The command that `unshare` starts is process 1 of its namespace, and must get the signal.
    setup = "mount -o bind,remount,ro /; mount -o bind,remount,ro /tmp 2>/dev/null; exec"
    address = free_target()
    shell = ("sh", "-c", f'{setup} "$0" "$@"', *SERVE, "--listen", address)
    with subprocess.Popen((*UNSHARED[:-1], *shell), env=environment(), stderr=subprocess.PIPE, text=True) as process:
        server = ServerProcess(process)
        server.wait_for("ready")
        with connect(address) as caller:
            assert caller.generate(prompt="a", stopping={"max_output_tokens": 2}).text
        (child,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(child), signal.SIGTERM)
        server.wait_for("stopped")
        assert server.wait() == 0


def test_a_path_in_a_missing_home_is_reported_in_one_sentence() -> None:
    """The user has no entry in the list of users, as in many containers, and HOME is not set."""
    program = f"import pwd; pwd.getpwuid = {{}}.__getitem__; {SETUP}"
    ended = subprocess.run(
        (sys.executable, "-c", program, "--model", "~/model", "--listen", "127.0.0.1:0"),
        check=False,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        env={name: os.environ[name] for name in KEPT if name in os.environ},
    )
    assert_one_sentence(ended, "~/model", "HOME")
