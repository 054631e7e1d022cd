"""What vLLM tells once a step of all requests together."""

import time
from dataclasses import dataclass
from typing import Any

from doherty_engine._outputs import Speculation


@dataclass(slots=True)
class Board:
    """The figures so far."""

    kv_cache_use: float | None = None
    """The share of the KV cache in use, 0 to 1."""
    last_step: float | None = None
    """When vLLM last computed something, a part of a prompt included, by `time.monotonic()`."""
    steps: int = 0
    """Those that gave tokens."""
    draft_tokens: int = 0
    accepted_tokens: int = 0

    def record(self, scheduler_stats: Any | None, iteration_stats: Any | None) -> None:
        """Takes a step's SchedulerStats, and its IterationStats if it gave outputs."""
        self.last_step = time.monotonic()
        if iteration_stats is not None:
            self.steps += 1
        if scheduler_stats is None:
            return
        self.kv_cache_use = scheduler_stats.kv_cache_usage
        drafts = scheduler_stats.spec_decoding_stats
        if drafts is not None:
            self.draft_tokens += drafts.num_draft_tokens
            self.accepted_tokens += drafts.num_accepted_tokens

    def mark(self) -> Speculation:
        """The figures of speculation so far."""
        return Speculation(self.steps, self.draft_tokens, self.accepted_tokens)

    def since(self, mark: Speculation) -> Speculation:
        """What was added since `mark`."""
        return Speculation(
            self.steps - mark.steps,
            self.draft_tokens - mark.draft_tokens,
            self.accepted_tokens - mark.accepted_tokens,
        )


def stat_logger(base: type, board: Board) -> type:
    """A logger for vLLM that keeps `board`, and nothing else.

    `base` is vLLM's PrometheusStatLogger: where one of its kind is given, vLLM makes none itself, whose dozens of
    metrics nobody reads here would cost more a step than everything that this engine does.
    """

    def record(_: object, scheduler_stats: Any | None, iteration_stats: Any | None, **__: object) -> None:
        board.record(scheduler_stats, iteration_stats)

    def ignore(*_: object, **__: object) -> None:
        """For what the base would set up or show."""

    ignored = ("__init__", "log", "log_engine_initialized", "record_sleep_state")
    return type("BoardLogger", (base,), {"record": record, **dict.fromkeys(ignored, ignore)})
