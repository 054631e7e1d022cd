"""AsyncClient(multiplex=True), where requests on one RPC could get into each other's way."""

import asyncio
import ctypes
import gc
import signal
import traceback
from collections import Counter
from typing import Any

import pytest

from doherty import AsyncClient, ClientClosedError, GenerateOptions, InvalidRequestError, UnavailableError
from doherty._aio._multiplexed import MultiplexedCall
from support.server import ServerProcess, start_server
from support.serving import answer, serve
from support.twins import ENDLESS, Twin

MALLINFO = ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")
"""The fields of glibc's struct mallinfo2."""
SHORT: dict[str, Any] = {"max_output_tokens": 4, "options": GenerateOptions(ignore_eos=True)}
SYNTHETIC = ("--engine", "synthetic", "-o", "tokens_per_second=2000")


def calls() -> int:
    """How many requests there still are in memory."""
    gc.collect()
    return sum(type(one) is MultiplexedCall for one in gc.get_objects())


def allocated() -> int:
    """How many bytes the C library has given out, which is where protobuf's messages are."""

    class Info(ctypes.Structure):
        _fields_ = tuple((name, ctypes.c_size_t) for name in MALLINFO)

    mallinfo = ctypes.CDLL(None).mallinfo2
    mallinfo.restype = Info
    told = mallinfo()
    return int(told.uordblks + told.hblkhd)


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


@pytest.mark.parametrize(("most", "words"), [(65536, 500), (1024, 120)])
async def test_requests_that_fit_by_themselves_succeed(most: int, words: int) -> None:
    """Together they are larger than the server's bound, which one message of them all would exceed."""
    with start_server(*SYNTHETIC, "--max-message-bytes", str(most), "--max-queued-requests", "500") as server:
        async with AsyncClient(server.target, multiplex=True, retry=None) as client:
            for _ in range(2):  # before the bound is known, and behind that
                answers = await asyncio.gather(*(client.generate("word " * words, **SHORT) for _ in range(100)))
                assert {answer.usage.output_tokens for answer in answers} == {4}
            running = client.stream_generate("Hi", **ENDLESS)
            await anext(running)
            with pytest.raises(InvalidRequestError, match="max_message_bytes"):
                await client.generate("x" * most, **SHORT)
            assert (await anext(running)).text


async def test_small_requests_share_an_rpc_however_little_the_server_takes() -> None:
    """It is asked once how much that is."""
    with start_server(*SYNTHETIC, "--max-message-bytes", "1024") as server:
        async with AsyncClient(server.target, multiplex=True) as client:
            await asyncio.gather(*(client.generate("Hi", **SHORT) for _ in range(32)))
        server.stop()
    rpcs = Counter(line["rpc"] for line in server.read() if line["event"] == "request")
    assert rpcs == {"MultiplexGenerate": 32 + 1, "GetModel": 1}  # requests have a line each, and so has the RPC


async def test_a_server_that_comes_back_may_take_less() -> None:
    with start_server(*SYNTHETIC) as server:
        async with AsyncClient(server.target, multiplex=True) as client:
            await asyncio.gather(*(client.generate("word " * 1000, **SHORT) for _ in range(32)))
            server.stop(signal.SIGKILL)
            with start_server(*SYNTHETIC, "--listen", server.target, "--max-message-bytes", "8192"):
                await client.wait_ready()
                await asyncio.gather(*(client.generate("word " * 1000, **SHORT) for _ in range(32)))


async def test_requests_are_made_again_where_one_of_several_servers_takes_less(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """GetModel was answered by another one than the RPC."""
    caplog.set_level("INFO", "doherty")
    with serve(lambda _, __: iter(answer()), message_bytes=8192) as serving:
        async with AsyncClient(serving.target, multiplex=True) as client:
            while "takes smaller messages only" not in caplog.text:
                answers = await asyncio.gather(*(client.generate("x" * 2000) for _ in range(16)))
                assert {answer.text for answer in answers} == {"fine"}
            caplog.clear()
            await asyncio.gather(*(client.generate("x" * 2000) for _ in range(16)))
            assert not caplog.text


async def test_an_unread_answer_keeps_its_own_parts_alone() -> None:
    """Not the messages in which they came, with the parts of all others."""
    with start_server(*SYNTHETIC) as server:
        async with AsyncClient(server.target, multiplex=True) as client:
            tokens: dict[str, Any] = {"max_output_tokens": 400, "options": GenerateOptions(ignore_eos=True)}
            unread = client.stream_generate("Hi", **tokens)
            await anext(unread)
            await asyncio.gather(*(client.stream_generate("Hi", **tokens).result() for _ in range(32)))
            while (await client.latency()).running:
                pass
            gc.collect()
            before = allocated()
            await unread.close()
            del unread
            gc.collect()
            assert before - allocated() < 1 << 17


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
        await Twin(client).wait_for_aborts(before + 9)


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
    """Each raise adds frames to an error, so that one for all requests of an RPC would grow with each of them."""
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
