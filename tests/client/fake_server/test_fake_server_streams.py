"""Streams of `doherty.testing` that fail, are delayed, cut off or cancelled."""

import asyncio
import threading
from collections.abc import Iterator

import pytest

from doherty import (
    AsyncClient,
    DeadlineExceededError,
    Delta,
    GenerateOptions,
    InternalError,
    OverloadedError,
    StreamStarted,
    TokenIds,
    UnavailableError,
)
from doherty.testing import FakeServer, Reply, Request
from support.twins import Kind, Twin, open_twin

SKY = "The sky is blue."


async def test_an_error_may_follow_a_part_of_an_answer(twin: Twin, server: FakeServer) -> None:
    server.reply(Reply("The sky", error=InternalError("broken")))
    stream = twin.stream("Why?")
    assert [await stream.next(), await stream.next()] == [Delta("The"), Delta(" sky")]
    with pytest.raises(InternalError, match="broken"):
        await stream.next()


async def test_a_stream_continues_after_it_was_cut_off(twin: Twin, server: FakeServer) -> None:
    server.reply(Reply("The sky", cut_off=True), SKY)
    stream = twin.stream("Why?")
    answer = await stream.result()
    assert (answer.text, answer.usage.output_tokens, stream.stream.resumed) == (SKY, 4, 1)
    assert [request.options.continue_from for request in server.requests] == [None, "The sky"]


async def test_a_prefix_is_continued_by_ids_or_by_text(twin: Twin, server: FakeServer) -> None:
    words = [Delta("The", (1,)), Delta(" sky", (2,)), Delta(" is", (3,)), Delta(" blue.", (4,))]
    server.reply(words, words, " is high.", words)
    expected: list[tuple[str | TokenIds, str, int]] = [
        (TokenIds((1, 2)), " is blue.", 4),
        ("The sk", "y is blue.", 4),
        ("The sky", " is high.", 4),
        (TokenIds((1, 9)), SKY, 6),
    ]
    for held, rest, tokens in expected:
        answer = await twin.generate("Why?", options=GenerateOptions(continue_from=held))
        assert (answer.text, answer.usage.output_tokens) == (rest, tokens)


async def test_a_stream_continues_at_another_server(kind: Kind) -> None:
    slow = Reply(SKY, token_delay=2)
    with FakeServer(slow) as first, FakeServer(slow) as other:
        async with open_twin(kind, [first.target, other.target]) as twin:
            stream = twin.stream("Why?")
            await stream.next()
            busy, idle = (first, other) if first.requests else (other, first)
            idle.reply(SKY)
            busy.close()
            assert (await stream.result()).text == SKY
            assert stream.stream.resumed == len(idle.requests) == 1


async def test_a_generator_writes_an_answer(twin: Twin, server: FakeServer) -> None:
    def write(request: Request) -> Iterator[str]:
        yield f"{request.prompt}:"
        yield " one"
        raise UnavailableError("gone", retry_after=0.01)

    server.reply(write, "Count: one two")
    stream = twin.stream("Count")
    assert (await stream.result()).text == "Count: one two"
    assert stream.stream.resumed == 1


async def test_delays_are_made_and_reported(twin: Twin, server: FakeServer) -> None:
    server.reply(Reply("a b", queue_delay=0.02, first_token_delay=0.03, token_delay=0.04))
    timings = (await twin.stream("Hello").result()).timings
    assert (timings.queue or 0) >= 0.02
    assert (timings.time_to_first_token or 0) >= 0.05
    assert (timings.time_per_output_token or 0) >= 0.04


async def test_a_caller_who_leaves_ends_the_answer(twin: Twin, server: FakeServer) -> None:
    closed = threading.Event()

    def endless(_: Request) -> Reply:
        return Reply(forever(closed), token_delay=0.001)

    server.reply(endless)
    stream = twin.stream("Hello")
    await stream.next()
    await stream.close()
    await asyncio.to_thread(server.wait_idle)
    assert closed.wait(10)


def forever(closed: threading.Event) -> Iterator[str]:
    try:
        while True:
            yield "x"
    finally:
        closed.set()


async def test_a_deadline_ends_the_answer(twin: Twin, server: FakeServer) -> None:
    server.reply(Reply("late", first_token_delay=60))
    with pytest.raises(DeadlineExceededError):
        await twin.generate("Hello", timeout=0.1)
    await asyncio.to_thread(server.wait_idle)


async def test_waiting_for_the_end_of_answers_ends(twin: Twin, server: FakeServer) -> None:
    server.reply(Reply("never ends", token_delay=60))
    stream = twin.stream("Hello")
    await stream.next()
    with pytest.raises(TimeoutError, match="1 answers are still in progress after 0 s"):
        await asyncio.to_thread(server.wait_idle, 0)
    with pytest.raises(RuntimeError, match="blocks the event loop"):
        server.wait_idle()
    await stream.close()


async def test_a_block_is_entered_before_the_first_token(twin: Twin, server: FakeServer) -> None:
    server.reply(Reply("late", first_token_delay=60))
    stream = twin.stream("Hello", request_id="me")
    await stream.enter()
    assert await anext(stream.events()) == StreamStarted(target=server.target, request_id="me")
    await stream.close()


async def test_a_block_is_not_entered_if_the_request_is_refused(twin: Twin, server: FakeServer) -> None:
    server.reply(OverloadedError("full"))
    with pytest.raises(OverloadedError):
        await twin.stream("Hello").enter()


async def test_many_streams_run_at_the_same_time() -> None:
    with FakeServer(Reply(SKY, token_delay=0.01)) as server:
        async with AsyncClient(server.target) as client:
            answers = await asyncio.gather(*(client.stream_generate(str(n)).result() for n in range(200)))
    assert {answer.text for answer in answers} == {SKY}
    assert len(server.requests) == 200
