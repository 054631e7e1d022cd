"""Answers of TensorRT-LLM that end early: aborted, out of time, failed, or with a dead worker."""

import asyncio
import time
from dataclasses import replace

import pytest

from doherty_engine import (
    Choices,
    EngineFailedError,
    FinishReason,
    InvalidInputError,
    RawText,
    Stopping,
    TokenIds,
    UnsupportedError,
)
from support.gpu import FakeGpu
from support.trtllm import BASE, ENDLESS, Start


@pytest.mark.parametrize("logprobs", [None, 2], ids=["plain", "logprobs"])
@pytest.mark.parametrize("kind", ["tensorrt", "pytorch"])
async def test_an_abort_ends_with_the_message_that_it_is_cancelled(
    trtllm: Start, kind: str, logprobs: int | None
) -> None:
    async with trtllm(kind, tokens_per_second=50) as lab:
        handle = lab.submit(replace(ENDLESS, top_logprobs=logprobs))
        await lab.until(lambda: len(lab.outputs("endless")) > 2)
        handle.abort()
        handle.abort()
        outcome = await lab.outcome("endless")
        assert outcome.finish.reason is FinishReason.ABORTED
        assert lab.engine.health().ok
        assert (await lab.ask(BASE)).finish.reason is FinishReason.STOP


async def test_an_abort_before_the_first_token(trtllm: Start) -> None:
    async with trtllm("pytorch", prefill_tokens_per_second=100, tokens_per_second=100) as lab:
        for key, content in (("reading", TokenIds((5,) * 4000)), ("long", RawText("word " * 1200))):
            handle = lab.submit(replace(BASE, key=key, input=content))
            await asyncio.sleep(0)
            handle.abort()
            assert (await lab.outcome(key)).finish.reason is FinishReason.ABORTED


async def test_a_time_limit(trtllm: Start) -> None:
    async with trtllm("pytorch", tokens_per_second=50) as lab:
        limit = Stopping(max_output_tokens=4000, ignore_eos=True, ends_at=time.monotonic() + 0.2)
        outcome = await lab.ask(replace(ENDLESS, stopping=limit))
        assert outcome.finish.reason is FinishReason.TIME_LIMIT
        assert 0 < outcome.finish.output_tokens < 4000


async def test_one_request_that_fails_is_not_the_engines_end(trtllm: Start) -> None:
    async with trtllm("pytorch", fail_after_tokens=5) as lab:
        failed = await lab.ask(ENDLESS)
        assert isinstance(failed.error, EngineFailedError)
        assert "illegal memory" in str(failed.error)
        assert lab.engine.health().ok


@pytest.mark.parametrize("kind", [TypeError, ValueError])
async def test_what_it_does_not_take_is_the_requests_mistake(
    trtllm: Start, monkeypatch: pytest.MonkeyPatch, kind: type[Exception]
) -> None:
    async with trtllm("pytorch", tokens_per_second=100) as lab:
        running = lab.submit(replace(ENDLESS, key="running"))
        await lab.until(lambda: len(lab.outputs("running")) > 1)

        def refuse(*_: object) -> None:
            raise kind("The sum of prompt length and query length is too large\nand more")

        with monkeypatch.context() as patch:
            patch.setattr(lab.engine._context.llm, "_check_arguments", refuse)  # type: ignore[attr-defined]  # noqa: SLF001
            plain = (await lab.ask(BASE)).error
            bound = (await lab.ask(replace(BASE, key="bound", constraint=Choices(("a",))))).error
        assert isinstance(plain, InvalidInputError)
        assert isinstance(bound, InvalidInputError)
        assert (plain.field, bound.field) == ("messages", "constraint.choices")
        assert str(plain).endswith("TensorRT-LLM refuses it: The sum of prompt length and query length is too large")
        assert lab.engine.health().ok
        running.abort()
        assert (await lab.outcome("running")).finish.reason is FinishReason.ABORTED


