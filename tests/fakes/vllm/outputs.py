"""The outputs of a step."""

from collections.abc import MutableSequence, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass
class Logprob:
    """The log probability of a token."""

    logprob: float
    rank: int | None = None
    decoded_token: str | None = None


@dataclass
class RequestStateStats:
    """Timestamps of a request.

    Names that begin with q, s, f and l are by the monotonic clock of the engine's process.
    """

    num_generation_tokens: int = 0
    arrival_time: float = 0.0
    queued_ts: float = 0.0
    scheduled_ts: float = 0.0
    first_token_ts: float = 0.0
    last_token_ts: float = 0.0
    first_token_latency: float = 0.0
    is_corrupted: bool = False


@dataclass
class CompletionOutput:
    """An answer of a request."""

    index: int
    text: str
    token_ids: Sequence[int]
    cumulative_logprob: float | None
    logprobs: list[dict[int, Logprob]] | None
    routed_experts: Any = None
    finish_reason: str | None = None
    stop_reason: int | str | None = None
    lora_request: Any = None
    spec_decode_metrics: Any = None
    """Only in 0.33, with the last output."""


class RequestOutput:
    """The new output of a request. Outputs that are not fetched are merged."""

    def __init__(
        self,
        request_id: str,
        prompt: str | None,
        prompt_token_ids: list[int] | None,
        prompt_logprobs: Any,
        outputs: list[CompletionOutput],
        finished: bool,
        metrics: RequestStateStats | None = None,
        lora_request: Any = None,
        num_cached_tokens: int | None = None,
    ) -> None:
        self.request_id = request_id
        self.prompt = prompt
        self.prompt_token_ids = prompt_token_ids
        self.prompt_logprobs = prompt_logprobs
        self.outputs = outputs
        self.finished = finished
        self.metrics = metrics
        self.lora_request = lora_request
        self.num_cached_tokens = num_cached_tokens

    def add(self, next_output: "RequestOutput", aggregate: bool) -> None:
        """Merges the next output into this one."""
        assert aggregate, "only deltas are requested"
        self.finished |= next_output.finished
        mine, new = self.outputs[0], next_output.outputs[0]
        mine.text += new.text
        if not isinstance(mine.token_ids, MutableSequence):
            mine.token_ids = list(mine.token_ids)
        mine.token_ids.extend(new.token_ids)
        if new.logprobs:
            assert mine.logprobs is not None
            mine.logprobs.extend(new.logprobs)
        mine.finish_reason = new.finish_reason
        mine.stop_reason = new.stop_reason
        mine.spec_decode_metrics = mine.spec_decode_metrics or new.spec_decode_metrics
