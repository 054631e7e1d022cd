"""`executor/result.py` at 1.2: one object per request, which changes at every step and is yielded repeatedly."""

import asyncio
import queue
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, cast


@dataclass(slots=True)
class Logprob:
    logprob: float
    rank: int | None = None


@dataclass(slots=True)
class TimingMetrics:
    arrival_time: timedelta
    first_scheduled_time: timedelta
    first_token_time: timedelta
    last_token_time: timedelta


@dataclass(slots=True)
class SpeculativeDecodingMetrics:
    acceptance_rate: float = 0.0
    total_accepted_draft_tokens: int = 0
    total_draft_tokens: int = 0


@dataclass(slots=True)
class RequestPerfMetrics:
    timing_metrics: TimingMetrics
    speculative_decoding: SpeculativeDecodingMetrics


@dataclass(slots=True)
class CompletionOutput:
    index: int
    text: str = ""
    token_ids: list[int] = field(default_factory=list)
    cumulative_logprob: float | None = None
    logprobs: list[dict[int, Logprob]] = field(default_factory=list)
    finish_reason: str | None = None
    stop_reason: int | str | None = None
    request_perf_metrics: RequestPerfMetrics | None = None

    @property
    def length(self) -> int:
        return len(self.token_ids)


@dataclass(slots=True)
class Response:
    """The message of the worker for a step of a request."""

    token_ids: list[int]
    logprobs: list[dict[int, Logprob]] | None = None
    finish_reason: str | None = None
    stop_reason: int | None = None
    decoding_iter: int = 0
    cached_tokens: int = 0
    metrics: RequestPerfMetrics | None = None
    context_logits: Any = None
    error: Exception | None = None


class GenerationResult:
    """Can be awaited, iterated or aborted only by the event loop on which it was created."""

    def __init__(
        self, request_id: int, prompt_token_ids: list[int], abort: Callable[[int], None], *, keep_stop: bool
    ) -> None:
        self.request_id = request_id
        self.prompt: str | None = None
        self.prompt_token_ids = prompt_token_ids
        self.outputs = [CompletionOutput(0)]
        self.decoding_iter = 0
        self.cached_tokens = 0
        self.avg_decoded_tokens_per_iter: float | None = None
        self.metrics_dict: dict[str, float] = {}
        self.context_logits: Any = None
        self._keep_stop = keep_stop
        self._done = self._aborted = False
        self._abort = abort
        self._queue: queue.Queue[Response] = queue.Queue()
        self._aqueue: asyncio.Queue[Response] | None = None
        try:
            self._loop: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
            self._aqueue = asyncio.Queue()
        except RuntimeError:
            self._loop = None

    def put(self, response: Response) -> None:
        """Called by the worker's thread."""
        if self._loop is None or self._aqueue is None:
            self._queue.put(response)
        else:
            self._loop.call_soon_threadsafe(self._aqueue.put_nowait, response)

    @property
    def finished(self) -> bool:
        return self._done

    def abort(self) -> None:
        self._abort(self.request_id)
        self._aborted = True

    def aborted(self) -> bool:
        return self._aborted

    def result(self, timeout: float | None = None) -> "GenerationResult":
        while not self._done:
            self._handle(self._queue.get())
        return self

    async def aresult(self) -> "GenerationResult":
        while not self._done:
            await self._step()
        return self

    def __await__(self) -> Any:
        return self.aresult().__await__()

    def __aiter__(self) -> AsyncIterator["GenerationResult"]:
        return cast("AsyncIterator[GenerationResult]", self)

    async def __anext__(self) -> "GenerationResult":
        if self._done:
            raise StopAsyncIteration
        await self._step()
        return self

    async def _step(self) -> None:
        assert self._aqueue is not None, (
            "The asyncio event loop was not present during initialization, so async operations are not available."
        )
        assert asyncio.get_running_loop() is self._loop, "the queue belongs to another event loop"
        self._handle(await self._aqueue.get())

    def _handle(self, response: Response) -> None:
        if response.error is not None:
            raise response.error
        output = self.outputs[0]
        output.token_ids.extend(response.token_ids)
        output.logprobs += response.logprobs or []
        output.request_perf_metrics = response.metrics
        output.finish_reason = response.finish_reason
        self.decoding_iter = response.decoding_iter
        self.cached_tokens = response.cached_tokens
        self.context_logits = response.context_logits
        self.avg_decoded_tokens_per_iter = len(output.token_ids) / max(1, response.decoding_iter)
        self._done = response.finish_reason is not None
        if response.stop_reason is not None:
            output.stop_reason = response.stop_reason
            if not self._keep_stop:
                output.token_ids = output.token_ids[:-1]


class RequestOutput(GenerationResult):
    """The result of `generate_async`, which nobody else may create."""

    def __init__(self) -> None:
        raise RuntimeError("RequestOutput is designed to be instantiated by GenerationExecutor.")


def make_output(
    request_id: int, prompt_token_ids: list[int], abort: Callable[[int], None], *, keep_stop: bool
) -> RequestOutput:
    """Creates a result as GenerationExecutor does."""
    output = RequestOutput.__new__(RequestOutput)
    GenerationResult.__init__(output, request_id, prompt_token_ids, abort, keep_stop=keep_stop)
    return output
