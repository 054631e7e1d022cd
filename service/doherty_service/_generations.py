"""The way of one request through the server: admission, engine, answer, and the abort that is never forgotten."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

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
from doherty_service._answers import Answer, Answers
from doherty_service._errors import OverloadedError, UnavailableError
from doherty_service._readers import Reader, Readers
from doherty_service.admission import Admission, Pace, Promises, Slot, Ticket
from doherty_service.latency import Call, LatencyRecorder

RETRY_SECONDS = 1.0
"""When to try again while the model is loaded or the server goes away."""

_LAST_WORDS_SECONDS = 1.0
"""How long those have who are told that the server shuts down."""

_MOST_COUNTING = 8
"""Inputs at a time that are only counted; tokenizing is the work of a thread."""


@dataclass(frozen=True, slots=True)
class Load:
    """What is going on right now; all zero while there is no engine."""

    running: int = 0
    queued: int = 0
    queued_bytes: int = 0
    slots: int = 0


@dataclass(slots=True)
class _Post:
    """A running engine, and who may use it."""

    engine: Engine
    answers: Answers
    admission: Admission
    failed: UnavailableError | None = None
    """What its requests were told when it was lost."""


class Generations:
    """Everything that is being generated, and whether more may come."""

    def __init__(self, recorder: LatencyRecorder, *, max_queued: int, max_queued_bytes: int) -> None:
        """Takes nothing in until `begin`."""
        self.readers = Readers()
        self._recorder = recorder
        self._max_queued = max_queued
        self._max_queued_bytes = max_queued_bytes
        self._pace = Pace()
        self._promises = Promises()
        self._post: _Post | None = None
        self._model: ModelInfo | None = None
        self._later: UnavailableError | None = None
        self.draining = asyncio.Event()
        """Set once no new requests are taken in, for the server goes away."""
        self._counting = 0
        self.in_flight = 0
        """How many requests run or wait."""
        self._idle = asyncio.Event()
        self._idle.set()

    def begin(self, engine: Engine, answers: Answers) -> None:
        """Takes requests in, for an engine that has started with the sink of `answers`."""
        self._model = engine.info()
        admission = Admission(
            self._model.slots,
            self._max_queued,
            self._max_queued_bytes,
            pace=self._pace,
            promises=self._promises,
            refusals=self._recorder.refusals,
        )
        self._post, self._later = _Post(engine, answers, admission), None

    def lose_engine(self, failed: UnavailableError, later: UnavailableError) -> None:
        """Ends all requests with `failed` at once, and answers those to come with `later` until the next `begin`."""
        post, self._post, self._later = self._post, None, later
        if post is not None:
            post.failed = failed
            post.admission.fail_waiting(failed)
            post.answers.fail_all(failed)

    @property
    def is_ready(self) -> bool:
        """Whether there is an engine."""
        return self._post is not None

    def load(self) -> Load:
        """What is going on right now."""
        post = self._post  # once, for Prometheus reads it from a thread
        if post is None:
            return Load()
        admission = post.admission
        return Load(admission.running, admission.queued, admission.queued_bytes, admission.slots)

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
        post = self._post
        return None if post is None else post.engine.health().kv_cache_use

    async def count_tokens(self, content: Input) -> int:
        """Counts the tokens of an input as the model would read it.

        Raises:
            OverloadedError: too many are counting already.
            UnavailableError: there is no engine.
        """
        engine = self._posted().engine
        if self._counting >= _MOST_COUNTING:
            self._recorder.refusals["COUNTING_FULL"] += 1
            raise OverloadedError("COUNTING_FULL", "too many inputs are being counted", retry_after=RETRY_SECONDS)
        self._counting += 1
        try:
            return await engine.count_tokens(content)
        finally:
            self._counting -= 1

    def check_open(self) -> None:
        """Makes sure that requests are taken in.

        Raises:
            UnavailableError: the model is being loaded, or the server goes away.
        """
        if self.draining.is_set():
            raise UnavailableError("DRAINING", "the server is shutting down", retry_after=RETRY_SECONDS)
        self._posted()

    def _posted(self) -> _Post:
        if self._post is None:
            raise self._absence()
        return self._post

    def _absence(self) -> UnavailableError:
        """What callers are told while there is no engine."""
        if self._later is None:
            return UnavailableError("WARMING_UP", "the model is still being loaded", retry_after=RETRY_SECONDS)
        # One error for many callers: each raise would add its frames, and with them its request, to those before.
        return self._later.with_traceback(None)

    @asynccontextmanager
    async def open(self, request: EngineRequest, ticket: Ticket, call: Call) -> AsyncIterator[Reader]:
        """Takes a request to the engine, and makes sure that it is gone from there when the block is left.

        Raises:
            OverloadedError: there is no room in the queue, or the wait would be too long for the caller.
            UnavailableError: the server takes nothing in, or the engine was lost.
            StalledReaderError: the caller stopped reading.
        """
        self.check_open()
        self.in_flight += 1
        self._idle.clear()
        try:
            post = self._posted()
            slot = await self._admit(post.admission, request, ticket, call)
            if slot is None:
                yield Reader(await self._ended_in_queue(request), call)
            elif post.failed is not None:  # lost in the moment after the grant
                raise post.failed
            else:
                async with self._submitted(post, slot, request, call) as reader:
                    yield reader
        finally:
            self.in_flight -= 1
            if not self.in_flight:
                self._idle.set()

    @asynccontextmanager
    async def _submitted(self, post: _Post, slot: Slot, request: EngineRequest, call: Call) -> AsyncIterator[Reader]:
        aborted_at: float | None = None

        def free_slot(last: StepOutput) -> None:
            completed = last.finish is not None and last.finish.reason is not FinishReason.ABORTED
            # A canary's one token says nothing of how long people's answers take.
            post.admission.release(slot, completed=completed and call.is_answer)
            if aborted_at is not None:
                self._recorder.slot_freed(call.abort_cause, time.monotonic() - aborted_at)

        answer = post.answers.begin(request.key, free_slot)
        reader = Reader(answer, call, slot)
        try:
            handle = post.engine.submit(request)
        except BaseException:
            answer.put(StepOutput(request.key, finish=Finish(FinishReason.ABORTED)))  # for the engine will not
            raise
        try:
            yield reader
        finally:
            aborted_at = time.monotonic()
            answer.leave()
            handle.abort()

    async def _admit(self, admission: Admission, request: EngineRequest, ticket: Ticket, call: Call) -> Slot | None:
        """Waits for a slot; None when the request's time limit ran out before."""
        ends_at = request.stopping.ends_at
        begun = time.monotonic()
        refused = False
        try:
            if ends_at is None:
                return await admission.acquire(ticket)
            async with asyncio.timeout(ends_at - begun):
                return await admission.acquire(ticket)
        except TimeoutError:
            return None
        except OverloadedError:
            refused = True
            raise
        finally:
            if not refused:  # which would else count as a wait of no time
                call.queue = time.monotonic() - begun

    async def _ended_in_queue(self, request: EngineRequest) -> Answer:
        """The answer of a request whose time limit ran out while it waited: no text, but truthful sizes.

        Raises:
            InvalidInputError: the request would have been refused in its turn, too.
        """
        begun = time.monotonic()
        engine = self._posted().engine  # whose counting is unbounded here: the queue has bounded these requests
        prompt_tokens = await engine.count_tokens(request.input)
        held = request.held or HeldPart()
        held_tokens = len(held.token_ids) or (await engine.count_tokens(RawText(held.text)) if held.text else 0)
        budget = output_budget(request.input, prompt_tokens, self.model().context_tokens, request.stopping)
        reason = FinishReason.TIME_LIMIT if held_tokens < budget else FinishReason.LENGTH
        answer = Answer(request.key, lambda _: None)
        started = Started(prompt_tokens, time.monotonic() - begun)
        finish = Finish(reason, output_tokens=held_tokens)
        answer.put(StepOutput(request.key, started=started, finish=finish))
        return answer

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
            # A caller that does not read keeps its handler in a write; it ends with the server.
            async with asyncio.timeout(_LAST_WORDS_SECONDS):
                await self._idle.wait()
