"""What the latency of the last minutes was, and what was counted and measured since the server started."""

import math
import time
from collections import Counter, defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from doherty_service.latency._call import OTHER_RPC, Call
from doherty_service.latency._causes import AbortCause
from doherty_service.latency._histogram import Histogram

THRESHOLD = 0.4
"""Seconds. People and computers keep pace when neither waits longer: W. J. Doherty and A. J. Thadani, "The Economic
Value of Rapid Response Time", IBM, 1982."""

_MOST_ANSWERS = 20_000
"""How many answers are kept at the most: a few megabytes."""


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


@dataclass(frozen=True, slots=True)
class _Sample:
    ended: float
    queue: float | None
    time_to_first_token: float | None
    time_to_last_token: float | None
    time_per_output_token: float | None


class LatencyRecorder:
    """Keeps the latency of every complete answer for a rolling window, and counts all calls since the server started.

    A call is taken in at its end; nothing here is touched while tokens flow.
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
        """By the name of the span, as `Call.spans` has it, and rpc; "inter_token" is the gap between messages."""
        self.slot_frees: dict[AbortCause | None, Histogram] = defaultdict(Histogram)
        """How long the engine's slot stayed taken after an abort, by cause."""
        self._samples: deque[_Sample] = deque(maxlen=_MOST_ANSWERS)

    def finish(self, call: Call) -> None:
        """Takes in a call that has ended; its status says how."""
        self.requests[call.rpc, call.status, call.key_name] += 1
        if call.abort_cause is not None:
            self.aborts[call.abort_cause] += 1
        if (
            call.rpc != OTHER_RPC and not call.carries_requests
        ):  # such last for hours, as a health watch, and say nothing
            self.durations[call.rpc, call.status].observe(call.elapsed())
        if not call.is_answer:
            return
        for kind, count in (
            (TokenKind.PROMPT, call.prompt_tokens),
            (TokenKind.OUTPUT, call.output_tokens),
            (TokenKind.CACHED, call.cached_tokens),
        ):
            if count is not None:
                self.tokens[kind, call.key_name] += count
        for name, seconds in call.spans():
            if name != "time_to_last_token" or call.summarized is not None:  # an answer cut off has no last token
                self.spans[name, call.rpc].observe(seconds)
        if call.gaps:
            self.spans["inter_token", call.rpc].observe_each(call.gaps)
        if call.summarized is not None and call.status == "OK":
            self.record(call)

    def record(self, call: Call) -> None:
        """Takes a call whose answer is complete into the rolling window."""
        now = time.monotonic()
        self._samples.append(
            _Sample(now, call.queue, call.time_to_first_token, call.time_to_last_token, call.time_per_output_token)
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
