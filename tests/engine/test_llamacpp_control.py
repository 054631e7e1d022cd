"""Aborts, time limits, room in the KV cache, and stopping the embedded engine."""

import asyncio
import os
import tempfile
import threading
import time
from typing import Any

import pytest

from doherty_engine import EngineFailedError, EngineRequest, FinishReason, RawText, Stopping, TokenIds
from doherty_engine._semaphore import Claim
from support.engines import EngineLab, running
from support.llamacpp import Ask, context_of, llamacpp_request, until_one_waits

pytestmark = [pytest.mark.model, pytest.mark.asyncio(loop_scope="session")]


def endless(tokens: int = 900, **fields: object) -> EngineRequest:
    """Returns a request that needs this many of the 1024 tokens of the KV cache, and 13 for its prompt."""
    return llamacpp_request(stopping=Stopping(max_output_tokens=tokens, ignore_eos=True), **fields)


def has_text(lab: EngineLab, request: EngineRequest) -> bool:
    return any(output.text for output in lab.outputs(request.key))


async def test_abort_while_tokens_arrive(llamacpp_lab: EngineLab, llamacpp_ask: Ask) -> None:
    request = endless()
    handle = llamacpp_lab.submit(request)
    await llamacpp_lab.until(lambda: has_text(llamacpp_lab, request))
    assert llamacpp_lab.engine.health().kv_cache_use == pytest.approx(913 / 1024)
    seen = len(llamacpp_lab.outputs(request.key))
    handle.abort()
    outcome = await llamacpp_lab.outcome(request.key)
    assert len(outcome.outputs) == seen + 1
    assert outcome.finish.reason is FinishReason.ABORTED
    assert 0 < outcome.finish.output_tokens < 900
    assert outcome.outputs[-1].text == ""
    handle.abort()
    assert (await llamacpp_ask()).text == "1. Red\n2. Blue\n3. Green"
    assert llamacpp_lab.engine.health().kv_cache_use == 0


async def test_abort_during_a_long_prompt(llamacpp_lab: EngineLab, llamacpp_ask: Ask) -> None:
    request = llamacpp_request(input=TokenIds((28120, 905, 33) * 300))
    handle = llamacpp_lab.submit(request)
    await llamacpp_lab.until(lambda: bool(llamacpp_lab.outputs(request.key)))
    handle.abort()
    outcome = await llamacpp_lab.outcome(request.key)
    assert outcome.finish.reason is FinishReason.ABORTED
    assert outcome.finish.output_tokens == 0
    assert (await llamacpp_ask(stopping=Stopping(max_output_tokens=1))).text == "1"


async def test_abort_immediately_after_the_start(llamacpp_lab: EngineLab) -> None:
    request = llamacpp_request()
    llamacpp_lab.submit(request).abort()
    outcome = await llamacpp_lab.outcome(request.key)
    assert len(outcome.outputs) == 1
    assert outcome.finish.reason is FinishReason.ABORTED


async def test_requests_wait_for_room_first_come_first_served(llamacpp_lab: EngineLab) -> None:
    large, second, third = endless(), endless(200), endless(2)

    async def some_tokens_later() -> None:
        seen = len(llamacpp_lab.outputs(large.key))
        await llamacpp_lab.until(lambda: len(llamacpp_lab.outputs(large.key)) > seen + 10)

    handle = llamacpp_lab.submit(large)
    await some_tokens_later()
    second_handle = llamacpp_lab.submit(second)
    await until_one_waits(context_of(llamacpp_lab).kv_cache)
    llamacpp_lab.submit(third)
    await some_tokens_later()
    # The third request would fit, but the second one came first.
    assert not llamacpp_lab.outputs(second.key)
    assert not llamacpp_lab.outputs(third.key)
    handle.abort()
    outcome = await llamacpp_lab.outcome(third.key)
    assert outcome.started.queue > 0
    assert outcome.finish.output_tokens == 2
    # The third request got its room after the second one, but may be the first to be prefilled.
    await llamacpp_lab.until(lambda: bool(llamacpp_lab.outputs(second.key)))
    second_handle.abort()
    await llamacpp_lab.outcome(second.key)


async def test_requests_that_wait_for_room_can_be_aborted_or_exceed_their_time_limit(llamacpp_lab: EngineLab) -> None:
    large = endless()
    running_handle = llamacpp_lab.submit(large)
    await llamacpp_lab.until(lambda: has_text(llamacpp_lab, large))
    aborted = endless(200)
    limited = llamacpp_request(stopping=Stopping(max_output_tokens=200, ends_at=time.monotonic() + 0.3))
    handle = llamacpp_lab.submit(aborted)
    llamacpp_lab.submit(limited)
    handle.abort()
    assert (await llamacpp_lab.outcome(aborted.key)).finish.reason is FinishReason.ABORTED
    outcome = await llamacpp_lab.outcome(limited.key)
    assert (outcome.finish.reason, outcome.token_count) == (FinishReason.TIME_LIMIT, 0)
    assert outcome.started.queue > 0
    assert not llamacpp_lab.is_over(large.key)
    running_handle.abort()
    await llamacpp_lab.outcome(large.key)


