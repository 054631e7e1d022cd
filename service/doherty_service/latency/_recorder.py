"""What the latency of the last minutes was, and what was counted since the server started."""

import math
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass

from doherty_service.latency._call import Call
from doherty_service.latency._causes import AbortCause

THRESHOLD = 0.4
"""Seconds. People and computers keep pace when neither waits longer: W. J. Doherty and A. J. Thadani, "The Economic
Value of Rapid Response Time", IBM, 1982."""

_MOST_ANSWERS = 20_000
"""How many answers are kept at the most: a few megabytes."""


@dataclass(frozen=True, slots=True)
class Quantiles:
    """Three quantiles in seconds, by nearest rank; None where nothing was measured."""

    p50: float | None
    p90: float | None
    p99: float | None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The latency of the answers that ended OK within a window."""

    window: float
    answers: int
    queue: Quantiles
    time_to_first_token: Quantiles
    time_to_last_token: Quantiles
    time_per_output_token: Quantiles
    first_token_share: float | None
    last_token_share: float | None


@dataclass(frozen=True, slots=True)
class _Sample:
    ended: float
    queue: float | None
    time_to_first_token: float | None
    time_to_last_token: float | None
    time_per_output_token: float | None


class LatencyRecorder:
    """Keeps the latency of every complete answer for a rolling window, and counts those that ended early."""

    def __init__(self, window: float) -> None:
        """`window` is in seconds."""
        self.window = window
        self.started = time.monotonic()
        self.aborts: Counter[AbortCause] = Counter()
        self.refusals: Counter[str] = Counter()
        """By the reason that the caller was told."""
        self.engine_restarts = 0
        self.free_times: deque[tuple[AbortCause | None, float]] = deque(maxlen=1000)
        self._samples: deque[_Sample] = deque(maxlen=_MOST_ANSWERS)

    def record(self, call: Call) -> None:
        """Takes in a call whose answer is complete."""
        now = time.monotonic()
        self._samples.append(
            _Sample(now, call.queue, call.time_to_first_token, call.time_to_last_token, call.time_per_output_token)
        )
        while self._samples[0].ended < now - self.window:
            self._samples.popleft()

    def slot_freed(self, cause: AbortCause | None, seconds: float) -> None:
        """Takes note of how long the engine's slot stayed taken after a request was aborted."""
        self.free_times.append((cause, seconds))

    def snapshot(self, window: float | None = None) -> Snapshot:
        """Sums up the last `window` seconds, or all that is kept."""
        window = self.window if window is None else min(window, self.window)
        oldest = time.monotonic() - window
        samples = [sample for sample in self._samples if sample.ended >= oldest]
        if len(samples) == _MOST_ANSWERS:  # those before them are forgotten
            window = time.monotonic() - samples[0].ended
        first = [sample.time_to_first_token for sample in samples]
        last = [sample.time_to_last_token for sample in samples]
        return Snapshot(
            window=window,
            answers=len(samples),
            queue=quantiles([sample.queue for sample in samples]),
            time_to_first_token=quantiles(first),
            time_to_last_token=quantiles(last),
            time_per_output_token=quantiles([sample.time_per_output_token for sample in samples]),
            first_token_share=_share_within(first),
            last_token_share=_share_within(last),
        )


def quantiles(values: Sequence[float | None]) -> Quantiles:
    """The three quantiles of those values that are known."""
    known = sorted(value for value in values if value is not None)
    if not known:
        return Quantiles(None, None, None)
    p50, p90, p99 = (known[math.ceil(share * len(known)) - 1] for share in (0.5, 0.9, 0.99))
    return Quantiles(p50, p90, p99)


def _share_within(values: Sequence[float | None]) -> float | None:
    """The share of the values within the threshold; an answer without any token counts as outside of it."""
    if not values:
        return None
    return sum(value is not None and value <= THRESHOLD for value in values) / len(values)
