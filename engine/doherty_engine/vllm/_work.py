"""One request: what vLLM is asked, and what becomes of its outputs."""

import asyncio
import time
from collections.abc import Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

from doherty_engine._budget import input_field
from doherty_engine._errors import (
    EngineError,
    EngineFailedError,
    InvalidInputError,
    OutOfResourcesError,
    UnsupportedError,
    is_shortage,
)
from doherty_engine._outputs import Finish, FinishReason, Speculation, StepOutput
from doherty_engine._requests import Choices, Constraint, EngineRequest, Grammar, JsonSchema, Regex
from doherty_engine.constraints import FormCompiler
from doherty_engine.text import HuggingFaceTokenizer, InputReader, TokenAnswer
from doherty_engine.vllm._library import Library, first_line
from doherty_engine.vllm._sampling import sampling_params
from doherty_engine.vllm._stats import Board, Tally, counting

_FIELDS: dict[type[Constraint], str] = {
    Choices: "constraint.choices",
    Grammar: "constraint.grammar",
    JsonSchema: "constraint.json_schema",
    Regex: "constraint.regex",
}
_ENDINGS = {"stop": FinishReason.STOP, "length": FinishReason.LENGTH}
"""What vLLM calls an end that an answer may have."""
_PARAMETERS = {
    "frequency_penalty": "sampling.frequency_penalty",
    "logprobs": "output.top_logprobs",
    "max_tokens": "stopping.max_output_tokens",
    "min_p": "sampling.min_p",
    "min_tokens": "stopping.min_output_tokens",
    "presence_penalty": "sampling.presence_penalty",
    "repetition_penalty": "sampling.repetition_penalty",
    "seed": "sampling.seed",
    "stop_token_ids": "stopping.stop_token_ids",
    "temperature": "sampling.temperature",
    "top_k": "sampling.top_k",
    "top_p": "sampling.top_p",
}
"""The fields of requests by what vLLM calls them in its errors."""


@dataclass(frozen=True, slots=True)
class Workshop:
    """What all requests share."""

    library: Library
    llm: Any
    """vLLM's AsyncLLM."""
    reader: InputReader
    tokenizer: HuggingFaceTokenizer
    forms: FormCompiler | None
    """None where constraints are impossible."""
    board: Board
    adapters: Mapping[str, Any]
    """LoRARequests by the names of the adapters."""
    speculates: bool