async def test_a_time_limit_ends_an_answer_with_its_part(llamacpp_lab: EngineLab) -> None:
    stopping = Stopping(max_output_tokens=900, ignore_eos=True, ends_at=time.monotonic() + 3)
    outcome = await llamacpp_lab.ask(llamacpp_request(stopping=stopping, input=RawText("One, two,")))
    assert outcome.finish.reason is FinishReason.TIME_LIMIT
    assert 0 < outcome.finish.output_tokens == outcome.token_count < 900
    assert outcome.text


async def test_the_prompt_cache_is_reported_and_makes_room_if_needed() -> None:
    async with running("llamacpp", context_tokens="256", slots="2") as lab:
        first = await lab.ask(llamacpp_request(stopping=Stopping(max_output_tokens=2)))
        again = await lab.ask(llamacpp_request(stopping=Stopping(max_output_tokens=2)))
        assert again.finish.cached_tokens == first.started.prompt_tokens - 1
        assert again.text == first.text
        # The default maximum shrinks to the room in the context, and the idle slot's part of the KV cache must be
        # evicted.
        prompt = TokenIds((28120,) * 250)
        filled = await lab.ask(llamacpp_request(input=prompt, stopping=Stopping(ignore_eos=True)))
        assert filled.finish.output_tokens == 6
        assert filled.finish.reason is FinishReason.LENGTH


async def test_stop_ends_everything_and_leaves_no_threads_or_files(monkeypatch: pytest.MonkeyPatch) -> None:
    others = {thread for thread in threading.enumerate() if thread.name.startswith("llamacpp")}
    with tempfile.TemporaryDirectory() as home:
        monkeypatch.setattr(tempfile, "tempdir", home)
        async with running("llamacpp", context_tokens="512", slots="2") as lab:
            (folder,) = os.scandir(home)
            assert folder.stat().st_mode & 0o077 == 0
            assert lab.engine.health().ok
            request = endless(400)
            lab.submit(request)
            await lab.until(lambda: has_text(lab, request))
            await lab.engine.stop()
            assert lab.is_over(request.key)
            assert (await lab.outcome(request.key)).finish.reason is FinishReason.ABORTED
            assert not lab.engine.health().ok
            with pytest.raises(EngineFailedError):
                await lab.engine.count_tokens(RawText("x"))
            late = await lab.ask(llamacpp_request())
            assert isinstance(late.error, EngineFailedError)
        assert not list(os.scandir(home))
    assert {thread for thread in threading.enumerate() if thread.name.startswith("llamacpp")} == others


async def test_aborts_and_time_limits_work_while_waiting_for_other_prompts(llamacpp_lab: EngineLab) -> None:
    def long(seed: int, **stopping: Any) -> EngineRequest:
        prompt = TokenIds(tuple(1000 + (seed * 7 + index) % 5000 for index in range(400)))
        return llamacpp_request(input=prompt, stopping=Stopping(max_output_tokens=1, **stopping))

    turn, other = context_of(llamacpp_lab).prompt_turn, Claim("another prompt", 0.0, 0)
    turn.reserve(1, other, until=None, is_cancelled=lambda: False)
    try:
        aborted = long(1)
        handle = llamacpp_lab.submit(aborted)
        await until_one_waits(turn)
        handle.abort()
        assert (await llamacpp_lab.outcome(aborted.key)).finish.reason is FinishReason.ABORTED
        outcome = await llamacpp_lab.ask(long(2, ends_at=time.monotonic() + 0.2))
        assert (outcome.finish.reason, outcome.token_count) == (FinishReason.TIME_LIMIT, 0)
        assert outcome.started.queue > 0
    finally:
        turn.release(1, other)
    assert (await llamacpp_lab.ask(long(3))).finish.output_tokens == 1


async def test_the_engine_can_stop_while_tokens_are_counted() -> None:
    """llama.cpp would otherwise wait until its answer is fetched, which nobody does."""
    async with running("llamacpp", context_tokens="8192") as lab:
        text = RawText("hello world " * 30_000)
        counts = [asyncio.create_task(lab.engine.count_tokens(text)) for _ in range(3)]
        await asyncio.sleep(0)  # lets them start
        await lab.engine.stop()
        for outcome in await asyncio.gather(*counts, return_exceptions=True):
            assert isinstance(outcome, int | EngineFailedError)
