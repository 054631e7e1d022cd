"""What vLLM tells once a step of all requests together, and what of it belongs to each request."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from doherty_engine._engine import Drafting
from doherty_engine._outputs import Speculation


@dataclass(slots=True)
class Tally:
    """What drafts brought one request so far."""

    steps: int = 0
    """Those that gave it tokens."""
    draft_tokens: float = 0.0
    accepted_tokens: int = 0

    def speculation(self) -> Speculation:
        """The figures, as whole numbers."""
        return Speculation(self.steps, max(round(self.draft_tokens), self.accepted_tokens), self.accepted_tokens)


@dataclass(slots=True)
class Board:
    """The figures so far."""

    kv_cache_use: float | None = None
    """The share of the KV cache in use, 0 to 1."""
    last_step: float | None = None
    """When vLLM last computed something, a part of a prompt included, by `time.monotonic()`."""
    drafts: int = 0
    draft_tokens: int = 0
    accepted_by_position: list[int] = field(default_factory=list)
    _drafted: list[Tally] = field(default_factory=list)
    """Requests that got tokens in this step, but for their first ones, which need no draft."""

    def count(self, tally: Tally, token_ids: Sequence[int]) -> None:
        """Takes what a step gave a request: the tokens of its draft that were accepted, and one more."""
        if not token_ids:
            return
        if tally.steps:
            tally.accepted_tokens += len(token_ids) - 1
            self._drafted.append(tally)
        tally.steps += 1

    def record(self, scheduler_stats: Any | None) -> None:
        """Takes a step's SchedulerStats, behind what it gave each request."""
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
        # vLLM tells how many tokens it drafted for all of them. A head drafts the same number for each.
        for tally in drafted:
            tally.draft_tokens += stats.num_draft_tokens / len(drafted)

    def drafting(self) -> Drafting:
        """What drafts brought all requests together."""
        return Drafting(self.drafts, self.draft_tokens, tuple(self.accepted_by_position))


def counting(put: Callable[[Any], None], tally: Tally, board: Board) -> Callable[[Any], None]:
    """A collector's `put` that counts first: what the collector gives may be several steps merged."""

    def count_and_put(output: Any) -> None:
        if not isinstance(output, Exception):
            board.count(tally, output.outputs[0].token_ids)
        put(output)

    return count_and_put


def stat_logger(base: type, board: Board) -> type:
    """A logger for vLLM that keeps `board`, and nothing else.

    `base` is vLLM's PrometheusStatLogger: where one of its kind is given, vLLM makes none itself, whose dozens of
    metrics nobody reads here would cost more a step than everything that this engine does.
    """

    def record(_: object, scheduler_stats: Any | None, *_ignored: object, **__: object) -> None:
        board.record(scheduler_stats)

    def ignore(*_: object, **__: object) -> None:
        """For what the base would set up or show."""

    ignored = ("__init__", "log", "log_engine_initialized", "record_sleep_state")
    return type("BoardLogger", (base,), {"record": record, **dict.fromkeys(ignored, ignore)})
