"""A rolling deploy of three servers on hosts of their own loses nothing, while two programs call without a pause.

`make test` does it once, with plain gRPC in Python. `make test-rollout` does it five times, with plain gRPC in Go.
"""

import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from support.debian import debian_project, on_debian
from support.hosts import Host, start_hosts
from support.server import ServerProcess, start_server

HERE = Path(__file__).parent
PORT = 50051
STREAMS = 100
FLAGS = (
    *("--engine", "synthetic", "-o", "slots=128", "-o", "tokens_per_second=10", "--insecure"),
    # A plain call takes half a second and a stream five seconds, so a drain cuts streams off, and they must continue.
    *("--drain-delay", "3", "--drain-grace", "1"),
)


class Fleet:
    """Servers on some hosts, one on each."""

    def __init__(self, hosts: Sequence[Host]) -> None:
        """Starts no server yet."""
        self.addresses = [f"{host.address}:{PORT}" for host in hosts]
        self._hosts = hosts
        self._servers: dict[int, ServerProcess] = {}
        self._stack = ExitStack()

    def start(self, number: int) -> None:
        """Starts a server, or starts it again."""
        within = self._hosts[number].within
        server = start_server(*FLAGS, "--listen", self.addresses[number], within=within)
        self._servers[number] = self._stack.enter_context(server)

    def wait_for_calls(self, number: int) -> None:
        """Waits until a server has answered both programs."""
        self._servers[number].wait_for("request", rpc="Generate", code="OK")
        self._servers[number].wait_for("request", rpc="StreamGenerate", code="OK")

    def stop(self, number: int, signal_number: int = signal.SIGTERM) -> int:
        """Ends a server with a signal, and returns its exit code."""
        return self._servers[number].stop(signal_number)

    def labels(self) -> set[object]:
        """Returns the labels of the requests that ended on the running servers."""
        lines = [line for server in self._servers.values() for line in (*server.log, *server.read())]
        return {line["request_id"] for line in lines if line["event"] == "request"}

    def close(self) -> None:
        """Ends all servers."""
        self._stack.close()


class Calling(ServerProcess):
    """A program that makes calls until it is told to finish."""

    def finish(self) -> dict[str, object]:
        """Closes its input, and returns the results that it then writes."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        return self.wait_for("done")


@contextmanager
def calling(host: Host, *command: str | Path) -> Iterator[Calling]:
    """Runs a program on a host until the end of the block, which begins when the program makes calls."""
    process = subprocess.Popen(
        (*host.within, *command), stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1
    )
    program = Calling(process)
    try:
        program.wait_for("calling")
        yield program
    finally:
        process.kill()
        assert process.stdin is not None
        process.stdin.close()
        program.wait()


def deploy(plain_command: Sequence[str | Path]) -> None:
    """Replaces three servers in turn and kills the last one, and checks how the calls of that time ended."""
    with ExitStack() as stack:
        callers, hosts = stack.enter_context(start_hosts(3))
        fleet = Fleet(hosts)
        stack.callback(fleet.close)
        everyone = range(len(hosts))
        for number in everyone:
            fleet.start(number)
        sdk_command: Sequence[str | Path] = (sys.executable, HERE / "sdk_caller.py", str(STREAMS), *fleet.addresses)
        sdk = stack.enter_context(calling(callers, *sdk_command))
        plain = stack.enter_context(calling(callers, *plain_command, *fleet.addresses))
        for number in everyone:
            fleet.wait_for_calls(number)
        for number in everyone:
            assert fleet.stop(number) == 0
            fleet.start(number)
            fleet.wait_for_calls(number)
        assert [line for line in plain.read() if line["event"] == "failed"] == []
        fleet.stop(everyone[-1], signal.SIGKILL)
        fleet.start(everyone[-1])
        fleet.wait_for_calls(everyone[-1])
        calls, streams = plain.finish(), sdk.finish()
        failed = [line for line in plain.log if line["event"] == "failed"]
        reached_others = fleet.labels()
    sys.stdout.write(f"\nSDK {streams}\nplain gRPC {calls} {failed or ''}\n")
    assert (streams["failed"], streams["torn"]) == ({}, 0)
    assert "Traceback" not in "".join((*sdk.written, *plain.written))
    assert streams["resumed"]
    assert calls["failed"] == len(failed)
    for line in failed:  # the answer was cut off at the killed server, and at no other one
        assert line["request_id"] not in reached_others
        assert line.get("peer", fleet.addresses[-1]) == fleet.addresses[-1]


def test_a_rollout_with_plain_grpc_in_python() -> None:
    deploy((sys.executable, HERE / "plain_caller.py"))


@pytest.fixture(scope="module")
def go_caller(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Builds the program in Go with Debian's packages, as in docs/languages.md. It needs no libraries."""
    with debian_project() as project:
        shutil.copy(HERE / "plain_caller.go", project)
        on_debian(
            "mkdir src\n"
            "protoc -I proto --go_out=src --go_opt=paths=source_relative"
            " --go-grpc_out=src --go-grpc_opt=paths=source_relative proto/doherty/v1/*.proto\n"
            "CGO_ENABLED=0 GO111MODULE=off GOPATH=$PWD:/usr/share/gocode go build plain_caller.go"
        )
        program = tmp_path_factory.mktemp("go") / "plain_caller"
        shutil.copy(project / "plain_caller", program)
    return program


@pytest.mark.rollout
@pytest.mark.timeout(600)  # the first run builds the program
@pytest.mark.parametrize("run", range(1, 6))
def test_a_rollout_with_plain_grpc_in_go(go_caller: Path, run: int) -> None:
    sys.stdout.write(f"\nrun {run} of 5")
    deploy((go_caller,))
