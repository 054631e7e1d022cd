"""The figures of a step."""

from dataclasses import dataclass, field


@dataclass
class SpecDecodingStats:
    """What was drafted in a step."""

    num_spec_tokens: int
    num_drafts: int = 0
    num_draft_tokens: int = 0
    num_accepted_tokens: int = 0
    num_accepted_tokens_per_pos: list[int] = field(default_factory=list)
    num_draft_tokens_per_pos: list[int] = field(default_factory=list)


@dataclass
class SchedulerStats:
    """The state of the scheduler; the fields that matter here."""

    num_running_reqs: int = 0
    num_waiting_reqs: int = 0
    kv_cache_usage: float = 0.0
    spec_decoding_stats: SpecDecodingStats | None = None


class IterationStats:
    """What a step with outputs gave."""

    def __init__(self) -> None:
        self.num_generation_tokens = 0
