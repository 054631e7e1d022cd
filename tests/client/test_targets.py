"""Clients with several targets, and with names that stand for several servers."""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from doherty import AsyncClient, Client, Health, UnavailableError
from doherty._core._balance import Targets
from doherty._core._channel import choose_targets, is_several
from support.ports import free_target
from support.server import ServerProcess, start_server
from support.twins import ENDLESS, Kind, Twin, open_twin

TRIES = 5
"""The client only estimates when gRPC is connected to all servers, and the estimate may be wrong on a busy machine."""


@pytest.mark.parametrize("target", ["localhost:99999", "dns:///host:65536", "ipv4:127.0.0.1:70000,127.0.0.2:1"])
def test_a_port_that_does_not_exist_is_refused(target: str) -> None:
    with pytest.raises(ValueError, match="a port above 65535"):
        choose_targets([target])


def test_every_valid_port_is_accepted() -> None:
    targets = ("localhost:65535", "[::1]:1", "ipv6:[fe80::1234]:50051", "unix:/run/doherty:99999")
    assert choose_targets(targets) == targets


@contextmanager
def _two_servers() -> Iterator[tuple[ServerProcess, ServerProcess]]:
    with ExitStack() as stack:
        first, other = (stack.enter_context(start_server("--engine", "synthetic", until="listening")) for _ in range(2))
        first.wait_for("ready")
        other.wait_for("ready")
        yield first, other


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[ServerProcess, ServerProcess]]:
    with _two_servers() as both:
        yield both


async def _running(kind: Kind, server: ServerProcess) -> int:
    async with open_twin(kind, server.target) as twin:
        return int((await twin("latency")).running)


async def test_streams_are_spread_evenly(kind: Kind, servers: tuple[ServerProcess, ServerProcess]) -> None:
    async with open_twin(kind, [server.target for server in servers]) as twin:
        streams = [twin.stream("Hi", **ENDLESS) for _ in range(6)]
        for stream in streams:
            await stream.next()
        assert [await _running(kind, server) for server in servers] == [3, 3]
        for stream in streams:
            await stream.close()
        for server in servers:
            async with open_twin(kind, server.target) as client:
                await client.aborts()


