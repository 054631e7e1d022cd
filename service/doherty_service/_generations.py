"""The way of one request through the server: admission, engine, answer, and the abort that is never forgotten."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial

from doherty_engine import (
    Engine,
    EngineRequest,
    Finish,
    FinishReason,
    HeldPart,
    Input,
    ModelInfo,
    RawText,
    Started,
    StepOutput,
    output_budget,
)
from doherty_service._admission import Admission, Priority
from doherty_service._answers import Answer, Answers
from doherty_service._errors import OverloadedError, UnavailableError
from doherty_service.latency import Call

_RETRY_SECONDS = 1.0
"""When to try again while the model is loaded or the server goes away."""

_LAST_WORDS_SECONDS = 1.0
"""How long those have who are told that the server shuts down."""

_MOST_COUNTING = 8
"""Inputs at a time that are only counted; tokenizing is the work of a thread."""


@dataclass(frozen=True, slots=True)
class Ticket:
    """What admission needs to know of a request."""

    priority: Priority
    size: int
    """In bytes."""


class Reader:
    """One answer as its servicer reads it: each part leaves its marks on the call."""

    def __init__(self, answer: Answer, call: Call) -> None:
        """Reads `answer`, for `call`."""
        self._answer = answer
        self._call = call

    async def next(self) -> StepOutput:
        """Waits for the next part, which is the last one when it has `finish`.

        Raises:
            EngineError: the engine could not complete the answer.
            UnavailableError: the server is shut down.
        """
        output = await self._answer.next()
        call = self._call
        if output.started is not None:
            call.mark_started(output.started.prompt_tokens, output.started.preprocess, output.started.queue)
        if output.token_count:
            call.mark_tokens(output.token_count)
        if output.finish is not None:
            call.mark_summary(output.finish.reason.value)
        return output


class Generations:
    """Everything that is being generated, and whether more may come."""

    def __init__(self, engine: Engine, *, max_queued: int, max_queued_bytes: int) -> None:
        """Takes nothing in until `start` has returned."""
        self._engine = engine
        self._max_queued = max_queued
        self._max_queued_bytes = max_queued_bytes
        self._answers = Answers()
        self._admission: Admission | None = None
        self._draining = False
        self._counting = 0
        self.in_flight = 0
        """How many requests run or wait."""
        self._idle = asyncio.Event()
        self._idle.set()

    async def start(self) -> None:
        """Starts the engine, and then takes requests in.

        Raises:
            EngineSetupError: the engine cannot start.
        """
        await self._engine.start(self._answers.sink)
        self._admission = Admission(self._engine.info().slots, self._max_queued, self._max_queued_bytes)

    @property
    def is_ready(self) -> bool:
        """Whether the engine has started."""
        return self._admission is not None

    @property
    def admission(self) -> Admission:
        """Who runs and who waits.

        Raises:
            UnavailableError: the engine is not ready yet.
        """
        if self._admission is None:
            raise UnavailableError("WARMING_UP", "the model is still being loaded", retry_after=_RETRY_SECONDS)
        return self._admission

    def model(self) -> ModelInfo:
        """What the engine serves.

        Raises:
            UnavailableError: the engine is not ready yet.
        """
        _ = self.admission
        return self._engine.info()

    def kv_cache_use(self) -> float | None:
        """The share of the KV cache in use, where the engine tells."""
        return self._engine.health().kv_cache_use

    async def count_tokens(self, content: Input) -> int:
        """Counts the tokens of an input as the model would read it.

        Raises:
            OverloadedError: too many are counting already.
            UnavailableError: the engine is not ready yet.
        """
        _ = self.admission
        if self._counting >= _MOST_COUNTING:
            raise OverloadedError("COUNTING_FULL", "too many inputs are being counted", retry_after=_RETRY_SECONDS)
        self._counting += 1
        try:
            return await self._engine.count_tokens(content)
        finally:
            self._counting -= 1

    def check_open(self) -> None:
        """Makes sure that requests are taken in.

        Raises:
            UnavailableError: the model is still being loaded, or the server goes away.
        """
        _ = self.admission
        if self._draining:
            raise UnavailableError("DRAINING", "the server is shutting down", retry_after=_RETRY_SECONDS)

    @asynccontextmanager
    async def open(self, request: EngineRequest, ticket: Ticket, call: Call) -> AsyncIterator[Reader]:
        """Takes a request to the engine, and makes sure that it is gone from there when the block is left.

        Raises:
            OverloadedError: there is no room in the queue.
            UnavailableError: the server takes nothing in.
        """
        self.check_open()
        self.in_flight += 1
        self._idle.clear()
        try:
            acquired = await self._admit(ticket, request, call)
            if acquired is None:
                yield Reader(await self._ended_in_queue(request), call)
                return
            answer = self._answers.begin(request.key, partial(self._free_slot, acquired))
            handle = self._engine.submit(request)
            try:
                yield Reader(answer, call)
            finally:
                answer.leave()
                handle.abort()
        finally:
            self.in_flight -= 1
            if not self.in_flight:
                self._idle.set()

    async def _admit(self, ticket: Ticket, request: EngineRequest, call: Call) -> float | None:
        """Waits for a slot; None when the request's time limit ran out before."""
        ends_at = request.stopping.ends_at
        begun = time.monotonic()
        try:
            async with asyncio.timeout(None if ends_at is None else ends_at - begun):
                return await self.admission.acquire(ticket.priority, ticket.size)
        except TimeoutError:
            return None
        finally:
            call.queue = time.monotonic() - begun

    async def _ended_in_queue(self, request: EngineRequest) -> Answer:
        """The answer of a request whose time limit ran out while it waited: no text, but truthful sizes.

        Raises:
            InvalidInputError: the request would have been refused in its turn, too.
        """
        begun = time.monotonic()
        prompt_tokens = await self.count_tokens(request.input)
        held = request.held or HeldPart()
        held_tokens = len(held.token_ids) or (await self.count_tokens(RawText(held.text)) if held.text else 0)
        budget = output_budget(request.input, prompt_tokens, self._engine.info().context_tokens, request.stopping)
        reason = FinishReason.TIME_LIMIT if held_tokens < budget else FinishReason.LENGTH
        answer = Answer(request.key, lambda _: None)
        started = Started(prompt_tokens, time.monotonic() - begun)
        finish = Finish(reason, output_tokens=held_tokens)
        answer.put(StepOutput(request.key, started=started, finish=finish))
        return answer

    def _free_slot(self, acquired: float, last: StepOutput) -> None:
        completed = last.finish is not None and last.finish.reason is not FinishReason.ABORTED
        self.admission.release(acquired, completed=completed)

    async def drain(self, grace: float) -> None:
        """Refuses new requests, gives those in flight `grace` seconds to finish, and ends the rest."""
        self._draining = True
        try:
            async with asyncio.timeout(grace):
                await self._idle.wait()
        except TimeoutError:
            error = UnavailableError("DRAINED", "the server shut down", retry_after=_RETRY_SECONDS)
            if self._admission is not None:
                self._admission.fail_waiting(error)
            self._answers.fail_all(error)
            with suppress(TimeoutError):
                # A caller that does not read keeps its handler in a write; it ends with the server.
                async with asyncio.timeout(_LAST_WORDS_SECONDS):
                    await self._idle.wait()
