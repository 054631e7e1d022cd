"""One request: hands it to TensorRT-LLM and turns what comes back into outputs, on the event loop."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from doherty_engine._budget import input_field
from doherty_engine._errors import EngineError, EngineFailedError, InvalidInputError, OutOfResourcesError, is_shortage
from doherty_engine._outputs import Finish, FinishReason, StepOutput
from doherty_engine._requests import EngineRequest
from doherty_engine.models import first_line
from doherty_engine.text import InputReader, Reading, TokenAnswer, Vocabulary
from doherty_engine.trtllm._constraints import check_company, field_of, guided_decoding
from doherty_engine.trtllm._grammars import GrammarTrial
from doherty_engine.trtllm._results import ResultReader, Step
from doherty_engine.trtllm._sampling import SamplingWriter

_CANCEL_SECONDS = 10.0
"""A cancelled request ends within a step; at 1.2.x one whose worker has died never does."""
_CANCEL_LOOKS = 10
"""The wait for its end has so many parts: of a process that was stopped meanwhile, only one is lost."""


@dataclass(frozen=True, slots=True)
class Workshop:
    """What all requests share."""

    llm: Any
    reader: InputReader
    vocabulary: Vocabulary
    sampling: SamplingWriter
    most_prompt_tokens: int
    """What TensorRT-LLM reads in one piece, the held part included."""
    drafts_per_step: int
    tells_cached_tokens: bool
    adapters: dict[str, Any]
    """LoRARequests by name."""
    request_error: type[Exception]
    """What TensorRT-LLM raises where only the one request has failed."""
    grammars: GrammarTrial | None
    """Tries constraints; None where there are none."""
    emit: Callable[[StepOutput], None]
    on_fault: Callable[[str], None]
    """Told when TensorRT-LLM as a whole has failed."""


class Run:
    """One request, and the handle that its owner aborts it by."""

    def __init__(self, request: EngineRequest, shop: Workshop) -> None:
        self._request = request
        self._shop = shop
        self._result: Any = None
        self._aborted = False
        self._is_over = False
        self._timers: list[asyncio.TimerHandle] = []

    def abort(self) -> None:
        """Makes TensorRT-LLM drop the request; its last output comes once that has said so."""
        if not self._aborted and not self._is_over:
            self._aborted = True
            self._cancel()

    async def work(self) -> None:
        """Does the work; whatever happens, there is exactly one last output, unless it is cancelled."""
        try:
            await self._answer()
        except EngineError as error:
            self._end(StepOutput(self._request.key, error=error))
        except self._shop.request_error as error:
            self._end(StepOutput(self._request.key, error=EngineFailedError(f"TensorRT-LLM refused it: {error}")))
        except Exception as error:  # noqa: BLE001  the caller must hear of any failure, or it waits for ever
            what = f"{type(error).__name__}: {error}"
            if is_shortage(error):
                failure: EngineError = OutOfResourcesError(what)
            else:
                self._shop.on_fault(what)
                failure = EngineFailedError(what)
            failure.__cause__ = error
            self._end(StepOutput(self._request.key, error=failure))
        finally:
            for timer in self._timers:
                timer.cancel()

    def drop(self) -> None:
        """Ends it for its caller, of an engine that is stopped."""
        self._end(StepOutput(self._request.key, finish=Finish(FinishReason.ABORTED)))

    async def _answer(self) -> None:
        request, shop = self._request, self._shop
        check_company(request)
        reading = await shop.reader.read(request)
        self._check_size(reading)
        guide = None
        if request.constraint is not None and shop.grammars is not None:
            guide = await asyncio.to_thread(guided_decoding, request.constraint, shop.grammars)
        answer = TokenAnswer(request, reading, shop.vocabulary)
        if self._aborted:
            self._end(answer.end(FinishReason.ABORTED))
        elif answer.finish is not None:  # in the held part
            self._end(answer.end(FinishReason.STOP))
        else:
            await self._generate(answer, reading, guide)

    def _check_size(self, reading: Reading) -> None:
        count = len(reading.prompt_ids) + len(reading.held_ids)
        if count > self._shop.most_prompt_tokens:
            raise InvalidInputError(
                input_field(self._request.input),
                f"{count} tokens are to be read, and this engine reads at most {self._shop.most_prompt_tokens}",
            )

    async def _generate(self, answer: TokenAnswer, reading: Reading, guide: Any) -> None:
        request, shop = self._request, self._shop
        params = shop.sampling.write(request, answer.stop_ids, reading.left, guide)
        lora = shop.adapters[request.adapter] if request.adapter else None
        # A plain function, which must be called, and its result iterated, on one running loop.
        try:
            self._result = shop.llm.generate_async(
                reading.token_ids,
                sampling_params=params,
                lora_request=lora,
                streaming=True,
                cache_salt=request.cache_salt or None,
            )
        except (TypeError, ValueError) as error:  # it has not gone to the worker, which is as well as before
            raise self._refusal(error) from error
        self._watch_time(answer)
        results = ResultReader(self._result, wants_logprobs=request.top_logprobs is not None)
        is_first = True
        async for _ in self._result:
            step = results.step()
            if self._is_over or self._aborted:
                continue  # what had been under way before TensorRT-LLM saw the abort
            if is_first:
                is_first = False
                answer.queue = results.queue()
            self._take(answer, step, results)
        if not self._is_over:
            self._end(self._last_words(answer))

    def _refusal(self, error: Exception) -> InvalidInputError:
        """What it means that TensorRT-LLM does not take the request."""
        constraint = self._request.constraint
        field = input_field(self._request.input) if constraint is None else field_of(constraint)
        return InvalidInputError(field, f"TensorRT-LLM refuses it: {first_line(error)}")

    def _take(self, answer: TokenAnswer, step: Step, results: ResultReader) -> None:
        """Takes a step, and ends the answer if that is due."""
        if self._shop.tells_cached_tokens:
            answer.cached_tokens = int(self._result.cached_tokens)
        answer.speculation = results.speculation(self._shop.drafts_per_step)
        ended = FinishReason.LENGTH if step.finish_reason == "length" else None
        outputs = [answer.take(step.token_ids, step.logprobs, ended=ended)]
        if answer.finish is None and step.finish_reason == "stop":
            outputs.append(answer.take([self._shop.sampling.end_id]))  # which TensorRT-LLM has kept to itself
        for output in outputs:
            if output is not None and not output.is_last:
                self._shop.emit(output)
            elif output is not None:
                self._end(output, results.time_to_first_token())

    def _last_words(self, answer: TokenAnswer) -> StepOutput:
        if self._aborted:
            return answer.end(FinishReason.ABORTED)
        reason = self._result.outputs[0].finish_reason
        raise EngineFailedError(f"TensorRT-LLM ended an answer by itself, as {reason!r}")

    def _watch_time(self, answer: TokenAnswer) -> None:
        ends_at = self._request.stopping.ends_at
        if ends_at is not None:
            wait = max(0.0, ends_at - time.monotonic())
            self._timers.append(asyncio.get_running_loop().call_later(wait, self._end_by_time, answer))

    def _end_by_time(self, answer: TokenAnswer) -> None:
        if not self._is_over and not self._aborted:
            self._end(answer.end(FinishReason.TIME_LIMIT))

    def _end(self, output: StepOutput, time_to_first_token: float | None = None) -> None:
        """Emits the last output, and makes sure that TensorRT-LLM has no more to do for the request."""
        if self._is_over:
            return
        self._is_over = True
        if output.finish is not None and time_to_first_token is not None:
            output = output._replace(finish=replace(output.finish, engine_time_to_first_token=time_to_first_token))
        self._cancel()
        self._shop.emit(output)

    def _cancel(self) -> None:
        if self._result is not None and not self._result.finished:
            self._result.abort()
            self._await_end(_CANCEL_LOOKS)

    def _await_end(self, looks: int) -> None:
        if looks:
            part = _CANCEL_SECONDS / _CANCEL_LOOKS
            self._timers.append(asyncio.get_running_loop().call_later(part, self._await_end, looks - 1))
        else:
            self._shop.on_fault(f"a cancelled request has not ended within {_CANCEL_SECONDS:g} s")
