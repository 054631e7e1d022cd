"""How requests of the vLLM engine end before their time, and the engine itself, on a stand-in for vLLM."""

import time
from pathlib import Path

import pytest

from doherty_engine import Conversation, EngineFailedError, FinishReason, Stopping
from support.hugging_face import user
from support.vllm import VllmLab, until, vllm_lab, vllm_request

ENDLESS = Stopping(max_output_tokens=8000, ignore_eos=True)


async def running_request(vllm: VllmLab, stopping: Stopping = ENDLESS) -> tuple[str, object]:
    request = vllm_request(stopping=stopping)
    handle = vllm.lab.submit(request)
    await vllm.lab.until(lambda: bool(vllm.lab.outputs(request.key)))
    return request.key, handle


@pytest.mark.parametrize("logprobs", [None, 2])
async def test_an_abort_is_the_next_output_and_reaches_vllm(tmp_path: Path, logprobs: int | None) -> None:
    async with vllm_lab(tmp_path) as vllm:
        request = vllm_request(stopping=ENDLESS, top_logprobs=logprobs)
        handle = vllm.lab.submit(request)
        await vllm.lab.until(lambda: bool(vllm.lab.outputs(request.key)))
        handle.abort()
        given = len(vllm.lab.outputs(request.key))
        outcome = await vllm.lab.outcome(request.key)
        assert len(outcome.outputs) == given + 1
        assert (outcome.outputs[-1].text, outcome.finish.reason) == ("", FinishReason.ABORTED)
        await vllm.until_dropped(request.key)
        handle.abort()
        assert (await vllm.ask()).finish.reason is FinishReason.STOP


async def test_an_abort_before_vllm_has_the_request(tmp_path: Path) -> None:
    async with vllm_lab(tmp_path, max_model_len="8000") as vllm:
        long = vllm_request(input=Conversation((user("Hello " * 1500),)))  # is read in a thread
        short = vllm_request()
        for request in (long, short):
            vllm.lab.submit(request).abort()
        for request in (long, short):
            outcome = await vllm.lab.outcome(request.key)
            assert [output.finish and output.finish.reason for output in outcome.outputs] == [FinishReason.ABORTED]
        assert (await vllm.ask()).finish.reason is FinishReason.STOP


async def test_a_time_limit_ends_with_what_there_is(tmp_path: Path) -> None:
    async with vllm_lab(tmp_path) as vllm:
        request = vllm_request(stopping=Stopping(8000, ignore_eos=True, ends_at=time.monotonic() + 0.05))
        outcome = await vllm.lab.ask(request)
        assert outcome.finish.reason is FinishReason.TIME_LIMIT
        assert outcome.finish.output_tokens == outcome.token_count
        await vllm.until_dropped(request.key)
        over = await vllm.ask(stopping=Stopping(ends_at=time.monotonic()))
        assert (over.text, over.finish.reason) == ("", FinishReason.TIME_LIMIT)
        assert over.started.prompt_tokens == outcome.started.prompt_tokens


async def test_a_time_limit_runs_out_while_vllm_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with vllm_lab(tmp_path) as vllm:
        monkeypatch.setattr(vllm.llm.engine_core, "pace", 3600.0)
        outcome = await vllm.ask(stopping=Stopping(ends_at=time.monotonic() + 0.05))
        assert (outcome.text, outcome.finish.reason) == ("", FinishReason.TIME_LIMIT)


async def test_the_death_of_vllm_ends_every_request_at_once(tmp_path: Path) -> None:
    async with vllm_lab(tmp_path) as vllm:
        keys = [(await running_request(vllm))[0] for _ in range(3)]
        vllm.llm.kill()
        for key in keys:
            error = (await vllm.lab.outcome(key)).error
            assert isinstance(error, EngineFailedError)
            assert "EngineCore encountered an issue" in str(error)
        assert [len(step) for step in vllm.lab.steps if any(output.error for output in step)] == [3]
        health = vllm.lab.engine.health()
        assert not health.ok
        assert "its own log says why" in health.detail
        assert isinstance((await vllm.ask()).error, EngineFailedError)


async def test_the_death_of_vllm_without_any_request_is_seen(tmp_path: Path) -> None:
    async with vllm_lab(tmp_path) as vllm:
        vllm.llm.kill()
        await until(lambda: not vllm.lab.engine.health().ok)


async def test_stopping_ends_what_runs_and_may_be_repeated(tmp_path: Path) -> None:
    async with vllm_lab(tmp_path) as vllm:
        key, _ = await running_request(vllm)
        await vllm.lab.engine.stop()
        assert (await vllm.lab.outcome(key)).finish.reason is FinishReason.ABORTED
        assert vllm.llm.errored
        assert not vllm.lab.engine.health().ok
        await vllm.lab.engine.stop()
        assert isinstance((await vllm.ask()).error, EngineFailedError)
        with pytest.raises(EngineFailedError, match="not running"):
            await vllm.lab.engine.count_tokens(Conversation((user("Hi"),)))


async def test_more_requests_than_slots_wait_in_vllm_and_tell_it(tmp_path: Path) -> None:
    async with vllm_lab(tmp_path, slots="1") as vllm:
        assert vllm.lab.engine.info().slots == 1
        stopping = Stopping(max_output_tokens=10, ignore_eos=True)
        first, second = vllm_request(stopping=stopping), vllm_request(stopping=stopping)
        for request in (first, second):
            vllm.lab.submit(request)
        queues = [(await vllm.lab.outcome(request.key)).started.queue for request in (first, second)]
        assert queues[1] > queues[0]
