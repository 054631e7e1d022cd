"""What the latency of the last minutes was, and what was counted and measured since the server started."""

import math
import time
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from doherty_service.telemetry._causes import AbortCause
from doherty_service.telemetry._record import OTHER_RPC, RequestRecord

THRESHOLD = 0.4
"""Seconds. People and computers keep pace when neither waits longer: W. J. Doherty and A. J. Thadani, "The Economic
Value of Rapid Response Time", IBM, 1982."""

_MOST_ANSWERS = 20_000
"""How many answers are kept at the most: a few megabytes."""


# fmt: off
BOUNDS = (
    0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2,
    0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6, 0.8, 1.0, 1.5, 2.5, 5.0, 10.0,
)
# fmt: on
"""Seconds, each the upper end of a bucket and part of it; one of them is the Doherty threshold."""


class Histogram:
    """Counts values by bucket; the last bucket has no upper end."""

    def __init__(self) -> None:
        self.sum = 0.0
        self._counts = [0] * (len(BOUNDS) + 1)

    def observe(self, value: float) -> None:
        """Takes in one value, in seconds."""
        self._counts[bisect_left(BOUNDS, value)] += 1
        self.sum += value

    def observe_each(self, values: Sequence[float]) -> None:
        """Takes in many values in ascending order."""
        if len(values) < len(BOUNDS):
            for value in values:
                self._counts[bisect_left(BOUNDS, value)] += 1
            self.sum += sum(values)
            return
        below = 0
        for bucket, bound in enumerate(BOUNDS):
            upto = bisect_right(values, bound, below)
            self._counts[bucket] += upto - below
            below = upto
        self._counts[-1] += len(values) - below
        self.sum += sum(values)

    def cumulative(self) -> Iterator[tuple[float, int]]:
        """Each upper end with the number of values up to it; the last is infinite."""
        total = 0
        for bound, count in zip((*BOUNDS, float("inf")), tuple(self._counts), strict=True):
            total += count
            yield bound, total


class TokenKind(StrEnum):
    """Which tokens are counted."""

    PROMPT = "prompt"
    """Without those of a held part."""
    OUTPUT = "output"
    """Delivered, also of answers that were not completed."""
    CACHED = "cached"
    """Those that the model had to read and that were still in the KV cache."""


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


class _Sample(NamedTuple):
    ended: float
    queue: float | None
    time_to_first_token: float | None
    time_to_last_token: float | None
    time_per_output_token: float | None


class LatencyRecorder:
    """Keeps the latency of every complete answer for a rolling window, and counts all calls since the server started.

    A request is taken in at its end; nothing here is touched while tokens flow.
    """

    def __init__(self, window: float) -> None:
        """`window` is in seconds."""
        self.window = window
        self.started = time.monotonic()
        self.aborts: Counter[AbortCause] = Counter()
        self.refusals: Counter[str] = Counter()
        """By the reason that the caller was told."""
        self.engine_restarts = 0
        self.requests: Counter[tuple[str, str, str]] = Counter()
        """Calls that have ended, by rpc, status and the name of the key."""
        self.tokens: Counter[tuple[TokenKind, str]] = Counter()
        """By kind and the name of the key."""
        self.durations: defaultdict[tuple[str, str], Histogram] = defaultdict(Histogram)
        """To the terminal status, by rpc and status."""
        self.spans: defaultdict[tuple[str, str], Histogram] = defaultdict(Histogram)
        """By the name of the span, as `RequestRecord.spans` has it, and rpc; "inter_token": between messages."""
        self.slot_frees: dict[AbortCause | None, Histogram] = defaultdict(Histogram)
        """How long the engine's slot stayed taken after an abort, by cause."""
        self._samples: deque[_Sample] = deque(maxlen=_MOST_ANSWERS)

    def finish(self, record: RequestRecord) -> None:
        """Takes in a request that has ended; its status says how."""
        rpc, key, status = record.rpc, record.caller.name, record.status
        self.requests[rpc, status, key] += 1
        if record.abort_cause is not None:
            self.aborts[record.abort_cause] += 1
        if rpc != OTHER_RPC and not record.carries_requests:  # these last for hours, as a health watch does
            self.durations[rpc, status].observe(record.elapsed())
        if not record.is_answer:
            return
        if record.prompt_tokens is not None:
            self.tokens[TokenKind.PROMPT, key] += record.prompt_tokens
        self.tokens[TokenKind.OUTPUT, key] += record.output_tokens
        if record.cached_tokens is not None:
            self.tokens[TokenKind.CACHED, key] += record.cached_tokens
        for name, seconds in record.spans():
            if name != "time_to_last_token" or record.summarized is not None:  # an answer cut off has no last token
                self.spans[name, rpc].observe(seconds)
        if record.gaps:
            self.spans["inter_token", rpc].observe_each(record.gaps)
        if record.summarized is not None and status == "OK":
            self.record(record)

    def record(self, record: RequestRecord) -> None:
        """Takes a request whose answer is complete into the rolling window."""
        now = time.monotonic()
        self._samples.append(
            _Sample(
                now,
                record.queue,
                record.time_to_first_token,
                record.time_to_last_token,
                record.time_per_output_token,
            )
        )
        while self._samples[0].ended < now - self.window:
            self._samples.popleft()

    def slot_freed(self, cause: AbortCause | None, seconds: float) -> None:
        """Takes note of how long the engine's slot stayed taken after a request was aborted."""
        self.slot_frees[cause].observe(seconds)

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
