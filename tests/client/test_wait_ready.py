"""Waiting until a server is ready, with both clients."""

import asyncio

import pytest

from doherty import ClientClosedError, DeadlineExceededError, UnsupportedError
from support.ports import free_target
from support.server import ServerProcess, start_server
from support.serving import answer, serve
from support.twins import Kind, Twin, open_twin


async def test_a_server_that_serves_is_ready(twin: Twin) -> None:
    await twin("wait_ready")


async def test_a_server_that_loads_becomes_ready(kind: Kind) -> None:
    with start_server("--engine", "synthetic", "-o", "load_seconds=1", until="listening") as server:
        async with open_twin(kind, server.target) as twin:
            await twin("wait_ready")
            await twin("model")


async def test_a_server_that_starts_later_is_found(kind: Kind) -> None:
    target = free_target()
    async with open_twin(kind, target) as twin:
        with pytest.raises(ConnectionError):
            await twin("model", max_retries=0)
        waiting = asyncio.create_task(twin("wait_ready", None))
        with start_server("--engine", "synthetic", "--listen", target):
            await waiting
            await twin("model")


async def test_a_server_without_a_health_service_is_ready_when_it_describes_its_model(kind: Kind) -> None:
    with serve(lambda _, __: iter(answer())) as serving:
        async with open_twin(kind, serving.target, timeout=20) as twin:
            await twin("wait_ready")
            with pytest.raises(UnsupportedError):
                await twin("health")


async def test_the_server_that_was_found_ready_gets_the_next_call(kind: Kind) -> None:
    nobody, target = free_target(), free_target()
    async with open_twin(kind, [nobody, target], retry=None) as twin:
        waiting = asyncio.create_task(twin("wait_ready", None))
        with start_server("--engine", "synthetic", "--listen", target):
            await waiting
            await twin("model")


async def test_a_server_that_does_not_become_ready_raises_an_error(kind: Kind) -> None:
    with start_server("--engine", "synthetic", "-o", "load_seconds=60", until="listening") as server:
        async with open_twin(kind, server.target) as twin:
            await twin("health")
            with pytest.raises(DeadlineExceededError, match=r"within 1 s \(the timeout of the call\): last seen NOT"):
                await twin("wait_ready", 1)


async def test_an_unreachable_server_raises_an_error(kind: Kind) -> None:
    async with open_twin(kind, "127.0.0.1:1", timeout=0.5) as twin:
        with pytest.raises(TimeoutError, match=r"within 0\.5 s \(the timeout of the client\): last seen no connection"):
            await twin("wait_ready")


async def test_closing_the_client_ends_the_wait(kind: Kind, synthetic_server: ServerProcess) -> None:
    async with open_twin(kind, synthetic_server.target) as ready:
        await ready("wait_ready")
    with start_server("--engine", "synthetic", "-o", "load_seconds=60", until="listening") as server:
        async with open_twin(kind, server.target, retry=None) as twin:
            waiting = asyncio.create_task(twin("wait_ready", None))
            server.wait_for("listening")
            with pytest.raises(ConnectionError):
                await twin("model")
        with pytest.raises(ClientClosedError):
            await waiting
