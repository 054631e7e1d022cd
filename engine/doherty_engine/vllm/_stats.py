"""Reads vLLM's statistics of each step, and assigns the drafts to requests."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from doherty_engine._engine import Drafting
from doherty_engine._outputs import Speculation


@dataclass(slots=True)
class Tally:
    """The counts of speculative decoding for one request."""

    steps: int = 0
    """The steps in which the request got tokens."""
    draft_tokens: float = 0.0
    accepted_tokens: int = 0

    def speculation(self) -> Speculation:
        """The counts as integers."""
        return Speculation(self.steps, max(round(self.draft_tokens), self.accepted_tokens), self.accepted_tokens)


@dataclass(slots=True)
class Board:
    """The statistics since the start."""

    kv_cache_use: float | None = None
    """The share of the KV cache in use, 0 to 1."""
    last_step: float | None = None
    """When vLLM last computed something, including parts of prompts (`time.monotonic()`)."""
    drafts: int = 0
    draft_tokens: int = 0
    accepted_by_position: list[int] = field(default_factory=list)
    _drafted: list[Tally] = field(default_factory=list)
    """Requests that got tokens in this step, except first tokens, which are not drafted."""

    def count(self, tally: Tally, token_ids: Sequence[int]) -> None:
        """Counts the tokens that a request got in a step: the accepted draft tokens, and one more."""
        if not token_ids:
            return
        if tally.steps:
            tally.accepted_tokens += len(token_ids) - 1
            self._drafted.append(tally)
        tally.steps += 1

    def record(self, scheduler_stats: Any | None) -> None:
        """Takes the SchedulerStats of a step. Called after `count` for all its requests."""
        self.last_step = time.monotonic()
        drafted, self._drafted = self._drafted, []
        if scheduler_stats is None:
            return
        self.kv_cache_use = scheduler_stats.kv_cache_usage
        stats = scheduler_stats.spec_decoding_stats
        if stats is None:
            return
        self.drafts += stats.num_drafts
        self.draft_tokens += stats.num_draft_tokens
        accepted = stats.num_accepted_tokens_per_pos
        self.accepted_by_position += [0] * (len(accepted) - len(self.accepted_by_position))
        for position, number in enumerate(accepted):
            self.accepted_by_position[position] += number
        # vLLM reports the total number of draft tokens. A head drafts the same number for each request.
        for tally in drafted:
            tally.draft_tokens += stats.num_draft_tokens / len(drafted)

    def drafting(self) -> Drafting:
        """The counts over all requests."""
        return Drafting(self.drafts, self.draft_tokens, tuple(self.accepted_by_position))


def counting(put: Callable[[Any], None], tally: Tally, board: Board) -> Callable[[Any], None]:
    """Wraps the `put` of a collector to count each step, because the collector merges steps that are not fetched."""

    def count_and_put(output: Any) -> None:
        if not isinstance(output, Exception):
            board.count(tally, output.outputs[0].token_ids)
        put(output)

    return count_and_put


def stat_logger(base: type, board: Board) -> type:
    """Returns a logger class for vLLM that only updates `board`.

    `base` is vLLM's PrometheusStatLogger. If a subclass of it is given, vLLM does not create its own one, whose dozens
    of metrics would cost more per step than everything that this engine does.
    """

    def record(_: object, scheduler_stats: Any | None, *_ignored: object, **__: object) -> None:
        board.record(scheduler_stats)

    def ignore(*_: object, **__: object) -> None:
        """Replaces methods of the base class."""

    ignored = ("__init__", "log", "log_engine_initialized", "record_sleep_state")
    return type("BoardLogger", (base,), {"record": record, **dict.fromkeys(ignored, ignore)})