async def test_a_target_that_cannot_be_reached_is_skipped(
    kind: Kind, servers: tuple[ServerProcess, ServerProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOHERTY_TARGET", f"{free_target()}, {servers[0].target}")
    async with open_twin(kind, None) as twin:
        assert twin.client.target.endswith(f",{servers[0].target}")
        for _ in range(4):
            await twin.generate("Hi", max_output_tokens=1)
            await twin.stream("Hi", max_output_tokens=1).result()
        assert await twin("health") is Health.SERVING
        await twin("wait_ready")


async def test_a_target_that_never_answers_leaves_time_for_another_target(
    kind: Kind, servers: tuple[ServerProcess, ServerProcess]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        target = f"127.0.0.1:{silent.getsockname()[1]}"
        async with open_twin(kind, [target, servers[0].target], retry=None) as twin:
            assert await twin("health", timeout=2) is Health.SERVING
            await twin("wait_ready", 3)


async def test_a_connection_attempt_ends_in_time_for_another_target(
    servers: tuple[ServerProcess, ServerProcess],
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        target = f"127.0.0.1:{silent.getsockname()[1]}"
        async with open_twin("Client", [target, servers[0].target], timeout=9) as twin:
            for _ in range(2):  # the targets are used in turn
                await twin.generate("Hi", max_output_tokens=1)


async def test_a_server_on_this_machine_is_not_called_through_a_proxy(
    kind: Kind, servers: tuple[ServerProcess, ServerProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", f"http://{free_target()}")
    monkeypatch.delenv("no_proxy", raising=False)
    async with open_twin(kind, servers[0].target) as twin:
        await twin.generate("Hi", max_output_tokens=1)


async def test_a_call_fails_if_no_target_can_be_reached(kind: Kind) -> None:
    async with open_twin(kind, [free_target(), free_target()]) as twin:
        with pytest.raises(UnavailableError, match=r"after \d+ attempts in"):
            await twin.generate("Hi", timeout=2)
        with pytest.raises(UnavailableError, match="was not reached"):
            await twin("health")


async def test_several_servers_behind_one_name_are_used_in_turn(
    kind: Kind, servers: tuple[ServerProcess, ServerProcess]
) -> None:
    # gRPC treats a list of addresses like a name in DNS.
    async with open_twin(kind, ["ipv4:" + ",".join(server.target for server in servers)]) as twin:
        await twin("wait_ready")
        before = [await _answers(kind, server) for server in servers]
        while not await _both_grew(kind, servers, before):
            await twin.generate("Hi", max_output_tokens=1)


@pytest.mark.parametrize("kind", ["Client", "AsyncClient"])
async def test_a_burst_after_wait_ready_reaches_all_servers_behind_one_name(
    kind: Kind, servers: tuple[ServerProcess, ServerProcess]
) -> None:
    name = "ipv4:" + ",".join(server.target for server in servers)
    shares = [0]
    for _ in range(TRIES):
        before = [await _answers(kind, server) for server in servers]
        async with open_twin(kind, [name]) as twin:
            await twin("wait_ready")
            streams = [twin.stream("Hi", max_output_tokens=1) for _ in range(40)]
            for stream in streams:
                await stream.result()
        shares = [await _answers(kind, server) - then for server, then in zip(servers, before, strict=True)]
        assert sum(shares) == 40
        if min(shares):
            break
    assert min(shares) > 0


async def test_the_number_of_requests_that_share_an_rpc_is_limited(
    servers: tuple[ServerProcess, ServerProcess],
) -> None:
    name = "ipv4:" + ",".join(server.target for server in servers)
    shares = [0]
    for _ in range(TRIES):
        async with AsyncClient(name, multiplex=5) as client:
            await client.wait_ready()
            before = [await _answers("AsyncClient", server) for server in servers]
            await asyncio.gather(*(client.generate("Hi", max_output_tokens=1) for _ in range(20)))
        shares = [await _answers("AsyncClient", server) - then for server, then in zip(servers, before, strict=True)]
        if shares == [10, 10]:
            break
    assert shares == [10, 10]
    with pytest.raises(ValueError, match="multiplex="):
        AsyncClient(name, multiplex=-1)


async def _answers(kind: Kind, server: ServerProcess) -> int:
    async with open_twin(kind, server.target) as twin:
        return int((await twin("latency")).answers)


async def _both_grew(kind: Kind, servers: tuple[ServerProcess, ServerProcess], before: list[int]) -> bool:
    return all([await _answers(kind, server) > least for server, least in zip(servers, before, strict=True)])


async def test_a_server_behind_a_name_that_does_not_serve_is_skipped(
    kind: Kind, servers: tuple[ServerProcess, ServerProcess]
) -> None:
    with start_server("--engine", "synthetic", "-o", "load_seconds=60", until="listening") as loading:
        async with open_twin(kind, [f"ipv4:{loading.target},{servers[0].target}"], retry=None) as twin:
            await twin("wait_ready")
            for _ in range(4):
                await twin.generate("Hi", max_output_tokens=1)


async def test_the_health_of_a_server_is_reported(kind: Kind, twin: Twin) -> None:
    assert await twin("health") is Health.SERVING
    assert str(await twin("health")) == "SERVING"
    with start_server("--engine", "synthetic", "-o", "load_seconds=60", until="listening") as server:
        async with open_twin(kind, server.target) as loading:
            assert await loading("health", timeout=10) is Health.NOT_SERVING
        async with open_twin(kind, [server.target, twin.client.target]) as both:
            assert await both("health") is Health.SERVING


@pytest.mark.parametrize(
    ("target", "several"),
    [
        ("gpu:50051", True),
        ("dns:///gpu.example.org:50051", True),
        ("ipv4:10.0.0.1:1,10.0.0.2:1", True),
        ("10.0.0.1:1", False),
        ("[fe80::1]:1", False),
        ("ipv6:[fe80::1]:1", False),
        ("localhost:1", False),
        ("unix:/tmp/x", False),
    ],
)
def test_which_targets_may_stand_for_several_servers(target: str, several: bool) -> None:  # noqa: FBT001
    assert is_several(target) is several


def test_a_target_named_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="twice"):
        Client(["localhost:1", "localhost:1"])
    with pytest.raises(TypeError, match="A target is a str"):
        Client([1])  # type: ignore[list-item] # pyright: ignore[reportArgumentType]


def test_an_empty_list_of_targets_is_refused() -> None:
    with pytest.raises(ValueError, match="no target"):
        Client([])


def test_the_target_with_the_fewest_in_flight_is_chosen() -> None:
    targets = Targets(["a", "b", "c"])
    chosen = [targets.begin() for _ in range(6)]
    assert sorted(target.name for target in chosen) == ["a", "a", "b", "b", "c", "c"]
    targets.end(chosen[0])
    assert targets.begin() is chosen[0]


def test_a_target_that_failed_rests_unless_all_do() -> None:
    targets = Targets(["a", "b"])
    first = targets.begin()
    assert targets.failed(first, None) == 0
    targets.end(first)
    others = {targets.begin().name for _ in range(3)}
    assert others == {"a", "b"} - {first.name}
    other = targets.begin()
    assert 0 < targets.failed(other, 60) < 1  # until the first one is free again
    assert targets.begin() is first
    targets.worked(other)
    assert other.rests_until == 0
