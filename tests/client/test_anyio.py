"""The asynchronous client under anyio's cancel scopes."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import anyio
import pytest

from doherty import AsyncClient
from support.server import ServerProcess
from support.twins import ENDLESS

Call = Callable[[AsyncClient], Awaitable[Any]]


async def _read_events(client: AsyncClient) -> None:
    async for _ in client.stream_generate("Hi", **ENDLESS).events():
        pass


async def _read_map(client: AsyncClient) -> None:
    async for _ in client.map(["Hi"] * 3, **ENDLESS):
        pass


CALLS: dict[str, Call] = {
    "generate": lambda client: client.generate("Hi", **ENDLESS),
    "generate as a stream": lambda client: client.generate("Hi", idle_timeout=30, **ENDLESS),
    "the result of a stream": lambda client: client.stream_generate("Hi", **ENDLESS).result(),
    "the events of a stream": _read_events,
    "map": _read_map,
}
UNREACHABLE: dict[str, Call] = {
    **CALLS,
    "enter a stream": lambda client: client.stream_generate("Hi").__aenter__(),
    "model": AsyncClient.model,
    "wait_ready": AsyncClient.wait_ready,
}


@pytest.fixture(params=[False, True], ids=["unary", "multiplex"])
async def client(request: pytest.FixtureRequest, synthetic_server: ServerProcess) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(synthetic_server.target, multiplex=request.param) as opened:
        yield opened


@pytest.mark.parametrize("name", CALLS)
async def test_a_cancelled_scope_ends_a_call(client: AsyncClient, name: str) -> None:
    async def cancel_when_it_runs() -> None:
        while not (await client.latency()).running:
            pass
        scope.cancel()

    scope = anyio.CancelScope()
    cancelling = asyncio.create_task(cancel_when_it_runs())
    with scope:
        await CALLS[name](client)
    assert scope.cancelled_caught
    await cancelling
    while (await client.latency()).running:
        pass


@pytest.mark.parametrize("name", CALLS)
async def test_a_scope_with_a_time_limit_ends_with_a_timeout(client: AsyncClient, name: str) -> None:
    with pytest.raises(TimeoutError), anyio.fail_after(0.2):
        await CALLS[name](client)


@pytest.mark.parametrize("name", UNREACHABLE)
async def test_a_scope_with_a_time_limit_ends_while_no_server_answers(name: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        async with AsyncClient("{}:{}".format(*silent.getsockname())) as client:
            with pytest.raises(TimeoutError), anyio.fail_after(0.1):
                await UNREACHABLE[name](client)
