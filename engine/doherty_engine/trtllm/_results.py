"""Reads TensorRT-LLM's results, of which one object per request changes at every step: what is needed is copied.

The names are those of `executor/result.py` at 1.2 (GenerationResultBase, CompletionOutput), and of the bindings'
RequestPerfMetrics, which comes with every result of a request that asked for it (`LlmRequest::createResult`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from doherty_engine._outputs import Speculation


@dataclass(frozen=True, slots=True)
class Step:
    """What is new in a request's result."""

    token_ids: list[int]
    logprobs: list[Mapping[int, float]] | None
    """One for each new token, of itself and of the most probable; None where any is not known."""
    finish_reason: str | None


class ResultReader:
    """Reads one request's result, with cursors of its own: TensorRT-LLM's are wrong in some cases."""

    def __init__(self, result: Any, *, wants_logprobs: bool) -> None:
        self._result = result
        self._wants_logprobs = wants_logprobs
        self._tokens = 0
        self.has_begun = False
        """Whether there has been a step."""

    @property
    def cached_tokens(self) -> int:
        """How many tokens of the prompt were in the KV cache."""
        return int(self._result.cached_tokens)

    @property
    def finish_reason(self) -> str | None:
        """Why TensorRT-LLM has ended the answer, if it has."""
        reason: str | None = self._result.outputs[0].finish_reason
        return reason

    def cancel(self) -> bool:
        """Makes TensorRT-LLM drop the request; returns whether its end is still to come."""
        is_running = not self._result.finished
        if is_running:
            self._result.abort()
        return is_running

    def step(self) -> Step:
        """What is new since it was last called."""
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
        read: list[Mapping[int, float]] = [
            {int(token_id): float(one.logprob) for token_id, one in entry.items()} for entry in entries
        ]
        return read if all(token_id in entry for token_id, entry in zip(token_ids, read, strict=True)) else None

    def queue(self) -> float:
        """Seconds that the request waited inside of TensorRT-LLM until it was first scheduled; 0 where not told."""
        metrics = self._result.outputs[0].request_perf_metrics
        if metrics is None:
            return 0.0
        times = metrics.timing_metrics
        seconds: float = (times.first_scheduled_time - times.arrival_time).total_seconds()
        return max(0.0, seconds)

    def time_to_first_token(self) -> float | None:
        """Seconds from its arrival there to its first token; None where not told."""
        metrics = self._result.outputs[0].request_perf_metrics
        if metrics is None:
            return None
        times = metrics.timing_metrics
        seconds: float = (times.first_token_time - times.arrival_time).total_seconds()
        return seconds if seconds > 0 else None

    def speculation(self, drafts_per_step: int) -> Speculation | None:
        """What drafting contributed so far; None where it cannot be told.

        Args:
            drafts_per_step: how many tokens of a step's drafts can be accepted, where that is always the same; else 0.
        """
        steps = int(self._result.decoding_iter)
        metrics = self._result.outputs[0].request_perf_metrics
        if metrics is not None and metrics.speculative_decoding.total_draft_tokens > 0:
            drafts = metrics.speculative_decoding
            return Speculation(steps, int(drafts.total_draft_tokens), int(drafts.total_accepted_draft_tokens))
        if not drafts_per_step or not 0 < steps <= self._tokens:
            return None
        # The first step reads the prompt and has nothing drafted yet; every step adds one token of its own.
        return Speculation(steps, (steps - 1) * drafts_per_step, self._tokens - steps)
