"""Leads requests through admission and the engine, and makes sure that the engine ends each of them."""

import asyncio
import time
from collections import Counter
from contextlib import suppress

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
from doherty_service.generation._state import Load, State
from doherty_service.generation._writes import WriteWatch
from doherty_service.telemetry import LatencyRecorder

RETRY_SECONDS = 1.0
"""Retry delay sent to callers while the model is loading or the server is shutting down."""

_END_SECONDS = 1.0
"""How long to wait at shutdown until the callers have received their errors."""

_MAX_COUNTING = 8
"""Maximum number of inputs that are counted (CountTokens) at a time, each by a thread that tokenizes."""


class Generations:
    """All answers that are being generated, and whether new requests are accepted.

    A request goes through `begin_answer`, `serve` (or its two parts, `try_submit` and `wait_and_submit`), `end_answer`.
    """

    def __init__(self, recorder: LatencyRecorder, bounds: QueueBounds) -> None:
        """Accepts nothing before `begin`."""
        self.writes = WriteWatch()
        self.draining = asyncio.Event()
        """Set when the server begins to shut down and accepts no new requests."""
        self.in_flight = 0
        """The number of running and waiting requests."""
        self._recorder = recorder
        self._bounds = bounds
        self._pace: Pace | None = None
        self._session: EngineSession | None = None
        self._model: ModelInfo | None = None
        self._no_engine_error: UnavailableError | None = None
        """The error for requests that come while a lost engine is replaced."""
        self._counting = Shares(_MAX_COUNTING, recorder.refusals)
        self._waiting: Counter[str] = Counter()
        """The number of requests that wait for a slot, by the name of the key."""
        self._idle = asyncio.Event()
        self._idle.set()

    def begin(self, session: EngineSession) -> None:
        """Accepts requests for an engine that has started."""
        self._model = session.engine.info()
        self._pace = Pace(self._model.slots, self._pace)
        session.admission = Admission(self._bounds, pace=self._pace, refusals=self._recorder.refusals)
        self._session, self._no_engine_error = session, None

    def lose_engine(self, failed: UnavailableError, later: UnavailableError) -> None:
        """Ends all requests with `failed` at once, and refuses new ones with `later` until the next `begin`."""
        session, self._session, self._no_engine_error = self._session, None, later
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
        """Seconds since the engine last made progress; 0 while it has no work."""
        session = self._session
        return time.monotonic() - session.last_sign if session is not None and session.is_busy else 0.0

    def load(self) -> Load:
        """The current load."""
        session = self._session  # read once, because the metrics are collected in another thread
        if session is None:
            return Load()
        admission = session.admission
        return Load(admission.running, admission.queued, admission.queued_bytes, admission.slots)

    def load_of_keys(self) -> "dict[str, tuple[int, int]]":
        """The numbers of running and waiting requests per key name, for keys that have any. Thread-safe."""
        session = self._session
        running = Counter() if session is None else session.running_by_key()
        waiting = self._waiting.copy()
        return {name: (running[name], waiting[name]) for name in running | waiting}

    def model(self) -> ModelInfo:
        """The model that the engine serves; while the engine is being replaced, the model of the previous one.

        Raises:
            UnavailableError: No engine has been ready yet.
        """
        if self._model is None:
            raise self._unavailable()
        return self._model

    def kv_cache_use(self) -> float | None:
        """The share of the KV cache in use; None if the engine does not report it."""
        session = self._session
        return None if session is None else session.engine.health().kv_cache_use

    def drafting(self) -> Drafting | None:
        """Counts of speculative decoding since the engine started; None if it is not used."""
        session = self._session
        return None if session is None else session.engine.health().drafting

    async def count_tokens(self, content: Input, key: str) -> int:
        """Counts the tokens of an input as the model would read it. `key` is the name of the caller's key.

        Raises:
            OverloadedError: Too many inputs of this key are being counted already.
            UnavailableError: There is no engine.
        """
        engine = self._running_session().engine
        with self._counting.take(key):
            return await engine.count_tokens(content)

    def check_open(self) -> None:
        """Checks that requests are accepted.

        Raises:
            UnavailableError: The model is loading, or the server is shutting down.
        """
        if self.draining.is_set():
            raise UnavailableError("DRAINING", "the server is shutting down", retry_after=RETRY_SECONDS)
        self._running_session()

    def _running_session(self) -> EngineSession:
        if self._session is None:
            raise self._unavailable()
        return self._session

    def _unavailable(self) -> UnavailableError:
        """The error for requests that come while there is no engine."""
        if self._no_engine_error is None:
            return UnavailableError("WARMING_UP", "the model is still being loaded", retry_after=RETRY_SECONDS)
        return self._no_engine_error.copy()

    async def serve(self, answer: AwaitedAnswer) -> None:
        """Waits until a request is answered. The caller must call `end_answer` afterwards, also after an error.

        Raises:
            OverloadedError: The queue is full, or the wait would be too long for the caller.
            UnavailableError: The server accepts no requests, or the engine was lost.
            StalledReaderError: The caller stopped reading.
            EngineError: The engine could not complete the answer.
        """
        if (session := self.try_submit(answer)) is not None:
            await self.wait_and_submit(answer, session)
        await answer.done

    def refuse_full(self) -> OverloadedError:
        """Counts a refusal, and returns the error for a request that there is not even room to queue."""
        self._recorder.refusals["QUEUE_FULL"] += 1
        return OverloadedError("QUEUE_FULL", "too many requests of this RPC wait already", retry_after=RETRY_SECONDS)

    def begin_answer(self, answer: Answer) -> None:
        """Counts a request as in flight, and against the limits of its caller, until `end_answer`.

        Raises:
            OverloadedError: The request would exceed a limit of the caller's key.
            UnauthenticatedError: The key was revoked.
        """
        answer.taken = answer.record.caller.take()
        self.in_flight += 1
        self._idle.clear()

    def end_answer(self, answer: Answer) -> None:
        """Aborts a request in the engine unless it has ended, and stops counting it. May be called repeatedly."""
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
        """Submits a request to the engine if a slot is free and no other request waits. Otherwise queues it.

        Returns:
            None if it was submitted; otherwise the session for which `wait_and_submit` must be called.

        Raises:
            OverloadedError: The queue is full, or the wait would be too long for the caller.
            UnavailableError: The engine was lost since `check_open`.
        """
        session = self._running_session()
        if not session.admission.enter(answer.ticket):
            answer.awaits = session.admission
            return session
        answer.record.queue = 0.0
        session.submit(answer)
        return None

    async def wait_and_submit(self, answer: Answer, session: EngineSession) -> None:
        """Waits until a queued request gets a slot, and submits it to the engine; or ends it at its time limit.

        Raises:
            OverloadedError: The request had to make room for another one, or its deadline has become too close.
            UnavailableError: The engine was lost.
        """
        if await self._admit(session.admission, answer):
            if session.loss is not None:  # the engine was lost just after the slot was given
                raise session.loss.copy()
            answer.awaits = None
            session.submit(answer)
        else:
            answer.put(await self._ended_in_queue(session, answer))

    async def _admit(self, admission: Admission, answer: Answer) -> bool:
        """Waits for a slot. Returns False if the request's time limit ended before."""
        admitted = answer.ticket.admitted
        if admitted is None:
            raise AssertionError("the request is not in the queue")
        ends_at = answer.request.stopping.ends_at
        start = time.monotonic()
        self._waiting[answer.record.caller.name] += 1
        try:
            async with asyncio.timeout(None if ends_at is None else ends_at - start):
                await admitted
        except TimeoutError:
            admission.leave(answer.ticket)
            return False
        finally:
            self._waiting[answer.record.caller.name] -= 1
            answer.record.queue = time.monotonic() - start
        return True

    async def _ended_in_queue(self, session: EngineSession, answer: Answer) -> StepOutput:
        """Returns the last output for a request whose time limit ended while it waited: no text, but correct counts.

        Raises:
            EngineError: The engine would have refused the request.
        """
        start = time.monotonic()
        request = answer.request
        count = session.engine.count_tokens  # not bounded by `_counting`: the queue has bounded these requests
        prompt_tokens = await count(request.input)
        prefix_tokens = 0 if request.prefix is None else await count(request.prefix)
        budget = output_budget(request.input, prompt_tokens, answer.model.context_tokens, request.stopping)
        reason = FinishReason.TIME_LIMIT if prefix_tokens < budget else FinishReason.LENGTH
        started = Started(prompt_tokens, time.monotonic() - start)
        return StepOutput(request.key, started=started, finish=Finish(reason, output_tokens=prefix_tokens))

    def close(self) -> None:
        """Refuses all new requests."""
        self.draining.set()

    async def finished(self) -> None:
        """Waits until no request is in flight."""
        await self._idle.wait()

    async def end(self) -> None:
        """Ends all requests with DRAINED, and waits until their callers have received it."""
        error = UnavailableError("DRAINED", "the server shut down", retry_after=RETRY_SECONDS)
        self.lose_engine(error, error)
        with suppress(TimeoutError):
            # A caller that does not read receives nothing; its RPC ends with the server.
            async with asyncio.timeout(_END_SECONDS):
                await self._idle.wait()