async def test_a_constraint_that_compiles_for_ever_is_refused(trtllm: Start) -> None:
    async with trtllm("pytorch", tokens_per_second=100) as lab:
        running = lab.submit(replace(ENDLESS, key="running"))
        late = (await lab.ask(replace(BASE, key="late", constraint=Choices(("endless",))))).error
        assert isinstance(late, UnsupportedError)
        assert (late.field, str(late)) == ("constraint.choices", "it takes longer than 1 s to compile")
        assert (await lab.ask(replace(BASE, key="good", constraint=Choices(("a",))))).text == "a"
        running.abort()
        assert (await lab.outcome("running")).finish.reason is FinishReason.ABORTED


async def test_the_process_that_tries_constraints_is_started_again(trtllm: Start) -> None:
    async with trtllm("pytorch") as lab:
        process = lab.engine._context.grammars._process  # type: ignore[attr-defined]  # noqa: SLF001
        process.kill()
        process.wait()
        assert (await lab.ask(replace(BASE, key="good", constraint=Choices(("a",))))).text == "a"


async def test_a_request_reads_no_file(trtllm: Start, gpu: FakeGpu) -> None:
    async with trtllm("tensorrt") as lab:
        for file in (gpu.folder / "engines").glob("*/config.json"):
            file.unlink()
        assert (await lab.ask(BASE)).finish.reason is FinishReason.STOP


async def test_an_engine_that_dies_knows_it(trtllm: Start) -> None:
    async with trtllm("pytorch", die_after_steps=40, tokens_per_second=200) as lab:
        failed = await lab.ask(ENDLESS)
        assert isinstance(failed.error, EngineFailedError)
        assert "MPI_ABORT" in lab.engine.health().detail


async def test_its_own_health_check_is_used(trtllm: Start) -> None:
    async with trtllm("pytorch", unwell_after_steps=40) as lab:
        assert lab.engine.health().ok
        await lab.ask(replace(ENDLESS, stopping=Stopping(max_output_tokens=80, ignore_eos=True)))
        assert "unhealthy" in lab.engine.health().detail


async def test_an_answer_that_it_cancels_by_itself_is_a_failure(trtllm: Start) -> None:
    async with trtllm("pytorch", own_cancel_after_tokens=30) as lab:
        failed = await lab.ask(ENDLESS)
        assert "'cancelled'" in str(failed.error)


async def test_a_cancelled_request_that_never_ends_is_the_engines_end(
    trtllm: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At 1.2.x a request whose worker has died waits for ever."""
    monkeypatch.setattr("doherty_engine.trtllm._request._CANCEL_SECONDS", 0.1)
    async with trtllm("pytorch", hang_after_steps=40, tokens_per_second=200) as lab:
        handle = lab.submit(ENDLESS)
        await lab.until(lambda: len(lab.outputs("endless")) > 2)
        worker = lab.engine._context.llm._worker  # type: ignore[attr-defined]  # noqa: SLF001
        while worker.steps < 40:  # noqa: ASYNC110 - it is a thread, and tells nobody
            await asyncio.sleep(0.01)
        assert lab.engine.health().ok
        handle.abort()
        while lab.engine.health().ok:  # noqa: ASYNC110 - as the supervisor does
            await asyncio.sleep(0.01)
        assert "has not ended" in lab.engine.health().detail
    assert lab.outputs("endless")[-1].finish is not None  # told when it was stopped


async def test_it_can_be_stopped_twice_and_says_that_it_is(trtllm: Start) -> None:
    async with trtllm("pytorch", tokens_per_second=50) as lab:
        lab.submit(ENDLESS)
        await lab.until(lambda: len(lab.outputs("endless")) > 1)
        await lab.engine.stop()
        assert (await lab.outcome("endless")).finish.reason is FinishReason.ABORTED
        assert isinstance((await lab.ask(BASE)).error, EngineFailedError)
        assert not lab.engine.health().ok
        with pytest.raises(EngineFailedError):
            await lab.engine.count_tokens(RawText("a"))
