"""Streams before their first token, and their events, with a real server."""

import asyncio
from collections.abc import Iterator
from itertools import groupby
from typing import Any

import grpc
import pytest

from doherty import (
    DeadlineExceededError,
    Delta,
    GenerateOptions,
    InvalidRequestError,
    OverloadedError,
    ParseError,
    ServerLost,
    StreamError,
    StreamFinished,
    StreamResumed,
    StreamStarted,
)
from support.proxy import Proxy
from support.server import ServerProcess, start_server
from support.serving import delta, serve, summary
from support.twins import ENDLESS, Kind, StreamTwin, Twin, open_twin


@pytest.fixture(scope="module")
def slow_server() -> Iterator[ServerProcess]:
    """Runs a server with one slot and one place in the queue. Its first tokens take longer than any test."""
    flags = ("-o", "slots=1", "-o", "prefill_seconds=300", "--max-queued-requests", "1", "--max-queue-wait", "1000")
    with start_server("--engine", "synthetic", *flags) as server:
        yield server


async def _wait_for_load(twin: Twin, *, running: int, queued: int) -> None:
    while ((latency := await twin("latency")).running, latency.queued) != (running, queued):
        pass


async def test_a_block_is_entered_when_the_request_is_admitted(kind: Kind, slow_server: ServerProcess) -> None:
    async with open_twin(kind, slow_server.target, timeout=None, retry=None) as twin:
        first = twin.stream("Hi", request_id="mine")
        await first.enter()
        assert (first.stream.text, first.stream.request_id) == ("", "mine")
        waiting = twin.stream("Hi")
        entering = asyncio.create_task(waiting.enter())
        await _wait_for_load(twin, running=1, queued=1)
        with pytest.raises(OverloadedError) as refused:
            await twin.stream("Hi").enter()
        assert refused.value.reason == "QUEUE_FULL"
        assert not entering.done()  # a request that waits for a slot is not admitted yet
        await first.close()
        await entering
        assert waiting.stream.request_id
        await waiting.close()
        await _wait_for_load(twin, running=0, queued=0)


async def test_entering_raises_the_error_of_a_refused_request(twin: Twin) -> None:
    stream = twin.stream("Hi", temperature=9)
    with pytest.raises(InvalidRequestError):
        await stream.enter()
    long = twin.stream("Hi " * 10_000)  # an error that only the engine can detect
    with pytest.raises(InvalidRequestError):
        await long.enter()


async def test_a_closed_stream_is_not_entered(twin: Twin) -> None:
    stream = twin.stream("Hi", **ENDLESS)
    await stream.close()
    with pytest.raises(StreamError, match="closed"):
        await stream.enter()


async def test_cancelling_a_task_that_enters_ends_the_request(slow_server: ServerProcess, kind: Kind) -> None:
    if kind == "Client":
        pytest.skip("threads cannot be cancelled")
    async with open_twin(kind, slow_server.target, timeout=None, retry=None) as twin:
        running = twin.stream("Hi")
        await running.enter()
        entering = asyncio.create_task(twin.stream("Hi").enter())
        await _wait_for_load(twin, running=1, queued=1)
        entering.cancel()
        with pytest.raises(asyncio.CancelledError):
            await entering
        await _wait_for_load(twin, running=1, queued=0)
        await running.close()


async def test_the_wait_for_admission_counts_as_time_to_first_token(kind: Kind, slow_server: ServerProcess) -> None:
    async with open_twin(kind, slow_server.target, timeout=None, retry=None) as twin:
        await twin("model")  # the time to connect counts, too
        stream = twin.stream("Hi", first_token_timeout=1)
        await stream.enter()
        with pytest.raises(DeadlineExceededError, match=r"within 1 s") as raised:
            await stream.next()
        assert raised.value.reason == "FIRST_TOKEN_TIMEOUT"
        await _wait_for_load(twin, running=0, queued=0)


