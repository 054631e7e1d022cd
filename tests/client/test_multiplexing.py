"""AsyncClient(multiplex=True), where requests on one RPC could get into each other's way."""

import asyncio
import gc
import signal
import traceback
from collections import Counter
from typing import Any

import pytest

from doherty import AsyncClient, ClientClosedError, DohertyError, GenerateOptions, UnavailableError
from doherty._aio._multiplexed import MultiplexedCall
from support.server import ServerProcess, start_server
from support.twins import ENDLESS

SHORT: dict[str, Any] = {"max_output_tokens": 4, "options": GenerateOptions(ignore_eos=True)}
SYNTHETIC = ("--engine", "synthetic", "-o", "tokens_per_second=2000")


def calls() -> int:
    """How many requests there still are in memory."""
    gc.collect()
    return sum(type(one) is MultiplexedCall for one in gc.get_objects())


async def test_an_answer_that_nobody_reads_keeps_nobody_waiting() -> None:
    with start_server(*SYNTHETIC, "--stall-timeout", "0.5") as server:
        async with AsyncClient(server.target, multiplex=True) as client:
            unread = client.stream_generate("Hi", **ENDLESS)
            await anext(unread)
            while (await client.latency()).running:
                answers = await asyncio.gather(*(client.generate("Hi", **SHORT) for _ in range(8)))
                assert {answer.usage.output_tokens for answer in answers} == {4}
            assert (await unread.result()).usage.output_tokens == ENDLESS["max_output_tokens"]
            assert not (await client.latency()).aborts


async def test_a_large_request_is_a_call_of_its_own() -> None:
    with start_server(*SYNTHETIC, "-o", "context_tokens=4000000") as server:
        async with AsyncClient(server.target, multiplex=True) as client:
            other = client.stream_generate("Hi", **ENDLESS)
            await anext(other)
            large, small = "word " * 250_000, "word " * 10_000
            for name, prompt in (("large", large), ("small", small)):
                answer = await client.generate(prompt, request_id=name, **SHORT)
                assert answer.usage.output_tokens == 4
                await client.stream_generate(prompt, request_id=f"{name} streamed", **SHORT).result()
            await other.close()
        server.stop()
    lines = {line["request_id"]: line["rpc"] for line in server.read() if line["event"] == "request"}
    assert (lines["large"], lines["large streamed"]) == ("Generate", "StreamGenerate")
    assert lines["small"] == lines["small streamed"] == "MultiplexGenerate"


async def test_closing_one_of_many_cancels_just_that_one(synthetic_server: ServerProcess) -> None:
    async with AsyncClient(synthetic_server.target, multiplex=True) as client:
        before = (await client.latency()).aborts.get("cancelled", 0)
        streams = [client.stream_generate("Hi", **ENDLESS) for _ in range(8)]
        for stream in streams:
            await anext(stream)
        await streams[3].close()
        left = [stream for stream in streams if stream is not streams[3]]
        while (await client.latency()).running > len(left):
            pass
        for stream in left:
            assert (await anext(stream)).text
        waiting = asyncio.create_task(client.generate("Hi", **ENDLESS))
        while (await client.latency()).running == len(left):
            pass
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        while (await client.latency()).running > len(left):
            pass
        await asyncio.gather(*(stream.close() for stream in left))
        while (latency := await client.latency()).running:
            pass
        assert latency.aborts["cancelled"] == before + 9


async def test_what_is_buffered_is_gone_once_the_client_is_closed(synthetic_server: ServerProcess) -> None:
    async with AsyncClient(synthetic_server.target, multiplex=True) as client:
        read, left = (client.stream_generate("Hi", **ENDLESS) for _ in range(2))
        await anext(left)
        for _ in range(20):  # in whose messages the other one's tokens come, too
            await anext(read)
    for stream in (read, left):
        with pytest.raises(ClientClosedError):
            await anext(stream)


async def test_the_rpc_is_opened_again_once_the_server_is_back() -> None:
    with start_server(*SYNTHETIC) as server:
        target = server.target
        async with AsyncClient(target, multiplex=True) as client:
            assert (await client.generate("Hi", **SHORT)).text
            server.stop(signal.SIGKILL)
            later = [asyncio.create_task(client.generate("Hi", **SHORT)) for _ in range(4)]
            with start_server(*SYNTHETIC, "--listen", target) as again:
                answers = await asyncio.gather(*later)
                assert {answer.usage.output_tokens for answer in answers} == {4}
                assert (await client.generate("Hi", **SHORT)).text
                assert again.stop() == 0
                with pytest.raises(UnavailableError):
                    await client.generate("Hi", timeout=0.5, **SHORT)


async def test_each_caller_gets_a_stack_of_its_own() -> None:
    """An RPC that ends is one error for all its requests, whose stack must not grow with each of them."""
    with start_server(*SYNTHETIC) as server:
        async with AsyncClient(server.target, multiplex=True, retry=None, resume=False) as client:
            pending = [asyncio.create_task(client.generate("Hi", **ENDLESS)) for _ in range(100)]
            while (latency := await client.latency()).running + latency.queued < len(pending):
                pass
            server.stop(signal.SIGKILL)
            errors = await asyncio.gather(*pending, return_exceptions=True)
    assert all(isinstance(error, DohertyError) for error in errors)
    causes = [error.__cause__ for error in errors if isinstance(error, DohertyError)]
    assert max(len(traceback.extract_tb(cause.__traceback__)) for cause in causes if cause) < len(pending)


async def test_a_thousand_requests_leave_nothing_behind(synthetic_server: ServerProcess) -> None:
    async with AsyncClient(synthetic_server.target, multiplex=True) as client:

        async def one(number: int) -> None:
            if number % 4 == 0:
                await client.generate("Hi", timeout=30, max_output_tokens=1)
            elif number % 4 == 1:
                await client.stream_generate("Hi", idle_timeout=30, max_output_tokens=1).result()
            elif number % 4 == 2:
                left = client.stream_generate("Hi", **ENDLESS)
                await anext(left)
            else:
                await client.stream_generate("Hi", timeout=30, **ENDLESS).close()

        async def many(times: int) -> None:
            for first in range(0, times, 32):
                await asyncio.gather(*(one(number) for number in range(first, first + 32)))

        await many(64)
        tasks, before = len(asyncio.all_tasks()), objects()
        await many(1000)
        while calls() or any(count > 200 for count in (objects() - before).values()):
            await client.latency()
        assert len(asyncio.all_tasks()) <= tasks
        assert (await client.latency()).running == 0


def objects() -> Counter[str]:
    """How many of each type there are."""
    gc.collect()
    return Counter(type(one).__name__ for one in gc.get_objects())
