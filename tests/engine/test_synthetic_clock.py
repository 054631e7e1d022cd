"""The clock, early ends and failures of the synthetic engine."""

import asyncio
import time
from dataclasses import replace

import pytest

from doherty_engine import (
    EngineFailedError,
    EngineRequest,
    FinishReason,
    InvalidInputError,
    RawText,
    Sampling,
    Stopping,
    TokenIds,
    create_engine,
)
from support.engines import EngineLab, running

ENDLESS = Stopping(ignore_eos=True, max_output_tokens=1_000_000)
ROOM = "2000000"


def request(key: str, stopping: Stopping | None = None) -> EngineRequest:
    return EngineRequest(key, RawText("x"), sampling=Sampling(temperature=0.0), stopping=stopping or Stopping())


async def turns(count: int) -> None:
    """Lets the event loop run this many iterations."""
    for _ in range(count):
        await asyncio.sleep(0)


async def test_every_running_request_gets_its_token_in_the_same_sink_call() -> None:
    async with running("synthetic", tokens_per_second="500", answer_tokens="20") as lab:
        keys = [f"{index}" for index in range(64)]
        for key in keys:
            lab.submit(replace(request(key), input=TokenIds((65,))))
        for key in keys:
            await lab.outcome(key)
        assert all([output.key for output in step] == keys for step in lab.steps)
        assert sum(output.token_count for step in lab.steps for output in step) == 64 * 20
        assert len(lab.steps) <= 20


async def test_the_clock_never_runs_ahead() -> None:
    async with running("synthetic", tokens_per_second="1000", answer_tokens="100") as lab:
        begun = time.monotonic()
        lab.submit(request("a"))
        while not lab.is_over("a"):
            seen = len(lab.outputs("a"))
            await lab.until(lambda: len(lab.outputs("a")) > seen)  # noqa: B023 - awaited in the same iteration
            tokens = sum(output.token_count for output in lab.outputs("a"))
            assert tokens <= (time.monotonic() - begun) * 1000 + 1


async def test_a_late_step_does_not_delay_later_ones() -> None:
    async with running("synthetic", tokens_per_second="100", context_tokens=ROOM) as lab:
        lab.submit(request("a", ENDLESS))
        await lab.until(lambda: len(lab.steps) >= 2)
        time.sleep(0.2)  # noqa: ASYNC251 - blocks the loop for 20 steps, which are then due at once
        before = len(lab.steps)
        await turns(15)
        assert len(lab.steps) >= before + 10


async def test_an_idle_engine_schedules_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running("synthetic", tokens_per_second="0", answer_tokens="5") as lab:
        await lab.ask(request("a"))

        def refuse(*_: object) -> None:
            raise AssertionError("an idle engine has scheduled something")

        before = len(lab.steps)
        monkeypatch.setattr(lab.engine, "_schedule", refuse)
        await turns(10)
        assert len(lab.steps) == before


async def test_at_full_speed_the_engine_still_lets_other_tasks_run() -> None:
    async with running("synthetic", tokens_per_second="0", context_tokens=ROOM) as lab:
        handle = lab.submit(request("a", ENDLESS))
        await lab.until(lambda: len(lab.outputs("a")) >= 3)
        handle.abort()
        assert (await lab.outcome("a")).finish.reason is FinishReason.ABORTED


async def test_the_time_of_prefill_depends_on_the_prompt_and_delays_no_other_request() -> None:
    options = {"tokens_per_second": "0", "prefill_tokens_per_second": "100", "answer_tokens": "30"}
    async with running("synthetic", **options) as lab:
        slow = lab.submit(replace(request("slow"), input=TokenIds((65,) * 8000)))
        await lab.until(lambda: bool(lab.outputs("slow")))
        (first,) = lab.outputs("slow")
        assert first.started is not None
        assert first.started.prompt_tokens == 8000
        assert first.token_count == 0
        quick = await lab.ask(replace(request("quick"), input=TokenIds((65,))))
        assert quick.finish.reason is FinishReason.STOP
        assert lab.outputs("slow") == (first,)
        slow.abort()
        outcome = await lab.outcome("slow")
        assert outcome.finish.reason is FinishReason.ABORTED
        assert outcome.finish.output_tokens == 0


async def test_the_time_limit_ends_a_prefill() -> None:
    async with running("synthetic", prefill_seconds="3600") as lab:
        outcome = await lab.ask(request("a", Stopping(ends_at=time.monotonic() + 0.02)))
        assert (outcome.finish.reason, outcome.text) == (FinishReason.TIME_LIMIT, "")


async def test_the_time_limit_ends_an_answer_with_the_text_that_was_held_back() -> None:
    async with running("synthetic", tokens_per_second="0", context_tokens=ROOM) as lab:
        whole = await lab.ask(request("whole", Stopping(ignore_eos=True, max_output_tokens=30_000)))
        # The whole answer may be the beginning of this stop text, and the time limit comes before its end.
        waiting = replace(ENDLESS, stop_texts=(whole.text + "?",), ends_at=time.monotonic() + 0.02)
        limited = await lab.ask(request("limited", waiting))
        assert limited.finish.reason is FinishReason.TIME_LIMIT
        assert limited.finish.output_tokens == limited.token_count == limited.outputs[-1].token_count
        assert whole.text.startswith(limited.text)