async def test_deltas_that_arrive_while_a_block_is_entered_are_not_lost(twin: Twin) -> None:
    whole = await twin.generate("Name three colors.", max_output_tokens=20, temperature=0)
    stream = twin.stream("Name three colors.", max_output_tokens=20, temperature=0)
    await stream.enter()
    assert "".join(map(str, await stream.rest())) == whole.text
    assert (await stream.result()).text == whole.text


def _older_server(request: Any, context: Any) -> Iterator[Any]:
    """Behaves like an older server, which sent the initial metadata together with the first message."""
    if request.prompt == "refused":
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, "no")
    yield delta("a", 1, start=True)
    yield delta("b", 2)
    yield summary(2)


async def test_entering_waits_for_the_first_token_of_an_older_server(kind: Kind) -> None:
    with serve(_older_server) as server:
        async with open_twin(kind, server.target) as twin:
            stream = twin.stream("Hi")
            await stream.enter()
            assert (await stream.result()).text == "ab"
            with pytest.raises(InvalidRequestError):
                await twin.stream("refused").enter()


async def _events(stream: StreamTwin) -> list[Any]:
    return [event async for event in stream.events()]


@pytest.mark.parametrize("enters", ["enters", "only reads"])
async def test_a_stream_has_events(twin: Twin, enters: str) -> None:
    stream = twin.stream("Name three colors.", max_output_tokens=8, request_id="mine")
    if enters == "enters":
        await stream.enter()
    started, *deltas, finished = await _events(stream)
    assert started == StreamStarted(twin.client.target, "mine")
    assert deltas
    assert all(isinstance(event, Delta) for event in deltas)
    assert finished == StreamFinished(await stream.result())
    assert "".join(map(str, deltas)) == finished.generation.text


async def test_started_is_an_event_even_if_the_stream_was_not_entered(kind: Kind, slow_server: ServerProcess) -> None:
    async with open_twin(kind, slow_server.target, timeout=None, retry=None) as twin:
        stream = twin.stream("Hi", request_id="mine")
        assert await anext(stream.events()) == StreamStarted(slow_server.target, "mine")
        await stream.close()
        with pytest.raises(StreamError):
            await anext(stream.events())
        await _wait_for_load(twin, running=0, queued=0)


async def test_a_stream_that_loses_its_server_has_events(kind: Kind, synthetic_server: ServerProcess) -> None:
    wires = {wire.target: wire for wire in (Proxy(synthetic_server.target), Proxy(synthetic_server.target))}
    async with open_twin(kind, list(wires)) as twin:
        stream = twin.stream("Hi", max_output_tokens=1000, options=GenerateOptions(ignore_eos=True))
        events = stream.events()
        seen: list[Any] = [await anext(events), await anext(events)]
        wires.pop(seen[0].target).close()
        seen += [event async for event in events]
        (other,) = wires.values()
        other.close()
    kinds = [kind for kind, _ in groupby(map(type, seen))]
    assert kinds == [StreamStarted, Delta, ServerLost, StreamResumed, Delta, StreamFinished]
    started, lost, resumed = [event for event in seen if not isinstance(event, Delta | StreamFinished)]
    assert resumed.target == other.target != started.target == lost.target
    assert lost.message
    assert resumed.request_id == started.request_id
    assert seen[-1].generation.usage.output_tokens == 1000


async def test_the_loss_of_a_server_is_reported_before_another_one_is_found(
    kind: Kind, synthetic_server: ServerProcess
) -> None:
    wire = Proxy(synthetic_server.target)
    async with open_twin(kind, wire.target, timeout=None) as twin:
        stream = twin.stream("Hi", **ENDLESS)
        events = stream.events()
        assert isinstance(await anext(events), StreamStarted)
        wire.close()
        while isinstance(event := await anext(events), Delta):
            pass
        assert isinstance(event, ServerLost)
        await stream.close()
        with pytest.raises(StreamError):
            await anext(events)


async def test_events_end_with_the_error_of_the_stream(twin: Twin) -> None:
    with pytest.raises(InvalidRequestError):
        await _events(twin.stream("Hi", temperature=9))
    with pytest.raises(ParseError):
        await _events(twin.stream("Hi", schema={"type": "object"}, max_output_tokens=1))
