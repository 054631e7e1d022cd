"""The loads."""

from dataclasses import dataclass

_SLOTS = 64
ANSWER_TOKENS = 170
"""The length of an answer, the same as in the benchmarks on a GPU."""


@dataclass(frozen=True)
class Load:
    """A number of streams with a given speed, or a pattern of calls."""

    name: str
    title: str
    streams: int
    pace: int
    """Tokens per second of each stream; 0 means as fast as possible."""
    answer_tokens: int = ANSWER_TOKENS
    burst_every: float = 0.0
    """Seconds between bursts of `streams` new calls. With 0, a call starts when the previous one has ended."""
    whole: bool = False
    """Whether answers are unary."""
    staggered: bool = False
    """Whether the first answers have different lengths, so that they do not end at the same time."""
    warm_up: float = 0.5
    figures: tuple[str, ...] = ("cpu_per_token", "both_cpu_per_token", "latency_p50", "latency_p99", "ttft_p50")
    """The figures that this load is for."""

    @property
    def engine_options(self) -> dict[str, str]:
        """The options of the synthetic engine."""
        return {"tokens_per_second": str(self.pace), "slots": str(max(_SLOTS, self.streams))}

    def first_length(self, number: int) -> int:
        """Returns the number of tokens of the first answer of a stream."""
        if not self.staggered:
            return self.answer_tokens
        return max(1, self.answer_tokens * (number + 1) // self.streams)


def _steady(streams: int) -> Load:
    return Load(f"{streams}x200", f"{streams} streams x 200 tokens per second", streams, 200, staggered=True)


def _unending(pace: int) -> Load:
    """Answers that last longer than the window. Undelivered tokens accumulate; the clock does not slow down."""
    return Load(
        f"64x{pace}",
        f"64 streams x {pace} tokens per second",
        64,
        pace,
        answer_tokens=3 * pace,
        figures=("cpu_per_token", "latency_p50", "latency_p99", "delivered"),
    )


LOADS = {
    load.name: load
    for load in (
        _steady(1),
        _steady(8),
        _steady(32),
        _steady(64),
        _unending(333),
        _unending(667),
        Load(
            "flood",
            "64 streams as fast as possible",
            64,
            0,
            answer_tokens=4000,
            staggered=True,
            figures=("cpu_per_token", "tokens_per_second"),
        ),
        Load(
            "burst",
            "64 new calls at once",
            64,
            200,
            answer_tokens=16,
            burst_every=0.3,
            warm_up=0.29,
            figures=("cpu_per_request", "ttft_p50", "ttft_p99"),
        ),
        Load(
            "unary",
            "32 whole answers of 16 tokens in flight, as fast as possible",
            32,
            0,
            answer_tokens=16,
            whole=True,
            figures=("cpu_per_request", "requests_per_second"),
        ),
    )
}
