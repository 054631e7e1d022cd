"""The figures of a step."""

from dataclasses import dataclass, field


@dataclass
class SpecDecodingStats:
    """The drafts of a step."""

    num_spec_tokens: int
    num_drafts: int = 0
    num_draft_tokens: int = 0
    num_accepted_tokens: int = 0
    num_accepted_tokens_per_pos: list[int] = field(default_factory=list)
    num_draft_tokens_per_pos: list[int] = field(default_factory=list)

    def observe_draft(self, num_draft_tokens: int, num_accepted_tokens: int) -> None:
        """Counts the draft of a request."""
        self.num_drafts += 1
        self.num_draft_tokens += num_draft_tokens
        self.num_accepted_tokens += num_accepted_tokens
        for position in range(num_accepted_tokens):
            self.num_accepted_tokens_per_pos[position] += 1


@dataclass
class SchedulerStats:
    """The state of the scheduler, with the fields that matter here."""

    num_running_reqs: int = 0
    num_waiting_reqs: int = 0
    kv_cache_usage: float = 0.0
    spec_decoding_stats: SpecDecodingStats | None = None


class IterationStats:
    """The figures of a step with outputs."""

    def __init__(self) -> None:
        self.num_generation_tokens = 0


@dataclass
class RequestSpecDecodeMetrics:
    """The drafts of a request; only in 0.33."""

    num_spec_tokens: int
    histogram: list[int] = field(default_factory=list)
    num_draft_tokens: int = 0
    per_step_accepted: list[int] = field(default_factory=list)
    per_step_drafted: list[int] = field(default_factory=list)

    def observe(self, num_draft_tokens: int, num_accepted: int, detailed: bool = False) -> None:
        """Counts a step."""
        self.histogram[num_accepted] += 1
        self.num_draft_tokens += num_draft_tokens
