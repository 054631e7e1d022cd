"""The worker: a thread that steps through all requests of a batch, like the process of the real worker."""

import itertools
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from _forms import fitting_text
from _scenario import scenario

from ._model import Checkpoint, Logits, Sequence
from ._result import (
    RequestOutput,
    RequestPerfMetrics,
    Response,
    SpeculativeDecodingMetrics,
    TimingMetrics,
    make_output,
)
from .executor import RequestError

_BLOCK = 32
"""The number of tokens of a block of the KV cache."""


class Request:
    """A request in the worker."""

    def __init__(self, output: RequestOutput, prompt: list[int], params: Any, tokens: Iterator[Any]) -> None:
        self.output = output
        self.prompt = prompt
        self.params = params
        self.tokens = tokens
        self.count = 0
        self.steps = 0
        self.drafted = 0
        self.cancelled = False
        self.arrival = time.monotonic()
        self.scheduled: float | None = None
        self.first_token: float | None = None
        self.ready_at = 0.0
        self.cached_tokens = 0


class Worker:
    """Runs until it is shut down or hangs."""

    def __init__(self, checkpoint: Checkpoint, *, cpp: bool, batch: int, drafts: int, loss: float = 0.0) -> None:
        self._checkpoint = checkpoint
        self._loss = loss
        self._cpp = cpp
        self._batch = batch
        self._drafts = drafts
        self._is_greedy = drafts > 0
        self._requests: dict[int, Request] = {}
        self._read: dict[tuple[int, str | None], list[list[int]]] = {}
        self._changed = threading.Condition()
        self._ids = itertools.count(1)
        self._steps = 0
        self._stopping = False
        self.died: Exception | None = None
        self._thread = threading.Thread(target=self._run, daemon=True, name="fake-trtllm-worker")
        self._thread.start()

    @property
    def steps(self) -> int:
        return self._steps

    def read(self, prompt: list[int]) -> "Logits":
        """Returns the logits of a prompt's tokens."""
        return Logits(self._checkpoint, prompt, self._loss)

    def submit(self, prompt: list[int], params: Any, lora_id: int, salt: str | None) -> RequestOutput:
        keep_stop = params.include_stop_str_in_output
        output = make_output(next(self._ids), prompt, self._abort, keep_stop=keep_stop)
        request = Request(output, prompt, params, self._generate(prompt, params, lora_id))
        with self._changed:
            request.cached_tokens = self._reuse(prompt, lora_id, salt)
            self._requests[output.request_id] = request
            self._changed.notify()
        return output

    def _reuse(self, prompt: list[int], lora_id: int, salt: str | None) -> int:
        """Counts the tokens in whole blocks that begin an earlier prompt with the same adapter and salt, too."""
        most = 0
        earlier = self._read.setdefault((lora_id, salt), [])
        for other in earlier:
            pairs = enumerate(zip(prompt[:-1], other, strict=False))
            most = max(
                most, next((place for place, (mine, its) in pairs if mine != its), min(len(prompt) - 1, len(other)))
            )
        earlier.append(prompt)
        return most - most % _BLOCK

    def shutdown(self) -> None:
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if not self._hangs:  # MPI finally kills a worker that hangs
            self._thread.join()

    @property
    def _hangs(self) -> bool:
        return 0 < scenario().hang_after_steps <= self._steps

    def _abort(self, request_id: int) -> None:
        with self._changed:
            if (request := self._requests.get(request_id)) is not None:
                request.cancelled = True
                self._changed.notify()

    def _run(self) -> None:
        pace = scenario().tokens_per_second
        while True:
            with self._changed:
                while not self._requests and not self._stopping:
                    self._changed.wait()
                if self._stopping or self._hangs:
                    return
                batch = list(self._requests.values())[: self._batch]
                waiting = list(self._requests.values())[self._batch :]
            if pace:
                time.sleep(1 / pace)
            self._steps += 1
            if 0 < scenario().die_after_steps <= self._steps:
                self.died = RuntimeError("MPI_ABORT was invoked on rank 0")
            for request in (*batch, *(waiter for waiter in waiting if waiter.cancelled)):
                response = self._step(request)
                if response is None:
                    continue
                if response.finish_reason is not None or response.error is not None:
                    with self._changed:
                        del self._requests[request.output.request_id]
                request.output.put(response)

    def _step(self, request: Request) -> Response | None:
        now = time.monotonic()
        if self.died is not None:
            return Response([], error=self.died)
        if request.cancelled or 0 < scenario().own_cancel_after_tokens <= request.count:
            return self._response(request, [], [], "cancelled")
        if request.scheduled is None:
            request.scheduled = now
            pace = scenario().prefill_tokens_per_second
            request.ready_at = now + (len(request.prompt) / pace if pace else 0)
        if now < request.ready_at:
            return None
        if 0 < scenario().fail_after_tokens <= request.count:
            return Response([], error=RequestError("CUDA error: an illegal memory access was encountered"))
        return self._tokens(request)

    def _tokens(self, request: Request) -> Response:
        params = request.params
        most = 1 + (request.output.request_id + request.steps) % (self._drafts + 1) if request.steps else 1
        request.drafted += self._drafts if request.steps else 0
        request.steps += 1
        taken: list[int] = []
        logprobs: list[Any] = []
        ending: tuple[str, int | None] | None = None
        for _ in range(most):
            token_id, alternatives = next(request.tokens)
            request.count += 1
            ends = token_id == params.end_id and not params.ignore_eos
            if not ends or not self._cpp:  # the C++ samplers end the sequence before this token
                taken.append(token_id)
                logprobs.append(alternatives)
            if ends:
                ending = "stop", None
            elif token_id in (params.stop_token_ids or ()):
                ending = "stop", token_id
            elif request.count >= params.max_tokens:
                ending = "length", None
            if ending is not None:
                break
        request.first_token = request.first_token or time.monotonic()
        reason, stop_reason = ending or (None, None)
        return self._response(request, taken, logprobs, reason, stop_reason)

    def _response(
        self,
        request: Request,
        taken: list[int],
        logprobs: list[Any],
        reason: str | None,
        stop_reason: int | None = None,
    ) -> Response:
        metrics = None
        if request.params.return_perf_metrics and not scenario().loses_metrics:
            moments = (request.arrival, request.scheduled or 0, request.first_token or 0, time.monotonic())
            accepted = request.count - request.steps
            metrics = RequestPerfMetrics(
                TimingMetrics(*(timedelta(seconds=moment) for moment in moments)),
                SpeculativeDecodingMetrics(accepted / max(1, request.drafted), accepted, request.drafted),
            )
        return Response(
            token_ids=taken,
            logprobs=logprobs if request.params.logprobs else None,
            finish_reason=reason,
            stop_reason=stop_reason,
            decoding_iter=request.steps,
            context_logits=self.read(request.prompt) if request.params.return_context_logits else None,
            cached_tokens=0 if self._cpp else request.cached_tokens,
            metrics=metrics,
        )

    def _generate(self, prompt: list[int], params: Any, lora_id: int) -> Iterator[Any]:
        if params.guided_decoding is not None:
            kind = next(kind for kind in ("json", "regex", "grammar") if getattr(params.guided_decoding, kind))
            text = fitting_text(kind, getattr(params.guided_decoding, kind))
            for token_id in self._checkpoint.model.tokenizer.encode(text, add_special_tokens=False).ids:
                yield token_id, {}
            while True:
                yield self._checkpoint.model.eos_ids[-1], {}
        sequence = Sequence(self._checkpoint, prompt, params, lora_id, cpp=self._cpp)
        while True:
            yield sequence.next(is_greedy=self._is_greedy or params.is_greedy)
