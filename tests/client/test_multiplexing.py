"""AsyncClient(multiplex=True): requests that share an RPC do not disturb each other."""

import asyncio
import gc
import signal
import traceback
from collections import Counter
from typing import Any

import pytest

from doherty import AsyncClient, ClientClosedError, GenerateOptions, InvalidRequestError, UnavailableError
from doherty._aio._multiplexed import MultiplexedCall
from support.memory import allocated_bytes, needs_allocated_bytes
from support.ports import free_target
from support.server import ServerProcess, start_server
from support.serving import answer, serve
from support.twins import ENDLESS, Twin

SHORT: dict[str, Any] = {"max_output_tokens": 4, "options": GenerateOptions(ignore_eos=True)}
SYNTHETIC = ("--engine", "synthetic", "-o", "tokens_per_second=2000")


def calls() -> int:
    """Returns the number of requests in memory."""
    gc.collect()
    return sum(type(thing) is MultiplexedCall for thing in gc.get_objects())


async def test_an_unread_answer_does_not_block_others() -> None:
    with start_server(*SYNTHETIC, "--stall-timeout", "0.5") as server:
        async with AsyncClient(server.target, multiplex=True) as client:
            unread = client.stream_generate("Hi", **ENDLESS)
            await anext(unread)
            while (await client.latency()).running:
                answers = await asyncio.gather(*(client.generate("Hi", **SHORT) for _ in range(8)))
                assert {answer.usage.output_tokens for answer in answers} == {4}
            assert (await unread.result()).usage.output_tokens == ENDLESS["max_output_tokens"]
            assert not (await client.latency()).aborts


async def test_a_large_request_is_sent_as_a_separate_call() -> None:
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


@pytest.mark.parametrize(("most", "words"), [(65536, 500), (1024, 120)])
async def test_requests_that_fit_separately_succeed(most: int, words: int) -> None:
    """A single message with all of them would exceed the server's limit."""
    with start_server(*SYNTHETIC, "--max-message-bytes", str(most), "--max-queued-requests", "500") as server:
        async with AsyncClient(server.target, multiplex=True, retry=None) as client:
            for _ in range(2):  # before the limit is known, and afterwards
                answers = await asyncio.gather(*(client.generate("word " * words, **SHORT) for _ in range(100)))
                assert {answer.usage.output_tokens for answer in answers} == {4}
            running = client.stream_generate("Hi", **ENDLESS)
            await anext(running)
            with pytest.raises(InvalidRequestError, match="max_message_bytes"):
                await client.generate("x" * most, **SHORT)
            assert (await anext(running)).text


async def test_small_requests_share_an_rpc_even_if_the_server_has_a_low_limit() -> None:
    """The client asks for the limit only once."""
    with start_server(*SYNTHETIC, "--max-message-bytes", "1024") as server:
        async with AsyncClient(server.target, multiplex=True) as client:
            await asyncio.gather(*(client.generate("Hi", **SHORT) for _ in range(32)))
        server.stop()
    rpcs = Counter(line["rpc"] for line in server.read() if line["event"] == "request")
    assert rpcs == {"MultiplexGenerate": 32 + 1, "GetModel": 1}  # each request has a line, and so does the RPC


async def test_a_restarted_server_may_have_a_lower_limit() -> None:
    with start_server(*SYNTHETIC, "--listen", free_target()) as server:
        async with AsyncClient(server.target, multiplex=True) as client:
            await asyncio.gather(*(client.generate("word " * 1000, **SHORT) for _ in range(32)))
            server.stop(signal.SIGKILL)
            with start_server(*SYNTHETIC, "--listen", server.target, "--max-message-bytes", "8192"):
                await client.wait_ready()
                await asyncio.gather(*(client.generate("word " * 1000, **SHORT) for _ in range(32)))


