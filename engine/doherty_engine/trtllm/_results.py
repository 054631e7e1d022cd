"""Reads TensorRT-LLM's results. Each request has one result object that changes with every step, so values are copied.

The names are from `executor/result.py` at 1.2 (GenerationResultBase, CompletionOutput) and from the bindings'
RequestPerfMetrics, which every result contains if the request asked for it (`LlmRequest::createResult`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from doherty_engine._outputs import Speculation


@dataclass(frozen=True, slots=True)
class Step:
    """The new part of a request's result."""

    token_ids: list[int]
    logprobs: list[Mapping[int, float]] | None
    """For each new token, the log probabilities of itself and of the most probable tokens; None if any is unknown."""
    finish_reason: str | None


class ResultReader:
    """Reads the result of a request. It keeps its own position, because TensorRT-LLM's is wrong in some cases."""

    def __init__(self, result: Any, *, wants_logprobs: bool) -> None:
        self._result = result
        self._wants_logprobs = wants_logprobs
        self._tokens = 0
        self.has_begun = False
        """Whether there has been a step."""

    @property
    def cached_tokens(self) -> int:
        """The number of prompt tokens that were in the KV cache."""
        return int(self._result.cached_tokens)

    @property
    def finish_reason(self) -> str | None:
        """The reason why TensorRT-LLM ended the answer; None before."""
        reason: str | None = self._result.outputs[0].finish_reason
        return reason

    def cancel(self) -> bool:
        """Makes TensorRT-LLM drop the request. Returns whether the request was still running."""
        is_running = not self._result.finished
        if is_running:
            self._result.abort()
        return is_running

    def step(self) -> Step:
        """Returns the new part since the last call."""
        self.has_begun = True
        output = self._result.outputs[0]
        token_ids = [int(token_id) for token_id in output.token_ids[self._tokens :]]
        logprobs = self._logprobs(output.logprobs, token_ids) if self._wants_logprobs else None
        self._tokens += len(token_ids)
        return Step(token_ids, logprobs, output.finish_reason)

    def _logprobs(self, everything: Any, token_ids: list[int]) -> list[Mapping[int, float]] | None:
        entries = (everything or [])[self._tokens : self._tokens + len(token_ids)]
        if len(entries) != len(token_ids) or not all(isinstance(entry, dict) for entry in entries):
            return None
        logprobs: list[Mapping[int, float]] = [
            {int(token_id): float(value.logprob) for token_id, value in entry.items()} for entry in entries
        ]
        is_complete = all(token_id in entry for token_id, entry in zip(token_ids, logprobs, strict=True))
        return logprobs if is_complete else None

    def queue(self) -> float:
        """Seconds from the arrival in TensorRT-LLM until it was first scheduled; 0 if unknown."""
        metrics = self._result.outputs[0].request_perf_metrics
        if metrics is None:
            return 0.0
        times = metrics.timing_metrics
        seconds: float = (times.first_scheduled_time - times.arrival_time).total_seconds()
        return max(0.0, seconds)

    def time_to_first_token(self) -> float | None:
        """Seconds from the arrival in TensorRT-LLM to the first token; None if unknown."""
        metrics = self._result.outputs[0].request_perf_metrics
        if metrics is None:
            return None
        times = metrics.timing_metrics
        seconds: float = (times.first_token_time - times.arrival_time).total_seconds()
        return seconds if seconds > 0 else None

    def speculation(self, drafts_per_step: int) -> Speculation | None:
        """The counts of speculative decoding so far; None if they are unknown.

        Args:
            drafts_per_step: The number of draft tokens that can be accepted per step, if it is constant; else 0.
        """
        steps = int(self._result.decoding_iter)
        metrics = self._result.outputs[0].request_perf_metrics
        if metrics is not None and metrics.speculative_decoding.total_draft_tokens > 0:
            drafts = metrics.speculative_decoding
            return Speculation(steps, int(drafts.total_draft_tokens), int(drafts.total_accepted_draft_tokens))
        if not drafts_per_step or not 0 < steps <= self._tokens:
            return None
        # The first step reads the prompt, without drafts. Every step adds one token of the model itself.
        return Speculation(steps, (steps - 1) * drafts_per_step, self._tokens - steps)
