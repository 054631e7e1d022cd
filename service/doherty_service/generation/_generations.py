"""The way of a request through the server: admission, engine, answer; the engine always drops what is left of it."""

import asyncio
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum

from doherty_engine import (
    Drafting,
    Finish,
    FinishReason,
    Input,
    ModelInfo,
    Started,
    StepOutput,
    output_budget,
)
from doherty_service._errors import OverloadedError, UnavailableError
from doherty_service.admission import Admission, Pace, QueueBounds, Shares
from doherty_service.generation._answer import Answer, AwaitedAnswer
from doherty_service.generation._session import EngineSession
from doherty_service.generation._writes import WriteWatch
from doherty_service.telemetry import LatencyRecorder

RETRY_SECONDS = 1.0
"""When to try again while the model is loaded or the server goes away."""

_TELL_SECONDS = 1.0
"""How long callers have to be told that the server shuts down."""

_MOST_COUNTING = 8
"""Inputs at a time that are only counted; tokenizing is the work of a thread."""


class State(StrEnum):
    """What the server is doing."""

    LOADING = "loading"
    """The first engine is being started."""
    SERVING = "serving"
    RESTARTING = "restarting"
    """The engine failed, and another one is being started."""
    DRAINING = "draining"
    """New requests are refused, because the server shuts down."""


@dataclass(frozen=True, slots=True)
class Load:
    """What is going on right now; all zero while there is no engine."""

    running: int = 0
    queued: int = 0
    queued_bytes: int = 0
    slots: int = 0

    @property
    def utilization(self) -> float:
        """Requests that run or wait, divided by the engine's slots; 0 without an engine."""
        return (self.running + self.queued) / self.slots if self.slots else 0.0