class Owner(Protocol):
    """What a work needs of the engine."""

    def begin(self, work: "Work", collector: Any) -> None:
        """Takes note that vLLM works on it from now on, and gives its outputs to `collector`."""
        ...

    def tell(self, output: StepOutput) -> None:
        """Takes an output that belongs to no step."""
        ...

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Runs something beside the caller."""
        ...


class Work:
    """One request, and the handle that its owner aborts it by."""

    def __init__(self, request: EngineRequest, shop: Workshop, owner: Owner) -> None:
        """`run` does the work."""
        self.key = request.key
        self.is_over = False
        """Whether its last output has been made."""
        self._request = request
        self._shop = shop
        self._owner = owner
        self._answer: TokenAnswer | None = None
        self._collector: Any = None
        self._timer: asyncio.TimerHandle | None = None
        self._tally = Tally()

    def abort(self) -> None:
        """Ends it without any more text; vLLM hears of it at once, and takes it out before its next step."""
        if not self.is_over:
            finish = None if self._answer is None else self._answer.end(FinishReason.ABORTED).finish
            self._close(StepOutput(self.key, finish=finish or Finish(FinishReason.ABORTED)))

    def fail(self, error: EngineError) -> None:
        """Ends it with an error."""
        if not self.is_over:
            self._close(StepOutput(self.key, error=error))

    async def run(self) -> None:
        """Reads the request and hands it to vLLM; whatever goes wrong, it ends."""
        try:
            await self._begin()
        except EngineError as error:
            self.fail(error)
        except self._shop.library.EngineDeadError as error:
            self.fail(EngineFailedError(first_line(error)))
        except self._shop.library.VLLMClientError as error:
            self.fail(self._refusal(error))
        except ValueError as error:
            self.fail(self._doubt(error))
        except Exception as error:  # noqa: BLE001  the caller must hear of any failure, or it waits for ever
            kind = OutOfResourcesError if is_shortage(error) else EngineFailedError
            self.fail(kind(f"{type(error).__name__}: {first_line(error)}"))

    def collect(self) -> StepOutput | None:
        """What vLLM has given since the last time and is decided, if anything is."""
        try:
            output = self._collector.get_nowait()
            return None if output is None else self._take(output)
        except self._shop.library.VLLMClientError as error:
            self._owner.spawn(self._leave_vllm())
            return self._over(StepOutput(self.key, error=self._refusal(error)))
        except Exception as error:  # noqa: BLE001  vLLM puts whatever ended its own reading of outputs into every collector
            self._owner.spawn(self._leave_vllm())
            return self._over(StepOutput(self.key, error=EngineFailedError(f"vLLM failed: {first_line(error)}")))

    async def _begin(self) -> None:
        request, shop = self._request, self._shop
        _check(request)
        reading = await shop.reader.read(request)
        form = None
        if request.constraint is not None and shop.forms is not None:
            form = await asyncio.to_thread(shop.forms.compile, request.constraint)
        if self.is_over:
            return
        answer = self._answer = TokenAnswer(request, reading, shop.tokenizer)
        ends_at = request.stopping.ends_at
        remaining = None if ends_at is None else ends_at - time.monotonic()
        if answer.finish is not None or (remaining is not None and remaining <= 0):
            self._close(answer.end(FinishReason.TIME_LIMIT))
            return
        if remaining is not None:
            self._timer = asyncio.get_running_loop().call_later(remaining, self._run_out)
        params = sampling_params(
            shop.library,
            request,
            reading,
            answer.stop_ids,
            None if form is None else form.grammar,
        )
        prompt = shop.library.tokens_input(reading.token_ids, cache_salt=request.cache_salt or None)
        lora = shop.adapters[request.adapter] if request.adapter else None
        self._collector = await shop.llm.add_request(self.key, prompt, params, lora_request=lora)
        if self.is_over:
            await self._leave_vllm()
            return
        if shop.speculates:
            self._collector.put = counting(self._collector.put, self._tally, shop.board)
        self._owner.begin(self, self._collector)

    def _take(self, output: Any) -> StepOutput | None:
        """Takes one of vLLM's outputs: of a step, or of several if nobody fetched them."""
        answer, (completion,) = self._open_answer(), output.outputs
        if answer.cached_tokens is None:
            answer.cached_tokens = output.num_cached_tokens
            answer.queue = _queue(output.metrics)
        if self._shop.speculates:
            answer.speculation = _exact(self._tally, completion) or self._tally.speculation()
        reason: str | None = completion.finish_reason
        if reason is not None and reason not in _ENDINGS:
            return self._over(StepOutput(self.key, error=self._breakdown(reason)))
        logprobs = None
        if completion.logprobs is not None:
            logprobs = [{token_id: one.logprob for token_id, one in place.items()} for place in completion.logprobs]
        told = answer.take(completion.token_ids, logprobs, ended=None if reason is None else _ENDINGS[reason])
        if answer.finish is None or told is None:
            return told
        if not output.finished:
            self._owner.spawn(self._leave_vllm())
        return self._over(told)

    def _run_out(self) -> None:
        """Ends the answer with what there is: its time limit has come."""
        if not self.is_over and self._collector is not None and (output := self.collect()) is not None:
            self._owner.tell(output)
        if not self.is_over:
            self._close(self._open_answer().end(FinishReason.TIME_LIMIT))

    def _open_answer(self) -> TokenAnswer:
        if self._answer is None:
            raise AssertionError("there is an answer once vLLM works on it")
        return self._answer

    def _close(self, last: StepOutput) -> None:
        """Ends it of our own accord."""
        self._owner.tell(self._over(last))
        if self._collector is not None:
            self._owner.spawn(self._leave_vllm())

    async def _leave_vllm(self) -> None:
        """Makes vLLM stop working on it."""
        with suppress(self._shop.library.EngineDeadError):  # of which every request is told anyway
            await self._shop.llm.abort(self.key)

    def _over(self, last: StepOutput) -> StepOutput:
        self.is_over = True
        if self._timer is not None:
            self._timer.cancel()
        return last

    def _breakdown(self, reason: str) -> EngineError:
        """Why vLLM gave a request up: it follows a constraint as far as it can, and takes itself apart when told to."""
        if reason == "error" and self._request.constraint is not None:
            field = _FIELDS[type(self._request.constraint)]
            return InvalidInputError(field, "it turned out too complex to be followed to the end of the answer")
        return EngineFailedError(f"vLLM gave the request up: {reason}")

    def _refusal(self, error: Exception) -> EngineError:
        """What an error means that vLLM calls the caller's mistake."""
        if self._request.constraint is not None:
            return InvalidInputError(_FIELDS[type(self._request.constraint)], f"vLLM refuses it: {first_line(error)}")
        field = _PARAMETERS.get(getattr(error, "parameter", None) or "") or input_field(self._request.input)
        return InvalidInputError(field, f"vLLM refuses it: {first_line(error)}")

    def _doubt(self, error: ValueError) -> EngineError:
        """What a ValueError means: of a constraint it is vLLM's own check; all else was checked here before."""
        if self._request.constraint is not None:
            return self._refusal(error)
        return EngineError(f"vLLM refused a request: {first_line(error)}")


def _exact(tally: Tally, completion: Any) -> Speculation | None:
    """The figures that vLLM itself keeps of a request, where it does (0.33 on); they come with its last output."""
    told = getattr(completion, "spec_decode_metrics", None)
    if told is None:
        return None
    accepted = sum(length * count for length, count in enumerate(told.histogram))
    return Speculation(tally.steps, told.num_draft_tokens, accepted)


def _queue(metrics: Any | None) -> float:
    """Seconds between vLLM's taking a request in and beginning it; without figures it is not known to have waited."""
    if metrics is None or not metrics.queued_ts or not metrics.scheduled_ts:
        return 0.0
    return max(0.0, float(metrics.scheduled_ts - metrics.queued_ts))


def _check(request: EngineRequest) -> None:
    """Refuses what vLLM would get wrong without a word."""
    sampling, stopping = request.sampling, request.stopping
    if request.held is not None and (sampling.frequency_penalty or sampling.presence_penalty):
        raise UnsupportedError(
            "continue_from", "this engine's frequency and presence penalties cannot count the held part"
        )
    if request.constraint is None:
        return
    if request.held is not None:
        raise UnsupportedError("continue_from", "this engine cannot advance a constraint over the held part")
    if stopping.ignore_eos:
        raise UnsupportedError("stopping.ignore_eos", "with a constraint the answer must be able to end")
    if stopping.min_output_tokens:
        raise UnsupportedError("stopping.min_output_tokens", "with a constraint its form says when the answer may end")
