"""The path of a request to the engine and back, without a server."""

import asyncio
import time
import traceback
from collections.abc import AsyncIterator
from typing import NoReturn

import pytest

from doherty_engine import (
    Conversation,
    Engine,
    EngineRequest,
    FinishReason,
    Input,
    Message,
    Role,
    Stopping,
    create_engine,
)
from doherty_service._errors import OverloadedError, UnavailableError
from doherty_service.admission import Priority, QueueBounds, Ticket
from doherty_service.generation import EngineSession, Generations, WholeAnswer
from doherty_service.security import ANYBODY
from doherty_service.telemetry import LatencyRecorder, RequestRecord

QUESTION = Conversation((Message(Role.USER, "Hello"),))


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    engine = create_engine("synthetic", {"slots": "1"})
    yield engine
    await engine.stop()


async def started(engine: Engine, *, max_queued: int) -> Generations:
    recorder = LatencyRecorder(60)
    session = EngineSession(engine, recorder)
    await engine.start(session.sink)
    generations = Generations(recorder, QueueBounds(max_queued, max_queued, 1000.0))
    generations.begin(session)
    return generations


@pytest.fixture
async def generations(engine: Engine) -> Generations:
    return await started(engine, max_queued=0)


def admitted_answer(
    generations: Generations, key: str, *, method: str = "Generate", tokens: int = 1, ends_at: float | None = None
) -> WholeAnswer:
    answer = WholeAnswer(RequestRecord(f"/doherty.v1.GenerationService/{method}", key, key, ANYBODY))
    stopping = Stopping(max_output_tokens=tokens, ends_at=ends_at)
    answer.request, answer.model = EngineRequest(key, QUESTION, stopping=stopping), generations.model()
    answer.ticket = Ticket(Priority.INTERACTIVE, 1, max_tokens=tokens, whole=True)
    return answer


async def serve(generations: Generations, answer: WholeAnswer) -> FinishReason | None:
    generations.begin_answer(answer)
    try:
        await generations.serve(answer)
        finish = answer.output().finish
        return None if finish is None else finish.reason
    finally:
        generations.end_answer(answer)


async def test_a_request_that_the_engine_cannot_begin_frees_its_slot(
    generations: Generations, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def submit(_: EngineRequest) -> NoReturn:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(engine, "submit", submit)
    with pytest.raises(RuntimeError):
        await serve(generations, admitted_answer(generations, "a"))
    assert (generations.load().running, generations.in_flight) == (0, 0)


async def test_an_abort_that_raises_keeps_nothing_in_flight(
    generations: Generations, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Handle:
        def abort(self) -> NoReturn:
            raise RuntimeError("abort failed")

    monkeypatch.setattr(engine, "submit", lambda _: Handle())
    task = asyncio.create_task(serve(generations, admitted_answer(generations, "a")))
    await asyncio.sleep(0)  # lets it run as far as it can
    assert generations.in_flight == 1
    task.cancel()
    with pytest.raises(RuntimeError, match="abort failed"):
        await task
    assert generations.in_flight == 0


async def test_an_output_that_cannot_be_delivered_ends_only_its_answer() -> None:
    generations = await started(create_engine("synthetic", {"slots": "2"}), max_queued=0)
    broken, sound = admitted_answer(generations, "broken"), admitted_answer(generations, "sound")
    tasks = [asyncio.create_task(serve(generations, answer)) for answer in (broken, sound)]
    broken.deliver = lambda: 1 / 0  # type: ignore[method-assign, assignment]
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(results[0], ZeroDivisionError)
    assert results[1] is FinishReason.LENGTH


async def test_any_number_of_time_limits_may_end_in_the_queue(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    generations = await started(engine, max_queued=20)
    all_count = asyncio.Barrier(20)

    async def count_tokens(_: Input) -> int:
        await all_count.wait()
        return 1

    monkeypatch.setattr(engine, "count_tokens", count_tokens)
    running = asyncio.create_task(serve(generations, admitted_answer(generations, "a", tokens=4000)))
    await asyncio.sleep(0)  # lets it get the slot
    ends_at = time.monotonic() + 0.01
    reasons = await asyncio.gather(
        *(serve(generations, admitted_answer(generations, str(number), ends_at=ends_at)) for number in range(20))
    )
    assert reasons == [FinishReason.TIME_LIMIT] * 20
    running.cancel()


async def test_each_request_of_a_lost_engine_gets_its_own_error(engine: Engine) -> None:
    """Each raise adds frames to an exception, so a shared one would keep all requests in memory."""
    generations = await started(engine, max_queued=50)
    answers = [admitted_answer(generations, str(number), tokens=4000) for number in range(50)]
    tasks = [asyncio.create_task(serve(generations, answer)) for answer in answers]
    await asyncio.sleep(0)  # lets them reach the queue
    assert (generations.load().running, generations.load().queued) == (1, 49)
    lost = UnavailableError("ENGINE_FAILED", "it is gone", retry_after=1)
    generations.lose_engine(lost, lost)
    tasks += [
        asyncio.create_task(serve(generations, admitted_answer(generations, f"late {number}"))) for number in range(50)
    ]
    errors = await asyncio.gather(*tasks, return_exceptions=True)
    assert len({id(error) for error in errors}) == len(errors) == 100
    for error in errors:
        assert isinstance(error, UnavailableError)
        assert (error.reason, str(error), error.retry_after) == ("ENGINE_FAILED", "it is gone", 1)
        assert len(traceback.extract_tb(error.__traceback__)) < 10
    assert lost.__traceback__ is None


async def test_canaries_do_not_affect_the_estimates(generations: Generations) -> None:
    await serve(generations, admitted_answer(generations, "canary", method="canary"))
    running = asyncio.create_task(serve(generations, admitted_answer(generations, "a", tokens=1000)))
    await asyncio.sleep(0)  # lets it get the slot
    with pytest.raises(OverloadedError) as refused:
        await serve(generations, admitted_answer(generations, "b", tokens=1000))
    assert refused.value.retry_after is not None
    assert refused.value.retry_after > 0.5  # close to the first guess, a second, and not to a canary's few milliseconds
    running.cancel()