class Generations:
    """Everything that is being generated, and whether more may come.

    A request goes through `begin_answer`, `serve` (or its two parts, `try_submit` and `wait_and_submit`), `end_answer`.
    """

    def __init__(self, recorder: LatencyRecorder, bounds: QueueBounds) -> None:
        """Accepts nothing until `begin`."""
        self.writes = WriteWatch()
        self.draining = asyncio.Event()
        """Set once no new requests are accepted because the server shuts down."""
        self.in_flight = 0
        """How many requests run or wait."""
        self._recorder = recorder
        self._bounds = bounds
        self._pace: Pace | None = None
        self._session: EngineSession | None = None
        self._model: ModelInfo | None = None
        self._later: UnavailableError | None = None
        self._counting = Shares(_MOST_COUNTING, recorder.refusals)
        self._waiting: Counter[str] = Counter()
        """How many requests wait for a slot, by the name of the key."""
        self._idle = asyncio.Event()
        self._idle.set()

    def begin(self, session: EngineSession) -> None:
        """Accepts requests for an engine that has started."""
        self._model = session.engine.info()
        self._pace = Pace(self._model.slots, self._pace)
        session.admission = Admission(self._bounds, pace=self._pace, refusals=self._recorder.refusals)
        self._session, self._later = session, None

    def lose_engine(self, failed: UnavailableError, later: UnavailableError) -> None:
        """Ends all requests with `failed` at once, and answers those to come with `later` until the next `begin`."""
        session, self._session, self._later = self._session, None, later
        if session is not None:
            session.lose(failed)

    @property
    def is_ready(self) -> bool:
        """Whether there is an engine."""
        return self._session is not None

    @property
    def is_open(self) -> bool:
        """Whether requests are accepted."""
        return self._session is not None and not self.draining.is_set()

    @property
    def state(self) -> State:
        """What the server is doing."""
        if self.draining.is_set():
            return State.DRAINING
        if self._session is not None:
            return State.SERVING
        return State.LOADING if self._model is None else State.RESTARTING

    def step_age(self) -> float:
        """Seconds since the engine's last sign of life; 0 while it has nothing to do."""
        session = self._session
        return time.monotonic() - session.last_sign if session is not None and session.is_busy else 0.0

    def load(self) -> Load:
        """What is going on right now."""
        session = self._session  # once, because Prometheus reads it from a thread
        if session is None:
            return Load()
        admission = session.admission
        return Load(admission.running, admission.queued, admission.queued_bytes, admission.slots)

    def load_of_keys(self) -> "dict[str, tuple[int, int]]":
        """How many requests of each key run and wait, by its name; without those that have none. Any thread may ask."""
        session = self._session
        running = Counter() if session is None else session.running_by_key()
        waiting = self._waiting.copy()
        return {name: (running[name], waiting[name]) for name in running | waiting}

    def model(self) -> ModelInfo:
        """What the engine serves, or served when it was last there.

        Raises:
            UnavailableError: the engine has not been ready yet.
        """
        if self._model is None:
            raise self._absence()
        return self._model

    def kv_cache_use(self) -> float | None:
        """The share of the KV cache in use, where the engine tells."""
        session = self._session
        return None if session is None else session.engine.health().kv_cache_use

    def drafting(self) -> Drafting | None:
        """What speculative decoding brought since the engine started; None where nothing is drafted."""
        session = self._session
        return None if session is None else session.engine.health().drafting

    async def count_tokens(self, content: Input, key: str) -> int:
        """Counts the tokens of an input as the model would read it, for the key of this name.

        Raises:
            OverloadedError: the key has too many being counted already.
            UnavailableError: there is no engine.
        """
        engine = self._running_session().engine
        with self._counting.take(key):
            return await engine.count_tokens(content)

    def check_open(self) -> None:
        """Makes sure that requests are accepted.

        Raises:
            UnavailableError: the model is being loaded, or the server shuts down.
        """
        if self.draining.is_set():
            raise UnavailableError("DRAINING", "the server is shutting down", retry_after=RETRY_SECONDS)
        self._running_session()

    def _running_session(self) -> EngineSession:
        if self._session is None:
            raise self._absence()
        return self._session

    def _absence(self) -> UnavailableError:
        """What callers are told while there is no engine."""
        if self._later is None:
            return UnavailableError("WARMING_UP", "the model is still being loaded", retry_after=RETRY_SECONDS)
        return self._later.copy()

    async def serve(self, answer: AwaitedAnswer) -> None:
        """Waits until a request is answered; `end_answer` must follow, however this ends.

        Raises:
            OverloadedError: there is no room in the queue, or the wait would be too long for the caller.
            UnavailableError: the server accepts nothing, or the engine was lost.
            StalledReaderError: the caller stopped reading.
            EngineError: the engine could not complete the answer.
        """
        if (awaited := self.try_submit(answer)) is not None:
            await self.wait_and_submit(answer, awaited)
        await answer.done

    def no_room(self) -> OverloadedError:
        """What a request is told for which there is no room, not even to wait; counts it as refused."""
        self._recorder.refusals["QUEUE_FULL"] += 1
        return OverloadedError("QUEUE_FULL", "too many requests of this RPC wait already", retry_after=RETRY_SECONDS)

    def begin_answer(self, answer: Answer) -> None:
        """Counts a request as in flight, and against the limits of its caller, until `end_answer`.

        Raises:
            OverloadedError: one more would be beyond a limit of its caller's key.
            UnauthenticatedError: the key was revoked.
        """
        answer.taken = answer.record.caller.take()
        self.in_flight += 1
        self._idle.clear()

    def end_answer(self, answer: Answer) -> None:
        """Makes sure that the engine drops a request, and counts it no longer. May be called more than once."""
        taken, answer.taken = answer.taken, None
        if taken is None:
            return
        try:
            answer.leave()
        finally:
            answer.record.caller.charge(answer.record.output_tokens)
            answer.record.caller.give_back(taken)
            self.in_flight -= 1
            if not self.in_flight:
                self._idle.set()

    def try_submit(self, answer: Answer) -> EngineSession | None:
        """Gives a request to the engine if a slot is free and nobody waits for it; else returns whose slot it awaits.

        Raises:
            OverloadedError: there is no room in the queue, or the wait would be too long for the caller.
            UnavailableError: the engine was lost since `check_open`.
        """
        session = self._running_session()
        if not session.admission.enter(answer.ticket):
            answer.awaits = session.admission
            return session
        answer.record.queue = 0.0
        session.submit(answer)
        return None

    async def wait_and_submit(self, answer: Answer, session: EngineSession) -> None:
        """Waits for a slot, and gives a request that is in the queue to the engine; or ends it at its time limit.

        Raises:
            OverloadedError: it had to make room in the queue, or has waited too long for its caller.
            UnavailableError: the engine was lost.
        """
        if await self._admit(session.admission, answer):
            if session.loss is not None:  # in the moment after the grant
                raise session.loss.copy()
            answer.awaits = None
            session.submit(answer)
        else:
            answer.put(await self._ended_in_queue(session, answer))

    async def _admit(self, admission: Admission, answer: Answer) -> bool:
        """Waits for a slot; False when the request's time limit ran out before."""
        admitted = answer.ticket.admitted
        if admitted is None:
            raise AssertionError("it is not in the queue")
        ends_at = answer.request.stopping.ends_at
        begun = time.monotonic()
        self._waiting[answer.record.caller.name] += 1
        try:
            async with asyncio.timeout(None if ends_at is None else ends_at - begun):
                await admitted
        except TimeoutError:
            admission.leave(answer.ticket)
            return False
        finally:
            self._waiting[answer.record.caller.name] -= 1
            answer.record.queue = time.monotonic() - begun
        return True

    async def _ended_in_queue(self, session: EngineSession, answer: Answer) -> StepOutput:
        """The end of a request whose time limit ran out while it waited: no text, but truthful sizes.

        Raises:
            EngineError: the request would have been refused in its turn, too.
        """
        begun = time.monotonic()
        request = answer.request
        count = session.engine.count_tokens  # unbounded here: the queue has bounded these requests
        prompt_tokens = await count(request.input)
        prefix_tokens = 0 if request.prefix is None else await count(request.prefix)
        budget = output_budget(request.input, prompt_tokens, answer.model.context_tokens, request.stopping)
        reason = FinishReason.TIME_LIMIT if prefix_tokens < budget else FinishReason.LENGTH
        started = Started(prompt_tokens, time.monotonic() - begun)
        return StepOutput(request.key, started=started, finish=Finish(reason, output_tokens=prefix_tokens))

    def close(self) -> None:
        """Refuses new requests from now on."""
        self.draining.set()

    async def finished(self) -> None:
        """Returns when nothing is in flight."""
        await self._idle.wait()

    async def end(self) -> None:
        """Ends all requests, and waits until their callers have been told."""
        error = UnavailableError("DRAINED", "the server shut down", retry_after=RETRY_SECONDS)
        self.lose_engine(error, error)
        with suppress(TimeoutError):
            # A caller that does not read is told nothing; its RPC ends with the server.
            async with asyncio.timeout(_TELL_SECONDS):
                await self._idle.wait()
