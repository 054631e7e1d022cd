"""One request of the vLLM engine."""

from contextlib import suppress
from dataclasses import replace
from typing import Any

from doherty_engine._budget import input_field
from doherty_engine._errors import EngineError, EngineFailedError, InvalidInputError, UnsupportedError
from doherty_engine._outputs import Finish, FinishReason, Speculation
from doherty_engine._requests import EngineRequest
from doherty_engine.constraints import CompiledConstraint, constraint_field
from doherty_engine.tokens import PreparedInput, RequestOwner, TokenAnswer, TokenRequest
from doherty_engine.vllm._context import VllmContext
from doherty_engine.vllm._library import first_lines
from doherty_engine.vllm._sampling import sampling_params
from doherty_engine.vllm._stats import Tally, counting

_ENDINGS = {"stop": FinishReason.STOP, "length": FinishReason.LENGTH}
"""Maps vLLM's names for the normal ends of answers to ours."""
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
"""Maps the parameter names in vLLM's errors to fields of a request."""


class VllmRequest(TokenRequest[VllmContext]):
    """A request that vLLM answers."""

    def __init__(self, request: EngineRequest, context: VllmContext, owner: RequestOwner) -> None:
        super().__init__(request, context, owner)
        self._collector: Any = None
        self._output: Any = None
        """The latest output of vLLM."""
        self._cached_tokens: int | None = None
        self._tally = Tally()

    def collect(self) -> None:
        """Reads what vLLM generated since the last call, which may be the output of several steps."""
        if self._collector is None or self.is_over:
            return
        try:
            output = self._collector.get_nowait()
            if output is not None:
                self._read(output)
        except self._context.library.VLLMClientError as error:
            self.fail(self._refusal(error))
        except Exception as error:  # noqa: BLE001  if vLLM's output handler fails, every collector raises its exception
            self.fail(EngineFailedError(f"vLLM failed: {first_lines(error)}"))

    async def _generate(self, answer: TokenAnswer, prepared: PreparedInput, guide: CompiledConstraint | None) -> None:
        request, context = self._request, self._context
        grammar = None if guide is None else guide.grammar
        params = sampling_params(context.library, request, prepared, answer.stop_ids, grammar)
        prompt = context.library.tokens_input(prepared.token_ids, cache_salt=request.cache_salt or None)
        lora = context.adapters[request.adapter] if request.adapter else None
        self._collector = collector = await context.llm.add_request(self.key, prompt, params, lora_request=lora)
        if self.is_over:
            await self._leave_vllm()
            return
        if context.speculates:
            collector.put = counting(collector.put, self._tally, context.board)
        collector.ready = context.has_outputs
        context.has_outputs.set()  # there may already be outputs

    def _read(self, output: Any) -> None:
        (completion,) = output.outputs
        self._output = output
        if self._cached_tokens is None and self._answer is not None:
            self._cached_tokens = output.num_cached_tokens
            self._answer.queue = _queue(output.metrics)
        reason: str | None = completion.finish_reason
        if reason is not None and reason not in _ENDINGS:
            self.fail(self._breakdown(reason))
            return
        logprobs = None
        if completion.logprobs is not None:
            positions = [
                {token_id: entry.logprob for token_id, entry in entries.items()} for entries in completion.logprobs
            ]
            logprobs = self._logprobs(completion.token_ids, positions)
        self._take(completion.token_ids, logprobs, ended=None if reason is None else _ENDINGS[reason])

    def _run_out_of_time(self) -> None:
        self.collect()
        super()._run_out_of_time()

    def _add_counts(self, finish: Finish) -> Finish:
        if self._output is None:
            return finish
        speculation = None
        if self._context.speculates:
            speculation = _exact(self._tally, self._output.outputs[0]) or self._tally.speculation()
        return replace(finish, cached_tokens=self._cached_tokens, speculation=speculation)

    def _drop(self) -> None:
        if self._collector is not None and not (self._output is not None and self._output.finished):
            self._owner.spawn(self._leave_vllm())

    async def _leave_vllm(self) -> None:
        """Aborts the request in vLLM."""
        with suppress(self._context.library.EngineDeadError):  # all requests fail with it anyway
            await self._context.llm.abort(self.key)

    def _check(self) -> None:
        super()._check()
        sampling, stopping = self._request.sampling, self._request.stopping
        if self._request.prefix is not None and (sampling.frequency_penalty or sampling.presence_penalty):
            raise UnsupportedError(
                "continue_from", "this engine's frequency and presence penalties cannot count the prefix"
            )
        if self._request.constraint is not None and stopping.min_output_tokens:
            raise UnsupportedError("stopping.min_output_tokens", "a constraint determines when the answer may end")

    def _explain(self, error: Exception) -> EngineError:
        library = self._context.library
        if isinstance(error, library.EngineDeadError):
            return EngineFailedError(first_lines(error))
        if isinstance(error, library.VLLMClientError):
            return self._refusal(error)
        if isinstance(error, ValueError):
            # With a constraint, the error comes from vLLM's check of it. Everything else was checked before.
            if self._request.constraint is not None:
                return self._refusal(error)
            return EngineError(f"vLLM refused a request: {first_lines(error)}")
        return super()._explain(error)

    def _breakdown(self, reason: str) -> EngineError:
        """Returns the error for an abnormal end. vLLM reports "error" if it cannot follow a grammar."""
        if reason == "error" and self._request.constraint is not None:
            field = constraint_field(self._request.constraint)
            return InvalidInputError(
                field, "it is too complex: the engine could not follow it to the end of the answer"
            )
        return EngineFailedError(f"vLLM ended the request abnormally: {reason}")

    def _refusal(self, error: Exception) -> EngineError:
        """Converts an error that, according to vLLM, the request caused."""
        if self._request.constraint is not None:
            field = constraint_field(self._request.constraint)
        else:
            field = _PARAMETERS.get(getattr(error, "parameter", None) or "") or input_field(self._request.input)
        return InvalidInputError(field, f"vLLM refuses it: {first_lines(error)}")


def _exact(tally: Tally, completion: Any) -> Speculation | None:
    """The counts that vLLM itself keeps for a request; they come with its last output. None before vLLM 0.33."""
    metrics = getattr(completion, "spec_decode_metrics", None)
    if metrics is None:
        return None
    accepted = sum(length * count for length, count in enumerate(metrics.histogram))
    return Speculation(tally.steps, metrics.num_draft_tokens, accepted)


def _queue(metrics: Any | None) -> float:
    """Seconds between vLLM's acceptance and start of a request; 0 if unknown."""
    if metrics is None or not metrics.queued_ts or not metrics.scheduled_ts:
        return 0.0
    return max(0.0, float(metrics.scheduled_ts - metrics.queued_ts))
