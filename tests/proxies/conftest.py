"""Two servers, and the proxies in front of them, which all run at the same time."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from proxies.running import PROGRAMS, Program, Running, running
from support.certificates import Authority
from support.ports import free_target
from support.programs import is_present
from support.server import ServerProcess, start_server
from support.wire import Caller, connect

PACE = ("--engine", "synthetic", "-o", "tokens_per_second=100", "-o", "context_tokens=1000000", "--drain-delay", "6")


class Fleet:
    """Two servers whose addresses stay the same after a restart."""

    def __init__(self) -> None:
        """Starts no server yet."""
        self.addresses = [free_target() for _ in range(2)]
        self.servers: list[ServerProcess] = []
        self._stack = ExitStack()

    def start(self, number: int, *flags: str, until: str = "ready") -> ServerProcess:
        """Starts a server, or starts it again."""
        starting = start_server(*PACE, *flags, "--listen", self.addresses[number], until=until)
        server = self._stack.enter_context(starting)
        self.servers[number : number + 1] = [server]
        return server

    def restart(self) -> None:
        """Starts the servers that are not running."""
        for number, server in enumerate(self.servers):
            if server.process.poll() is not None:
                self.start(number)

    def close(self) -> None:
        """Ends both servers."""
        self._stack.close()


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    authority = Authority(tmp_path_factory.mktemp("authority"))
    authority.renew("proxy")
    return authority


@pytest.fixture(scope="session")
def fleet() -> Iterator[Fleet]:
    fleet = Fleet()
    try:
        fleet.start(0)
        fleet.start(1)
        yield fleet
    finally:
        fleet.close()


@pytest.fixture(scope="session")
def proxies(fleet: Fleet, authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Running]]:
    """Starts the proxies that are installed on this machine, and waits until all are ready."""
    folder = tmp_path_factory.mktemp("proxies")
    present = [program for program in PROGRAMS if is_present(program.name)]
    with ExitStack() as stack:
        started = [stack.enter_context(running(program, folder, fleet.addresses, authority)) for program in present]
        for proxy in started:
            stack.enter_context(connect(proxy.target, authority.roots))
        yield started


@pytest.fixture(params=PROGRAMS, ids=str)
def proxy(request: pytest.FixtureRequest, proxies: list[Running]) -> Running:
    """Each of the proxies in turn."""
    program: Program = request.param
    assert program.command
    return next(proxy for proxy in proxies if proxy.program is program)


@pytest.fixture
def caller(proxy: Running, authority: Authority) -> Iterator[Caller]:
    with connect(proxy.target, authority.roots) as caller:
        yield caller
