"""A request's way to the engine and back, without a server around it."""

import asyncio
import time
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
from doherty_service._answers import Answers
from doherty_service._errors import OverloadedError
from doherty_service._generations import Generations
from doherty_service.admission import Priority, Ticket
from doherty_service.latency import Call, LatencyRecorder

QUESTION = Conversation((Message(Role.USER, "Hello"),))
TICKET = Ticket(Priority.INTERACTIVE, 1, lambda: 0)


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    engine = create_engine("synthetic", {"slots": "1"})
    yield engine
    await engine.stop()


@pytest.fixture
async def generations(engine: Engine) -> Generations:
    answers = Answers()
    await engine.start(answers.sink)
    generations = Generations(LatencyRecorder(60), max_queued=0, max_queued_bytes=0)
    generations.begin(engine, answers)
    return generations


def asked(key: str, tokens: int) -> EngineRequest:
    return EngineRequest(key, QUESTION, stopping=Stopping(max_output_tokens=tokens))


async def test_an_engine_that_fails_at_a_request_before_it_has_begun_keeps_no_slot(
    generations: Generations, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def submit(_: EngineRequest) -> NoReturn:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(engine, "submit", submit)
    call = Call(method="/doherty.v1.GenerationService/Generate", key="a", request_id="a")
    with pytest.raises(RuntimeError):
        async with generations.open(asked("a", 1), TICKET, call):
            pass
    assert (generations.load().running, generations.in_flight) == (0, 0)


async def test_any_number_of_time_limits_may_end_in_the_queue(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = Answers()
    await engine.start(answers.sink)
    generations = Generations(LatencyRecorder(60), max_queued=20, max_queued_bytes=20)
    generations.begin(engine, answers)
    all_count = asyncio.Barrier(20)

    async def count_tokens(_: Input) -> int:
        await all_count.wait()
        return 1

    monkeypatch.setattr(engine, "count_tokens", count_tokens)

    async def ask(number: int) -> FinishReason | None:
        call = Call(method="/doherty.v1.GenerationService/Generate", key=str(number), request_id="a")
        stopping = Stopping(ends_at=time.monotonic() + 0.01)
        async with generations.open(EngineRequest(call.key, QUESTION, stopping=stopping), TICKET, call) as reader:
            finish = (await reader.next()).finish
        return None if finish is None else finish.reason

    call = Call(method="/doherty.v1.GenerationService/Generate", key="a", request_id="a")
    async with generations.open(asked("a", 4000), TICKET, call):
        reasons = await asyncio.gather(*map(ask, range(20)))
    assert reasons == [FinishReason.TIME_LIMIT] * 20


async def test_canaries_say_nothing_of_how_long_answers_take(generations: Generations) -> None:
    canary = Call(method="canary", key="canary", request_id="canary")
    async with generations.open(asked("canary", 1), TICKET, canary) as reader:
        while (await reader.next()).finish is None:
            pass
    call = Call(method="/doherty.v1.GenerationService/Generate", key="a", request_id="a")
    async with generations.open(asked("a", 1000), TICKET, call):
        with pytest.raises(OverloadedError) as refused:
            async with generations.open(asked("b", 1000), TICKET, call):
                pass
    assert refused.value.retry_after is not None
    assert refused.value.retry_after > 0.5  # near the first guess, a second, and not a canary's few milliseconds