async def test_abort_while_tokens_flow_ends_the_text_and_frees_the_slot_before_the_next_step() -> None:
    async with running("synthetic", tokens_per_second="0", slots="1", context_tokens=ROOM) as lab:
        handle = lab.submit(request("a", ENDLESS))
        await lab.until(lambda: len(lab.outputs("a")) > 5)
        handle.abort()
        handle.abort()
        generated = sum(output.token_count for output in lab.outputs("a"))
        outcome = await lab.outcome("a")
        assert outcome.outputs[-1].text == ""
        assert outcome.token_count == generated
        assert outcome.finish.output_tokens >= generated
        assert (await lab.ask(request("b"))).finish.reason is FinishReason.STOP


async def test_abort_before_the_first_step_and_after_the_last() -> None:
    async with running("synthetic", tokens_per_second="0") as lab:
        lab.submit(request("a")).abort()
        outcome = await lab.outcome("a")
        assert (outcome.finish.reason, len(outcome.outputs)) == (FinishReason.ABORTED, 1)
        handle = lab.submit(request("b"))
        await lab.outcome("b")
        handle.abort()
        await lab.ask(request("c"))
        assert (await lab.outcome("b")).finish.reason is FinishReason.STOP


async def test_a_request_without_a_slot_fails_without_affecting_others() -> None:
    async with running("synthetic", tokens_per_second="0", slots="2") as lab:
        for key in "abc":
            lab.submit(request(key))
        assert isinstance((await lab.outcome("c")).error, EngineFailedError)
        assert (await lab.outcome("a")).text == (await lab.outcome("b")).text


async def test_errors_are_delivered_by_the_sink_and_never_raised_by_submit() -> None:
    async with running("synthetic") as lab:
        lab.submit(replace(request("a"), input=TokenIds((10**6,))))
        assert lab.outputs("a") == ()
        assert isinstance((await lab.outcome("a")).error, InvalidInputError)


@pytest.mark.parametrize("per_step", ["1", "4"])
async def test_a_request_can_fail_after_a_number_of_tokens(per_step: str) -> None:
    options = {"tokens_per_second": "0", "fail_after_tokens": "10", "tokens_per_step": per_step}
    async with running("synthetic", **options) as lab:
        outcome = await lab.ask(request("long", Stopping(max_output_tokens=11)))
        assert isinstance(outcome.error, EngineFailedError)
        assert outcome.token_count == 10
        short = await lab.ask(request("short", Stopping(max_output_tokens=10)))
        assert short.finish.reason is FinishReason.LENGTH
        assert lab.engine.health().ok


async def test_the_engine_can_die_after_a_number_of_steps_and_be_restarted() -> None:
    async with running("synthetic", tokens_per_second="0", die_after_steps="10") as lab:
        lab.submit(request("a"))
        lab.submit(request("b"))
        for key in "ab":
            outcome = await lab.outcome(key)
            assert isinstance(outcome.error, EngineFailedError)
            assert outcome.token_count <= 10
        assert not lab.engine.health().ok
        assert "10 steps" in lab.engine.health().detail
        with pytest.raises(EngineFailedError):
            await lab.engine.count_tokens(RawText("x"))
        assert isinstance((await lab.ask(request("c"))).error, EngineFailedError)
        await lab.engine.stop()
        await lab.engine.start(lab.sink)
        assert lab.engine.health().ok
        assert (await lab.ask(request("d", Stopping(max_output_tokens=5)))).token_count == 5


async def test_a_stalled_engine_ignores_everything_until_it_is_stopped() -> None:
    async with running("synthetic", tokens_per_second="0", stall_after_steps="3") as lab:
        handle = lab.submit(request("a"))
        await lab.until(lambda: len(lab.steps) == 3)
        handle.abort()
        lab.submit(request("b"))
        await turns(10)
        assert len(lab.steps) == 3
        assert lab.engine.health().ok
        await lab.engine.stop()
        for key in "ab":
            assert (await lab.outcome(key)).finish.reason is FinishReason.ABORTED


async def test_stop_ends_running_requests() -> None:
    async with running("synthetic", prefill_seconds="3600") as lab:
        lab.submit(request("a"))
        await lab.engine.stop()
        assert (await lab.outcome("a")).finish.reason is FinishReason.ABORTED
        assert isinstance((await lab.ask(request("b"))).error, EngineFailedError)


async def test_the_engine_is_ready_after_its_load_time() -> None:
    engine = create_engine("synthetic", {"load_seconds": "3600"})
    lab = EngineLab(engine)
    loading = asyncio.create_task(engine.start(lab.sink))
    await asyncio.sleep(0)
    assert not engine.health().ok
    loading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await loading
    await engine.stop()
