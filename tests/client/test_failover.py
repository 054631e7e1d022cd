"""Streams of both clients whose server is lost in the middle of an answer."""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from itertools import count
from typing import Any

import grpc
import pytest

from doherty import (
    AsyncClient,
    ClientClosedError,
    DeadlineExceededError,
    FinishReason,
    GenerateOptions,
    StreamError,
    TokenIds,
    UnavailableError,
)
from doherty.v1.generation_service_pb2 import StreamGenerateResponse
from doherty.v1.request_pb2 import GenerateRequest
from support.ports import free_target
from support.proxy import proxy
from support.server import ServerProcess, start_server
from support.serving import Handler, delta, serve, summary
from support.twins import Kind, open_twin

PACE = ("--engine", "synthetic", "-o", "tokens_per_second=200", "--drain-delay", "0", "--drain-grace", "0.1")
LONG: dict[str, Any] = {"max_output_tokens": 450, "options": GenerateOptions(ignore_eos=True)}
"""An answer of 2.3 seconds. It is not complete when a test acts after its first token, even on a busy machine."""
PROMPTS = [f"Question {number}" for number in range(8)]


@asynccontextmanager
async def _losing_one(how: str) -> AsyncIterator[tuple[list[ServerProcess], list[str], Callable[[], object]]]:
    """Yields two servers, the targets of a client, and a function that takes the first server away."""
    async with AsyncExitStack() as stack:
        servers = [stack.enter_context(start_server(*PACE)) for _ in range(2)]
        targets = [server.target for server in servers]
        if how == "cut":
            wire = stack.enter_context(proxy(targets[0]))
            yield servers, [wire.target, targets[1]], wire.reset
        else:
            number = signal.SIGKILL if how == "kill" else signal.SIGTERM
            yield servers, targets, lambda: servers[0].process.send_signal(number)


@pytest.mark.parametrize("how", ["kill", "terminate", "cut"])
async def test_streams_survive_the_loss_of_their_server(kind: Kind, how: str) -> None:
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(len(PROMPTS)))
    async with _losing_one(how) as (servers, targets, lose), open_twin(kind, targets) as twin:
        async with open_twin(kind, servers[1].target) as other:
            whole = await asyncio.gather(*(other.generate(prompt, **LONG) for prompt in PROMPTS))
        streams = [twin.stream(prompt, **LONG) for prompt in PROMPTS]
        first = await asyncio.gather(*(stream.next() for stream in streams))
        lose()
        rest = await asyncio.gather(*(stream.rest() for stream in streams))
        answers = [await stream.result() for stream in streams]
    for undisturbed, begun, deltas, answer in zip(whole, first, rest, answers, strict=True):
        assert answer.text == "".join(map(str, (begun, *deltas))) == undisturbed.text
        assert (answer.finish_reason, answer.token_ids) == (FinishReason.LENGTH, None)
        assert answer.usage == undisturbed.usage
    resumed = [stream.stream.resumed for stream in streams]
    # About half of the streams were there, except for those whose last token was already on its way.
    assert set(resumed) == {0, 1}
    assert sum(resumed) <= len(PROMPTS) / 2
    assert [answer.network is None for answer in answers] == list(map(bool, resumed))


async def test_a_stream_continues_after_its_server_was_restarted(kind: Kind) -> None:
    with ExitStack() as stack:
        server = stack.enter_context(start_server(*PACE, "--listen", free_target()))
        async with open_twin(kind, server.target) as twin:
            whole = await twin.generate("Hi", temperature=1, seed=3, **LONG)
            stream = twin.stream("Hi", temperature=1, seed=3, **LONG)
            await stream.next()
            server.stop(signal.SIGKILL)
            reading = asyncio.create_task(stream.result())
            stack.enter_context(start_server(*PACE, "--listen", server.target))
            answer = await reading
    assert (answer.text, answer.seed, stream.stream.resumed) == (whole.text, 3, 1)


async def test_a_stream_continues_after_every_cut(kind: Kind) -> None:
    with start_server(*PACE) as server, proxy(server.target) as wire:
        async with open_twin(kind, wire.target) as twin:
            whole = await twin.generate("Hi", **LONG)
            stream = twin.stream("Hi", **LONG)
            for times in range(3):
                await stream.next()
                while stream.stream.resumed < times:
                    await stream.next()
                assert wire.reset() == 1
            assert (await stream.result()).text == whole.text
            assert stream.stream.resumed == 3


