"""One request of the TensorRT-LLM engine."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from doherty_engine._budget import input_field
from doherty_engine._errors import EngineError, EngineFailedError, InvalidInputError, first_line, is_shortage
from doherty_engine._outputs import Finish, FinishReason
from doherty_engine._requests import EngineRequest
from doherty_engine.constraints import constraint_field
from doherty_engine.tokens import PreparedInput, RequestOwner, TokenAnswer, TokenRequest
from doherty_engine.trtllm._context import TrtLlmContext
from doherty_engine.trtllm._results import ResultReader

_CANCEL_SECONDS = 10.0
"""A cancelled request normally ends within a step. If the worker has died, it never ends at 1.2.x."""
_CANCEL_CHECKS = 10
"""The timeout is divided into parts, so that a pause of the whole process counts as one part only."""


class TrtLlmRequest(TokenRequest[TrtLlmContext]):
    """One request.

    `on_fault` is called if TensorRT-LLM as a whole has failed.
    """

    def __init__(
        self, request: EngineRequest, context: TrtLlmContext, owner: RequestOwner, on_fault: Callable[[str], None]
    ) -> None:
        super().__init__(request, context, owner)
        self._on_fault = on_fault
        self._results: ResultReader | None = None
        self._is_aborted = False
        self._watch: asyncio.TimerHandle | None = None

    def abort(self) -> None:
        """Makes TensorRT-LLM drop the request. Its last output follows when TensorRT-LLM has confirmed this."""
        if self._results is None:
            super().abort()
        elif not self._is_aborted and not self.is_over:
            self._is_aborted = True
            self._drop()

    async def _generate(self, answer: TokenAnswer, prepared: PreparedInput, guide: Any) -> None:
        self._check_size(prepared)
        result = self._submit(answer, prepared, guide)
        self._results = results = ResultReader(result, wants_logprobs=self._request.top_logprobs is not None)
        is_first = True
        try:
            async for _ in result:
                step = results.step()
                if self.is_over or self._is_aborted:
                    continue  # produced before TensorRT-LLM processed the abort
                if is_first:
                    is_first = False
                    answer.queue = results.queue()
                ended = FinishReason.LENGTH if step.finish_reason == "length" else None
                self._take(step.token_ids, self._logprobs(step.token_ids, step.logprobs), ended=ended)
                if answer.finish is None and step.finish_reason == "stop":
                    self._take([self._context.sampling.end_id])  # TensorRT-LLM does not return this token
        finally:
            if self._watch is not None:
                self._watch.cancel()
        if self._is_aborted:
            self.end(FinishReason.ABORTED)
        elif not self.is_over:
            raise EngineFailedError(f"TensorRT-LLM ended an answer unexpectedly, with {results.finish_reason!r}")

    def _check_size(self, prepared: PreparedInput) -> None:
        count, maximum = len(prepared.token_ids), self._context.deployment.max_prompt_tokens
        if count > maximum:
            raise InvalidInputError(
                input_field(self._request.input),
                f"the prompt has {count} tokens, and this engine reads at most {maximum}",
            )

    def _submit(self, answer: TokenAnswer, prepared: PreparedInput, guide: Any) -> Any:
        request, context = self._request, self._context
        params = context.sampling.write(request, answer.stop_ids, prepared.max_new_tokens, guide)
        # It is a plain function. It must be called on the event loop on which its result is iterated.
        try:
            return context.llm.generate_async(
                prepared.token_ids,
                sampling_params=params,
                lora_request=context.adapters[request.adapter] if request.adapter else None,
                streaming=True,
                cache_salt=request.cache_salt or None,
            )
        except (TypeError, ValueError) as error:  # raised before the worker gets the request
            constraint = request.constraint
            field = input_field(request.input) if constraint is None else constraint_field(constraint)
            raise InvalidInputError(field, f"TensorRT-LLM refuses it: {first_line(error)}") from error

    def _explain(self, error: Exception) -> EngineError:
        if isinstance(error, self._context.request_error):
            return EngineFailedError(f"TensorRT-LLM refused it: {error}")
        if not is_shortage(error):
            self._on_fault(f"{type(error).__name__}: {error}")
        return super()._explain(error)

    def _add_counts(self, finish: Finish) -> Finish:
        results, context = self._results, self._context
        if results is None or not results.has_begun:
            return finish
        ended_itself = finish.reason in (FinishReason.STOP, FinishReason.LENGTH)
        return replace(
            finish,
            cached_tokens=results.cached_tokens if context.reports_cached_tokens else None,
            speculation=results.speculation(context.drafts_per_step),
            engine_time_to_first_token=results.time_to_first_token() if ended_itself else None,
        )

    def _drop(self) -> None:
        if self._results is not None and self._results.cancel():
            self._await_end(_CANCEL_CHECKS)

    def _await_end(self, checks_left: int) -> None:
        if checks_left:
            part = _CANCEL_SECONDS / _CANCEL_CHECKS
            self._watch = asyncio.get_running_loop().call_later(part, self._await_end, checks_left - 1)
        else:
            self._on_fault(f"a cancelled request has not ended within {_CANCEL_SECONDS:g} s")
