"""Answers of TensorRT-LLM that end early: by an abort, a time limit, a failure, or the death of a worker."""

import asyncio
import time
from dataclasses import replace

import pytest

from doherty_engine import (
    Choices,
    EngineFailedError,
    FinishReason,
    InvalidInputError,
    JsonSchema,
    RawText,
    Stopping,
    TokenIds,
    UnsupportedError,
)
from support.gpu import FakeGpu
from support.trtllm import BASE, ENDLESS, Start


@pytest.mark.parametrize("logprobs", [None, 2], ids=["plain", "logprobs"])
@pytest.mark.parametrize("kind", ["tensorrt", "pytorch"])
async def test_a_request_that_is_aborted_twice_ends_as_aborted_and_the_engine_continues(
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


async def test_a_request_can_be_aborted_before_its_first_token(trtllm: Start) -> None:
    async with trtllm("pytorch", prefill_tokens_per_second=100, tokens_per_second=100) as lab:
        for key, content in (("reading", TokenIds((5,) * 4000)), ("long", RawText("word " * 1200))):
            handle = lab.submit(replace(BASE, key=key, input=content))
            await asyncio.sleep(0)
            handle.abort()
            assert (await lab.outcome(key)).finish.reason is FinishReason.ABORTED


async def test_a_time_limit_ends_an_answer(trtllm: Start) -> None:
    async with trtllm("pytorch", tokens_per_second=50) as lab:
        limit = Stopping(max_output_tokens=4000, ignore_eos=True, ends_at=time.monotonic() + 2)
        outcome = await lab.ask(replace(ENDLESS, stopping=limit))
        assert outcome.finish.reason is FinishReason.TIME_LIMIT
        assert 0 < outcome.finish.output_tokens < 4000


async def test_a_failed_request_does_not_end_the_engine(trtllm: Start) -> None:
    async with trtllm("pytorch", fail_after_tokens=5) as lab:
        failed = await lab.ask(ENDLESS)
        assert isinstance(failed.error, EngineFailedError)
        assert "illegal memory" in str(failed.error)
        assert lab.engine.health().ok


@pytest.mark.parametrize("kind", [TypeError, ValueError])
async def test_a_request_that_the_library_refuses_is_invalid(
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


async def test_a_constraint_that_compiles_forever_is_refused(trtllm: Start) -> None:
    async with trtllm("pytorch", tokens_per_second=100) as lab:
        running = lab.submit(replace(ENDLESS, key="running"))
        late = (await lab.ask(replace(BASE, key="late", constraint=Choices(("endless",))))).error
        assert isinstance(late, UnsupportedError)
        assert (late.field, str(late)) == ("constraint.choices", "it takes longer than 1 s to compile")
        assert (await lab.ask(replace(BASE, key="good", constraint=Choices(("a",))))).text == "a"
        running.abort()
        assert (await lab.outcome("running")).finish.reason is FinishReason.ABORTED


async def test_a_schema_is_compiled_once_and_without_white_space(trtllm: Start) -> None:
    async with trtllm("pytorch") as lab:
        grammars = lab.engine._context.grammars  # type: ignore[attr-defined]  # noqa: SLF001
        form = replace(BASE, constraint=JsonSchema('{"enum":[[1,2]]}'))
        assert [(await lab.ask(replace(form, key=key))).text for key in ("first", "second")] == ["[1,2]"] * 2
        of_schemas = [known.grammar for (kind, _), known in grammars._valid.items() if kind == "json"]  # noqa: SLF001
        # the fake's grammar for a schema without white space
        assert [grammar.partition(": ")[0] for grammar in of_schemas] == ["# JSON without white space"]


async def test_the_process_that_checks_constraints_is_restarted(trtllm: Start) -> None:
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


async def test_a_dead_engine_reports_it(trtllm: Start) -> None:
    async with trtllm("pytorch", die_after_steps=40, tokens_per_second=200) as lab:
        failed = await lab.ask(ENDLESS)
        assert isinstance(failed.error, EngineFailedError)
        assert "MPI_ABORT" in lab.engine.health().detail


async def test_the_health_check_of_the_library_is_used(trtllm: Start) -> None:
    async with trtllm("pytorch", unwell_after_steps=40) as lab:
        assert lab.engine.health().ok
        await lab.ask(replace(ENDLESS, stopping=Stopping(max_output_tokens=80, ignore_eos=True)))
        assert "unhealthy" in lab.engine.health().detail


async def test_an_answer_that_the_engine_cancels_by_itself_is_a_failure(trtllm: Start) -> None:
    async with trtllm("pytorch", own_cancel_after_tokens=30) as lab:
        failed = await lab.ask(ENDLESS)
        assert "'cancelled'" in str(failed.error)


async def test_a_cancelled_request_that_never_ends_makes_the_engine_unhealthy(
    trtllm: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In 1.2.x, a request waits forever if its worker has died."""
    monkeypatch.setattr("doherty_engine.trtllm._request._CANCEL_SECONDS", 0.1)
    async with trtllm("pytorch", hang_after_steps=40, tokens_per_second=200) as lab:
        handle = lab.submit(ENDLESS)
        await lab.until(lambda: len(lab.outputs("endless")) > 2)
        worker = lab.engine._context.llm._worker  # type: ignore[attr-defined]  # noqa: SLF001
        while worker.steps < 40:  # noqa: ASYNC110 - the thread has no event
            await asyncio.sleep(0.01)
        assert lab.engine.health().ok
        handle.abort()
        while lab.engine.health().ok:  # noqa: ASYNC110 - the supervisor polls, too
            await asyncio.sleep(0.01)
        assert "has not ended" in lab.engine.health().detail
    assert lab.outputs("endless")[-1].finish is not None  # delivered when the engine was stopped


async def test_the_engine_can_be_stopped_twice_and_reports_that_it_is_stopped(trtllm: Start) -> None:
    async with trtllm("pytorch", tokens_per_second=50) as lab:
        lab.submit(ENDLESS)
        await lab.until(lambda: len(lab.outputs("endless")) > 1)
        await lab.engine.stop()
        assert (await lab.outcome("endless")).finish.reason is FinishReason.ABORTED
        assert isinstance((await lab.ask(BASE)).error, EngineFailedError)
        assert not lab.engine.health().ok
        with pytest.raises(EngineFailedError):
            await lab.engine.count_tokens(RawText("a"))