async def test_the_caller_gets_ids_only_if_it_requested_them(kind: Kind) -> None:
    parameters = {"max_output_tokens": 300, "options": GenerateOptions(ignore_eos=True, token_ids=True, top_logprobs=0)}
    with start_server(*PACE) as server, proxy(server.target) as wire:
        async with open_twin(kind, wire.target) as twin:
            whole = await twin.generate("Hi", **parameters)
            stream = twin.stream("Hi", **parameters)
            await stream.next()
            wire.reset()
            answer = await stream.result()
            assert (answer.token_ids, answer.logprobs) == (whole.token_ids, whole.logprobs)
            unasked = twin.stream("Hi", max_output_tokens=8)
            assert all(part.token_ids is None for part in await unasked.rest())
            assert (await unasked.result()).token_ids is None


async def test_a_resumed_stream_continues_the_callers_prefix_and_its_own_part(kind: Kind) -> None:
    with start_server(*PACE) as server, proxy(server.target) as wire:
        async with open_twin(kind, wire.target) as twin:
            options = GenerateOptions(ignore_eos=True, token_ids=True)
            whole = await twin.generate("Hi", max_output_tokens=300, options=options)
            assert whole.token_ids is not None
            for held in (TokenIds(whole.token_ids[:30]), whole.text[: len(whole.text) // 10]):
                continued = GenerateOptions(ignore_eos=True, continue_from=held)
                direct = await twin.generate("Hi", max_output_tokens=300, options=continued)
                stream = twin.stream("Hi", max_output_tokens=300, options=continued)
                await stream.next()
                wire.reset()
                answer = await stream.result()
                assert (answer.text, answer.usage, stream.stream.resumed) == (direct.text, direct.usage, 1)


async def test_resuming_can_be_turned_off(kind: Kind) -> None:
    with start_server(*PACE) as server, proxy(server.target) as wire:
        async with open_twin(kind, wire.target, resume=False) as twin:
            stream = twin.stream("Hi", **LONG)
            await stream.next()
            wire.reset()
            with pytest.raises(UnavailableError, match="was lost in the middle"):
                await stream.result()
            assert stream.stream.resumed == 0


@pytest.mark.parametrize("code", [grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.CANCELLED])
async def test_a_broken_connection_is_unavailable_whatever_code_a_proxy_returns(
    kind: Kind, code: grpc.StatusCode
) -> None:
    def handler(_: GenerateRequest, context: grpc.ServicerContext) -> Iterator[StreamGenerateResponse]:
        yield delta("a", 1, start=True)
        context.abort(code, "RST_STREAM")

    with serve(handler) as serving:
        async with open_twin(kind, serving.target, resume=False) as twin:
            stream = twin.stream("Hi")
            with pytest.raises(UnavailableError, match="RST_STREAM"):
                await stream.result()
            assert stream.stream.text == "a"


async def test_a_stream_that_cannot_be_continued_raises_a_stream_error(kind: Kind) -> None:
    def handler(request: GenerateRequest, context: grpc.ServicerContext) -> Iterator[StreamGenerateResponse]:
        if request.HasField("continue_from"):
            context.abort(grpc.StatusCode.UNIMPLEMENTED, "not with a constraint")
        return iter((delta("a", 1, start=True), delta("b", 2)))

    with serve(handler) as serving:
        async with open_twin(kind, serving.target) as twin:
            stream = twin.stream("Hi", options=GenerateOptions(token_ids=True))
            with pytest.raises(StreamError, match="could not be resumed: not with a constraint") as raised:
                await stream.result()
    assert (raised.value.text, raised.value.token_ids, raised.value.request_id) == ("ab", (1, 2), "r")
    assert isinstance(raised.value.__cause__, grpc.RpcError)


async def test_a_stream_does_not_look_for_a_server_beyond_its_deadline(kind: Kind) -> None:
    with start_server(*PACE) as server:
        async with open_twin(kind, server.target) as twin:
            stream = twin.stream("Hi", timeout=2, **LONG)
            first = await stream.next()
            server.stop(signal.SIGKILL)
            with pytest.raises((UnavailableError, DeadlineExceededError)):
                await stream.result()
            assert stream.stream.text.startswith(str(first))


async def _looks_for_a_server(caplog: pytest.LogCaptureFixture) -> None:
    while "follows in" not in caplog.text:  # noqa: ASYNC110 - logging has no event
        await asyncio.sleep(0.01)


async def test_closing_ends_the_search_for_a_server(kind: Kind, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "doherty")
    for closed in ("stream", "client"):
        with start_server(*PACE) as server:
            async with open_twin(kind, server.target, timeout=None) as twin:
                stream = twin.stream("Hi", **LONG)
                await stream.next()
                server.stop(signal.SIGKILL)
                reading = asyncio.create_task(stream.result())
                await _looks_for_a_server(caplog)
                caplog.clear()
                await (stream.close() if closed == "stream" else twin("close"))
                with pytest.raises(StreamError if closed == "stream" else ClientClosedError):
                    await reading


async def test_cancelling_the_task_ends_the_search_for_a_server(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "doherty")
    with start_server(*PACE) as server:
        async with AsyncClient(server.target) as client:
            stream = client.stream_generate("Hi", **LONG)
            await anext(stream)
            server.stop(signal.SIGKILL)
            reading = asyncio.create_task(stream.result())
            await _looks_for_a_server(caplog)
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading
            with pytest.raises(StreamError):
                await stream.result()


def _cut_off(*messages: StreamGenerateResponse) -> Handler:
    """The first attempt ends after the given messages, and every further attempt is a complete answer."""
    attempts = count()

    def handler(_: GenerateRequest, __: grpc.ServicerContext) -> Iterator[StreamGenerateResponse]:
        return iter(messages) if next(attempts) == 0 else iter((delta("c", 3, start=True), summary(3)))

    return handler


async def test_a_stream_is_continued_by_ids_if_all_are_known(kind: Kind) -> None:
    with serve(_cut_off(delta("a", 1, start=True), delta("b", 2))) as serving:
        async with open_twin(kind, serving.target) as twin:
            answer = await twin.stream("Hi", time_limit=50, options=GenerateOptions(min_output_tokens=2)).result()
    assert (answer.text, answer.usage.output_tokens, answer.seed) == ("abc", 3, None)
    first, second = serving.requests
    assert first.output.token_ids
    assert not first.HasField("continue_from")
    assert (list(second.continue_from.token_ids), second.continue_from.text) == ([1, 2], "")
    assert (second.request_id, second.model, second.stopping.min_output_tokens) == ("r", "m", 2)
    assert 0 < second.stopping.time_limit.ToNanoseconds() < first.stopping.time_limit.ToNanoseconds()


async def test_a_stream_is_continued_by_text_if_not_all_ids_are_known(kind: Kind) -> None:
    with serve(_cut_off(delta("a", 1, start=True), delta("b"))) as serving:
        async with open_twin(kind, serving.target) as twin:
            answer = await twin.stream("Hi", seed=5).result()
            held = await twin.stream("Hi", options=GenerateOptions(continue_from="0")).result()
    assert (answer.text, answer.seed, held.text) == ("abc", 7, "c")
    assert (list(serving.requests[1].continue_from.token_ids), serving.requests[1].continue_from.text) == ([], "ab")
    assert serving.requests[2].continue_from.text == "0"


async def test_a_stream_cannot_be_continued_from_ids_and_text_together(kind: Kind) -> None:
    with serve(_cut_off(delta("a", start=True))) as serving:
        async with open_twin(kind, serving.target) as twin:
            stream = twin.stream("Hi", options=GenerateOptions(continue_from=TokenIds([9])))
            with pytest.raises(StreamError, match="not all ids"):
                await stream.result()
    assert len(serving.requests) == 1


async def test_a_stream_without_output_is_repeated_without_a_prefix(kind: Kind) -> None:
    with serve(_cut_off(delta("", start=True))) as serving:
        async with open_twin(kind, serving.target) as twin:
            assert (await twin.stream("Hi").result()).text == "c"
    assert not serving.requests[1].HasField("continue_from")