async def test_requests_are_retried_if_one_of_several_servers_has_a_lower_limit(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """GetModel was answered by another server than the RPC."""
    caplog.set_level("INFO", "doherty")
    with serve(lambda _, __: iter(answer()), message_bytes=8192) as serving:
        async with AsyncClient(serving.target, multiplex=True) as client:
            while "takes smaller messages only" not in caplog.text:
                answers = await asyncio.gather(*(client.generate("x" * 2000) for _ in range(16)))
                assert {answer.text for answer in answers} == {"fine"}
            caplog.clear()
            await asyncio.gather(*(client.generate("x" * 2000) for _ in range(16)))
            assert not caplog.text


@needs_allocated_bytes
async def test_an_unread_answer_keeps_only_its_own_parts_in_memory() -> None:
    """It does not keep whole messages, which contain parts of all requests."""
    with start_server(*SYNTHETIC) as server:
        async with AsyncClient(server.target, multiplex=True) as client:
            tokens: dict[str, Any] = {"max_output_tokens": 400, "options": GenerateOptions(ignore_eos=True)}
            unread = client.stream_generate("Hi", **tokens)
            await anext(unread)
            await asyncio.gather(*(client.stream_generate("Hi", **tokens).result() for _ in range(32)))
            while (await client.latency()).running:
                pass
            gc.collect()
            before = allocated_bytes()
            await unread.close()
            del unread
            gc.collect()
            assert before - allocated_bytes() < 1 << 17


async def test_closing_one_of_many_streams_cancels_only_its_request(synthetic_server: ServerProcess) -> None:
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
        await Twin(client).wait_for_aborts(before + 9)


async def test_buffered_parts_are_dropped_when_the_client_is_closed(synthetic_server: ServerProcess) -> None:
    async with AsyncClient(synthetic_server.target, multiplex=True) as client:
        read, left = (client.stream_generate("Hi", **ENDLESS) for _ in range(2))
        await anext(left)
        for _ in range(20):  # whose messages also contain the tokens of the other request
            await anext(read)
    for stream in (read, left):
        with pytest.raises(ClientClosedError):
            await anext(stream)


async def test_the_rpc_is_opened_again_after_a_restart_of_the_server() -> None:
    with start_server(*SYNTHETIC, "--listen", free_target()) as server:
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
                    await client.generate("Hi", max_retries=0, **SHORT)


async def test_each_caller_gets_a_separate_error() -> None:
    """Each raise adds frames to an error, so a shared error would grow with every request of the RPC."""
    with start_server(*SYNTHETIC) as server:
        async with AsyncClient(server.target, multiplex=True, retry=None, resume=False) as client:
            pending = [asyncio.create_task(client.generate("Hi", **ENDLESS)) for _ in range(100)]
            while (latency := await client.latency()).running + latency.queued < len(pending):
                pass
            server.stop(signal.SIGKILL)
            errors = await asyncio.gather(*pending, return_exceptions=True)
    assert all(isinstance(error, UnavailableError) for error in errors)
    causes = [error.__cause__ for error in errors if isinstance(error, UnavailableError)]
    assert len({id(cause) for cause in causes}) == len(pending)
    assert len({len(traceback.extract_tb(cause.__traceback__)) for cause in causes if cause}) == 1


async def test_a_thousand_requests_leave_nothing_behind(synthetic_server: ServerProcess) -> None:
    async with AsyncClient(synthetic_server.target, multiplex=True) as client:

        async def generate_one(number: int) -> None:
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
                await asyncio.gather(*(generate_one(number) for number in range(first, first + 32)))

        await many(64)
        tasks, before = len(asyncio.all_tasks()), objects()
        await many(1000)
        while calls() or any(count > 200 for count in (objects() - before).values()):
            await client.latency()
        assert len(asyncio.all_tasks()) <= tasks
        assert (await client.latency()).running == 0


def objects() -> Counter[str]:
    """Returns the number of objects by type."""
    gc.collect()
    return Counter(type(thing).__name__ for thing in gc.get_objects())
