"""Streams that nobody closes, and what is left of a client after its close."""

import asyncio
import gc
import signal
import threading
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from doherty import AsyncClient, Client, StreamError
from support.multiplex import wait_until
from support.server import ServerProcess
from support.twins import ENDLESS, Twin


async def _freed(client: Client | AsyncClient, before: int) -> None:
    """Waits until the server has noticed one more cancellation."""
    twin = Twin(client)
    while await twin.aborts() <= before:
        pass


async def test_leaving_a_bare_loop_ends_the_request(synthetic_server: ServerProcess) -> None:
    with Client(synthetic_server.target) as client:
        before = await Twin(client).aborts()
        for _ in client.stream_generate("a", **ENDLESS):
            break
        await _freed(client, before)
        for _ in client.stream_generate("a", **ENDLESS).text_stream:
            break
        await _freed(client, before + 1)


async def test_leaving_a_bare_asynchronous_loop_ends_the_request(synthetic_server: ServerProcess) -> None:
    async with AsyncClient(synthetic_server.target) as client:
        before = await Twin(client).aborts()
        async for _ in client.stream_generate("a", **ENDLESS):
            break
        await _freed(client, before)
        async for _ in client.stream_generate("a", **ENDLESS).text_stream:
            break
        await _freed(client, before + 1)


async def test_leaving_the_block_ends_the_request(synthetic_server: ServerProcess) -> None:
    with Client(synthetic_server.target) as client:
        before = await Twin(client).aborts()
        with client.stream_generate("a", **ENDLESS) as stream:
            next(stream)
        await _freed(client, before)
    async with AsyncClient(synthetic_server.target) as asynchronous:
        async with asynchronous.stream_generate("a", **ENDLESS) as other:
            await anext(other)
        await _freed(asynchronous, before + 1)


def _aborts(client: Client) -> int:
    """How many requests were cancelled, once nothing runs any more."""
    while (latency := client.latency()).running:
        pass
    return latency.aborts.get("cancelled", 0)


@pytest.mark.parametrize("idle_timeout", [None, 30])
def test_interrupting_a_call_ends_the_request(synthetic_server: ServerProcess, idle_timeout: float | None) -> None:
    main = threading.get_ident()

    def interrupt() -> None:
        with Client(synthetic_server.target) as other:
            wait_until(lambda: bool(other.latency().running))
        signal.pthread_kill(main, signal.SIGINT)

    with Client(synthetic_server.target) as client:
        before = _aborts(client)
        interrupter = threading.Thread(target=interrupt)
        interrupter.start()
        with pytest.raises(KeyboardInterrupt) as kept:  # as an interactive session keeps its last error
            client.generate("a", idle_timeout=idle_timeout, **ENDLESS)
        interrupter.join()
        while _aborts(client) == before:
            pass
        del kept


class _Interrupting(grpc.UnaryStreamClientInterceptor):
    """Interrupts a call that has reached the server, before or after gRPC returns it."""

    def __init__(self, reached_server: Callable[[], bool], *, is_returned: bool) -> None:
        self._reached_server = reached_server
        self._is_returned = is_returned

    def intercept_unary_stream(self, continuation: Callable[..., Any], client_call_details: Any, request: Any) -> Any:
        call = _InterruptedCall(continuation(client_call_details, request), self._interrupt)
        if not self._is_returned:
            self._interrupt()
        return call

    def _interrupt(self) -> None:
        wait_until(self._reached_server)
        raise KeyboardInterrupt


class _InterruptedCall:
    """Interrupts what the client does first with a call."""

    def __init__(self, call: Any, interrupt: Callable[[], None]) -> None:
        self._call = call
        self._interrupt = interrupt

    def add_callback(self, callback: Callable[[], None]) -> None:
        self._call.add_callback(callback)
        self._interrupt()

    def cancel(self) -> None:
        self._call.cancel()


@pytest.mark.parametrize("is_returned", [False, True])
def test_interrupting_a_call_that_begins_ends_the_request(
    synthetic_server: ServerProcess, *, is_returned: bool
) -> None:
    with Client(synthetic_server.target) as other:
        before = _aborts(other)
        interceptor = _Interrupting(lambda: bool(other.latency().running), is_returned=is_returned)
        with Client(synthetic_server.target, interceptors=[interceptor]) as client:
            with pytest.raises(KeyboardInterrupt) as kept:
                client.generate("a", idle_timeout=30, **ENDLESS)
            wait_until(lambda: _aborts(other) > before)
            targets = client._pool.dispatch.targets  # noqa: SLF001 - no public attribute shows it
            wait_until(lambda: [target.in_flight for target in targets._targets] == [0])  # noqa: SLF001
            del kept


async def test_cancelling_the_task_ends_the_request(synthetic_server: ServerProcess) -> None:
    async with AsyncClient(synthetic_server.target) as client:
        before = await Twin(client).aborts()
        stream = client.stream_generate("a", **ENDLESS)
        reader = asyncio.create_task(stream.result())
        while not (await client.latency()).running:
            pass
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader
        await _freed(client, before)
        with pytest.raises(StreamError):
            await anext(stream)

        unary = asyncio.create_task(client.generate("a", **ENDLESS))
        while not (await client.latency()).running:
            pass
        unary.cancel()
        with pytest.raises(asyncio.CancelledError):
            await unary
        await _freed(client, before + 1)


async def test_cancelling_before_the_request_is_sent(synthetic_server: ServerProcess) -> None:
    async with AsyncClient(synthetic_server.target) as client:
        stream = client.stream_generate("a", **ENDLESS)
        reader = asyncio.create_task(anext(stream))
        await asyncio.sleep(0)
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader
        await Twin(client).aborts()
        with pytest.raises(StreamError):
            await stream.result()


async def test_no_task_is_left(synthetic_server: ServerProcess) -> None:
    before = asyncio.all_tasks()
    async with AsyncClient(synthetic_server.target) as client:
        await client.wait_ready()
        async for _ in client.stream_generate("a", **ENDLESS):
            break
        async with client.stream_generate("a", **ENDLESS) as stream:
            await anext(stream)
        kept = client.stream_generate("a", **ENDLESS)
        await anext(kept)
    if left := asyncio.all_tasks() - before:
        _, running = await asyncio.wait(left, timeout=30)
        assert not running


def test_no_thread_is_left(synthetic_server: ServerProcess) -> None:
    before = set(threading.enumerate())
    with Client(synthetic_server.target) as client:
        client.wait_ready()
        client.generate("a", max_output_tokens=2)
        kept = client.stream_generate("a", **ENDLESS)
        next(kept)
    with Client("127.0.0.1:1") as lost, pytest.raises(ConnectionError):
        lost.model(max_retries=0)
    for thread in set(threading.enumerate()) - before:
        thread.join(30)
        assert not thread.is_alive(), thread


def test_streams_are_not_kept_alive(synthetic_server: ServerProcess) -> None:
    gc.collect()
    others = _streams()  # of other tests
    with Client(synthetic_server.target) as client:
        for _ in range(3):
            client.stream_generate("a", max_output_tokens=2).result()
        assert _streams() <= others


def _streams() -> set[int]:
    return {id(each) for each in gc.get_objects() if type(each).__name__ == "GenerationStream"}
